//! The proof of content: what a file's bytes hash to, however many threads read them.
//!
//! ```text
//! small file   FileHasher ───────────────────────────────────────────► Digest
//! large file   ChunkHasher (a chunk, any thread) ─► ChunkSum ┐
//!              hole, never read ─────► insert_hole_run ──────┴► FileSums ─► Digest
//! a share      manifest::ManifestEntry ─► manifest::Writer;  ShareEntry ─► ShareDigest
//! ```
//!
//! **Which hash.** A file's digest is its standard BLAKE3 hash, the one that b3sum prints:
//! aligned power-of-two chunks are subtrees of BLAKE3's own tree, so they can be hashed anywhere
//! in any order and merged. A zero subtree's value depends on its offset, so zeros cost as much as
//! data, and a hole of 1 TiB costs minutes. Therefore a file with more than
//! [`ZERO_BYTES_MAX`](crate::limits::ZERO_BYTES_MAX) of all-zero blocks is proved by its other
//! blocks: kind [`DigestKind::Blake3Nonzero`], defined so that it depends on the content alone,
//! never on what is allocated:
//!
//! ```text
//! b3-nonzero = BLAKE3("copyd b3-nonzero v1\n" ‖ size ‖ (chunk index ‖ group)*)
//! group      = BLAKE3((block offset ‖ block value)*)
//! ```
//!
//! Chunks are the aligned 16 MiB pieces that hold a non-zero block, in ascending order; blocks are
//! a chunk's aligned 1 MiB pieces (the file's last may be shorter) that hold a non-zero byte, in
//! ascending order; a block's value is its 32-byte non-root chaining value as the subtree of BLAKE3
//! at its offset; sizes, indexes and offsets (from the file's start) are 8 bytes, little-endian.

mod chunk;
mod digest;
mod file;
pub mod manifest;
mod share;
mod subtree;
mod sums;

pub use chunk::{ChunkHasher, ChunkSum, HolePolicy, chunk_count, chunk_len, is_zero, needs_zero_tracking};
pub use digest::{Digest, DigestKind, HexError};
pub use file::FileHasher;
pub use share::{Order, ShareContent, ShareDigest, ShareDigests, ShareEntry, xattr_digest};
pub use sums::{FileSums, SumsError, merge};
