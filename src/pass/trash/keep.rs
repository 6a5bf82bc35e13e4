//! A pass's way into the trash.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode};
use uuid::Uuid;

use crate::copy::range::MoveError;
use crate::error::{Class, EntryError, Side};
use crate::fidelity::{self, IdMap, Locks, Losses, Rules, SideTraits, Times};
use crate::limits;
use crate::sys::{self, EntryRef, Kind};
use crate::tree::node::lock;

use super::super::batch::Durability;
use super::super::directory::Directory;
use super::super::state::Run;
use super::record::{Line, Record, Why};
use super::store::{Store, private};

/// What an entry's failure says where a subvolume, a project or a mount lies between it and the trash.
const ACROSS: &str = "keep it in the trash, across a border that no rename crosses";
const KEEP: &str = "keep it in the trash";

/// The trash of one pass. Nothing is made before the first entry comes.
#[derive(Debug)]
pub struct Trash {
    root: Arc<OwnedFd>,
    job: Uuid,
    keep_s: u64,
    traits: SideTraits,
    open: Mutex<Open>,
    /// Flags that were taken from the root, so that the trash can stand in it.
    lifted: Mutex<Locks>,
}

#[derive(Debug, Default)]
struct Open {
    store: Option<Store>,
    generation: Option<Generation>,
}

#[derive(Debug)]
struct Generation {
    record: Record,
    tree: Arc<OwnedFd>,
    /// Directories that were made or found, by path; emptied when there are many.
    directories: HashMap<Vec<u8>, Arc<OwnedFd>>,
}

impl Trash {
    /// The trash below `root`, for what the job `job` deletes and replaces.
    #[must_use]
    pub fn new(root: Arc<OwnedFd>, job: Uuid, keep: Duration, traits: SideTraits) -> Self {
        Self { root, job, keep_s: keep.as_secs(), traits, open: Mutex::default(), lifted: Mutex::default() }
    }

    /// Whether the trash was opened, and so may have touched the root.
    #[must_use]
    pub fn in_use(&self) -> bool {
        lock(&self.open).store.is_some()
    }

    /// What was taken from the root, for whoever gives it back.
    #[must_use]
    pub fn take_lifted(&self) -> Locks {
        std::mem::take(&mut *lock(&self.lifted))
    }

    /// The directory of the trash in which `name` of `node` is to lie, with a line in the record. What
    /// was kept under that name in this pass already stays: another generation begins.
    fn place(&self, node: &Arc<Directory>, name: &CStr, kind: Kind, why: Why) -> io::Result<Arc<OwnedFd>> {
        let mut open = lock(&self.open);
        loop {
            let begun = open.generation.is_some();
            if !begun {
                let store = match open.store.take() {
                    Some(store) => store,
                    None => Store::make(&self.root, &mut |locks| {
                        let mut lifted = lock(&self.lifted);
                        *lifted = lifted.and(locks);
                    })?,
                };
                let started = store.begin(self.job, self.keep_s);
                open.store = Some(store);
                let (record, tree) = started?;
                open.generation = Some(Generation { record, tree: Arc::new(tree), directories: HashMap::new() });
            }
            let Some(generation) = open.generation.as_mut() else { continue };
            let directory = generation.directory(node, &self.traits)?;
            if begun && sys::stat_at(directory.as_fd(), name).is_ok() {
                open.generation = None;
                continue;
            }
            generation.record.write(&Line::entry(&node.path_of(name), kind, why))?;
            return Ok(directory);
        }
    }
}

impl Drop for Trash {
    /// A run that ends before its finish leaves the root's flags as they were.
    fn drop(&mut self) {
        let root = EntryRef::Fd(self.root.as_fd());
        if let Err(error) = fidelity::lock_again(root, Kind::Directory, self.take_lifted()) {
            tracing::error!(%error, "the destination root");
        }
    }
}

impl Generation {
    fn directory(&mut self, node: &Arc<Directory>, traits: &SideTraits) -> io::Result<Arc<OwnedFd>> {
        let path = node.path();
        if let Some(found) = self.directories.get(&path) {
            return Ok(Arc::clone(found));
        }
        let mut chain = vec![node];
        while let Some(above) = chain.last().and_then(|node| node.parent()) {
            chain.push(above);
        }
        let mut at = Arc::clone(&self.tree);
        // The last is the root, which the tree itself stands for.
        for level in chain.iter().rev().skip(1) {
            let made = match rustix::fs::mkdirat(&*at, level.name(), Mode::RWXU) {
                Ok(()) => true,
                Err(rustix::io::Errno::EXIST) => false,
                Err(e) => return Err(e.into()),
            };
            let below = sys::open_directory(at.as_fd(), level.name())?;
            if made {
                private(&below)?;
                like(&*level.open(Side::Destination)?, &below, traits)?;
            }
            at = Arc::new(below);
        }
        if let Some(mtime) = node.payload.mtime_before.get() {
            self.record.write(&Line::directory(&path, *mtime))?;
        }
        if self.directories.len() >= limits::TRASH_HANDLES {
            self.directories.clear();
        }
        self.directories.insert(path, Arc::clone(&at));
        Ok(at)
    }
}

