//! One entry's way into its temporary: open, fingerprint, move, fingerprint again, metadata.
//!
//! ```text
//!  open source, F0 ─▶ create temporary ─▶ move data, hash ─▶ F1 = F0? ─▶ owner, mode, xattrs, times ─▶ [fsync] ─▶ staged
//!        │                                                     └─ no: hot, again from the start
//!        └─ larger than a chunk: handed to all workers, completed by the last
//! ```

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use rustix::fs::{FallocateFlags, FileType, Mode};

use crate::copy::big::{BigFile, ChunkMove, Claim, Claims, Ends};
use crate::copy::blocks::{BlockIo, Operation};
use crate::copy::drive::{Machine, Step, drive};
use crate::copy::offload;
use crate::copy::range::{Digester, Holes, MoveError, RangeMove};
use crate::error::{Class, Side};
use crate::fidelity::{self, Losses, Metadata, Times};
use crate::hash::Digest;
use crate::limits;
use crate::sys::{self, EntryRef, Extent, Kind, ReadMode, Stat, Transfer};

use super::batch::Durability;
use super::directory::Item;
use super::journal::{Growth, Resumed};
use super::publish::Staged;
use super::staging::Temporary;
use super::state::{Run, Task, lane};
use super::{Provision, VerifyLevel};

/// A regular file whose both ends are open.
#[derive(Debug)]
pub struct OpenFile {
    source: Arc<OwnedFd>,
    target: Arc<OwnedFd>,
    temporary: Temporary,
    /// The source's metadata with its first fingerprint.
    wanted: Metadata,
    holes: Holes,
    /// The kernel or the server has moved the data already; it is only read to be hashed.
    cloned: bool,
    losses: Losses,
    /// What an earlier run has left in the temporary, until its chunks are moved.
    left: Option<Claims>,
    /// An earlier run has made the temporary, and may have set its metadata.
    resumed: bool,
    /// Where the source says that its holes are is not believed.
    doubted: bool,
}

/// What a large file's chunks are moved for.
#[derive(Debug)]
pub enum BigWork {
    Copy(Item, OpenFile),
    ReadBack(Box<Staged>),
}

/// The owner's part of a [`BigFile`]; taken by whoever completes it.
#[derive(Debug)]
pub struct BigCopy {
    pub work: super::state::Once<BigWork>,
    /// The journal of its chunks, as long as it is under way.
    pub growth: Option<Weak<Growth>>,
}

/// One entry on its way into a temporary.
struct EntryMove<'r> {
    run: &'r Run<'r>,
    source: Arc<OwnedFd>,
    worker: usize,
    state: State,
}

enum State {
    New(Item),
    Moving(Box<Moving>),
    /// The last step on a file system in memory: the temporary is read back while it is in the cache.
    ReadingBack(Box<Staged>, RangeMove),
    /// The last step, an fsync of the temporary, is under way.
    Syncing(Box<Staged>),
    Over,
}

/// A file whose data moves. It changes hands at every operation, so it travels as one pointer.
struct Moving {
    item: Item,
    file: OpenFile,
    /// Nothing for an empty file, or one that was cloned and is not hashed.
    range: Option<RangeMove>,
}

/// An entry that could not be moved.
type Failed = Box<(Item, MoveError)>;

/// A link or node in its temporary, as it stands there, and the target of a link.
type SpecialParts = (Temporary, Stat, Metadata, Option<Vec<u8>>);

/// What became of an entry.
enum Moved {
    Staged(Box<Staged>),
    /// Handed over to all workers.
    Large,
    Failed(Failed),
}

impl Moved {
    fn failed(item: Item, error: MoveError) -> Self {
        Self::Failed(Box::new((item, error)))
    }
}

impl Machine for EntryMove<'_> {
    type Outcome = Moved;

    fn step(&mut self, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Moved> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::New(item) => self.begin(item, buffer),
            State::Moving(moving) => self.go_on(moving, last, buffer),
            State::ReadingBack(staged, range) => self.read_back(staged, range, last, buffer),
            State::Syncing(staged) => Step::Done(match last {
                Some(Err(e)) => {
                    staged.temporary.discard();
                    Moved::failed(staged.item, MoveError::io(Side::Destination, "fsync", e))
                }
                _ => Moved::Staged(staged),
            }),
            State::Over => Step::Done(Moved::Large),
        }
    }
}

