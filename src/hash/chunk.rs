//! One chunk of a file: bytes and holes in, a [`ChunkSum`] out.
//!
//! A chunk knows its place in the file, because a subtree's value in BLAKE3 depends on its offset.
//! Where the file is so large that the hole rule can apply, a chunk is hashed block by block and a
//! block is hashed only from its first non-zero byte's piece on: the zeros before it are made up
//! then, and a block without one costs no more than the look at it.

use blake3::hazmat::HasherExt;

use super::subtree::Subtree;
use super::sums::{SumsError, Tree};
use crate::limits::{CHUNK_BYTES, ZERO_BLOCK_BYTES, ZERO_BYTES_MAX};

/// A subtree's 32-byte non-root value.
pub(super) type Value = [u8; 32];

/// Zeros to hash from where a hole must be hashed; small enough to stay in the cache.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a file's holes and zeros mean for its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HolePolicy {
    /// `--manifest-holes`: always the standard hash, whatever the zeros cost.
    Standard,
    /// The hole rule: files with very many zero blocks are proved by their other blocks.
    Extents,
}

/// How a file is cut. There is one cut, [`Geometry::REAL`]; tests take a smaller one to reach every
/// border with little data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// A power of two, at least 1024, the chunk of BLAKE3's own.
    pub(super) block_bytes: u64,
    /// A power of two, at most 16 blocks.
    pub(super) chunk_bytes: u64,
    /// At least one chunk, so that a tracked file has two or more.
    pub(super) zero_bytes_max: u64,
}

impl Geometry {
    pub(super) const REAL: Self =
        Self { block_bytes: ZERO_BLOCK_BYTES, chunk_bytes: CHUNK_BYTES, zero_bytes_max: ZERO_BYTES_MAX };

    pub(super) const fn chunk_count(self, size: u64) -> u64 {
        size.div_ceil(self.chunk_bytes)
    }

    /// Bytes of a chunk; 0 for one outside the file.
    pub(super) fn chunk_len(self, size: u64, chunk: u64) -> u64 {
        chunk.checked_mul(self.chunk_bytes).map_or(0, |start| size.saturating_sub(start).min(self.chunk_bytes))
    }

    pub(super) fn tracks(self, size: u64, policy: HolePolicy) -> bool {
        policy == HolePolicy::Extents && size > self.zero_bytes_max
    }
}

/// Chunks of a file of `size` bytes; none of an empty one.
#[must_use]
pub const fn chunk_count(size: u64) -> u64 {
    Geometry::REAL.chunk_count(size)
}

/// Bytes of one chunk of a file of `size` bytes: all are full but the last; 0 outside the file.
#[must_use]
pub fn chunk_len(size: u64, chunk: u64) -> u64 {
    Geometry::REAL.chunk_len(size, chunk)
}

/// Whether the hole rule can apply to a file of `size` bytes, so that its blocks are looked at one
/// by one and the whole is best hashed chunk by chunk.
#[must_use]
pub fn needs_zero_tracking(size: u64, policy: HolePolicy) -> bool {
    Geometry::REAL.tracks(size, policy)
}

/// Whether all bytes are zero. Ends early: data that begins with a non-zero byte costs nothing.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let none_set = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    // The first bytes alone decide almost always; then steps as wide as vector registers like them.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    let (steps, tail) = rest.as_chunks::<256>();
    none_set(head) && steps.iter().all(|step| none_set(step)) && none_set(tail)
}

/// Feeds `count` zeros.
pub(super) fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    while count > 0 {
        let step = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
        hasher.update(&ZEROS[..step]);
        count -= step as u64;
    }
}

/// A hasher for the subtree that begins at `offset`. Always a new one: `Hasher::reset` of blake3
/// 1.8 forgets that an offset was set.
pub(super) fn hasher_at(offset: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The hash over a chunk's non-zero blocks that `b3-nonzero` is made of.
pub(super) fn group_hash(geometry: Geometry, chunk: u64, nonzero: u16, values: &[Value]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let set = (0..16_u64).filter(|block| nonzero >> block & 1 == 1);
    for (block, value) in set.zip(values) {
        let offset = chunk * geometry.chunk_bytes + block * geometry.block_bytes;
        hasher.update(&offset.to_le_bytes()).update(value);
    }
    hasher.finalize().into()
}

/// What one chunk adds to its file's digest. Two are equal where the chunks' bytes are, at the same
/// place of files of the same size under the same policy. Small: an all-zero chunk holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSum(pub(super) Sum);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// Zeros only, and the file is tracked.
    Zero,
    /// The file's only chunk: already the file's hash.
    Root([u8; 32]),
    /// Not tracked: the subtree's value.
    Plain(Value),
    /// Tracked, and every block holds a non-zero byte.
    Dense { value: Value, group: [u8; 32] },
    /// Tracked, with blocks of both sorts: bit *i* stands for block *i*, and `values` are those of
    /// the set bits in ascending order.
    Mixed { nonzero: u16, values: Box<[Value]> },
    /// Tracked, in a file that is known to be `b3-nonzero`: nothing else is needed any more.
    Group([u8; 32]),
}

