//! `copyd verify --manifest FILE DIR`: one tree against what a manifest says of it.
//!
//! ```text
//! lines ──64 at a time, any worker──▶ compare with DIR ──▶ judge
//!   └─ hash of each path ──▶ known ──when all lines are read──▶ walk of DIR names what is not known
//! ```
//! The manifest is never held: what stays of a line is sixteen bytes of its path's hash.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::copy::big::BigFile;
use crate::copy::blocks::{BlockIo, Threads};
use crate::copy::probe::Backend;
use crate::copy::range::MoveError;
use crate::error::{Class, EntryError, Error, Side};
use crate::fidelity::{self, Losses, SideTraits, Xattrs, belongs_to_destination};
use crate::hash::manifest::{Item, ManifestEntry, Reader, entries_path};
use crate::hash::{Digest, DigestKind, HolePolicy, xattr_digest};
use crate::limits;
use crate::pass::ManifestOptions;
use crate::pass::batch::{Durability, cores};
use crate::pass::confine::Confinement;
use crate::pass::publish::ReadBack;
use crate::pass::queue::{Next, Queue};
use crate::pass::report::{Observer, Opened, Progress, Stop, Summary};
use crate::pass::session::raise_descriptor_limit;
use crate::pass::setup;
use crate::sys::{self, EntryRef, Kind, Stat};
use crate::tree::links::Inode;
use crate::tree::listing;
use crate::tree::node::{Handles, Node, lock};

use super::big::{Told, read_chunks};
use super::chain::Chain;
use super::content::{self, PastCache, Progressed, Read, Reading, unchanged};
use super::judge::{Aspects, Judge, Means};
use super::links::{Claims, inode, shares};
use super::trees::{no_buffers, work};
use super::walk::reserved;

/// First half of the BLAKE3 of a path: two paths of one manifest never share it.
type PathHash = u128;

fn hash_of(path: &[u8]) -> PathHash {
    let hash = blake3::hash(path);
    u128::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}

#[derive(Debug)]
enum Task {
    Big(Arc<BigOne>),
    /// The next lines of the manifest.
    Read,
    /// A directory of DIR; the manifest knows it, or (`true`) nothing below it.
    Scan(Arc<Node<()>>, bool),
}

mod lane {
    pub const BIG: usize = 0;
    pub const READ: usize = 1;
    pub const SCAN: usize = 2;
    pub const COUNT: usize = 3;
}

/// A large file, shared among the workers.
#[derive(Debug)]
struct BigOne {
    path: Vec<u8>,
    stat: Stat,
    wanted: Digest,
    aspects: Aspects,
    fd: Arc<OwnedFd>,
    file: BigFile<()>,
    told: Told,
}

/// Which inode of DIR stands for which group of the manifest, and the other way round.
#[derive(Debug, Default)]
struct Links {
    inodes: Claims<PathHash, Inode>,
    groups: Claims<Inode, PathHash>,
    /// Content of inodes with several names, which is read once.
    digests: HashMap<Inode, Digest>,
}

#[derive(Debug)]
struct Lines {
    reader: Reader,
    known: HashSet<PathHash>,
}

/// What the manifest says of one entry.
struct Wanted<'m> {
    path: &'m [u8],
    digest: Option<Digest>,
    /// `None`: it is a file, and no more is known.
    entry: Option<&'m ManifestEntry>,
}

impl<'m> From<&'m Item> for Wanted<'m> {
    fn from(item: &'m Item) -> Self {
        match item {
            Item::Sum { path, digest } => Self { path, digest: Some(*digest), entry: None },
            Item::Entry(entry) => Self { path: &entry.path, digest: entry.digest, entry: Some(entry) },
        }
    }
}

/// State of one comparison with a manifest, shared by its workers.
#[derive(Debug)]
struct Against<'a> {
    judge: Judge<'a>,
    root: Arc<OwnedFd>,
    past_cache: PastCache,
    traits: SideTraits,
    queue: Queue<Task, { lane::COUNT }>,
    workers: usize,
    lines: Mutex<Lines>,
    has_entries: bool,
    links: Mutex<Links>,
    /// The manifest's own files, should they lie in DIR.
    own: Vec<Inode>,
    walked: AtomicBool,
}

