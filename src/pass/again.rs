//! Entries that look equal and might not be: hashed, or compared in all their metadata.
//!
//! A file that was touched without its size or time having moved (a rewrite with the time put
//! back, or only a chmod) is hashed on the touched side against the catalog's digest: equal content
//! then needs at most its metadata set, anything else is copied.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::copy::blocks::BlockIo;
use crate::copy::drive::drive;
use crate::copy::range::{Digester, Holes, MoveError, RangeMove};
use crate::error::Side;
use crate::fidelity::{self, Losses, Metadata, MetadataDifferences, Times};
use crate::hash::Digest;
use crate::store::{Facts, Proof};
use crate::sys::{self, EntryRef, Kind, ReadMode, Stat};
use crate::tree::plan::{Action, Change, Differences};

use super::VerifyLevel;
use super::decide;
use super::directory::Item;
use super::row;
use super::state::{Run, Settled, Task, lane};

/// A file whose content has to be hashed before it is believed.
#[derive(Debug)]
pub struct Suspect {
    item: Item,
    there: Stat,
    known: Option<Facts>,
    hash_source: bool,
    hash_destination: bool,
}

impl Suspect {
    #[must_use]
    pub fn new(item: Item, there: Stat, known: Option<Facts>, hash_source: bool, hash_destination: bool) -> Self {
        Self { item, there, known, hash_source, hash_destination }
    }
}

