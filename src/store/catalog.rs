//! The catalog of one job: a row for each entry of the share, and what failed.
//!
//! One writer ([`Writer`]) and any number of readers ([`CatalogReader`]) work on one `SQLite` file in
//! write-ahead mode, so readers never wait for the writer. Rows are keyed by (directory id, name):
//! one directory's rows lie side by side and in the order of their names, a rename of a directory
//! touches one row, and no path is stored twice.
//!
//! What survives: a committed batch survives a kill at once, and a power cut after the next durable
//! [`Writer::flush`]. A power cut never leaves a part of a batch.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::database::{self, Schema, Sync, Upgrade};
use super::fence;
use super::growing::{self, Grown};
use super::lock::Lock;
use super::reader::CatalogReader;
use super::row::{DirectoryId, ROOT_DIRECTORY};
use super::writer::Writer;
use crate::error::Error;

/// `cpyc`, the mark of a catalog.
pub(super) const SCHEMA: Schema = Schema {
    application: 0x6370_7963,
    upgrades: &[
        Upgrade { to: 1, sql: include_str!("catalog-1.sql") },
        Upgrade { to: 2, sql: include_str!("catalog-2.sql") },
        Upgrade { to: 3, sql: include_str!("catalog-3.sql") },
    ],
};

/// The digests of a whole share, in binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Over path, type and content of every entry.
    pub share: [u8; 32],
    /// Over owners, modes, times, xattrs and link groups.
    pub metadata: [u8; 32],
}

/// A job's open catalog. Holds the job's lock as long as it, a writer or a reader lives.
#[derive(Debug)]
pub struct Catalog {
    shared: Arc<Shared>,
    /// The connection that opened the file; the writer takes it over.
    opened: Mutex<Option<Connection>>,
    closed_in_order: bool,
}

/// What writer and readers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub path: PathBuf,
    /// Device of the source's root, from which `src_dev` is counted.
    pub source_dev: u64,
    next_directory: AtomicU64,
    /// Whose the catalog is: a writer commits as long as it is so.
    pub owner: Owner,
}

/// A run's right to write.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// As in the job's row, and in the catalog itself.
    pub epoch: u64,
    /// Keeps every other copyd away from the job.
    pub lock: Option<Arc<Lock>>,
}

impl Owner {
    /// Whether nobody has taken the job away since. Cheap, and no proof: that is the epoch in the catalog.
    pub fn holds(&self) -> bool {
        self.lock.as_ref().is_none_or(|lock| lock.is_in_place())
    }
}

impl Shared {
    /// For readers alone: nobody's right to write hangs on it, and it gives out no ids.
    pub fn reading(path: &Path, source_dev: u64) -> Self {
        let owner = Owner::default();
        Self { path: path.to_owned(), source_dev, next_directory: AtomicU64::new(u64::MAX), owner }
    }

    pub fn failure(&self, error: rusqlite::Error) -> Error {
        database::failure(&self.path, error)
    }
}

impl Catalog {
    /// Opens a job's catalog file. `source_dev` is the device number of the source's root now.
    pub(super) fn open(path: &Path, source_dev: u64, owner: Owner) -> Result<Self, Error> {
        let connection = database::open(path, &SCHEMA, Sync::Normal)?;
        fence::claim(&connection, path, owner.epoch)?;
        let next: i64 = connection
            .query_row("SELECT value FROM meta WHERE key = 'next_directory'", [], |row| row.get(0))
            .map_err(|error| database::failure(path, error))?;
        let next = u64::try_from(next).ok().filter(|next| *next > ROOT_DIRECTORY);
        let next = next.ok_or_else(|| database::damaged(path, "next_directory is out of range"))?;
        let shared = Shared { path: path.to_owned(), source_dev, next_directory: AtomicU64::new(next), owner };
        Ok(Self { shared: Arc::new(shared), opened: Mutex::new(Some(connection)), closed_in_order: false })
    }

    /// Whether the file is as the last run left it, and that run ended by itself. Else rows may be
    /// missing: of what a killed run did last, or of all that came after an old copy.
    #[must_use]
    pub const fn closed_in_order(&self) -> bool {
        self.closed_in_order
    }

    pub(super) const fn mark_closed_in_order(&mut self) {
        self.closed_in_order = true;
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// An id for a directory that has none yet. An id that no committed row names may be given out
    /// again by a later run; within a run it never is.
    #[must_use]
    pub fn next_directory_id(&self) -> DirectoryId {
        self.shared.next_directory.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the run still owns the job: false once a supervisor has fenced it.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.shared.owner.holds()
    }

    /// Starts the writer's thread. A catalog has one writer at a time: a second one, started while
    /// the first lives, waits for its transactions and then fails.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be opened again, [`Error::Resources`] without a thread.
    pub fn writer(&mut self) -> Result<Writer, Error> {
        let connection = match self.opened.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            Some(connection) => connection,
            None => database::open(&self.shared.path, &SCHEMA, Sync::Normal)?,
        };
        Writer::start(Arc::clone(&self.shared), connection)
    }

    /// A reader with a connection of its own, for one thread.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be opened.
    pub fn reader(&self) -> Result<CatalogReader, Error> {
        CatalogReader::open(Arc::clone(&self.shared))
    }

    /// What is left of large files that were under way.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read.
    pub fn grown(&self) -> Result<Vec<Grown>, Error> {
        let connection = database::open_reader(&self.shared.path)?;
        growing::read(&connection, self.shared.source_dev).map_err(|error| self.shared.failure(error))
    }

    /// The digests of the last pass that was completed, if no row was written or deleted since:
    /// the writer drops them in the same transaction as the first change.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read.
    pub fn digests(&self) -> Result<Option<Digests>, Error> {
        let connection = database::open_reader(&self.shared.path)?;
        let found: Option<([u8; 32], [u8; 32])> = connection
            .query_row("SELECT share, metadata FROM digests", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(|error| self.shared.failure(error))?;
        Ok(found.map(|(share, metadata)| Digests { share, metadata }))
    }

    /// Reads the whole file: its structure, the check sum of every row, and that rows stand in the
    /// order of their keys. `SQLite`'s own quick check leaves out the last for tables without row
    /// ids, where a damaged key hides whole rows from a search.
    ///
    /// # Errors
    /// [`Error::State`] when it is damaged.
    pub fn check(&self) -> Result<(), Error> {
        let reader = self.reader()?;
        reader.check_structure()?;
        reader.check_rows()
    }
}
