//! Numbers and times for people, as the report and the tables of `copyd job` show them.
//!
//! Times are UTC and say so: a report is read elsewhere than where it was made. Words are shorter than exact;
//! where a number counts, it stands beside them in full.

use jiff::Timestamp;

use crate::units::grouped;

/// A time: `2026-11-25 16:30:16 UTC`.
#[must_use]
pub fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{at_ms} ms after 1970"), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// The hour of a time: `16:30:16`.
#[must_use]
pub fn clock(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| at_ms.to_string(), |at| at.strftime("%H:%M:%S").to_string())
}

/// A stretch of time in its two largest units: `3 d 4 h`, `1 h 12 min`, `42 s`, `0.8 s`, `3 ms`.
#[must_use]
pub fn span(length_ms: u64) -> String {
    let seconds = length_ms / 1000;
    let pair = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
    };
    match seconds {
        86_400.. => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        3600.. => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        60.. => pair(seconds / 60, "min", seconds % 60, "s"),
        10.. => format!("{seconds} s"),
        1.. => format!("{}.{} s", seconds, length_ms % 1000 / 100),
        0 if length_ms >= 100 => format!("0.{} s", length_ms / 100),
        0 => format!("{length_ms} ms"),
    }
}

/// As [`span`], of seconds.
#[must_use]
pub fn seconds(seconds: u64) -> String {
    if seconds < 10 { format!("{seconds} s") } else { span(seconds.saturating_mul(1000)) }
}

/// A size with three digits: `1.24 GiB`, `87.3 MiB`, `612 B`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut power = (bytes.ilog2() / 10) as usize;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let of = |power: usize| bytes as f64 / 1024_f64.powi(i32::try_from(power).unwrap_or(0));
    // What would be rounded to four digits is the next unit's.
    if of(power) >= 999.5 && power < UNITS.len() {
        power += 1;
    }
    let value = of(power);
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {}", UNITS[power - 1])
}

/// A size in words, and in full where the words dropped something: `1.24 GiB (1,331,439,861 bytes)`.
#[must_use]
pub fn size_in_full(bytes: u64) -> String {
    if bytes < 1024 { many(bytes, "byte", "bytes") } else { format!("{} ({} bytes)", size(bytes), grouped(bytes)) }
}

/// Bytes a second over a time: `112 MiB/s`.
#[must_use]
pub fn rate(bytes: u64, over_ms: u64) -> String {
    let per_s = u128::from(bytes) * 1000 / u128::from(over_ms.max(1));
    format!("{}/s", size(u64::try_from(per_s).unwrap_or(u64::MAX)))
}

/// A number and what it counts: `1 entry`, `1,380 entries`.
#[must_use]
pub fn many(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { more })
}

/// `1 entry`, `1,380 entries`.
#[must_use]
pub fn entries(n: u64) -> String {
    many(n, "entry", "entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_what_is_no_time_is_a_number() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(1_795_624_216_999), "2026-11-25 16:30:16 UTC");
        assert_eq!(clock(1_795_624_216_999), "16:30:16");
        assert!(utc(u64::MAX).ends_with("ms after 1970"));
    }

    #[test]
    fn spans_keep_their_two_largest_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (99, "99 ms"),
            (850, "0.8 s"),
            (1999, "1.9 s"),
            (42_900, "42 s"),
            (60_000, "1 min"),
            (3_599_000, "59 min 59 s"),
            (4_320_000, "1 h 12 min"),
            (86_400_000, "1 d"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
        assert_eq!(seconds(7), "7 s");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_235, "10.0 KiB"),
            (102_400, "100 KiB"),
            (1_047_552, "1.00 MiB"),
            (1_331_439_861, "1.24 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(size_in_full(2048), "2.00 KiB (2,048 bytes)");
        assert_eq!(size_in_full(1), "1 byte");
        assert_eq!(rate(2048, 2000), "1.00 KiB/s");
    }
}
