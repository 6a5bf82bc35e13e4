//! The fault rig: a file system whose calls fail, lie, hang or race on demand.
//!
//! [`Rig`] mounts a pass-through file system (FUSE, by the `fuser` crate) over a backing directory and
//! serves it from threads of this process. Its [`plan::Plan`] says what goes wrong at which call; the
//! backing directory shows, past the mount and any cache of it, what really arrived. A
//! [`RigProcess`] does the same, without a plan, from a process of its own that can be killed.
//!
//! A [`record::Recording`] keeps the writes and flushes of images that lie on a rig, and makes the disks
//! that a power cut could have left.
//!
//! Mounts live in the test's mount namespace (`support::mounts`), so nothing is left of them when a
//! test is killed. A rig that is dropped, also by a panic, aborts its connection and then unmounts:
//! whoever still waits gets an error instead of waiting for ever.

#![allow(dead_code, reason = "each test binary compiles this module and uses its own part of it")]

pub mod plan;
pub mod record;
mod serve;
pub mod stage;
mod tree;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};

use crate::support::mounts::own_mounts;
use plan::Plan;
use serve::Faulty;
use tree::Tree;

/// Where the kernel shows each connection, by the minor number of its device (`fusectl`).
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// What tells a process that it is to serve, and for whom: backing directory, newline, mount point.
const SERVE: &str = "COPYD_RIG_SERVE";

/// Threads that serve: a call that waits for the backing file system holds up none of the others.
const THREADS: usize = 2;

/// A mounted file system with a plan.
#[derive(Debug)]
pub struct Rig {
    point: MountPoint,
    backing: PathBuf,
    /// What mounts call it.
    name: String,
    plan: Arc<Plan>,
    session: Option<BackgroundSession>,
}

impl Rig {
    /// Mounts a rig over an existing directory, which has to lie on one file system.
    pub fn over(backing: &Path) -> Self {
        Self::named(backing, server_name(backing))
    }

    /// As [`Self::over`], but it names no server: mounted again under another device number, it looks like
    /// another share.
    pub fn nameless(backing: &Path) -> Self {
        Self::named(backing, "rig".into())
    }

    fn named(backing: &Path, name: String) -> Self {
        let (point, plan) = (MountPoint::new(), Arc::new(Plan::default()));
        let mut rig = Self { point, backing: backing.to_owned(), name, plan, session: None };
        rig.mount();
        rig
    }

    /// Mounts it where it was before, with no rule: the same share, though another device.
    pub fn mount(&mut self) {
        let session = session(&self.backing, &self.name, &self.point.path, Arc::clone(&self.plan));
        self.session = Some(session.spawn().expect("the serving threads start"));
        self.point.mounted();
        self.plan.clear();
    }

    /// Ends it and takes it down: an empty directory is left.
    pub fn unmount(&mut self) {
        self.point.take_down();
        // Nobody waits any more; what hung has its answer refused by the kernel.
        self.plan.release();
        if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }

