//! The spawner from the daemon's side: started as a child, or found at its socket.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::serve::Options;
use crate::error::Error;
use crate::limits::SPAWNER_END_WAIT;

/// A spawner, and the link to it.
#[derive(Debug)]
pub struct Spawner {
    stream: UnixStream,
    /// None where the service manager has started it.
    child: Option<Child>,
}

/// Ends the link; the spawner ends with it.
#[derive(Debug)]
pub struct Closing {
    stream: Option<UnixStream>,
    child: Option<Child>,
}

/// Starts the spawner, or connects to the one that is named. To be called while there is one thread.
///
/// # Errors
/// [`Error::Resources`] where it can't be started, [`Error::Usage`] where nobody listens.
pub fn start(options: &Options) -> Result<Spawner, Error> {
    match &options.spawner {
        Some(path) => connect(path),
        None => spawn(options),
    }
}

fn connect(path: &Path) -> Result<Spawner, Error> {
    let stream = UnixStream::connect(path).map_err(|error| Error::Usage {
        what: format!("the spawner does not answer at {}: {error}", path.display()),
        remedy: "start its socket (systemctl start copyd-spawner.socket), or leave --spawner out",
    })?;
    Ok(Spawner { stream, child: None })
}

/// A child with one end of a stream; the other stays here.
fn spawn(options: &Options) -> Result<Spawner, Error> {
    let failed = |source| Error::Resources { what: "the spawner can't be started", source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // It comes through the execve; nothing else is started meanwhile, because there is one thread.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|e| failed(e.into()))?;
    // The running program, even where another was put in its place meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("copyd").arg("spawner").arg("--link").arg(theirs.as_raw_fd().to_string());
    command.arg("--engine-dir").arg(absolute(&options.engine_dir));
    if let Some(config) = &options.config {
        command.arg("--config").arg(absolute(config));
    }
    // Those are for this process, and a worker must not speak in its name.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(failed)?;
    Ok(Spawner { stream: ours, child: Some(child) })
}

impl Spawner {
    /// The link, and how it is ended.
    #[must_use]
    pub fn into_parts(self) -> (UnixStream, Closing) {
        let stream = self.stream.try_clone().ok();
        (self.stream, Closing { stream, child: self.child })
    }
}

impl Closing {
    /// Ends the link and waits for the child, if there is one, for a moment: it waits for its runs, and these may
    /// hang. It goes by itself then.
    pub fn close(self) {
        let Self { stream, child } = self;
        if let Some(stream) = stream {
            // It may be gone already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let Some(mut child) = child else { return };
        let begun = Instant::now();
        while begun.elapsed() < SPAWNER_END_WAIT && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
