//! What a run prints: the observer of the engine's events, and the last words.
//!
//! ```text
//! pass::run ── events ──► Reporter ──┬─► people.rs / json.rs ──► console.rs ──► stdout, stderr
//!   └── counters ──► ticker.rs ──────┤     (escape.rs makes names printable)
//! signals ───────────────────────────┘     log.rs ──► --log-file
//! ```

mod console;
mod edge;
mod escape;
mod json;
mod log;
mod people;
mod progress;
mod sentences;
mod ticker;

pub use console::Console;
pub use edge::report;
pub use escape::{escape, escape_lines, escape_path};
pub use log::open as open_log;
pub use people::Detail;
pub use sentences::meaning;
pub use ticker::Ticker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Error, ExitCode};
use crate::pass::{Event, Observer, Progress, Summary};
use crate::units::grouped;
use people::Printed;
use progress::{Meter, Reading, Snapshot};
use sentences::Failures;

/// What of a run's request decides how it is printed.
#[derive(Clone, Debug)]
pub struct View {
    /// `migrate`, `sync` or `verify`.
    pub kind: &'static str,
    /// The level asked; `full` for a verify, which compares content.
    pub verify: &'static str,
    pub dry_run: bool,
    pub json: bool,
    pub stats: bool,
    pub detail: Detail,
    pub log_file: Option<PathBuf>,
    /// End the process when nothing moved for so long.
    pub timeout: Option<std::time::Duration>,
}

/// What events told that the end needs again.
#[derive(Debug)]
struct Seen {
    job: uuid::Uuid,
    backend: &'static str,
    readback: &'static str,
    failures: Failures,
    meter: Meter,
}

/// Prints the summary line for words that could not even be parsed.
pub fn print_refusal(kind: &'static str, what: String) {
    let view = View {
        kind,
        verify: "none",
        dry_run: false,
        json: true,
        stats: false,
        detail: Detail::default(),
        log_file: None,
        timeout: None,
    };
    let reporter = Reporter::new(view, Console::new(true), Arc::new(Progress::default()), None);
    let error = Error::Usage { what, remedy: "`copyd help` shows every verb and flag" };
    let summary = reporter.counted(ExitCode::Usage, (uuid::Uuid::nil(), "none", "none"));
    reporter.console.print(&json::summary(&summary, Some(&error)));
    reporter.console.flush();
}

/// Prints a run. Shared by data threads, ticker and signal thread.
#[derive(Debug)]
pub struct Reporter {
    view: View,
    console: Console,
    progress: Arc<Progress>,
    log: Option<log::LogState>,
    began: Instant,
    seen: Mutex<Seen>,
}

impl Reporter {
    pub fn new(view: View, console: Console, progress: Arc<Progress>, log: Option<log::LogState>) -> Self {
        let meter = Meter::new(view.kind == "verify");
        let seen =
            Seen { job: uuid::Uuid::nil(), backend: "none", readback: "none", failures: Failures::default(), meter };
        Self { view, console, progress, log, began: Instant::now(), seen: Mutex::new(seen) }
    }

    /// The first line: `SRC/x -> DST/x`.
    pub fn headline(&self, text: &str) {
        self.console.say(text);
        self.console.flush();
    }

    /// Says where the run stands, on stderr (SIGUSR1, and every 30 s without a terminal).
    pub fn status(&self) {
        self.console.note(&self.reading().plain());
    }

    /// A remark of the front end itself, on stderr.
    pub fn remark(&self, text: &str) {
        self.console.note(&format!("copyd: {text}"));
    }

    /// The summary of a run whose process ends at once, if it can be printed without waiting.
    pub fn last_words(&self, exit: ExitCode) {
        if self.view.json {
            let seen = self.seen.try_lock().map_or((uuid::Uuid::nil(), "none", "none"), |seen| seen.roots());
            self.console.print_if_free(&json::summary(&self.counted(exit, seen), None));
        }
    }

    /// Prints how the run ended, and gives the exit code.
    pub fn finish(&self, result: Result<Summary, Error>, stopped: bool) -> ExitCode {
        let reading = self.reading();
        let complete = matches!(&result, Ok(summary) if summary.exit == ExitCode::Complete);
        // A run that was refused before it looked at anything has no progress to show.
        let began = reading.snapshot.entries_scanned > 0;
        self.console.finish_drawing(began.then(|| reading.line(complete)).as_deref());
        let (summary, error) = match result {
            Ok(summary) => (summary, None),
            Err(error) => {
                let held = if stopped { ExitCode::Stopped } else { ExitCode::Complete };
                let exit = ExitCode::first(&[error.exit_code(), held]);
                (self.counted(exit, self.lock().roots()), Some(error))
            }
        };
        if self.log.is_some() {
            log::ended(&summary, error.as_ref());
        }
        match &error {
            None => self.last_sentences(&summary),
            Some(error) => self.early_end(&summary, error),
        }
        if self.log.as_ref().is_some_and(log::LogState::incomplete) {
            self.remark("the log file is incomplete: a write to it failed (is there room?)");
        }
        if self.view.json {
            self.console.print(&json::summary(&summary, error.as_ref()));
        }
        self.console.flush();
        summary.exit
    }

