//! `copyd serve`: puts the daemon together.
//!
//! ```text
//! settings ─► sockets ─► spawner (child, or connected to) ─► user, capabilities given up ─► store ─► manager ─► API
//! SIGTERM  ─► API closes ─► manager: every run to a safe point ─► link closes ─► spawner ends ─► exit
//! ```
//!
//! The order is the point. Sockets and certificates are opened by whoever may. The spawner is started before there
//! is a second thread, because a process is forked safely only then and because it needs the rights that this one
//! gives up next. The store is opened by who writes it. Ready is said when callers can connect and every job of an
//! earlier life has been taken up again.

use std::io::BufReader;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::allow::Allowed;
use super::backend::Daemon;
use super::config::Config;
use super::link::{self, Reply, Request};
use super::manager::{Ask, Heard, Manager, Over, Rules};
use super::notify;
use super::shared::Shared;
use super::spawner_child::{self, Spawner};
use super::user::{User, user_of};
use crate::api;
use crate::error::{Error, ExitCode};
use crate::limits::{ASKS_WAITING, HEARD_WAITING, SHUTDOWN_GRACE};
use crate::observe::Metrics;
use crate::store::StateDir;
use crate::store::control::Control;
use crate::sys::{self, Narrowing, Refused};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub engine_dir: PathBuf,
    pub spawner: Option<PathBuf>,
}

/// Runs the daemon to its end.
///
/// # Errors
/// What keeps it from starting.
pub fn serve(options: &Options) -> Result<ExitCode, Error> {
    // Tokens and keys are about to be read. The spawner and its workers inherit it.
    sys::forbid_core_files().map_err(|source| Error::Resources { what: "core files can't be turned off", source })?;
    let mut config = Config::load(options.config.as_deref())?;
    if let Some(socket) = &options.socket {
        config.api.socket = absolute(socket);
    }
    let allowed = Allowed::new(&config.allow).map_err(|what| Error::Usage { what, remedy: "see copyd.toml" })?;
    let user = config.daemon.user.as_deref().map(user_of).transpose()?;
    let user = user.filter(|user| user.id != rustix::process::geteuid().as_raw());
    let directory = options.state_dir.join("daemon");
    prepare_directories(&directory, &config.api.socket, user)?;
    let front = handed_over(api::Front::prepare(&config.api.settings(&config.access))?)?;
    if let Some(user) = user {
        give_socket_to(&config.api.socket, user)?;
    }
    // Nobody has started a thread so far.
    let spawner = spawner_child::start(options)?;
    give_rights_up(user)?;
    let store = Control::open(&StateDir::open(&directory)?, config.daemon.events_max)?;
    let (asks, asked) = bounded(ASKS_WAITING);
    let shared = Arc::new(Shared::new(asks, store.readers(), allowed, Arc::new(Metrics::starting())));
    let rules = Rules {
        jobs_max: config.daemon.jobs_max,
        retention: Duration::from_secs(u64::from(config.daemon.retention_days) * 86_400),
    };
    let (to_spawner, requests) = unbounded();
    let manager = Manager::new(store, Arc::clone(&shared), rules, to_spawner)?;
    let link = Link::open(spawner, &requests)?;
    let managing = thread("manager", move || manager.work(&asked, &link.heard))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("api").enable_all().build();
    let runtime = runtime.map_err(|source| Error::Resources { what: "no threads for the API", source })?;
    let outcome = runtime.block_on(attend(&shared, front, &managing));
    // Whatever a request still waits for, it waits in vain.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let over = managing.join().unwrap_or_else(|_| Over::SpawnerLost("the manager panicked".into()));
    link.closing.close();
    outcome?;
    match over {
        Over::Stopped => Ok(ExitCode::Complete),
        Over::SpawnerLost(why) => Err(Error::Worker {
            what: format!("the spawner has gone, and without it nothing can run: {why}"),
            remedy: "see its log; start copyd again: every job resumes",
        }),
    }
}

/// Makes what has to be there, and gives it to who is to use it.
fn prepare_directories(state: &Path, socket: &Path, user: Option<User>) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| Error::State { path, what: "can't be made", source: Some(Box::new(source)) }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(state.parent().unwrap_or(state))
        .map_err(failed(state))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed(state))?;
    let runtime = socket.parent().unwrap_or(Path::new("/"));
    let made = !runtime.exists();
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(runtime).map_err(failed(runtime))?;
    if let Some(user) = user {
        chown(state, Some(user.id), Some(user.group)).map_err(failed(state))?;
        if made {
            chown(runtime, Some(user.id), Some(user.group)).map_err(failed(runtime))?;
        }
    }
    Ok(())
}

