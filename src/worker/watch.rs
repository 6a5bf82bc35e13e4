//! The thread of a worker that looks at the counters: its heartbeat, and who does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::emit::Emitter;
use crate::error::ExitCode;
use crate::limits::{HEARTBEAT_EVERY, ORPHAN_GRACE, STALL_AFTER, STALL_AFTER_STOP, STALL_EVENT_EVERY};
use crate::pass::Stop;

/// A running watcher; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch. `orphaned` turns true when the supervisor has gone. Where the machine gives no thread
    /// the run goes on without signs of life.
    pub fn start(emitter: Arc<Emitter>, stop: Arc<Stop>, orphaned: Arc<AtomicBool>) -> Self {
        let (end, ended) = bounded::<()>(1);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
            let mut stillness = Stillness::new(Instant::now());
            let (mut named, mut alone) = (None::<Instant>, None::<Instant>);
            while ended.recv_timeout(HEARTBEAT_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                let still = stillness.lasts(emitter.progress.pulse(), now);
                emitter.heartbeat(still);
                let most = if stop.requested() { STALL_AFTER_STOP } else { STALL_AFTER };
                if still < most {
                    named = None;
                } else if named.is_none_or(|last| now.duration_since(last) >= STALL_EVENT_EVERY) {
                    named = Some(now);
                    emitter.stalled(still);
                }
                if orphaned.load(Ordering::Relaxed) && alone.get_or_insert(now).elapsed() >= ORPHAN_GRACE {
                    // Nobody is left who would end it. As safe as a kill: no final name is ever torn.
                    signal_hook::low_level::exit(i32::from(ExitCode::Stopped as u8));
                }
            }
        });
        Self { end: Some(end), thread: thread.ok() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the watcher has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// How long nothing has moved. Time in which the process itself was stopped does not count.
struct Stillness {
    pulse: u64,
    since: Instant,
    looked: Instant,
}

impl Stillness {
    const fn new(now: Instant) -> Self {
        Self { pulse: 0, since: now, looked: now }
    }

    fn lasts(&mut self, pulse: u64, now: Instant) -> Duration {
        let away = now.duration_since(self.looked);
        if away > HEARTBEAT_EVERY * 4 {
            self.since += away;
        }
        self.looked = now;
        if self.pulse != pulse {
            (self.pulse, self.since) = (pulse, now);
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stillness_ends_with_any_movement_and_leaves_out_the_time_in_which_nobody_looked() {
        let start = Instant::now();
        let at = |n: u32| start + HEARTBEAT_EVERY * n;
        let mut stillness = Stillness::new(start);
        assert_eq!(stillness.lasts(0, at(1)), HEARTBEAT_EVERY);
        assert_eq!(stillness.lasts(0, at(2)), HEARTBEAT_EVERY * 2);
        assert_eq!(stillness.lasts(1, at(3)), Duration::ZERO);
        assert_eq!(stillness.lasts(1, at(4)), HEARTBEAT_EVERY);
        assert_eq!(stillness.lasts(1, at(100)), HEARTBEAT_EVERY, "stopped in between");
        assert_eq!(stillness.lasts(1, at(101)), HEARTBEAT_EVERY * 2);
    }
}
