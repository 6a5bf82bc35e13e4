//! Reading a catalog: one directory, a page of one, one entry.
//!
//! Rows come in the order of their names' bytes into [`DirectoryRows`], a buffer that is used again
//! for the next directory. Each row's check sum is compared as it is read, so nothing decides by a
//! row that the disk or a hand has changed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as SqlRow};

use super::catalog::Shared;
use super::database::{self, Check};
use super::order::{self, Visit};
use super::paged::Paged;
use super::row::{
    self, CELLS, COLUMN_COUNT, COLUMNS, Cells, DirectoryId, Facts, LinkGroup, Row, RowRef, STRINGS, Strings,
};
use crate::error::Error;

/// Rows of one directory in ascending order of their names. Names and targets lie in one arena.
#[derive(Debug, Default)]
pub struct DirectoryRows {
    directory: DirectoryId,
    slots: Vec<Slot>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    facts: Facts,
    /// Where the name begins in the arena; the target follows it.
    start: usize,
    name_bytes: u32,
    target_bytes: Option<u32>,
}

impl DirectoryRows {
    /// No rows: the directory has none, or they are of no use.
    pub fn forget(&mut self) {
        self.clear(self.directory);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The row at a position in the order of names, from 0.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<RowRef<'_>> {
        let slot = self.slots.get(index)?;
        let (name, rest) = self.bytes[slot.start..].split_at(slot.name_bytes as usize);
        let target = slot.target_bytes.map(|len| &rest[..len as usize]);
        Some(RowRef { directory: self.directory, name, facts: &slot.facts, target })
    }

    /// The row of this name, by binary search.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<RowRef<'_>> {
        let found =
            self.slots.binary_search_by(|slot| self.bytes[slot.start..slot.start + slot.name_bytes as usize].cmp(name));
        self.at(found.ok()?)
    }

    /// All rows in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = RowRef<'_>> {
        (0..self.slots.len()).filter_map(|index| self.at(index))
    }

    fn clear(&mut self, directory: DirectoryId) {
        self.directory = directory;
        self.slots.clear();
        self.bytes.clear();
    }

    /// Takes one row in; false where it is damaged. That it stands in this directory, and under this
    /// name, is part of its check sum.
    fn push(&mut self, raw: &SqlRow<'_>, source_dev: u64) -> rusqlite::Result<bool> {
        let ValueRef::Blob(name) = raw.get_ref(1)? else { return Ok(false) };
        let mut cells: Cells = [None; CELLS];
        for (i, cell) in cells.iter_mut().enumerate() {
            *cell = match raw.get_ref(i + 2)? {
                ValueRef::Integer(number) => Some(number),
                ValueRef::Null => None,
                _ => return Ok(false),
            };
        }
        let mut beside_name = [None; STRINGS];
        for (i, string) in beside_name.iter_mut().enumerate() {
            *string = match raw.get_ref(i + CELLS + 2)? {
                ValueRef::Blob(bytes) => Some(bytes),
                ValueRef::Null => None,
                _ => return Ok(false),
            };
        }
        let [digest, target, xattr_digest, extra] = beside_name;
        let strings = Strings { name, digest, target, xattr_digest, extra };
        let ValueRef::Integer(sum) = raw.get_ref(COLUMN_COUNT - 1)? else { return Ok(false) };
        if sum != row::check(self.directory, &cells, &strings) {
            return Ok(false);
        }
        let Some(facts) = row::decode(&cells, &strings, source_dev) else { return Ok(false) };
        let (Ok(name_bytes), Ok(target_bytes)) =
            (u32::try_from(name.len()), target.map(|target| u32::try_from(target.len())).transpose())
        else {
            return Ok(false);
        };
        self.slots.push(Slot { facts, start: self.bytes.len(), name_bytes, target_bytes });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(target.unwrap_or_default());
        Ok(true)
    }
}

/// One state of a catalog, held by [`CatalogReader::snapshot`].
#[derive(Debug)]
pub struct Snapshot<'r> {
    _transaction: rusqlite::Transaction<'r>,
}

/// A read connection to a catalog, for one thread. Sees what was committed when a call begins.
#[derive(Debug)]
pub struct CatalogReader {
    shared: Arc<Shared>,
    connection: Connection,
    all: String,
    after: String,
    one: String,
    /// For single rows; empty while one is read.
    buffer: RefCell<DirectoryRows>,
}

impl CatalogReader {
    /// A reader of a catalog that this process has not opened otherwise.
    pub(super) fn at(path: &Path, source_dev: u64) -> Result<Self, Error> {
        Self::open(Arc::new(Shared::reading(path, source_dev)))
    }

