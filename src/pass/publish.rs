//! From a durable temporary to the final name: read back, compare, rename, look again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::copy::big::{BigFile, Ends};
use crate::copy::blocks::BlockIo;
use crate::copy::drive::{Machine, Step, drive};
use crate::copy::range::{Digester, Holes, MoveError, RangeMove};
use crate::error::{Class, Side};
use crate::fidelity::{self, Losses, Metadata};
use crate::hash::Digest;
use crate::limits;
use crate::store::Proof;
use crate::sys::{self, Kind, ReadMode, Stat};

use super::VerifyLevel;
use super::batch::Durability;
use super::directory::Item;
use super::row;
use super::staging::Temporary;
use super::state::{Run, Settled, Task, lane};
use super::transfer::{BigCopy, BigWork};

/// An entry that is whole in its temporary.
#[derive(Debug)]
pub struct Staged {
    pub item: Item,
    pub temporary: Temporary,
    /// The temporary when it was whole. Its inode must be the one under the final name in the end.
    pub made: Stat,
    /// The source's metadata, as it was when the content was read.
    pub wanted: Metadata,
    /// Of a file that was hashed on the way.
    pub digest: Option<Digest>,
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
    /// Which metadata the temporary could not take.
    pub losses: Losses,
    /// The content was compared with what stands at the destination.
    pub proved: bool,
    /// How often it was read back because its temporary had moved.
    pub looks: u32,
}

/// How read-back gets at what is really stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Direct I/O, after the file's pages were dropped from the cache.
    Direct,
    /// The file's pages are dropped from the cache, then read as usual.
    Evicted,
    /// Nothing lies past the cache.
    Memory,
}

impl ReadBack {
    /// The word of the contract.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Evicted => "evicted",
            Self::Memory => "memory",
        }
    }

    /// Opens a destination file so that reading it shows what is stored.
    ///
    /// # Errors
    /// Whatever opening says.
    pub fn open(self, directory: &OwnedFd, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
        let mode = if self == Self::Direct { ReadMode::Direct } else { ReadMode::Cached };
        let fd = match sys::open_read(directory.as_fd(), name, mode) {
            // Some files of a file system refuse what others of it allow (inline or compressed).
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                sys::open_read(directory.as_fd(), name, ReadMode::Cached)?
            }
            other => other?,
        };
        if self != Self::Memory {
            // Direct I/O can fall back to the cache without a word (btrfs): leave it nothing there.
            rustix::fs::fadvise(&fd, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(fd)
    }
}

/// Reads one staged file back.
struct ReadBackMove<'r> {
    run: &'r Run<'r>,
    staged: Box<Staged>,
    range: Option<RangeMove>,
}

impl Machine for ReadBackMove<'_> {
    type Outcome = Result<(), MoveError>;

    fn step(&mut self, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Self::Outcome> {
        if last.is_none() {
            match self.begin() {
                Ok(range) => self.range = range,
                Err(e) => return Step::Done(Err(e)),
            }
        }
        let Some(range) = &mut self.range else { return Step::Done(Ok(())) };
        match range.step(last, buffer) {
            Step::Done(Ok(())) => Step::Done(self.compare()),
            other => other,
        }
    }
}

impl ReadBackMove<'_> {
    fn begin(&self) -> Result<Option<RangeMove>, MoveError> {
        if self.staged.digest.is_none() || self.staged.proved {
            return Ok(None);
        }
        let fd = self.run.open_staged(&self.staged)?;
        Ok(Some(self.run.range_to_read_back(&self.staged, Arc::new(fd))))
    }

    fn compare(&mut self) -> Result<(), MoveError> {
        self.range.take().map_or(Ok(()), |range| self.run.compare_read_back(&mut self.staged, range))
    }
}

/// Another entry stands where copyd has put its own.
fn replaced(operation: &'static str) -> MoveError {
    MoveError { class: Class::Interfered, side: Side::Destination, operation, source: None }
}

fn mismatch() -> MoveError {
    MoveError { class: Class::Mismatch, side: Side::Destination, operation: "compare what was read back", source: None }
}

