//! The way back: entries are renamed from the trash to the paths that they had.
//!
//! What the destination lacks comes back whole, with one rename for a tree. Where a directory stands on
//! both sides the walk goes on below it. Whatever else stands in the way stays, and so does the entry
//! in the trash, unless `--overwrite` says that the two change places. A directory from which a
//! generation took something gets the modification time that it had, once all of it is back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode};

use crate::error::{Error, Side};
use crate::fidelity::{self, Locks, SideTraits};
use crate::sys::{self, EntryRef, Kind, Stat, Time};
use crate::tree::listing::Names;

use super::super::lift;
use super::super::setup::open_one;
use super::expire::tidy;
use super::keep::like;
use super::name::Stamp;
use super::record::{self, Line, RECORD, Record, Why};
use super::store::{Store, TREE, components, trash_error};

/// What is to be restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub destination: PathBuf,
    /// Paths from the destination root; all there is where it is empty.
    pub paths: Vec<Vec<u8>>,
    /// A generation's time, or how it begins; `None` means all, of each path the newest.
    pub at: Option<String>,
    /// What stands in the way goes into the trash.
    pub overwrite: bool,
}

/// What became of an entry in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is back, with everything below it.
    Restored,
    /// Another entry stands there.
    InTheWay,
    /// A newer one of the same path came back; this one stays in the trash.
    Older,
    /// The trash does not have it.
    Missing,
    Failed,
}

/// One entry's fate.
#[derive(Debug)]
pub struct Restored {
    /// From the destination root.
    pub path: Vec<u8>,
    pub fate: Fate,
    pub error: Option<io::Error>,
}

/// A directory that stands in the trash and at the destination.
struct Level {
    kept: OwnedFd,
    live: OwnedFd,
    /// Its name in the level above; empty for the root.
    name: CString,
    path: Vec<u8>,
    left: VecDeque<CString>,
    /// Components of a single path that is wanted, below the first of `left`.
    rest: VecDeque<CString>,
    /// Flags that were in the way.
    locks: Locks,
}

struct Restore<'r> {
    options: &'r RestoreOptions,
    root: OwnedFd,
    store: Store,
    traits: SideTraits,
    /// Paths that came back, from newer generations too.
    done: HashSet<Vec<u8>>,
    visit: &'r mut dyn FnMut(&Restored),
    /// Where `--overwrite` puts what stood in the way.
    aside: Option<(Record, OwnedFd)>,
    root_mtime: Option<Time>,
}

/// Restores, the newest generation first.
///
/// # Errors
/// [`Error::Root`] and [`Error::Guard`] for a destination or a trash that can't be used, and
/// [`Error::Usage`] for a time that no generation has. What fails by itself is visited.
pub fn restore(options: &RestoreOptions, visit: &mut dyn FnMut(&Restored)) -> Result<(), Error> {
    let failed = |e| trash_error(&options.destination, e);
    let root = open_one(&options.destination, Side::Destination)?;
    let traits = SideTraits::probe(root.as_fd()).map_err(failed)?;
    let store = Store::open(&root).map_err(failed)?;
    let Some(store) = store else {
        let missing = |path: &Vec<u8>| Restored { path: path.clone(), fate: Fate::Missing, error: None };
        options.paths.iter().for_each(|path| visit(&missing(path)));
        return Ok(());
    };
    let mut chosen = store.generations().map_err(failed)?;
    if let Some(at) = &options.at {
        chosen.retain(|stamp| stamp.time().starts_with(at.as_str()));
        if chosen.is_empty() {
            return Err(Error::Usage {
                what: format!("the trash has no generation of {}", at.escape_default()),
                remedy: "copyd trash list DST shows what there is",
            });
        }
    }
    let (done, aside, root_mtime) = (HashSet::new(), None, None);
    let mut restore = Restore { options, root, store, traits, done, visit, aside, root_mtime };
    let mut found: HashSet<Vec<u8>> = HashSet::new();
    for stamp in chosen {
        restore.generation(&stamp, &mut found).map_err(failed)?;
    }
    for path in options.paths.iter().filter(|path| !found.contains(*path)) {
        (restore.visit)(&Restored { path: path.clone(), fate: Fate::Missing, error: None });
    }
    restore.finish().map_err(failed)
}

