//! A large file in chunks: claimed one by one by whichever worker has a slot free.
//!
//! Chunks are aligned, and their hashes merge to the file's standard BLAKE3, so it makes no
//! difference who moves which. Whole chunks of hole are never claimed: they are found by one
//! lseek and noted as a run, so a file of 8 EiB - 1 that is all hole takes no time.
//!
//! A file that an earlier run has begun comes with [`Claims`]: such a chunk is hashed where it lies,
//! and copied only if it is not what it should be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use crate::error::Side;
use crate::hash::{ChunkHasher, ChunkSum, Digest, FileSums, HolePolicy, SumsError};
use crate::limits;
use crate::sys::{self, Extent};

use super::drive::{Machine, Step};
use super::range::{Digester, Holes, MoveError, Pace, RangeMove};

/// What a worker that asks for a chunk is given.
#[derive(Debug)]
pub enum Claim {
    Chunk(Box<ChunkMove>),
    /// Every chunk is claimed; others still move some.
    Nothing,
    /// Every chunk is settled, and this caller is the one to complete the file.
    Finished,
}

/// Chunks that an earlier run is said to have copied, to be taken only if they are as they should be.
#[derive(Debug)]
pub struct Claims {
    /// The target, opened so that reading it shows what is stored.
    pub stored: Arc<OwnedFd>,
    /// The value of each chunk's sum, by index.
    pub values: BTreeMap<u64, [u8; 32]>,
    /// The target has all its room, so none of it is given back.
    pub thick: bool,
}

/// A chunk that was copied from the source.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    pub index: u64,
    /// See [`ChunkSum::value`].
    pub value: [u8; 32],
}

/// What a chunk that came back means for its file.
#[derive(Debug)]
pub struct Settled {
    /// The caller is the one to complete the file.
    pub last: bool,
    /// A chunk that now lies in the target, and didn't before.
    pub copied: Option<Copied>,
}

/// One chunk on its way.
#[derive(Debug)]
pub struct ChunkMove {
    index: u64,
    range: RangeMove,
    /// What it should hash to where it lies already, and how it is copied otherwise.
    claim: Option<([u8; 32], Box<Anew>)>,
    /// It lay there already.
    found: Option<ChunkSum>,
}

/// The copy of a chunk that was claimed to be there.
#[derive(Debug)]
struct Anew {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    bytes: Range<u64>,
    holes: Holes,
    hasher: Box<ChunkHasher>,
    pace: Arc<Pace>,
    thick: bool,
}

impl Anew {
    /// What lies there is wrong, and where the source has a hole nothing would be written over it: it
    /// becomes a hole first, or else the zeros are written.
    fn begin(self) -> RangeMove {
        let bytes = self.bytes.end - self.bytes.start;
        let cleared = self.holes != Holes::None && !self.thick && {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&*self.to, how, self.bytes.start, bytes).is_ok()
        };
        let holes = if cleared { self.holes } else { Holes::None };
        RangeMove::copy(self.from, self.to, self.bytes, holes, Digester::Chunk(self.hasher), self.pace)
    }
}

impl ChunkMove {
    /// Bytes of it that were written to the target.
    #[must_use]
    pub const fn written_bytes(&self) -> u64 {
        self.range.written_bytes
    }
}

impl Machine for ChunkMove {
    type Outcome = Result<(), MoveError>;

    fn step(&mut self, last: Option<std::io::Result<usize>>, buffer: &mut [u8]) -> Step<Self::Outcome> {
        match self.range.step(last, buffer) {
            Step::Done(outcome) if self.claim.is_some() => self.compare(&outcome, buffer),
            other => other,
        }
    }
}

impl ChunkMove {
    /// What lies in the target was read: it is taken, or copied after all.
    fn compare(&mut self, read: &Result<(), MoveError>, buffer: &mut [u8]) -> Step<Result<(), MoveError>> {
        let Some((value, anew)) = self.claim.take() else { return Step::Done(Ok(())) };
        if read.is_ok()
            && let Digester::Chunk(hasher) = std::mem::replace(&mut self.range.digester, Digester::Off)
            && let Ok(sum) = hasher.finish()
            && sum.value() == value
        {
            self.found = Some(sum);
            return Step::Done(Ok(()));
        }
        tracing::warn!(chunk = self.index, "not as the journal has it: copied again");
        self.range = anew.begin();
        self.range.step(None, buffer)
    }
}

/// Where the bytes of a large file come from and go to.
#[derive(Debug)]
pub struct Ends {
    pub from: Arc<OwnedFd>,
    /// The side that `from` is on.
    pub side: Side,
    /// `None`: the file is only read and hashed.
    pub to: Option<Arc<OwnedFd>>,
    pub size: u64,
    pub holes: Holes,
    /// `None`: nothing is hashed.
    pub hash: Option<HolePolicy>,
}

#[derive(Debug, Default)]
struct Progress {
    next: u64,
    in_flight: u64,
    completed: bool,
}

