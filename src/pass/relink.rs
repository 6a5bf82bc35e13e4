//! The names of an inode that follow their leader, once it stands at the destination.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;

use crate::copy::range::MoveError;
use crate::error::{Class, EntryError, Side};
use crate::fidelity::{LossClass, Losses};
use crate::store::Proof;
use crate::sys::{self, Kind};
use crate::tree::links::{Group, Place};
use crate::tree::plan::{Action, Differences};

use super::decide::published;
use super::directory::{Item, Work};
use super::row;
use super::state::{Run, Settled, Task, lane};

/// What became of one follower.
enum Linked {
    Made,
    Already,
    /// The destination can't link it: it has to become an entry of its own.
    Impossible(io::Error),
}

impl Run<'_> {
    /// Gives every follower of a group its name.
    pub fn relink(&self, group: Group<Work, Settled>, worker: usize) {
        let Some(settled) = group.settled.clone() else {
            return self.promote(group);
        };
        let mut done = Vec::new();
        for place in group.followers {
            if self.options.dry_run {
                self.would_link(&place, &settled);
                continue;
            }
            match self.link_one(&group.leader, &place, &settled, worker) {
                Ok(Linked::Made) => {
                    self.tally.links_made.add(1);
                    self.changed.store(true, Ordering::Relaxed);
                    self.show_link(&place, &settled);
                    self.count_proof(settled.facts.proof);
                    done.push(place);
                }
                Ok(Linked::Already) => {
                    self.progress.files_unchanged.add(u64::from(settled.facts.kind == Kind::File));
                    self.count_kept(settled.facts.proof);
                    done.push(place);
                }
                Ok(Linked::Impossible(e)) => {
                    let mut losses = Losses::default();
                    losses.add(LossClass::Link, || format!("hard link: {e}"));
                    self.losses.record(&place.node.path_of(&place.name), &losses);
                    self.copy_alone(&place);
                }
                Err(e) => self.fail_place(&place, e),
            }
        }
        self.record_links(&group.leader, &settled, done);
    }

    /// The leader could not be copied: the next name leads, and the rest follows it.
    fn promote(&self, group: Group<Work, Settled>) {
        let mut followers = group.followers.into_iter();
        while let Some(place) = followers.next() {
            match self.item_of(&place) {
                Ok(item) => {
                    self.links.lead(group.source, place, followers.collect());
                    return self.start(item);
                }
                Err(e) => self.fail_place(&place, e),
            }
        }
    }

    /// A name whose inode can't be linked at the destination is copied by itself.
    fn copy_alone(&self, place: &Place<Work>) {
        match self.item_of(place) {
            // It stands for itself from here on, whatever links it has at the source.
            Ok(mut item) => {
                item.stat.nlink = 1;
                self.start(item);
            }
            Err(e) => self.fail_place(place, e),
        }
    }

    fn start(&self, item: Item) {
        if item.stat.kind == Kind::File {
            self.progress.bytes_planned.add(item.stat.size);
        }
        self.show(&item, Action::Make { exists: item.exists });
        if self.options.dry_run {
            return self.would_copy(item);
        }
        self.queue.push(lane::COPY, Task::Copy(vec![item]));
    }

    fn item_of(&self, place: &Place<Work>) -> Result<Item, MoveError> {
        let at_source = |operation| move |e| MoveError::io(Side::Source, operation, e);
        let directory = place.node.open(Side::Source).map_err(at_source("open the directory"))?;
        let stat = sys::stat_at(directory.as_fd(), &place.name).map_err(at_source("stat"))?;
        Ok(Item {
            node: Arc::clone(&place.node),
            name: place.name.clone(),
            stat,
            attempt: 0,
            beside: false,
            nested: false,
            exists: false,
            differences: Differences::default(),
        })
    }

    fn fail_place(&self, place: &Place<Work>, e: MoveError) {
        let path = place.node.path_of(&place.name);
        self.fail_entry(EntryError { class: e.class, side: e.side, operation: e.operation, path, source: e.source });
        self.release(&place.node, 1);
    }

    fn link_one(
        &self,
        leader: &Place<Work>,
        place: &Place<Work>,
        settled: &Settled,
        worker: usize,
    ) -> Result<Linked, MoveError> {
        let here = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let from = leader.node.open(Side::Destination).map_err(here("open the directory"))?;
        let to = place.node.open(Side::Destination).map_err(here("open the directory"))?;
        let exists = match sys::stat_at(to.as_fd(), &place.name) {
            Ok(stat) if (stat.dev, stat.ino) == settled.inode => return Ok(Linked::Already),
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(here("stat")(e)),
        };
        // An immutable inode takes no new name, and gives none away.
        let entries = [(from.as_fd(), &*leader.name), (to.as_fd(), &*place.name)];
        let linked = if exists {
            // Something stands there: the new name is made aside and takes its place at once.
            self.keep_old(&place.node, &to, &place.name)?;
            let temporary = self.staging.temporary(worker).map_err(here("make the staging directory"))?;
            self.change(&place.node, &to, &entries, || {
                rustix::fs::linkat(&*from, &*leader.name, &*temporary.directory, &*temporary.name, AtFlags::empty())
                    .and_then(|()| rustix::fs::renameat(&*temporary.directory, &*temporary.name, &*to, &*place.name))
                    .inspect_err(|_| temporary.discard())
            })
        } else {
            self.change(&place.node, &to, &entries, || {
                rustix::fs::linkat(&*from, &*leader.name, &*to, &*place.name, AtFlags::empty())
            })
        };
        match linked {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMLINK | libc::EPERM | libc::EOPNOTSUPP | libc::EXDEV)) => {
                return Ok(Linked::Impossible(e));
            }
            Err(e) => return Err(here("link")(e)),
        }
        place.node.payload.touch();
        let stat = sys::stat_at(to.as_fd(), &place.name).map_err(here("look at the new link"))?;
        if (stat.dev, stat.ino) != settled.inode {
            // The leader was exchanged under us: what was linked is somebody else's.
            let _ = rustix::fs::unlinkat(&*to, &*place.name, AtFlags::empty());
            let operation = "link to what was written";
            return Err(MoveError { class: Class::Interfered, side: Side::Destination, operation, source: None });
        }
        Ok(Linked::Made)
    }

    /// Linking changed the inode's change time: the rows of all its names get the new one.
    fn record_links(&self, leader: &Place<Work>, settled: &Settled, done: Vec<Place<Work>>) {
        if done.is_empty() {
            return;
        }
        let there = leader.node.open(Side::Destination).and_then(|fd| sys::stat_at(fd.as_fd(), &leader.name));
        let mut facts = settled.facts;
        facts.published = there.ok().map(|stat| published(&stat));
        let leader_row = row::row(&leader.node, &leader.name, facts, settled.target.clone());
        self.renamed(leader_row, None);
        for place in done {
            let row = row::row(&place.node, &place.name, facts, settled.target.clone());
            self.renamed(row, Some(Arc::clone(&place.node)));
            self.progress.entries_done.add(1);
            self.release(&place.node, 1);
        }
    }

    fn show_link(&self, place: &Place<Work>, settled: &Settled) {
        if self.options.items {
            let differences = Differences { links: true, ..Differences::default() };
            let path = place.node.path_of(&place.name);
            let kind = settled.facts.kind;
            self.show_change(&crate::tree::plan::Change {
                path,
                kind,
                action: Action::Link { exists: false },
                differences,
            });
        }
    }

    fn would_link(&self, place: &Place<Work>, settled: &Settled) {
        let same = place.node.open(Side::Destination).and_then(|fd| sys::stat_at(fd.as_fd(), &place.name));
        if !same.is_ok_and(|stat| (stat.dev, stat.ino) == settled.inode) {
            self.show_link(place, settled);
            self.tally.links_made.add(1);
        }
        self.progress.entries_done.add(1);
        self.release(&place.node, 1);
    }

    /// One more entry of this standing.
    pub fn count_proof(&self, proof: Proof) {
        match proof {
            Proof::Proved => self.tally.proved.add(1),
            Proof::Assumed => self.tally.assumed.add(1),
        }
    }
}
