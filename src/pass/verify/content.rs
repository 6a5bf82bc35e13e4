//! Reading content to compare it: files in one block, in many, and in chunks that workers share.
//!
//! ```text
//! up to a block    source's bytes kept, destination's compared with them; one hash, of what is equal
//! up to a chunk    both hashed block by block, on one worker
//! larger           both hashed chunk by chunk, by every worker that has time
//! ```
//! The source is read as everyone sees it, the destination past the page cache, so that a bit that
//! flipped on the disk below a cached page is found.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::copy::big::{BigFile, Ends};
use crate::copy::blocks::Operation;
use crate::copy::drive::{Machine, Step};
use crate::copy::range::{Digester, Holes, MoveError, Pace, RangeMove};
use crate::error::{Class, Side};
use crate::hash::{Digest, HolePolicy};
use crate::limits;
use crate::pass::publish::ReadBack;
use crate::sys::{self, ReadMode, Stat, Transfer};

use super::judge::Judge;

/// Opens the files of the side that is proved, so that what is stored is read.
#[derive(Debug)]
pub struct PastCache {
    how: ReadBack,
    fell_back: AtomicBool,
}

impl PastCache {
    #[must_use]
    pub const fn new(how: ReadBack) -> Self {
        Self { how, fell_back: AtomicBool::new(false) }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// Whatever opening says.
    pub fn open(&self, directory: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
        if self.how != ReadBack::Direct {
            return self.how.open(directory, name);
        }
        match sys::open_read(directory.as_fd(), name, ReadMode::Direct) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                self.fell_back.store(true, Ordering::Relaxed);
                ReadBack::Evicted.open(directory, name)
            }
            Err(e) => Err(e),
            Ok(fd) => {
                // Direct I/O can fall back to the cache without a word (btrfs): leave it nothing there.
                rustix::fs::fadvise(&fd, 0, None, rustix::fs::Advice::DontNeed)?;
                Ok(fd)
            }
        }
    }

    /// The files lie in a memory file system.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        self.how == ReadBack::Memory
    }

    /// The weakest way that was taken, in the word of the contract.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.fell_back.load(Ordering::Relaxed) { ReadBack::Evicted.word() } else { self.how.word() }
    }
}

/// Whether a file is still what it was when its reading began.
#[must_use]
pub fn unchanged(before: &Stat, after: &Stat) -> bool {
    let print = |stat: &Stat| (stat.dev, stat.ino, stat.size, stat.mtime, stat.ctime);
    print(before) == print(after)
}

/// How the holes of a file are found: a comparison reads them, because a file system that says there
/// is a hole where data lies would be believed otherwise; but not those that would take hours.
#[must_use]
pub const fn holes_of(stat: &Stat) -> Holes {
    if stat.may_have_holes() && !stat.holes_can_be_read() { Holes::Extents } else { Holes::None }
}

/// Bytes up to which a file is one read.
const BLOCK: u64 = limits::BLOCK_BYTES as u64;

/// What a reading has come to.
#[derive(Debug)]
pub enum Read<'b> {
    /// All bytes of a file that is one block.
    Bytes(&'b [u8]),
    Hashed(Digest),
}

/// One file on its way from its first byte to its last.
#[derive(Debug)]
pub struct Reading {
    fd: Arc<OwnedFd>,
    side: Side,
    size: u64,
    policy: HolePolicy,
    holes: Holes,
    /// The blocks of a file that is more than one, or whose one read came short.
    range: Option<Box<RangeMove>>,
    begun: bool,
    /// It keeps to the rate that was asked for.
    paced: bool,
}

/// What a reading wants, or has.
pub enum Progressed<'b> {
    Submit(Operation),
    Done(Result<Read<'b>, MoveError>),
}

impl Reading {
    #[must_use]
    pub fn new(fd: OwnedFd, side: Side, stat: &Stat, policy: HolePolicy) -> Self {
        let (holes, paced) = (holes_of(stat), side == Side::Source);
        Self { fd: Arc::new(fd), side, size: stat.size, policy, holes, range: None, begun: false, paced }
    }

    /// The only side that is read keeps to the rate, whichever it is.
    #[must_use]
    pub const fn paced(mut self) -> Self {
        self.paced = true;
        self
    }

    /// Nothing of the file is read.
    pub const fn leave_out(&mut self) {
        self.size = 0;
    }

    #[must_use]
    pub const fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// The next step, as [`Machine::step`].
    pub fn step<'b>(
        &mut self,
        judge: &Judge<'_>,
        last: Option<io::Result<usize>>,
        buffer: &'b mut [u8],
    ) -> Progressed<'b> {
        if let Some(range) = &mut self.range {
            return match range.step(last, buffer) {
                Step::Submit(operation) => Progressed::Submit(operation),
                Step::Done(Err(e)) => Progressed::Done(Err(e)),
                Step::Done(Ok(())) => Progressed::Done(self.hashed(judge)),
            };
        }
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        match last {
            None if size == 0 && !self.begun => Progressed::Done(Ok(Read::Bytes(&[]))),
            None if self.size <= BLOCK && !self.begun => {
                self.begun = true;
                let bytes = size.next_multiple_of(usize::try_from(limits::ALIGNMENT).unwrap_or(1)).min(buffer.len());
                let fd = Arc::clone(&self.fd);
                Progressed::Submit(Operation { fd, what: Transfer::Read, offset: 0, bytes })
            }
            Some(Ok(read)) if read >= size => {
                if self.paced {
                    judge.pace.take(self.size);
                }
                Progressed::Done(Ok(Read::Bytes(&buffer[..size])))
            }
            Some(Err(e)) => Progressed::Done(Err(MoveError::io(self.side, "read", e))),
            // Too large for one read, or the read came short and says not why.
            None | Some(Ok(_)) => {
                self.range = Some(Box::new(self.in_blocks(judge)));
                self.step(judge, None, buffer)
            }
        }
    }

    fn in_blocks(&self, judge: &Judge<'_>) -> RangeMove {
        let mut hasher = judge.hashers.take();
        hasher.begin(self.size, self.policy);
        let pace = if self.paced { &judge.pace } else { &judge.unlimited };
        let digester = Digester::Whole(hasher);
        RangeMove::read(Arc::clone(&self.fd), self.side, 0..self.size, self.holes, digester, Arc::clone(pace))
    }

    fn hashed<'b>(&mut self, judge: &Judge<'_>) -> Result<Read<'b>, MoveError> {
        let Some(Digester::Whole(mut hasher)) = self.range.take().map(|range| range.digester) else {
            return Err(MoveError::hot("hash"));
        };
        let digest = hasher.finish().map_err(MoveError::internal)?;
        judge.hashers.give(hasher);
        Ok(Read::Hashed(digest))
    }
}

/// Whether an error of reading says that the content is not what it should be: the destination's
/// file ends before its size.
#[must_use]
pub fn is_difference(error: &MoveError) -> bool {
    error.class == Class::Mismatch
}

/// A large file of one side, to be shared among the workers.
#[must_use]
pub fn big(fd: Arc<OwnedFd>, side: Side, stat: &Stat, policy: HolePolicy, pace: &Arc<Pace>) -> BigFile<()> {
    let ends = Ends { from: fd, side, to: None, size: stat.size, holes: holes_of(stat), hash: Some(policy) };
    BigFile::new((), ends, Arc::clone(pace))
}