/// Compares a tree with a manifest.
///
/// # Errors
/// What ends the run before its time: a directory or manifest that can't be read, a bad line.
pub fn run(
    options: &ManifestOptions,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    let started = Instant::now();
    raise_descriptor_limit();
    let against = open(options, observer, progress, stop)?;
    let in_memory = against.past_cache.in_memory();
    let means = Means {
        backend: Backend::Threads,
        confinement: options.confine.then(|| Confinement {
            read: vec![against.root.as_fd()],
            in_memory,
            ..Confinement::default()
        }),
        readback: against.past_cache.word(),
        workers: against.workers,
        reason: if against.has_entries { "FILE.jsonl tells of every entry" } else { "no FILE.jsonl: content only" },
    };
    let mut summary = against.judge.conduct((&options.manifest, &options.directory), means, || {
        for _ in 0..against.workers {
            against.queue.push(lane::READ, Task::Read);
        }
        work(against.workers, &against.judge, || against.queue.close(), || against.work())
    })?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

fn open<'a>(
    options: &'a ManifestOptions,
    observer: &'a dyn Observer,
    progress: &'a Progress,
    stop: &'a Arc<Stop>,
) -> Result<Against<'a>, Error> {
    let at = |e| setup::root_error(Side::Destination, &options.directory, e);
    progress.open_root(Some(Side::Destination));
    let root = Arc::new(setup::open_one(&options.directory, Side::Destination)?);
    let reader = Reader::open(&options.manifest)?;
    observer.opened(&Opened { source: None, destination: &root })?;
    progress.open_root(None);
    let durability = setup::durability(sys::file_system_magic(root.as_fd()).map_err(at)?);
    let how = if durability == Durability::Memory { ReadBack::Memory } else { ReadBack::Direct };
    let own = [options.manifest.clone(), entries_path(&options.manifest)];
    let identity = |path: &std::path::PathBuf| {
        use std::os::unix::fs::MetadataExt;
        // A file of no name that is looked for below can't be met there.
        std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
    };
    Ok(Against {
        judge: Judge::new(observer, progress, stop, options.items, &options.throttle),
        past_cache: PastCache::new(how),
        traits: SideTraits::probe(root.as_fd()).map_err(at)?,
        queue: Queue::default(),
        workers: durability.workers(options.jobs, cores()),
        has_entries: reader.has_entries(),
        lines: Mutex::new(Lines { reader, known: HashSet::new() }),
        links: Mutex::default(),
        own: own.iter().filter_map(identity).collect(),
        walked: AtomicBool::new(false),
        root,
    })
}

