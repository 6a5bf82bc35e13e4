//! The spawner: the part of the daemon that has rights, kept small.
//!
//! ```text
//! link ── start ──► judge (allow.rs) ──► Supervisor::start ──► a thread for each run: attend() ─► events, ended
//!      ── cancel, end, tell ───────────► Handle
//!      ── end of the stream ───────────► cancel all, wait for all, next client or exit
//! ```
//!
//! Whoever speaks on the link may have taken `serve` over. So a request is held to the lists of the settings, its
//! state lies where the spawner says, files of the operator can't be named, and runs are counted. The spawner
//! itself never touches a tenant's tree, not even to look: it judges words, and the worker opens its roots beneath
//! the allowed ones. What a worker says is relayed, never acted on, apart from what its supervisor needs to end it.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use uuid::Uuid;

use super::allow::{Allowed, Asked, NotAllowed};
use super::config::Config;
use super::link::{self, Ended, Forced, Hello, Reason, Refused, Reply, Request, Start};
use super::notify;
use crate::error::{Error, ExitCode};
use crate::limits::{
    CANCEL_GRACE, FENCE_WAIT, INSPECT_LINES_AHEAD, KILL_WAIT, LINGERING_LOOK, LINK_LINES_WAITING, RUNS_BESIDE_JOBS,
};
use crate::sys;
use crate::worker::{Handle, Kind, Line, Listener, Report, Settings, Specification, Supervisor, Verdict, escape};

/// Who the spawner works for.
#[derive(Debug)]
pub enum Place {
    /// One `serve`, which has started it; the spawner ends with it.
    Parent(RawFd),
    /// Whoever connects and may, one after the other: a socket that the service manager has opened.
    Socket(RawFd),
}

/// What a spawner is given.
#[derive(Debug)]
pub struct Setup {
    pub config: Config,
    /// Where the workers keep their jobs.
    pub engine_dir: PathBuf,
    /// Workers go into namespaces of their own.
    pub isolated: bool,
}

/// Serves until there is nobody left to serve.
///
/// # Errors
/// [`Error::Usage`] for a descriptor that is none; [`Error::Resources`] where the machine gives no thread.
pub fn spawn_for(place: &Place, setup: Setup) -> Result<(), Error> {
    sys::forbid_core_files().map_err(|source| Error::Resources { what: "core files can't be turned off", source })?;
    let allowed = Allowed::new(&setup.config.allow).map_err(|what| Error::Usage { what, remedy: "see copyd.toml" })?;
    let ending = Arc::new(Ending::default());
    match place {
        Place::Parent(number) => {
            ignore_signals()?;
            let stream = UnixStream::from(taken(*number)?);
            Session::new(&setup, &allowed, &stream)?.serve(&stream);
            Ok(())
        }
        Place::Socket(number) => {
            watch_signals(&ending)?;
            let listener = UnixListener::from(taken(*number)?);
            let users = users_allowed(&setup.config)?;
            keep_watch()?;
            notify::ready();
            loop {
                let (stream, _) = listener.accept().map_err(no_link)?;
                if !may_connect(&stream, &users) {
                    tracing::warn!("a peer that is neither root nor the daemon's user was turned away");
                    continue;
                }
                if !ending.begin(&stream) {
                    return Ok(());
                }
                Session::new(&setup, &allowed, &stream)?.serve(&stream);
                if !ending.rest() {
                    return Ok(());
                }
            }
        }
    }
}

fn taken(number: RawFd) -> Result<std::os::fd::OwnedFd, Error> {
    sys::take_inherited(number).map_err(|e| Error::Usage {
        what: format!("descriptor {number} is no link: {e}"),
        remedy: "the spawner is started by `copyd serve`, or by the service manager with a socket",
    })
}

fn no_link(source: io::Error) -> Error {
    Error::Resources { what: "no thread or descriptor for the link to the daemon", source }
}

/// The users that may speak to the spawner: root, its own, and the one that the daemon is to run as.
fn users_allowed(config: &Config) -> Result<Vec<u32>, Error> {
    let mut users = vec![0, rustix::process::geteuid().as_raw()];
    if let Some(name) = &config.daemon.user {
        users.push(super::user_of(name)?.id);
    }
    Ok(users)
}