impl ChunkSum {
    /// One value for the whole sum, to be kept and compared later: equal where the sums are.
    #[must_use]
    pub fn value(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        match &self.0 {
            Sum::Zero => hasher.update(&[0]),
            Sum::Root(value) => hasher.update(&[1]).update(value),
            Sum::Plain(value) => hasher.update(&[2]).update(value),
            Sum::Dense { value, group } => hasher.update(&[3]).update(value).update(group),
            Sum::Mixed { nonzero, values } => {
                hasher.update(&[4]).update(&nonzero.to_le_bytes()).update(values.as_flattened())
            }
            Sum::Group(group) => hasher.update(&[5]).update(group),
        };
        hasher.finalize().into()
    }
}

/// A run of bytes, in memory or only in thought.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

impl Piece<'_> {
    pub(super) fn len(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => count,
        }
    }

    pub(super) fn split_at(self, at: u64) -> (Self, Self) {
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
                let (left, right) = bytes.split_at(at);
                (Self::Bytes(left), Self::Bytes(right))
            }
            Self::Zeros(count) => (Self::Zeros(at.min(count)), Self::Zeros(count - at.min(count))),
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Bytes(bytes) => is_zero(bytes),
            Self::Zeros(_) => true,
        }
    }

    pub(super) fn hash(self, hasher: &mut blake3::Hasher) {
        match self {
            Self::Bytes(bytes) => {
                hasher.update(bytes);
            }
            Self::Zeros(count) => hash_zeros(hasher, count),
        }
    }
}

/// Hashes one chunk of a file; any thread, any order of chunks, bytes of the chunk in order.
#[derive(Debug)]
pub struct ChunkHasher {
    /// Bytes that make the chunk whole.
    len: u64,
    /// Bytes that came, also those too many, which are counted and not hashed.
    fed: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Root(blake3::Hasher),
    Plain(Box<Subtree>),
    Tracked(Box<Tracker>),
}

impl ChunkHasher {
    /// A hasher for chunk `chunk` of a file of `size` bytes, as it was when its reading began.
    ///
    /// # Errors
    /// [`SumsError::Outside`] where the file has no such chunk; an empty file has none.
    pub fn new(size: u64, chunk: u64, policy: HolePolicy) -> Result<Self, SumsError> {
        Self::with_geometry(Geometry::REAL, size, chunk, policy)
    }

    pub(super) fn with_geometry(
        geometry: Geometry,
        size: u64,
        chunk: u64,
        policy: HolePolicy,
    ) -> Result<Self, SumsError> {
        let len = geometry.chunk_len(size, chunk);
        if len == 0 {
            return Err(SumsError::Outside { chunk });
        }
        let state = if geometry.tracks(size, policy) {
            State::Tracked(Box::new(Tracker::new(geometry, chunk, len)))
        } else if geometry.chunk_count(size) == 1 {
            State::Root(blake3::Hasher::new())
        } else {
            State::Plain(Box::new(Subtree::at(chunk * geometry.chunk_bytes)))
        };
        Ok(Self { len, fed: 0, state })
    }

    /// The chunk's next bytes, as many as there are.
    pub fn update(&mut self, bytes: &[u8]) {
        self.feed(Piece::Bytes(bytes));
    }

    /// The chunk's next `count` bytes are a hole. In a tracked file this costs nothing for whole
    /// blocks; elsewhere as much as [`Subtree`] says.
    pub fn zeros(&mut self, count: u64) {
        self.feed(Piece::Zeros(count));
    }

    pub(super) fn feed(&mut self, piece: Piece<'_>) {
        let (wanted, _) = piece.split_at(self.len.saturating_sub(self.fed));
        self.fed = self.fed.saturating_add(piece.len());
        match &mut self.state {
            State::Root(hasher) => wanted.hash(hasher),
            State::Plain(subtree) => subtree.feed(wanted),
            State::Tracked(tracker) => tracker.feed(wanted),
        }
    }

