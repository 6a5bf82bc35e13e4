//! What `docs/cli.md` promises of one run of `copyd sync`, as a function.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Content, Tree, children, is_below, parent, subtree};

/// What else is at the destination: which flag was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    Guard,
    Keep,
    Delete,
}

/// The flags of a run that bear on its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    pub extras: Extras,
    pub max_delete: Option<u64>,
    pub allow_empty: bool,
    pub dry_run: bool,
}

/// What an entry is to the job that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Directory,
    Other,
}

/// What a job knows from its earlier runs.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Entries that stand at the destination because of it.
    pub made: BTreeMap<Vec<u8>, Made>,
    /// Files that were believed for their size and time, so that their content may be another.
    pub believed: BTreeSet<Vec<u8>>,
    /// A run has looked at what stood there before the first entry was made.
    pub begun: bool,
    /// The last run did not come to its end: names that the source has count as the job's own.
    pub cut_off: bool,
}

/// Whether `--exclude=*.x` leaves an entry in the scope, where the job has that flag.
pub fn in_scope(filtered: bool, path: &[u8]) -> bool {
    !filtered || path.split(|byte| *byte == b'/').all(|name| !name.ends_with(b".x"))
}

/// What has to come of a run.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    pub exit: i32,
    pub deleted: u64,
    /// Entries that have to be as at the source.
    pub synced: BTreeSet<Vec<u8>>,
    /// Entries that go.
    pub removed: BTreeSet<Vec<u8>>,
    /// Directories of which something goes, while they stay.
    pub thinned: BTreeSet<Vec<u8>>,
    /// Files that are believed where size and time say so.
    pub believed: BTreeSet<Vec<u8>>,
    /// What the job remembers, where the run comes to its end.
    pub made: BTreeMap<Vec<u8>, Made>,
    /// It ends before anything is looked at.
    pub refused_at_once: bool,
}

struct Model<'a> {
    source: &'a Tree,
    destination: &'a Tree,
    memory: &'a Memory,
    flags: Flags,
    filtered: bool,
    scanned: u64,
    foreign: bool,
    extras: Vec<Vec<u8>>,
    forgotten: Vec<Vec<u8>>,
    replaced: Vec<Vec<u8>>,
    refused: Vec<Vec<u8>>,
    synced: BTreeSet<Vec<u8>>,
}

/// The outcome of one run.
pub fn predict(source: &Tree, destination: &Tree, memory: &Memory, flags: Flags, filtered: bool) -> Prediction {
    let mut model = Model {
        source,
        destination,
        memory,
        flags,
        filtered,
        scanned: 0,
        foreign: false,
        extras: Vec::new(),
        forgotten: Vec::new(),
        replaced: Vec::new(),
        refused: Vec::new(),
        synced: BTreeSet::new(),
    };
    if !memory.begun && flags.extras == Extras::Guard && children(destination, b"").any(|p| in_scope(filtered, p)) {
        return Prediction { exit: 43, refused_at_once: true, ..Prediction::default() };
    }
    model.directory(b"");
    model.outcome()
}