impl Against<'_> {
    fn work(&self) -> Result<(), Error> {
        let mut io = Threads::new().map_err(no_buffers)?;
        let mut chain = Chain::new(Arc::clone(&self.root));
        loop {
            if self.judge.halted() {
                self.queue.clear_from(lane::BIG);
            }
            let task = match self.queue.next() {
                Next::Closed => return Ok(()),
                Next::Task(task) => task,
                Next::Idle => {
                    self.advance();
                    self.queue.finished();
                    continue;
                }
            };
            let result = match task {
                Task::Big(big) => self.read_big(&big, &mut io),
                Task::Read => self.read(&mut chain, &mut io),
                Task::Scan(node, unknown) => {
                    self.scan(&node, unknown);
                    Ok(())
                }
            };
            self.queue.finished();
            result.map_err(|e| Error::Internal { what: format!("the I/O backend failed: {e}") })?;
        }
    }

    /// All lines are compared: the walk, and after it the end.
    fn advance(&self) {
        if self.judge.halted() || self.walked.swap(true, Ordering::Relaxed) {
            return self.queue.close();
        }
        self.judge.progress.scan_complete.store(true, Ordering::Relaxed);
        let root = Node::root(Handles::new(limits::COMPARE_HANDLES), Arc::clone(&self.root), None, ());
        self.queue.push(lane::SCAN, Task::Scan(root, false));
    }

    /// Takes some lines and compares them.
    fn read(&self, chain: &mut Chain, io: &mut Threads) -> io::Result<()> {
        let mut items = Vec::with_capacity(limits::COPY_ENTRIES);
        {
            let mut lines = lock(&self.lines);
            let Lines { reader, known } = &mut *lines;
            for item in reader.take(limits::COPY_ENTRIES) {
                match item {
                    Ok(item) => {
                        known.insert(hash_of(Wanted::from(&item).path));
                        items.push(item);
                    }
                    Err(e) => self.judge.end(e.into()),
                }
            }
        }
        self.judge.entries.add(items.len() as u64);
        self.judge.progress.entries_scanned.add(items.len() as u64);
        if items.len() == limits::COPY_ENTRIES {
            self.queue.push(lane::READ, Task::Read);
        }
        for item in &items {
            if self.judge.halted() {
                break;
            }
            self.compare(&item.into(), chain, io)?;
        }
        Ok(())
    }

    fn compare(&self, wanted: &Wanted<'_>, chain: &mut Chain, io: &mut Threads) -> io::Result<()> {
        for attempt in 0.. {
            match self.compare_once(wanted, chain, io)? {
                Err(e) if e.class == Class::Hot && attempt == 0 => {}
                Err(e) => {
                    self.judge.fail_move(wanted.path.to_vec(), e);
                    break;
                }
                Ok(Some(aspects)) => {
                    self.settle(wanted.path, &aspects, wanted.entry.is_none_or(|entry| entry.kind == Kind::File));
                    break;
                }
                Ok(None) => break,
            }
        }
        Ok(())
    }

    fn settle(&self, path: &[u8], aspects: &Aspects, is_file: bool) {
        if !aspects.none() {
            return self.judge.differs(path, aspects);
        }
        self.judge.show_equal(|| path.to_vec());
        self.judge.proved.add(1);
        self.judge.progress.files_unchanged.add(u64::from(is_file));
        self.judge.progress.entries_done.add(1);
    }

    /// What differs; `None` where that was said already, or will be by whoever completes the file.
    /// The outer error is one of the backend.
    fn compare_once(
        &self,
        wanted: &Wanted<'_>,
        chain: &mut Chain,
        io: &mut Threads,
    ) -> io::Result<Result<Option<Aspects>, MoveError>> {
        let (directory, name) = match self.find(wanted.path, chain) {
            Ok(found) => found,
            Err(e) if is_absence(&e) => return Ok(Ok(self.missing(wanted.path))),
            Err(e) => return Ok(Err(MoveError::io(Side::Destination, "open the directory", e))),
        };
        let found = match &name {
            Some(name) => sys::stat_at(directory.as_fd(), name),
            None => sys::stat_fd(&directory),
        };
        let stat = match found {
            Ok(stat) => stat,
            Err(e) if is_absence(&e) => return Ok(Ok(self.missing(wanted.path))),
            Err(e) => return Ok(Err(MoveError::io(Side::Destination, "stat", e))),
        };
        if stat.mount_root && name.is_some() {
            let class = Class::Mountpoint;
            return Ok(Err(MoveError { class, side: Side::Destination, operation: "descend", source: None }));
        }
        if stat.kind != wanted.entry.map_or(Kind::File, |entry| entry.kind) {
            return Ok(Ok(Some(Aspects { kind: true, ..Aspects::default() })));
        }
        match (&name, stat.kind) {
            (Some(name), Kind::File) => self.compare_file(wanted, (&directory, name), &stat, io),
            (Some(name), _) => Ok(self.compare_other(wanted, EntryRef::At(directory.as_fd(), name), &stat)),
            (None, _) => Ok(self.compare_other(wanted, EntryRef::Fd(directory.as_fd()), &stat)),
        }
    }

    /// The directory that holds the entry and its name there; no name for the root.
    fn find(&self, path: &[u8], chain: &mut Chain) -> io::Result<(Arc<OwnedFd>, Option<CString>)> {
        if path.is_empty() {
            return Ok((Arc::clone(&self.root), None));
        }
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        Ok((chain.directory(directory)?, Some(CString::new(name)?)))
    }

    fn missing(&self, path: &[u8]) -> Option<Aspects> {
        self.judge.only(Side::Source, path, "");
        None
    }

    fn compare_other(
        &self,
        wanted: &Wanted<'_>,
        entry: EntryRef<'_>,
        stat: &Stat,
    ) -> Result<Option<Aspects>, MoveError> {
        let Some(says) = wanted.entry else { return Ok(Some(Aspects::default())) };
        let mut aspects = Aspects::default();
        match entry {
            // Attributes of a directory are asked of itself.
            EntryRef::At(directory, name) if stat.kind == Kind::Directory => {
                let fd = sys::open_directory(directory, name).map_err(|e| here("open the directory", e))?;
                self.metadata(says, EntryRef::Fd(fd.as_fd()), stat, &mut aspects)?;
            }
            EntryRef::At(directory, name) if stat.kind == Kind::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new());
                let target = target.map_err(|e| here("read the link", e.into()))?;
                aspects.target = says.target.as_deref() != Some(target.as_bytes());
                self.metadata(says, entry, stat, &mut aspects)?;
            }
            _ => self.metadata(says, entry, stat, &mut aspects)?,
        }
        aspects.device = says.rdev.is_some_and(|number| number != stat.rdev);
        Ok(Some(aspects))
    }

    fn metadata(
        &self,
        says: &ManifestEntry,
        entry: EntryRef<'_>,
        stat: &Stat,
        aspects: &mut Aspects,
    ) -> Result<(), MoveError> {
        let captured = fidelity::capture(entry, stat, &self.traits, &mut Losses::default())
            .map_err(|e| here(e.operation, e.source))?;
        let found = &mut aspects.metadata;
        found.mode = stat.kind != Kind::Symlink && says.mode != stat.mode;
        found.owner = says.uid != stat.uid;
        found.group = says.gid != stat.gid;
        found.mtime = !self.traits.same_time(says.mtime, stat.mtime);
        found.xattrs = !same_xattrs(says.xattrs, &captured.xattrs);
        if stat.kind != Kind::Directory && (says.link_group.is_some() || shares(stat)) {
            let group = hash_of(says.link_group.as_ref().unwrap_or(&says.path));
            let mut links = lock(&self.links);
            aspects.links = !(links.inodes.claim(group, inode(stat)) & links.groups.claim(inode(stat), group));
        }
        Ok(())
    }

    fn compare_file(
        &self,
        wanted: &Wanted<'_>,
        (directory, name): (&OwnedFd, &CString),
        stat: &Stat,
        io: &mut Threads,
    ) -> io::Result<Result<Option<Aspects>, MoveError>> {
        let mut aspects = Aspects::default();
        let fd = match self.past_cache.open(directory, name) {
            Ok(fd) => fd,
            Err(e) if is_absence(&e) => return Ok(Ok(self.missing(wanted.path))),
            Err(e) => return Ok(Err(here("open", e))),
        };
        if let Some(says) = wanted.entry {
            if let Err(e) = self.metadata(says, EntryRef::Fd(fd.as_fd()), stat, &mut aspects) {
                return Ok(Err(e));
            }
            aspects.size = says.size != Some(stat.size);
        }
        let Some(digest) = wanted.digest.filter(|_| !aspects.size) else {
            aspects.content = aspects.size;
            return Ok(Ok(Some(aspects)));
        };
        self.judge.progress.bytes_planned.add(stat.size);
        let known = if shares(stat) { lock(&self.links).digests.get(&inode(stat)).copied() } else { None };
        if let Some(known) = known.filter(|known| known.kind == digest.kind) {
            aspects.content = known != digest;
            self.judge.progress.bytes_done.add(stat.size);
            return Ok(Ok(Some(aspects)));
        }
        if stat.size > limits::CHUNK_BYTES {
            self.push_big(wanted.path, (fd, *stat), digest, aspects);
            return Ok(Ok(None));
        }
        let mut reading = Reading::new(fd, Side::Destination, stat, policy_of(digest)).paced();
        let found = self.hash(&mut reading, io)?;
        self.judge.progress.bytes_done.add(stat.size);
        self.judge.progress.bytes_verified.add(stat.size);
        Ok(self.judged(found, stat, reading.fd(), digest, aspects).map(Some))
    }

    /// Reads one file to its end.
    fn hash(&self, reading: &mut Reading, io: &mut Threads) -> io::Result<Result<Digest, MoveError>> {
        let mut last = None;
        loop {
            let operation = match reading.step(&self.judge, last.take(), io.buffer(0)) {
                Progressed::Submit(operation) => operation,
                Progressed::Done(Ok(Read::Bytes(bytes))) => return Ok(Ok(Digest::of(bytes))),
                Progressed::Done(Ok(Read::Hashed(digest))) => return Ok(Ok(digest)),
                Progressed::Done(Err(e)) => return Ok(Err(e)),
            };
            io.submit(0, operation)?;
            last = Some(io.complete()?.1);
        }
    }

    /// What a file's content has come to, unless the file changed under the reading.
    fn judged(
        &self,
        found: Result<Digest, MoveError>,
        stat: &Stat,
        fd: &OwnedFd,
        wanted: Digest,
        mut aspects: Aspects,
    ) -> Result<Aspects, MoveError> {
        let after = sys::stat_fd(fd).map_err(|e| here("stat", e))?;
        if !unchanged(stat, &after) {
            return Err(MoveError { side: Side::Destination, ..MoveError::hot("read it unchanged") });
        }
        match found {
            Ok(found) => {
                aspects.content = found != wanted;
                if shares(stat) {
                    lock(&self.links).digests.insert(inode(stat), found);
                }
            }
            Err(e) if content::is_difference(&e) => aspects.content = true,
            Err(e) => return Err(e),
        }
        Ok(aspects)
    }

    fn push_big(&self, path: &[u8], (fd, stat): (OwnedFd, Stat), wanted: Digest, aspects: Aspects) {
        let fd = Arc::new(fd);
        let file = content::big(Arc::clone(&fd), Side::Destination, &stat, policy_of(wanted), &self.judge.pace);
        let told = Told::new(stat.size);
        let big = Arc::new(BigOne { path: path.to_vec(), stat, wanted, aspects, fd, file, told });
        for _ in 0..self.workers {
            self.queue.push(lane::BIG, Task::Big(Arc::clone(&big)));
        }
    }

    fn read_big(&self, big: &BigOne, io: &mut Threads) -> io::Result<()> {
        if !read_chunks(&big.file, &self.judge, Some(&big.told), io)? || self.judge.halted() {
            return Ok(());
        }
        big.told.rest(&self.judge);
        let found = big.file.outcome(&|| self.judge.halted());
        let found = found.and_then(|digest| digest.ok_or_else(|| MoveError::hot("hash")));
        match self.judged(found, &big.stat, &big.fd, big.wanted, big.aspects) {
            Ok(aspects) => self.settle(&big.path, &aspects, true),
            Err(e) => self.judge.fail_move(big.path.clone(), e),
        }
        Ok(())
    }
}

