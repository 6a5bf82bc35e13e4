//! Where a run stands: the progress line of a terminal, and the plain line of everything else.
//!
//! Pure: counters and the time come in as arguments, text goes out. The line has the shape that
//! users of rsync's `--info=progress2` know:
//!
//! ```text
//!   1,238,099,000  45%  146.38MB/s    0:00:08  (xfr#5, ir-chk=1024/4096)
//! ```
//!
//! Two promises are kept here. The percentage never runs backwards, although the scan keeps
//! finding more to do: it is clamped to the highest shown so far. And it is never 100 before the
//! run has returned, because until then the last flush can still fail.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::limits::RATE_WINDOW;
use crate::pass::Progress;
use crate::units::{clock, grouped, rate};

/// The counters of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub entries_scanned: u64,
    pub entries_done: u64,
    pub bytes_planned: u64,
    pub bytes_copied: u64,
    pub bytes_done: u64,
    pub bytes_verified: u64,
    pub files_copied: u64,
    pub failed: u64,
    pub pass: u64,
    pub scan_complete: bool,
}

impl Snapshot {
    pub fn of(progress: &Progress) -> Self {
        Self {
            entries_scanned: progress.entries_scanned.get(),
            entries_done: progress.entries_done.get(),
            bytes_planned: progress.bytes_planned.get(),
            bytes_copied: progress.bytes_copied.get(),
            bytes_done: progress.bytes_done.get(),
            bytes_verified: progress.bytes_verified.get(),
            files_copied: progress.files_copied.get(),
            failed: progress.failed.get(),
            pass: progress.pass.get(),
            scan_complete: progress.scan_complete.load(Ordering::Relaxed),
        }
    }

    /// Bytes that went through copyd: written by a copy, read by a verify.
    const fn moved(&self, compares: bool) -> u64 {
        if compares { self.bytes_verified } else { self.bytes_copied }
    }

    /// Bytes settled, holes included. A verify settles what it has compared.
    fn settled(&self, compares: bool) -> u64 {
        if compares { self.bytes_done.max(self.bytes_verified) } else { self.bytes_done }
    }

    /// What the run is doing, in words.
    pub const fn phase(&self) -> &'static str {
        if self.entries_scanned == 0 {
            "starting"
        } else if !self.scan_complete {
            "scanning and working"
        } else if self.entries_done < self.entries_scanned {
            "working"
        } else {
            "finishing"
        }
    }
}

/// A snapshot with what follows from the ones before it.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub snapshot: Snapshot,
    /// Never less than any reading before, never 100.
    pub percent: u8,
    /// Bytes moved in the last seconds, and the time that took.
    pub recent: (u64, Duration),
    /// Time left at that pace; `None` where it can't be told.
    pub left: Option<Duration>,
    pub elapsed: Duration,
    /// Content bytes settled so far.
    pub bytes: u64,
}

/// Turns snapshots into readings. One for each reader: it remembers a few seconds.
#[derive(Debug)]
pub struct Meter {
    compares: bool,
    percent: u8,
    window: VecDeque<(Duration, u64, u64)>,
}

impl Meter {
    /// `compares` is true for a verify, whose bytes are read and not written.
    pub const fn new(compares: bool) -> Self {
        Self { compares, percent: 0, window: VecDeque::new() }
    }

    /// Takes a snapshot; `elapsed` since the run began, not before that of the last call.
    pub fn read(&mut self, elapsed: Duration, snapshot: Snapshot) -> Reading {
        let settled = snapshot.settled(self.compares);
        self.percent = self.percent.max(percent(settled, &snapshot));
        self.window.push_back((elapsed, snapshot.moved(self.compares), settled));
        while self.window.len() > 2 && self.window.get(1).is_some_and(|(at, ..)| *at + RATE_WINDOW < elapsed) {
            self.window.pop_front();
        }
        let (from, moved, done) = self.window.front().copied().unwrap_or_default();
        let span = elapsed.saturating_sub(from);
        let recent = (snapshot.moved(self.compares).saturating_sub(moved), span);
        let missing = snapshot.bytes_planned.saturating_sub(settled);
        let left = remaining(missing, settled.saturating_sub(done), span);
        Reading { snapshot, percent: self.percent, recent, left, elapsed, bytes: settled }
    }
}