impl Run<'_> {
    /// Hashes suspects, and settles or copies each.
    pub fn hash_again(&self, suspects: Vec<Suspect>, io: &mut dyn BlockIo) {
        for suspect in suspects {
            if self.halted() {
                return;
            }
            match self.check(&suspect, io) {
                Ok((true, digest)) => self.content_equal(suspect, digest),
                Ok((false, _)) => {
                    let differences = Differences { content: true, ..Differences::default() };
                    let item = Item { differences, ..suspect.item };
                    self.progress.bytes_planned.add(item.stat.size);
                    self.show(&item, Action::Make { exists: true });
                    if self.options.dry_run {
                        self.would_copy(item);
                    } else {
                        self.queue.push(lane::COPY, Task::Copy(vec![item]));
                    }
                }
                Err(e) => self.settle_failure(suspect.item, e),
            }
        }
    }

    /// Whether every suspected side has the content that the catalog knows, and the digest.
    fn check(&self, suspect: &Suspect, io: &mut dyn BlockIo) -> Result<(bool, Option<Digest>), MoveError> {
        let item = &suspect.item;
        let known = suspect.known.and_then(|row| row.digest).and_then(row::digest);
        let mut equal = true;
        let mut found = known;
        if suspect.hash_source {
            let at = |operation| move |e| MoveError::io(Side::Source, operation, e);
            let directory = item.node.open(Side::Source).map_err(at("open the directory"))?;
            let fd = sys::open_read(directory.as_fd(), &item.name, ReadMode::Cached).map_err(at("open"))?;
            let digest = self.hash_file(fd, Side::Source, &item.stat, io)?;
            equal &= known.is_none_or(|known| known == digest);
            found = Some(digest);
        }
        if suspect.hash_destination && equal {
            let at = |operation| move |e| MoveError::io(Side::Destination, operation, e);
            let directory = item.node.open(Side::Destination).map_err(at("open the directory"))?;
            let fd = self.roots.read_back.open(&directory, &item.name).map_err(at("open"))?;
            equal &= found == Some(self.hash_file(fd, Side::Destination, &suspect.there, io)?);
        }
        Ok((equal, found))
    }

    /// The digest of one open file, read by this worker alone.
    ///
    /// # Errors
    /// A read error, or a file that changed meanwhile.
    pub fn hash_file(
        &self,
        fd: OwnedFd,
        side: Side,
        expected: &Stat,
        io: &mut dyn BlockIo,
    ) -> Result<Digest, MoveError> {
        let fd = Arc::new(fd);
        let same = |stat: &Stat| stat.ino == expected.ino && stat.size == expected.size && stat.mtime == expected.mtime;
        if !sys::stat_fd(&fd).is_ok_and(|stat| same(&stat)) {
            return Err(MoveError::hot("hash"));
        }
        let mut hasher = self.hashers.take();
        hasher.begin(expected.size, self.hole_policy());
        // `full` reads the source to doubt it: also where it says that its holes are.
        let doubted = self.options.verify == VerifyLevel::Full && side == Side::Source && expected.holes_can_be_read();
        let holes = if expected.may_have_holes() && !doubted { Holes::Extents } else { Holes::None };
        let digester = Digester::Whole(hasher);
        let unlimited = Arc::clone(&self.unlimited);
        let mut machine = Some(RangeMove::read(Arc::clone(&fd), side, 0..expected.size, holes, digester, unlimited));
        let mut result = Err(MoveError::hot("hash"));
        let driven = drive(
            io,
            || machine.take(),
            |machine, outcome| {
                if let Digester::Whole(mut hasher) = machine.digester {
                    result = outcome.and_then(|()| hasher.finish().map_err(MoveError::internal));
                    self.hashers.give(hasher);
                }
            },
        );
        driven.map_err(|e| MoveError::io(side, "read", e))?;
        self.progress.bytes_verified.add(expected.size);
        if !sys::stat_fd(&fd).is_ok_and(|stat| same(&stat)) {
            return Err(MoveError::hot("hash"));
        }
        result
    }

    fn content_equal(&self, suspect: Suspect, digest: Option<Digest>) {
        let Suspect { item, there, known, .. } = suspect;
        let proof = known.map_or(Proof::Assumed, |row| row.proof);
        self.settle_metadata(item, &there, digest, proof, Names::Unknown);
    }

    /// Compares and sets the metadata of an entry whose content is equal by size and time.
    pub fn compare_metadata(&self, item: Item, there: &Stat, known: Option<&Facts>) {
        item.node.payload.hold(1);
        let digest = known.and_then(|row| row.digest).and_then(row::digest);
        let remembered = known.filter(|row| decide::as_remembered(row, &item.stat, there));
        let names = if remembered.is_some() { Names::Ours } else { Names::Unknown };
        let proof = remembered.map_or(Proof::Assumed, |row| row.proof);
        self.settle_metadata(item, there, digest, proof, names);
    }

    fn settle_metadata(&self, item: Item, there: &Stat, digest: Option<Digest>, proof: Proof, names: Names) {
        match self.adjust(&item, there, names) {
            Ok(Adjusted::Done { wanted, stat, target, changed, losses }) => {
                let facts = row::facts(&wanted, &stat, digest, proof, &losses);
                if changed {
                    self.tally.metadata_updated.add(1);
                    self.changed.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                if item.linked() {
                    let inode = (stat.dev, stat.ino);
                    self.links.settle(item.inode(), Settled { inode, facts, target: target.clone() });
                }
                if !self.options.dry_run {
                    self.renamed(row::row(&item.node, &item.name, facts, target), Some(Arc::clone(&item.node)));
                }
                self.unchanged(item.stat.kind, proof);
                self.release(&item.node, 1);
            }
            Ok(Adjusted::MustCopy) => {
                let differences = Differences { content: true, ..Differences::default() };
                let item = Item { differences, ..item };
                self.show(&item, Action::Make { exists: true });
                if item.stat.kind == Kind::File {
                    self.progress.bytes_planned.add(item.stat.size);
                }
                if self.options.dry_run {
                    self.would_copy(item);
                } else {
                    self.queue.push(lane::COPY, Task::Copy(vec![item]));
                }
            }
            Err(e) => self.settle_failure(item, e),
        }
    }

    /// Brings the metadata of an existing entry to what the source has.
    fn adjust(&self, item: &Item, there: &Stat, names: Names) -> Result<Adjusted, MoveError> {
        let at_source = |operation| move |e| MoveError::io(Side::Source, operation, e);
        let here = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let source = item.node.open(Side::Source).map_err(at_source("open the directory"))?;
        let destination = item.node.open(Side::Destination).map_err(here("open the directory"))?;
        let is_file = item.stat.kind == Kind::File;
        let mut target = None;
        if item.stat.kind == Kind::Symlink {
            let read = |fd: &OwnedFd| rustix::fs::readlinkat(fd, &*item.name, Vec::new());
            let wanted = read(&source).map_err(|e| at_source("read the link")(e.into()))?;
            if read(&destination).map_err(|e| here("read the link")(e.into()))? != wanted {
                return Ok(Adjusted::MustCopy);
            }
            target = Some(wanted.into_bytes());
        }
        if item.stat.kind.is_device() && item.stat.rdev != there.rdev {
            return Ok(Adjusted::MustCopy);
        }
        let opened = if is_file {
            let from = sys::open_read(source.as_fd(), &item.name, ReadMode::Cached).map_err(at_source("open"))?;
            let to = sys::open_read(destination.as_fd(), &item.name, ReadMode::Cached).map_err(here("open"))?;
            Some((from, to))
        } else {
            None
        };
        let (from, to) = match &opened {
            Some((from, to)) => (EntryRef::Fd(from.as_fd()), EntryRef::Fd(to.as_fd())),
            None => (EntryRef::At(source.as_fd(), &item.name), EntryRef::At(destination.as_fd(), &item.name)),
        };
        let mut losses = Losses::default();
        let wanted = fidelity::capture(from, &item.stat, &self.source_traits, &mut losses)
            .map_err(|e| at_source(e.operation)(e.source))?;
        let have = fidelity::capture(to, there, &self.destination_traits, &mut Losses::default())
            .map_err(|e| here(e.operation)(e.source))?;
        let differences = fidelity::difference(&wanted, &have, &self.rules());
        if differences.none() {
            // What the source did not let be read is missing on both sides of the comparison.
            self.record_losses(item, &losses);
            return Ok(Adjusted::Done { wanted, stat: *there, target, changed: false, losses });
        }
        // Other names of the inode, perhaps outside the tree, must not change with it.
        if there.nlink > 1 && names == Names::Unknown {
            return Ok(Adjusted::MustCopy);
        }
        self.show_change(&Change {
            path: item.path(),
            kind: item.stat.kind,
            action: Action::Adjust,
            differences: planned(differences),
        });
        if self.options.dry_run {
            return Ok(Adjusted::Done { wanted, stat: *there, target, changed: true, losses });
        }
        fidelity::adjust(to, &wanted, &have, Times::Set, &self.rules(), &mut losses)
            .and_then(|()| fidelity::apply_after_publish(to, &wanted, &self.rules(), &mut losses))
            .map_err(|e| here(e.operation)(e.source))?;
        let stat = sys::stat_at(destination.as_fd(), &item.name).map_err(here("stat"))?;
        fidelity::check_stat(&wanted, &stat, &self.rules(), &mut losses);
        self.record_losses(item, &losses);
        // What is refused once more leaves no trace.
        let changed = stat.ctime != there.ctime;
        Ok(Adjusted::Done { wanted, stat, target, changed, losses })
    }
}

/// Whose the names of an inode at the destination are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Those that this job made: the inode's change time has not moved since, and a new name moves it.
    Ours,
    Unknown,
}

enum Adjusted {
    Done {
        wanted: Metadata,
        stat: Stat,
        target: Option<Vec<u8>>,
        changed: bool,
        losses: Losses,
    },
    /// Setting it in place would not do.
    MustCopy,
}

/// The same differences in the plan's words.
#[must_use]
pub fn planned(found: MetadataDifferences) -> Differences {
    Differences {
        mtime: found.mtime,
        mode: found.mode,
        owner: found.owner,
        group: found.group,
        acl: found.acl,
        xattrs: found.xattrs,
        flags: found.flags,
        ..Differences::default()
    }
}
