//! New directories grow in the staging directory and get their name as a whole.
//!
//! A file that is published by itself costs a rename, which is the dearest step on a journaling
//! file system. A directory that the destination does not have yet can spare most of them: its first
//! entries are made under their final names in a directory of the staging area, where nobody sees
//! them, and when each of them is whole, durable and read back, that directory is renamed to its
//! place. Entries beyond the first page, and those that had to be begun again, are published one by
//! one. A directory waits for its parent to have its own name, so what the catalog calls done can be
//! reached from the root.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode};

use crate::error::{Error, Side};
use crate::limits;
use crate::store::Row;
use crate::sys::{self, Answer};
use crate::tree::node::lock;

use super::directory::{Directory, Standing};
use super::staging::Temporary;
use super::state::Run;
use super::trash::Why;

/// Inode flags that keep a directory from having others renamed into it: immutable, append-only, and
/// that its entries belong to its project (`FS_XFLAG_*`).
const NO_NURSERY: u32 = 0x0000_0008 | 0x0000_0010 | 0x0000_0200;

/// A directory that has no name yet.
#[derive(Debug)]
pub struct Nursery {
    /// Where it grows.
    temporary: Temporary,
    /// Entries on their way, and one for its first page.
    outstanding: u64,
    /// Entries that are whole.
    rows: Vec<Row>,
    /// Directories in it that are ready, and wait for it to have its name.
    waiting: Vec<Arc<Directory>>,
    /// Something that is no directory stands in its place and goes when it comes.
    replaces: bool,
    /// It takes no more entries: the first page is through.
    closed: bool,
}

/// A directory's nursery, gone once it has its name.
#[derive(Debug, Default)]
pub struct Cradle(Mutex<Option<Nursery>>);

impl Cradle {
    /// One more entry grows in it; false where entries have to be published one by one.
    pub fn take_in(&self) -> bool {
        let mut nursery = lock(&self.0);
        let Some(open) = nursery.as_mut().filter(|nursery| !nursery.closed) else { return false };
        open.outstanding += 1;
        true
    }
}

impl Run<'_> {
    /// Whether new directories in this one may grow in the staging area: not where a rename from
    /// there would cross a project or a subvolume, or has to lift a flag first, which can be refused,
    /// and not more at a time than there are descriptors.
    pub fn may_nurse(&self, standing: Standing, directory: &OwnedFd, inherited: bool) -> bool {
        if standing != Standing::Existing {
            return inherited;
        }
        let same_device = sys::stat_fd(directory).is_ok_and(|stat| stat.dev == self.roots.destination_stat.dev);
        let refuses = match sys::get_extended_flags(directory.as_fd()) {
            Ok(Answer::Done(flags)) => flags.flags & NO_NURSERY != 0,
            _ => false,
        };
        same_device && !refuses
    }

    /// Makes a directory in the staging area; `None` where too many grow there already.
    ///
    /// # Errors
    /// Whatever making it says.
    pub fn nurse(&self, child: &Arc<Directory>, replaces: bool, worker: usize) -> std::io::Result<bool> {
        if self.nurseries.fetch_add(1, Ordering::Relaxed) >= self.nurseries_most {
            self.nurseries.fetch_sub(1, Ordering::Relaxed);
            return Ok(false);
        }
        let temporary = self.staging.temporary(worker)?;
        rustix::fs::mkdirat(&*temporary.directory, &*temporary.name, Mode::RWXU)?;
        let fd = sys::open_directory(temporary.directory.as_fd(), &temporary.name)?;
        child.adopt(Side::Destination, Arc::new(fd))?;
        // Its name is one of the things that have to be settled.
        child.payload.hold(1);
        let nursery =
            Nursery { temporary, outstanding: 1, rows: Vec::new(), waiting: Vec::new(), replaces, closed: false };
        *lock(&child.payload.cradle.0) = Some(nursery);
        Ok(true)
    }

    /// The first page of a directory is through: what follows is published one by one.
    pub fn close_nursery(&self, node: &Arc<Directory>) {
        let ready = {
            let mut nursery = lock(&node.payload.cradle.0);
            match nursery.as_mut() {
                Some(open) if !open.closed => {
                    open.closed = true;
                    open.outstanding -= 1;
                    open.outstanding == 0
                }
                _ => false,
            }
        };
        if ready {
            self.name_directory(node);
        }
    }

    /// An entry of a nursery is whole, with its row, or is no longer in it.
    pub fn nursed(&self, node: &Arc<Directory>, row: Option<Row>) {
        let ready = {
            let mut nursery = lock(&node.payload.cradle.0);
            let Some(open) = nursery.as_mut() else { return };
            open.rows.extend(row);
            open.outstanding -= 1;
            open.outstanding == 0
        };
        if ready {
            self.name_directory(node);
        }
    }

    /// Everything in the nursery is whole: it gets its name, and so do those that waited for it.
    fn name_directory(&self, node: &Arc<Directory>) {
        let mut ready = VecDeque::from([Arc::clone(node)]);
        while let Some(node) = ready.pop_front() {
            let Some(parent) = node.parent() else { continue };
            let mut above = lock(&parent.payload.cradle.0);
            if let Some(unnamed) = above.as_mut() {
                unnamed.waiting.push(Arc::clone(&node));
                continue;
            }
            drop(above);
            let Some(nursery) = lock(&node.payload.cradle.0).take() else { continue };
            self.nurseries.fetch_sub(1, Ordering::Relaxed);
            if let Err(e) = self.rename_directory(parent, &node, &nursery) {
                return self.end(Error::Root {
                    side: Side::Destination,
                    path: self.options.destination.clone(),
                    what: "a directory that is complete can't be given its name",
                    remedy: "check room, and that nothing else writes there, then run the same command again",
                    source: Some(e),
                });
            }
            for row in nursery.rows {
                self.renamed(row, Some(Arc::clone(&node)));
            }
            ready.extend(nursery.waiting);
            self.release(&node, 1);
        }
    }

    /// What stands in a new directory's place goes, into the trash where there is one.
    ///
    /// # Errors
    /// Whatever moving or removing says.
    pub fn make_way(&self, node: &Arc<Directory>, directory: &OwnedFd, name: &CStr) -> std::io::Result<()> {
        if let Some(trash) = &self.trash {
            let border = |e: std::io::Error| match e.raw_os_error() {
                Some(libc::EXDEV) => std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                _ => e,
            };
            return self.to_trash(trash, node, directory, name, Why::Replaced).map_err(border);
        }
        self.change(node, directory, &[(directory.as_fd(), name)], || {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())
        })
    }

    fn rename_directory(
        &self,
        parent: &Arc<Directory>,
        node: &Arc<Directory>,
        nursery: &Nursery,
    ) -> std::io::Result<()> {
        let target = parent.open(Side::Destination)?;
        let name: &CStr = node.name();
        if nursery.replaces {
            self.make_way(parent, &target, name)?;
        }
        let temporary = &nursery.temporary;
        self.change(parent, &target, &[], || {
            rustix::fs::renameat(&*temporary.directory, &*temporary.name, &*target, name)
        })?;
        parent.payload.touch();
        node.reachable(Side::Destination);
        Ok(())
    }
}

/// How many nurseries there may be at a time, of `descriptors` that may be open.
#[must_use]
pub fn most(descriptors: u64) -> usize {
    usize::try_from(descriptors / 8).unwrap_or(usize::MAX).min(limits::NURSERIES)
}
