//! What a process gives up before it does anything: descriptors, environment, namespaces.
//!
//! Called once, at the very start, while there is one thread: namespaces belong to a thread, and a thread that
//! stayed behind would be a way back. The order matters: the network namespace is opened while its name is still
//! in view, and the capabilities that all of this takes go last ([`super::narrow_every_thread`]).

#![expect(unsafe_code, reason = "namespaces, and attributes of the process without a safe wrapper")]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A namespace of a process, as `/proc/PID/ns` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Mount,
    Network,
    Ipc,
    Uts,
}

impl Namespace {
    /// Its name in `/proc/PID/ns`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }

    const fn flag(self) -> i32 {
        match self {
            Self::Mount => libc::CLONE_NEWNS,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }
}

/// Closes every descriptor but the three streams: what a careless parent left open is not this process's.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: called before anything of this process has a descriptor of its own.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    done(answer)
}

/// Takes every variable but those of `kept` out of the environment, and wipes the bytes that the kernel shows in
/// `/proc/PID/environ`.
pub fn clear_environment(kept: &[&str]) {
    let values: Vec<_> = kept.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    // SAFETY: there is one thread. The list ends with a null pointer, and its strings lie where the kernel put
    // them, writable and terminated; nobody has a reference into them, because std copies what it gives out.
    unsafe {
        unsafe extern "C" {
            static environ: *const *mut libc::c_char;
        }
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let length = libc::strlen(*at);
            std::ptr::write_bytes(*at, 0, length);
            at = at.add(1);
        }
        libc::clearenv();
        for (name, value) in values {
            std::env::set_var(name, value);
        }
    }
}

/// Sets what costs nothing and needs no right. The answer names what this kernel does not have.
///
/// `own_process_files` says that the process reads its own `/proc` by a capability: then nobody else's reads are
/// allowed for being of the same user (`PR_SET_DUMPABLE`).
pub fn harden(own_process_files: bool) -> Vec<(&'static str, io::Error)> {
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let mut missing = Vec::new();
    let mut note = |what, result: io::Result<()>| {
        if let Err(error) = result {
            missing.push((what, error));
        }
    };
    // What it makes is nobody else's until it says so.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    note("no core file", forbid_core_files());
    // SAFETY: these three change attributes of this process, and take numbers.
    unsafe {
        if own_process_files {
            note("no reads by the same user", done(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into()));
        }
        note(
            "no memory that is written and executed",
            done(libc::prctl(libc::PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0).into()),
        );
        let keyring = libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0, 0, 0, 0);
        note("a keyring of its own", if keyring >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
    }
    missing
}

/// Memory of secrets, of a tenant's data and of names stays off the disk: of this process and of all that it starts.
///
/// # Errors
/// None that a kernel is known to have: a limit may always be lowered.
pub fn forbid_core_files() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// Leaves every group that is not the process's first one. Root needs none.
///
/// # Errors
/// `EPERM` without the right to.
pub fn leave_groups() -> io::Result<()> {
    // SAFETY: of an empty list nothing is read.
    done(unsafe { libc::setgroups(0, std::ptr::null()) }.into())
}

/// Enters a new namespace of that kind. Of a new mount namespace nothing comes out, and nothing comes in.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn leave(namespace: Namespace) -> io::Result<()> {
    if namespace == Namespace::Network {
        keep_nfs_volumes();
    }
    // SAFETY: takes a number, and there is one thread.
    done(unsafe { libc::unshare(namespace.flag()) }.into())?;
    if namespace == Namespace::Mount {
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        let nothing = std::ptr::null();
        // SAFETY: a terminated string, and null where nothing is read.
        return done(unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, flags, std::ptr::null()) }.into());
    }
    Ok(())
}

/// A network namespace that has a name (`ip netns add NAME`).
///
/// # Errors
/// `EINVAL` for what is no name, and what the kernel says of it.
pub fn network_named(name: &OsStr) -> io::Result<OwnedFd> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let place = rustix::fs::open(c"/run/netns", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::openat(place, CString::new(bytes)?, flags, Mode::empty())?)
}

/// Enters that network namespace.
///
/// # Errors
/// `EINVAL` where it is none, `EPERM` without the right to.
pub fn enter_network(namespace: &OwnedFd) -> io::Result<()> {
    keep_nfs_volumes();
    // SAFETY: takes two numbers, and there is one thread.
    done(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }.into())
}

/// What stood in the list before this process entered another network namespace.
static NFS_VOLUMES: OnceLock<Vec<u8>> = OnceLock::new();

/// The kernel's list of NFS volumes, by which a mount of NFS is known again. It is of the network namespace in
/// which a share was mounted: that of this process, the one that it came from, or that of the machine's first process,
/// where a service that is kept off the network comes from.
#[must_use]
pub fn nfs_volumes() -> Vec<u8> {
    let mut list = std::fs::read(NFS_LIST).unwrap_or_default();
    list.extend_from_slice(NFS_VOLUMES.get().map_or(&[], Vec::as_slice));
    list.extend(std::fs::read("/proc/1/net/nfsfs/volumes").unwrap_or_default());
    list
}

const NFS_LIST: &str = "/proc/fs/nfsfs/volumes";

/// Keeps the list: of shares that are mounted already the next namespace knows nothing.
fn keep_nfs_volumes() {
    let _ = NFS_VOLUMES.set(std::fs::read(NFS_LIST).unwrap_or_default());
}

fn done(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