/// The time that `missing` bytes take at the pace of `settled` bytes in `span`.
fn remaining(missing: u64, settled: u64, span: Duration) -> Option<Duration> {
    let nanoseconds = u128::from(missing).checked_mul(span.as_nanos())?.checked_div(u128::from(settled))?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

/// 0 to 99: by bytes where there are bytes to move, else by entries.
fn percent(settled: u64, snapshot: &Snapshot) -> u8 {
    let (done, total) = if snapshot.bytes_planned > 0 {
        (settled, snapshot.bytes_planned)
    } else {
        (snapshot.entries_done, snapshot.entries_scanned)
    };
    if total == 0 {
        return 0;
    }
    let hundredths = u128::from(done.min(total)) * 100 / u128::from(total);
    u8::try_from(hundredths.min(99)).unwrap_or(99)
}

impl Reading {
    /// The terminal's line. `finished` only after the run returned complete: 100 %, and the time it took.
    pub fn line(&self, finished: bool) -> String {
        let snapshot = &self.snapshot;
        let percent = if finished { 100 } else { self.percent };
        let time = if finished { Some(self.elapsed) } else { self.left };
        let (moved, span) = if finished { (self.bytes, self.elapsed) } else { self.recent };
        let check = if snapshot.scan_complete { "to-chk" } else { "ir-chk" };
        let remaining = snapshot.entries_scanned.saturating_sub(snapshot.entries_done);
        format!(
            "{:>15} {percent:>3}% {:>11} {:>10}  (xfr#{}, {check}={remaining}/{})",
            grouped(self.bytes),
            rate(moved, span),
            time.map_or_else(|| "??:??:??".to_owned(), clock),
            snapshot.files_copied,
            snapshot.entries_scanned,
        )
    }

    /// The line for logs, pipes and SIGUSR1: words, no carriage return.
    pub fn plain(&self) -> String {
        let s = &self.snapshot;
        let mut text = String::from("copyd: ");
        if s.pass > 0 {
            // Writing to a `String` can't fail.
            let _ = write!(text, "pass {}, ", s.pass);
        }
        let _ = write!(
            text,
            "{}: {}%, {} of {} bytes, {}, {} of {} entries{}, {} files copied, {} failed, {} s",
            s.phase(),
            self.percent,
            grouped(self.bytes),
            grouped(s.bytes_planned),
            rate(self.recent.0, self.recent.1),
            grouped(s.entries_done),
            grouped(s.entries_scanned),
            if s.scan_complete { "" } else { " so far" },
            grouped(s.files_copied),
            grouped(s.failed),
            self.elapsed.as_secs(),
        );
        text
    }

    /// Bytes a second over the last seconds, whole.
    pub fn bytes_per_second(&self) -> u64 {
        let (moved, span) = self.recent;
        let rate = (u128::from(moved) * 1_000_000_000).checked_div(span.as_nanos()).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_line_has_the_shape_of_rsyncs_progress2() {
        let mut meter = Meter::new(false);
        let mut snapshot =
            Snapshot { entries_scanned: 4096, entries_done: 3000, bytes_planned: 2_751_331_111, ..Default::default() };
        meter.read(seconds(0), snapshot);
        snapshot.entries_done = 3072;
        snapshot.bytes_done = 1_238_099_000;
        snapshot.bytes_copied = 1_238_099_000;
        snapshot.files_copied = 5;
        let reading = meter.read(seconds(8), snapshot);
        assert_eq!(reading.line(false), "  1,238,099,000  45%  147.59MB/s    0:00:09  (xfr#5, ir-chk=1024/4096)");
        snapshot.scan_complete = true;
        assert!(meter.read(seconds(8), snapshot).line(false).ends_with("(xfr#5, to-chk=1024/4096)"));
    }

    #[test]
    fn an_unknown_rest_is_said_to_be_unknown() {
        let reading = Meter::new(false).read(seconds(1), Snapshot::default());
        assert_eq!(reading.line(false), "              0   0%    0.00kB/s   ??:??:??  (xfr#0, ir-chk=0/0)");
    }

    #[test]
    fn all_settled_is_99_percent_until_the_run_has_returned() {
        let snapshot = Snapshot {
            entries_scanned: 10,
            entries_done: 10,
            bytes_planned: 5 * MIB,
            bytes_done: 5 * MIB,
            scan_complete: true,
            ..Default::default()
        };
        let reading = Meter::new(false).read(seconds(2), snapshot);
        assert!(reading.line(false).contains(" 99% "));
        assert_eq!(reading.line(true), "      5,242,880 100%    2.50MB/s    0:00:02  (xfr#0, to-chk=0/10)");
    }

    #[test]
    fn a_tree_without_content_counts_by_entries() {
        let snapshot = Snapshot { entries_scanned: 4, entries_done: 1, ..Default::default() };
        assert_eq!(Meter::new(false).read(seconds(1), snapshot).percent, 25);
    }

    #[test]
    fn the_rate_forgets_what_lies_before_its_window() {
        let mut meter = Meter::new(false);
        let at = |meter: &mut Meter, s: u64, bytes: u64| {
            meter
                .read(seconds(s), Snapshot { bytes_copied: bytes, bytes_planned: 1, ..Default::default() })
                .bytes_per_second()
        };
        at(&mut meter, 0, 0);
        for s in 1..=10 {
            at(&mut meter, s, 100 * MIB);
        }
        assert_eq!(at(&mut meter, 20, 100 * MIB), 0, "nothing moved for longer than the window");
    }

    #[test]
    fn the_plain_line_says_pass_phase_entries_bytes_and_failures() {
        let snapshot = Snapshot {
            entries_scanned: 4096,
            entries_done: 3072,
            bytes_planned: 4000,
            bytes_done: 1000,
            failed: 2,
            pass: 2,
            scan_complete: true,
            ..Default::default()
        };
        let plain = Meter::new(false).read(seconds(61), snapshot).plain();
        assert_eq!(
            plain,
            "copyd: pass 2, working: 25%, 1,000 of 4,000 bytes, 0.00kB/s, 3,072 of 4,096 entries, 0 files copied, \
             2 failed, 61 s"
        );
    }

    proptest! {
        #[test]
        fn the_percentage_never_runs_backwards_and_never_says_100(
            steps in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40, 0u64..1000, 0u64..1000), 1..40)
        ) {
            let mut meter = Meter::new(false);
            let mut snapshot = Snapshot::default();
            let mut last = 0;
            for (at, (planned, done, scanned, settled)) in steps.into_iter().enumerate() {
                snapshot.bytes_planned += planned;
                snapshot.bytes_done = (snapshot.bytes_done + done).min(snapshot.bytes_planned);
                snapshot.entries_scanned += scanned;
                snapshot.entries_done = (snapshot.entries_done + settled).min(snapshot.entries_scanned);
                let percent = meter.read(seconds(at as u64), snapshot).percent;
                prop_assert!(percent >= last && percent < 100);
                last = percent;
            }
        }
    }
}