/// Serves the sockets that the service manager has opened, too: a port for TLS, which this process may not open
/// itself, or another unix socket.
fn handed_over(mut front: api::Front) -> Result<api::Front, Error> {
    for number in notify::handed_over() {
        let socket = sys::take_inherited(number).map_err(|e| Error::Usage {
            what: format!("descriptor {number} is no socket that was handed over: {e}"),
            remedy: "see the unit of the socket",
        })?;
        let family = rustix::net::getsockname(&socket).map(|address| address.address_family());
        front = match family {
            Ok(rustix::net::AddressFamily::UNIX) => front.with_socket(socket.into()),
            _ => front.with_port(socket.into())?,
        };
    }
    Ok(front)
}

fn give_socket_to(socket: &Path, user: User) -> Result<(), Error> {
    chown(socket, Some(user.id), Some(user.group)).map_err(|source| Error::Output {
        path: socket.to_owned(),
        what: "can't give the daemon's user",
        source,
    })
}

/// From here on this process can do nothing that an ordinary one can't.
fn give_rights_up(user: Option<User>) -> Result<(), Error> {
    if let Some(user) = user {
        user.become_it()?;
    }
    let refused = sys::narrow_every_thread(Narrowing { keep: 0, ruleset: None });
    if refused == Refused::default() && sys::effective_capabilities() == 0 {
        return Ok(());
    }
    Err(Error::Resources {
        what: "the API's process can't give its capabilities up",
        source: std::io::ErrorKind::PermissionDenied.into(),
    })
}

fn thread<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let failed = |source| Error::Resources { what: "no thread for the daemon", source };
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(failed)
}

/// The link to the spawner, with a thread for each direction.
struct Link {
    heard: Receiver<Heard>,
    closing: spawner_child::Closing,
}

impl Link {
    fn open(spawner: Spawner, requests: &Receiver<Request>) -> Result<Self, Error> {
        let failed = |source| Error::Resources { what: "no descriptor for the link to the spawner", source };
        let (stream, closing) = spawner.into_parts();
        let out = stream.try_clone().map_err(failed)?;
        let requests = requests.clone();
        thread("to-spawner", move || write_requests(&out, &requests))?;
        let (tell, heard) = bounded(HEARD_WAITING);
        thread("from-spawner", move || read_replies(&stream, &tell))?;
        Ok(Self { heard, closing })
    }
}

fn write_requests(mut out: &UnixStream, requests: &Receiver<Request>) {
    for request in requests {
        // The reader hears of it when the other side has gone.
        if link::write(&mut out, &request).is_err() {
            return;
        }
    }
}

fn read_replies(stream: &UnixStream, tell: &Sender<Heard>) {
    let mut input = BufReader::new(stream);
    let why = loop {
        match link::read::<Reply>(&mut input) {
            Ok(Some(Reply::Hello { hello })) if hello.schema != link::SCHEMA => {
                break format!("it speaks version {} of the link, and not {}", hello.schema, link::SCHEMA);
            }
            Ok(Some(Reply::Hello { hello })) => {
                tracing::info!(version = hello.version, privileged = hello.privileged, "the spawner is there");
            }
            Ok(Some(reply)) => {
                if tell.send(Heard::Line(reply)).is_err() {
                    return;
                }
            }
            Ok(None) => break "its link was closed".into(),
            Err(error) => break error.to_string(),
        }
    };
    // The manager may have come to its end before.
    let _ = tell.send(Heard::Lost(why));
}

/// Serves callers until a signal, or until the manager has ended by itself.
async fn attend(shared: &Arc<Shared>, front: api::Front, managing: &JoinHandle<Over>) -> Result<(), Error> {
    let failed = |source| Error::Resources { what: "no descriptor to watch for signals", source };
    let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    let backend = Arc::new(Daemon::new(Arc::clone(shared)));
    let mut serving = tokio::spawn(front.serve(backend, Arc::clone(&shared.metrics), Arc::default(), stopped));
    notify::ready();
    tracing::info!("ready");
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = ended(managing) => {}
        () = keep_watch(shared) => {}
        served = &mut serving => return served.unwrap_or_else(|_| Err(Error::Internal { what: "the API panicked".into() })),
    }
    notify::stopping();
    let (done, over) = oneshot::channel();
    let _ = stop.send(true);
    if shared.asks.send_timeout(Ask::Stop(done), Duration::from_millis(500)).is_ok() {
        // Nothing comes where the manager has gone.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, over).await;
    }
    serving.abort();
    match serving.await {
        Ok(served) => served,
        Err(_) => Ok(()),
    }
}

/// The manager has gone by itself.
async fn ended(managing: &JoinHandle<Over>) {
    while !managing.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tells the service manager that the daemon lives, as long as the manager answers. Comes back when it does not
/// any more, or never.
async fn keep_watch(shared: &Arc<Shared>) {
    let Some(patience) = notify::patience() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(patience / 3).await;
        let (alive, answer) = oneshot::channel();
        // A queue that is full is one that nobody empties.
        let asked = shared.asks.try_send(Ask::Alive(alive)).is_ok();
        if asked && tokio::time::timeout(patience / 3, answer).await.is_ok_and(|answer| answer.is_ok()) {
            notify::alive();
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
