//! Listing one directory on both sides, and handing out what is to be compared in it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::copy::blocks::BlockIo;
use crate::copy::range::MoveError;
use crate::error::{Class, EntryError, Side};
use crate::limits;
use crate::sys::{self, EntryRef, Kind, Stat};
use crate::tree::filter::{Descend, Verdict as Scope};
use crate::tree::listing::{self, Listed, Names};

use super::compare::{Compared, Files, Pair, Settled, Waiting};
use super::content::unchanged;
use super::judge::Aspects;
use super::links::{Role, shares};
use super::trees::{Directory, Task, Trees, lane};

/// Both sides of the directory that is being listed.
struct Sides {
    node: Arc<Directory>,
    path: Vec<u8>,
    source: Arc<OwnedFd>,
    destination: Arc<OwnedFd>,
    /// Names at the destination.
    names: Names,
    /// Files found on both sides, not yet handed out.
    pairs: Vec<Pair>,
    settled: Settled,
}

impl Trees<'_> {
    /// Compares one directory, and hands out what is in it.
    pub fn scan(&self, node: &Arc<Directory>, io: &mut dyn BlockIo) {
        let path = node.path();
        if let Err(e) = self.scan_inner(node, &path, io) {
            self.judge.fail_move(path, e);
        }
    }

    fn scan_inner(&self, node: &Arc<Directory>, path: &[u8], io: &mut dyn BlockIo) -> Result<(), MoveError> {
        let at = |side, operation| move |e| MoveError::io(side, operation, e);
        let source = node.open(Side::Source).map_err(at(Side::Source, "open the directory"))?;
        let destination = node.open(Side::Destination).map_err(at(Side::Destination, "open the directory"))?;
        let compared = self.compare_directory(&source, &destination, node.is_root())?;
        let (filter, most) = (&self.options.filter, self.options.directory_entries);
        let scope = if filter.is_empty() { Descend::All } else { filter.descend(path) };
        let names = if scope == Descend::No { Ok(Names::default()) } else { Names::read(&destination, most) };
        let mut sides = Sides {
            node: Arc::clone(node),
            path: path.to_vec(),
            source,
            destination,
            names: names.map_err(at(Side::Destination, "list"))?,
            pairs: Vec::new(),
            settled: Settled::default(),
        };
        if scope != Descend::No {
            let listed = Arc::clone(&sides.source);
            listing::pages::<io::Error>(&listed, most, |page| {
                self.scan_page(&mut sides, page, io);
                Ok(())
            })
            .map_err(at(Side::Source, "list"))?;
        }
        self.hand_out(&mut sides);
        self.name_extras(&sides);
        self.bring(sides.settled);
        self.settle_directory(path, compared);
        Ok(())
    }

    /// A directory's own metadata. The source's is looked at again before a difference is believed.
    fn compare_directory(&self, source: &OwnedFd, destination: &OwnedFd, is_root: bool) -> Result<Compared, MoveError> {
        let at = |side, operation| move |e| MoveError::io(side, operation, e);
        for attempt in 0.. {
            let stat = sys::stat_fd(source).map_err(at(Side::Source, "stat"))?;
            let there = sys::stat_fd(destination).map_err(at(Side::Destination, "stat"))?;
            let wanted = self.capture(Side::Source, EntryRef::Fd(source.as_fd()), &stat)?;
            let have = self.capture(Side::Destination, EntryRef::Fd(destination.as_fd()), &there)?;
            let mut aspects = Aspects::default();
            let losses = self.metadata(&wanted, &have, &mut aspects);
            if is_root && !self.options.filter.names_root() {
                aspects = Aspects::default();
            }
            let still = || sys::stat_fd(source).is_ok_and(|after| unchanged(&stat, &after));
            if aspects.none() || still() {
                return Ok(Compared { aspects, digest: None, target: None, wanted, losses });
            }
            if attempt > 0 {
                break;
            }
        }
        Err(MoveError::hot("compare it unchanged"))
    }

    fn scan_page(&self, sides: &mut Sides, page: &mut Vec<Listed>, io: &mut dyn BlockIo) {
        for entry in page.drain(..) {
            if self.judge.halted() {
                return;
            }
            self.scan_entry(sides, entry.name);
            if sides.pairs.len() >= limits::COPY_ENTRIES {
                self.hand_out(sides);
            }
        }
        self.bring(std::mem::take(&mut sides.settled));
        while self.queue.waiting(lane::FILES) > limits::COPY_TASKS_WAITING {
            let Some(task) = self.queue.help(lane::SCAN) else { break };
            self.carry_out(task, io);
            self.queue.finished();
        }
    }

    fn hand_out(&self, sides: &mut Sides) {
        if !sides.pairs.is_empty() {
            let pairs = std::mem::take(&mut sides.pairs);
            self.queue.push(lane::FILES, Task::Files(Files { node: Arc::clone(&sides.node), pairs }));
        }
    }

    /// Everything up to the comparison: statx of both, filters, mounts.
    fn scan_entry(&self, sides: &mut Sides, name: CString) {
        let at = |side, e| EntryError::io(side, "stat", sides.node.path_of(&name), e);
        let stat = match sys::stat_at(sides.source.as_fd(), &name) {
            Ok(stat) => stat,
            // Gone since it was listed: the destination's name, if it has one, is extra.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                self.judge.fail(&at(Side::Source, e));
                sides.names.see(&name);
                return;
            }
        };
        if self.left_out(&sides.node, &sides.path, Side::Source, &name, &stat) {
            sides.names.see(&name);
            return;
        }
        self.judge.progress.entries_scanned.add(1);
        self.judge.entries.add(1);
        let there =
            if sides.names.see(&name) { sys::stat_at(sides.destination.as_fd(), &name).map(Some) } else { Ok(None) };
        let there = match there {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return self.judge.fail(&EntryError::io(Side::Destination, "stat", sides.node.path_of(&name), e)),
        };
        for (side, one) in [(Side::Source, Some(stat)), (Side::Destination, there)] {
            if one.is_some_and(|stat| stat.mount_root) {
                return self.judge.fail(&mountpoint(side, sides.node.path_of(&name)));
            }
        }
        match there {
            None => self.missing(sides, &name, &stat),
            Some(there) if there.kind != stat.kind => {
                let aspects = Aspects { kind: true, ..Aspects::default() };
                self.judge.differs(&sides.node.path_of(&name), &aspects);
                self.count_below(&sides.node, Side::Source, &name, stat.kind);
                self.count_below(&sides.node, Side::Destination, &name, there.kind);
            }
            Some(_) if stat.kind == Kind::Directory => {
                self.push_scan(Task::Scan(sides.node.child(name, ())));
            }
            Some(there) => self.pair(sides, name, stat, there),
        }
    }

    fn missing(&self, sides: &Sides, name: &CStr, stat: &Stat) {
        let accepted = super::judge::class_of_kind(stat.kind).filter(|class| self.options.accept_loss.contains(class));
        let path = sides.node.path_of(name);
        if let Some(class) = accepted {
            self.judge.losses.add(class, &path, "it is missing at the destination");
            self.judge.progress.entries_done.add(1);
            return self.judge.no_digests();
        }
        self.judge.only(Side::Source, &path, "");
        self.count_below(&sides.node, Side::Source, name, stat.kind);
    }

    fn pair(&self, sides: &mut Sides, name: CString, source: Stat, there: Stat) {
        let mut pair = Pair { name, source, there, broken: false, leads: false, again: false };
        let mut role = Role::Single { broken: false };
        if shares(&source) || shares(&there) {
            let mut waiting = Some(Waiting { node: Arc::clone(&sides.node), pair });
            role = self.links.meet(&source, &there, &mut waiting);
            match waiting {
                Some(waiting) => pair = waiting.pair,
                None => return,
            }
        }
        match role {
            Role::Known(verdict) => self.follow(&sides.node, &pair, &verdict, &mut sides.settled),
            Role::Waits => {}
            Role::Single { .. } | Role::Leader => {
                pair.leads = role == Role::Leader;
                pair.broken = role == Role::Single { broken: true };
                if source.kind == Kind::File {
                    if source.size == there.size {
                        self.judge.progress.bytes_planned.add(source.size);
                    }
                    sides.pairs.push(pair);
                } else {
                    self.compare_now(sides, pair);
                }
            }
        }
    }

    /// A symlink or special file. The source is looked at again before a difference is believed.
    fn compare_now(&self, sides: &mut Sides, mut pair: Pair) {
        loop {
            let found = self.compare_special((&sides.source, &sides.destination), &pair);
            let suspect = found.as_ref().map_or(true, |compared| !compared.aspects.none());
            let now = if suspect { sys::stat_at(sides.source.as_fd(), &pair.name).ok() } else { Some(pair.source) };
            let moved = now.is_none_or(|now| !unchanged(&pair.source, &now));
            match (found, now) {
                (Ok(compared), _) if !moved => {
                    let path = std::mem::take(&mut sides.path);
                    self.settle(&sides.node, &path, &pair, compared, &mut sides.settled);
                    sides.path = path;
                    return;
                }
                (_, Some(now)) if moved && !pair.again && now.kind == pair.source.kind => {
                    pair = Pair { source: now, again: true, ..pair };
                }
                (Err(e), _) if !moved => return self.judge.fail_move(sides.node.path_of(&pair.name), e),
                _ => {
                    let hot = MoveError::hot("compare it unchanged");
                    return self.judge.fail_move(sides.node.path_of(&pair.name), hot);
                }
            }
        }
    }

    /// What the destination has and the source has not.
    fn name_extras(&self, sides: &Sides) {
        for (name, _) in sides.names.iter().filter(|(_, seen)| !seen) {
            if sides.node.is_root() && reserved(name) {
                continue;
            }
            let stat = match sys::stat_at(sides.destination.as_fd(), name) {
                Ok(stat) => stat,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    self.judge.fail_extra(&EntryError::io(Side::Destination, "stat", sides.node.path_of(name), e));
                    continue;
                }
            };
            if !self.left_out(&sides.node, &sides.path, Side::Destination, name, &stat) {
                self.judge.only(Side::Destination, &sides.node.path_of(name), "");
                self.count_below(&sides.node, Side::Destination, name, stat.kind);
            }
        }
    }

    /// Whether an entry is no part of the comparison.
    fn left_out(&self, node: &Directory, directory: &[u8], side: Side, name: &CStr, stat: &Stat) -> bool {
        let is_directory = stat.kind == Kind::Directory;
        if is_directory && node.is_root() && name == c"lost+found" {
            self.judge.ignored(Some(name.to_bytes()), "lost+found at the root belongs to the file system");
            return true;
        }
        let at_root = || node.is_root().then(|| name.to_bytes());
        if !self.options.filter.is_empty() {
            let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            let path = [directory, slash, name.to_bytes()].concat();
            self.seen.note(&path);
            if self.options.filter.decide(&path, is_directory) == Scope::Skip {
                if side == Side::Source {
                    self.judge.ignored(at_root(), "left out by the filters");
                }
                return true;
            }
        }
        let root = if side == Side::Source { &self.roots.source_stat } else { &self.roots.destination_stat };
        if self.options.one_file_system && is_directory && !stat.mount_root && stat.dev != root.dev {
            self.judge.ignored(at_root(), "another file system (-x)");
            return true;
        }
        false
    }

    fn count_below(&self, node: &Arc<Directory>, side: Side, name: &CStr, kind: Kind) {
        if kind == Kind::Directory {
            self.push_scan(Task::Count(node.child(name.to_owned(), ()), side));
        }
    }

    /// Counts what is below a directory that one side only has.
    pub fn count(&self, node: &Arc<Directory>, side: Side) {
        let path = node.path();
        let scope = if self.options.filter.is_empty() { Descend::All } else { self.options.filter.descend(&path) };
        if scope == Descend::No {
            return;
        }
        let listed = node.open(side).and_then(|fd| {
            listing::pages::<io::Error>(&fd, self.options.directory_entries, |page| {
                let mut count = 0;
                for entry in page.drain(..) {
                    if self.judge.halted() {
                        break;
                    }
                    let stat = match sys::stat_at(fd.as_fd(), &entry.name) {
                        Ok(stat) => stat,
                        Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                        Err(e) => {
                            self.judge.fail_extra(&EntryError::io(side, "stat", node.path_of(&entry.name), e));
                            continue;
                        }
                    };
                    if self.left_out(node, &path, side, &entry.name, &stat) {
                        continue;
                    }
                    if stat.mount_root {
                        self.judge.fail_extra(&mountpoint(side, node.path_of(&entry.name)));
                        continue;
                    }
                    count += 1;
                    self.count_below(node, side, &entry.name, stat.kind);
                }
                if side == Side::Source {
                    self.judge.entries.add(count);
                    self.judge.progress.entries_scanned.add(count);
                }
                self.judge.count_only(side, count);
                Ok(())
            })
        });
        if let Err(e) = listed {
            self.judge.fail_extra(&EntryError::io(side, "list", path, e));
        }
    }
}

fn mountpoint(side: Side, path: Vec<u8>) -> EntryError {
    EntryError { class: Class::Mountpoint, side, operation: "descend", path, source: None }
}

/// Names at a destination's root that are copyd's own or the file system's.
#[must_use]
pub fn reserved(name: &CStr) -> bool {
    let name = name.to_bytes();
    let staging = name.strip_prefix(b".copyd-").and_then(|rest| std::str::from_utf8(rest).ok());
    name == b".copyd-trash" || name == b"lost+found" || staging.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copyds_own_names_are_reserved_at_a_destination() {
        for name in [c".copyd-trash", c"lost+found", c".copyd-0190b3c4-7d5e-7c3a-9f00-123456789abc"] {
            assert!(reserved(name), "{name:?}");
        }
        for name in [c".copyd-", c".copyd-mine", c"lost+founds", c"copyd-trash"] {
            assert!(!reserved(name), "{name:?}");
        }
    }
}