impl Model<'_> {
    fn is_directory(tree: &Tree, path: &[u8]) -> bool {
        tree.get(path).is_some_and(|entry| entry.content.is_directory())
    }

    fn in_scope(&self, path: &[u8]) -> bool {
        in_scope(self.filtered, path)
    }

    /// A directory that the source has.
    fn directory(&mut self, path: &[u8]) {
        self.synced.insert(path.to_vec());
        let (source, destination) = (self.source, self.destination);
        if Self::is_directory(destination, path) && self.flags.extras == Extras::Guard {
            let own = |child: &Vec<u8>| {
                self.memory.made.contains_key(child)
                    || !self.in_scope(child)
                    || ((self.memory.cut_off || !self.memory.begun) && source.contains_key(child))
            };
            self.foreign |= !children(destination, path).all(own);
        }
        for child in children(source, path) {
            if !self.in_scope(child) {
                continue;
            }
            self.scanned += 1;
            if Self::is_directory(source, child) {
                self.directory(child);
            } else if Self::is_directory(destination, child) {
                self.in_the_place_of_a_directory(child);
            } else {
                self.synced.insert(child.clone());
            }
        }
        if !Self::is_directory(destination, path) {
            return;
        }
        for child in children(destination, path) {
            if self.in_scope(child) && !source.contains_key(child) {
                self.extra(child);
            }
        }
    }

    /// The source has something else where the destination has a directory.
    fn in_the_place_of_a_directory(&mut self, path: &[u8]) {
        let own = self.flags.extras == Extras::Delete || self.memory.made.get(path) == Some(&Made::Directory);
        if !own && self.flags.extras == Extras::Guard {
            self.foreign = true;
        } else if own && self.own_parts(path).is_none() {
            self.replaced.push(path.to_vec());
        } else {
            self.refused.push(path.to_vec());
        }
    }

    /// Only the destination has it.
    fn extra(&mut self, path: &[u8]) {
        let made = self.memory.made.get(path).copied();
        if made.is_none() && self.flags.extras != Extras::Delete {
            return;
        }
        if !Self::is_directory(self.destination, path) {
            return self.extras.push(path.to_vec());
        }
        if made == Some(Made::Other) && self.flags.extras != Extras::Delete {
            // A directory in the place of a file that the job made is somebody else's.
            self.foreign |= self.flags.extras == Extras::Guard;
            return self.forgotten.push(path.to_vec());
        }
        match self.own_parts(path) {
            None => self.extras.push(path.to_vec()),
            Some(parts) => {
                self.extras.extend(parts);
                if self.flags.extras != Extras::Guard {
                    self.forgotten.push(path.to_vec());
                }
            }
        }
    }

    /// What may go of a directory that can't go as a whole; nothing where it can.
    fn own_parts(&mut self, directory: &[u8]) -> Option<Vec<Vec<u8>>> {
        let destination = self.destination;
        let (mut mixed, mut parts) = (false, Vec::new());
        for child in children(destination, directory) {
            let is_directory = Self::is_directory(destination, child);
            let made = self.memory.made.get(child).copied();
            let own = self.in_scope(child)
                && (self.flags.extras == Extras::Delete
                    || made.is_some_and(|made| made == Made::Directory || !is_directory));
            if !own {
                self.foreign |= self.flags.extras == Extras::Guard && self.in_scope(child);
                mixed = true;
            } else if let Some(below) = is_directory.then(|| self.own_parts(child)).flatten() {
                mixed = true;
                parts.extend(below);
            } else {
                parts.push(child.clone());
            }
        }
        mixed.then_some(parts)
    }

    fn outcome(self) -> Prediction {
        if self.foreign {
            return Prediction { exit: 43, synced: self.synced, ..Prediction::default() };
        }
        let nothing_goes = self.extras.is_empty() && self.replaced.is_empty() && self.forgotten.is_empty();
        if !nothing_goes && self.scanned == 0 && !self.flags.allow_empty {
            return Prediction { exit: 43, synced: self.synced, ..Prediction::default() };
        }
        let going = self.extras.iter().chain(&self.replaced);
        let removed: BTreeSet<_> = going.flat_map(|top| subtree(self.destination, top)).cloned().collect();
        let over = self.flags.max_delete.is_some_and(|most| removed.len() as u64 > most);
        let exit = if over {
            25
        } else if self.refused.is_empty() {
            0
        } else {
            23
        };
        let mut found = Prediction { exit, made: self.remembered(over, &removed), ..Prediction::default() };
        found.synced = self.synced;
        if !over {
            found.deleted = removed.len() as u64;
            found.synced.extend(self.replaced);
            let parents = self.extras.iter().map(|path| parent(path).to_vec());
            found.thinned = parents.filter(|path| !self.source.contains_key(path)).collect();
            found.removed = removed;
        }
        let equal = |path: &Vec<u8>| match (self.source.get(path), self.destination.get(path)) {
            (Some(a), Some(b)) => match (&a.content, &b.content) {
                (Content::File(a_bytes), Content::File(b_bytes)) => {
                    a_bytes.len() == b_bytes.len() && a.metadata.mtime == b.metadata.mtime
                }
                _ => false,
            },
            _ => false,
        };
        let unproved = |path: &&Vec<u8>| !self.memory.made.contains_key(*path) || self.memory.believed.contains(*path);
        found.believed = found.synced.iter().filter(unproved).filter(|path| equal(path)).cloned().collect();
        found
    }

    /// What is the job's own after a run that came to its end.
    fn remembered(&self, over: bool, removed: &BTreeSet<Vec<u8>>) -> BTreeMap<Vec<u8>, Made> {
        let synced = self.synced.iter().chain(if over { &[][..] } else { &self.replaced });
        let mut made: BTreeMap<_, _> = synced
            .filter(|path| !path.is_empty())
            .map(|path| {
                let directory = Self::is_directory(self.source, path);
                (path.clone(), if directory { Made::Directory } else { Made::Other })
            })
            .collect();
        let gone = |path: &[u8]| !over && removed.contains(path);
        let forgotten = |path: &[u8]| !over && self.forgotten.iter().any(|top| &**top == path || is_below(path, top));
        for (path, kind) in &self.memory.made {
            // A directory comes before what is in it. One that the source lost is not looked through for
            // names that are gone.
            let above = parent(path);
            let unseen = made.contains_key(above) && !self.synced.contains(above);
            let stands = self.destination.contains_key(path) || unseen;
            if stands && !gone(path) && !forgotten(path) {
                made.entry(path.clone()).or_insert(*kind);
            }
        }
        made
    }
}
