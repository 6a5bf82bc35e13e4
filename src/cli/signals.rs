//! Signals: stop at a safe point, stop at once, say where the run stands.
//!
//! The handlers themselves are signal-hook's: they write one byte into a pipe. All that happens
//! next happens in an ordinary thread. SIGPIPE stays ignored, as Rust sets it: a closed stdout is
//! an error of one write, see `output/console.rs`.

use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use super::output::Reporter;
use crate::error::Error;
use crate::limits::LAST_WORD_WAIT;
use crate::worker::Handle as Worker;

/// Watches signals until dropped.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
}

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Status,
    Stop,
    /// The stop is under way already.
    Remind,
    AtOnce,
}

const fn answer(signal: i32, stopping: bool) -> Answer {
    match (signal, stopping) {
        (SIGUSR1, _) => Answer::Status,
        (_, false) => Answer::Stop,
        // A supervisor may repeat its SIGTERM; a person who presses ^C again means it.
        (SIGINT, true) => Answer::AtOnce,
        (_, true) => Answer::Remind,
    }
}

impl Watch {
    /// Starts to watch SIGINT, SIGTERM and SIGUSR1.
    ///
    /// # Errors
    /// [`Error::Resources`] where handlers or the thread can't be installed.
    pub fn start(worker: Worker, reporter: Arc<Reporter>) -> Result<Self, Error> {
        let failed = |source| Error::Resources { what: "no thread or descriptor to watch for signals", source };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(failed)?;
        let handle = signals.handle();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    act(answer(signal, worker.cancelling()), &worker, &reporter);
                }
            })
            .map_err(failed)?;
        Ok(Self { handle })
    }
}

fn act(answer: Answer, worker: &Worker, reporter: &Reporter) {
    match answer {
        Answer::Status => reporter.status(),
        Answer::Stop => {
            worker.cancel();
            reporter
                .note("stopping at a safe point; the same command again resumes (press ^C once more to stop at once)");
        }
        Answer::Remind => reporter.note("already stopping at a safe point"),
        Answer::AtOnce => {
            reporter.note("stopped at once; temporaries are left to the next run of the same command");
            worker.end_at_once();
            // The run prints its end, and this process with it is gone by then, unless it waits for its reader.
            std::thread::sleep(LAST_WORD_WAIT);
            let error = Error::Cancelled { what: "the run was ended at once, as asked".into() };
            reporter.last_words(&error);
            signal_hook::low_level::exit(i32::from(error.exit_code() as u8));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not joined: it may be about to end the process.
        self.handle.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_cleanly_and_only_a_second_sigint_stops_at_once() {
        assert_eq!(answer(SIGINT, false), Answer::Stop);
        assert_eq!(answer(SIGTERM, false), Answer::Stop);
        assert_eq!(answer(SIGTERM, true), Answer::Remind);
        assert_eq!(answer(SIGINT, true), Answer::AtOnce);
        assert_eq!(answer(SIGUSR1, true), Answer::Status);
    }
}
