//! From the sums of a file's chunks to its digest.
//!
//! [`FileSums`] collects in any order and holds runs of hole chunks as runs, so that a hole of
//! 8 EiB costs one element. Which kind the digest has is decided by the count of zero blocks; the
//! values of zero blocks are computed only if the standard hash needs them.

use std::collections::BTreeMap;

use blake3::hazmat::{Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::chunk::{ChunkSum, Geometry, HolePolicy, Sum, Value, group_hash, hash_zeros};
use super::subtree::zero_value;
use super::{Digest, DigestKind};

/// What begins the bytes that a `b3-nonzero` digest is taken of.
const NONZERO_DOMAIN: &[u8] = b"copyd b3-nonzero v1\n";

/// A file's sums don't make a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SumsError {
    /// The file was shortened or grew while it was read.
    #[error("{fed} bytes came where the file had {expected}")]
    Length { expected: u64, fed: u64 },
    #[error("the file has no chunk {chunk}")]
    Outside { chunk: u64 },
    #[error("chunk {chunk} came twice")]
    Twice { chunk: u64 },
    #[error("chunk {chunk} never came")]
    Missing { chunk: u64 },
    /// The sum was made for a file of another size, or under another policy.
    #[error("chunk {chunk} was hashed by another rule than its file")]
    Foreign { chunk: u64 },
    /// The caller's own wish, while zeros were hashed.
    #[error("stopped while hashing zeros")]
    Stopped,
}

/// Subtrees of equal size but for the last, merged as they come, as BLAKE3's own tree is: the stack
/// holds one complete subtree for each set bit of the count, and the last stays unmerged until
/// another follows, because only the end tells which merge is the root.
#[derive(Debug)]
pub(super) struct Tree {
    /// Enough for all chunks of 2^64 bytes.
    stack: [Value; 48],
    depth: usize,
    count: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { stack: [[0; 32]; 48], depth: 0, count: 0 }
    }
}

impl Tree {
    pub(super) fn push(&mut self, value: Value) {
        while self.depth > self.count.count_ones() as usize {
            let right = self.stack[self.depth - 1];
            let left = &mut self.stack[self.depth - 2];
            *left = merge_subtrees_non_root(left, &right, Mode::Hash);
            self.depth -= 1;
        }
        self.stack[self.depth] = value;
        self.depth += 1;
        self.count += 1;
    }

    /// The value of all as one subtree; needs one push or more.
    pub(super) fn value(&self) -> Value {
        self.join(0)
    }

    /// The hash of all as a whole file; needs two pushes or more.
    fn root(&self) -> [u8; 32] {
        debug_assert!(self.depth >= 2, "a single subtree has no merge that could be the root");
        merge_subtrees_root(&self.stack[0], &self.join(1), Mode::Hash).into()
    }

    fn join(&self, from: usize) -> Value {
        let (last, rest) = self.stack[from..self.depth].split_last().unwrap_or((&self.stack[0], &[]));
        rest.iter().rev().fold(*last, |right, left| merge_subtrees_non_root(left, &right, Mode::Hash))
    }
}

/// The sums of one file, in whatever order they come. One thread at a time: callers lock.
#[derive(Debug)]
pub struct FileSums {
    geometry: Geometry,
    size: u64,
    policy: HolePolicy,
    /// Sums of chunks with a non-zero byte, or that nobody looked at, by index.
    sums: BTreeMap<u64, Sum>,
    /// Zero chunks as runs that never touch: first index to the index after the last.
    zero_runs: BTreeMap<u64, u64>,
    /// Chunks that came.
    covered: u64,
    /// Zero blocks among them, exact where the file is tracked.
    zero_blocks: u64,
}

impl FileSums {
    /// Collects for a file of `size` bytes, the same that its [`ChunkHasher`](super::ChunkHasher)s
    /// were told.
    #[must_use]
    pub fn new(size: u64, policy: HolePolicy) -> Self {
        Self::with_geometry(Geometry::REAL, size, policy)
    }

    pub(super) fn with_geometry(geometry: Geometry, size: u64, policy: HolePolicy) -> Self {
        let (sums, zero_runs) = Default::default();
        Self { geometry, size, policy, sums, zero_runs, covered: 0, zero_blocks: 0 }
    }

