//! The manifest: a list that proves a share later, without the source.
//!
//! Two files. `FILE` is b3sum's own form, so that anyone can check it with `b3sum --check FILE` in
//! the share's root and needs no copyd; it holds what b3sum can check: files with the standard hash
//! and a name that b3sum can open. `FILE.jsonl` beside it holds every entry of every type, one JSON
//! object a line, with kinds and metadata: [`Reader`] takes it where it exists.
//!
//! Both are written under temporary names and renamed when they are complete and durable, the
//! JSON lines first: a crash between the renames leaves them newer than `FILE`, and the reader
//! trusts them alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

mod entry;
pub(crate) mod fuzzing;
mod line;
mod reader;
mod writer;

pub use entry::ManifestEntry;
pub use line::Reason;
pub use reader::{Item, ManifestError, Reader};
pub use writer::Writer;

/// The path of the JSON lines beside a manifest: its name with `.jsonl` appended.
#[must_use]
pub fn entries_path(manifest: &Path) -> PathBuf {
    let mut path = OsString::from(manifest);
    path.push(".jsonl");
    path.into()
}

#[cfg(test)]
mod tests;
