//! Metadata: capture at the source, apply at the destination, name what is lost.
//!
//! The way of one entry's metadata through a pass:
//!
//! ```text
//! source       capture ──► Metadata ─┐
//! destination  (new)   prepare → data → apply → check_stat → rename → apply_after_publish
//!              (there) capture → difference → lift → adjust → apply_after_publish
//!              (goes)  unlock → replaced, removed or linked → lock_again where a name is left
//!                       Losses of one entry ──► LossLog of the run
//! ```
//!
//! Everything is reached by [`EntryRef`]: a descriptor for files and directories, a held directory
//! and a single name for symlinks and special files. What a destination refuses because it is what
//! it is becomes a loss by class ([`LossClass`]); what says that it is in trouble is an error.
//!
//! A plain small file costs two calls to capture (a list of attributes that is empty, flags that
//! are not set) and at most three to apply (owner, mode, times).

mod acl;
mod apply;
mod check;
mod flags;
pub(crate) mod fuzzing;
mod idmap;
mod loss;
mod traits;
mod xattrs;

#[cfg(test)]
mod tests;

use std::io;

pub use apply::{Times, adjust, apply, apply_after_publish, lift, prepare, set_times};
pub use check::{MetadataDifferences, check, check_stat, difference, lose_differences};
pub use flags::{InodeFlags, Locks, lock_again, unlock};
pub use idmap::{IdMap, IdMapError};
pub use loss::{LossClass, LossLog, Losses, Severity, UnknownLossClass};
pub use traits::SideTraits;
pub use xattrs::{Xattr, Xattrs, belongs_to_destination};

use crate::error::{EntryError, Side};
use crate::sys::{EntryRef, Stat};

/// Everything about an entry but its name and content. Ids are the source's own: the mapping is
/// applied where something is set or compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub stat: Stat,
    pub xattrs: Xattrs,
    pub flags: InodeFlags,
}

/// What holds for all entries of a run.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub source: &'a SideTraits,
    pub destination: &'a SideTraits,
    pub id_map: &'a IdMap,
}

/// A call on one entry that failed, before it is known under which path the entry is reported.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct EntryOpError {
    /// What copyd was doing, in words.
    pub operation: &'static str,
    #[source]
    pub source: io::Error,
}

impl EntryOpError {
    fn new(operation: &'static str, source: io::Error) -> Self {
        Self { operation, source }
    }

    /// The error as the report names it.
    #[must_use]
    pub fn at(self, side: Side, path: Vec<u8>) -> EntryError {
        EntryError::io(side, self.operation, path, self.source)
    }
}

/// Reads attributes and flags of an entry whose `stat` is known already.
///
/// Losses are those of reading: attributes that the source lists and does not give out, and
/// signatures that can't be carried. For a destination's entry the caller throws them away.
///
/// # Errors
/// What says that the file system is in trouble, or that the entry is gone.
pub fn capture(
    entry: EntryRef<'_>,
    stat: &Stat,
    traits: &SideTraits,
    losses: &mut Losses,
) -> Result<Metadata, EntryOpError> {
    let xattrs = if traits.xattrs { xattrs::capture(entry, losses)? } else { Xattrs::default() };
    let flags = flags::read(entry, stat.kind, traits).map_err(|e| EntryOpError::new("read flags", e))?;
    Ok(Metadata { stat: *stat, xattrs, flags })
}

/// Whether an error says that something is not allowed or not known here, and would be so for ever,
/// rather than that the file system is in trouble.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::ENOTTY
                | libc::EOVERFLOW
        )
    )
}