impl Restore<'_> {
    fn generation(&mut self, stamp: &Stamp, found: &mut HashSet<Vec<u8>>) -> io::Result<()> {
        let generation = self.store.generation(stamp)?;
        let times = record::times(&generation);
        let tree = match sys::open_directory(generation.as_fd(), TREE) {
            // An expiry was stopped in the middle of it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if self.options.paths.is_empty() {
            let left = names(&tree)?;
            self.walk(&tree, left, VecDeque::new(), &times)?;
        }
        for path in &self.options.paths {
            let mut rest: VecDeque<CString> = components(path)?.into();
            let Some(first) = rest.pop_front() else { continue };
            if self.walk(&tree, VecDeque::from([first]), rest, &times)? {
                found.insert(path.clone());
            }
        }
        drop(tree);
        if rustix::fs::unlinkat(&generation, TREE, AtFlags::REMOVEDIR).is_ok() {
            if let Some(mtime) = times.get(&b""[..]) {
                self.root_mtime = Some(*mtime);
            }
            rustix::fs::unlinkat(&generation, RECORD, AtFlags::empty())?;
            drop(generation);
            let name = CString::new(stamp.to_string())?;
            rustix::fs::unlinkat(self.store.directory(), &*name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Works off a tree; whether the one path that was asked for is there.
    fn walk(
        &mut self,
        tree: &OwnedFd,
        left: VecDeque<CString>,
        rest: VecDeque<CString>,
        times: &HashMap<Vec<u8>, Time>,
    ) -> io::Result<bool> {
        let (kept, live) = (tree.try_clone()?, self.root.try_clone()?);
        let (name, path, locks) = (CString::default(), Vec::new(), Locks::default());
        let mut levels = vec![Level { kept, live, name, path, left, rest, locks }];
        let mut found = false;
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.left.pop_front() else {
                let Some(done) = levels.pop() else { break };
                let above = levels.last().map(|above| above.kept.as_fd());
                let empty =
                    above.is_some_and(|above| rustix::fs::unlinkat(above, &*done.name, AtFlags::REMOVEDIR).is_ok());
                if let Some(mtime) = times.get(&done.path).filter(|_| empty) {
                    set_mtime(&done.live, *mtime)?;
                }
                let entry = EntryRef::Fd(done.live.as_fd());
                fidelity::lock_again(entry, Kind::Directory, done.locks).map_err(|e| e.source)?;
                continue;
            };
            let path = joined(&level.path, &name);
            match self.entry(level, &name, &path) {
                Ok(Step::Into(below)) => levels.push(*below),
                Ok(Step::Done(fate)) => {
                    found = true;
                    if fate == Fate::Restored {
                        self.done.insert(path.clone());
                    }
                    (self.visit)(&Restored { path, fate, error: None });
                }
                Ok(Step::Absent) => {}
                Err(e) => {
                    found = true;
                    (self.visit)(&Restored { path, fate: Fate::Failed, error: Some(e) });
                }
            }
        }
        Ok(found)
    }

    fn entry(&mut self, level: &mut Level, name: &CStr, path: &[u8]) -> io::Result<Step> {
        let Some(kept) = stat(&level.kept, name)? else { return Ok(Step::Absent) };
        let live = stat(&level.live, name)?;
        if let Some(next) = level.rest.pop_front() {
            return self.towards(level, name, path, (kept, live), next);
        }
        let Some(live) = live else {
            self.give_back(level, name)?;
            return Ok(Step::Done(Fate::Restored));
        };
        if kept.kind == Kind::Directory && live.kind == Kind::Directory {
            return Ok(Step::Into(Box::new(level.below(name, path)?)));
        }
        if (kept.dev, kept.ino) == (live.dev, live.ino) {
            // It was kept by a second name, and the first was never taken away.
            rustix::fs::unlinkat(&level.kept, name, AtFlags::empty())?;
            return Ok(Step::Done(Fate::Restored));
        }
        if self.came_back(path) {
            return Ok(Step::Done(Fate::Older));
        }
        if !self.options.overwrite {
            return Ok(Step::Done(Fate::InTheWay));
        }
        self.set_aside(level, name, path, live.kind)?;
        self.give_back(level, name)?;
        Ok(Step::Done(Fate::Restored))
    }

    /// On the way to a single path: directories that are gone at the destination are made anew, like
    /// those that stand for them in the trash.
    fn towards(
        &mut self,
        level: &mut Level,
        name: &CStr,
        path: &[u8],
        (kept, live): (Stat, Option<Stat>),
        next: CString,
    ) -> io::Result<Step> {
        if kept.kind != Kind::Directory {
            return Ok(Step::Absent);
        }
        match live.map(|stat| stat.kind) {
            Some(Kind::Directory) => {}
            Some(_) => return Ok(Step::Done(Fate::InTheWay)),
            None => {
                change(level, &[], |level| rustix::fs::mkdirat(&level.live, name, Mode::RWXU))?;
                let made = sys::open_directory(level.live.as_fd(), name)?;
                like(&sys::open_directory(level.kept.as_fd(), name)?, &made, &self.traits)?;
            }
        }
        let mut below = level.below(name, path)?;
        below.left = VecDeque::from([next]);
        below.rest = std::mem::take(&mut level.rest);
        Ok(Step::Into(Box::new(below)))
    }

    fn came_back(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| self.done.contains(&path[..end]))
    }

    fn give_back(&self, level: &mut Level, name: &CStr) -> io::Result<()> {
        change(level, &[name], |level| rustix::fs::renameat(&level.kept, name, &level.live, name))
    }

    /// What stands in the way goes into a generation of its own.
    fn set_aside(&mut self, level: &mut Level, name: &CStr, path: &[u8], kind: Kind) -> io::Result<()> {
        if self.aside.is_none() {
            self.aside = Some(self.store.begin(uuid::Uuid::nil(), u64::MAX)?);
        }
        let Some((record, tree)) = &mut self.aside else { return Ok(()) };
        let mut at = tree.try_clone()?;
        let mut chain = components(path)?;
        chain.pop();
        for above in chain {
            match rustix::fs::mkdirat(&at, &*above, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => at = sys::open_directory(at.as_fd(), &above)?,
                Err(e) => return Err(e.into()),
            }
        }
        record.write(&Line::entry(path, kind, Why::Replaced))?;
        let (live, mut taken) = (level.live.as_fd(), Locks::default());
        let moved = lift::without_locks(live, &[(live, name)], &mut |locks| taken = taken.and(locks), || {
            rustix::fs::renameat(live, name, &at, name)
        });
        level.locks = level.locks.and(taken);
        moved
    }

    fn finish(self) -> io::Result<()> {
        tidy(&self.root, &self.store)?;
        if let Some(mtime) = self.root_mtime {
            set_mtime(&self.root, mtime)?;
        }
        sys::sync_file_system(&self.root)
    }
}

