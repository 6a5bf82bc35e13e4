//! Sizes, rates and durations: read from options as rsync reads them, and written for people.

use std::time::Duration;

use crate::limits::{RATE_BYTES_PER_SECOND_MIN, SIZE_BYTES_MAX};

/// A value of an option that can't be used: what was given, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error(
        "{given:?} is no size: give a number, with a fraction where needed, and K, M, G, T or P (also KiB: powers of 1024; KB: powers of 1000), for example 1.5M"
    )]
    Size { given: String },
    #[error("{given:?} is too large: at most {SIZE_BYTES_MAX} bytes are allowed")]
    SizeTooLarge { given: String },
    #[error(
        "{given:?} is too small: at least {RATE_BYTES_PER_SECOND_MIN} bytes a second, or 0 for no limit (a plain number is in KiB)"
    )]
    RateTooSmall { given: String },
    #[error(
        "{given:?} is no duration: give seconds, or numbers with d, h, m and s from the largest to the smallest, for example 90, 5m or 1h30m"
    )]
    Duration { given: String },
    #[error("{given:?} is too long: at most {} seconds are allowed", u64::MAX)]
    DurationTooLong { given: String },
}

/// Reads a size in bytes, as rsync's `--max-size`: a plain number is bytes.
///
/// Suffixes are those of rsync(1), in either case: `K` and `KiB` are 1024, `KB` is 1000, and so for
/// `M`, `G`, `T` and `P`; `B` alone is bytes. A fraction of a byte is dropped.
///
/// # Errors
/// The text is no size, or one above [`SIZE_BYTES_MAX`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse_size_in(text, 1)
}

/// Reads a rate in bytes a second, as rsync's `--bwlimit`: a plain number is KiB a second, `0` is
/// no limit. Unlike rsync's, the rate isn't rounded to whole KiB.
///
/// # Errors
/// The text is no size, or one out of the limits.
pub fn parse_rate(text: &str) -> Result<Option<u64>, UnitError> {
    match parse_size_in(text, 1024)? {
        0 => Ok(None),
        rate if rate < RATE_BYTES_PER_SECOND_MIN => Err(UnitError::RateTooSmall { given: text.to_owned() }),
        rate => Ok(Some(rate)),
    }
}

fn parse_size_in(text: &str, plain_unit: u64) -> Result<u64, UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let no_size = || UnitError::Size { given: text.to_owned() };
    let unit = if suffix.is_empty() { plain_unit } else { size_unit(suffix).ok_or_else(no_size)? };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(no_size());
    }
    let too_large = || UnitError::SizeTooLarge { given: text.to_owned() };
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| too_large())? };
    let size = whole.checked_mul(unit).and_then(|size| size.checked_add(fraction_of(fraction, unit)));
    size.filter(|size| *size <= SIZE_BYTES_MAX).ok_or_else(too_large)
}

/// What a suffix multiplies by; none where there is no such suffix.
fn size_unit(suffix: &str) -> Option<u64> {
    let mut letters = suffix.chars();
    let power = match letters.next()?.to_ascii_lowercase() {
        'b' if suffix.len() == 1 => 0,
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        _ => return None,
    };
    match letters.as_str().to_ascii_lowercase().as_str() {
        "" | "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// `0.digits` of a unit, rounded down. Digits after the 18th are dropped: together they are less
/// than a byte of the largest unit (2⁵⁰), and more would not fit the product into 128 bits.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u128, 1_u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // Below the unit, so it fits.
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

/// Reads a duration: seconds, or numbers with `d`, `h`, `m`, `s`, each at most once and from the
/// largest to the smallest, as in `1h30m`.
///
/// # Errors
/// The text is no duration, or one that doesn't fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let no_duration = || UnitError::Duration { given: text.to_owned() };
    let too_long = || UnitError::DurationTooLong { given: text.to_owned() };
    let mut rest = text;
    let mut seconds = 0_u64;
    let mut unit_before = u64::MAX;
    if rest.is_empty() {
        return Err(no_duration());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, unit_and_rest) = rest.split_at(end);
        if number.is_empty() {
            return Err(no_duration());
        }
        let unit = match unit_and_rest.as_bytes().first() {
            Some(b'd') => 86_400,
            Some(b'h') => 3_600,
            Some(b'm') => 60,
            Some(b's') => 1,
            // Without a unit it is seconds, and only where it stands alone: `1h30` says nothing.
            None if unit_before == u64::MAX => 1,
            _ => return Err(no_duration()),
        };
        if unit >= unit_before {
            return Err(no_duration());
        }
        unit_before = unit;
        let number: u64 = number.parse().map_err(|_| too_long())?;
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(too_long)?;
        rest = unit_and_rest.get(1..).unwrap_or("");
    }
    Ok(Duration::from_secs(seconds))
}