    /// Adds the sum of one chunk.
    ///
    /// # Errors
    /// [`SumsError::Outside`], [`SumsError::Twice`], [`SumsError::Foreign`]: the caller's mistakes.
    pub fn insert(&mut self, chunk: u64, sum: ChunkSum) -> Result<(), SumsError> {
        let ChunkSum(sum) = sum;
        if matches!(sum, Sum::Zero) {
            return self.insert_hole_run(chunk, 1);
        }
        let (start, end) = self.block_range(chunk, 1)?;
        if !self.fits(&sum) {
            return Err(SumsError::Foreign { chunk });
        }
        if self.sums.contains_key(&chunk) || self.zero_run_at(chunk).is_some() {
            return Err(SumsError::Twice { chunk });
        }
        if let Sum::Mixed { nonzero, .. } = &sum {
            self.zero_blocks += (end - start).saturating_sub(u64::from(nonzero.count_ones()));
        }
        self.covered += 1;
        let sum = if self.is_nonzero() { Sum::Group(self.group(chunk, &sum)?) } else { sum };
        self.sums.insert(chunk, sum);
        Ok(())
    }

    /// Adds `count` chunks that are holes as a whole, from `first` on, which nobody need read.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_hole_run(&mut self, first: u64, count: u64) -> Result<(), SumsError> {
        if count == 0 {
            return Ok(());
        }
        let (start, end) = self.block_range(first, count)?;
        let after = first + count;
        if self.zero_run_at(first).is_some() {
            return Err(SumsError::Twice { chunk: first });
        }
        let taken = self.zero_runs.range(first..after).next().map(|(chunk, _)| *chunk);
        let taken = taken.or_else(|| self.sums.range(first..after).next().map(|(chunk, _)| *chunk));
        if let Some(chunk) = taken {
            return Err(SumsError::Twice { chunk });
        }
        let left = self.zero_runs.range(..first).next_back().filter(|(_, end)| **end == first);
        let first = left.map_or(first, |(first, _)| *first);
        let right = self.zero_runs.remove(&after);
        self.zero_runs.insert(first, right.unwrap_or(after));
        self.covered += count;
        self.zero_blocks += end - start;
        Ok(())
    }

    /// The file's digest, once every chunk is in. Fast for any size where the outcome is
    /// `b3-nonzero`; for a standard hash the zeros are hashed here, at most 1 GiB of them under
    /// [`HolePolicy::Extents`]. `stop` is asked before every chunk.
    ///
    /// # Errors
    /// [`SumsError::Missing`]; [`SumsError::Stopped`] where `stop` answered true.
    pub fn digest(&self, stop: &dyn Fn() -> bool) -> Result<Digest, SumsError> {
        if self.covered < self.geometry.chunk_count(self.size) {
            return Err(SumsError::Missing { chunk: self.first_missing() });
        }
        if self.is_nonzero() {
            return Ok(Digest { kind: DigestKind::Blake3Nonzero, bytes: self.nonzero()? });
        }
        Ok(Digest { kind: DigestKind::Blake3, bytes: self.standard(stop)? })
    }

    /// Whether more zero blocks came than a standard hash allows. With a partial last block counted
    /// as a block, "more blocks than fit" and "more bytes than allowed" are the same.
    fn is_nonzero(&self) -> bool {
        self.geometry.tracks(self.size, self.policy)
            && self.zero_blocks > self.geometry.zero_bytes_max / self.geometry.block_bytes
    }

    /// The file's block numbers from the first of chunk `first` to after the last of `count` chunks.
    fn block_range(&self, first: u64, count: u64) -> Result<(u64, u64), SumsError> {
        let chunks = self.geometry.chunk_count(self.size);
        let after = first.checked_add(count).filter(|after| *after <= chunks);
        let after = after.ok_or(SumsError::Outside { chunk: first.max(chunks) })?;
        let blocks_per_chunk = self.geometry.chunk_bytes / self.geometry.block_bytes;
        let blocks = self.size.div_ceil(self.geometry.block_bytes);
        Ok((first * blocks_per_chunk, (after * blocks_per_chunk).min(blocks)))
    }

    fn fits(&self, sum: &Sum) -> bool {
        let tracked = self.geometry.tracks(self.size, self.policy);
        match sum {
            Sum::Zero => true,
            Sum::Root(_) => self.geometry.chunk_count(self.size) == 1,
            Sum::Plain(_) => !tracked && self.geometry.chunk_count(self.size) > 1,
            Sum::Dense { .. } | Sum::Mixed { .. } | Sum::Group(_) => tracked,
        }
    }

    /// The end of the run of zero chunks that `chunk` is in.
    fn zero_run_at(&self, chunk: u64) -> Option<u64> {
        self.zero_runs.range(..=chunk).next_back().map(|(_, after)| *after).filter(|after| *after > chunk)
    }

    fn first_missing(&self) -> u64 {
        let mut chunk = 0;
        loop {
            if self.sums.contains_key(&chunk) {
                chunk += 1;
            } else if let Some(after) = self.zero_run_at(chunk) {
                chunk = after;
            } else {
                return chunk;
            }
        }
    }

    fn group(&self, chunk: u64, sum: &Sum) -> Result<[u8; 32], SumsError> {
        match sum {
            Sum::Dense { group, .. } | Sum::Group(group) => Ok(*group),
            Sum::Mixed { nonzero, values } => Ok(group_hash(self.geometry, chunk, *nonzero, values)),
            Sum::Zero | Sum::Root(_) | Sum::Plain(_) => Err(SumsError::Foreign { chunk }),
        }
    }

    fn nonzero(&self) -> Result<[u8; 32], SumsError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(NONZERO_DOMAIN).update(&self.size.to_le_bytes());
        for (chunk, sum) in &self.sums {
            hasher.update(&chunk.to_le_bytes()).update(&self.group(*chunk, sum)?);
        }
        Ok(hasher.finalize().into())
    }

    fn standard(&self, stop: &dyn Fn() -> bool) -> Result<[u8; 32], SumsError> {
        let chunks = self.geometry.chunk_count(self.size);
        if chunks <= 1 {
            return Ok(match self.sums.get(&0) {
                Some(Sum::Root(hash)) => *hash,
                _ => hash_of_zeros(self.size),
            });
        }
        let mut tree = Tree::default();
        for chunk in 0..chunks {
            if stop() {
                return Err(SumsError::Stopped);
            }
            tree.push(self.chunk_value(chunk)?);
        }
        Ok(tree.root())
    }

    fn chunk_value(&self, chunk: u64) -> Result<Value, SumsError> {
        let len = self.geometry.chunk_len(self.size, chunk);
        let offset = chunk * self.geometry.chunk_bytes;
        match self.sums.get(&chunk) {
            None | Some(Sum::Zero) => Ok(zero_value(offset, len)),
            Some(Sum::Plain(value) | Sum::Dense { value, .. }) => Ok(*value),
            Some(Sum::Mixed { nonzero, values }) => {
                let mut tree = Tree::default();
                let mut values = values.iter();
                for block in 0..len.div_ceil(self.geometry.block_bytes) {
                    let start = block * self.geometry.block_bytes;
                    let value = if nonzero >> block & 1 == 1 { values.next().copied() } else { None };
                    tree.push(
                        value.unwrap_or_else(|| {
                            zero_value(offset + start, (len - start).min(self.geometry.block_bytes))
                        }),
                    );
                }
                Ok(tree.value())
            }
            Some(Sum::Root(_) | Sum::Group(_)) => Err(SumsError::Foreign { chunk }),
        }
    }
}

fn hash_of_zeros(size: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hash_zeros(&mut hasher, size);
    hasher.finalize().into()
}

/// The digest of a file from the sums of all its chunks in order.
///
/// # Errors
/// As [`FileSums::insert`] and [`FileSums::digest`].
pub fn merge(size: u64, sums: &[ChunkSum], policy: HolePolicy) -> Result<Digest, SumsError> {
    let mut file = FileSums::new(size, policy);
    for (chunk, sum) in (0..).zip(sums) {
        file.insert(chunk, sum.clone())?;
    }
    file.digest(&|| false)
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