impl EntryMove<'_> {
    /// Opens and creates; answers at once for what has no data or too much of it.
    fn begin(&mut self, mut item: Item, buffer: &mut [u8]) -> Step<Moved> {
        if item.stat.kind != Kind::File {
            return Step::Done(match self.run.make_special(item, &self.source, self.worker) {
                Ok(staged) => Moved::Staged(staged),
                Err(failed) => Moved::Failed(failed),
            });
        }
        let file = match self.run.open_file(&mut item, &self.source, self.worker) {
            Ok(file) => file,
            Err(e) => return Step::Done(Moved::failed(item, e)),
        };
        if file.wanted.stat.size > limits::CHUNK_BYTES {
            self.run.begin_large(item, file);
            return Step::Done(Moved::Large);
        }
        let range = self.run.range_of(&file);
        self.go_on(Box::new(Moving { item, file, range }), None, buffer)
    }

    fn go_on(&mut self, mut moving: Box<Moving>, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Moved> {
        let begun = last.is_some();
        match moving.range.as_mut().map(|range| range.step(last, buffer)) {
            Some(Step::Submit(_)) if begun && self.run.cut_off() => {
                moving.file.temporary.discard();
                Step::Done(Moved::failed(moving.item, cut_off()))
            }
            Some(Step::Submit(operation)) => {
                self.state = State::Moving(moving);
                Step::Submit(operation)
            }
            None | Some(Step::Done(Ok(()))) => self.complete(*moving, buffer),
            Some(Step::Done(Err(e))) => {
                moving.file.temporary.discard();
                Step::Done(Moved::failed(moving.item, e))
            }
        }
    }

    /// The data is there: the second fingerprint, the metadata, and where needed the flush.
    fn complete(&mut self, moving: Moving, buffer: &mut [u8]) -> Step<Moved> {
        let Moving { item, file, range } = moving;
        let target = Arc::clone(&file.target);
        let digest = match self.run.digest_of(&file, range) {
            Ok(digest) => digest,
            Err(e) => {
                file.temporary.discard();
                return Step::Done(Moved::failed(item, e));
            }
        };
        match self.run.finish_file(item, file, digest) {
            Err(failed) => Step::Done(Moved::Failed(failed)),
            Ok(staged) if self.run.batches.durability == Durability::EachFile => {
                self.state = State::Syncing(staged);
                Step::Submit(Operation { fd: target, what: Transfer::Sync, offset: 0, bytes: 0 })
            }
            Ok(staged) => match self.run.read_back_at_once(&staged, target) {
                Some(range) => self.read_back(staged, range, None, buffer),
                None => Step::Done(Moved::Staged(staged)),
            },
        }
    }

    fn read_back(
        &mut self,
        mut staged: Box<Staged>,
        mut range: RangeMove,
        last: Option<io::Result<usize>>,
        buffer: &mut [u8],
    ) -> Step<Moved> {
        let read = match range.step(last, buffer) {
            Step::Submit(operation) => {
                self.state = State::ReadingBack(staged, range);
                return Step::Submit(operation);
            }
            Step::Done(read) => read,
        };
        match read.and_then(|()| self.run.compare_read_back(&mut staged, range)) {
            Ok(()) => Step::Done(Moved::Staged(staged)),
            Err(e) => {
                staged.temporary.discard();
                Step::Done(Moved::failed(staged.item, e))
            }
        }
    }
}