/// A number with commas between thousands: `1,238,099`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rate of so many bytes in a time as rsync's progress writes it: `146.38kB/s`, then `MB/s`
/// and `GB/s`, each step 1024 (`progress.c`). Without time, the time is taken as a millisecond.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    // Two decimals are shown; 53 bits of mantissa are plenty.
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let kib = bytes as f64 / 1024.0 / time.as_secs_f64().max(0.001);
    let (value, unit) = if kib > 1024.0 * 1024.0 {
        (kib / (1024.0 * 1024.0), "GB/s")
    } else if kib > 1024.0 {
        (kib / 1024.0, "MB/s")
    } else {
        (kib, "kB/s")
    };
    format!("{value:.2}{unit}")
}

/// A time as `H:MM:SS`, parts of a second dropped; `??:??:??` above 9999 hours, as rsync has it,
/// because such an estimate says nothing.
#[must_use]
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds > 9999 * 3600 {
        return "??:??:??".to_owned();
    }
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_rsync_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("1K", 1024),
            ("1k", 1024),
            ("1KiB", 1024),
            ("1kib", 1024),
            ("1KB", 1000),
            ("1.5M", 1_572_864),
            ("1.5mb", 1_500_000),
            (".5g", 536_870_912),
            ("2.", 2),
            ("2T", 2 << 40),
            ("2PB", 2_000_000_000_000_000),
            ("0.3KB", 300),
            ("0.9999999999999999999999999K", 1023),
            ("9223372036854775807", SIZE_BYTES_MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_was_given() {
        for text in ["", ".", "K", "-1", "+1", "1.2.3", "1X", "1Ki", "1KBB", "1BiB", "1 K", "1e3", "1,5M", "½", "1é"]
        {
            assert_eq!(parse_size(text), Err(UnitError::Size { given: text.into() }), "{text}");
        }
        for text in ["9223372036854775808", "8192P", "99999999999999999999999", "18446744073709551615K"] {
            assert_eq!(parse_size(text), Err(UnitError::SizeTooLarge { given: text.into() }), "{text}");
        }
        assert!(parse_size("1X").unwrap_err().to_string().starts_with("\"1X\" is no size: give a number"));
    }

    #[test]
    fn a_plain_rate_is_in_kib_and_zero_is_no_limit() {
        assert_eq!(parse_rate("100"), Ok(Some(102_400)));
        assert_eq!(parse_rate("1.5"), Ok(Some(1536)));
        assert_eq!(parse_rate("1.5m"), Ok(Some(1_572_864)));
        assert_eq!(parse_rate("700B"), Ok(Some(700)));
        assert_eq!(parse_rate("0"), Ok(None));
        assert_eq!(parse_rate("0K"), Ok(None));
        assert_eq!(parse_rate("0.3"), Err(UnitError::RateTooSmall { given: "0.3".into() }));
        assert_eq!(parse_rate("9007199254740992"), Err(UnitError::SizeTooLarge { given: "9007199254740992".into() }));
    }

    #[test]
    fn durations_read_with_units_from_the_largest_to_the_smallest() {
        for (text, seconds) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("7d", 604_800),
            ("1h30m", 5400),
            ("1d2h3m4s", 93_784),
            ("90m", 5400),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "1x", "1h30", "30m1h", "1m1m", "-5", "1.5h", " 5m", "5m ", "5 m", "5M", "5é"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration { given: text.into() }), "{text}");
        }
        for text in ["18446744073709551616", "18446744073709551615d", "213503982334601d18446744073709551615s"] {
            assert_eq!(parse_duration(text), Err(UnitError::DurationTooLong { given: text.into() }), "{text}");
        }
    }

    #[test]
    fn output_has_the_shape_of_rsyncs_progress() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_238_099), "1,238,099");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(rate(149_893, Duration::from_secs(1)), "146.38kB/s");
        assert_eq!(rate(0, Duration::ZERO), "0.00kB/s");
        assert_eq!(rate(1 << 20, Duration::from_secs(1)), "1024.00kB/s");
        assert_eq!(rate(3 << 20, Duration::from_secs(2)), "1.50MB/s");
        assert_eq!(rate(5 << 30, Duration::from_secs(2)), "2.50GB/s");
        assert_eq!(clock(Duration::from_millis(8_999)), "0:00:08");
        assert_eq!(clock(Duration::from_secs(3_661)), "1:01:01");
        assert_eq!(clock(Duration::from_hours(100)), "100:00:00");
        assert_eq!(clock(Duration::MAX), "??:??:??");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,12}", near in "[0-9.]{0,30}[kKmMgGtTpPbBi]{0,4}[dhms0-9]{0,6}") {
            for text in [&text, &near] {
                let _ = (parse_size(text), parse_rate(text), parse_duration(text));
            }
        }

        #[test]
        fn a_size_is_the_exact_product_or_refused(whole in any::<u64>(), fraction in "[0-9]{0,12}", suffix in 0_usize..11) {
            const UNITS: [(&str, u64); 11] = [
                ("", 1), ("K", 1 << 10), ("MiB", 1 << 20), ("g", 1 << 30), ("T", 1 << 40), ("P", 1 << 50),
                ("kb", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("PB", 1_000_000_000_000_000),
            ];
            let (suffix, unit) = UNITS[suffix];
            for whole in [whole, whole % 1000] {
                let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap());
                let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().unwrap() };
                let exact = u128::from(whole) * u128::from(unit) + part * u128::from(unit) / scale;
                let expected = u64::try_from(exact).ok().filter(|size| *size <= SIZE_BYTES_MAX);
                prop_assert_eq!(parse_size(&format!("{whole}.{fraction}{suffix}")).ok(), expected);
            }
        }

        #[test]
        fn a_duration_is_the_sum_of_its_parts(d in 0_u64..100_000, h in 0_u64..1000, m in 0_u64..1000, s in 0_u64..1000) {
            let expected = Duration::from_secs(((d * 24 + h) * 60 + m) * 60 + s);
            prop_assert_eq!(parse_duration(&format!("{d}d{h}h{m}m{s}s")), Ok(expected));
            prop_assert_eq!(parse_duration(&expected.as_secs().to_string()), Ok(expected));
        }

        #[test]
        fn grouping_only_adds_commas(number in any::<u64>()) {
            let text = grouped(number);
            prop_assert_eq!(text.replace(',', ""), number.to_string());
            prop_assert!(text.rsplit(',').rev().skip(1).all(|group| group.len() == 3));
        }

        #[test]
        fn a_clock_reads_back(seconds in 0_u64..=9999 * 3600) {
            let text = clock(Duration::from_secs(seconds));
            let parts: Vec<u64> = text.split(':').map(|part| part.parse().unwrap()).collect();
            prop_assert_eq!(parts[0] * 3600 + parts[1] * 60 + parts[2], seconds);
            prop_assert!(parts[1] < 60 && parts[2] < 60);
        }
    }
}
