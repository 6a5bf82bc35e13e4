//! The supervisor of one worker: starts it, hears it, and ends it where it can't end itself (promise P7).
//!
//! ```text
//!                     ┌─ reader ── lines ──► attend() ──► listener (prints; may have to wait for its reader)
//! worker ── stdout ───┘     └─ when, what ──► shared ◄── warden (every 100 ms: cancelled? silent? timed out?)
//!        ── stderr ── relay ► listener                       └─ fence, SIGKILL
//!        ◄─ stdin ─── writer ◄── specification, commands
//! ```
//!
//! No thread here touches a tenant's tree, not even to look at a root, so none can hang with it. And none but
//! `attend` waits for whoever reads what is printed: a full pipe stops the printing, never the guard.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use uuid::Uuid;

use super::spec::{Kind, Specification};
use super::wire::{Command, LastWord, Report, Stall};
use crate::error::{Error, ExitCode};
use crate::limits::{
    CANCEL_GRACE, FENCE_WAIT, KILL_WAIT, LAST_WORD_WAIT, SILENCE, SUPERVISOR_TICK, WIRE_LINE_BYTES_MAX,
    WORKER_LINES_WAITING,
};
use crate::store::{StateDir, Store};

/// Hears what a worker says. Called from several threads.
pub trait Listener: Send + Sync {
    /// A line of the worker, and what it means.
    fn heard(&self, line: &str, report: &Report<'static>);
    /// A line on the worker's stderr.
    fn said(&self, line: &[u8]);
    /// Something of the supervisor's own.
    fn remark(&self, text: &str);
    /// Nothing was said for a moment.
    fn tick(&self);
    /// The run is over, and whoever prints still waits for its reader: the process has to end.
    fn give_up(&self, error: &Error);
}

/// What a supervisor holds its worker to.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// End the run when nothing moved for so long.
    pub timeout: Option<Duration>,
    /// The worker writes its log on stderr.
    pub log: bool,
    /// The worker goes into namespaces of its own before it looks at anything.
    pub isolated: bool,
    /// A name in `/run/netns`: the network that it works in.
    pub network_namespace: Option<String>,
}

/// How it ended.
#[derive(Debug)]
pub enum Verdict {
    /// With a last word of its own.
    Ended(Box<LastWord>),
    /// Without: it was ended by force, or it died.
    Forced(Error),
}

/// A worker that runs, with its guard.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    lines: Receiver<(String, Report<'static>)>,
    stderr: Option<Box<dyn ReadDebug>>,
}

trait ReadDebug: Read + Send + std::fmt::Debug {}
impl<T: Read + Send + std::fmt::Debug> ReadDebug for T {}

/// Asks a worker to end. Cheap to copy, and never waits.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pid: u32,
    child: Mutex<Child>,
    commands: Mutex<Option<Sender<String>>>,
    timeout: Option<Duration>,
    /// Where the job's state lies; none for what keeps no job.
    state_dir: Option<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    heard: Instant,
    /// The reader waits until something is printed: silence says nothing then.
    clogged: bool,
    job: Option<(Uuid, u64)>,
    still: Duration,
    stall: Option<Stall>,
    cancelled: Option<Instant>,
    at_once: bool,
    last_word: Option<(Instant, Box<LastWord>)>,
    exited: Option<ExitStatus>,
    silent: bool,
    /// It is being ended by force: how it goes is not its own doing.
    forcing: bool,
    /// Set when that is done.
    forced: Option<Error>,
    /// Nobody attends any more.
    left: bool,
}

impl Supervisor {
    /// Starts `copyd worker` from this very program and gives it its specification.
    ///
    /// # Errors
    /// [`Error::Worker`] when the process can't be started, and what is wrong with the place of the state.
    pub fn start(specification: &Specification, settings: &Settings) -> Result<Self, Error> {
        // The running program, even where another was put in its place meanwhile.
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("copyd").args(["worker", "--spec", "-"]);
        if settings.log {
            command.arg("--log");
        }
        if settings.isolated {
            command.arg("--isolated");
        }
        if let Some(name) = &settings.network_namespace {
            command.args(["--network-namespace", name]);
        }
        let keeps_state = matches!(specification.kind, Kind::Migrate | Kind::Sync) && !specification.dry_run;
        let state_dir = keeps_state.then(|| StateDir::resolve(specification.state_path()?.as_deref())).transpose()?;
        Self::spawn(command, specification.line(), settings.timeout, state_dir)
    }

