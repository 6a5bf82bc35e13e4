//! Reads a manifest line by line, however long it is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{ManifestEntry, Reason, entries_path, line};
use crate::error::Error;
use crate::hash::Digest;
use crate::limits::{MANIFEST_BUFFER_BYTES, MANIFEST_LINE_BYTES_MAX};

/// What a manifest tells of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// From b3sum's form: a file and its standard hash, nothing else is known.
    Sum { path: Vec<u8>, digest: Digest },
    /// From the JSON lines: everything.
    Entry(Box<ManifestEntry>),
}

/// A manifest can't be read, or has a line that can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("can't read the manifest {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// `line` counts from 1.
    #[error("{}:{line}: {reason}", .path.display())]
    Line { path: PathBuf, line: u64, reason: Reason },
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Io { path, source } => Self::Output { path, what: "can't read the manifest", source },
            ManifestError::Line { .. } => Self::Usage {
                what: error.to_string(),
                remedy: "correct the line, or make the manifest again with --manifest",
            },
        }
    }
}

/// The items of a manifest in the order of its lines. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    has_entries: bool,
    line: Vec<u8>,
    /// Number of the last line read, from 1.
    number: u64,
    ended: bool,
}

impl Reader {
    /// Opens `manifest.jsonl` where it exists, else `manifest` itself.
    ///
    /// # Errors
    /// [`ManifestError::Io`].
    pub fn open(manifest: &Path) -> Result<Self, ManifestError> {
        let beside = entries_path(manifest);
        let (path, has_entries, file) = match File::open(&beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (manifest.to_path_buf(), false, File::open(manifest))
            }
            file => (beside, true, file),
        };
        match file {
            Ok(file) => {
                let input = BufReader::with_capacity(MANIFEST_BUFFER_BYTES, file);
                Ok(Self { path, input, has_entries, line: Vec::new(), number: 0, ended: false })
            }
            Err(source) => Err(ManifestError::Io { path, source }),
        }
    }

    /// Whether the items are whole entries, so that metadata can be compared and nothing is missing.
    #[must_use]
    pub const fn has_entries(&self) -> bool {
        self.has_entries
    }

    fn read(&mut self) -> Result<Option<Item>, ManifestError> {
        self.line.clear();
        let bound = MANIFEST_LINE_BYTES_MAX as u64 + 1;
        let read = self.input.by_ref().take(bound).read_until(b'\n', &mut self.line);
        self.number += 1;
        match read {
            Ok(0) => Ok(None),
            Ok(_) => match self.parse() {
                Ok(item) => Ok(Some(item)),
                Err(reason) => Err(ManifestError::Line { path: self.path.clone(), line: self.number, reason }),
            },
            Err(source) => Err(ManifestError::Io { path: self.path.clone(), source }),
        }
    }

    fn parse(&self) -> Result<Item, Reason> {
        if self.line.len() > MANIFEST_LINE_BYTES_MAX {
            return Err(Reason::Long);
        }
        if self.has_entries { Item::of_entry(&self.line) } else { Item::of_sum(&self.line) }
    }
}

impl Item {
    /// One line of b3sum's form.
    pub(super) fn of_sum(text: &[u8]) -> Result<Self, Reason> {
        line::parse(text).map(|(path, digest)| Self::Sum { path, digest })
    }

    /// One of the JSON lines.
    pub(super) fn of_entry(text: &[u8]) -> Result<Self, Reason> {
        ManifestEntry::parse(text).map(|entry| Self::Entry(Box::new(entry)))
    }
}

impl Iterator for Reader {
    type Item = Result<Item, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
