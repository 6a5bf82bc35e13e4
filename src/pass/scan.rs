//! Listing one directory on both sides, deciding what is to be done, and handing it out.
//!
//! The destination's names are read first: a foreign entry ends the run before anything in its
//! directory is touched. The source comes in pages, so the copy of a directory with 10^6 entries
//! starts after the first two thousand, and a scanner whose copies pile up carries some out itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::Mode;

use crate::copy::blocks::BlockIo;
use crate::error::{Class, EntryError, Error, Side};
use crate::fidelity::{self, Losses};
use crate::limits;
use crate::store::{CatalogReader, Facts, Proof, RowRef};
use crate::sys::{self, EntryRef, Kind, Stat};
use crate::tree::filter::{Descend, Verdict as Scope};
use crate::tree::links::{Place, Role};
use crate::tree::listing::{self, Listed, Names};
use crate::tree::plan::{Action, Change, Differences};

use super::Extras;
use super::again::Suspect;
use super::decide::{self, Verdict};
use super::directory::{Directory, Item, Standing, Work};
use super::known::Known;
use super::records::Batch;
use super::retry::Retry;
use super::state::{Run, Settled, Task, lane};

/// What a scanning worker has at hand.
pub struct Scanner<'w> {
    pub reader: &'w CatalogReader,
    pub known: &'w mut Known,
    pub io: &'w mut dyn BlockIo,
    pub worker: usize,
}

/// Both sides of the directory that is being listed.
struct Sides {
    node: Arc<Directory>,
    source: Arc<OwnedFd>,
    destination: Option<Arc<OwnedFd>>,
    /// Names at the destination; none for a directory of our own making.
    names: Names,
    /// Path with a slash at its end, for the filters; empty where no filter asks.
    prefix: Vec<u8>,
    /// Whether new directories in it may grow in the staging area, once that was asked.
    nurses: Option<bool>,
    /// Entries found to copy, not yet handed out.
    copy: Vec<Item>,
    suspects: Vec<Suspect>,
    /// Entries whose rows stand, for the digests, and the path they are below, once one is kept.
    kept: Batch,
    path: Option<Vec<u8>>,
}

/// Why a directory could not be listed to its end: the entry's error on either side, or the end of
/// the run.
enum Broken {
    Listing(std::io::Error),
    There(std::io::Error),
    Run(Error),
}

impl From<std::io::Error> for Broken {
    fn from(e: std::io::Error) -> Self {
        Self::Listing(e)
    }
}

/// Why a subdirectory is not entered: it is its own ancestor, or deeper than any tree is.
fn endless(node: &Directory, name: &CStr, stat: &Stat) -> Option<EntryError> {
    let at = |operation, class, source| {
        let path = node.path_of(name);
        Some(EntryError { class, side: Side::Source, operation, path, source })
    };
    if node.has_above(Side::Source, (stat.dev, stat.ino)) {
        let source = Some(std::io::Error::from_raw_os_error(libc::ELOOP));
        return at("descend into a directory that holds itself", Class::Io, source);
    }
    if node.level() >= limits::LEVELS_MAX {
        return at("descend deeper than any tree is", Class::OverLimit, None);
    }
    None
}

