//! The deciding part of the throttle: a token bucket with time as an argument.
//!
//! The bucket keeps one number, the instant at which all bytes granted so far are paid for at the
//! rate. A request moves it on by its own price and waits until it is reached, less what an idle
//! bucket has saved up. So requests of any size are served, in order, and no rounding adds up: the
//! number is exact, in units of a byte's price in nanoseconds times the rate.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::limits::{THROTTLE_BURST_BYTES_MIN, THROTTLE_BURST_MS};

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A token bucket. It begins empty.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_second: u128,
    /// The most that is saved up, in bytes × 10⁹.
    burst: u128,
    /// Up to where time is paid for, in nanoseconds × rate = bytes × 10⁹; includes the burst, so a
    /// full bucket stands at now, an empty one at now plus the burst.
    paid_until: u128,
}

impl Bucket {
    /// An empty bucket that stands at `now`, the time that [`Bucket::reserve`] counts on from.
    pub(super) fn beginning(bytes_per_second: NonZeroU64, now: Duration) -> Self {
        let rate = u128::from(bytes_per_second.get());
        let burst_bytes = (rate * u128::from(THROTTLE_BURST_MS) / 1000).max(u128::from(THROTTLE_BURST_BYTES_MIN));
        let burst = burst_bytes * NANOSECONDS_PER_SECOND;
        let paid_until = now.as_nanos().saturating_mul(rate).saturating_add(burst);
        Self { bytes_per_second: rate, burst, paid_until }
    }

    pub(super) const fn bytes_per_second(&self) -> u128 {
        self.bytes_per_second
    }

    /// Takes bytes at a time; gives how long to wait before they move.
    /// A time before that of an earlier call, as threads that race may bring, is as good as any.
    pub(super) fn reserve(&mut self, now: Duration, bytes: u64) -> Duration {
        let now = now.as_nanos().saturating_mul(self.bytes_per_second);
        let price = u128::from(bytes) * NANOSECONDS_PER_SECOND;
        self.paid_until = self.paid_until.max(now).saturating_add(price);
        let behind = self.paid_until.saturating_sub(now.saturating_add(self.burst));
        let nanoseconds = behind.div_ceil(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(rate: u64) -> Bucket {
        Bucket::beginning(NonZeroU64::new(rate).expect("a rate"), Duration::ZERO)
    }

    /// Bytes that a rate gives in a time, rounded up.
    fn earned(rate: u64, time: Duration) -> u128 {
        (u128::from(rate) * time.as_nanos()).div_ceil(NANOSECONDS_PER_SECOND)
    }

    #[test]
    fn a_new_bucket_is_empty_and_an_idle_one_saves_a_tenth_of_a_second() {
        let rate = 100 << 20;
        let mut bucket = bucket(rate);
        assert_eq!(bucket.reserve(Duration::ZERO, rate), Duration::from_secs(1));
        let later = Duration::from_mins(1);
        assert_eq!(bucket.reserve(later, rate / 10), Duration::ZERO);
        assert_eq!(bucket.reserve(later, rate / 10), Duration::from_millis(100));
    }

    #[test]
    fn at_a_low_rate_an_idle_bucket_still_lets_one_block_go() {
        let mut bucket = bucket(1024);
        let later = Duration::from_hours(1);
        assert_eq!(bucket.reserve(later, THROTTLE_BURST_BYTES_MIN), Duration::ZERO);
        assert_eq!(bucket.reserve(later, 1024), Duration::from_secs(1));
    }

    #[test]
    fn the_largest_numbers_neither_wrap_nor_panic() {
        let mut bucket = bucket(u64::MAX);
        for _ in 0..3 {
            assert!(bucket.reserve(Duration::MAX, u64::MAX) <= Duration::from_secs(4));
        }
        let mut slow = super::Bucket::beginning(NonZeroU64::MIN, Duration::ZERO);
        assert_eq!(slow.reserve(Duration::ZERO, u64::MAX), Duration::from_nanos(u64::MAX));
    }

    /// The textbook's bucket: tokens come with time up to the burst, and may be owed.
    struct Textbook {
        tokens: i128,
        at: Duration,
    }

    impl Textbook {
        fn reserve(&mut self, of: &Bucket, now: Duration, bytes: u64) -> Duration {
            let [rate, burst] = [of.bytes_per_second, of.burst].map(u128::cast_signed);
            let since = now.saturating_sub(self.at).as_nanos().cast_signed();
            self.tokens = (self.tokens + since * rate).min(burst) - i128::from(bytes) * 1_000_000_000;
            self.at = now;
            let owed = (-self.tokens).max(0).cast_unsigned();
            Duration::from_nanos(u64::try_from(owed.div_ceil(of.bytes_per_second)).expect("some seconds"))
        }
    }

    proptest! {
        #[test]
        fn waits_are_those_of_a_textbook_bucket_and_the_rate_is_never_exceeded(
            rate in 1_u64..2_000_000_000,
            requests in proptest::collection::vec((0_u64..200_000_000, 0_u64..8_000_000), 1..200),
        ) {
            let mut bucket = bucket(rate);
            let mut textbook = Textbook { tokens: 0, at: Duration::ZERO };
            let (mut now, mut total, mut last) = (Duration::ZERO, 0_u128, Duration::ZERO);
            for (pause_ns, bytes) in requests {
                now += Duration::from_nanos(pause_ns);
                let wait = bucket.reserve(now, bytes);
                prop_assert_eq!(wait, textbook.reserve(&bucket, now, bytes));
                total += u128::from(bytes);
                prop_assert!(total <= earned(rate, now + wait), "it began empty");
                prop_assert!(now + wait >= last, "served in order");
                last = now + wait;
            }
        }

        #[test]
        fn cutting_a_request_into_blocks_changes_nothing(rate in 1_u64..10_000_000_000, blocks in proptest::collection::vec(0_u64..1 << 24, 1..100)) {
            let mut whole = bucket(rate);
            let mut cut = bucket(rate);
            let at_once = whole.reserve(Duration::ZERO, blocks.iter().sum());
            let last = blocks.into_iter().map(|block| cut.reserve(Duration::ZERO, block)).last();
            prop_assert_eq!(last, Some(at_once));
        }
    }
}