impl Run<'_> {
    /// Reads back and renames staged entries.
    ///
    /// # Errors
    /// A failure of the backend itself.
    pub fn publish(&self, staged: Vec<Box<Staged>>, io: &mut dyn BlockIo) -> io::Result<()> {
        if !self.still_ours() {
            return Ok(());
        }
        if self.options.verify < VerifyLevel::Readback {
            for staged in staged {
                self.rename(staged);
            }
            return Ok(());
        }
        let mut waiting = staged.into_iter();
        let supply = || {
            loop {
                let staged = waiting.next()?;
                if staged.digest.is_some() && staged.item.stat.size > limits::CHUNK_BYTES {
                    self.read_back_big(staged);
                    continue;
                }
                return Some(ReadBackMove { run: self, staged, range: None });
            }
        };
        drive(io, supply, |machine, outcome| self.read_back_done(machine.staged, outcome))
    }

    /// On a file system in memory nothing lies past the cache, and no flush has to come first: there a
    /// small file is read back by the descriptor that wrote it, as long as its pages are warm.
    pub fn read_back_at_once(&self, staged: &Staged, target: Arc<OwnedFd>) -> Option<RangeMove> {
        let here = self.batches.durability == Durability::Memory && self.roots.read_back == ReadBack::Memory;
        let asked = self.options.verify >= VerifyLevel::Readback && staged.digest.is_some();
        // Another size is found, and named, where everything else is read back.
        let whole = staged.made.size == staged.wanted.stat.size;
        (here && asked && whole).then(|| self.range_to_read_back(staged, target))
    }

    fn range_to_read_back(&self, staged: &Staged, fd: Arc<OwnedFd>) -> RangeMove {
        let size = staged.wanted.stat.size;
        let holes = if staged.wanted.stat.may_have_holes() { Holes::Extents } else { Holes::None };
        let mut hasher = self.hashers.take();
        hasher.begin(size, self.hole_policy());
        RangeMove::read(fd, Side::Destination, 0..size, holes, Digester::Whole(hasher), Arc::clone(&self.unlimited))
    }

    /// What was read back is what was read at the source, and the entry so proved.
    ///
    /// # Errors
    /// Class mismatch.
    pub fn compare_read_back(&self, staged: &mut Staged, range: RangeMove) -> Result<(), MoveError> {
        let Digester::Whole(mut hasher) = range.digester else { return Ok(()) };
        let found = hasher.finish().map_err(MoveError::internal)?;
        self.hashers.give(hasher);
        self.progress.bytes_verified.add(staged.wanted.stat.size);
        if Some(found) != staged.digest {
            return Err(mismatch());
        }
        staged.proved = true;
        Ok(())
    }

    fn read_back_done(&self, staged: Box<Staged>, outcome: Result<(), MoveError>) {
        match outcome {
            Ok(()) => self.rename(staged),
            Err(e) => {
                staged.temporary.discard();
                self.settle_failure(staged.item, e);
            }
        }
    }

    /// Opens a temporary for read-back. Its size is part of what is proved: bytes that landed past the
    /// end make it longer, and reading as far as the source reaches would not meet them.
    fn open_staged(&self, staged: &Staged) -> Result<OwnedFd, MoveError> {
        let here = |e| MoveError::io(Side::Destination, "open for read-back", e);
        let temporary = &staged.temporary;
        let fd = self.roots.read_back.open(&temporary.directory, &temporary.name).map_err(here)?;
        if sys::stat_fd(&fd).map_err(here)?.size != staged.wanted.stat.size {
            return Err(mismatch());
        }
        Ok(fd)
    }

    fn read_back_big(&self, staged: Box<Staged>) {
        let fd = match self.open_staged(&staged) {
            Ok(fd) => fd,
            Err(e) => return self.read_back_done(staged, Err(e)),
        };
        let ends = Ends {
            from: Arc::new(fd),
            side: Side::Destination,
            to: None,
            size: staged.wanted.stat.size,
            holes: if staged.wanted.stat.may_have_holes() { Holes::Extents } else { Holes::None },
            hash: Some(self.hole_policy()),
        };
        self.push_big(BigFile::new(
            BigCopy { work: BigWork::ReadBack(staged).into(), growth: None },
            ends,
            Arc::clone(&self.unlimited),
        ));
    }

    /// A large file was read back whole.
    pub fn big_read_back_done(&self, mut staged: Box<Staged>, found: Result<Option<Digest>, MoveError>) {
        self.progress.bytes_verified.add(staged.wanted.stat.size);
        let outcome = found.and_then(|found| if found == staged.digest { Ok(()) } else { Err(mismatch()) });
        staged.proved = outcome.is_ok();
        self.read_back_done(staged, outcome);
    }

    /// Publishes under the final name, and checks that what stands there is what was written.
    fn rename(&self, mut staged: Box<Staged>) {
        let result = match self.untouched(&mut staged) {
            Ok(true) => self.rename_inner(&mut staged),
            // Somebody may have written to it since: what was read back proves nothing any more.
            Ok(false) => return self.queue.push(lane::PUBLISH, Task::Publish(vec![staged])),
            Err(e) => Err(e),
        };
        match result {
            Ok(stat) => self.published(staged, &stat),
            Err(e)
                if e.source.as_ref().is_some_and(|e| e.raw_os_error() == Some(libc::EXDEV)) && !staged.item.beside =>
            {
                // A project or subvolume border lies between: the temporary has to grow beside the target.
                staged.temporary.discard();
                let item = Item { beside: true, ..staged.item };
                self.queue.push(lane::COPY, Task::Copy(vec![item]));
            }
            Err(e) => {
                staged.temporary.discard();
                self.settle_failure(staged.item, e);
            }
        }
    }

    /// Whether the temporary of a proved file is the inode that was written and has not moved since its
    /// metadata was set. A change time that moved says that it has to be read back again, from how it
    /// stands now: a writer can put every other time back, and some servers move it when a file is closed.
    fn untouched(&self, staged: &mut Staged) -> Result<bool, MoveError> {
        let reachable = !staged.item.nested || self.batches.durability == Durability::EachFile;
        if !staged.proved || !reachable {
            return Ok(true);
        }
        let here = |e| MoveError::io(Side::Destination, "look at the temporary", e);
        let temporary = &staged.temporary;
        let now = sys::stat_at(temporary.directory.as_fd(), &temporary.name).map_err(here)?;
        let made = &staged.made;
        if (now.ino, now.kind, now.nlink) != (made.ino, made.kind, made.nlink) {
            return Err(replaced("find the temporary as it was written"));
        }
        if (now.size, now.mtime, now.ctime) == (made.size, made.mtime, made.ctime) {
            return Ok(true);
        }
        if now.size != made.size || staged.looks >= limits::READ_BACK_AGAIN {
            return Err(mismatch());
        }
        (staged.made, staged.proved, staged.looks) = (now, false, staged.looks + 1);
        Ok(false)
    }

    fn rename_inner(&self, staged: &mut Staged) -> Result<Stat, MoveError> {
        let here = |operation| move |e| MoveError::io(Side::Destination, operation, e);
        let item = &staged.item;
        let target = item.node.open(Side::Destination).map_err(here("open the directory"))?;
        let temporary = &staged.temporary;
        if !item.nested {
            self.keep_old(&item.node, &target, &item.name)?;
            self.change(&item.node, &target, &[(target.as_fd(), &item.name)], || {
                rustix::fs::renameat(&*temporary.directory, &*temporary.name, &*target, &*item.name)
            })
            .map_err(here("rename"))?;
        }
        item.node.payload.touch();
        let locks = staged.wanted.flags.locks();
        if locks {
            self.apply_late_flags(&target, staged).map_err(here("set flags"))?;
        }
        if staged.item.nested && !locks && self.batches.durability != Durability::EachFile {
            // Nobody but copyd reaches it there, and its directory's rename will not touch it.
            return Ok(staged.made);
        }
        let stat = sys::stat_at(target.as_fd(), &staged.item.name).map_err(here("look at the published entry"))?;
        if (stat.ino, stat.kind, stat.size) != (staged.made.ino, staged.item.stat.kind, staged.made.size) {
            return Err(replaced("find what was written under its name"));
        }
        Ok(stat)
    }

    fn apply_late_flags(&self, directory: &OwnedFd, staged: &mut Staged) -> io::Result<()> {
        let entry = sys::EntryRef::At(directory.as_fd(), &staged.item.name);
        fidelity::apply_after_publish(entry, &staged.wanted, &self.rules(), &mut staged.losses).map_err(|e| e.source)
    }

    /// The entry stands: what it could not take is named, its row waits for the next flush.
    fn published(&self, mut staged: Box<Staged>, there: &Stat) {
        let Staged { item, wanted, losses, .. } = &mut *staged;
        fidelity::check_stat(wanted, there, &self.rules(), losses);
        self.record_losses(item, losses);
        self.changed.store(true, Ordering::Relaxed);
        if self.options.verify == VerifyLevel::Full && !self.source_still(&staged) {
            let error = MoveError { side: Side::Source, operation: "read the source again", ..mismatch() };
            return self.settle_failure(staged.item, error);
        }
        let proved = self.options.verify >= VerifyLevel::Readback
            && (staged.proved || wanted_without_content(&staged.wanted))
            && staged.digest.is_some() == (staged.wanted.stat.kind == Kind::File);
        let proof = if proved { Proof::Proved } else { Proof::Assumed };
        if proved {
            self.tally.proved.add(1);
        } else {
            self.tally.assumed.add(1);
        }
        let facts = row::facts(&staged.wanted, there, staged.digest, proof, &staged.losses);
        let Staged { item, target, .. } = *staged;
        if item.linked() {
            let settled = Settled { inode: (there.dev, there.ino), facts, target: target.clone() };
            self.links.settle(item.inode(), settled);
        }
        let row = row::row(&item.node, &item.name, facts, target);
        if item.nested {
            self.nursed(&item.node, Some(row));
        } else {
            self.renamed(row, Some(Arc::clone(&item.node)));
        }
        if item.stat.kind == Kind::File {
            self.progress.files_copied.add(1);
            self.progress.bytes_done.add(item.stat.size);
        }
        self.progress.entries_done.add(1);
        self.release(&item.node, 1);
    }

    /// `--verify=full`: the source is read once more, and still has the digest it had.
    fn source_still(&self, staged: &Staged) -> bool {
        let (item, Some(digest)) = (&staged.item, staged.digest) else { return true };
        let read = || -> io::Result<Digest> {
            let directory = item.node.open(Side::Source)?;
            let fd = sys::open_read(directory.as_fd(), &item.name, ReadMode::Cached)?;
            let mut io = crate::copy::blocks::Threads::new()?;
            self.hash_file(fd, Side::Source, &staged.wanted.stat, &mut io)
                .map_err(|e| e.source.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
        };
        read().is_ok_and(|found| found == digest)
    }
}

/// Links and special files are proved by looking at what stands under the final name.
fn wanted_without_content(wanted: &Metadata) -> bool {
    wanted.stat.kind != Kind::File
}