impl Run<'_> {
    /// Scans one directory and hands out what is to be done in it.
    pub fn scan(&self, node: &Arc<Directory>, scanner: &mut Scanner<'_>) {
        match self.scan_inner(node, scanner) {
            Ok(()) => {}
            Err(Broken::Run(e)) => self.end(e),
            Err(Broken::Listing(e)) => {
                self.listing_failed.store(true, Ordering::Relaxed);
                if e.raw_os_error() == Some(libc::ESTALE) || e.kind() == std::io::ErrorKind::NotFound {
                    self.source_moved.store(true, Ordering::Relaxed);
                }
                self.fail_entry(EntryError::io(Side::Source, "list", node.path(), e));
            }
            Err(Broken::There(e)) => {
                self.listing_failed.store(true, Ordering::Relaxed);
                self.fail_entry(EntryError::io(Side::Destination, "list", node.path(), e));
            }
        }
        // Empty, or not listed at all: there is no page to close it.
        self.close_nursery(node);
        self.release(node, 1);
    }

    fn scan_inner(&self, node: &Arc<Directory>, scanner: &mut Scanner<'_>) -> Result<(), Broken> {
        let source = node.open(Side::Source)?;
        self.keep_wanted(node, &source)?;
        let destination = if node.payload.standing == Standing::Absent { None } else { Some(self.open_there(node)?) };
        let mut sides = Sides {
            node: Arc::clone(node),
            source,
            destination,
            names: Names::default(),
            prefix: self.prefix(node),
            nurses: None,
            copy: Vec::new(),
            suspects: Vec::new(),
            kept: Batch::default(),
            path: None,
        };
        scanner.known.forget();
        if node.payload.standing == Standing::Existing {
            self.look_there(&mut sides, scanner)?;
        }
        let listed = Arc::clone(&sides.source);
        let scope =
            if self.options.filter.is_empty() { Descend::All } else { self.options.filter.descend(&node.path()) };
        if let Some((retry, wanted)) = self.retry.and_then(|retry| Some((retry, retry.names_in(&node.path())?))) {
            self.scan_names(&mut sides, retry, wanted, scanner)?;
        } else if scope != Descend::No {
            listing::pages::<Broken>(&listed, self.options.bounds.directory_entries, |page| {
                self.scan_page(&mut sides, page, scanner)?;
                self.close_nursery(node);
                Ok(())
            })?;
        }
        self.hand_out(&mut sides);
        self.keep_extras(sides, scanner)
    }

    /// Looks at these names only.
    fn scan_names(
        &self,
        sides: &mut Sides,
        retry: &Retry,
        wanted: Vec<CString>,
        scanner: &mut Scanner<'_>,
    ) -> Result<(), Broken> {
        let mut wanted = wanted.into_iter().map(|name| Listed { name, ino: 0 }).peekable();
        while wanted.peek().is_some() {
            let page: Vec<Listed> = wanted.by_ref().take(limits::LISTING_PAGE).collect();
            scanner.known.want(scanner.reader, &page).map_err(Broken::Run)?;
            for entry in page {
                if self.halted() {
                    return Ok(());
                }
                let path = sides.node.path_of(&entry.name);
                match sys::stat_at(sides.source.as_fd(), &entry.name) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        let stands = sides.names.see(&entry.name);
                        self.gone(retry, path, stands);
                    }
                    // What else is wrong with it is said where it is looked at.
                    _ => self.scan_entry(sides, entry, scanner),
                }
            }
        }
        Ok(())
    }

    fn open_there(&self, node: &Arc<Directory>) -> Result<Arc<OwnedFd>, Broken> {
        node.open(Side::Destination).map_err(Broken::There)
    }

    fn prefix(&self, node: &Directory) -> Vec<u8> {
        let mut prefix = if self.options.filter.is_empty() { Vec::new() } else { node.path() };
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix
    }

    /// The directory's own metadata, read unless the catalog says that nothing of it moved.
    fn keep_wanted(&self, node: &Directory, source: &OwnedFd) -> Result<(), Broken> {
        let stat = sys::stat_fd(source)?;
        let work = &node.payload;
        let known = work.known.as_ref().is_some_and(|row| row.source == decide::fingerprint(&stat));
        if !known || work.standing != Standing::Existing {
            let mut losses = Losses::default();
            let wanted = fidelity::capture(EntryRef::Fd(source.as_fd()), &stat, &self.source_traits, &mut losses)
                .map_err(|e| e.source)?;
            if !losses.is_empty() {
                self.losses.record(&node.path(), &losses);
                work.lost.store(losses.any_lost(), Ordering::Relaxed);
            }
            let _ = work.wanted.set(wanted);
        }
        Ok(())
    }

    /// Reads the destination's names, and ends the run at a foreign one.
    fn look_there(&self, sides: &mut Sides, scanner: &mut Scanner<'_>) -> Result<(), Broken> {
        let Some(destination) = &sides.destination else { return Ok(()) };
        if self.trash.is_some() {
            let at_root = sides.node.is_root() && self.progress.pass.get() == 1;
            // The root has its staging directory by now.
            let there = || sys::stat_fd(destination).map_err(Broken::There);
            let before = if at_root { self.roots.destination_stat } else { there()? };
            let _ = sides.node.payload.mtime_before.set(before.mtime);
        }
        sides.names = Names::read(destination, self.options.bounds.directory_entries).map_err(Broken::There)?;
        let mut unknown = |name: &CStr| {
            let allowed = self.options.extras != Extras::Guard
                || self.reserved(&sides.node, name)
                || self.out_of_scope(sides, name, destination)
                // A run that was cut off has put entries there that its catalog does not know yet.
                || (!self.catalog_complete && sys::stat_at(sides.source.as_fd(), name).is_ok());
            if allowed {
                return Ok(());
            }
            Err(super::setup::foreign(&self.options.destination, &sides.node.path_of(name)))
        };
        let id = sides.node.payload.id;
        scanner.known.read(scanner.reader, id, &sides.names, &mut unknown).map_err(Broken::Run)
    }

    /// Names at the root that copyd never takes for a tenant's.
    fn reserved(&self, node: &Directory, name: &CStr) -> bool {
        node.is_root() && (name == self.staging.name() || name == super::trash::NAME || name == c"lost+found")
    }

    fn out_of_scope(&self, sides: &Sides, name: &CStr, destination: &OwnedFd) -> bool {
        if self.options.filter.is_empty() {
            return false;
        }
        let is_directory = sys::stat_at(destination.as_fd(), name).is_ok_and(|s| s.kind == Kind::Directory);
        self.scope(sides, name, is_directory) == Scope::Skip
    }

    fn scope(&self, sides: &Sides, name: &CStr, is_directory: bool) -> Scope {
        if self.options.filter.is_empty() {
            return Scope::Keep;
        }
        let path = [&sides.prefix, name.to_bytes()].concat();
        self.options.filter.decide(&path, is_directory)
    }

    fn scan_page(&self, sides: &mut Sides, page: &mut Vec<Listed>, scanner: &mut Scanner<'_>) -> Result<(), Broken> {
        scanner.known.want(scanner.reader, page).map_err(Broken::Run)?;
        for entry in page.drain(..) {
            if self.halted() {
                return Ok(());
            }
            self.scan_entry(sides, entry, scanner);
            if sides.copy.len() >= limits::COPY_ENTRIES {
                self.hand_out(sides);
            }
        }
        while self.queue.waiting(lane::COPY) > limits::COPY_TASKS_WAITING {
            let Some(task) = self.queue.help(lane::SCAN) else { break };
            self.carry_out(task, scanner.io, scanner.worker);
            self.queue.finished();
        }
        Ok(())
    }

    /// Everything up to the decision: statx, filters, mounts.
    fn scan_entry(&self, sides: &mut Sides, entry: Listed, scanner: &mut Scanner<'_>) {
        let name = entry.name;
        let stat = match sys::stat_at(sides.source.as_fd(), &name) {
            Ok(stat) => stat,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.vanished(&sides.node, &name),
            Err(e) => {
                sides.names.see(&name);
                self.listing_failed.store(true, Ordering::Relaxed);
                return self.fail_entry(EntryError::io(Side::Source, "stat", sides.node.path_of(&name), e));
            }
        };
        if sides.node.is_root() && name.as_c_str() == c"lost+found" && stat.kind == Kind::Directory {
            sides.names.see(&name);
            return self.ignored(&sides.node, &name, "lost+found at the root belongs to the file system");
        }
        if self.scope(sides, &name, stat.kind == Kind::Directory) == Scope::Skip {
            sides.names.see(&name);
            return self.ignored(&sides.node, &name, "left out by the filters");
        }
        if sides.node.is_root() && name.as_c_str() == super::trash::NAME {
            let exists = sides.names.see(&name);
            let own = scanner.known.get(&name).is_some();
            if self.source_has_trash {
                return self.ignored(&sides.node, &name, "the trash of a replica is never replicated");
            }
            if self.trash.is_some() || (exists && !own) {
                let (class, operation) = (Class::Interfered, "copy what has the name of the destination's trash");
                let path = name.to_bytes().to_vec();
                return self.fail_entry(EntryError { class, side: Side::Source, operation, path, source: None });
            }
        }
        if !self.options.filter.is_empty() {
            self.seen.note(&[&sides.prefix, name.to_bytes()].concat());
        }
        let exists = sides.names.see(&name);
        self.progress.entries_scanned.add(1);
        self.tally.entries.add(1);
        if stat.mount_root {
            let path = sides.node.path_of(&name);
            let error =
                EntryError { class: Class::Mountpoint, side: Side::Source, operation: "descend", path, source: None };
            return self.fail_entry(error);
        }
        if let Some(operation) = self.options.bounds.exceeded(&stat) {
            let (class, path) = (Class::OverLimit, sides.node.path_of(&name));
            return self.fail_entry(EntryError { class, side: Side::Source, operation, path, source: None });
        }
        let there = match self.counterpart(sides, &name, exists) {
            Ok(there) => there,
            Err(e) => {
                self.listing_failed.store(true, Ordering::Relaxed);
                return self.fail_entry(EntryError::io(Side::Destination, "stat", sides.node.path_of(&name), e));
            }
        };
        if stat.kind == Kind::Directory {
            let known = scanner.known.get(&name).map(|row| *row.facts);
            return self.scan_directory(sides, name, stat, there, known, scanner.worker);
        }
        self.scan_leaf(sides, name, stat, there, scanner);
    }

    fn counterpart(&self, sides: &Sides, name: &CStr, exists: bool) -> std::io::Result<Option<Stat>> {
        let Some(destination) = sides.destination.as_ref().filter(|_| exists) else { return Ok(None) };
        match sys::stat_at(destination.as_fd(), name) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn scan_leaf(
        &self,
        sides: &mut Sides,
        name: std::ffi::CString,
        stat: Stat,
        there: Option<Stat>,
        scanner: &Scanner<'_>,
    ) {
        let mut item = Item {
            node: Arc::clone(&sides.node),
            name,
            stat,
            attempt: 0,
            beside: false,
            nested: false,
            exists: there.is_some(),
            differences: Differences::default(),
        };
        if there.is_some_and(|t| t.kind == Kind::Directory) {
            let known = self.known_row(scanner, &item);
            return match self.own_tree(&item.node, &item.name, known, scanner.reader) {
                Ok(own) => self.keep_replacement(item, own),
                Err(e) => self.end(e),
            };
        }
        if self.known_row(scanner, &item).is_some_and(|row| row.kind == Kind::Directory) {
            // The directory that the job made there is gone, with all that was in it.
            self.forget(&item.node, &item.name);
        }
        if item.linked() {
            let place = Place { node: Arc::clone(&item.node), name: item.name.clone() };
            if let Role::Follower(leader) = self.links.meet(item.inode(), &place) {
                let at = there.map(|t| (t.dev, t.ino));
                if leader.is_some_and(|leader| Some(leader.inode) == at) && self.known_row(scanner, &item).is_some() {
                    // Settled already and the same inode: nothing to do, and its row stands.
                    let known = self.known_row(scanner, &item);
                    let target = scanner.known.get(&item.name).and_then(|row| row.target);
                    return self.row_stands(sides, &item, known.as_ref(), target);
                }
                item.node.payload.hold(1);
                return self.links.follow(item.inode(), place);
            }
        }
        let Some(there) = there else { return self.plan_copy(sides, item) };
        let known = self.known_row(scanner, &item);
        let shared = there.nlink > 1 && (!item.linked() || !self.links.claim((there.dev, there.ino), item.inode()));
        if shared {
            item.differences = Differences { links: true, ..Differences::default() };
            return self.plan_copy(sides, item);
        }
        let target = scanner.known.get(&item.name).and_then(|row| row.target.map(<[u8]>::to_vec));
        self.scan_pair(sides, item, &there, known, target);
    }

    fn known_row(&self, scanner: &Scanner<'_>, item: &Item) -> Option<Facts> {
        scanner.known.get(&item.name).map(|row| *row.facts)
    }

    fn scan_pair(
        &self,
        sides: &mut Sides,
        mut item: Item,
        there: &Stat,
        known: Option<Facts>,
        target: Option<Vec<u8>>,
    ) {
        let owner = (self.options.id_map.uid(item.stat.uid), self.options.id_map.gid(item.stat.gid));
        let grain = self.destination_traits.time_grain_ns;
        match decide::decide(&item.stat, owner, there, known.as_ref(), grain) {
            Verdict::Unchanged => {
                let hashed = item.stat.kind != Kind::File || known.is_some_and(|k| k.digest.is_some());
                if self.options.manifest.is_some() && !hashed {
                    return self.suspect(sides, Suspect::new(item, *there, known, true, true));
                }
                self.row_stands(sides, &item, known.as_ref(), target.as_deref());
                self.settle_known(&item, there, known, target);
            }
            Verdict::CompareMetadata => {
                let believed = self.options.manifest.is_none() && !(self.doubtful && known.is_none());
                if !believed && item.stat.kind == Kind::File {
                    return self.suspect(sides, Suspect::new(item, *there, known, true, true));
                }
                self.compare_metadata(item, there, known.as_ref());
            }
            Verdict::HashAgain { source, destination } => {
                self.suspect(sides, Suspect::new(item, *there, known, source, destination));
            }
            Verdict::Copy(differences) => {
                item.differences = differences;
                self.plan_copy(sides, item);
            }
            Verdict::OtherType => {
                item.differences = Differences { content: true, ..Differences::default() };
                self.plan_copy(sides, item);
            }
        }
    }

    /// Nothing to do for an entry, and its row in the catalog is as it has to be.
    fn row_stands(&self, sides: &mut Sides, item: &Item, known: Option<&Facts>, target: Option<&[u8]>) {
        if let Some(facts) = known.filter(|_| self.records.is_some()) {
            let path = sides.path.get_or_insert_with(|| sides.node.path());
            let row = RowRef { directory: sides.node.payload.id, name: item.name.to_bytes(), facts, target };
            self.push_unchanged(&mut sides.kept, path, &row);
            if sides.kept.len() >= limits::LISTING_PAGE {
                self.keep_unchanged(&mut sides.kept);
            }
        }
        self.unchanged(item.stat.kind, known.map_or(Proof::Assumed, |row| row.proof));
    }

    fn suspect(&self, sides: &mut Sides, suspect: Suspect) {
        sides.node.payload.hold(1);
        sides.suspects.push(suspect);
    }

    /// Puts an entry on the list of copies.
    fn plan_copy(&self, sides: &mut Sides, mut item: Item) {
        sides.node.payload.hold(1);
        // A large file has a journal of its own, which knows no directory that nobody has named yet.
        let large = item.stat.kind == Kind::File && item.stat.size > crate::limits::CHUNK_BYTES;
        item.nested = !self.options.dry_run && !large && sides.node.payload.cradle.take_in();
        self.show(&item, Action::Make { exists: item.exists });
        if item.stat.kind == Kind::File {
            self.progress.bytes_planned.add(item.stat.size);
        }
        if self.options.dry_run {
            return self.would_copy(item);
        }
        sides.copy.push(item);
    }

    fn hand_out(&self, sides: &mut Sides) {
        self.keep_unchanged(&mut sides.kept);
        if !sides.copy.is_empty() {
            self.queue.push(lane::COPY, Task::Copy(std::mem::take(&mut sides.copy)));
        }
        if !sides.suspects.is_empty() {
            self.queue.push(lane::COPY, Task::HashAgain(std::mem::take(&mut sides.suspects)));
        }
    }

    fn scan_directory(
        &self,
        sides: &mut Sides,
        name: std::ffi::CString,
        stat: Stat,
        there: Option<Stat>,
        known: Option<Facts>,
        worker: usize,
    ) {
        if let Some(error) = endless(&sides.node, &name, &stat) {
            self.listing_failed.store(true, Ordering::Relaxed);
            return self.fail_entry(error);
        }
        if self.options.one_file_system && stat.dev != self.roots.source_stat.dev {
            self.ignored(&sides.node, &name, "another file system (-x)");
            return;
        }
        let standing = match there {
            Some(there) if there.kind == Kind::Directory => Standing::Existing,
            _ if sides.destination.is_none() || self.options.dry_run => Standing::Absent,
            _ => Standing::Fresh,
        };
        if standing != Standing::Existing {
            self.tally.directories_created.add(1);
            let action = there.map_or(Action::Make { exists: false }, |t| Action::Replace { old: t.kind });
            let path = sides.node.path_of(&name);
            self.show_change(&Change { path, kind: Kind::Directory, action, differences: Differences::default() });
        }
        let mut known = known.filter(|row| row.kind == Kind::Directory);
        if standing == Standing::Fresh && known.take().is_some() {
            // What the job made in it is gone with it.
            self.forget(&sides.node, &name);
        }
        let id = known.and_then(|row| row.child).unwrap_or_else(|| self.catalog.next_directory_id());
        let nurses = standing == Standing::Fresh && self.nurses(sides);
        let child = sides.node.child(name, Work::new(id, standing, known.map(Box::new), nurses));
        if standing == Standing::Fresh
            && let Err(e) = self.make_directory(sides, &child, there.is_some(), worker)
        {
            return self.fail_entry(EntryError::io(Side::Destination, "make the directory", child.path(), e));
        }
        sides.node.payload.hold(1);
        self.queue.push(lane::SCAN, Task::Scan(child));
    }

    fn nurses(&self, sides: &mut Sides) -> bool {
        let payload = &sides.node.payload;
        let destination = sides.destination.as_ref();
        *sides
            .nurses
            .get_or_insert_with(|| destination.is_some_and(|fd| self.may_nurse(payload.standing, fd, payload.nurses)))
    }

    /// Makes a new directory, in the staging area or at once in its place.
    fn make_directory(
        &self,
        sides: &Sides,
        child: &Arc<Directory>,
        replaces: bool,
        worker: usize,
    ) -> std::io::Result<()> {
        self.changed.store(true, Ordering::Relaxed);
        if child.payload.nurses && self.nurse(child, replaces, worker)? {
            return Ok(());
        }
        let Some(destination) = &sides.destination else { return Ok(()) };
        let name = child.name();
        if replaces {
            self.make_way(&sides.node, destination, name)?;
        }
        self.change(&sides.node, destination, &[], || rustix::fs::mkdirat(destination, name, Mode::RWXU))?;
        sides.node.payload.touch();
        Ok(())
    }

    /// What the destination has and the source has not.
    fn keep_extras(&self, sides: Sides, scanner: &Scanner<'_>) -> Result<(), Broken> {
        let Some(destination) = sides.destination.as_ref().filter(|_| self.retry.is_none()) else { return Ok(()) };
        if sides.node.payload.standing == Standing::Existing && !self.halted() {
            self.forget_gone(&sides.node, &sides.source, scanner.known.gone());
        }
        let mut extras = Vec::new();
        for (name, seen) in sides.names.iter() {
            if seen || self.reserved(&sides.node, name) || self.out_of_scope(&sides, name, destination) {
                continue;
            }
            let known = scanner.known.look_up(scanner.reader, name).map_err(Broken::Run)?;
            self.extra(&sides.node, name, known, scanner.reader, &mut extras).map_err(Broken::Run)?;
        }
        if !extras.is_empty() {
            sides.node.payload.hold(extras.len() as u64);
            crate::tree::node::lock(&self.extras).append(&mut extras);
        }
        Ok(())
    }

    /// Sends one line of the plan, where somebody wants to see it.
    pub fn show(&self, item: &Item, action: Action) {
        if self.options.items {
            self.show_change(&Change {
                path: item.path(),
                kind: item.stat.kind,
                action,
                differences: item.differences,
            });
        }
    }

    /// The leader of a group stands as the catalog has it: its followers may know.
    fn settle_known(&self, item: &Item, there: &Stat, known: Option<Facts>, target: Option<Vec<u8>>) {
        if let Some(facts) = known.filter(|_| item.linked()) {
            self.links.settle(item.inode(), Settled { inode: (there.dev, there.ino), facts, target });
        }
    }
}
