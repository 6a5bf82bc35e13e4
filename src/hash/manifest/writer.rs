//! Writes both files of a manifest, whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{ManifestEntry, entries_path, line};
use crate::error::Error;
use crate::limits::{MANIFEST_BUFFER_BYTES, MANIFEST_LINE_BYTES_MAX};

/// A manifest under way. Dropped before [`finish`](Self::finish) it leaves nothing behind, and an
/// older manifest of the name as it was.
#[derive(Debug)]
pub struct Writer {
    sums: Output,
    entries: Output,
    line: Vec<u8>,
}

impl Writer {
    /// Begins the manifest `manifest` and its `.jsonl` under temporary names in its directory.
    ///
    /// # Errors
    /// [`Error::Output`] where the directory can't be written, or where something else than a regular
    /// file bears one of the names: a rename would replace even `/dev/null`.
    pub fn create(manifest: &Path) -> Result<Self, Error> {
        let sums = Output::create(manifest.to_path_buf())?;
        let entries = Output::create(entries_path(manifest))?;
        Ok(Self { sums, entries, line: Vec::new() })
    }

    /// Adds an entry, in whatever order.
    ///
    /// # Errors
    /// [`Error::Output`] where it can't be written, or has a line longer than the reader takes.
    pub fn push(&mut self, entry: &ManifestEntry) -> Result<(), Error> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry).map_err(|error| self.entries.error(error.into()))?;
        if self.line.len() >= MANIFEST_LINE_BYTES_MAX {
            return Err(self.entries.error(io::ErrorKind::InvalidFilename.into()));
        }
        self.line.push(b'\n');
        self.entries.write(&self.line)?;
        self.line.clear();
        match &entry.digest {
            Some(digest) if line::write(&entry.path, digest, &mut self.line) => self.sums.write(&self.line),
            _ => Ok(()),
        }
    }

    /// Makes both files durable and gives them their names.
    ///
    /// # Errors
    /// [`Error::Output`]; what has no name yet is removed.
    pub fn finish(mut self) -> Result<(), Error> {
        self.entries.sync()?;
        self.sums.sync()?;
        self.entries.publish()?;
        self.sums.publish()
    }
}

/// One file that gets its name when it is complete.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    directory: PathBuf,
    /// Name that is not `path` yet; `None` once it is.
    temporary: Option<PathBuf>,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let fail = |source: io::Error| Error::Output { path: path.clone(), what: WHAT, source };
        if path.file_name().is_none() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        match path.symlink_metadata() {
            Ok(old) if !old.is_file() => {
                return Err(fail(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is not a regular file")));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            Ok(_) | Err(_) => {}
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_path_buf();
        // Of fixed length, so that a name of 255 bytes can still be written.
        let temporary = directory.join(format!(".copyd-manifest-{}", uuid::Uuid::now_v7()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(fail)?;
        let file = BufWriter::with_capacity(MANIFEST_BUFFER_BYTES, file);
        Ok(Self { path, directory, temporary: Some(temporary), file })
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Output { path: self.path.clone(), what: WHAT, source }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), Error> {
        self.file.write_all(line).map_err(|error| self.error(error))
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(|error| self.error(error))
    }

    fn publish(&mut self) -> Result<(), Error> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.path).map_err(|error| self.error(error))?;
        }
        self.temporary = None;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(|error| self.error(error))
    }
}

const WHAT: &str = "can't write the manifest";

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The error that ended the writing is already on its way; a leftover is only room.
            let _ = std::fs::remove_file(temporary);
        }
    }
}
