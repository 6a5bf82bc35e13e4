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

use super::escape::{escape, escape_path};
use super::people::failure;
use crate::error::Error;
use crate::pass::{Event, Summary};

/// Tells at the end whether all of the log reached its file.
#[derive(Clone, Debug, Default)]
pub struct LogState {
    incomplete: Arc<AtomicBool>,
}

impl LogState {
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
    let state = LogState::default();
    let writer = Checked { file: Arc::new(file), state: state.clone() };
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    // Only a second log in one process could make this fail, and the first one then stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(state)
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
pub fn event(event: &Event<'_>) {
    match *event {
        Event::Started { job, kind, resumed, source, destination } => {
            let (source, destination) = (escape_path(source), escape_path(destination));
            info!(%job, kind, resumed, %source, %destination, "started");
        }
        Event::Backend { backend, readback, jobs, reason } => {
            info!(backend, readback, jobs, reason = %escape(reason.as_bytes()), "backend");
        }
        Event::PassStarted { pass } => info!(pass, "pass started"),
        Event::Item(change) => {
            let itemized = String::from_utf8_lossy(&change.itemized()).into_owned();
            info!(name = %escape(&change.path), %itemized, "item");
        }
        Event::Deleted { path, kind } => info!(name = %escape(path), kind = kind.word(), "deleted"),
        // A log of everything that is as it should be would hide what is not.
        Event::Compared { sign: '=', .. } => {}
        Event::Compared { sign, path, what } => {
            warn!(%sign, name = %escape(path), what = %escape(what.as_bytes()), "compared");
        }
        Event::EntryFailed(failed) => error!(remedy = failed.class.remedy(), "{}", failure(failed)),
        Event::Loss { class, path, detail } => {
            warn!(class = %class.word(), name = %escape(path), detail = %escape(detail.as_bytes()), "loss");
        }
        Event::Ignored { path, why } => info!(name = %escape(path), why, "ignored"),
        Event::Note(text) => tracing::warn!("{text}"),
        Event::PassEnded { pass, copied, hot, failed } => info!(pass, copied, hot, failed, "pass ended"),
    }
}

/// Logs how the run ended.
pub fn ended(summary: &Summary, failure: Option<&Error>) {
    if let Some(failure) = failure {
        error!("{}", super::edge::report(failure).replace('\n', ";"));
    }
    info!(
        exit = summary.exit as u8,
        passes = summary.passes,
        entries = summary.entries,
        files_copied = summary.files_copied,
        bytes_copied = summary.bytes_copied,
        proved = summary.proved,
        assumed = summary.assumed,
        deleted = summary.deleted,
        failed = summary.failed,
        hot = summary.hot,
        elapsed_s = summary.elapsed.as_secs_f64(),
        "ended"
    );
}
