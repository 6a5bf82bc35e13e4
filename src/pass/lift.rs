//! Flags at the destination that forbid a change, out of the way for as long as it takes.
//!
//! Immutable and append-only (`ioctl_iflags(2)`) keep even root from replacing, removing or linking
//! an entry that has them, and from changing what a directory with them holds. Nobody asks for them
//! before: a change is tried, and only its `EPERM` makes copyd look, lift what is in the way, and try
//! once more. So a tree without such flags costs no call. Only entries that the plan replaces, removes
//! or links anyway are ever named here.
//!
//! What is lifted from an entry goes back at once where the inode still has a name: after a failure,
//! or because it has others. What is lifted from a directory stays lifted until everything in it is
//! settled; its finish gives it the source's flags, and where the run ends before, [`Run::lock_lifted`]
//! does.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::error::Side;
use crate::fidelity::{self, EntryOpError, Locks, Losses, Metadata};
use crate::sys::{self, EntryRef, Kind, ReadMode, Stat};
use crate::tree::node::lock;

use super::directory::Directory;
use super::state::Run;

/// One entry after the other: of two names of one inode, the flags that go back for the first would
/// be in the way of the second.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Changes what `directory` holds, without the flags that forbid it. `entries` are those that the
/// call replaces, removes or links, each by its directory and single name; what is taken from
/// `directory` itself is handed to `taken` and is the caller's to give back.
///
/// # Errors
/// Those of the call; `EPERM` where the flags can't be lifted (`CAP_LINUX_IMMUTABLE`) or are not
/// what forbids it.
pub fn without_locks(
    directory: BorrowedFd<'_>,
    entries: &[(BorrowedFd<'_>, &CStr)],
    taken: &mut dyn FnMut(Locks),
    mut call: impl FnMut() -> rustix::io::Result<()>,
) -> io::Result<()> {
    match call() {
        Err(Errno::PERM) => {}
        other => return Ok(other?),
    }
    let _turn = lock(&ONE_AT_A_TIME);
    let mut lifted = Vec::with_capacity(entries.len());
    let looked = lift(directory, entries, taken, &mut lifted);
    let changed = looked.and_then(|()| Ok(call()?));
    let given_back = lifted.iter().map(Lifted::lock_again).fold(Ok(()), Result::and);
    changed.and(given_back)
}

fn lift<'e>(
    directory: BorrowedFd<'_>,
    entries: &[(BorrowedFd<'e>, &'e CStr)],
    taken: &mut dyn FnMut(Locks),
    lifted: &mut Vec<Lifted<'e>>,
) -> io::Result<()> {
    for (at, name) in entries {
        lifted.extend(Lifted::of(*at, name)?);
    }
    let locks = fidelity::unlock(EntryRef::Fd(directory), Kind::Directory).map_err(|e| e.source)?;
    if !locks.none() {
        taken(locks);
    }
    Ok(())
}

/// An entry whose flags are lifted.
struct Lifted<'e> {
    at: BorrowedFd<'e>,
    name: &'e CStr,
    stat: Stat,
    /// Of files and directories: reaches the inode whatever becomes of the name.
    fd: Option<OwnedFd>,
    locks: Locks,
}

impl<'e> Lifted<'e> {
    /// Lifts the flags of an entry; nothing where there is none, or it has none.
    fn of(at: BorrowedFd<'e>, name: &'e CStr) -> io::Result<Option<Self>> {
        let stat = match sys::stat_at(at, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let fd = match stat.kind {
            Kind::File => Some(sys::open_read(at, name, ReadMode::Cached)?),
            Kind::Directory => Some(sys::open_directory(at, name)?),
            _ => None,
        };
        if let Some(fd) = &fd {
            let opened = sys::stat_fd(fd)?;
            if (opened.dev, opened.ino, opened.kind) != (stat.dev, stat.ino, stat.kind) {
                return Err(Errno::STALE.into());
            }
        }
        let entry = fd.as_ref().map_or(EntryRef::At(at, name), |fd| EntryRef::Fd(fd.as_fd()));
        let locks = fidelity::unlock(entry, stat.kind).map_err(|e| e.source)?;
        Ok((!locks.none()).then_some(Self { at, name, stat, fd, locks }))
    }

    /// Gives the flags back where the inode still has a name. A special file is found by the one
    /// it had only; the flags of its others are the next run's to find.
    fn lock_again(&self) -> io::Result<()> {
        let (stands, entry) = if let Some(fd) = &self.fd {
            (sys::stat_fd(fd)?.nlink > 0, EntryRef::Fd(fd.as_fd()))
        } else {
            let same = |now: Stat| (now.dev, now.ino) == (self.stat.dev, self.stat.ino);
            (sys::stat_at(self.at, self.name).is_ok_and(same), EntryRef::At(self.at, self.name))
        };
        if !stands {
            return Ok(());
        }
        fidelity::lock_again(entry, self.stat.kind, self.locks).map_err(|e| e.source)
    }
}

impl Run<'_> {
    /// As [`without_locks`], in a directory of the pass, whose finish gives it its flags back.
    ///
    /// # Errors
    /// As [`without_locks`].
    pub fn change(
        &self,
        node: &Arc<Directory>,
        directory: &OwnedFd,
        entries: &[(BorrowedFd<'_>, &CStr)],
        call: impl FnMut() -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        without_locks(directory.as_fd(), entries, &mut |locks| self.lifted_from(node, locks), call)
    }

    /// A directory of the pass has lost these flags for now.
    pub fn lifted_from(&self, node: &Arc<Directory>, locks: Locks) {
        if !locks.none() {
            node.payload.lift(locks);
            lock(&self.lifted).push(Arc::clone(node));
        }
    }

    /// The run is over: directories that were never finished get their flags all the same.
    pub fn lock_lifted(&self) {
        for node in std::mem::take(&mut *lock(&self.lifted)) {
            if node.payload.lifted().none() {
                continue;
            }
            if let Err(e) = self.lock_directory(&node) {
                self.fail_entry(e.at(Side::Destination, node.path()));
            }
            node.payload.locked();
        }
    }

    fn lock_directory(&self, node: &Arc<Directory>) -> Result<(), EntryOpError> {
        let fd = node
            .open(Side::Destination)
            .map_err(|source| EntryOpError { operation: "open the directory to set its flags again", source })?;
        let entry = EntryRef::Fd(fd.as_fd());
        let mut losses = Losses::default();
        let locks = node.payload.lifted();
        // Where the source can't be asked, they shall be as they were.
        let Ok(wanted) = self.wanted_of(node, &mut losses) else {
            return fidelity::lock_again(entry, Kind::Directory, locks);
        };
        fidelity::apply_after_publish(entry, &wanted, &self.rules(), &mut losses)?;
        fidelity::lock_again(entry, Kind::Directory, locks.unknown_to(&wanted.flags))?;
        if !losses.is_empty() {
            self.losses.record(&node.path(), &losses);
        }
        Ok(())
    }

    /// What a directory shall have: as its scan read it, or read now.
    ///
    /// # Errors
    /// What says that the source is in trouble.
    pub fn wanted_of(&self, node: &Arc<Directory>, losses: &mut Losses) -> Result<Metadata, EntryOpError> {
        if let Some(wanted) = node.payload.wanted.get() {
            return Ok(wanted.clone());
        }
        let at = |operation| move |source| EntryOpError { operation, source };
        let from = node.open(Side::Source).map_err(at("open the directory"))?;
        let stat = sys::stat_fd(&from).map_err(at("stat"))?;
        fidelity::capture(EntryRef::Fd(from.as_fd()), &stat, &self.source_traits, losses)
    }
}
