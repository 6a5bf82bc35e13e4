//! Where files grow until they are whole: a directory of the job's own below the destination root.
//!
//! `.copyd-<job>` has mode 0700 and a lane for each worker, so workers don't wait for each other's
//! directory lock and no tenant can reach a temporary. It is made when the first file needs it: a
//! run that finds nothing to do leaves the destination as it is. What a killed run left in it is
//! removed at the next start, and all of it at the end, but for large files whose chunks are journaled:
//! those are left by a kill and by a stop, and taken up by the next run.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode};

use crate::fidelity::{self, Locks};
use crate::store::Growing;
use crate::sys::{self, EntryRef, Kind};
use crate::tree::listing::Names;
use crate::tree::node::lock;

use super::journal::Growth;
use super::{lift, remove};

/// The directory of large files.
const LARGE: &CStr = c"large";

/// A temporary entry: the directory it is in, and its name there.
#[derive(Clone, Debug)]
pub struct Temporary {
    pub directory: Arc<OwnedFd>,
    pub name: CString,
    /// Its durable chunks are journaled as long as this lives.
    pub growth: Option<Arc<Growth>>,
}

impl Temporary {
    #[must_use]
    pub const fn new(directory: Arc<OwnedFd>, name: CString) -> Self {
        Self { directory, name, growth: None }
    }

    /// Removes it. Failure is harmless: the staging directory goes as a whole at the end.
    pub fn discard(&self) {
        let _ = rustix::fs::unlinkat(&*self.directory, &*self.name, AtFlags::empty());
    }
}

/// The directories in the staging directory.
#[derive(Debug)]
struct Lanes {
    of_workers: Vec<Arc<OwnedFd>>,
    /// Where files grow that the next run goes on with after a crash.
    large: Arc<OwnedFd>,
}

/// Large files that were kept.
struct KeptLarge {
    staging: OwnedFd,
    /// The directory in it where they lie.
    lane: OwnedFd,
    /// The first number of a temporary that none of them has.
    next: u64,
}

/// The staging directory of one job.
#[derive(Debug)]
pub struct Staging {
    root: Arc<OwnedFd>,
    name: CString,
    made: Mutex<Option<Lanes>>,
    lanes: usize,
    next: AtomicU64,
    /// Flags that were taken from the root, so that the directory can stand in it.
    lifted: Mutex<Locks>,
}

impl Staging {
    /// Prepares for `lanes` workers; `clean` removes what an earlier run of the job left behind, but for
    /// the large files named in `keep`.
    ///
    /// # Errors
    /// When a left-over can't be removed.
    pub fn new(root: Arc<OwnedFd>, job: uuid::Uuid, lanes: usize, clean: bool, keep: &[Vec<u8>]) -> io::Result<Self> {
        let name = CString::new(format!(".copyd-{job}"))?;
        let (made, next, lifted) = (Mutex::new(None), AtomicU64::new(0), Mutex::default());
        let staging = Self { root, name, made, lanes, next, lifted };
        if clean {
            match staging.keep_large(keep)? {
                None => staging.remove_from_root()?,
                Some(KeptLarge { staging: directory, lane, next }) => {
                    staging.next.store(next, Ordering::Relaxed);
                    *lock(&staging.made) = Some(staging.lanes(&directory, lane)?);
                }
            }
        }
        Ok(staging)
    }

