//! `--log-file`: every event with its time, and every failure, appended to a file.
//!
//! Names are escaped as everywhere. Nothing in an event is a secret: mounts, and with them
//! credentials, are not made by this version.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info, warn};

use super::people::failure;
use crate::error::Error;
use crate::worker::{LastWord, Report, escape};

/// Tells at the end whether all of the log reached its file.
#[derive(Clone, Debug)]
pub struct LogState {
    file: Arc<File>,
    incomplete: Arc<AtomicBool>,
}

impl LogState {
    /// Appends a line of the worker's own log, which has its time already.
    pub fn append(&self, line: &[u8]) {
        let mut to = Checked { file: Arc::clone(&self.file), state: self.clone() };
        // A failure is remembered.
        let _ = to.write(&[line, b"\n"].concat());
    }

    /// A write to the log failed; the run went on without it.
    pub fn incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }
}

/// Opens the log and makes it the process's own.
///
/// # Errors
/// [`Error::Output`] when the file can't be opened; nothing has started then.
pub fn open(path: &Path) -> Result<LogState, Error> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        // Names of a tenant's files are nobody else's business.
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::Output { path: path.to_owned(), what: "can't open the log file", source })?;
    let state = LogState { file: Arc::new(file), incomplete: Arc::default() };
    let writer = Checked { file: Arc::clone(&state.file), state: state.clone() };
    log_to(move || writer.clone());
    Ok(state)
}

/// The log of a worker goes to stderr: whoever started it knows where to put it.
pub fn to_stderr() {
    log_to(io::stderr);
}

fn log_to<W: io::Write + 'static>(make: impl Fn() -> W + Send + Sync + 'static) {
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(make)
        .finish();
    // Only a second log in one process could make this fail, and the first one then stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A file whose failures are remembered, because the log's caller does not look.
#[derive(Clone, Debug)]
struct Checked {
    file: Arc<File>,
    state: LogState,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(bytes);
        if !matches!(&written, Ok(n) if *n == bytes.len()) {
            self.state.incomplete.store(true, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs an event.
pub fn event(report: &Report<'_>) {
    let name = |name: &crate::worker::Name| escape(&name.bytes());
    let text = |text: &str| escape(text.as_bytes());
    match report {
        Report::Started { job, kind, resumed, source, destination, .. } => {
            let (source, destination) = (escape(&source.bytes()), escape(&destination.bytes()));
            info!(%job, %kind, resumed, %source, %destination, "started");
        }
        Report::Backend { backend, readback, jobs, reason } => {
            info!(%backend, %readback, jobs, reason = %text(reason), "backend");
        }
        Report::Confined(confined) => {
            let capabilities = confined.capabilities.join(",");
            info!(landlock = confined.landlock, seccomp = confined.seccomp, %capabilities, "confined");
            if let Some(shortfall) = confined.shortfall() {
                warn!("{}", text(&shortfall));
            }
        }
        Report::PassStarted { pass } => info!(pass, "pass started"),
        Report::Item { name: path, itemized, .. } => info!(name = %name(path), itemized = %text(itemized), "item"),
        Report::Deleted { name: path, kind } => info!(name = %name(path), kind = %text(kind), "deleted"),
        // A log of everything that is as it should be would hide what is not.
        Report::Compared { sign: '=', .. } | Report::Progress(_) | Report::Entry(_) | Report::Summary(_) => {}
        Report::Compared { sign, name: path, what } => {
            warn!(%sign, name = %name(path), what = %text(what), "compared");
        }
        Report::EntryFailed { remedy, .. } => {
            error!(remedy = %text(remedy), "{}", failure(report).unwrap_or_default());
        }
        Report::Loss { class, name: path, detail } => {
            warn!(class = %class.word(), name = %name(path), detail = %text(detail), "loss");
        }
        Report::Ignored { name: path, why } => info!(name = %name(path), why = %text(why), "ignored"),
        Report::Note { text: note } => warn!("{}", text(note)),
        Report::PassEnded { pass, copied, hot, failed } => info!(pass, copied, hot, failed, "pass ended"),
        Report::Stall(stall) => warn!("{stall}"),
        Report::UnknownCommand { command } => warn!(command = %text(command), "unknown command"),
    }
}

/// Logs how the run ended.
pub fn ended(word: &LastWord) {
    if let Some(failure) = &word.error {
        error!("{}", super::edge::report(failure).replace('\n', ";"));
    }
    info!(
        exit = word.exit_code,
        passes = word.passes,
        entries = word.entries,
        files_copied = word.files_copied,
        bytes_copied = word.bytes_copied,
        proved = word.proved,
        assumed = word.assumed,
        deleted = word.deleted,
        failed = word.failed,
        hot = word.hot,
        elapsed_s = word.elapsed_s,
        "ended"
    );
}