    pub fn path(&self) -> &Path {
        &self.point.path
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Ends the connection as the death of a server does: every call that waits, and every later one,
    /// fails with ENOTCONN or ECONNABORTED.
    pub fn abort(&self) {
        self.point.abort();
    }

    /// Takes the mount out of the tree at once; whoever holds a descriptor goes on (`umount --lazy`).
    pub fn detach(&mut self) {
        self.point.detach();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A rig without a plan that is served by a process of its own.
#[derive(Debug)]
pub struct RigProcess {
    point: MountPoint,
    server: Child,
}

impl RigProcess {
    /// Starts this very test program once more, to run nothing but the named test, which has to call
    /// [`serve_if_asked`] first of all.
    pub fn over(backing: &Path, test: &str) -> Self {
        let mut point = MountPoint::new();
        let before = fs::metadata(&point.path).expect("the mount point is there").dev();
        let task = format!("{}\n{}", backing.display(), point.path.display());
        let program = std::env::current_exe().expect("procfs is mounted");
        let mut command = Command::new(program);
        command.args([test, "--exact", "--nocapture"]).env(SERVE, task);
        let server = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("this program starts again");
        let start = Instant::now();
        while fs::metadata(&point.path).is_ok_and(|found| found.dev() == before) {
            assert!(start.elapsed() < Duration::from_secs(20), "the rig's process never mounts");
            thread::sleep(Duration::from_millis(5));
        }
        point.mounted();
        Self { point, server }
    }

    pub fn path(&self) -> &Path {
        &self.point.path
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        self.server.kill().expect("the server is ours");
        self.server.wait().expect("the server is ours");
    }
}

impl Drop for RigProcess {
    fn drop(&mut self) {
        self.point.take_down();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Serves, and never comes back, where this process was started as a rig's. It ends with the process
/// that started it, whose end of the pipe closes then.
pub fn serve_if_asked() {
    let Ok(task) = std::env::var(SERVE) else { return };
    let (backing, point) = task.split_once('\n').expect("two paths");
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let session = session(Path::new(backing), &server_name(Path::new(backing)), Path::new(point), Arc::default());
    let _ = session.run();
    std::process::exit(0);
}

/// A source that names a server makes it the same share after it was mounted again.
fn server_name(backing: &Path) -> String {
    format!("rig:{}", backing.display())
}

fn session(backing: &Path, name: &str, point: &Path, plan: Arc<Plan>) -> Session<Faulty> {
    assert!(
        Path::new("/dev/fuse").exists(),
        "/dev/fuse is missing: the kernel needs the fuse driver (modprobe fuse), a container --device /dev/fuse"
    );
    let tree = Arc::new(Tree::open(backing).expect("the backing directory is there"));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName(name.to_owned()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    Session::new(Faulty { plan, tree }, point, &config).expect("root mounts FUSE")
}

/// The directory that a rig is mounted on, removed with this value.
#[derive(Debug)]
struct MountPoint {
    path: PathBuf,
    /// What ends its connection, once it stands.
    abort: Option<PathBuf>,
    in_tree: bool,
}

impl MountPoint {
    fn new() -> Self {
        own_mounts();
        let path = tempfile::Builder::new().prefix("copyd-rig-").tempdir_in("/tmp").expect("/tmp takes it").keep();
        Self { path, abort: None, in_tree: false }
    }

    fn mounted(&mut self) {
        self.in_tree = true;
        let device = fs::metadata(&self.path).expect("a fresh rig answers").dev();
        if fs::read_dir(CONNECTIONS).is_ok_and(|mut entries| entries.next().is_none()) {
            crate::support::tool("mount", "mount", &["-t", "fusectl", "none", CONNECTIONS]);
        }
        let connection = Path::new(CONNECTIONS).join(rustix::fs::minor(device).to_string());
        self.abort = Some(connection.join("abort"));
    }

    fn abort(&self) {
        fs::write(self.abort.as_ref().expect("it is mounted"), b"1").expect("root aborts a connection");
    }

    fn detach(&mut self) {
        crate::support::tool("mount", "umount", &[Path::new("--lazy"), &self.path]);
        self.in_tree = false;
    }

    /// Whatever state it is in: first nobody waits any more, then nothing is mounted any more.
    fn take_down(&mut self) {
        if let Some(file) = self.abort.take() {
            // Gone already where the server died and the mount with it.
            let _ = fs::write(file, b"1");
        }
        if std::mem::take(&mut self.in_tree) {
            let done = Command::new("umount").arg("--lazy").arg(&self.path).output();
            if !done.is_ok_and(|output| output.status.success()) && !thread::panicking() {
                eprintln!("{} can't be unmounted", self.path.display());
            }
        }
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        self.take_down();
        let _ = fs::remove_dir(&self.path);
    }
}
