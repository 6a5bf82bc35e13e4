//! The order of full paths, from rows that are ordered within each directory.
//!
//! Sorting names directory by directory does not sort paths: `a` comes first, then its sibling
//! `a.b`, then `a/c`, because `.` is less than `/`. So a directory's subtree waits under the key
//! `name/` until no sibling comes before that key. Of two that wait in one directory, the later
//! name is the earlier one with something less than `/` behind it, hence its key is the smaller:
//! those that wait form a stack, no longer than a name has bytes.

use std::collections::HashSet;

use super::reader::{CatalogReader, DirectoryRows};
use super::row::{DirectoryId, ROOT_DIRECTORY, ROOT_PARENT, RowRef};
use crate::error::Error;
use crate::limits;

/// What a walk calls with each path and its row; an error ends the walk.
pub type Visit<'a> = dyn FnMut(&[u8], RowRef<'_>) -> Result<(), Error> + 'a;

/// One directory on the way down.
struct Level {
    directory: DirectoryId,
    /// Length of the path up to and with the slash behind this directory's own name.
    prefix_bytes: usize,
    page: DirectoryRows,
    /// Position in the page of the next row to visit.
    next: usize,
    /// The page is the directory's last.
    last_page: bool,
    /// Visited directories whose subtrees wait.
    waiting: Vec<(Vec<u8>, DirectoryId)>,
}

/// Visits every row in the order of its path.
pub(super) fn walk(reader: &CatalogReader, visit: &mut Visit<'_>) -> Result<(), Error> {
    let mut walk =
        Walk { reader, levels: Vec::new(), open: HashSet::new(), path: Vec::new(), held_rows: 0, spare: Vec::new() };
    let mut root = DirectoryRows::default();
    reader.page_after(ROOT_PARENT, None, 1, &mut root)?;
    let Some(root) = root.at(0) else { return Ok(()) };
    visit(b"", root)?;
    if let Some(child) = root.facts.child {
        if child != ROOT_DIRECTORY {
            return Err(reader.damaged(format!("the root is directory {child}")));
        }
        walk.descend(child)?;
    }
    while let Some(level) = walk.levels.last_mut() {
        if level.next == level.page.len() && !level.last_page {
            walk.refill()?;
            continue;
        }
        let row = level.page.at(level.next);
        if let Some((name, child)) =
            level.waiting.pop_if(|(waiting, _)| row.is_none_or(|row| subtree_first(waiting, row.name)))
        {
            walk.path.truncate(level.prefix_bytes);
            walk.path.extend_from_slice(&name);
            walk.path.push(b'/');
            walk.descend(child)?;
            continue;
        }
        let Some(row) = row else {
            walk.ascend();
            continue;
        };
        walk.path.truncate(level.prefix_bytes);
        walk.path.extend_from_slice(row.name);
        visit(&walk.path, row)?;
        if let Some(child) = row.facts.child {
            level.waiting.push((row.name.to_vec(), child));
        }
        level.next += 1;
    }
    Ok(())
}

/// Whether `waiting/…` comes before the sibling `next`, which is greater than `waiting`.
fn subtree_first(waiting: &[u8], next: &[u8]) -> bool {
    next.strip_prefix(waiting).is_none_or(|rest| rest.first().is_some_and(|byte| *byte > b'/'))
}

struct Walk<'r> {
    reader: &'r CatalogReader,
    levels: Vec<Level>,
    /// The directories of `levels`: one that lies below itself would never end.
    open: HashSet<DirectoryId>,
    path: Vec<u8>,
    /// Rows in the pages of all levels.
    held_rows: usize,
    /// Pages to use again.
    spare: Vec<DirectoryRows>,
}

impl Walk<'_> {
    /// Enters a directory whose path, with its slash, is in `path`.
    fn descend(&mut self, directory: DirectoryId) -> Result<(), Error> {
        if !self.open.insert(directory) {
            return Err(self.reader.damaged(format!("directory {directory} lies below itself")));
        }
        // A level that is visited to its end needs its page no more; in a chain of directories that
        // is every level.
        if let Some(above) = self.levels.last_mut().filter(|above| above.last_page && above.next == above.page.len()) {
            self.held_rows -= above.page.len();
            above.next = 0;
            self.spare.push(std::mem::take(&mut above.page));
        }
        let page = self.spare.pop().unwrap_or_default();
        let prefix_bytes = self.path.len();
        self.levels.push(Level { directory, prefix_bytes, page, next: 0, last_page: false, waiting: Vec::new() });
        self.read_page(None)
    }

    fn refill(&mut self) -> Result<(), Error> {
        let last = self.levels.last().and_then(|level| level.page.at(level.page.len() - 1));
        let last = last.map(|row| row.name.to_vec());
        self.read_page(last.as_deref())
    }

    /// Reads the deepest level's next page. The levels above leave it less room the more they hold.
    fn read_page(&mut self, after: Option<&[u8]>) -> Result<(), Error> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        self.held_rows -= if after.is_some() { level.page.len() } else { 0 };
        let (least, most) = (*limits::CATALOG_WALK_PAGE_ROWS.start(), *limits::CATALOG_WALK_PAGE_ROWS.end());
        let limit = limits::CATALOG_WALK_ROWS.saturating_sub(self.held_rows).clamp(least, most);
        self.reader.page_after(level.directory, after, limit, &mut level.page)?;
        self.held_rows += level.page.len();
        level.next = 0;
        level.last_page = level.page.len() < limit;
        Ok(())
    }

    fn ascend(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.open.remove(&level.directory);
            self.held_rows -= level.page.len();
            if self.spare.is_empty() {
                self.spare.push(level.page);
            }
        }
    }
}