impl Run<'_> {
    /// Copies entries into temporaries, and publishes them at once where nothing has to be flushed.
    ///
    /// # Errors
    /// A failure of the backend itself.
    pub fn copy(&self, items: Vec<Item>, io: &mut dyn BlockIo, worker: usize) -> io::Result<()> {
        let mut waiting = items.into_iter();
        let mut at_once = Vec::new();
        let supply = || {
            while !self.halted() {
                let item = waiting.next()?;
                match item.node.open(Side::Source) {
                    Ok(source) => return Some(EntryMove { run: self, source, worker, state: State::New(item) }),
                    Err(e) => self.settle_failure(item, MoveError::io(Side::Source, "open the directory", e)),
                }
            }
            None
        };
        drive(io, supply, |_, moved| match moved {
            Moved::Staged(staged) if self.batches.durability == Durability::Memory => at_once.push(staged),
            Moved::Staged(staged) => self.stage(staged),
            Moved::Large => {}
            Moved::Failed(failed) => self.settle_failure(failed.0, failed.1),
        })?;
        if at_once.is_empty() { Ok(()) } else { self.publish(at_once, io) }
    }

    /// Opens both ends of a file, with everything that has to happen before its data moves.
    fn open_file(&self, item: &mut Item, directory: &OwnedFd, worker: usize) -> Result<OpenFile, MoveError> {
        let at_source = |operation| move |e| MoveError::io(Side::Source, operation, e);
        let source = sys::open_read(directory.as_fd(), &item.name, ReadMode::Cached).map_err(at_source("open"))?;
        // What the scan saw was a file. A FIFO or a device in its place was opened without waiting; it
        // is not read, which could take from a terminal or move a tape.
        if !sys::is_file(&source).map_err(at_source("look at what was opened"))? {
            return Err(MoveError::hot("open what was listed"));
        }
        if item.attempt > 0 {
            self.look_again(item, &source)?;
        }
        // The scan's look at the name is the first fingerprint: the second one, of the open
        // descriptor, must equal it in inode, size and both times, which covers more than a look
        // taken now would.
        let first = item.stat;
        let mut losses = Losses::default();
        let wanted = fidelity::capture(EntryRef::Fd(source.as_fd()), &first, &self.source_traits, &mut losses)
            .map_err(|e| MoveError::io(Side::Source, e.operation, e.source))?;
        let (temporary, target, left) = self.open_target(item, worker)?;
        let mut file = OpenFile {
            source: Arc::new(source),
            target: Arc::new(target),
            temporary,
            wanted,
            holes: Holes::None,
            cloned: false,
            losses,
            resumed: left.is_some(),
            doubted: item.attempt > 0 && self.options.verify == VerifyLevel::Full && first.holes_can_be_read(),
            left,
        };
        if let Err(e) = self.prepare(&mut file) {
            file.temporary.discard();
            return Err(e);
        }
        Ok(file)
    }

    /// The temporary that an earlier run has left of a large file, or a new one.
    fn open_target(&self, item: &Item, worker: usize) -> Result<(Temporary, OwnedFd, Option<Claims>), MoveError> {
        let there = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let journals = self.journals(item);
        if journals && let Some(Resumed { temporary, target, claims }) = self.resume(item) {
            return Ok((temporary, target, Some(claims)));
        }
        let mut temporary = if journals {
            self.staging.temporary_for_large().map_err(there("make the staging directory"))?
        } else {
            self.temporary(item, worker)?
        };
        let mode = self.first_mode(&item.stat);
        let target = sys::create(temporary.directory.as_fd(), &temporary.name, mode).map_err(|e| {
            // A call that failed may have done its work all the same; a name that is taken is another's.
            if e.kind() != io::ErrorKind::AlreadyExists {
                temporary.discard();
            }
            there("create")(e)
        })?;
        if journals {
            self.begin_growth(item, &mut temporary, &target);
        }
        Ok((temporary, target, None))
    }

    /// Something had changed since the scan: from here on the open file counts.
    fn look_again(&self, item: &mut Item, source: &OwnedFd) -> Result<(), MoveError> {
        let now = sys::stat_fd(source).map_err(|e| MoveError::io(Side::Source, "stat", e))?;
        let replaced = now.ino != item.stat.ino || now.dev != item.stat.dev;
        if now.kind != Kind::File || (replaced && (now.nlink > 1 || item.linked())) {
            return Err(MoveError::hot("open what was listed"));
        }
        if let Some(operation) = self.options.bounds.exceeded(&now) {
            return Err(MoveError { class: Class::OverLimit, side: Side::Source, operation, source: None });
        }
        self.progress.bytes_planned.add(now.size.saturating_sub(item.stat.size));
        item.stat = now;
        Ok(())
    }

    /// The mode that a new file gets at once where nothing else has to come first. Its directory is
    /// private, so nobody can open it early.
    fn first_mode(&self, wanted: &Stat) -> Mode {
        let own = self.options.id_map.uid(wanted.uid) == self.own_ids.0
            && self.options.id_map.gid(wanted.gid) == self.own_ids.1;
        if own { Mode::from_raw_mode(wanted.mode & 0o777) | Mode::RUSR | Mode::WUSR } else { Mode::RUSR | Mode::WUSR }
    }

    fn temporary(&self, item: &Item, worker: usize) -> Result<Temporary, MoveError> {
        let made = if item.nested {
            item.node.open(Side::Destination).map(|directory| Temporary::new(directory, item.name.clone()))
        } else if item.beside {
            item.node.open(Side::Destination).and_then(|fd| self.staging.temporary_beside(fd))
        } else {
            self.staging.temporary(worker)
        };
        made.map_err(|e| MoveError::io(Side::Destination, "make the staging directory", e))
    }

    /// Flags that only an empty file takes, room, holes, and what the kernel can copy by itself.
    fn prepare(&self, file: &mut OpenFile) -> Result<(), MoveError> {
        let there = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let size = file.wanted.stat.size;
        if !file.resumed {
            fidelity::prepare(EntryRef::Fd(file.target.as_fd()), &file.wanted, &self.rules(), &mut file.losses)
                .map_err(|e| there(e.operation)(e.source))?;
        }
        if size == 0 {
            return Ok(());
        }
        let whole_at_once = self.options.provision == Provision::Thin && !file.resumed;
        if whole_at_once && (self.clone_into(file) || self.copied_by_server(file)?) {
            return Ok(());
        }
        file.holes = self.holes_of(file).map_err(|e| MoveError::io(Side::Source, "find data", e))?;
        if self.options.provision == Provision::Thick {
            match rustix::fs::fallocate(&*file.target, FallocateFlags::empty(), 0, size) {
                Ok(()) => {}
                // Written zeros are allocated too.
                Err(rustix::io::Errno::OPNOTSUPP) => file.holes = Holes::None,
                Err(e) => return Err(there("allocate")(e.into())),
            }
        } else if file.holes != Holes::None || size > limits::CHUNK_BYTES {
            rustix::fs::ftruncate(&*file.target, size).map_err(|e| there("set the size")(e.into()))?;
        }
        Ok(())
    }

    fn clone_into(&self, file: &mut OpenFile) -> bool {
        if self.clones_refused.load(Ordering::Relaxed) {
            return false;
        }
        match offload::clone(&file.source, &file.target) {
            offload::Cloned::Yes => {
                file.cloned = true;
                let holes = file.wanted.stat.may_have_holes() && !file.doubted;
                file.holes = if holes { Holes::Extents } else { Holes::None };
            }
            offload::Cloned::NotThisFile => {}
            offload::Cloned::Never => self.clones_refused.store(true, Ordering::Relaxed),
        }
        file.cloned
    }

    fn copied_by_server(&self, file: &mut OpenFile) -> Result<bool, MoveError> {
        let size = file.wanted.stat.size;
        if !self.server_copy.offered(size) {
            return Ok(false);
        }
        file.holes = self.holes_of(file).map_err(|e| MoveError::io(Side::Source, "find data", e))?;
        let ends = offload::Ends { source: &file.source, target: &file.target, size, holes: file.holes };
        let moved = |bytes| self.progress.bytes_copied.add(bytes);
        let between = offload::Between { pace: &self.pace, halted: &|| self.halted(), moved: &moved };
        file.cloned = self.server_copy.copy(&ends, &between)?;
        Ok(file.cloned)
    }

    /// How the source's holes are found: by its extents, or, where fewer blocks are allocated than
    /// the size needs and yet no hole is shown (or the source can't tell), by its zeros.
    fn holes_of(&self, file: &OpenFile) -> io::Result<Holes> {
        let stat = &file.wanted.stat;
        if !stat.may_have_holes() {
            return Ok(Holes::None);
        }
        let tells_nothing = file.doubted
            || matches!(sys::next_extent(&file.source, 0)?, Extent::Data { start: 0, end } if end >= stat.size);
        let thick = self.options.provision == Provision::Thick;
        Ok(match (tells_nothing, thick) {
            (false, _) => Holes::Extents,
            (true, false) => Holes::Zeros,
            (true, true) => Holes::None,
        })
    }

    /// The move of a file that fits one chunk; nothing for an empty one, or one the kernel copied
    /// and nobody hashes.
    fn range_of(&self, file: &OpenFile) -> Option<RangeMove> {
        let size = file.wanted.stat.size;
        let hashing = self.options.verify > VerifyLevel::None;
        if size == 0 || (file.cloned && !hashing) {
            return None;
        }
        let digester = if hashing {
            let mut hasher = self.hashers.take();
            hasher.begin(size, self.hole_policy());
            Digester::Whole(hasher)
        } else {
            Digester::Off
        };
        let (source, pace) = (Arc::clone(&file.source), Arc::clone(&self.pace));
        Some(if file.cloned {
            RangeMove::read(source, Side::Source, 0..size, file.holes, digester, pace)
        } else {
            RangeMove::copy(source, Arc::clone(&file.target), 0..size, file.holes, digester, pace)
        })
    }

    fn digest_of(&self, file: &OpenFile, range: Option<RangeMove>) -> Result<Option<Digest>, MoveError> {
        let empty = || (file.wanted.stat.size == 0 && self.options.verify > VerifyLevel::None).then(|| Digest::of(b""));
        let Some(range) = range else { return Ok(empty()) };
        self.progress.bytes_copied.add(range.written_bytes);
        let Digester::Whole(mut hasher) = range.digester else { return Ok(None) };
        let digest = hasher.finish().map_err(MoveError::internal);
        self.hashers.give(hasher);
        digest.map(Some)
    }

    /// The second fingerprint and the metadata: the temporary is whole then.
    fn finish_file(&self, item: Item, mut file: OpenFile, digest: Option<Digest>) -> Result<Box<Staged>, Failed> {
        let finished = self.finish_metadata(&item, &mut file);
        match finished {
            Err(e) => {
                file.temporary.discard();
                Err(Box::new((item, e)))
            }
            Ok(made) => Ok(Box::new(Staged {
                item,
                temporary: file.temporary,
                made,
                wanted: file.wanted,
                digest,
                target: None,
                losses: file.losses,
                proved: false,
                looks: 0,
            })),
        }
    }

    fn finish_metadata(&self, item: &Item, file: &mut OpenFile) -> Result<Stat, MoveError> {
        let again = sys::stat_fd(&file.source).map_err(|e| MoveError::io(Side::Source, "stat again", e))?;
        if !same_content(&file.wanted.stat, &again) {
            self.source_moved.store(true, Ordering::Relaxed);
            return Err(MoveError::hot("compare fingerprints"));
        }
        let there = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        // In a directory of copyd's own, on a file system of this machine, it is known what a new
        // file looks like. Servers give it the ids and bits that they please.
        let known = !item.beside && !file.resumed && self.batches.durability != Durability::EachFile;
        let fresh = if known {
            self.as_made(&file.wanted.stat)
        } else {
            sys::stat_fd(&file.target).map_err(there("stat the temporary"))?
        };
        let before = file.losses.clone();
        let made = self.apply(file, &fresh)?;
        if !known || self.as_wanted(&file.wanted.stat, &made) {
            return Ok(made);
        }
        // It was not made as expected after all (an idmapped mount, an odd umask), or could not be
        // set: once more from what it is.
        file.losses = before;
        self.apply(file, &made)
    }

    fn apply(&self, file: &mut OpenFile, fresh: &Stat) -> Result<Stat, MoveError> {
        let there = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let entry = EntryRef::Fd(file.target.as_fd());
        fidelity::apply(entry, &file.wanted, fresh, Times::Set, &self.rules(), &mut file.losses)
            .map_err(|e| there(e.operation)(e.source))?;
        sys::stat_fd(&file.target).map_err(there("stat the temporary"))
    }

    /// A file as [`Self::open_file`] has created it for `wanted`, in what a `chown` or `chmod` would
    /// change.
    fn as_made(&self, wanted: &Stat) -> Stat {
        let mode = self.first_mode(wanted).as_raw_mode() & !self.own_mask;
        Stat { mode, uid: self.own_ids.0, gid: self.own_ids.1, ..*wanted }
    }

    fn as_wanted(&self, wanted: &Stat, made: &Stat) -> bool {
        let ids = &self.options.id_map;
        made.mode == wanted.mode && made.uid == ids.uid(wanted.uid) && made.gid == ids.gid(wanted.gid)
    }

    /// A symlink, FIFO, socket or device, whole in its temporary.
    fn make_special(&self, item: Item, directory: &OwnedFd, worker: usize) -> Result<Box<Staged>, Failed> {
        let mut losses = Losses::default();
        match self.special_parts(&item, directory, worker, &mut losses) {
            Ok((temporary, made, wanted, target)) => {
                let (digest, proved, looks) = (None, false, 0);
                Ok(Box::new(Staged { item, temporary, made, wanted, digest, target, losses, proved, looks }))
            }
            Err(e) => Err(Box::new((item, e))),
        }
    }

    fn special_parts(
        &self,
        item: &Item,
        directory: &OwnedFd,
        worker: usize,
        losses: &mut Losses,
    ) -> Result<SpecialParts, MoveError> {
        let at_source = |operation| move |e| MoveError::io(Side::Source, operation, e);
        let there = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let entry = EntryRef::At(directory.as_fd(), &item.name);
        let wanted = fidelity::capture(entry, &item.stat, &self.source_traits, losses)
            .map_err(|e| at_source(e.operation)(e.source))?;
        let target = if item.stat.kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(directory, &*item.name, Vec::new());
            Some(target.map_err(|e| at_source("read the link")(e.into()))?)
        } else {
            None
        };
        let again = sys::stat_at(directory.as_fd(), &item.name).map_err(at_source("stat again"))?;
        if !same_content(&item.stat, &again) || again.kind != item.stat.kind {
            return Err(MoveError::hot("compare fingerprints"));
        }
        let temporary = self.temporary(item, worker)?;
        self.create_special(item, &temporary, target.as_ref()).inspect_err(|e| {
            let taken = e.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::AlreadyExists);
            if !taken {
                temporary.discard();
            }
        })?;
        let mut finish = || -> Result<Stat, MoveError> {
            let fresh =
                sys::stat_at(temporary.directory.as_fd(), &temporary.name).map_err(there("stat the temporary"))?;
            let entry = EntryRef::At(temporary.directory.as_fd(), &temporary.name);
            fidelity::apply(entry, &wanted, &fresh, Times::Set, &self.rules(), losses)
                .map_err(|e| there(e.operation)(e.source))?;
            entry.stat().map_err(there("stat the temporary"))
        };
        match finish() {
            Ok(made) => Ok((temporary, made, wanted, target.map(CString::into_bytes))),
            Err(e) => {
                temporary.discard();
                Err(e)
            }
        }
    }

    fn create_special(&self, item: &Item, at: &Temporary, target: Option<&CString>) -> Result<(), MoveError> {
        let kind = match item.stat.kind {
            Kind::Symlink => {
                let target = target.map(CString::as_c_str).unwrap_or_default();
                return rustix::fs::symlinkat(target, &*at.directory, &*at.name)
                    .map_err(|e| MoveError::io(Side::Destination, "make the symlink", e.into()));
            }
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::File | Kind::Directory => FileType::RegularFile,
        };
        rustix::fs::mknodat(&*at.directory, &*at.name, kind, Mode::RUSR | Mode::WUSR, item.stat.rdev)
            .map_err(|e| MoveError::io(Side::Destination, "make the node", e.into()))
    }
}

