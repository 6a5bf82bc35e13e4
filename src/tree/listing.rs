//! Listing a directory in bounded memory.
//!
//! Entries come in pages of [`limits::LISTING_PAGE`], each page sorted by inode: that is the order
//! in which file systems lay inodes out, so the following statx and reads walk the disk forwards.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{RawDir, SeekFrom};

use crate::error::TooManyEntries;
use crate::limits;

/// A name as getdents64 gave it. Its type is asked of statx, which can't be out of date as long.
#[derive(Debug)]
pub struct Listed {
    pub name: CString,
    pub ino: u64,
}

/// Lists `directory` from its beginning and hands over page after page, `most` entries in all.
///
/// # Errors
/// [`TooManyEntries`] past those, whatever getdents64 says, and the first error of `page`. What was handed over before stays so:
/// the caller knows then that the listing is not whole.
pub fn pages<E: From<io::Error>>(
    directory: &OwnedFd,
    most: u64,
    mut page: impl FnMut(&mut Vec<Listed>) -> Result<(), E>,
) -> Result<(), E> {
    rustix::fs::seek(directory, SeekFrom::Start(0)).map_err(io::Error::from)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(limits::LISTING_BUFFER_BYTES);
    let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
    let (mut listed, mut left) = (Vec::new(), most);
    while let Some(entry) = raw.next() {
        let entry = entry.map_err(io::Error::from)?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        left = left.checked_sub(1).ok_or_else(|| io::Error::from(TooManyEntries { most }))?;
        listed.push(Listed { name: name.to_owned(), ino: entry.ino() });
        if listed.len() == limits::LISTING_PAGE {
            hand_over(&mut listed, &mut page)?;
        }
    }
    hand_over(&mut listed, &mut page)
}

fn hand_over<E>(listed: &mut Vec<Listed>, page: &mut impl FnMut(&mut Vec<Listed>) -> Result<(), E>) -> Result<(), E> {
    if listed.is_empty() {
        return Ok(());
    }
    listed.sort_unstable_by_key(|entry| entry.ino);
    page(listed)?;
    listed.clear();
    Ok(())
}

/// The names of a whole directory in one arena, and which of them were asked for.
///
/// A destination directory of 10^6 entries costs its names and five bytes for each.
#[derive(Debug, Default)]
pub struct Names {
    arena: Vec<u8>,
    /// Start of each name in the arena, sorted by name; a name ends at its NUL.
    starts: Vec<u32>,
    seen: Vec<bool>,
}

impl Names {
    /// Reads all names of `directory`, `most` in all.
    ///
    /// # Errors
    /// As [`pages`]; `OutOfMemory` past 4 GiB of names.
    pub fn read(directory: &OwnedFd, most: u64) -> io::Result<Self> {
        let mut names = Self::default();
        pages::<io::Error>(directory, most, |page| {
            for entry in page.iter() {
                let start = u32::try_from(names.arena.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
                names.starts.push(start);
                names.arena.extend_from_slice(entry.name.as_bytes_with_nul());
            }
            Ok(())
        })?;
        let arena = &names.arena;
        names.starts.sort_unstable_by(|a, b| name_at(arena, *a).cmp(name_at(arena, *b)));
        names.seen = vec![false; names.starts.len()];
        Ok(names)
    }

    /// Whether `name` is among them; it counts as seen from now on.
    pub fn see(&mut self, name: &CStr) -> bool {
        let found = self.starts.binary_search_by(|start| name_at(&self.arena, *start).cmp(name));
        if let Ok(index) = found {
            self.seen[index] = true;
        }
        found.is_ok()
    }

    /// All names, with whether each was seen.
    pub fn iter(&self) -> impl Iterator<Item = (&CStr, bool)> {
        self.starts.iter().zip(&self.seen).map(|(start, seen)| (name_at(&self.arena, *start), *seen))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

fn name_at(arena: &[u8], start: u32) -> &CStr {
    // Every start was taken where a NUL-terminated name was put; the fallback is never reached.
    CStr::from_bytes_until_nul(&arena[start as usize..]).unwrap_or(c"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_larger_than_a_page_is_listed_whole_and_twice() {
        let dir = tempfile::tempdir().unwrap();
        let count = limits::LISTING_PAGE + 77;
        for i in 0..count {
            std::fs::write(dir.path().join(format!("f{i}")), b"").unwrap();
        }
        let fd = crate::sys::open_root(dir.path()).unwrap();
        for _ in 0..2 {
            let mut seen = std::collections::HashSet::new();
            pages::<io::Error>(&fd, count as u64, |page| {
                assert!(page.is_sorted_by_key(|e| e.ino));
                seen.extend(page.iter().map(|e| e.name.clone()));
                Ok(())
            })
            .unwrap();
            assert_eq!(seen.len(), count);
        }
        let one_less = pages::<io::Error>(&fd, count as u64 - 1, |_| Ok(()));
        assert_eq!(crate::error::Class::of(&one_less.unwrap_err()), crate::error::Class::OverLimit);
    }

    #[test]
    fn names_know_which_of_them_were_seen() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let mut names = Names::read(&crate::sys::open_root(dir.path()).unwrap(), 3).unwrap();
        assert!(names.see(c"b") && !names.see(c"d"));
        let all: Vec<_> = names.iter().map(|(n, s)| (n.to_bytes().to_vec(), s)).collect();
        assert_eq!(all, [(b"a".to_vec(), false), (b"b".to_vec(), true), (b"c".to_vec(), false)]);
    }
}