    pub(super) fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        let connection = database::open_reader(&shared.path)?;
        Ok(Self {
            shared,
            connection,
            all: format!("SELECT {COLUMNS} FROM entry WHERE dir = ?1 ORDER BY name"),
            after: format!("SELECT {COLUMNS} FROM entry WHERE dir = ?1 AND name > ?2 ORDER BY name"),
            one: format!("SELECT {COLUMNS} FROM entry WHERE dir = ?1 AND name = ?2"),
            buffer: RefCell::default(),
        })
    }

    /// All rows of a directory, into a buffer that is emptied first. Where a directory may be huge,
    /// [`CatalogReader::page_after`] bounds the memory (about 250 bytes a row).
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read, or a row in it is damaged.
    pub fn directory(&self, directory: DirectoryId, rows: &mut DirectoryRows) -> Result<(), Error> {
        self.load(&self.all, [directory.cast_signed()], directory, usize::MAX, rows)
    }

    /// Up to `limit` rows of a directory whose names come after `after` (`None`: from the first).
    /// Fewer than `limit` means that the directory has no more.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn page_after(
        &self,
        directory: DirectoryId,
        after: Option<&[u8]>,
        limit: usize,
        rows: &mut DirectoryRows,
    ) -> Result<(), Error> {
        let id = directory.cast_signed();
        match after {
            None => self.load(&self.all, [id], directory, limit, rows),
            Some(name) => self.load(&self.after, (id, name), directory, limit, rows),
        }
    }

    /// The row of one entry.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn get(&self, directory: DirectoryId, name: &[u8]) -> Result<Option<Row>, Error> {
        let mut buffer = self.buffer.take();
        let loaded = self.load(&self.one, (directory.cast_signed(), name), directory, 1, &mut buffer);
        let row = buffer.at(0).map(|row| row.to_owned());
        self.buffer.replace(buffer);
        loaded.map(|()| row)
    }

    /// The rows of these names, which ascend, into a buffer that is emptied first. What has no row is
    /// left out.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn named<'n>(
        &self,
        directory: DirectoryId,
        names: impl Iterator<Item = &'n [u8]>,
        rows: &mut DirectoryRows,
    ) -> Result<(), Error> {
        let _snapshot = self.snapshot_unless_held()?;
        rows.clear(directory);
        for name in names {
            let limit = rows.len() + 1;
            self.add(&self.one, (directory.cast_signed(), name), limit, rows)?;
        }
        Ok(())
    }

    /// The rows of a directory in the order of their names, up to `page_rows` at a time in `rows`.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn paged<'r>(
        &'r self,
        directory: DirectoryId,
        page_rows: usize,
        rows: &'r mut DirectoryRows,
    ) -> Result<Paged<'r>, Error> {
        Paged::new(self, directory, page_rows, rows)
    }

    /// Holds on to what is committed now: until it is dropped, all calls see this state, and each
    /// costs about half, because it needs no locks of its own. The log can't be used anew meanwhile, so
    /// hold it for a batch of directories, not for a pass.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read, or another snapshot is held.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, Error> {
        let transaction = self.connection.unchecked_transaction();
        transaction
            .map(|transaction| Snapshot { _transaction: transaction })
            .map_err(|error| self.shared.failure(error))
    }

    pub(super) fn snapshot_unless_held(&self) -> Result<Option<Snapshot<'_>>, Error> {
        self.connection.is_autocommit().then(|| self.snapshot()).transpose()
    }

    /// Lends every entry, the root first, in ascending order of the raw bytes of the full path
    /// (components joined by `/`, the root empty), as they were committed when the call, or the snapshot around it, began.
    /// Memory grows with the depth of the tree, not with its entries.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`], and the first error that `visit` returns.
    pub fn for_each_sorted_by_path(&self, visit: &mut Visit<'_>) -> Result<(), Error> {
        // Pages that are read one after the other belong together.
        let _snapshot = self.snapshot_unless_held()?;
        order::walk(self, visit)
    }

    /// How many entries the catalog has.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn entries(&self) -> Result<u64, Error> {
        let count = self.connection.query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0));
        count.map(i64::cast_unsigned).map_err(|error| self.shared.failure(error))
    }

    /// Path and class of everything that failed or was hot in the last run, in the order of paths; an
    /// entry that failed on both sides is there twice.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn failures(&self) -> Result<Vec<(Vec<u8>, String)>, Error> {
        let read = || -> rusqlite::Result<Vec<(Vec<u8>, String)>> {
            let mut statement = self.connection.prepare("SELECT path, class FROM failure ORDER BY path")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(|error| self.shared.failure(error))
    }

    /// Classes of what failed or was hot with one entry in the last run, a class for each side.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn failures_of(&self, path: &[u8]) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement =
                self.connection.prepare_cached("SELECT class FROM failure WHERE path = ? ORDER BY class")?;
            statement.query_map([path], |row| row.get(0))?.collect()
        };
        read().map_err(|error| self.shared.failure(error))
    }

    /// The groups that have two or more names within the share: an inode whose other names lie
    /// outside it stands alone.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn shared_link_groups(&self) -> Result<HashSet<LinkGroup>, Error> {
        let names = self.names_of_groups().map_err(|error| self.shared.failure(error))?;
        let names = names.ok_or_else(|| self.damaged("a row with hard links does not match its check sum"))?;
        Ok(names.into_iter().filter(|(_, names)| *names > 1).map(|(group, _)| group).collect())
    }

    /// How many names each group has; `None` at a damaged row.
    fn names_of_groups(&self) -> rusqlite::Result<Option<HashMap<LinkGroup, u64>>> {
        let sql = format!("SELECT {COLUMNS} FROM entry WHERE nlink > 1 AND child IS NULL");
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query([])?;
        let mut names: HashMap<LinkGroup, u64> = HashMap::new();
        let mut row = DirectoryRows::default();
        while let Some(raw) = found.next()? {
            row.clear(raw.get::<_, i64>(0)?.cast_unsigned());
            if !row.push(raw, self.shared.source_dev)? {
                return Ok(None);
            }
            if let Some(group) = row.at(0).and_then(|row| row.facts.link_group()) {
                *names.entry(group).or_default() += 1;
            }
        }
        Ok(Some(names))
    }

    pub(super) fn check_structure(&self) -> Result<(), Error> {
        database::check(&self.shared.path, &self.connection, Check::Quick)
    }

    /// Looks at the check sum of every row, reachable or not, and at the order of their keys.
    pub(super) fn check_rows(&self) -> Result<(), Error> {
        let bad = self.first_bad_row().map_err(|error| self.shared.failure(error))?;
        bad.map_or(Ok(()), |(number, directory)| {
            Err(self.damaged(format!("row {number} of the file, in directory {directory}, is altered or out of order")))
        })
    }

    /// Position from 0, and directory, of the first row that is damaged or not behind the one before.
    fn first_bad_row(&self) -> rusqlite::Result<Option<(u64, i64)>> {
        let mut statement = self.connection.prepare(&format!("SELECT {COLUMNS} FROM entry ORDER BY dir, name"))?;
        let mut found = statement.query([])?;
        let (mut row, mut before) = (DirectoryRows::default(), (i64::MIN, Vec::new()));
        let mut number = 0;
        while let Some(raw) = found.next()? {
            let directory: i64 = raw.get(0)?;
            row.clear(directory.cast_unsigned());
            if !row.push(raw, self.shared.source_dev)? {
                return Ok(Some((number, directory)));
            }
            let name = row.at(0).map_or(&[][..], |row| row.name);
            if (directory, name) <= (before.0, before.1.as_slice()) {
                return Ok(Some((number, directory)));
            }
            before.0 = directory;
            before.1.clear();
            before.1.extend_from_slice(name);
            number += 1;
        }
        Ok(None)
    }

    pub(super) fn damaged(&self, detail: impl Into<String>) -> Error {
        database::damaged(&self.shared.path, detail)
    }

    fn load(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        directory: DirectoryId,
        limit: usize,
        rows: &mut DirectoryRows,
    ) -> Result<(), Error> {
        rows.clear(directory);
        self.add(sql, params, limit, rows)
    }

    /// Adds rows of the buffer's directory until it holds `limit`.
    fn add(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        limit: usize,
        rows: &mut DirectoryRows,
    ) -> Result<(), Error> {
        let whole = self.fill(sql, params, limit, rows).map_err(|error| self.shared.failure(error))?;
        if whole {
            return Ok(());
        }
        let (row, directory) = (rows.len(), rows.directory);
        Err(self.damaged(format!("row {row} of directory {directory} does not match its check sum")))
    }

    /// Steps until `limit` rows are in. A LIMIT in the statement would have `SQLite` plan it anew
    /// each time, because it takes the bound number into account.
    fn fill(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        limit: usize,
        rows: &mut DirectoryRows,
    ) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut found = statement.query(params)?;
        while rows.len() < limit {
            let Some(raw) = found.next()? else { break };
            if !rows.push(raw, self.shared.source_dev)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
