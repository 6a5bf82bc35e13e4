//! Names of generations: a UTC time to the millisecond, and the job.
//!
//! The names sort by time, and the time in them is the one that counts: the directory's own times
//! change with what is moved in and out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

const DAY_S: u64 = 86_400;

/// When a generation was begun, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub job: Uuid,
}

impl Stamp {
    /// This moment. A clock before 1970 counts as 1970.
    #[must_use]
    pub fn now(job: Uuid) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX), job }
    }

    /// The milliseconds of this moment.
    #[must_use]
    pub fn now_ms() -> u64 {
        Self::now(Uuid::nil()).at_ms
    }

    /// Whether it is older than `age` at `now_ms`. One from the future is not.
    #[must_use]
    pub fn older_than(&self, age: Duration, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(self.at_ms)) > age.as_millis()
    }

    /// The time alone, as `--at` takes it.
    #[must_use]
    pub fn time(&self) -> String {
        let (seconds, ms) = (self.at_ms / 1000, self.at_ms % 1000);
        let (year, month, day) = date(seconds / DAY_S);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{ms:03}Z")
    }

    /// Reads the name of a generation; nothing for any other name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (time, job) = name.split_once('-')?;
        let job = Uuid::parse_str(job).ok()?;
        let digits = |range: std::ops::Range<usize>| -> Option<u64> {
            let text = time.get(range)?;
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let (days, clock) = (days(digits(0..4)?, digits(4..6)?, digits(6..8)?)?, digits(9..11)? * 3600);
        let seconds = days * DAY_S + clock + digits(11..13)? * 60 + digits(13..15)?;
        let stamp = Self { at_ms: seconds * 1000 + digits(16..19)?, job };
        (stamp.to_string() == name).then_some(stamp)
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.time(), self.job)
    }
}

/// Year, month and day, `days` after 1 January 1970, by the Gregorian calendar with years that begin
/// in March (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`date`]; nothing before 1970 or for a month that there is not.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    (era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generation_is_named_by_the_calendar() {
        let stamp = |at_ms| Stamp { at_ms, job: Uuid::nil() }.time();
        assert_eq!(stamp(0), "19700101T000000.000Z");
        // `date -u -d @951782400`, and of the last second of a leap year.
        assert_eq!(stamp(951_782_400_000), "20000229T000000.000Z");
        assert_eq!(stamp(1_735_689_599_999), "20241231T235959.999Z");
    }

    #[test]
    fn other_names_are_no_generations() {
        let id = Uuid::nil();
        for time in ["20261322T000000.000Z", "2026-1-1", "", "20261122T224430.123", "20260230T000000.000Z"] {
            assert_eq!(Stamp::parse(format!("{time}-{id}").as_bytes()), None, "{time}");
        }
        assert_eq!(Stamp::parse(b"record.jsonl"), None);
        assert_eq!(Stamp::parse(b"\xff"), None);
    }

    #[test]
    fn a_generation_from_the_future_is_not_old() {
        let stamp = Stamp { at_ms: 5000, job: Uuid::nil() };
        assert!(!stamp.older_than(Duration::ZERO, 4000));
        assert!(stamp.older_than(Duration::from_secs(1), 6001));
        assert!(!stamp.older_than(Duration::from_secs(1), 6000));
    }

    proptest! {
        #[test]
        fn a_name_reads_back_and_sorts_by_time(a in 0..253_402_300_799_999_u64, b in 0..253_402_300_799_999_u64) {
            let name = |at_ms| Stamp { at_ms, job: Uuid::from_u128(7) };
            prop_assert_eq!(Stamp::parse(name(a).to_string().as_bytes()), Some(name(a)));
            prop_assert_eq!(a.cmp(&b), name(a).to_string().cmp(&name(b).to_string()));
        }
    }
}
