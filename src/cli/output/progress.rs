//! Where a run stands: the progress line of a terminal, and the plain line of everything else.
//!
//! Pure: what the worker said comes in, text goes out. The line has the shape that users of rsync's
//! `--info=progress2` know:
//!
//! ```text
//!   1,238,099,000  45%  146.38MB/s    0:00:08  (xfr#5, ir-chk=1024/4096)
//! ```
//!
//! Where nothing moves, who does not answer follows.

use std::fmt::Write as _;
use std::time::Duration;

use crate::units::{clock, grouped, rate};
use crate::worker::{Stall, Standing};

/// The terminal's line. `finished` only after the run returned complete: 100 %, and the time it took.
pub fn line(s: &Standing, stall: Option<&Stall>, finished: bool) -> String {
    let elapsed = Duration::from_secs_f64(s.elapsed_s.max(0.0));
    let percent = if finished { 100 } else { s.percent };
    let time = if finished { Some(elapsed) } else { s.left_s.map(Duration::from_secs) };
    let (moved, span) = if finished { (s.bytes_done, elapsed) } else { (s.bytes_per_s, Duration::from_secs(1)) };
    let check = if s.scan_complete { "to-chk" } else { "ir-chk" };
    let remaining = s.entries_scanned.saturating_sub(s.entries_done);
    let stall = stall.filter(|_| !finished).map(|stall| format!("  {stall}")).unwrap_or_default();
    format!(
        "{:>15} {percent:>3}% {:>11} {:>10}  (xfr#{}, {check}={remaining}/{}){stall}",
        grouped(s.bytes_done),
        rate(moved, span),
        time.map_or_else(|| "??:??:??".to_owned(), clock),
        s.files_copied,
        s.entries_scanned,
    )
}

/// The line for logs, pipes and SIGUSR1: words, no carriage return.
pub fn plain(s: &Standing, stall: Option<&Stall>) -> String {
    let mut text = String::from("copyd: ");
    if s.pass > 0 {
        // Writing to a `String` can't fail.
        let _ = write!(text, "pass {}, ", s.pass);
    }
    let phase = if s.phase.is_empty() { "starting" } else { &s.phase };
    let _ = write!(
        text,
        "{phase}: {}%, {} of {} bytes, {}, {} of {} entries{}, {} files copied, {} failed, {} s",
        s.percent,
        grouped(s.bytes_done),
        grouped(s.bytes_planned),
        rate(s.bytes_per_s, Duration::from_secs(1)),
        grouped(s.entries_done),
        grouped(s.entries_scanned),
        if s.scan_complete { "" } else { " so far" },
        grouped(s.files_copied),
        grouped(s.failed),
        Duration::from_secs_f64(s.elapsed_s.max(0.0)).as_secs(),
    );
    if let Some(stall) = stall {
        let _ = write!(text, "; {stall}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Side;

    #[test]
    fn the_line_has_the_shape_of_rsyncs_progress2() {
        let mut standing = Standing {
            entries_scanned: 4096,
            entries_done: 3072,
            bytes_planned: 2_751_331_111,
            bytes_done: 1_238_099_000,
            files_copied: 5,
            percent: 45,
            bytes_per_s: 154_762_375,
            left_s: Some(9),
            ..Default::default()
        };
        let expected = "  1,238,099,000  45%  147.59MB/s    0:00:09  (xfr#5, ir-chk=1024/4096)";
        assert_eq!(line(&standing, None, false), expected);
        standing.scan_complete = true;
        assert!(line(&standing, None, false).ends_with("(xfr#5, to-chk=1024/4096)"));
        let stall = Stall { side: Some(Side::Source), operation: Some("read".into()), seconds: 40 };
        assert!(line(&standing, Some(&stall), false).ends_with("4096)  no answer from source for 40 s (read)"));
    }

    #[test]
    fn an_unknown_rest_is_said_to_be_unknown() {
        let expected = "              0   0%    0.00kB/s   ??:??:??  (xfr#0, ir-chk=0/0)";
        assert_eq!(line(&Standing::default(), None, false), expected);
    }

    #[test]
    fn a_run_that_has_returned_complete_says_100_percent_and_the_time_it_took() {
        let standing = Standing {
            entries_scanned: 10,
            entries_done: 10,
            bytes_planned: 5 << 20,
            bytes_done: 5 << 20,
            percent: 99,
            scan_complete: true,
            elapsed_s: 2.0,
            ..Default::default()
        };
        assert!(line(&standing, None, false).contains(" 99% "));
        assert_eq!(line(&standing, None, true), "      5,242,880 100%    2.50MB/s    0:00:02  (xfr#0, to-chk=0/10)");
    }

    #[test]
    fn the_plain_line_says_pass_phase_entries_bytes_and_failures_and_who_does_not_answer() {
        let standing = Standing {
            phase: "working".into(),
            percent: 25,
            entries_scanned: 4096,
            entries_done: 3072,
            bytes_planned: 4000,
            bytes_done: 1000,
            failed: 2,
            pass: 2,
            scan_complete: true,
            elapsed_s: 61.4,
            ..Default::default()
        };
        let expected = "copyd: pass 2, working: 25%, 1,000 of 4,000 bytes, 0.00kB/s, 3,072 of 4,096 entries, 0 files \
                        copied, 2 failed, 61 s";
        assert_eq!(plain(&standing, None), expected);
        let stall = Stall { side: None, operation: None, seconds: 7 };
        assert_eq!(plain(&standing, Some(&stall)), format!("{expected}; nothing has moved for 7 s"));
    }
}
