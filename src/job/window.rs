//! The hours of the day in which a job may run: `22:00-06:00`, `12:00-13:00,22:00-06:00 Europe/Berlin`.
//!
//! A range goes from its first minute up to its second one, that one excluded; one that ends before it begins
//! goes on after midnight. Without a zone the hours are those of UTC, so that a specification means the same on
//! every machine. Where a clock is put forward, a minute that does not exist is the one an hour later; where it is
//! put back, the first of two.

use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::limits::WINDOW_RANGES_MAX;

const DAY_MINUTES: u16 = 24 * 60;

/// Days that are looked ahead for where the window opens or closes next. Every window opens each day, and the
/// longest day has an hour more.
const DAYS_AHEAD: i64 = 3;

/// A window of the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Minutes of the day, from and up to; the second is the smaller one where midnight lies between.
    ranges: Vec<(u16, u16)>,
    zone: TimeZone,
}

/// Whether a window is open, and until when it stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// `None` where it never closes.
    Open {
        closes_ms: Option<u64>,
    },
    Closed {
        opens_ms: u64,
    },
}

/// A text that is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error(
        "{given:?} is no window: write hours of the day as in `22:00-06:00`, several with commas, and a time zone after them where it is not UTC: `22:00-06:00 Europe/Berlin`"
    )]
    Form { given: String },
    #[error(
        "{given:?} begins and ends at the same minute: write 00:00-24:00 for the whole day, or leave the window out"
    )]
    Empty { given: String },
    #[error("{given:?} is no time zone that is known here: give an IANA name, as in Europe/Berlin, or none for UTC")]
    Zone { given: String },
    #[error("the window has more than {WINDOW_RANGES_MAX} ranges")]
    Many,
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let (ranges, zone) = match text.trim().split_once(' ') {
            Some((ranges, zone)) => (ranges, zone.trim()),
            None => (text.trim(), "UTC"),
        };
        let ranges = ranges.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
        if ranges.len() > WINDOW_RANGES_MAX {
            return Err(WindowError::Many);
        }
        let zone = TimeZone::get(zone).map_err(|_| WindowError::Zone { given: zone.to_owned() })?;
        Ok(Self { ranges, zone })
    }
}

fn range(text: &str) -> Result<(u16, u16), WindowError> {
    let no_range = || WindowError::Form { given: text.to_owned() };
    let (from, to) = text.split_once('-').ok_or_else(no_range)?;
    let (from, to) = (minute(from).ok_or_else(no_range)?, minute(to).ok_or_else(no_range)?);
    if from == DAY_MINUTES {
        return Err(no_range());
    }
    if from == to {
        return Err(WindowError::Empty { given: text.to_owned() });
    }
    Ok((from, to))
}

/// `HH:MM` from `00:00` to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let [a, b, b':', c, d] = text.as_bytes() else { return None };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let (hour, minute) = (digit(a)? * 10 + digit(b)?, digit(c)? * 10 + digit(d)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

