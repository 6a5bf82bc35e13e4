//! One file from its first byte to its last on one thread, the case of almost every file.
//!
//! Files that the hole rule can't apply to, which is all up to 1 GiB, take one hasher that is reused
//! and allocate nothing. Larger ones go chunk by chunk through [`FileSums`], with the same result as
//! if many threads had shared the work.

use super::chunk::{ChunkHasher, Geometry, HolePolicy, Piece};
use super::sums::{FileSums, SumsError};
use super::{Digest, DigestKind};

/// Hashes files one after the other: [`begin`](Self::begin), bytes, [`finish`](Self::finish).
#[derive(Debug)]
pub struct FileHasher {
    geometry: Geometry,
    /// Bytes that the file had when its reading began.
    size: u64,
    /// Bytes that came, also those too many, which are counted and not hashed.
    fed: u64,
    hasher: blake3::Hasher,
    /// The hash of a file that came in one piece.
    at_once: Option<blake3::Hash>,
    large: Option<Box<Large>>,
}

impl Default for FileHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl FileHasher {
    /// A hasher that stands before an empty file; one for each thread is enough.
    #[must_use]
    pub fn new() -> Self {
        Self::with_geometry(Geometry::REAL)
    }

    pub(super) fn with_geometry(geometry: Geometry) -> Self {
        Self { geometry, size: 0, fed: 0, hasher: blake3::Hasher::new(), at_once: None, large: None }
    }

    /// Begins a file of `size` bytes and forgets whatever came before.
    pub fn begin(&mut self, size: u64, policy: HolePolicy) {
        self.size = size;
        self.fed = 0;
        self.hasher.reset();
        self.at_once = None;
        self.large = self.geometry.tracks(size, policy).then(|| Box::new(Large::new(self.geometry, size, policy)));
    }

    /// The file's next bytes, as many as there are.
    pub fn update(&mut self, bytes: &[u8]) {
        self.feed(Piece::Bytes(bytes));
    }

    /// The file's next `count` bytes are a hole. Costs as much as the zeros, unless the hole rule can
    /// apply to the file: then it is free for whole blocks.
    pub fn zeros(&mut self, count: u64) {
        self.feed(Piece::Zeros(count));
    }

    fn feed(&mut self, piece: Piece<'_>) {
        let (wanted, _) = piece.split_at(self.size.saturating_sub(self.fed));
        match (&mut self.large, wanted) {
            // Most files come in one piece, and BLAKE3 takes fewer steps where it sees the end.
            (None, Piece::Bytes(bytes)) if bytes.len() as u64 == self.size => self.at_once = Some(blake3::hash(bytes)),
            (None, _) => wanted.hash(&mut self.hasher),
            (Some(large), _) => large.feed(self.fed, wanted),
        }
        self.fed = self.fed.saturating_add(piece.len());
    }

    /// The file's digest.
    ///
    /// # Errors
    /// [`SumsError::Length`] where fewer or more bytes came than the file had.
    pub fn finish(&mut self) -> Result<Digest, SumsError> {
        if self.fed != self.size {
            return Err(SumsError::Length { expected: self.size, fed: self.fed });
        }
        match self.large.take() {
            None => {
                let hash = self.at_once.take().unwrap_or_else(|| self.hasher.finalize());
                Ok(Digest { kind: DigestKind::Blake3, bytes: hash.into() })
            }
            Some(large) => large.finish(),
        }
    }
}

/// A file that the hole rule can apply to.
#[derive(Debug)]
struct Large {
    geometry: Geometry,
    size: u64,
    policy: HolePolicy,
    sums: FileSums,
    /// The chunk that is under way.
    chunk: Option<ChunkHasher>,
    /// The first error, kept so that feeding need not answer; everything after it is ignored.
    failed: Option<SumsError>,
}

impl Large {
    fn new(geometry: Geometry, size: u64, policy: HolePolicy) -> Self {
        let sums = FileSums::with_geometry(geometry, size, policy);
        Self { geometry, size, policy, sums, chunk: None, failed: None }
    }

    fn feed(&mut self, position: u64, piece: Piece<'_>) {
        if self.failed.is_none() {
            self.failed = self.try_feed(position, piece).err();
        }
    }

    fn try_feed(&mut self, mut position: u64, mut piece: Piece<'_>) -> Result<(), SumsError> {
        while piece.len() > 0 {
            let index = position / self.geometry.chunk_bytes;
            let within = position % self.geometry.chunk_bytes;
            let whole = if within == 0 { self.whole_chunks(position, piece) } else { 0 };
            let step = if whole > 0 {
                self.sums.insert_hole_run(index, whole)?;
                whole.saturating_mul(self.geometry.chunk_bytes)
            } else {
                self.geometry.chunk_len(self.size, index) - within
            };
            let (part, rest) = piece.split_at(step);
            position += part.len();
            if whole == 0 {
                self.feed_chunk(index, part, part.len() == step)?;
            }
            piece = rest;
        }
        Ok(())
    }

    /// Chunks from `position`, a chunk's start, that a hole covers as a whole.
    fn whole_chunks(&self, position: u64, piece: Piece<'_>) -> u64 {
        match piece {
            Piece::Bytes(_) => 0,
            Piece::Zeros(count) if position + count == self.size => self.geometry.chunk_count(count),
            Piece::Zeros(count) => count / self.geometry.chunk_bytes,
        }
    }

    fn feed_chunk(&mut self, index: u64, part: Piece<'_>, ends: bool) -> Result<(), SumsError> {
        let mut chunk = match self.chunk.take() {
            Some(chunk) => chunk,
            None => ChunkHasher::with_geometry(self.geometry, self.size, index, self.policy)?,
        };
        chunk.feed(part);
        if ends {
            self.sums.insert(index, chunk.finish()?)
        } else {
            self.chunk = Some(chunk);
            Ok(())
        }
    }

    fn finish(self) -> Result<Digest, SumsError> {
        // Standard hashes are never made here, so at most 1 GiB of zeros is left to hash: no stop.
        self.failed.map_or_else(|| self.sums.digest(&|| false), Err)
    }
}