impl Against<'_> {
    /// Names what is in DIR and not in the manifest. A list of sums tells of files only.
    fn scan(&self, node: &Arc<Node<()>>, unknown: bool) {
        let path = node.path();
        let result = node.open(Side::Source).and_then(|fd| {
            listing::pages::<io::Error>(&fd, crate::limits::DIRECTORY_ENTRIES_MAX, |page| {
                for entry in page.drain(..).take_while(|_| !self.judge.halted()) {
                    self.scan_entry(node, &fd, &path, entry.name, unknown);
                }
                Ok(())
            })
        });
        if let Err(e) = result {
            self.judge.fail_extra(&EntryError::io(Side::Destination, "list", path, e));
        }
    }

    fn scan_entry(&self, node: &Arc<Node<()>>, fd: &OwnedFd, directory: &[u8], name: CString, unknown: bool) {
        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let path = [directory, slash, name.to_bytes()].concat();
        let stat = match sys::stat_at(fd.as_fd(), &name) {
            Ok(stat) => stat,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return self.judge.fail_extra(&EntryError::io(Side::Destination, "stat", path, e)),
        };
        let is_directory = stat.kind == Kind::Directory;
        let known = !unknown && lock(&self.lines).known.contains(&hash_of(&path));
        if known {
            if is_directory && !stat.mount_root {
                self.queue.push(lane::SCAN, Task::Scan(node.child(name, ()), false));
            }
            return;
        }
        if (node.is_root() && reserved(&name)) || self.own.contains(&inode(&stat)) {
            return;
        }
        if stat.mount_root {
            let (class, side, operation) = (Class::Mountpoint, Side::Destination, "descend");
            return self.judge.fail_extra(&EntryError { class, side, operation, path, source: None });
        }
        if self.has_entries || stat.kind == Kind::File {
            if unknown {
                self.judge.count_only(Side::Destination, 1);
            } else {
                self.judge.only(Side::Destination, &path, "");
            }
        }
        if is_directory {
            self.queue.push(lane::SCAN, Task::Scan(node.child(name, ()), self.has_entries));
        }
    }
}

fn here(operation: &'static str, e: io::Error) -> MoveError {
    MoveError::io(Side::Destination, operation, e)
}

/// Whether an error says that there is no such entry: a component is missing, or no directory.
fn is_absence(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG))
}

/// The rule by which a digest of this kind is made.
const fn policy_of(digest: Digest) -> HolePolicy {
    match digest.kind {
        DigestKind::Blake3 => HolePolicy::Standard,
        DigestKind::Blake3Nonzero => HolePolicy::Extents,
    }
}

/// Whether an entry's attributes are those of the manifest, with or without what a destination
/// gives to every new inode.
fn same_xattrs(wanted: Option<[u8; 32]>, found: &Xattrs) -> bool {
    let digest = |own: bool| {
        let pairs: Vec<(&[u8], &[u8])> = found
            .iter()
            .map(|xattr| (xattr.name.to_bytes(), &*xattr.value))
            .filter(|(name, _)| own || !belongs_to_destination(name))
            .collect();
        xattr_digest(&pairs)
    };
    digest(true) == wanted || (!found.is_empty() && digest(false) == wanted)
}