/// A large file, with what its owner keeps for it.
#[derive(Debug)]
pub struct BigFile<T> {
    pub owner: T,
    ends: Ends,
    pace: Arc<Pace>,
    claims: Mutex<Progress>,
    /// What an earlier run has left.
    left: Option<Claims>,
    sums: Mutex<FileSums>,
    error: Mutex<Option<MoveError>>,
    failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> BigFile<T> {
    #[must_use]
    pub fn new(owner: T, ends: Ends, pace: Arc<Pace>) -> Self {
        let sums = FileSums::new(ends.size, ends.hash.unwrap_or(HolePolicy::Extents));
        Self {
            owner,
            ends,
            pace,
            claims: Mutex::default(),
            left: None,
            sums: Mutex::new(sums),
            error: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// Goes on from what an earlier run has left in the target.
    #[must_use]
    pub fn going_on(mut self, left: Option<Claims>) -> Self {
        self.left = left;
        self
    }

    /// The next chunk to move.
    pub fn claim(&self) -> Claim {
        let mut claims = lock(&self.claims);
        let chunks = self.ends.size.div_ceil(limits::CHUNK_BYTES);
        if self.ends.holes == Holes::Extents
            && claims.next < chunks
            && let Err(e) = self.skip_holes(&mut claims, chunks)
        {
            self.fail(e);
        }
        if claims.next < chunks && !self.failed.load(Ordering::Relaxed) {
            match self.chunk(claims.next) {
                Ok(chunk) => {
                    claims.next += 1;
                    claims.in_flight += 1;
                    return Claim::Chunk(Box::new(chunk));
                }
                Err(e) => self.fail(MoveError::internal(e)),
            }
        }
        if claims.in_flight == 0 && !claims.completed {
            claims.completed = true;
            return Claim::Finished;
        }
        Claim::Nothing
    }

    fn skip_holes(&self, claims: &mut Progress, chunks: u64) -> Result<(), MoveError> {
        let at = claims.next * limits::CHUNK_BYTES;
        let data = match sys::next_extent(&self.ends.from, at) {
            Ok(Extent::Data { start, .. }) => (start / limits::CHUNK_BYTES).min(chunks),
            Ok(Extent::HoleToEnd) => chunks,
            Err(e) => return Err(MoveError::io(self.ends.side, "find data", e)),
        };
        if data > claims.next {
            if self.ends.hash.is_some() {
                lock(&self.sums).insert_hole_run(claims.next, data - claims.next).map_err(MoveError::internal)?;
            }
            claims.next = data;
        }
        Ok(())
    }

    fn chunk(&self, index: u64) -> Result<ChunkMove, SumsError> {
        let ends = &self.ends;
        let start = index * limits::CHUNK_BYTES;
        let range = start..(start.saturating_add(limits::CHUNK_BYTES)).min(ends.size);
        let hasher = |policy| Ok(Box::new(ChunkHasher::new(ends.size, index, policy)?));
        let digester = match ends.hash {
            None => Digester::Off,
            Some(policy) => Digester::Chunk(hasher(policy)?),
        };
        let (from, pace) = (Arc::clone(&ends.from), Arc::clone(&self.pace));
        if let (Some(policy), Some(to), Some(left)) = (ends.hash, &ends.to, &self.left)
            && let Some(value) = left.values.get(&index)
        {
            let stored = Arc::clone(&left.stored);
            let look = RangeMove::read(stored, Side::Destination, range.clone(), Holes::Extents, digester, pace);
            let pace = Arc::clone(&self.pace);
            let (to, holes, hasher) = (Arc::clone(to), ends.holes, hasher(policy)?);
            let anew = Anew { from, to, bytes: range, holes, hasher, pace, thick: left.thick };
            return Ok(ChunkMove { index, range: look, claim: Some((*value, Box::new(anew))), found: None });
        }
        let range = match &ends.to {
            Some(to) => RangeMove::copy(from, Arc::clone(to), range, ends.holes, digester, pace),
            None => RangeMove::read(from, ends.side, range, ends.holes, digester, pace),
        };
        Ok(ChunkMove { index, range, claim: None, found: None })
    }

    /// Takes a moved chunk back.
    pub fn settle(&self, chunk: ChunkMove, outcome: Result<(), MoveError>) -> Settled {
        let mut copied = None;
        let sum = match (outcome, chunk.found, chunk.range.digester) {
            (Err(e), ..) => {
                self.fail(e);
                None
            }
            (Ok(()), Some(sum), _) => Some(Ok(sum)),
            (Ok(()), None, Digester::Chunk(hasher)) => {
                let sum = hasher.finish();
                if let (Ok(sum), true) = (&sum, self.ends.to.is_some()) {
                    copied = Some(Copied { index: chunk.index, value: sum.value() });
                }
                Some(sum)
            }
            (Ok(()), None, _) => None,
        };
        if let Some(Err(e)) = sum.map(|sum| sum.and_then(|sum| lock(&self.sums).insert(chunk.index, sum))) {
            self.fail(MoveError::internal(e));
        }
        let mut claims = lock(&self.claims);
        claims.in_flight -= 1;
        let chunks = self.ends.size.div_ceil(limits::CHUNK_BYTES);
        let exhausted = claims.next >= chunks || self.failed.load(Ordering::Relaxed);
        let last = exhausted && claims.in_flight == 0 && !claims.completed;
        claims.completed |= last;
        Settled { last, copied }
    }

    fn fail(&self, error: MoveError) {
        lock(&self.error).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The digest of the whole file, when every chunk is settled.
    ///
    /// # Errors
    /// The first error of a chunk.
    pub fn outcome(&self, stop: &dyn Fn() -> bool) -> Result<Option<Digest>, MoveError> {
        if let Some(error) = lock(&self.error).take() {
            return Err(error);
        }
        if self.ends.hash.is_none() {
            return Ok(None);
        }
        lock(&self.sums).digest(stop).map(Some).map_err(MoveError::internal)
    }
}
