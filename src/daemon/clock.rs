//! The manager's clock: milliseconds since 1970 that never run backwards and never jump.
//!
//! Waits and deadlines of jobs are such times. Were they the machine's time of day, a clock that is set ten years
//! back would let every job sleep for as long, and one that is set forward would end every cutover at its deadline.
//! So the time of day is read once; from then on the time since the boot is added, which nobody can set and which
//! counts while the machine sleeps (clock_gettime(2), CLOCK_BOOTTIME). What the time of day drifts away by is
//! followed as long as it is little, because hours of the day are meant by it too.

use std::time::{Duration, SystemTime};

use crate::limits::CLOCK_FOLLOWED_MS;

/// A clock; copies of one would drift apart, so there are none.
#[derive(Debug)]
pub struct Clock {
    /// The time at the boot, as far as is believed.
    epoch_ms: u64,
    last_ms: u64,
}

impl Clock {
    /// Begins with the time of day.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch_ms: time_of_day().saturating_sub(since_boot()), last_ms: 0 }
    }

    /// The time now.
    pub fn now_ms(&mut self) -> u64 {
        self.read(time_of_day(), since_boot())
    }

    fn read(&mut self, day_ms: u64, boot_ms: u64) -> u64 {
        let believed = self.epoch_ms.saturating_add(boot_ms);
        if believed.abs_diff(day_ms) <= CLOCK_FOLLOWED_MS {
            self.epoch_ms = day_ms.saturating_sub(boot_ms);
        }
        self.last_ms = self.last_ms.max(self.epoch_ms.saturating_add(boot_ms));
        self.last_ms
    }
}

fn time_of_day() -> u64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    milliseconds(Duration::try_from(time).unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEARS: u64 = 10 * 365 * 86_400_000;

    #[test]
    fn a_clock_that_is_set_is_not_followed_and_one_that_drifts_is() {
        let day = 1_800_000_000_000;
        let mut clock = Clock { epoch_ms: day - 5_000, last_ms: 0 };
        assert_eq!(clock.read(day, 5_000), day);
        assert_eq!(clock.read(day + YEARS, 6_000), day + 1_000);
        assert_eq!(clock.read(day - YEARS, 7_000), day + 2_000);
        assert_eq!(clock.read(day + 3_500, 8_000), day + 3_500);
        // A little back: it waits.
        assert_eq!(clock.read(day + 3_200, 8_100), day + 3_500);
        assert_eq!(clock.read(day + 4_200, 9_100), day + 4_200);
    }

    proptest! {
        #[test]
        fn it_never_runs_backwards(steps in proptest::collection::vec((0u64..4_000_000_000_000, 0u64..100_000), 1..50)) {
            let mut clock = Clock { epoch_ms: 1_800_000_000_000, last_ms: 0 };
            let (mut boot, mut last) = (0, 0);
            for (day, elapsed) in steps {
                boot += elapsed;
                let now = clock.read(day, boot);
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