/// The kernel says who connected, as of the moment of the connection (unix(7), SO_PEERCRED).
fn may_connect(stream: &UnixStream, users: &[u32]) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| users.contains(&peer.uid.as_raw()))
}

/// A terminal's Ctrl-C and a service's stop reach the whole group. `serve` decides what follows, and its end is
/// what ends its spawner.
fn ignore_signals() -> Result<(), Error> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A handler, and not SIG_IGN, which workers would inherit.
        signal_hook::flag::register(signal, Arc::default()).map(drop).map_err(no_link)?;
    }
    Ok(())
}

fn watch_signals(ending: &Arc<Ending>) -> Result<(), Error> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
        .map_err(no_link)?;
    let ending = Arc::clone(ending);
    let watching = std::thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() && ending.end() {
            // Nobody is served, so there is nothing to wait for.
            signal_hook::low_level::exit(0);
        }
    });
    watching.map(drop).map_err(no_link)
}

/// Tells the service manager that this process is not stopped or starved. Whether a run hangs is its supervisor's
/// to see, and no reason to end the others.
fn keep_watch() -> Result<(), Error> {
    let Some(patience) = notify::patience() else { return Ok(()) };
    let watching = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            notify::alive();
            std::thread::sleep(patience / 3);
        }
    });
    watching.map(drop).map_err(no_link)
}

/// Whether the spawner is to end, and whom it serves.
#[derive(Debug, Default)]
struct Ending(Mutex<(bool, Option<UnixStream>)>);

impl Ending {
    fn begin(&self, stream: &UnixStream) -> bool {
        let mut state = lock(&self.0);
        state.1 = stream.try_clone().ok();
        !state.0
    }

    fn rest(&self) -> bool {
        let mut state = lock(&self.0);
        state.1 = None;
        !state.0
    }

    /// True where nobody is served.
    fn end(&self) -> bool {
        let mut state = lock(&self.0);
        state.0 = true;
        match &state.1 {
            // Its reader sees an end, as if the other side had gone.
            Some(stream) => stream.shutdown(std::net::Shutdown::Read).is_err(),
            None => true,
        }
    }
}

/// One link, with its runs.
#[derive(Clone, Debug)]
struct Session<'a> {
    setup: &'a Setup,
    allowed: &'a Allowed,
    out: Sender<Vec<u8>>,
    runs: Arc<Mutex<HashMap<Uuid, Run>>>,
}

/// A run under way.
#[derive(Clone, Debug)]
struct Run {
    handle: Handle,
    /// Of an inspection: lines that it may still send.
    credit: Option<Arc<Credit>>,
}

impl Run {
    fn cancel(&self) {
        self.handle.cancel();
        self.credit.iter().for_each(|credit| credit.give(u64::MAX));
    }
}

/// How many lines may be sent on before their reader has taken some.
#[derive(Debug)]
struct Credit {
    left: Mutex<u64>,
    given: Condvar,
}

impl Credit {
    fn take(&self) {
        let left = lock(&self.left);
        let mut left = self.given.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
    }

    fn give(&self, lines: u64) {
        let mut left = lock(&self.left);
        *left = left.saturating_add(lines);
        self.given.notify_all();
    }
}

impl<'a> Session<'a> {
    fn new(setup: &'a Setup, allowed: &'a Allowed, stream: &UnixStream) -> Result<Self, Error> {
        let (out, lines) = bounded(LINK_LINES_WAITING);
        let stream = stream.try_clone().map_err(no_link)?;
        std::thread::Builder::new()
            .name("to-daemon".into())
            .spawn(move || write_lines(&stream, &lines))
            .map_err(no_link)?;
        Ok(Self { setup, allowed, out, runs: Arc::default() })
    }

