//! What a run prints: what its worker says, for people and for programs, and the last words.
//!
//! ```text
//! worker ── lines ──► Reporter ──┬─► people.rs, progress.rs, as JSON the lines themselves ──► console.rs
//! supervisor ── remarks ─────────┤
//! signals ── where it stands ────┘     log.rs ──► --log-file
//! ```

mod console;
mod edge;
pub mod kept;
mod log;
mod people;
mod progress;
mod sentences;

pub use console::Console;
pub use edge::{report, report_error};
pub use log::{LogState, open as open_log, to_stderr as log_to_stderr};
pub use people::Detail;
pub use progress::{line as progress_line, plain as plain_line};
pub use sentences::meaning;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ExitCode};
use crate::limits::{PLAIN_LINE_EVERY, STALL_SHOWN_AFTER_S};
use crate::units::grouped;
use crate::worker::{Failure, Identity, LastWord, Listener, Report, Stall, Standing, Verdict, escape, escape_path};
use people::Printed;
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
    /// End the run when nothing moved for so long.
    pub timeout: Option<Duration>,
}

/// What lines told that the end, or the next line, needs again.
#[derive(Debug)]
struct Seen {
    identity: Identity,
    failures: Failures,
    standing: Standing,
    stall: Option<Stall>,
    /// When a plain line was last due.
    plain: Instant,
}

/// Prints the summary line for words that could not even be parsed.
pub fn print_refusal(kind: &'static str, what: String) {
    let error = Error::Usage { what, remedy: "`copyd help` shows every verb and flag" };
    let identity = Identity::of(kind, "none", false);
    let word = LastWord::counted(&identity, &Standing::default(), ExitCode::Usage, Some(Failure::of(&error)));
    let console = Console::new(true);
    console.print(&Report::Summary(Box::new(word)).line());
    console.flush();
}

/// Prints a run. Shared by whoever hears the worker, its guard and the signal thread.
#[derive(Debug)]
pub struct Reporter {
    view: View,
    console: Console,
    log: Option<LogState>,
    began: Instant,
    seen: Mutex<Seen>,
}

impl Reporter {
    pub fn new(view: View, console: Console, log: Option<LogState>) -> Self {
        let seen = Seen {
            identity: Identity::of(view.kind, view.verify, view.dry_run),
            failures: Failures::default(),
            standing: Standing::default(),
            stall: None,
            plain: Instant::now(),
        };
        Self { view, console, log, began: Instant::now(), seen: Mutex::new(seen) }
    }

    /// The first line: `SRC/x -> DST/x`.
    pub fn headline(&self, text: &str) {
        self.console.say(text);
        self.console.flush();
    }

    /// Says where the run stands, on stderr (SIGUSR1, and every 30 s without a terminal).
    pub fn status(&self) {
        let text = {
            let seen = self.lock();
            progress::plain(&seen.standing, seen.stall.as_ref())
        };
        self.console.note(&text);
    }

    /// A remark of the front end itself, on stderr.
    pub fn note(&self, text: &str) {
        self.console.note(&format!("copyd: {text}"));
    }

    /// The summary of a run whose process ends at once, if it can be printed without waiting.
    pub fn last_words(&self, error: &Error) {
        if let (true, Ok(seen)) = (self.view.json, self.seen.try_lock()) {
            let word = self.counted(&seen, error.exit_code(), error);
            self.console.print_if_free(&Report::Summary(Box::new(word)).line());
        }
    }

    /// Prints how the run ended, and gives the exit code.
    pub fn finish(&self, result: Result<Verdict, Error>, stopped: bool) -> ExitCode {
        let word = match result {
            Ok(Verdict::Ended(word)) => *word,
            Ok(Verdict::Forced(error)) | Err(error) => {
                let held = if stopped { ExitCode::Stopped } else { ExitCode::Complete };
                let exit = ExitCode::first(&[error.exit_code(), held]);
                self.counted(&self.lock(), exit, &error)
            }
        };
        let line = {
            let mut seen = self.lock();
            seen.standing.elapsed_s = word.elapsed_s;
            // A run that was refused before it looked at anything has no progress to show.
            let began = seen.standing.entries_scanned > 0;
            began.then(|| progress::line(&seen.standing, None, word.exit() == ExitCode::Complete))
        };
        self.console.finish_drawing(line.as_deref());
        if self.log.is_some() {
            log::ended(&word);
        }
        match &word.error {
            None => self.last_sentences(&word),
            Some(failure) => self.early_end(&word, failure),
        }
        if self.log.as_ref().is_some_and(LogState::incomplete) {
            self.note("the log file is incomplete: a write to it failed (is there room?)");
        }
        let exit = word.exit();
        if self.view.json {
            self.console.print(&Report::Summary(Box::new(word)).line());
        }
        self.console.flush();
        exit
    }

