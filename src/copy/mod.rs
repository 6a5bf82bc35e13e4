//! Moving bytes: one file's state machine over the block-I/O seam.
//!
//! A file that fits one chunk is moved by one [`range::RangeMove`]; a larger one by many of them
//! on several threads, their hashes merged ([`big`]). Whether the blocks travel by plain calls or
//! through io_uring is the business of the [`blocks::BlockIo`] behind it.

pub mod big;
pub mod blocks;
pub mod drive;
pub mod offload;
pub mod probe;
pub mod range;
