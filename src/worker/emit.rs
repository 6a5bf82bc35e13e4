//! What a worker says: the engine's events and counters as lines on its stdout.

use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::blame::Roots;
use super::isolate::Isolated;
use super::meter::Meter;
use super::spec::Specification;
use super::wire::{Failure, Identity, LastWord, Report, Stall, Standing};
use crate::error::{Error, ExitCode};
use crate::pass::{Event, Observer, Opened, Progress, Summary};

/// Writes a worker's lines. Shared by the data threads, the watcher and the reader of commands.
pub struct Emitter {
    out: Mutex<BufWriter<Box<dyn Write + Send>>>,
    pub progress: Arc<Progress>,
    began: Instant,
    said: Mutex<Said>,
    roots: Mutex<Roots>,
    /// What this process gave up before it had a thread.
    isolated: OnceLock<Isolated>,
}

/// What the last word needs again.
#[derive(Debug)]
struct Said {
    identity: Identity,
    meter: Meter,
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emitter").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Identity {
    /// What is known of a run that nothing is known of yet.
    #[must_use]
    pub fn of(kind: &str, verify: &str, dry_run: bool) -> Self {
        Self {
            job: None,
            kind: kind.into(),
            dry_run,
            verify: verify.into(),
            backend: "none".into(),
            readback: "none".into(),
        }
    }
}

impl From<&Specification> for Identity {
    fn from(specification: &Specification) -> Self {
        Self::of(specification.kind.word(), specification.level(), specification.dry_run)
    }
}

impl Emitter {
    pub fn new(out: impl Write + Send + 'static) -> Self {
        let said = Said { identity: Identity::of("unknown", "none", false), meter: Meter::new(false) };
        Self {
            out: Mutex::new(BufWriter::new(Box::new(out))),
            progress: Arc::default(),
            began: Instant::now(),
            said: Mutex::new(said),
            roots: Mutex::default(),
            isolated: OnceLock::new(),
        }
    }

    /// How far this process is isolated, for the event that tells what it still may.
    pub fn note_isolation(&self, isolated: Isolated) {
        // A process is isolated once.
        let _ = self.isolated.set(isolated);
    }

    /// Whose lines these are.
    pub fn identify(&self, identity: Identity) {
        let mut said = lock(&self.said);
        said.meter = Meter::new(identity.kind == "verify");
        said.identity = identity;
    }

    /// One line. What is many and small waits for the next heartbeat, or for a full buffer.
    pub fn say(&self, report: &Report<'_>) {
        let line = report.line();
        let mut out = lock(&self.out);
        write_line(&mut out, &line, !is_small(report));
    }

    /// A sign of life: where the run stands.
    pub fn heartbeat(&self, still: Duration) {
        let standing = self.standing(still);
        self.say(&Report::Progress(standing));
    }

    /// Nothing has moved for so long.
    pub fn stalled(&self, still: Duration) {
        let (side, operation) = lock(&self.roots).who(self.progress.opening());
        self.say(&Report::Stall(Stall { side, operation, seconds: still.as_secs() }));
    }

    /// The last line, and the exit code that goes with it.
    pub fn finish(&self, result: Result<Summary, Error>, stopped: bool) -> ExitCode {
        let word = match result {
            Ok(summary) => LastWord::from(summary),
            Err(error) => {
                let held = if stopped { ExitCode::Stopped } else { ExitCode::Complete };
                let exit = ExitCode::first(&[error.exit_code(), held]);
                let standing = self.standing(Duration::ZERO);
                LastWord::counted(&lock(&self.said).identity, &standing, exit, Some(Failure::of(&error)))
            }
        };
        if self.progress.entries_scanned.get() > 0 {
            // Where it ended, for a line of progress that stays.
            self.heartbeat(Duration::ZERO);
        }
        let exit = word.exit();
        self.say(&Report::Summary(Box::new(word)));
        exit
    }

    /// The last line of a process that ends at once, if it can be written without waiting.
    pub fn last_words(&self, error: &Error) {
        let (Ok(mut said), Ok(mut out)) = (self.said.try_lock(), self.out.try_lock()) else { return };
        let standing = said.meter.read(self.began.elapsed(), Duration::ZERO, &self.progress);
        let word = LastWord::counted(&said.identity, &standing, error.exit_code(), Some(Failure::of(error)));
        write_line(&mut out, &Report::Summary(Box::new(word)).line(), true);
    }

    fn standing(&self, still: Duration) -> Standing {
        lock(&self.said).meter.read(self.began.elapsed(), still, &self.progress)
    }
}

fn write_line(out: &mut BufWriter<Box<dyn Write + Send>>, line: &str, flush: bool) {
    // A reader that has gone is noticed at the end of the commands; the run is stopped there.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n"));
    if flush {
        let _ = out.flush();
    }
}

/// One for each entry, where somebody asked for them.
const fn is_small(report: &Report<'_>) -> bool {
    matches!(report, Report::Item { .. } | Report::Compared { .. } | Report::Deleted { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer for Emitter {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Started { job, .. } if !job.is_nil() => lock(&self.said).identity.job = Some(job.to_string()),
            Event::Backend { backend, readback, .. } => {
                let mut said = lock(&self.said);
                (said.identity.backend, said.identity.readback) = (backend.into(), readback.into());
            }
            Event::Confined(confined) => {
                if let Some(isolated) = self.isolated.get() {
                    let mut confined = confined.clone();
                    confined.namespaces.extend(isolated.namespaces.iter().map(|word| (*word).into()));
                    confined.missing.extend(isolated.missing.iter().cloned());
                    return self.say(&Report::from(&Event::Confined(&confined)));
                }
            }
            _ => {}
        }
        self.say(&event.into());
    }

    fn opened(&self, opened: &Opened<'_>) -> Result<(), Error> {
        *lock(&self.roots) = Roots::of(opened);
        // The place to give up rights: roots and state are open, no entry of a tree was looked at, and every
        // data thread still to come inherits what this one has.
        Ok(())
    }
}
