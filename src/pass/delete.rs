//! Removing what the source no longer has, and never from doubt (promise P4).
//!
//! Everything is looked at before the first entry goes. One listing or statx error anywhere, a source
//! that is empty or is another than at the start, a count above the limit: nothing goes at all. What
//! an extra is, and which of them are the job's own, is the business of [`super::extras`].

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{EntryError, Error, Side};
use crate::store::{Batch, Deletion};
use crate::sys;
use crate::tree::links::{Place, Role};
use crate::tree::node::lock;
use crate::tree::plan::Action;

use super::directory::{Directory, Item};
use super::extras::{Extra, Fate};
use super::remove;
use super::report::Event;
use super::state::{Run, Task, lane};
use super::trash::Why;

impl Run<'_> {
    /// A directory stands where the source has something else: removing it is a deletion, and what in
    /// it is not the job's own goes only where that was said.
    pub fn keep_replacement(&self, item: Item, own: bool) {
        item.node.payload.hold(1);
        if own {
            lock(&self.replacements).push(item);
        } else {
            self.refuse_replacement(item, "replace a directory that no earlier run of this job put there");
        }
    }

    /// The deletions of the pass, or the reason why there are none.
    pub fn delete_extras(&self) {
        let extras = std::mem::take(&mut *lock(&self.extras));
        let replacements = std::mem::take(&mut *lock(&self.replacements));
        let allowed = (extras.is_empty() && replacements.is_empty()) || self.deletion_allowed(&extras, &replacements);
        for extra in &extras {
            if allowed && !self.halted() {
                self.settle_extra(extra);
            }
            self.release(&extra.node, 1);
        }
        for item in replacements {
            if self.halted() {
                self.release(&item.node, 1);
            } else if !allowed {
                self.refuse_replacement(item, "replace a directory while deletions are not allowed");
            } else if !self.still_there(&item) {
                self.release(&item.node, 1);
            } else if self.delete(&item.node, &item.name, Why::Replaced) {
                self.replace(item);
            } else {
                self.release(&item.node, 1);
            }
        }
    }

    fn settle_extra(&self, extra: &Extra) {
        match extra.fate {
            Fate::Remove if extra.within.is_none() && self.is_back(extra) => {}
            Fate::Remove => drop(self.delete(extra.directory(), &extra.name, Why::Deleted)),
            Fate::Forget => self.forget(extra.directory(), &extra.name),
        }
    }

    /// The source has it again: it was renamed in the source while that was listed. The next pass
    /// sees to it.
    fn is_back(&self, extra: &Extra) -> bool {
        let back = extra.node.open(Side::Source).is_ok_and(|fd| sys::stat_at(fd.as_fd(), &extra.name).is_ok());
        if back {
            self.source_moved.store(true, Ordering::Relaxed);
        }
        back
    }

    /// The source still has what is to take the place of a directory.
    fn still_there(&self, item: &Item) -> bool {
        let now = item.node.open(Side::Source).and_then(|fd| sys::stat_at(fd.as_fd(), &item.name));
        let there = now.is_ok_and(|stat| stat.kind == item.stat.kind);
        if !there {
            self.source_moved.store(true, Ordering::Relaxed);
        }
        there
    }

    /// What was a directory is gone: the source's entry takes its place.
    fn replace(&self, item: Item) {
        let item = Item { exists: false, ..item };
        self.show(&item, Action::Replace { old: sys::Kind::Directory });
        if item.stat.kind == sys::Kind::File {
            self.progress.bytes_planned.add(item.stat.size);
        }
        if self.options.dry_run {
            return self.would_copy(item);
        }
        if item.linked() {
            let place = Place { node: Arc::clone(&item.node), name: item.name.clone() };
            if let Role::Follower(_) = self.links.meet(item.inode(), &place) {
                return self.links.follow(item.inode(), place);
            }
        }
        self.queue.push(lane::COPY, Task::Copy(vec![item]));
    }

    fn refuse_replacement(&self, item: Item, operation: &'static str) {
        self.fail_entry(EntryError {
            class: crate::error::Class::Interfered,
            side: Side::Destination,
            operation,
            path: item.path(),
            source: None,
        });
        self.release(&item.node, 1);
    }

    fn deletion_allowed(&self, extras: &[Extra], replacements: &[Item]) -> bool {
        if self.retry.is_some() {
            self.note("nothing was deleted: a retry does not list the source whole");
            return false;
        }
        if self.listing_failed.load(Ordering::Relaxed) {
            self.note("nothing was deleted: the source could not be listed whole in this pass");
            return false;
        }
        if !self.source_is_the_same() {
            self.end(Error::Guard {
                what: "the source root is no longer the directory that it was; nothing was deleted".into(),
                remedy: "check that the source is mounted, then run the same command again",
            });
            return false;
        }
        // The root itself is one entry.
        if self.tally.entries.get() <= 1 && !self.options.allow_empty_source {
            self.end(Error::Guard {
                what: "the source is empty and the destination is not; nothing was deleted".into(),
                remedy: "check that the source is mounted; if it is meant to be empty, say --allow-empty-source",
            });
            return false;
        }
        self.below_the_limit(extras, replacements)
    }

    /// Whether the descriptor and the path of the source still lead to the directory of the start: a
    /// share that was unmounted meanwhile, or another one mounted over it, is listed without error.
    fn source_is_the_same(&self) -> bool {
        let start = &self.roots.source_stat;
        let same = |stat: sys::Stat| (stat.dev, stat.ino) == (start.dev, start.ino);
        let by_path = sys::hold_root(&self.options.source).and_then(|fd| sys::stat_fd(&fd));
        sys::stat_fd(&self.roots.source).is_ok_and(same) && by_path.is_ok_and(same)
    }

    /// The limit holds for the run: what earlier passes deleted counts.
    fn below_the_limit(&self, extras: &[Extra], replacements: &[Item]) -> bool {
        let Some(limit) = self.options.max_delete else { return true };
        let mut wanted = self.progress.deleted.get();
        let removed = extras.iter().filter(|extra| extra.fate == Fate::Remove);
        let places = removed.map(|e| (e.directory(), &e.name)).chain(replacements.iter().map(|i| (&i.node, &i.name)));
        for (node, name) in places {
            let counted = node.open(Side::Destination).and_then(|fd| remove::count(fd.as_fd(), name));
            match counted {
                Ok(count) => wanted += count,
                Err(e) => {
                    self.fail_entry(EntryError::io(Side::Destination, "count what to delete", node.path_of(name), e));
                    return false;
                }
            }
        }
        if wanted > limit {
            *lock(&self.over_limit) = Some((wanted, limit));
            return false;
        }
        true
    }

    /// Removes one extra with everything in it; whether it is gone.
    fn delete(&self, node: &Arc<Directory>, name: &CString, why: Why) -> bool {
        let path = node.path_of(name);
        let gone = node.open(Side::Destination).and_then(|fd| {
            let stat = sys::stat_at(fd.as_fd(), name)?;
            let count = if self.options.dry_run {
                remove::count(fd.as_fd(), name)?
            } else {
                node.payload.touch();
                self.remove_or_keep(node, &fd, name, why)?
            };
            Ok((stat.kind, count))
        });
        match gone {
            Ok((kind, count)) => {
                self.progress.deleted.add(count);
                self.event(&Event::Deleted { path: &path, kind });
                self.forget(node, name);
                true
            }
            Err(e) => {
                self.fail_deletion(path, e);
                false
            }
        }
    }

    /// Says how many entries went.
    fn remove_or_keep(&self, node: &Arc<Directory>, directory: &OwnedFd, name: &CStr, why: Why) -> io::Result<u64> {
        let Some(trash) = &self.trash else {
            return remove::tree(directory.as_fd(), name, &mut |locks| self.lifted_from(node, locks));
        };
        // A mount in it is found by counting.
        let count = remove::count(directory.as_fd(), name)?;
        self.to_trash(trash, node, directory, name, why)?;
        Ok(count)
    }

    /// Forgets what an earlier run made in a directory and neither side has any more: the digests speak of
    /// entries that there are, and what somebody puts under such a name later is not the job's own.
    pub fn forget_gone<'n>(&self, node: &Arc<Directory>, source: &OwnedFd, gone_there: impl Iterator<Item = &'n CStr>) {
        for name in gone_there {
            if sys::stat_at(source.as_fd(), name).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                self.forget(node, name);
            }
        }
    }

    /// The catalog no longer has an entry, nor anything below it. A dry run forgets nothing.
    pub fn forget(&self, node: &Arc<Directory>, name: &CStr) {
        if self.options.dry_run {
            return;
        }
        self.changed.store(true, Ordering::Relaxed);
        let deletion = Deletion { directory: node.payload.id, name: name.to_bytes().to_vec() };
        if let Err(e) = self.writer.send(Batch { deletions: vec![deletion], ..Batch::default() }) {
            self.end(e);
        }
    }
}
