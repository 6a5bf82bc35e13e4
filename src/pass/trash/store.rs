//! The trash directory itself: opened, made, its generations found.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode};
use uuid::Uuid;

use crate::error::{Error, Side};
use crate::fidelity::Locks;
use crate::sys::{self, Answer};
use crate::tree::listing::Names;

use super::super::lift;
use super::super::setup::root_error;
use super::super::staging;
use super::NAME;
use super::name::Stamp;
use super::record::{self, Line, Record, Why};

/// Where the entries of a generation lie.
pub const TREE: &CStr = c"tree";
/// Entries of a directory with it belong to its project (`FS_XFLAG_PROJINHERIT`), and those of another
/// can't be renamed into it.
const PROJECT_INHERIT: u32 = 0x0000_0200;

/// The open trash of a destination, locked against every other copyd.
#[derive(Debug)]
pub struct Store {
    fd: OwnedFd,
}

impl Store {
    /// Opens the trash; nothing where there is none.
    ///
    /// # Errors
    /// `EPERM` for a directory that is not copyd's own, `EWOULDBLOCK` where another copyd uses it.
    pub fn open(root: impl AsFd) -> io::Result<Option<Self>> {
        let fd = match sys::open_directory(root.as_fd(), NAME) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let stat = sys::stat_fd(&fd)?;
        // What a tenant made, or may write to, is not where to look for what was deleted.
        if stat.uid != rustix::process::geteuid().as_raw() || stat.mode & 0o077 != 0 {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK)),
            // A file system without such locks: only this process looks after it then.
            _ => Ok(Some(Self { fd })),
        }
    }

    /// Opens the trash, and makes it where there is none. Flags of the root that forbid that are handed
    /// to `taken`.
    ///
    /// # Errors
    /// As [`Store::open`], and whatever making it says.
    pub fn make(root: impl AsFd, taken: &mut dyn FnMut(Locks)) -> io::Result<Self> {
        if let Some(found) = Self::open(&root)? {
            return Ok(found);
        }
        lift::without_locks(root.as_fd(), &[], taken, || rustix::fs::mkdirat(root.as_fd(), NAME, Mode::RWXU))?;
        private(&sys::open_directory(root.as_fd(), NAME)?)?;
        Self::open(root)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Begins a generation; a name that is taken leads to the next millisecond.
    ///
    /// # Errors
    /// Whatever making it says.
    pub fn begin(&self, job: Uuid, keep_s: u64) -> io::Result<(Record, OwnedFd)> {
        let mut stamp = Stamp::now(job);
        loop {
            let name = CString::new(stamp.to_string())?;
            match rustix::fs::mkdirat(&self.fd, &*name, Mode::RWXU) {
                Ok(()) => {
                    let generation = sys::open_directory(self.fd.as_fd(), &name)?;
                    private(&generation)?;
                    rustix::fs::mkdirat(&generation, TREE, Mode::RWXU)?;
                    let tree = sys::open_directory(generation.as_fd(), TREE)?;
                    private(&tree)?;
                    return Ok((Record::create(&generation, keep_s)?, tree));
                }
                Err(rustix::io::Errno::EXIST) => stamp.at_ms += 1,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Its generations, the newest first. What else lies there is left alone.
    ///
    /// # Errors
    /// Whatever listing says.
    pub fn generations(&self) -> io::Result<Vec<Stamp>> {
        let names = Names::read(&self.fd, crate::limits::DIRECTORY_ENTRIES_MAX)?;
        let mut found: Vec<Stamp> = names.iter().filter_map(|(name, _)| Stamp::parse(name.to_bytes())).collect();
        found.sort_unstable();
        found.reverse();
        Ok(found)
    }

    /// Opens a generation.
    ///
    /// # Errors
    /// Whatever opening says.
    pub fn generation(&self, stamp: &Stamp) -> io::Result<OwnedFd> {
        sys::open_directory(self.fd.as_fd(), &CString::new(stamp.to_string())?)
    }

    /// The directory that holds the generations.
    #[must_use]
    pub fn directory(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Nobody else's, whatever the directory above hands on: mode, ACLs, project.
///
/// # Errors
/// Whatever setting says.
pub fn private(directory: &OwnedFd) -> io::Result<()> {
    staging::drop_inherited_acls(directory)?;
    rustix::fs::fchmod(directory, Mode::RWXU)?;
    if let Ok(Answer::Done(mut flags)) = sys::get_extended_flags(directory.as_fd())
        && flags.flags & PROJECT_INHERIT != 0
    {
        flags.flags &= !PROJECT_INHERIT;
        // Where it can't be cleared, what is of another project fails by name.
        let _ = sys::set_extended_flags(directory.as_fd(), &flags)?;
    }
    Ok(())
}

/// An entry in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When its generation was begun, as `--at` takes it.
    pub time: String,
    pub job: Uuid,
    /// From the destination root.
    pub path: Vec<u8>,
    /// As the record has it: `file`, `directory`, …
    pub kind: String,
    pub why: Why,
}

/// Calls `visit` for every entry that the records name and that is still there, the newest generation
/// first.
///
/// # Errors
/// [`Error::Root`] for a destination or a trash that can't be read.
pub fn list(destination: &Path, visit: &mut dyn FnMut(&Entry)) -> Result<(), Error> {
    let failed = |e| trash_error(destination, e);
    let root = super::super::setup::open_one(destination, Side::Destination)?;
    let Some(store) = Store::open(&root).map_err(failed)? else { return Ok(()) };
    for stamp in store.generations().map_err(failed)? {
        let generation = store.generation(&stamp).map_err(failed)?;
        let tree = match sys::open_directory(generation.as_fd(), TREE) {
            // An expiry was stopped in the middle of it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed)?,
        };
        for line in record::lines(&generation) {
            let Line::Entry { name, kind, why } = line else { continue };
            let Some(path) = name.bytes().filter(|path| is_there(&tree, path)) else { continue };
            visit(&Entry { time: stamp.time(), job: stamp.job, path, kind, why });
        }
    }
    Ok(())
}

/// Whether a path leads to something, one component at a time.
fn is_there(tree: &OwnedFd, path: &[u8]) -> bool {
    let look = || -> io::Result<()> {
        let mut names: Vec<CString> = components(path)?;
        let Some(last) = names.pop() else { return Ok(()) };
        let mut at = tree.try_clone()?;
        for name in names {
            at = sys::open_directory(at.as_fd(), &name)?;
        }
        sys::stat_at(at.as_fd(), &last).map(drop)
    };
    look().is_ok()
}

/// The components of a path from the root.
///
/// # Errors
/// `EINVAL` where one is empty, `.`, `..` or holds a NUL.
pub fn components(path: &[u8]) -> io::Result<Vec<CString>> {
    let wrong = || io::Error::from_raw_os_error(libc::EINVAL);
    let one = |name: &[u8]| match name {
        b"" | b"." | b".." => Err(wrong()),
        _ => CString::new(name).map_err(|_| wrong()),
    };
    path.split(|b| *b == b'/').map(one).collect()
}

/// The error of a trash that can't be used.
#[must_use]
pub fn trash_error(destination: &Path, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM) => Error::Guard {
            what: format!(
                "{}/.copyd-trash is not copyd's own: it has another owner, or others may use it",
                destination.display()
            ),
            remedy: "look at it, and move it away if it is a tenant's",
        },
        Some(libc::EWOULDBLOCK) => Error::Guard {
            what: format!("another copyd uses the trash of {}", destination.display()),
            remedy: "wait for its end, then run the same command again",
        },
        _ => root_error(Side::Destination, destination, e),
    }
}