    /// Until the other side has gone, and every run with it.
    fn serve(self, stream: &UnixStream) {
        let privileged = sys::effective_capabilities() >> DAC_OVERRIDE & 1 == 1;
        let version = env!("CARGO_PKG_VERSION").into();
        self.say(&Reply::Hello { hello: Hello { schema: link::SCHEMA, version, privileged } });
        let mut input = BufReader::new(stream);
        loop {
            match link::read::<Request>(&mut input) {
                Ok(Some(request)) => self.obey(request),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the link carries what is no request");
                    break;
                }
            }
        }
        lock(&self.runs).values().for_each(Run::cancel);
        // Each is over at the latest when its supervisor has ended it by force; but its last line may wait for a
        // reader that is there and does not read.
        let begun = Instant::now();
        while !lock(&self.runs).is_empty() {
            std::thread::sleep(Duration::from_millis(20));
            if begun.elapsed() > CANCEL_GRACE + FENCE_WAIT + KILL_WAIT {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        // Whoever reads the other side sees an end now and not when the writer is through.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }

    fn obey(&self, request: Request) {
        let known = |run: &Uuid| lock(&self.runs).get(run).cloned();
        match request {
            Request::Start(start) => {
                let run = start.run;
                if let Err(refused) = self.start(*start) {
                    self.say(&Reply::Refused { run, refused });
                    self.say(&Reply::Ended { run, ended: Ended { exit_code: ExitCode::Usage as u8, forced: None } });
                }
            }
            // A run that is not known has ended meanwhile, and has said so.
            Request::Cancel { run } => known(&run).iter().for_each(Run::cancel),
            Request::End { run } => known(&run).iter().for_each(|run| {
                run.cancel();
                run.handle.end_at_once();
            }),
            Request::Tell { run, line } => known(&run).iter().for_each(|run| run.handle.tell(line)),
            Request::More { run, lines } => {
                known(&run).iter().filter_map(|run| run.credit.as_ref()).for_each(|credit| credit.give(lines));
            }
        }
    }

    fn start(&self, start: Start) -> Result<(), Refused> {
        let Start { run, project, specification, network_namespace, timeout_s } = start;
        let mut runs = lock(&self.runs);
        if runs.contains_key(&run) {
            return Err(invalid(format!("the run {run} is under way already")));
        }
        if runs.len() >= self.setup.config.daemon.jobs_max + RUNS_BESIDE_JOBS {
            return Err(resources(format!("{} runs are under way, which is the most", runs.len())));
        }
        let specification = self.judged(specification, &project, network_namespace.as_deref())?;
        let settings = Settings {
            timeout: timeout_s.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            log: false,
            isolated: self.setup.isolated,
            network_namespace,
        };
        let supervisor = Supervisor::start(&specification, &settings).map_err(|error| refused_by(&error))?;
        let handle = supervisor.handle();
        let inspects = specification.kind == Kind::Inspect;
        let credit = Credit { left: Mutex::new(INSPECT_LINES_AHEAD), given: Condvar::new() };
        let credit = inspects.then(|| Arc::new(credit));
        runs.insert(run, Run { handle: handle.clone(), credit: credit.clone() });
        drop(runs);
        let relay: Arc<dyn Listener> = Arc::new(Relay { run, out: self.out.clone(), credit });
        let (out, runs) = (self.out.clone(), Arc::clone(&self.runs));
        let attending = std::thread::Builder::new().name("run".into()).spawn({
            let handle = handle.clone();
            move || {
                let ended = ended(supervisor.attend(&relay));
                // First: whoever hears that it has ended may start it again at once.
                lock(&runs).remove(&run);
                say(&out, &Reply::Ended { run, ended });
                // What the kernel does not let die is taken out of the table when it goes.
                while !handle.is_gone() {
                    std::thread::sleep(LINGERING_LOOK);
                }
            }
        });
        attending.map(drop).map_err(|error| {
            handle.end_at_once();
            lock(&self.runs).remove(&run);
            resources(format!("there is no thread to attend the worker: {error}"))
        })
    }

    /// The specification that the worker gets: what was asked for, if it is allowed, with what only the spawner
    /// may say.
    fn judged(
        &self,
        specification: Specification,
        project: &str,
        namespace: Option<&str>,
    ) -> Result<Specification, Refused> {
        if specification.manifest.is_some() || specification.manifest_b64.is_some() {
            return Err(not_allowed("a job of the daemon names no file of this machine: manifest", "leave it out"));
        }
        if specification.state_dir.is_some() || specification.state_dir_b64.is_some() {
            return Err(not_allowed("where jobs are kept is the spawner's to say: state_dir", "leave it out"));
        }
        if specification.kind == Kind::Inspect {
            // It reads the state and opens no root; a worker refuses one that names any.
            self.allowed.judge(Asked { project, paths: &[], namespaces: &[] }).map_err(refused_for)?;
            return Ok(specification.with_state_dir(Some(&self.setup.engine_dir)));
        }
        let path = |end: Option<&crate::worker::End>, field: &str| end.map(|end| end.path(field)).transpose();
        let source = path(specification.source.as_ref(), "source").map_err(|error| refused_by(&error))?;
        let destination = path(Some(&specification.destination), "destination").map_err(|error| refused_by(&error))?;
        let paths: Vec<_> = source.iter().chain(&destination).map(PathBuf::as_path).collect();
        let namespaces: Vec<_> = namespace.into_iter().collect();
        let granted = self.allowed.judge(Asked { project, paths: &paths, namespaces: &namespaces });
        let granted = granted.map_err(refused_for)?;
        let keeps_state = specification.kind != Kind::Verify;
        let within = granted.within.iter().map(|root| Line::from(root.as_os_str().as_bytes())).collect();
        let specification = Specification { within, ..specification };
        Ok(if keeps_state { specification.with_state_dir(Some(&self.setup.engine_dir)) } else { specification })
    }

    fn say(&self, reply: &Reply) {
        say(&self.out, reply);
    }
}

/// The bit of `CAP_DAC_OVERRIDE` (capabilities(7)).
const DAC_OVERRIDE: u32 = 1;

fn say(out: &Sender<Vec<u8>>, reply: &Reply) {
    let mut line = Vec::new();
    // Memory takes all, and a writer whose reader has gone goes on taking.
    if link::write(&mut line, reply).is_ok() {
        let _ = out.send(line);
    }
}

/// The writer: until nobody has anything to say any more. What the other side does not hear is dropped, so that
/// no run waits for a reader that has gone.
fn write_lines(stream: &UnixStream, lines: &Receiver<Vec<u8>>) {
    let mut out = BufWriter::new(stream);
    let mut gone = false;
    for line in lines {
        gone = gone || out.write_all(&line).is_err() || (lines.is_empty() && out.flush().is_err());
    }
}

fn ended(verdict: Verdict) -> Ended {
    match verdict {
        Verdict::Ended(word) => Ended { exit_code: word.exit_code, forced: None },
        Verdict::Forced(error) => Ended {
            exit_code: error.exit_code() as u8,
            forced: Some(Forced { what: escape(error.to_string().as_bytes()), remedy: error.remedy().into() }),
        },
    }
}

fn refused_by(error: &Error) -> Refused {
    let what = escape(error.to_string().as_bytes());
    let reason = if matches!(error, Error::Usage { .. }) { Reason::Invalid } else { Reason::Resources };
    Refused { what, remedy: error.remedy().into(), reason }
}

fn invalid(what: String) -> Refused {
    Refused { what, remedy: "nothing to do: the daemon tries again with another name".into(), reason: Reason::Invalid }
}

fn resources(what: String) -> Refused {
    Refused { what, remedy: "wait until others have ended".into(), reason: Reason::Resources }
}

fn refused_for(no: NotAllowed) -> Refused {
    Refused { what: no.what, remedy: no.remedy, reason: Reason::NotAllowed }
}

fn not_allowed(what: &str, remedy: &str) -> Refused {
    Refused { what: what.into(), remedy: remedy.into(), reason: Reason::NotAllowed }
}

/// Sends on what a worker and its supervisor say.
#[derive(Debug)]
struct Relay {
    run: Uuid,
    out: Sender<Vec<u8>>,
    credit: Option<Arc<Credit>>,
}

impl Listener for Relay {
    fn heard(&self, line: &str, report: &Report<'static>) {
        if let Some(credit) = self.credit.as_ref().filter(|_| matches!(report, Report::Entry(_))) {
            credit.take();
        }
        let _ = self.out.send(link::event_line(self.run, line, report));
    }

    fn said(&self, line: &[u8]) {
        self.remark(&escape(line));
    }

    fn remark(&self, text: &str) {
        say(&self.out, &Reply::Remark { run: self.run, remark: text.into() });
    }

    fn tick(&self) {}

    /// The run is over, and the link takes nothing: the run's thread waits with its last line, and nobody else.
    fn give_up(&self, error: &Error) {
        tracing::error!(run = %self.run, %error, "the daemon does not read what its runs say");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
