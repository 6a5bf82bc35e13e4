//! Where files grow until they are whole: a directory of the job's own below the destination root.
//!
//! `.copyd-<job>` has mode 0700 and a lane for each worker, so workers don't wait for each other's
//! directory lock and no tenant can reach a temporary. It is made when the first file needs it: a
//! run that finds nothing to do leaves the destination as it is. What a killed run left in it is
//! removed at the next start, and all of it at the end.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode};

use crate::fidelity::{self, Locks};
use crate::sys::{self, EntryRef, Kind};
use crate::tree::node::lock;

use super::{lift, remove};

/// A temporary entry: the directory it is in, and its name there.
#[derive(Clone, Debug)]
pub struct Temporary {
    pub directory: Arc<OwnedFd>,
    pub name: CString,
}

impl Temporary {
    /// Removes it. Failure is harmless: the staging directory goes as a whole at the end.
    pub fn discard(&self) {
        let _ = rustix::fs::unlinkat(&*self.directory, &*self.name, AtFlags::empty());
    }
}

/// The staging directory of one job.
#[derive(Debug)]
pub struct Staging {
    root: Arc<OwnedFd>,
    name: CString,
    made: Mutex<Option<Vec<Arc<OwnedFd>>>>,
    lanes: usize,
    next: AtomicU64,
    /// Flags that were taken from the root, so that the directory can stand in it.
    lifted: Mutex<Locks>,
}

impl Staging {
    /// Prepares for `lanes` workers; `clean` removes what an earlier run of the job left behind.
    ///
    /// # Errors
    /// When a left-over can't be removed.
    pub fn new(root: Arc<OwnedFd>, job: uuid::Uuid, lanes: usize, clean: bool) -> io::Result<Self> {
        let name = CString::new(format!(".copyd-{job}"))?;
        let (made, next, lifted) = (Mutex::new(None), AtomicU64::new(0), Mutex::default());
        let staging = Self { root, name, made, lanes, next, lifted };
        if clean {
            staging.remove_from_root()?;
        }
        Ok(staging)
    }

    /// The reserved name at the destination root.
    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// Whether the directory stands now, and so has touched the destination root.
    #[must_use]
    pub fn in_use(&self) -> bool {
        lock(&self.made).is_some()
    }

    /// A new temporary name in the lane of a worker. Nothing is created under it.
    ///
    /// # Errors
    /// When the staging directory can't be made.
    pub fn temporary(&self, worker: usize) -> io::Result<Temporary> {
        let mut made = lock(&self.made);
        if made.is_none() {
            *made = Some(self.make()?);
        }
        let lanes = made.as_ref().map(Vec::as_slice).unwrap_or_default();
        let directory = Arc::clone(&lanes[worker % self.lanes]);
        drop(made);
        Ok(Temporary { directory, name: self.number("")? })
    }

    /// A temporary name beside the target, where a rename out of the staging directory would
    /// cross a border (project-inherit directories, btrfs subvolumes, filer qtrees).
    ///
    /// # Errors
    /// Never in practice: the name holds no NUL.
    pub fn temporary_beside(&self, directory: Arc<OwnedFd>) -> io::Result<Temporary> {
        let prefix = format!("{}.", self.name.to_string_lossy());
        Ok(Temporary { directory, name: self.number(&prefix)? })
    }

    fn number(&self, prefix: &str) -> io::Result<CString> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(CString::new(format!("{prefix}{number:016x}"))?)
    }

    fn make(&self) -> io::Result<Vec<Arc<OwnedFd>>> {
        lift::without_locks(self.root.as_fd(), &[], &mut |locks| self.lift(locks), || {
            rustix::fs::mkdirat(&*self.root, &*self.name, Mode::RWXU)
        })?;
        let staging = sys::open_directory(self.root.as_fd(), &self.name)?;
        // Made under a default ACL or a set-group-id root: private all the same.
        rustix::fs::fchmod(&staging, Mode::RWXU)?;
        (0..self.lanes)
            .map(|lane| {
                let name = CString::new(format!("lane{lane:02}"))?;
                rustix::fs::mkdirat(&staging, &*name, Mode::RWXU)?;
                let lane = sys::open_directory(staging.as_fd(), &name)?;
                drop_inherited_acls(&lane)?;
                Ok(Arc::new(lane))
            })
            .collect()
    }

    /// Removes the directory with everything in it.
    ///
    /// # Errors
    /// Whatever removing says.
    pub fn remove(&self) -> io::Result<()> {
        lock(&self.made).take();
        self.remove_from_root()
    }

    fn remove_from_root(&self) -> io::Result<()> {
        match remove::tree(self.root.as_fd(), &self.name, &mut |locks| self.lift(locks)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn lift(&self, locks: Locks) {
        let mut lifted = lock(&self.lifted);
        *lifted = lifted.and(locks);
    }

    /// What was taken from the root, for whoever gives it back.
    #[must_use]
    pub fn take_lifted(&self) -> Locks {
        std::mem::take(&mut *lock(&self.lifted))
    }
}

impl Drop for Staging {
    /// A run that ends before its first scan leaves the root's flags as they were.
    fn drop(&mut self) {
        let root = EntryRef::Fd(self.root.as_fd());
        if let Err(error) = fidelity::lock_again(root, Kind::Directory, self.take_lifted()) {
            tracing::error!(%error, "the destination root");
        }
    }
}

/// A default ACL of the root would be inherited by every temporary and change its mode.
///
/// # Errors
/// Whatever removing an attribute says, but that there is none.
pub fn drop_inherited_acls(lane: &OwnedFd) -> io::Result<()> {
    for name in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match rustix::fs::fremovexattr(lane, name) {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staging(at: &std::path::Path) -> Staging {
        Staging::new(Arc::new(sys::open_root(at).unwrap()), uuid::Uuid::nil(), 2, true).unwrap()
    }

    #[test]
    fn nothing_is_made_before_the_first_temporary_and_nothing_is_left_after_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let (a, b) = (staging.temporary(0).unwrap(), staging.temporary(0).unwrap());
        assert_ne!(a.name, b.name);
        sys::create(a.directory.as_fd(), &a.name, Mode::RUSR).unwrap();
        assert!(staging.in_use());
        staging.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let killed = staging(dir.path());
        let left = killed.temporary(1).unwrap();
        sys::create(left.directory.as_fd(), &left.name, Mode::RUSR).unwrap();
        drop(killed);
        staging(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