    fn last_sentences(&self, summary: &Summary) {
        let log = self.view.log_file.as_ref().map(|path| escape_path(path));
        if self.view.stats {
            for line in sentences::stats(summary) {
                self.console.say(&line);
            }
        }
        for line in sentences::sentences(summary, &self.lock().failures, log.as_deref()) {
            self.console.say(&line);
        }
    }

    fn early_end(&self, summary: &Summary, error: &Error) {
        self.console.flush();
        self.console.note(&edge::report(error));
        if summary.entries > 0 {
            self.console.note(&format!(
                "  until then: {} files copied, {} bytes written, {} entries failed",
                grouped(summary.files_copied),
                grouped(summary.bytes_copied),
                grouped(summary.failed),
            ));
        }
        self.console.note(&format!("  exit {}: {}", summary.exit as u8, sentences::meaning(summary.exit)));
    }

    /// A summary from the live counters: all that is known of a run that did not return one.
    fn counted(&self, exit: ExitCode, (job, backend, readback): (uuid::Uuid, &'static str, &'static str)) -> Summary {
        let progress = &self.progress;
        Summary {
            job,
            kind: self.view.kind,
            dry_run: self.view.dry_run,
            exit,
            verify: self.view.verify,
            passes: u32::try_from(progress.pass.get()).unwrap_or(u32::MAX),
            entries: progress.entries_scanned.get(),
            files_copied: progress.files_copied.get(),
            files_unchanged: progress.files_unchanged.get(),
            directories_created: 0,
            links_made: 0,
            metadata_updated: 0,
            bytes_copied: progress.bytes_copied.get(),
            bytes_verified: progress.bytes_verified.get(),
            proved: 0,
            assumed: progress.entries_done.get().saturating_sub(progress.failed.get()),
            deleted: progress.deleted.get(),
            renamed: 0,
            hot: 0,
            failed: progress.failed.get(),
            vanished: 0,
            ignored: 0,
            lost: std::collections::BTreeMap::new(),
            degraded: std::collections::BTreeMap::new(),
            unsettable: Vec::new(),
            over_limit: None,
            differing: 0,
            missing: 0,
            extra: 0,
            share_digest: None,
            metadata_digest: None,
            backend,
            readback,
            elapsed: self.began.elapsed(),
        }
    }

    fn reading(&self) -> Reading {
        let mut seen = self.lock();
        seen.meter.read(self.began.elapsed(), Snapshot::of(&self.progress))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    const fn roots(&self) -> (uuid::Uuid, &'static str, &'static str) {
        (self.job, self.backend, self.readback)
    }
}

impl Observer for Reporter {
    fn event(&self, event: &Event<'_>) {
        let mut shown = true;
        match *event {
            Event::Started { job, .. } => self.lock().job = job,
            Event::Backend { backend, readback, .. } => {
                let mut seen = self.lock();
                (seen.backend, seen.readback) = (backend, readback);
            }
            // What failed in the pass before is looked at again: only the last pass's word counts.
            Event::PassStarted { .. } => self.lock().failures = Failures::default(),
            Event::EntryFailed(error) => shown = self.lock().failures.count(error.class),
            _ => {}
        }
        if self.log.is_some() {
            log::event(event);
        }
        if self.view.json {
            self.console.print(&json::event(event));
        }
        if let (Event::EntryFailed(error), true) = (event, shown) {
            self.console.note(&people::failure(error));
        }
        match people::line(event, self.view.detail) {
            // What is a result for people is an event for programs, and printed already.
            Some(Printed::Result(text)) if !self.view.json => self.console.print(&text),
            Some(Printed::Note(text)) => self.console.note(&text),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A run over two files that went well.
    pub fn summary() -> Summary {
        let view = View {
            kind: "migrate",
            verify: "readback",
            dry_run: false,
            json: false,
            stats: false,
            detail: Detail::default(),
            log_file: None,
            timeout: None,
        };
        let reporter = Reporter::new(view, Console::new(false), Arc::new(Progress::default()), None);
        let job = uuid::Uuid::from_u128(7);
        let mut summary = reporter.counted(ExitCode::Complete, (job, "threads", "evicted"));
        (summary.entries, summary.files_copied, summary.passes, summary.proved) = (3, 2, 2, 3);
        summary.elapsed = Duration::from_millis(1500);
        summary
    }

    #[test]
    fn a_run_without_a_summary_claims_nothing_as_proved() {
        assert_eq!(
            Reporter::new(
                View {
                    kind: "sync",
                    verify: "readback",
                    dry_run: false,
                    json: false,
                    stats: false,
                    detail: Detail::default(),
                    log_file: None,
                    timeout: None,
                },
                Console::new(false),
                Arc::new(Progress::default()),
                None,
            )
            .counted(ExitCode::Guard, (uuid::Uuid::nil(), "none", "none"))
            .proved,
            0
        );
    }
}