enum Step {
    Into(Box<Level>),
    Done(Fate),
    /// The trash has no such entry.
    Absent,
}

impl Level {
    fn below(&self, name: &CStr, path: &[u8]) -> io::Result<Self> {
        let kept = sys::open_directory(self.kept.as_fd(), name)?;
        let live = sys::open_directory(self.live.as_fd(), name)?;
        let left = names(&kept)?;
        let (name, path) = (name.to_owned(), path.to_vec());
        Ok(Self { kept, live, name, path, left, rest: VecDeque::new(), locks: Locks::default() })
    }
}

/// Changes the live directory, without flags that forbid it; `moved` come from the trash.
fn change(level: &mut Level, moved: &[&CStr], call: impl Fn(&Level) -> rustix::io::Result<()>) -> io::Result<()> {
    let mut taken = Locks::default();
    let entries: Vec<_> = moved.iter().map(|name| (level.kept.as_fd(), *name)).collect();
    let moved =
        lift::without_locks(level.live.as_fd(), &entries, &mut |locks| taken = taken.and(locks), || call(level));
    level.locks = level.locks.and(taken);
    moved
}

fn names(directory: &OwnedFd) -> io::Result<VecDeque<CString>> {
    Ok(Names::read(directory, crate::limits::DIRECTORY_ENTRIES_MAX)?.iter().map(|(name, _)| name.to_owned()).collect())
}

fn joined(path: &[u8], name: &CStr) -> Vec<u8> {
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    [path, slash, name.to_bytes()].concat()
}

fn stat(directory: &OwnedFd, name: &CStr) -> io::Result<Option<Stat>> {
    match sys::stat_at(directory.as_fd(), name) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Gives a directory its modification time back.
///
/// # Errors
/// Whatever setting says.
pub fn set_mtime(directory: &OwnedFd, mtime: Time) -> io::Result<()> {
    let atime = sys::stat_fd(directory)?.atime;
    sys::set_times(EntryRef::Fd(directory.as_fd()), atime, mtime)
}