/// Gives a directory the owner, mode and attributes of another one. Whoever is not root leaves it
/// as it is: it might shut itself out.
///
/// # Errors
/// Whatever reading one or changing the other says.
pub fn like(from: &OwnedFd, to: &OwnedFd, traits: &SideTraits) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut losses = Losses::default();
    let mut capture = |fd: &OwnedFd| {
        let stat = sys::stat_fd(fd)?;
        fidelity::capture(EntryRef::Fd(fd.as_fd()), &stat, traits, &mut losses).map_err(|e| e.source)
    };
    let (mut wanted, have) = (capture(from)?, capture(to)?);
    wanted.flags = have.flags;
    let map = IdMap::default();
    let rules = Rules { source: traits, destination: traits, id_map: &map };
    fidelity::adjust(EntryRef::Fd(to.as_fd()), &wanted, &have, Times::Later, &rules, &mut losses).map_err(|e| e.source)
}

impl Run<'_> {
    /// Moves an entry of the destination into the trash instead of removing it.
    ///
    /// # Errors
    /// Whatever moving says; it stays where it is then.
    pub fn to_trash(
        &self,
        trash: &Trash,
        node: &Arc<Directory>,
        directory: &OwnedFd,
        name: &CStr,
        why: Why,
    ) -> io::Result<()> {
        let kind = sys::stat_at(directory.as_fd(), name)?.kind;
        let kept = trash.place(node, name, kind, why)?;
        self.change(node, directory, &[(directory.as_fd(), name)], || {
            rustix::fs::renameat(directory, name, &*kept, name)
        })?;
        self.kept_durably(&kept)
    }

    /// Keeps what is about to be replaced, by a second name in the trash: the first one is never
    /// missing. Where there can be none it is moved. Without a trash, or without anything there, this
    /// does nothing; a directory is left to the call that finds it in its way.
    ///
    /// # Errors
    /// Whatever linking or moving says; nothing may be replaced then.
    pub fn keep_old(&self, node: &Arc<Directory>, directory: &OwnedFd, name: &CStr) -> Result<(), MoveError> {
        let Some(trash) = &self.trash else { return Ok(()) };
        self.keep_old_in(trash, node, directory, name).map_err(|e| {
            let (class, operation) = class_of(&e, KEEP);
            MoveError { class, side: Side::Destination, operation, source: border_is_known(e) }
        })
    }

    fn keep_old_in(&self, trash: &Trash, node: &Arc<Directory>, directory: &OwnedFd, name: &CStr) -> io::Result<()> {
        let kind = match sys::stat_at(directory.as_fd(), name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?.kind,
        };
        if kind == Kind::Directory {
            return Ok(());
        }
        let kept = trash.place(node, name, kind, Why::Replaced)?;
        let entries = [(directory.as_fd(), name)];
        let linked = self
            .change(node, directory, &entries, || rustix::fs::linkat(directory, name, &*kept, name, AtFlags::empty()));
        match linked {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK)) => {
                self.change(node, directory, &entries, || rustix::fs::renameat(directory, name, &*kept, name))?;
            }
            other => other?,
        }
        self.kept_durably(&kept)
    }

    /// Where each file is flushed by itself nothing else would flush the trash.
    fn kept_durably(&self, kept: &OwnedFd) -> io::Result<()> {
        if self.batches.durability == Durability::EachFile {
            rustix::fs::fsync(kept)?;
        }
        Ok(())
    }

    /// Names an entry that stays because it could not be kept.
    pub fn fail_deletion(&self, path: Vec<u8>, e: io::Error) {
        let (class, operation) = if self.trash.is_some() { class_of(&e, "delete") } else { (Class::of(&e), "delete") };
        self.fail_entry(EntryError { class, side: Side::Destination, operation, path, source: Some(e) });
    }
}

fn class_of(e: &io::Error, operation: &'static str) -> (Class, &'static str) {
    if e.raw_os_error() == Some(libc::EXDEV) { (Class::Unsupported, ACROSS) } else { (Class::of(e), operation) }
}

/// An `EXDEV` from the trash must not look like one from the file's own rename, which has a way out.
fn border_is_known(e: io::Error) -> Option<io::Error> {
    (e.raw_os_error() != Some(libc::EXDEV)).then_some(e)
}