    /// Removes all but the large files that are to be kept; `None` where there are none.
    fn keep_large(&self, keep: &[Vec<u8>]) -> io::Result<Option<KeptLarge>> {
        let open = |directory: BorrowedFd<'_>, name: &CStr| match sys::open_directory(directory, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        if keep.is_empty() {
            return Ok(None);
        }
        let Some(staging) = open(self.root.as_fd(), &self.name)? else { return Ok(None) };
        let Some(large) = open(staging.as_fd(), LARGE)? else { return Ok(None) };
        let mut numbers = Vec::new();
        for (name, _) in Names::read(&large, crate::limits::DIRECTORY_ENTRIES_MAX)?.iter() {
            // The name is the number of its temporary: no other may get it.
            let number = name.to_str().ok().and_then(|text| u64::from_str_radix(text, 16).ok());
            match number.filter(|_| keep.iter().any(|kept| kept == name.to_bytes())) {
                Some(number) => numbers.push(number),
                None => drop(remove::tree(large.as_fd(), name, &mut |_| {})?),
            }
        }
        let Some(highest) = numbers.into_iter().max() else { return Ok(None) };
        for (name, _) in
            Names::read(&staging, crate::limits::DIRECTORY_ENTRIES_MAX)?.iter().filter(|(name, _)| *name != LARGE)
        {
            remove::tree(staging.as_fd(), name, &mut |_| {})?;
        }
        Ok(Some(KeptLarge { staging, lane: large, next: highest.saturating_add(1) }))
    }

    /// Whether a large file was kept, and is the inode that it was.
    #[must_use]
    pub fn holds(&self, growing: &Growing) -> bool {
        let found = self.kept(&growing.temporary).map(|at| sys::stat_at(at.directory.as_fd(), &at.name));
        found.is_some_and(|stat| stat.is_ok_and(|stat| stat.ino == growing.ino))
    }

    /// A large file that was kept, if it is still there. Nothing is said of what it holds.
    #[must_use]
    pub fn kept(&self, name: &[u8]) -> Option<Temporary> {
        let made = lock(&self.made);
        let large = made.as_ref().map(|lanes| Arc::clone(&lanes.large))?;
        Some(Temporary::new(large, CString::new(name).ok()?))
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
        self.temporary_in(|lanes| &lanes.of_workers[worker % self.lanes])
    }

    /// As [`Self::temporary`], for a file that the next run goes on with after a crash.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub fn temporary_for_large(&self) -> io::Result<Temporary> {
        self.temporary_in(|lanes| &lanes.large)
    }

    fn temporary_in(&self, which: impl Fn(&Lanes) -> &Arc<OwnedFd>) -> io::Result<Temporary> {
        let mut made = lock(&self.made);
        let lanes = match made.take() {
            Some(lanes) => lanes,
            None => self.make()?,
        };
        let directory = Arc::clone(which(made.insert(lanes)));
        drop(made);
        Ok(Temporary::new(directory, self.number("")?))
    }

    /// A temporary name beside the target, where a rename out of the staging directory would
    /// cross a border (project-inherit directories, btrfs subvolumes, filer qtrees).
    ///
    /// # Errors
    /// Never in practice: the name holds no NUL.
    pub fn temporary_beside(&self, directory: Arc<OwnedFd>) -> io::Result<Temporary> {
        let prefix = format!("{}.", self.name.to_string_lossy());
        Ok(Temporary::new(directory, self.number(&prefix)?))
    }

    fn number(&self, prefix: &str) -> io::Result<CString> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(CString::new(format!("{prefix}{number:016x}"))?)
    }

    fn make(&self) -> io::Result<Lanes> {
        lift::without_locks(self.root.as_fd(), &[], &mut |locks| self.lift(locks), || {
            rustix::fs::mkdirat(&*self.root, &*self.name, Mode::RWXU)
        })?;
        let staging = sys::open_directory(self.root.as_fd(), &self.name)?;
        // Made under a default ACL or a set-group-id root: private all the same.
        rustix::fs::fchmod(&staging, Mode::RWXU)?;
        let large = lane(&staging, LARGE)?;
        self.lanes(&staging, large)
    }

    fn lanes(&self, staging: &OwnedFd, large: OwnedFd) -> io::Result<Lanes> {
        let of_workers = (0..self.lanes).map(|number| {
            let name = CString::new(format!("lane{number:02}"))?;
            Ok(Arc::new(lane(staging, &name)?))
        });
        Ok(Lanes { of_workers: of_workers.collect::<io::Result<_>>()?, large: Arc::new(large) })
    }

    /// Removes the directory with everything in it but the large files named in `keep`. Whether any was
    /// kept.
    ///
    /// # Errors
    /// Whatever removing says.
    pub fn remove_but(&self, keep: &[Vec<u8>]) -> io::Result<bool> {
        lock(&self.made).take();
        let kept = self.keep_large(keep)?.is_some();
        if !kept {
            self.remove_from_root()?;
        }
        Ok(kept)
    }

    fn remove_from_root(&self) -> io::Result<()> {
        match remove::tree(self.root.as_fd(), &self.name, &mut |locks| self.lift(locks)) {
            // Not there at all, or only something in it had gone.
            Err(e) if e.kind() == io::ErrorKind::NotFound => match sys::stat_at(self.root.as_fd(), &self.name) {
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            },
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

fn lane(staging: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(staging, name, Mode::RWXU)?;
    let lane = sys::open_directory(staging.as_fd(), name)?;
    drop_inherited_acls(&lane)?;
    Ok(lane)
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
        Staging::new(Arc::new(sys::open_root(at).unwrap()), uuid::Uuid::nil(), 2, true, &[]).unwrap()
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
        assert!(!staging.remove_but(&[]).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_large_file_that_the_journal_knows_is_kept_and_its_name_given_to_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let killed = staging(dir.path());
        let make = |at: &Temporary| drop(sys::create(at.directory.as_fd(), &at.name, Mode::RUSR).unwrap());
        let (small, other, large) = (
            killed.temporary(1).unwrap(),
            killed.temporary_for_large().unwrap(),
            killed.temporary_for_large().unwrap(),
        );
        [&small, &other, &large].into_iter().for_each(make);
        let keep = [large.name.to_bytes().to_vec()];
        drop(killed);
        let root = Arc::new(sys::open_root(dir.path()).unwrap());
        let next = Staging::new(root, uuid::Uuid::nil(), 2, true, &keep).unwrap();
        assert!(next.in_use());
        let kept = next.kept(&keep[0]).unwrap();
        assert!(sys::stat_at(kept.directory.as_fd(), &kept.name).is_ok());
        for gone in [&small.name, &other.name] {
            assert!(sys::stat_at(kept.directory.as_fd(), gone).is_err());
        }
        make(&next.temporary_for_large().unwrap());
        make(&next.temporary(0).unwrap());
        assert!(next.remove_but(&keep).unwrap(), "a stop keeps it once more");
        let left: Vec<_> = std::fs::read_dir(dir.path().join(next.name().to_str().unwrap())).unwrap().collect();
        assert_eq!(left.len(), 1, "and only where it lies: {left:?}");
        assert!(!next.remove_but(&[]).unwrap());
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
