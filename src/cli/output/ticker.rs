//! The thread that looks at the counters while a run goes on.
//!
//! It draws the terminal's line a few times a second, prints a plain line every 30 s where there
//! is no terminal, and sends a progress event every second where JSON was asked. It also empties
//! stdout's buffer, so that a reader never waits longer than a tick for an event.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::{Reporter, json};
use crate::limits::{PLAIN_LINE_EVERY, PROGRESS_EVENT_EVERY, PROGRESS_HZ};

/// A running ticker; ends when dropped.
#[derive(Debug)]
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts to tick. Where the machine gives no thread, the run goes on without progress lines.
    pub fn start(reporter: Arc<Reporter>) -> Self {
        let (stop, stopped) = bounded::<()>(1);
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut beat = Beat::new(Instant::now());
            let mut stall = Stall::new(Instant::now());
            let tick = Duration::from_secs(1) / u32::from(PROGRESS_HZ);
            while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                reporter.tick(beat.at(Instant::now()));
                if let Some(most) = reporter.view.timeout
                    && stall.lasts(reporter.progress.pulse(), Instant::now()) >= most
                {
                    reporter.give_up(most);
                }
            }
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the ticker has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// What is due at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    event: bool,
    plain: bool,
}

/// Keeps the two slower rhythms.
struct Beat {
    event: Instant,
    plain: Instant,
}

impl Beat {
    const fn new(now: Instant) -> Self {
        Self { event: now, plain: now }
    }

    fn at(&mut self, now: Instant) -> Due {
        let due = |last: &mut Instant, every: Duration| {
            let due = now.duration_since(*last) >= every;
            if due {
                *last = now;
            }
            due
        };
        Due { event: due(&mut self.event, PROGRESS_EVENT_EVERY), plain: due(&mut self.plain, PLAIN_LINE_EVERY) }
    }
}

/// How long nothing has moved.
struct Stall {
    pulse: u64,
    since: Instant,
}

impl Stall {
    const fn new(now: Instant) -> Self {
        Self { pulse: 0, since: now }
    }

    fn lasts(&mut self, pulse: u64, now: Instant) -> Duration {
        if self.pulse != pulse {
            *self = Self { pulse, since: now };
        }
        now.duration_since(self.since)
    }
}

impl Reporter {
    /// `--timeout`: a call that a file system does not answer can't be taken back, so the process
    /// ends with its last words and leaves the temporaries to the next run.
    fn give_up(&self, after: Duration) -> ! {
        let error = crate::error::Error::Timeout { seconds: after.as_secs() };
        self.remark(&format!("{error}; {}", error.remedy()));
        self.last_words(crate::error::ExitCode::Timeout);
        signal_hook::low_level::exit(i32::from(crate::error::ExitCode::Timeout as u8));
    }

    fn tick(&self, due: Due) {
        if self.console.draws() {
            self.console.draw(self.reading().line(false));
        } else if due.plain {
            self.status();
        }
        if self.view.json && due.event {
            self.console.print(&json::progress(&self.reading()));
        }
        self.console.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_every_second_and_plain_lines_every_thirty() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        let mut due = (0, 0);
        for tick in 1..=600u32 {
            let now = beat.at(start + Duration::from_millis(100) * tick);
            due.0 += u32::from(now.event);
            due.1 += u32::from(now.plain);
        }
        assert_eq!(due, (60, 2));
    }
}