    fn last_sentences(&self, word: &LastWord) {
        let log = self.view.log_file.as_ref().map(|path| escape_path(path));
        if self.view.stats {
            for line in sentences::stats(word) {
                self.console.say(&line);
            }
        }
        for line in sentences::sentences(word, &self.lock().failures, log.as_deref()) {
            self.console.say(&line);
        }
    }

    fn early_end(&self, word: &LastWord, failure: &Failure) {
        self.console.flush();
        self.console.note(&edge::report(failure));
        if word.entries > 0 {
            self.console.note(&format!(
                "  until then: {} files copied, {} bytes written, {} entries failed",
                grouped(word.files_copied),
                grouped(word.bytes_copied),
                grouped(word.failed),
            ));
        }
        self.console.note(&format!("  exit {}: {}", word.exit_code, sentences::meaning(word.exit())));
    }

    /// A summary from the last counters: all that is known of a run that did not give one.
    fn counted(&self, seen: &Seen, exit: ExitCode, error: &Error) -> LastWord {
        let mut standing = seen.standing.clone();
        standing.elapsed_s = (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        LastWord::counted(&seen.identity, &standing, exit, Some(Failure::of(error)))
    }

    /// Keeps what later lines need, and tells whether this one is to be shown.
    fn remember(&self, report: &Report<'static>) -> bool {
        let mut seen = self.lock();
        match report {
            Report::Started { job, .. } if !job.starts_with("00000000-") => seen.identity.job = Some(job.clone()),
            Report::Backend { backend, readback, .. } => {
                (seen.identity.backend, seen.identity.readback) = (backend.to_string(), readback.to_string());
            }
            // What failed in the pass before is looked at again: only the last pass's word counts.
            Report::PassStarted { .. } => seen.failures = Failures::default(),
            Report::EntryFailed { class, .. } => return seen.failures.count(*class),
            Report::Progress(standing) => {
                if standing.still_s == 0 {
                    seen.stall = None;
                }
                seen.standing = standing.clone();
            }
            Report::Stall(stall) if stall.seconds < STALL_SHOWN_AFTER_S => return false,
            Report::Stall(stall) => {
                let first = seen.stall.is_none();
                seen.stall = Some(stall.clone());
                return first;
            }
            _ => {}
        }
        true
    }

    /// Draws the terminal's line, or prints a plain one where it is due.
    fn show_progress(&self) {
        if self.console.draws() {
            let line = {
                let seen = self.lock();
                progress::line(&seen.standing, seen.stall.as_ref(), false)
            };
            self.console.draw(line);
        } else if self.plain_is_due() {
            self.status();
        }
        self.console.flush();
    }

    fn plain_is_due(&self) -> bool {
        let mut seen = self.lock();
        let due = seen.plain.elapsed() >= PLAIN_LINE_EVERY;
        if due {
            seen.plain = Instant::now();
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Reporter {
    fn heard(&self, line: &str, report: &Report<'static>) {
        let shown = self.remember(report);
        if self.log.is_some() && (shown || !matches!(report, Report::Stall(_))) {
            log::event(report);
        }
        // The last one is printed at the end, when all else is said.
        if self.view.json && !matches!(report, Report::Summary(_)) {
            self.console.print(line);
        }
        match report {
            Report::EntryFailed { .. } if shown => {
                if let Some(text) = people::failure(report) {
                    self.console.note(&text);
                }
            }
            Report::Stall(stall) if shown && !self.console.draws() => self.note(&stall.to_string()),
            Report::Progress(_) => self.show_progress(),
            _ => {}
        }
        match people::line(report, self.view.detail) {
            // What is a result for people is an event for programs, and printed already.
            Some(Printed::Result(text)) if !self.view.json => self.console.print(&text),
            Some(Printed::Note(text)) => self.console.note(&text),
            _ => {}
        }
    }

    fn said(&self, line: &[u8]) {
        match &self.log {
            Some(log) => log.append(line),
            None => self.console.note(&escape(line)),
        }
    }

    fn remark(&self, text: &str) {
        if self.log.is_some() {
            tracing::warn!("{text}");
        }
        self.note(text);
    }

    fn tick(&self) {
        self.console.flush();
    }

    fn give_up(&self, error: &Error) {
        self.note(&error.to_string());
        self.last_words(error);
        signal_hook::low_level::exit(i32::from(error.exit_code() as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run over two files that went well.
    pub fn summary() -> LastWord {
        let mut identity = Identity::of("migrate", "readback", false);
        (identity.backend, identity.readback) = ("threads".into(), "evicted".into());
        let mut word = LastWord::counted(&identity, &Standing::default(), ExitCode::Complete, None);
        (word.entries, word.files_copied, word.passes, word.proved) = (3, 2, 2, 3);
        word.elapsed_s = 1.5;
        word
    }

    #[test]
    fn a_run_without_a_summary_claims_nothing_as_proved() {
        let standing = Standing { entries_done: 7, failed: 2, ..Default::default() };
        let word = LastWord::counted(&Identity::of("sync", "readback", false), &standing, ExitCode::Guard, None);
        assert_eq!((word.proved, word.assumed), (0, 5));
    }
}
