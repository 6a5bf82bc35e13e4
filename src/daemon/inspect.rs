//! A look at the engine's record of a job: a worker's entries on their way to whoever asked.
//!
//! ```text
//! worker ─► spawner ── so many lines as were allowed ──► manager ─► forwarder (backend.rs) ─► reader
//!              ▲                                                        │ so many have been taken
//!              └──────────────── more ──────────────────────────────────┘
//! ```
//!
//! A manifest may have a hundred million lines, and its reader may be slow. The spawner sends no more than it was
//! allowed to, and then lets the worker wait; so nothing is kept anywhere, and other runs on the link don't wait.

use super::link::{Ended, Reason, Refused};
use super::requests::Lines;
use crate::api::backend::Denied;
use crate::worker::Report;

/// One such look.
#[derive(Debug)]
pub struct Inspection {
    lines: Lines,
    /// Why it came to nothing.
    failure: Option<Denied>,
}

impl Inspection {
    #[must_use]
    pub const fn new(lines: Lines) -> Self {
        Self { lines, failure: None }
    }

    /// A line of the worker.
    pub fn hear(&mut self, report: Report<'static>) {
        match report {
            Report::Entry(entry) => {
                let line = serde_json::to_string(&entry).map_err(|error| Denied::Internal { what: error.to_string() });
                // A reader that has gone is heard of by the forwarder.
                let _ = self.lines.send(line);
            }
            Report::Summary(word) => {
                self.failure =
                    word.error.map(|failure| Denied::Unavailable { what: failure.message, remedy: failure.remedy });
            }
            _ => {}
        }
    }

    pub fn refused(&mut self, refused: Refused) {
        let Refused { what, remedy, reason } = refused;
        self.failure = Some(match reason {
            Reason::NotAllowed => Denied::Forbidden { what, remedy },
            Reason::Invalid => Denied::Internal { what },
            Reason::Resources => Denied::Unavailable { what, remedy },
        });
    }

    /// It is over: without a failure the end of the lines says so.
    pub fn ended(self, ended: &Ended) {
        let forced = ended.forced.as_ref();
        let failure = self.failure.or_else(|| {
            forced.map(|forced| Denied::Unavailable { what: forced.what.clone(), remedy: forced.remedy.clone() })
        });
        if let Some(failure) = failure {
            let _ = self.lines.send(Err(failure));
        }
    }
}
