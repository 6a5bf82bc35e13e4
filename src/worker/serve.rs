//! One job in one process: specification in, events out, commands in.
//!
//! ```text
//! stdin ──► specification ──► pass::{run, verify, verify_manifest} ──► events ──► stdout
//!   └─────► commands ─► stop              └── counters ──► watch.rs ─► heartbeat, stall ──┘
//! ```
//!
//! Whoever started the worker may vanish at any time. The end of stdin says so, and means what a cancel means:
//! stop at a safe point. A worker that reaches none then ends itself, because nobody else would.

use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::emit::Emitter;
use super::spec::{Specification, Work};
use super::watch::Watch;
use super::wire::{Command, Identity, Report};
use crate::error::{Error, ExitCode};
use crate::escape::escape;
use crate::limits::WIRE_LINE_BYTES_MAX;
use crate::pass::{self, Observer, Progress, Stop, Summary};
use crate::throttle::Throttle;

/// A worker before it has its work.
#[derive(Debug)]
pub struct Worker {
    emitter: Arc<Emitter>,
    stop: Arc<Stop>,
    throttle: Throttle,
}

impl Worker {
    /// A worker that says what it has to say there.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { emitter: Arc::new(Emitter::new(out)), stop: Arc::default(), throttle: Throttle::new(None) }
    }

    /// For a panic's last words.
    #[must_use]
    pub fn emitter(&self) -> Arc<Emitter> {
        Arc::clone(&self.emitter)
    }

    /// For a signal that asks for an end.
    #[must_use]
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Carries a specification out, to its end or until a command ends it.
    pub fn run(
        &self,
        specification: Result<Specification, Error>,
        commands: impl BufRead + Send + 'static,
    ) -> ExitCode {
        let prepared = specification.and_then(|specification| {
            self.emitter.identify(Identity::from(&specification));
            specification.work(&self.throttle)
        });
        self.attend(commands, |observer, progress, stop| match prepared? {
            Work::Copy(options) => pass::run(&options, observer, progress, stop),
            Work::Compare(options) => pass::verify(&options, observer, progress, stop),
            Work::Inspect(options) => pass::inspect(&options, observer, stop),
            Work::AgainstManifest(options) => pass::verify_manifest(&options, observer, progress, stop),
        })
    }

    /// Carries `work` out with everything around it.
    pub fn attend<W>(&self, commands: impl BufRead + Send + 'static, work: W) -> ExitCode
    where
        W: FnOnce(&dyn Observer, &Progress, &Arc<Stop>) -> Result<Summary, Error>,
    {
        let orphaned = Arc::new(AtomicBool::new(false));
        if let Err(error) = self.listen(commands, Arc::clone(&orphaned)) {
            return self.emitter.finish(Err(error), false);
        }
        let watch = Watch::start(self.emitter(), self.stop(), orphaned);
        let result = catch_unwind(AssertUnwindSafe(|| work(&*self.emitter, &self.emitter.progress, &self.stop)));
        drop(watch);
        let result =
            result.unwrap_or_else(|_| Err(Error::Internal { what: "a part of copyd panicked, see above".into() }));
        self.emitter.finish(result, self.stop.requested())
    }

    /// Starts the thread that takes commands until there are no more.
    fn listen(&self, mut commands: impl BufRead + Send + 'static, orphaned: Arc<AtomicBool>) -> Result<(), Error> {
        let (emitter, stop, throttle) = (self.emitter(), self.stop(), self.throttle.clone());
        let listening = std::thread::Builder::new().name("commands".into()).spawn(move || {
            while let Some(line) = next_line(&mut commands) {
                obey(&line, &emitter, &stop, &throttle);
            }
            orphaned.store(true, Ordering::Relaxed);
            stop.request();
        });
        listening.map(drop).map_err(|source| Error::Resources { what: "no thread to hear commands", source })
    }
}

fn obey(line: &[u8], emitter: &Emitter, stop: &Stop, throttle: &Throttle) {
    if line.trim_ascii().is_empty() {
        return;
    }
    match serde_json::from_slice(line) {
        Ok(Command::Cancel) => stop.request(),
        Ok(Command::Limits { bytes_per_s }) => throttle.set(bytes_per_s),
        Err(_) => emitter.say(&Report::UnknownCommand { command: escape(line.trim_ascii()) }),
    }
}

/// Reads a specification, which is the first line.
///
/// # Errors
/// [`Error::Usage`] where there is none, or one that is refused.
pub fn read_specification(input: &mut impl BufRead) -> Result<Specification, Error> {
    let line = next_line(input).ok_or_else(|| Error::Usage {
        what: "no specification came".into(),
        remedy: "write it as the first line, or name a file with --spec",
    })?;
    Specification::parse(&String::from_utf8_lossy(&line))
}

/// The next line; none at the end, and none any more where one is longer than anything that makes sense.
fn next_line(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = std::io::Read::take(input, WIRE_LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.ok().filter(|length| *length > 0).map(|_| line)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
