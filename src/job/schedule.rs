//! When a pass is due: `every 15m`.
//!
//! Times are milliseconds since 1970 and arguments; nothing here looks at a clock.

use std::str::FromStr;

use crate::limits;
use crate::units::parse_duration;

/// The time from the start of one pass to the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub every_ms: u64,
}

/// A text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no schedule: write `every` and a duration of {} s to {} s, for example `every 15m`", limits::SCHEDULE_S.start(), limits::SCHEDULE_S.end())]
pub struct ScheduleError {
    given: String,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text
            .strip_prefix("every ")
            .and_then(|rest| parse_duration(rest.trim()).ok())
            .map(|time| time.as_secs())
            .filter(|seconds| limits::SCHEDULE_S.contains(seconds));
        seconds.map(|s| Self { every_ms: s * 1000 }).ok_or_else(|| ScheduleError { given: text.to_owned() })
    }
}

impl Schedule {
    /// When the next pass is due, after one that began then. A pass that took longer than the schedule is
    /// followed by the next at once, and those in between are left out.
    #[must_use]
    pub const fn next_ms(self, began_ms: u64, now_ms: u64) -> u64 {
        let due = began_ms.saturating_add(self.every_ms);
        if due < now_ms { now_ms } else { due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_every_and_a_duration() {
        for (text, ms) in
            [("every 15m", 900_000), ("every 90", 90_000), ("every  1h30m ", 5_400_000), ("every 1s", 1000)]
        {
            assert_eq!(text.parse(), Ok(Schedule { every_ms: ms }), "{text}");
        }
        for text in ["", "every", "every ", "15m", "every 0s", "every 9000d", "Every 5m", "every 5m and 3s", "every -1"]
        {
            assert!(text.parse::<Schedule>().is_err_and(|e| e.to_string().contains("every 15m")), "{text}");
        }
    }

    #[test]
    fn a_pass_that_took_too_long_is_followed_at_once() {
        let schedule = Schedule { every_ms: 1000 };
        assert_eq!(schedule.next_ms(5000, 5400), 6000);
        assert_eq!(schedule.next_ms(5000, 9000), 9000);
        assert_eq!(schedule.next_ms(u64::MAX, 9000), u64::MAX);
    }
}
