//! What a pass keeps for a directory, from its scan until everything in it is settled.
//!
//! A directory's own metadata comes last: its times, because every entry published in it changes
//! them; its mode and default ACL, because they would get in the way of the copy. So each
//! directory counts what in it is still unsettled, and whoever settles the last of it finishes the
//! directory and then settles it at its parent: deepest first, without a list of all directories.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::fidelity::{Locks, Metadata};
use crate::store::Facts;
use crate::sys::{Stat, Time};
use crate::tree::node::{Node, lock};

use super::nursery::Cradle;

/// How the directory stands at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Made by this run: empty, and nothing to compare with.
    Fresh,
    /// It was there before.
    Existing,
    /// A dry run would have made it; or it could not be made.
    Absent,
}

/// A directory of the pass.
pub type Directory = Node<Work>;

/// The pass's own part of a directory.
#[derive(Debug)]
pub struct Work {
    /// Its id in the catalog.
    pub id: u64,
    pub standing: Standing,
    /// What the catalog knew of it.
    pub known: Option<Box<Facts>>,
    /// What it shall have at the end; set by its scan.
    pub wanted: OnceLock<Metadata>,
    /// Its modification time before the pass changed anything in it; kept where there is a trash.
    pub mtime_before: OnceLock<Time>,
    /// Some of it could not be read.
    pub lost: AtomicBool,
    /// Unsettled: its scan, its subdirectories, its entries on their way.
    unsettled: AtomicU64,
    /// Something was published, linked or removed in it, so its times are off.
    touched: AtomicBool,
    /// Flags that were in the way of a change in it, and are to come back.
    lifted: Mutex<Locks>,
    /// Where it grows until it has its name.
    pub cradle: Cradle,
    /// New directories in it may grow in the staging area.
    pub nurses: bool,
}

impl Work {
    /// A directory whose scan is the one thing unsettled.
    #[must_use]
    pub fn new(id: u64, standing: Standing, known: Option<Box<Facts>>, nurses: bool) -> Self {
        Self {
            id,
            standing,
            known,
            wanted: OnceLock::new(),
            mtime_before: OnceLock::new(),
            lost: AtomicBool::new(false),
            unsettled: AtomicU64::new(1),
            touched: AtomicBool::new(false),
            lifted: Mutex::default(),
            cradle: Cradle::default(),
            nurses,
        }
    }

    /// `count` more entries are on their way.
    pub fn hold(&self, count: u64) {
        self.unsettled.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` entries are settled; true for whoever settled the last.
    #[must_use]
    pub fn release(&self, count: u64) -> bool {
        self.unsettled.fetch_sub(count, Ordering::AcqRel) == count
    }

    /// An entry of it was published, linked or removed.
    pub fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// These flags were taken from it.
    pub fn lift(&self, locks: Locks) {
        let mut lifted = lock(&self.lifted);
        *lifted = lifted.and(locks);
    }

    #[must_use]
    pub fn lifted(&self) -> Locks {
        *lock(&self.lifted)
    }

    /// It has the flags that it shall have.
    pub fn locked(&self) {
        *lock(&self.lifted) = Locks::default();
    }
}

/// An entry on its way: a name in a directory with what the plan knows of it.
#[derive(Debug)]
pub struct Item {
    pub node: std::sync::Arc<Directory>,
    pub name: CString,
    /// As the scan found it at the source.
    pub stat: Stat,
    /// How often it was begun before.
    pub attempt: u32,
    /// Its temporary has to lie beside the target.
    pub beside: bool,
    /// It grows under its final name in a directory that has none yet.
    pub nested: bool,
    /// Something stands under its name at the destination.
    pub exists: bool,
    /// What differs, where something stands there.
    pub differences: crate::tree::plan::Differences,
}

impl Item {
    /// Path from the root.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        self.node.path_of(&self.name)
    }

    /// The inode at the source.
    #[must_use]
    pub const fn inode(&self) -> (u64, u64) {
        (self.stat.dev, self.stat.ino)
    }

    /// Whether the inode has other names.
    #[must_use]
    pub fn linked(&self) -> bool {
        self.stat.nlink > 1
    }
}