    fn spawn(
        mut command: std::process::Command,
        specification: String,
        timeout: Option<Duration>,
        state_dir: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let failed = |e: std::io::Error| match e.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
                Error::Resources { what: "no process or thread for the work", source: e }
            }
            _ => Error::Worker {
                what: format!("the process that is to do the work can't be started: {e}"),
                remedy: "check that /proc is mounted and that this program may be executed",
            },
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (commands, to_write) = unbounded();
        // It is empty, and the other end is here.
        let _ = commands.send(specification);
        let shared = Arc::new(Shared {
            pid: child.id(),
            child: Mutex::new(child),
            commands: Mutex::new(Some(commands)),
            timeout,
            state_dir,
            seen: Mutex::new(Seen::new()),
        });
        let (to_print, lines) = bounded(WORKER_LINES_WAITING);
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(failed)
        };
        if let Some(stdin) = stdin {
            thread("to-worker", Box::new(move || write_commands(stdin, &to_write)))?;
        }
        if let Some(stdout) = stdout {
            let shared = Arc::clone(&shared);
            thread("from-worker", Box::new(move || shared.read_lines(BufReader::new(stdout), &to_print)))?;
        }
        let stderr = stderr.map(|pipe| Box::new(pipe) as Box<dyn ReadDebug>);
        Ok(Self { shared, lines, stderr })
    }

    /// For signals, which may come at any time.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Hears the worker to its end, or until it is ended by force.
    pub fn attend(self, listener: &Arc<dyn Listener>) -> Verdict {
        let Self { shared, lines, stderr } = self;
        let relay = stderr.and_then(|pipe| {
            let listener = Arc::clone(listener);
            let body = move || relay(BufReader::new(pipe), &*listener);
            std::thread::Builder::new().name("worker-stderr".into()).spawn(body).ok()
        });
        let warden = {
            let (shared, listener) = (Arc::clone(&shared), Arc::clone(listener));
            std::thread::Builder::new().name("warden".into()).spawn(move || shared.guard(&*listener))
        };
        if warden.is_err() {
            listener.remark("there is no thread to guard the worker: a call that hangs will not be ended");
        }
        loop {
            match lines.recv_timeout(SUPERVISOR_TICK) {
                Ok((line, report)) => listener.heard(&line, &report),
                Err(RecvTimeoutError::Timeout) => listener.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if shared.seen().forced.is_some() {
                break;
            }
        }
        // Its stdout is closed. It is gone at once, or the warden sees to it.
        while !shared.is_over() {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Last words on stderr come before ours; the pipe ends with the process, unless that has handed it on.
        let begun = Instant::now();
        while relay.as_ref().is_some_and(|relay| !relay.is_finished()) && begun.elapsed() < KILL_WAIT {
            if shared.seen().exited.is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        shared.verdict()
    }
}

fn write_commands(mut stdin: impl Write, lines: &Receiver<String>) {
    for line in lines {
        // A worker that has gone needs no commands.
        let written = stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
        if written.and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

fn relay(mut pipe: impl BufRead, listener: &dyn Listener) {
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        listener.said(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
}

impl Handle {
    /// Asks for a stop at a safe point.
    pub fn cancel(&self) {
        self.0.seen().cancelled.get_or_insert_with(Instant::now);
        self.tell(Command::Cancel);
    }

    /// Hands a command on. A worker that has gone, or is being ended, needs none.
    pub fn tell(&self, command: Command) {
        // A command has no key that is not a string, so it always has a form.
        let line = serde_json::to_string(&command).unwrap_or_default();
        if let Some(commands) = &*lock(&self.0.commands) {
            let _ = commands.send(line);
        }
    }

    /// Ends the worker without waiting for a safe point.
    pub fn end_at_once(&self) {
        self.cancel();
        self.0.seen().at_once = true;
    }

    /// Whether the process is gone. One that could not be ended goes when the call that holds it ends; asked from
    /// then on, this is also what takes its entry out of the table of processes.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.reap()
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn cancelling(&self) -> bool {
        self.0.seen().cancelled.is_some()
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            heard: Instant::now(),
            clogged: false,
            job: None,
            still: Duration::ZERO,
            stall: None,
            cancelled: None,
            at_once: false,
            last_word: None,
            exited: None,
            silent: false,
            forcing: false,
            forced: None,
            left: false,
        }
    }

    fn note(&mut self, report: &Report<'static>) {
        self.heard = Instant::now();
        self.silent = false;
        match report {
            Report::Started { job, epoch, .. } => {
                self.job = Uuid::parse_str(job).ok().filter(|job| !job.is_nil()).map(|job| (job, *epoch));
            }
            Report::Progress(standing) => {
                self.still = Duration::from_secs(standing.still_s);
                if standing.still_s == 0 {
                    self.stall = None;
                }
            }
            Report::Stall(stall) => self.stall = Some(stall.clone()),
            Report::Summary(word) => self.last_word = Some((Instant::now(), word.clone())),
            _ => {}
        }
    }

    /// Why the worker is to be ended by force now, if it is.
    fn due(&self, now: Instant, timeout: Option<Duration>) -> Option<Due> {
        if let Some((when, _)) = &self.last_word {
            return (now.duration_since(*when) >= LAST_WORD_WAIT).then_some(Due::Lingers);
        }
        if self.at_once {
            return Some(Due::AtOnce);
        }
        if self.cancelled.is_some_and(|when| now.duration_since(when) >= CANCEL_GRACE) {
            return Some(Due::Cancelled);
        }
        let silence = if self.clogged { Duration::ZERO } else { now.saturating_duration_since(self.heard) };
        let most = timeout?;
        if self.still >= most {
            return Some(Due::Still);
        }
        (silence >= most.max(SILENCE)).then_some(Due::Silent(silence))
    }
}

/// Why a worker is ended by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Cancelled,
    AtOnce,
    Still,
    Silent(Duration),
    /// It has said its last word, and does not go.
    Lingers,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// The reader: until the worker's stdout ends.
    fn read_lines(&self, mut pipe: impl BufRead, to_print: &Sender<(String, Report<'static>)>) {
        loop {
            let mut line = Vec::new();
            let read = Read::take(&mut pipe, WIRE_LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if !read.is_ok_and(|length| length > 0) {
                return;
            }
            let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            let report = Report::parse(&line)
                .unwrap_or_else(|_| Report::Note { text: format!("the worker said: {line}").into() });
            self.seen().note(&report);
            let Err(TrySendError::Full(waiting)) = to_print.try_send((line, report)) else { continue };
            self.seen().clogged = true;
            let sent = to_print.send(waiting);
            let mut seen = self.seen();
            (seen.clogged, seen.heard) = (false, Instant::now());
            if sent.is_err() {
                return;
            }
        }
    }

    /// The warden: until the worker is gone.
    fn guard(&self, listener: &dyn Listener) {
        let mut looked = Instant::now();
        while !self.is_over() {
            std::thread::sleep(SUPERVISOR_TICK);
            let now = Instant::now();
            let away = now.duration_since(looked);
            looked = now;
            let (due, silent) = {
                let mut seen = self.seen();
                if away > SUPERVISOR_TICK * 10 {
                    // This process was stopped itself: it could not have heard anything.
                    seen.heard = now;
                }
                let silence = now.saturating_duration_since(seen.heard);
                let falls_silent = silence >= SILENCE && !seen.clogged && !seen.silent && seen.last_word.is_none();
                seen.silent |= falls_silent;
                (seen.due(now, self.timeout), falls_silent.then_some(silence.as_secs()))
            };
            if let Some(s) = silent {
                let pid = self.pid;
                listener.remark(&format!("process {pid}, which does the work, has given no sign of life for {s} s"));
            }
            if let Some(due) = due {
                self.force(due, listener);
            }
        }
        let error = self.seen().forced.as_ref().map(copy_of);
        let Some(error) = error else { return };
        std::thread::sleep(LAST_WORD_WAIT);
        if !self.seen().left {
            listener.give_up(&error);
        }
    }

    /// Fences the job, then kills. What can't be killed is named.
    fn force(&self, due: Due, listener: &dyn Listener) {
        self.seen().forcing = true;
        if due != Due::Lingers {
            self.fence(listener);
        }
        let _ = lock(&self.child).kill();
        let begun = Instant::now();
        while !self.reap() && begun.elapsed() < KILL_WAIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = self.seen();
        let stall = seen.stall.as_ref().map(|stall| format!(": {stall}")).unwrap_or_default();
        let who = seen.stall.as_ref().and_then(|stall| stall.side);
        let remains = seen.exited.is_none();
        let error = match due {
            Due::Cancelled => Error::Cancelled {
                what: format!(
                    "no safe point was reached within {} s, so the run was ended{stall}",
                    CANCEL_GRACE.as_secs()
                ),
            },
            Due::AtOnce => Error::Cancelled { what: "the run was ended at once, as asked".into() },
            Due::Still => Error::Timeout {
                what: seen
                    .stall
                    .as_ref()
                    .map_or_else(|| format!("nothing has moved for {} s", seen.still.as_secs()), ToString::to_string),
            },
            Due::Silent(silence) => {
                Error::Timeout { what: format!("the worker has given no sign of life for {} s", silence.as_secs()) }
            }
            Due::Lingers => Error::Worker { what: "the worker did not end by itself".into(), remedy: "nothing to do" },
        };
        drop(seen);
        if remains {
            let who = who.map_or_else(|| "a file system".to_owned(), |side| format!("the {side}"));
            listener.remark(&format!(
                "process {} can't be ended: the kernel holds it in a call that {who} does not answer{stall}; it goes by \
                 itself when the call ends, changes nothing of the job any more, and what it leaves is removed by the \
                 next run",
                self.pid
            ));
        }
        self.seen().forced = Some(error);
    }

    /// Takes the job away from the worker, within a bounded time.
    fn fence(&self, listener: &dyn Listener) {
        let (Some(state), Some((job, epoch))) = (self.state_dir.clone(), self.seen().job) else { return };
        let (done, fenced) = bounded(1);
        let started = std::thread::Builder::new().name("fence".into()).spawn(move || {
            // Nobody waits any more where it took too long.
            let _ = done.send(Store::fence(&state, job, epoch));
        });
        let why = match started.map(|_| fenced.recv_timeout(FENCE_WAIT)) {
            Ok(Ok(Ok(_))) => return,
            Ok(Ok(Err(error))) => super::wire::Failure::of(&error).message,
            Ok(Err(_)) => "the state directory does not answer".to_owned(),
            Err(error) => format!("there is no thread for it: {error}"),
        };
        listener.remark(&format!("the job could not be recorded as cancelled: {why}"));
    }

    /// Whether the process is gone; notes how it went.
    fn reap(&self) -> bool {
        let status = lock(&self.child).try_wait();
        let mut seen = self.seen();
        if let Ok(Some(status)) = status {
            seen.exited = Some(status);
        }
        seen.exited.is_some()
    }

    /// Nothing is to be waited for any more.
    fn is_over(&self) -> bool {
        let gone = self.reap();
        let seen = self.seen();
        seen.forced.is_some() || (gone && !seen.forcing)
    }

    fn verdict(&self) -> Verdict {
        drop(lock(&self.commands).take());
        let mut seen = self.seen();
        seen.left = true;
        if let Some((_, word)) = seen.last_word.take() {
            return Verdict::Ended(word);
        }
        if let Some(error) = &seen.forced {
            return Verdict::Forced(copy_of(error));
        }
        // Without memory there is none for a last word either.
        if seen.exited.and_then(|status| status.code()) == Some(i32::from(ExitCode::Root as u8)) {
            return Verdict::Forced(Error::Resources {
                what: "the process that did the work had no memory left",
                source: std::io::ErrorKind::OutOfMemory.into(),
            });
        }
        Verdict::Forced(Error::Worker {
            what: format!("the process that did the work {}, without a last word", ending(seen.exited)),
            remedy: "run the same command again: it resumes; if memory ran out (dmesg says so), lower --jobs",
        })
    }
}

fn ending(status: Option<ExitStatus>) -> String {
    let signal = status.and_then(|status| status.signal());
    match (signal, status.and_then(|status| status.code())) {
        (Some(9), _) => "was killed (signal 9)".into(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with code {code}"),
        (None, None) => "is gone".into(),
    }
}

/// Errors keep their sources and so can't be cloned; those of force have none.
fn copy_of(error: &Error) -> Error {
    match error {
        Error::Cancelled { what } => Error::Cancelled { what: what.clone() },
        Error::Timeout { what } => Error::Timeout { what: what.clone() },
        Error::Worker { what, remedy } => Error::Worker { what: what.clone(), remedy },
        other => Error::Internal { what: other.to_string() },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
