//! A large file in chunks: claimed one by one by whichever worker has a slot free.
//!
//! Chunks are aligned, and their hashes merge to the file's standard BLAKE3, so it makes no
//! difference who moves which. Whole chunks of hole are never claimed: they are found by one
//! lseek and noted as a run, so a file of 8 EiB - 1 that is all hole takes no time.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Side;
use crate::hash::{ChunkHasher, Digest, FileSums, HolePolicy, SumsError};
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

/// One chunk on its way.
#[derive(Debug)]
pub struct ChunkMove {
    index: u64,
    range: RangeMove,
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
        self.range.step(last, buffer)
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
struct Claims {
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
    claims: Mutex<Claims>,
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
            sums: Mutex::new(sums),
            error: Mutex::default(),
            failed: AtomicBool::new(false),
        }
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

    fn skip_holes(&self, claims: &mut Claims, chunks: u64) -> Result<(), MoveError> {
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
        let digester = match ends.hash {
            None => Digester::Off,
            Some(policy) => Digester::Chunk(Box::new(ChunkHasher::new(ends.size, index, policy)?)),
        };
        let (from, pace) = (Arc::clone(&ends.from), Arc::clone(&self.pace));
        let range = match &ends.to {
            Some(to) => RangeMove::copy(from, Arc::clone(to), range, ends.holes, digester, pace),
            None => RangeMove::read(from, ends.side, range, ends.holes, digester, pace),
        };
        Ok(ChunkMove { index, range })
    }

    /// Takes a moved chunk back. True for the caller that is to complete the file.
    pub fn settle(&self, chunk: ChunkMove, outcome: Result<(), MoveError>) -> bool {
        match (outcome, chunk.range.digester) {
            (Err(e), _) => self.fail(e),
            (Ok(()), Digester::Chunk(hasher)) => {
                let inserted = hasher.finish().and_then(|sum| lock(&self.sums).insert(chunk.index, sum));
                if let Err(e) = inserted {
                    self.fail(MoveError::internal(e));
                }
            }
            (Ok(()), _) => {}
        }
        let mut claims = lock(&self.claims);
        claims.in_flight -= 1;
        let chunks = self.ends.size.div_ceil(limits::CHUNK_BYTES);
        let exhausted = claims.next >= chunks || self.failed.load(Ordering::Relaxed);
        let last = exhausted && claims.in_flight == 0 && !claims.completed;
        claims.completed |= last;
        last
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
