//! One directory's rows in the order of their names, in bounded memory.
//!
//! What is held against the catalog name by name needs no more than a page of rows at a time, as long
//! as both ascend. A small directory is one page and costs what reading it whole costs.

use super::reader::{CatalogReader, DirectoryRows, Snapshot};
use super::row::{DirectoryId, RowRef};
use crate::error::Error;

/// A place in the rows of one directory. Made by [`CatalogReader::paged`].
#[derive(Debug)]
pub struct Paged<'r> {
    reader: &'r CatalogReader,
    directory: DirectoryId,
    page_rows: usize,
    page: &'r mut DirectoryRows,
    /// Position in the page of the row at hand.
    next: usize,
    first_page: bool,
    last_page: bool,
    /// Pages that are read one after the other belong together.
    _snapshot: Option<Snapshot<'r>>,
}

impl<'r> Paged<'r> {
    pub(super) fn new(
        reader: &'r CatalogReader,
        directory: DirectoryId,
        page_rows: usize,
        page: &'r mut DirectoryRows,
    ) -> Result<Self, Error> {
        let mut paged = Self {
            reader,
            directory,
            page_rows: page_rows.max(1),
            page,
            next: 0,
            first_page: true,
            last_page: false,
            _snapshot: reader.snapshot_unless_held()?,
        };
        paged.read(None)?;
        Ok(paged)
    }

    /// The buffer holds all rows of the directory, and will.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.first_page && self.last_page
    }

    /// The row at hand; `None` behind the last.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn peek(&mut self) -> Result<Option<RowRef<'_>>, Error> {
        if self.next == self.page.len() && !self.last_page {
            self.first_page = false;
            let last = self.page.at(self.next - 1).map(|row| row.name.to_vec());
            self.read(last.as_deref())?;
        }
        Ok(self.page.at(self.next))
    }

    /// Goes on to the row behind the one at hand.
    pub const fn step(&mut self) {
        self.next += 1;
    }

    /// The row of this name, which comes after all that were asked for before.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn find(&mut self, name: &[u8]) -> Result<Option<RowRef<'_>>, Error> {
        while self.peek()?.is_some_and(|row| row.name < name) {
            self.step();
        }
        Ok(self.peek()?.filter(|row| row.name == name))
    }

    fn read(&mut self, after: Option<&[u8]>) -> Result<(), Error> {
        self.reader.page_after(self.directory, after, self.page_rows, self.page)?;
        self.next = 0;
        self.last_page = self.page.len() < self.page_rows;
        Ok(())
    }
}
