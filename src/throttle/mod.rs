//! Bytes a second: the limit that all data threads of a run share.
//!
//! A thread asks before it moves a block; the decision how long it waits is made by the pure
//! [`bucket::Bucket`], and only the waiting happens here.

mod bucket;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::THROTTLE_NAP_MS;
use bucket::Bucket;

/// Limits the rate at which threads move bytes. Threads are served in the order in which they ask,
/// so none starves. Copies are one throttle: whoever holds one can change the rate for all.
#[derive(Clone)]
pub struct Throttle(Arc<Shared>);

struct Shared {
    /// Asked for every block, so that a run without a limit takes no lock.
    limited: AtomicBool,
    started: Instant,
    rate: Mutex<Rate>,
}

struct Rate {
    bucket: Option<Bucket>,
    /// How often it was changed: who waits at an old rate asks again.
    changes: u64,
}

/// How a wait ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The bytes may move now.
    Granted,
    /// The run is to stop; nothing may move.
    Stopped,
}

impl Throttle {
    /// A throttle for a rate in bytes a second; none, and zero, are no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let rate = Rate { bucket: None, changes: 0 };
        let shared = Shared { limited: AtomicBool::new(false), started: Instant::now(), rate: Mutex::new(rate) };
        let throttle = Self(Arc::new(shared));
        throttle.set(bytes_per_second);
        throttle
    }

    /// Changes the rate, also for those who wait: their bytes are asked for again at the new one.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let mut rate = self.0.rate();
        let limit = bytes_per_second.and_then(NonZeroU64::new);
        rate.bucket = limit.map(|limit| Bucket::beginning(limit, self.0.started.elapsed()));
        rate.changes += 1;
        self.0.limited.store(limit.is_some(), Ordering::Relaxed);
    }

    /// Waits until so many bytes may move, or until `stop` says so, which is asked before the wait
    /// and at least every [`THROTTLE_NAP_MS`]. Without a limit neither waits nor asks.
    ///
    /// Bytes of a wait that was stopped count as moved: the run is ending.
    #[inline]
    pub fn take(&self, bytes: u64, stop: impl Fn() -> bool) -> Taken {
        if self.0.limited.load(Ordering::Relaxed) { self.0.take(bytes, stop) } else { Taken::Granted }
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.0.rate();
        f.debug_tuple("Throttle").field(&rate.bucket.as_ref().map(Bucket::bytes_per_second)).finish()
    }
}

impl Shared {
    /// A rate is whole after every step, so one that a panic left behind still serves.
    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: u64, stop: impl Fn() -> bool) -> Taken {
        if stop() {
            return Taken::Stopped;
        }
        let (mut wait, mut changes) = self.reserve(bytes);
        let mut asked = Instant::now();
        loop {
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Taken::Granted;
            }
            std::thread::sleep(left.min(Duration::from_millis(THROTTLE_NAP_MS)));
            if stop() {
                return Taken::Stopped;
            }
            if self.rate().changes != changes {
                (wait, changes) = self.reserve(bytes);
                asked = Instant::now();
            }
        }
    }

    /// How long to wait, and at which rate.
    fn reserve(&self, bytes: u64) -> (Duration, u64) {
        let mut rate = self.rate();
        let now = self.started.elapsed();
        (rate.bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.reserve(now, bytes)), rate.changes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn ten_megabytes_at_twenty_a_second_take_half_a_second_with_four_threads_and_none_starves() {
        const BLOCK: u64 = 100_000;
        let throttle = Throttle::new(Some(20_000_000));
        let started = Instant::now();
        let left = Mutex::new(100_u32);
        let shares: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut blocks = 0;
                        loop {
                            {
                                let mut left = left.lock().unwrap();
                                if *left == 0 {
                                    return blocks;
                                }
                                *left -= 1;
                            }
                            assert_eq!(throttle.take(BLOCK, || false), Taken::Granted);
                            blocks += 1;
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(495), "too fast: {elapsed:?}");
        assert!(elapsed <= Duration::from_millis(800), "too slow: {elapsed:?}");
        assert_eq!(shares.iter().sum::<u32>(), 100);
        assert!(shares.iter().all(|blocks| *blocks >= 15), "unfair: {shares:?}");
    }

    #[test]
    fn without_a_limit_nothing_waits_or_asks() {
        for throttle in [Throttle::new(None), Throttle::new(Some(0))] {
            let started = Instant::now();
            for _ in 0..1_000_000 {
                assert_eq!(throttle.take(u64::MAX, || unreachable!("asked")), Taken::Granted);
            }
            assert!(started.elapsed() < Duration::from_secs(1));
        }
    }

    #[test]
    fn a_new_rate_holds_for_who_waits_already_and_its_bucket_is_empty() {
        let throttle = Throttle::new(Some(1000));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| throttle.take(1 << 40, || false));
            std::thread::sleep(Duration::from_millis(120));
            assert!(!waiting.is_finished());
            throttle.set(None);
            assert_eq!(waiting.join().unwrap(), Taken::Granted);
        });
        throttle.set(Some(10_000_000));
        let started = Instant::now();
        assert_eq!(throttle.take(2_000_000, || false), Taken::Granted);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(195) && elapsed < Duration::from_millis(600), "{elapsed:?}");
    }

    #[test]
    fn a_stop_ends_the_wait_within_a_tenth_of_a_second() {
        let throttle = Throttle::new(Some(1000));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let taken = throttle.take(1 << 40, || stop.load(Ordering::Relaxed));
                (taken, Instant::now())
            });
            std::thread::sleep(Duration::from_millis(120));
            let requested = Instant::now();
            stop.store(true, Ordering::Relaxed);
            let (taken, ended) = waiting.join().unwrap();
            assert_eq!(taken, Taken::Stopped);
            assert!(ended >= requested && ended - requested < Duration::from_millis(100));
        });
        assert_eq!(throttle.take(0, || true), Taken::Stopped, "and is seen before a wait begins");
    }
}
