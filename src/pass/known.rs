//! What the catalog knows of the directory that is being scanned, in bounded memory.
//!
//! A directory of up to [`limits::DIRECTORY_ROWS`] rows is read once, and every question is answered
//! from memory. A larger one is read through once, page by page, against the destination's names,
//! which says what is foreign and what is gone there; later, each page of the source's listing has its
//! own rows fetched by name. Only names are kept of what is gone: those and the destination's own are
//! together what the directory holds.

use std::ffi::CStr;

use crate::limits;
use crate::store::{CatalogReader, DirectoryId, DirectoryRows, Facts, RowRef};
use crate::tree::listing::{Listed, Names};

use crate::error::Error;

/// Rows of one directory, for one worker; used again for the next.
#[derive(Debug, Default)]
pub struct Known {
    directory: DirectoryId,
    rows: DirectoryRows,
    /// `rows` are all that there are.
    whole: bool,
    /// Names that have a row and are not at the destination, each with its NUL, in ascending order.
    gone: Vec<u8>,
}

impl Known {
    /// Nothing is known of the directory.
    pub fn forget(&mut self) {
        self.rows.forget();
        self.gone.clear();
        self.whole = true;
    }

    /// Reads the rows of a directory and holds them against the names at the destination. `unknown` is
    /// called for each name without a row, and may end the reading.
    ///
    /// # Errors
    /// [`Error::State`] for the catalog, and the first error of `unknown`.
    pub fn read(
        &mut self,
        reader: &CatalogReader,
        directory: DirectoryId,
        names: &Names,
        unknown: &mut dyn FnMut(&CStr) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.directory = directory;
        self.gone.clear();
        let mut there = names.iter().map(|(name, _)| name).peekable();
        let mut rows = reader.paged(directory, limits::DIRECTORY_ROWS, &mut self.rows)?;
        // Both are in the order of names.
        while let Some(row) = rows.peek()? {
            while let Some(name) = there.next_if(|name| name.to_bytes() < row.name) {
                unknown(name)?;
            }
            if there.next_if(|name| name.to_bytes() == row.name).is_none() && !row.name.contains(&0) {
                self.gone.extend_from_slice(row.name);
                self.gone.push(0);
            }
            rows.step();
        }
        self.whole = rows.is_whole();
        there.try_for_each(unknown)
    }

    /// Has the rows of these entries at hand from now on, and those of no others.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn want(&mut self, reader: &CatalogReader, entries: &[Listed]) -> Result<(), Error> {
        if self.whole {
            return Ok(());
        }
        let mut names: Vec<&[u8]> = entries.iter().map(|entry| entry.name.to_bytes()).collect();
        names.sort_unstable();
        // A directory that changes while it is listed can list a name twice.
        names.dedup();
        reader.named(self.directory, names.into_iter(), &mut self.rows)
    }

    /// The row of a name that is at hand.
    #[must_use]
    pub fn get(&self, name: &CStr) -> Option<RowRef<'_>> {
        self.rows.get(name.to_bytes())
    }

    /// The facts of any name.
    ///
    /// # Errors
    /// As [`CatalogReader::directory`].
    pub fn look_up(&self, reader: &CatalogReader, name: &CStr) -> Result<Option<Facts>, Error> {
        if self.whole {
            return Ok(self.get(name).map(|row| *row.facts));
        }
        Ok(reader.get(self.directory, name.to_bytes())?.map(|row| row.facts))
    }

    /// The names that had a row and were not at the destination when the directory was read.
    pub fn gone(&self) -> impl Iterator<Item = &CStr> {
        self.gone.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }
}
