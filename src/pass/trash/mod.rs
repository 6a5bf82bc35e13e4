//! What a replica keeps of deletions: `.copyd-trash` below the destination root.
//!
//! ```text
//! .copyd-trash/                               0700, copyd's own
//!   20261122T224430.123Z-<job>/               a generation: one pass of one job, UTC
//!     record.jsonl                            what was moved in and why, for people and for times
//!     tree/…                                  each entry under the path that it had
//! ```
//! Nothing is copied: what is deleted is renamed, and what is replaced keeps its inode by a second
//! name before the new one takes the first, so a final name is never missing. Hard links, owners,
//! modes, attributes and flags stay because the inode does. Directories above an entry are made with
//! the metadata of those that they stand for, so that they can be given back with it. [`store`] finds
//! and makes generations, [`keep`] is the pass's way in, [`restore`] and [`expire`] are the ways out.
//!
//! The record is written before the move and never trusted for what is there: a kill in between
//! leaves a line without its entry, a power cut may leave an entry without its line. What can be
//! restored is what lies in `tree`.

mod expire;
pub(crate) mod fuzzing;
mod keep;
mod name;
mod record;
mod restore;
mod store;

pub use expire::{Expired, expire, expire_command};
pub use keep::Trash;
pub use record::Why;
pub use restore::{Fate, RestoreOptions, Restored, restore};
pub use store::{Entry, list};

/// The reserved name at a destination root.
pub const NAME: &std::ffi::CStr = c".copyd-trash";
