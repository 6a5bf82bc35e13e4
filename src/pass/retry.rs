//! `--retry-failed`: only what an earlier run left as failed or hot is tried again.
//!
//! The list of failures is turned into the directories that lead to them; in those no name is looked
//! at but the ones that are wanted, each below its directory's descriptor. A directory that failed
//! stands for all below it. Of an inode with several names those that stand at the destination are
//! looked at too, because a name is only as good as its link. Nothing is deleted: that takes a source
//! that was listed whole (P4).

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use crate::error::{Class, EntryError, Error, Side};
use crate::store::CatalogReader;
use crate::sys::{self, Kind, Stat};
use crate::tree::node::lock;

use super::state::Run;

/// What is tried again, and what of it failed once more.
#[derive(Debug)]
pub struct Retry {
    /// Paths from the root; true for those that were asked for and not found before.
    wanted: BTreeMap<Vec<u8>, bool>,
    failed: Mutex<HashSet<Vec<u8>>>,
    /// Those of the list itself.
    listed: Vec<Vec<u8>>,
}

impl Retry {
    /// Reads the list of a job's catalog.
    ///
    /// # Errors
    /// [`Error::State`] when the catalog can't be read.
    pub fn load(reader: &CatalogReader, source: &OwnedFd) -> Result<Self, Error> {
        let wanted: BTreeMap<Vec<u8>, bool> =
            reader.failures()?.into_iter().map(|(path, class)| (path, class == Class::Missing.word())).collect();
        let listed: Vec<Vec<u8>> = wanted.keys().cloned().collect();
        let mut retry = Self { wanted, failed: Mutex::default(), listed };
        let inodes: HashSet<(u64, u64)> = retry
            .listed
            .iter()
            .filter_map(|path| look(source, path).ok())
            .filter(|stat| stat.nlink > 1 && stat.kind != Kind::Directory)
            .map(|stat| (stat.dev, stat.ino))
            .collect();
        if !inodes.is_empty() {
            reader.for_each_sorted_by_path(&mut |path, row| {
                let group = row.facts.link_group().map(|group| (group.dev, group.ino));
                if group.is_some_and(|group| inodes.contains(&group)) {
                    retry.wanted.entry(path.to_vec()).or_insert(false);
                }
                Ok(())
            })?;
        }
        Ok(retry)
    }

    /// A pass begins: its word counts.
    pub fn start_pass(&self) {
        lock(&self.failed).clear();
    }

    /// An entry failed in this pass.
    pub fn fail(&self, path: &[u8]) {
        lock(&self.failed).insert(path.to_vec());
    }

    /// The names to look at in a directory; `None` where all of it was to be done.
    #[must_use]
    pub fn names_in(&self, directory: &[u8]) -> Option<Vec<CString>> {
        if with_ancestors(directory).any(|path| self.wanted.contains_key(path)) {
            return None;
        }
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let below = self.wanted.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let mut names: Vec<CString> = below
            .filter_map(|(path, _)| CString::new(path[prefix.len()..].split(|b| *b == b'/').next()?).ok())
            .collect();
        names.dedup();
        Some(names)
    }

    /// Entries of the list that did not fail again, and lie below none that did.
    #[must_use]
    pub fn settled(&self) -> Vec<Vec<u8>> {
        let failed = lock(&self.failed);
        let settled = |path: &&Vec<u8>| !with_ancestors(path).any(|path| failed.contains(path));
        self.listed.iter().filter(settled).cloned().collect()
    }
}

/// A path and all above it, the root (empty) first.
fn with_ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    std::iter::once(0).chain(ends).chain([path.len()]).map(|end| &path[..end])
}

/// What stands at a path of the source, one component at a time.
fn look(source: &OwnedFd, path: &[u8]) -> io::Result<Stat> {
    let mut names = path.split(|b| *b == b'/').collect::<Vec<_>>();
    let last = CString::new(names.pop().unwrap_or_default())?;
    let mut at = source.try_clone()?;
    for name in names {
        at = sys::open_directory(at.as_fd(), &CString::new(name)?)?;
    }
    sys::stat_at(at.as_fd(), &last)
}

impl Run<'_> {
    /// A name on the list that the source does not have: settled where the destination has none either,
    /// or where nobody asked for it.
    pub fn gone(&self, retry: &Retry, path: Vec<u8>, stands: bool) {
        let missing = retry.wanted.get(&path).copied().unwrap_or_default();
        let (class, side, operation) = if missing {
            (Class::Missing, Side::Source, "find what --files-from names")
        } else if stands {
            (Class::Vanished, Side::Destination, "delete it in a retry, which deletes nothing")
        } else {
            return;
        };
        self.fail_entry(EntryError { class, side, operation, path, source: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(paths: &[&str]) -> Retry {
        let listed: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let wanted = listed.iter().map(|path| (path.clone(), false)).collect();
        Retry { wanted, failed: Mutex::default(), listed }
    }

    fn names(retry: &Retry, directory: &str) -> Option<Vec<String>> {
        let names = retry.names_in(directory.as_bytes())?;
        Some(names.into_iter().map(|name| name.into_string().unwrap()).collect())
    }

    #[test]
    fn only_names_that_lead_to_what_failed_are_looked_at() {
        let retry = retry(&["a/b/f", "a/b.c", "a/d", "z"]);
        assert_eq!(names(&retry, "").unwrap(), ["a", "z"]);
        assert_eq!(names(&retry, "a").unwrap(), ["b.c", "b", "d"]);
        assert_eq!(names(&retry, "a/b").unwrap(), ["f"]);
        assert_eq!(names(&retry, "a/x").unwrap(), Vec::<String>::new());
        assert_eq!(names(&retry, "a/d"), None, "a directory that failed stands for all below it");
        assert_eq!(names(&retry, "a/d/e"), None);
    }

    #[test]
    fn what_fails_again_and_what_lies_below_it_stays_on_the_list() {
        let retry = retry(&["a/b/f", "a/c", "d"]);
        retry.fail(b"a/b");
        retry.fail(b"a/c");
        assert_eq!(retry.settled(), [b"d"]);
        retry.start_pass();
        assert_eq!(retry.settled().len(), 3);
    }
}
