//! Removing a tree at the destination: counted first, then deepest first, never across a mount.
//!
//! One descriptor chain from the directory that was asked for, one name at a time, iterative:
//! a tree that a tenant made 5,000 levels deep, or that holds a link to `/`, is removed like any
//! other, and nothing outside it is touched.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;

use crate::error::Side;
use crate::fidelity::Locks;
use crate::sys::{self, Kind, Stat};
use crate::tree::listing;
use crate::tree::node::{Handles, Node};

use super::lift;

/// One entry of a tree that is walked: called for each, children before their directory; the last one
/// is the top of the tree.
type Visit<'a> = dyn FnMut(&OwnedFd, &CStr, &Stat, Place) -> io::Result<()> + 'a;

/// Where in the tree an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Top,
    Below,
}

/// Entries of the tree at `name`, itself included.
///
/// # Errors
/// Any listing error: what can't be counted must not be deleted.
pub fn count(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<u64> {
    let mut entries = 0;
    walk(directory, name, &mut |_, _, _, _| {
        entries += 1;
        Ok(())
    })?;
    Ok(entries)
}

/// Removes the tree at `name` and says how many entries went, those among them that are immutable.
/// Flags that had to be lifted from `directory` itself are handed to `taken`.
///
/// # Errors
/// The first entry that can't be removed ends it; what went before stays gone. A mount inside
/// is `EXDEV`.
pub fn tree(directory: BorrowedFd<'_>, name: &CStr, taken: &mut dyn FnMut(Locks)) -> io::Result<u64> {
    tree_while(directory, name, taken, &mut || true)
}

/// As [`tree`], as long as `go_on` says so before each entry.
///
/// # Errors
/// As [`tree`], and `Interrupted` where it was told to stop.
pub fn tree_while(
    directory: BorrowedFd<'_>,
    name: &CStr,
    taken: &mut dyn FnMut(Locks),
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<u64> {
    let mut removed = 0;
    walk(directory, name, &mut |parent, name, stat, place| {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let flags = if stat.kind == Kind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let mut from_parent = |locks| {
            // A directory of the tree is about to go: nothing has to come back to it.
            if place == Place::Top {
                taken(locks);
            }
        };
        let entries = [(parent.as_fd(), name)];
        let gone = lift::without_locks(parent.as_fd(), &entries, &mut from_parent, || {
            rustix::fs::unlinkat(parent, name, flags)
        });
        match gone {
            Ok(()) => removed += 1,
            // Gone all the same: somebody else was faster, or a server did it and its answer was lost.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(())
    })?;
    Ok(removed)
}

/// A directory on the way down: its node, and the entries of it that are still to be visited.
struct Level {
    node: Arc<Node<()>>,
    stat: Stat,
    left: Vec<CString>,
}

fn walk(directory: BorrowedFd<'_>, name: &CStr, visit: &mut Visit<'_>) -> io::Result<()> {
    let top = sys::stat_at(directory, name)?;
    let above = Arc::new(directory.try_clone_to_owned()?);
    if top.kind != Kind::Directory {
        return visit(&above, name, &top, Place::Top);
    }
    let root = Node::root(Handles::new(crate::limits::REMOVE_HANDLES), above, None, ());
    let mut levels = vec![descend(&root, name.to_owned(), top)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            let Some(done) = levels.pop() else { break };
            let parent = done.node.parent().map(|p| p.open(Side::Source)).transpose()?;
            done.node.close();
            if let Some(parent) = parent {
                let place = if levels.is_empty() { Place::Top } else { Place::Below };
                visit(&parent, done.node.name(), &done.stat, place)?;
            }
            continue;
        };
        let fd = level.node.open(Side::Source)?;
        let stat = match sys::stat_at(fd.as_fd(), &name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if stat.kind == Kind::Directory {
            let below = descend(&level.node, name, stat)?;
            levels.push(below);
        } else {
            visit(&fd, &name, &stat, Place::Below)?;
        }
    }
    Ok(())
}

fn descend(parent: &Arc<Node<()>>, name: CString, stat: Stat) -> io::Result<Level> {
    let node = parent.child(name, ());
    let mut left = Vec::new();
    listing::pages::<io::Error>(&*node.open(Side::Source)?, crate::limits::DIRECTORY_ENTRIES_MAX, |page| {
        left.extend(page.drain(..).map(|entry| entry.name));
        Ok(())
    })?;
    Ok(Level { node, stat, left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_and_removed_and_what_its_links_point_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, b"mine").unwrap();
        let doomed = dir.path().join("doomed");
        std::fs::create_dir_all(doomed.join("a/b")).unwrap();
        std::fs::write(doomed.join("a/b/f"), b"").unwrap();
        std::os::unix::fs::symlink(&victim, doomed.join("a/link")).unwrap();
        std::os::unix::fs::symlink("/", doomed.join("a/root")).unwrap();
        std::fs::hard_link(&victim, doomed.join("hard")).unwrap();
        let fd = sys::open_root(dir.path()).unwrap();
        assert_eq!(count(fd.as_fd(), c"doomed").unwrap(), 7);
        assert_eq!(tree(fd.as_fd(), c"doomed", &mut |_| {}).unwrap(), 7);
        assert!(!doomed.exists());
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }
}
