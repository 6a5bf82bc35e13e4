//! Counters of one moment, and what follows from those before: percentage, rate, time left.
//!
//! Pure: counters and the time come in as arguments. Two promises are kept here. The percentage never runs
//! backwards, although the scan keeps finding more to do: it is clamped to the highest so far. And it is never
//! 100 before the run has returned, because until then the last flush can still fail.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::wire::{Standing, seconds};
use crate::limits::RATE_WINDOW;
use crate::pass::Progress;

/// Turns counters into standings. One for each reader: it remembers a few seconds.
#[derive(Debug)]
pub struct Meter {
    compares: bool,
    percent: u8,
    /// Time, bytes moved and bytes settled by then.
    window: VecDeque<(Duration, u64, u64)>,
}

impl Meter {
    /// `compares` is true for a verify, whose bytes are read and not written.
    #[must_use]
    pub const fn new(compares: bool) -> Self {
        Self { compares, percent: 0, window: VecDeque::new() }
    }

    /// Reads the counters; `elapsed` since the run began, not before that of the last call.
    pub fn read(&mut self, elapsed: Duration, still: Duration, progress: &Progress) -> Standing {
        let standing = Standing {
            pass: progress.pass.get(),
            phase: String::new(),
            percent: 0,
            entries_scanned: progress.entries_scanned.get(),
            entries_done: progress.entries_done.get(),
            scan_complete: progress.scan_complete.load(Ordering::Relaxed),
            bytes_planned: progress.bytes_planned.get(),
            bytes_done: progress.bytes_done.get(),
            bytes_copied: progress.bytes_copied.get(),
            bytes_verified: progress.bytes_verified.get(),
            files_copied: progress.files_copied.get(),
            files_unchanged: progress.files_unchanged.get(),
            deleted: progress.deleted.get(),
            failed: progress.failed.get(),
            bytes_per_s: 0,
            left_s: None,
            elapsed_s: seconds(elapsed),
            still_s: still.as_secs(),
        };
        self.follow(elapsed, standing)
    }

    /// Adds what follows from the counters.
    fn follow(&mut self, elapsed: Duration, mut standing: Standing) -> Standing {
        // A verify reads and settles what a copy writes.
        let moved = if self.compares { standing.bytes_verified } else { standing.bytes_copied };
        let settled =
            if self.compares { standing.bytes_done.max(standing.bytes_verified) } else { standing.bytes_done };
        self.percent = self.percent.max(percent(settled, &standing));
        self.window.push_back((elapsed, moved, settled));
        while self.window.len() > 2 && self.window.get(1).is_some_and(|(at, ..)| *at + RATE_WINDOW < elapsed) {
            self.window.pop_front();
        }
        let (from, moved_before, settled_before) = self.window.front().copied().unwrap_or_default();
        let span = elapsed.saturating_sub(from);
        let missing = standing.bytes_planned.saturating_sub(settled);
        standing.bytes_per_s = a_second(moved.saturating_sub(moved_before), span);
        standing.left_s = remaining(missing, settled.saturating_sub(settled_before), span);
        standing.percent = self.percent;
        standing.bytes_done = settled;
        standing.phase = phase(&standing).into();
        standing
    }
}

fn a_second(bytes: u64, span: Duration) -> u64 {
    let rate = (u128::from(bytes) * 1_000_000_000).checked_div(span.as_nanos()).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The seconds that `missing` bytes take at the pace of `settled` bytes in `span`.
fn remaining(missing: u64, settled: u64, span: Duration) -> Option<u64> {
    let nanoseconds = u128::from(missing).checked_mul(span.as_nanos())?.checked_div(u128::from(settled))?;
    u64::try_from(nanoseconds / 1_000_000_000).ok()
}

/// 0 to 99: by bytes where there are bytes to move, else by entries.
fn percent(settled: u64, standing: &Standing) -> u8 {
    let (done, total) = if standing.bytes_planned > 0 {
        (settled, standing.bytes_planned)
    } else {
        (standing.entries_done, standing.entries_scanned)
    };
    if total == 0 {
        return 0;
    }
    let hundredths = u128::from(done.min(total)) * 100 / u128::from(total);
    u8::try_from(hundredths.min(99)).unwrap_or(99)
}

/// What the run is doing, in words.
const fn phase(standing: &Standing) -> &'static str {
    if standing.entries_scanned == 0 {
        "starting"
    } else if !standing.scan_complete {
        "scanning and working"
    } else if standing.entries_done < standing.entries_scanned {
        "working"
    } else {
        "finishing"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn follow(meter: &mut Meter, s: u64, standing: &Standing) -> Standing {
        meter.follow(Duration::from_secs(s), standing.clone())
    }

    #[test]
    fn rate_and_time_left_follow_from_two_looks() {
        let mut meter = Meter::new(false);
        let mut now = Standing { bytes_planned: 2_751_331_111, entries_scanned: 4096, ..Default::default() };
        follow(&mut meter, 0, &now);
        (now.bytes_done, now.bytes_copied) = (1_238_099_000, 1_238_099_000);
        let found = follow(&mut meter, 8, &now);
        assert_eq!((found.percent, found.bytes_per_s, found.left_s), (45, 154_762_375, Some(9)));
    }

    #[test]
    fn all_settled_is_99_percent_until_the_run_has_returned() {
        let now = Standing { bytes_planned: 5 * MIB, bytes_done: 5 * MIB, ..Default::default() };
        assert_eq!(follow(&mut Meter::new(false), 2, &now).percent, 99);
    }

    #[test]
    fn a_tree_without_content_counts_by_entries_and_a_verify_by_what_it_has_read() {
        let now = Standing { entries_scanned: 4, entries_done: 1, ..Default::default() };
        assert_eq!(follow(&mut Meter::new(false), 1, &now).percent, 25);
        let now = Standing { bytes_planned: 4 * MIB, bytes_verified: MIB, ..Default::default() };
        let found = follow(&mut Meter::new(true), 1, &now);
        assert_eq!((found.percent, found.bytes_done), (25, MIB));
    }

    #[test]
    fn the_rate_forgets_what_lies_before_its_window() {
        let mut meter = Meter::new(false);
        let at = |meter: &mut Meter, s: u64, bytes: u64| {
            follow(meter, s, &Standing { bytes_copied: bytes, bytes_planned: 1, ..Default::default() }).bytes_per_s
        };
        at(&mut meter, 0, 0);
        for s in 1..=10 {
            at(&mut meter, s, 100 * MIB);
        }
        assert_eq!(at(&mut meter, 20, 100 * MIB), 0, "nothing moved for longer than the window");
    }

    proptest! {
        #[test]
        fn the_percentage_never_runs_backwards_and_never_says_100(
            steps in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40, 0u64..1000, 0u64..1000), 1..40)
        ) {
            let mut meter = Meter::new(false);
            let mut now = Standing::default();
            let mut last = 0;
            for (at, (planned, done, scanned, settled)) in steps.into_iter().enumerate() {
                now.bytes_planned += planned;
                now.bytes_done = (now.bytes_done + done).min(now.bytes_planned);
                now.entries_scanned += scanned;
                now.entries_done = (now.entries_done + settled).min(now.entries_scanned);
                let percent = follow(&mut meter, at as u64, &now).percent;
                prop_assert!(percent >= last && percent < 100);
                last = percent;
            }
        }
    }
}