/// Whether the content can't have changed between two looks at the source.
fn same_content(before: &Stat, after: &Stat) -> bool {
    before.ino == after.ino
        && before.dev == after.dev
        && before.size == after.size
        && before.mtime == after.mtime
        && before.ctime == after.ctime
}

/// A stop was asked for some time ago, and what is under way is not carried to its end: on a slow disk
/// that takes more than anybody waits for. Nothing failed, and the run that resumes begins it again.
const fn cut_off() -> MoveError {
    MoveError::hot("stop")
}

/// A chunk that ends early where a stop can't wait for it.
struct Stoppable<'r> {
    run: &'r Run<'r>,
    chunk: ChunkMove,
}

impl Machine for Stoppable<'_> {
    type Outcome = Result<(), MoveError>;

    fn step(&mut self, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Self::Outcome> {
        let begun = last.is_some();
        match self.chunk.step(last, buffer) {
            Step::Submit(_) if begun && self.run.cut_off() => Step::Done(Err(cut_off())),
            other => other,
        }
    }
}

impl Run<'_> {
    fn begin_large(&self, item: Item, mut file: OpenFile) {
        let hashing = self.options.verify > VerifyLevel::None;
        let ends = Ends {
            from: Arc::clone(&file.source),
            side: Side::Source,
            to: (!file.cloned).then(|| Arc::clone(&file.target)),
            size: file.wanted.stat.size,
            holes: file.holes,
            hash: hashing.then(|| self.hole_policy()),
        };
        let nothing_to_read = file.cloned && !hashing;
        if nothing_to_read {
            return self.large_copied(item, file, Ok(None));
        }
        let left = file.left.take();
        let growth = file.temporary.growth.as_ref().map(Arc::downgrade).filter(|_| ends.to.is_some());
        let owner = BigCopy { work: BigWork::Copy(item, file).into(), growth };
        self.push_big(BigFile::new(owner, ends, Arc::clone(&self.pace)).going_on(left));
    }

    /// Gives a large file to one worker, and invites the others for when they have nothing of their
    /// own: most file systems write to one file from one thread at a time, so two large files are
    /// fastest with a worker each.
    pub fn push_big(&self, file: BigFile<BigCopy>) {
        let file = Arc::new(file);
        for _ in 1..self.workers {
            self.queue.invite(Task::Big(Arc::clone(&file)));
        }
        self.queue.push(lane::BIG, Task::Big(file));
    }

    /// Moves chunks of a large file as long as there are any.
    ///
    /// # Errors
    /// A failure of the backend itself.
    pub fn work_on(&self, file: &BigFile<BigCopy>, io: &mut dyn BlockIo) -> io::Result<()> {
        let mut complete = false;
        let claim = |complete: &mut bool| match file.claim() {
            Claim::Chunk(chunk) => Some(Stoppable { run: self, chunk: *chunk }),
            Claim::Nothing => None,
            Claim::Finished => {
                *complete = true;
                None
            }
        };
        let finished = std::cell::Cell::new(false);
        drive(
            io,
            || if self.halted() { None } else { claim(&mut complete) },
            |Stoppable { chunk, .. }, outcome| {
                let written = chunk.written_bytes();
                self.progress.bytes_copied.add(written);
                let settled = file.settle(chunk, outcome);
                let growth = file.owner.growth.as_ref().and_then(Weak::upgrade);
                if let (Some(copied), Some(growth)) = (settled.copied, growth) {
                    self.grown(&growth, copied);
                }
                if settled.last {
                    finished.set(true);
                }
            },
        )?;
        if complete || finished.get() {
            self.complete_large(file);
        } else if self.halted() {
            self.set_aside(file);
        }
        Ok(())
    }

    /// A large file is not completed any more. Where its chunks are journaled the next run goes on from
    /// them, also where all are there and only the read-back is missing.
    pub fn set_aside(&self, file: &BigFile<BigCopy>) {
        let temporary = match file.owner.work.take() {
            Some(BigWork::Copy(_, open)) => open.temporary,
            Some(BigWork::ReadBack(staged)) => staged.temporary,
            None => return,
        };
        match temporary.growth {
            Some(growth) => self.journal.set_aside(growth),
            None => temporary.discard(),
        }
    }

    fn complete_large(&self, file: &BigFile<BigCopy>) {
        self.queue.disinvite(|task| matches!(task, Task::Big(big) if std::ptr::eq(&raw const **big, file)));
        let outcome = file.outcome(&|| self.halted());
        if outcome.is_err() && self.halted() {
            return self.set_aside(file);
        }
        match file.owner.work.take() {
            Some(BigWork::Copy(item, open)) => self.large_copied(item, open, outcome),
            Some(BigWork::ReadBack(staged)) => self.big_read_back_done(staged, outcome),
            None => {}
        }
    }

    fn large_copied(&self, item: Item, file: OpenFile, outcome: Result<Option<Digest>, MoveError>) {
        let each_file = self.batches.durability == Durability::EachFile;
        let target = Arc::clone(&file.target);
        let finished = match outcome {
            Err(e) => {
                file.temporary.discard();
                Err(Box::new((item, e)))
            }
            Ok(digest) => self.finish_file(item, file, digest),
        };
        let flushed = finished.and_then(|staged| {
            if each_file && let Err(e) = rustix::fs::fsync(&target) {
                staged.temporary.discard();
                return Err(Box::new((staged.item, MoveError::io(Side::Destination, "fsync", e.into()))));
            }
            Ok(staged)
        });
        match flushed {
            Err(failed) => self.settle_failure(failed.0, failed.1),
            Ok(staged) if self.batches.durability == Durability::Memory => {
                self.queue.push(lane::PUBLISH, Task::Publish(vec![staged]));
            }
            Ok(staged) => self.stage(staged),
        }
    }
}