    /// The chunk's sum.
    ///
    /// # Errors
    /// [`SumsError::Length`] where fewer or more bytes came than the chunk has: the file was
    /// shortened or grew while it was read.
    pub fn finish(self) -> Result<ChunkSum, SumsError> {
        if self.fed != self.len {
            return Err(SumsError::Length { expected: self.len, fed: self.fed });
        }
        Ok(ChunkSum(match self.state {
            State::Root(hasher) => Sum::Root(hasher.finalize().into()),
            State::Plain(subtree) => Sum::Plain(subtree.value()),
            State::Tracked(tracker) => tracker.finish(),
        }))
    }
}

/// Block by block: which are zero, and the values of the others.
#[derive(Debug)]
struct Tracker {
    geometry: Geometry,
    chunk: u64,
    len: u64,
    /// Bytes of the chunk so far.
    position: u64,
    /// All bytes of the current block so far are zero, and none of them is in `hasher`.
    clean: bool,
    hasher: blake3::Hasher,
    nonzero: u16,
    values: [Value; 16],
}

impl Tracker {
    fn new(geometry: Geometry, chunk: u64, len: u64) -> Self {
        let hasher = blake3::Hasher::new();
        Self { geometry, chunk, len, position: 0, clean: true, hasher, nonzero: 0, values: [[0; 32]; 16] }
    }

    fn feed(&mut self, mut piece: Piece<'_>) {
        let block_bytes = self.geometry.block_bytes;
        while piece.len() > 0 {
            let within = self.position % block_bytes;
            let (part, rest) = piece.split_at(block_bytes - within);
            if self.clean && !part.is_zero() {
                self.clean = false;
                self.hasher = hasher_at(self.chunk * self.geometry.chunk_bytes + self.position - within);
                hash_zeros(&mut self.hasher, within);
            }
            if !self.clean {
                part.hash(&mut self.hasher);
            }
            self.position += part.len();
            if self.position.is_multiple_of(block_bytes) || self.position == self.len {
                self.end_block((self.position - 1) / block_bytes);
            }
            piece = rest;
        }
    }

    fn end_block(&mut self, block: u64) {
        if !self.clean {
            self.values[self.nonzero.count_ones() as usize] = self.hasher.finalize_non_root();
            self.nonzero |= 1 << block;
            self.clean = true;
        }
    }

    fn finish(self) -> Sum {
        let set = self.nonzero.count_ones();
        let values = &self.values[..set as usize];
        if set == 0 {
            Sum::Zero
        } else if u64::from(set) == self.len.div_ceil(self.geometry.block_bytes) {
            let mut tree = Tree::default();
            for value in values {
                tree.push(*value);
            }
            Sum::Dense { value: tree.value(), group: group_hash(self.geometry, self.chunk, self.nonzero, values) }
        } else {
            Sum::Mixed { nonzero: self.nonzero, values: values.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_set_bit_anywhere_is_seen() {
        let mut bytes = vec![0; 700];
        assert!(is_zero(&bytes));
        assert!(is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes), "{at}");
            assert!(is_zero(&bytes[..at]) && is_zero(&bytes[at + 1..]), "{at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn sums_are_small_because_a_file_may_have_millions() {
        assert!(size_of::<ChunkSum>() <= 72, "{}", size_of::<ChunkSum>());
    }

    #[test]
    fn too_few_and_too_many_bytes_are_named() {
        let size = CHUNK_BYTES + 5;
        for fed in [0, 4, 6, 70_000] {
            let mut hasher = ChunkHasher::new(size, 1, HolePolicy::Extents).unwrap();
            hasher.update(&vec![1; fed]);
            let fed = fed as u64;
            assert_eq!(hasher.finish(), Err(SumsError::Length { expected: 5, fed }));
        }
        let mut hasher = ChunkHasher::new(u64::MAX, 0, HolePolicy::Extents).unwrap();
        hasher.zeros(u64::MAX);
        hasher.zeros(u64::MAX);
        assert_eq!(hasher.finish(), Err(SumsError::Length { expected: CHUNK_BYTES, fed: u64::MAX }));
    }

    #[test]
    fn a_chunk_outside_the_file_is_refused() {
        for (size, chunk) in [(0, 0), (CHUNK_BYTES, 1), (1, u64::MAX), (u64::MAX, 1 << 40)] {
            assert_eq!(
                ChunkHasher::new(size, chunk, HolePolicy::Extents).err(),
                Some(SumsError::Outside { chunk }),
                "{size}"
            );
        }
        assert!(ChunkHasher::new(u64::MAX, (1 << 40) - 1, HolePolicy::Extents).is_ok());
    }

    #[test]
    fn only_files_larger_than_a_gibibyte_are_tracked() {
        assert!(!needs_zero_tracking(1 << 30, HolePolicy::Extents));
        assert!(needs_zero_tracking((1 << 30) + 1, HolePolicy::Extents));
        assert!(!needs_zero_tracking(u64::MAX, HolePolicy::Standard));
    }
}