impl Window {
    /// Whether it is open, in milliseconds since 1970.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Now {
        let spans = self.spans(now_ms);
        let Some(&(_, last)) = spans.last() else { return Now::Open { closes_ms: None } };
        for &(from, to) in &spans {
            if now_ms < from {
                return Now::Closed { opens_ms: from };
            }
            if now_ms < to {
                // What goes on to the end of all that is looked at has no end.
                return Now::Open { closes_ms: (to < last).then_some(to) };
            }
        }
        // Only at the end of time, where no day follows.
        Now::Open { closes_ms: None }
    }

    /// When it is open around this time, in order and without overlap.
    fn spans(&self, now_ms: u64) -> Vec<(u64, u64)> {
        let now = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let Some(today) = now.map(|now| self.zone.to_datetime(now).date()) else { return Vec::new() };
        let mut spans = Vec::new();
        for days in -1..=DAYS_AHEAD {
            let Ok(day) = today.checked_add(days.days()) else { continue };
            for &(from, to) in &self.ranges {
                let ends_on = if to <= from { day.tomorrow().ok() } else { Some(day) };
                let to = ends_on.and_then(|day| self.instant(day, to));
                if let (Some(from), Some(to)) = (self.instant(day, from), to)
                    && from < to
                {
                    spans.push((from, to));
                }
            }
        }
        spans.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }

    fn instant(&self, day: Date, minutes: u16) -> Option<u64> {
        let (day, minutes) = if minutes == DAY_MINUTES { (day.tomorrow().ok()?, 0) } else { (day, minutes) };
        let hour = i8::try_from(minutes / 60).ok()?;
        let minute = i8::try_from(minutes % 60).ok()?;
        let civil = day.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
        let instant = self.zone.to_ambiguous_timestamp(civil).compatible().ok()?;
        u64::try_from(instant.as_millisecond()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> u64 {
        let instant: Timestamp = text.parse().expect("a time");
        u64::try_from(instant.as_millisecond()).expect("after 1970")
    }

    fn at(window: &str, time: &str) -> Now {
        window.parse::<Window>().expect("a window").at(ms(time))
    }

    fn open_until(time: &str) -> Now {
        Now::Open { closes_ms: Some(ms(time)) }
    }

    fn closed_until(time: &str) -> Now {
        Now::Closed { opens_ms: ms(time) }
    }

    #[test]
    fn a_window_goes_on_after_midnight_and_excludes_its_last_minute() {
        let night = "22:00-06:00";
        assert_eq!(at(night, "2026-03-01T21:59:59Z"), closed_until("2026-03-01T22:00:00Z"));
        assert_eq!(at(night, "2026-03-01T22:00:00Z"), open_until("2026-03-02T06:00:00Z"));
        assert_eq!(at(night, "2026-03-02T05:59:59Z"), open_until("2026-03-02T06:00:00Z"));
        assert_eq!(at(night, "2026-03-02T06:00:00Z"), closed_until("2026-03-02T22:00:00Z"));
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let window = "08:00-12:00,12:00-13:00,12:30-14:00";
        assert_eq!(at(window, "2026-03-01T09:00:00Z"), open_until("2026-03-01T14:00:00Z"));
        assert_eq!(at("20:00-24:00,00:00-02:00", "2026-03-01T21:00:00Z"), open_until("2026-03-02T02:00:00Z"));
        for whole_day in ["00:00-24:00", "06:00-18:00,18:00-06:00"] {
            assert_eq!(at(whole_day, "2026-03-01T21:00:00Z"), Now::Open { closes_ms: None }, "{whole_day}");
        }
    }

    #[test]
    fn a_zone_moves_the_hours_and_its_clock_changes_count() {
        let berlin = "22:00-06:00 Europe/Berlin";
        assert_eq!(at(berlin, "2026-01-10T20:59:00Z"), closed_until("2026-01-10T21:00:00Z"));
        assert_eq!(at(berlin, "2026-07-10T20:01:00Z"), open_until("2026-07-11T04:00:00Z"));
        // Put forward at 01:00Z on 29 March, so that this night has an hour less.
        assert_eq!(at(berlin, "2026-03-28T21:00:00Z"), open_until("2026-03-29T04:00:00Z"));
        // A minute that does not exist: half past two that night is half past three.
        assert_eq!(at("02:30-05:00 Europe/Berlin", "2026-03-29T00:00:00Z"), closed_until("2026-03-29T01:30:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused_with_what_was_given() {
        for text in [
            "",
            "22:00",
            "22-06",
            "22:00-6:00",
            "24:00-06:00",
            "22:60-23:00",
            "25:00-26:00",
            "a-b",
            "22:00-06:00,",
            ",",
            "２2:00-06:00",
        ] {
            let error = text.parse::<Window>().expect_err(text);
            assert!(matches!(error, WindowError::Form { .. }), "{text}: {error}");
        }
        assert!(matches!("06:00-06:00".parse::<Window>(), Err(WindowError::Empty { .. })));
        assert!(matches!("06:00-07:00 Europe/Nowhere".parse::<Window>(), Err(WindowError::Zone { .. })));
        let many = vec!["06:00-07:00"; WINDOW_RANGES_MAX + 1].join(",");
        assert_eq!(many.parse::<Window>(), Err(WindowError::Many));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,16}", near in "[0-9:,-]{0,30}( [A-Za-z/]{0,12})?") {
            let _ = (text.parse::<Window>(), near.parse::<Window>());
        }

        #[test]
        fn a_window_is_what_its_minutes_say(
            ranges in proptest::collection::vec((0_u16..1440, 1_u16..1440), 1..4),
            now in 1_700_000_000_000_u64..1_900_000_000_000,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, long)| (from, (from + long) % 1440)).collect();
            let text: Vec<_> = ranges
                .iter()
                .map(|(a, b)| format!("{:02}:{:02}-{:02}:{:02}", a / 60, a % 60, b / 60, b % 60))
                .collect();
            let window: Window = text.join(",").parse().expect("a window");
            let inside = |ms: u64| {
                let minute = u16::try_from(ms / 60_000 % 1440).expect("a minute of the day");
                ranges.iter().any(|&(from, to)| {
                    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
                })
            };
            match window.at(now) {
                Now::Open { closes_ms } => {
                    prop_assert!(inside(now));
                    let minutes_open = closes_ms.map_or(1440, |closes| (closes - now) / 60_000);
                    prop_assert!((0..minutes_open).all(|n| inside(now + n * 60_000)));
                    prop_assert!(closes_ms.is_none_or(|closes| closes > now && !inside(closes)));
                }
                Now::Closed { opens_ms } => {
                    prop_assert!(!inside(now) && inside(opens_ms) && opens_ms > now);
                    prop_assert!((0..(opens_ms - now) / 60_000).all(|n| !inside(now + n * 60_000)));
                }
            }
        }
    }
}
