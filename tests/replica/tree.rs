//! A tree in memory: every entry by its path, with all that a copy has to keep.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What an entry is, with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    Fifo,
}

impl Content {
    pub const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory)
    }
}

/// What a copy takes along besides the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub content: Content,
    pub metadata: Metadata,
    pub inode: u64,
}

/// Paths from the root, which is the empty one; a directory's entries come after it.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// Names at the root of a destination that are copyd's own.
fn is_of_copyd(path: &[u8]) -> bool {
    path.starts_with(b".copyd-")
}

/// Reads a tree, without what copyd keeps for itself at its root.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    tree.insert(Vec::new(), entry(root)?);
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        for found in fs::read_dir(at(root, &directory))? {
            let path = joined(&directory, &found?.file_name().into_vec());
            if is_of_copyd(&path) {
                continue;
            }
            let entry = entry(&at(root, &path))?;
            if entry.content.is_directory() {
                pending.push(path.clone());
            }
            tree.insert(path, entry);
        }
    }
    Ok(tree)
}

pub fn at(root: &Path, path: &[u8]) -> std::path::PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

pub fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

pub fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// How many names a path has.
pub fn depth(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { path.split(|byte| *byte == b'/').count() }
}

/// Whether `path` lies below `directory`.
pub fn is_below(path: &[u8], directory: &[u8]) -> bool {
    !path.is_empty()
        && (directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/")))
}

/// The paths of a directory's own entries.
pub fn children<'t>(tree: &'t Tree, directory: &'t [u8]) -> impl Iterator<Item = &'t Vec<u8>> {
    tree.keys().filter(move |path| !path.is_empty() && parent(path) == directory)
}

/// An entry with everything below it.
pub fn subtree<'t>(tree: &'t Tree, top: &'t [u8]) -> impl Iterator<Item = &'t Vec<u8>> {
    tree.keys().filter(move |path| &***path == top || is_below(path, top))
}

fn entry(path: &Path) -> io::Result<Entry> {
    let stat = fs::symlink_metadata(path)?;
    let kind = stat.file_type();
    let content = if kind.is_dir() {
        Content::Directory
    } else if kind.is_symlink() {
        Content::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_fifo() {
        Content::Fifo
    } else {
        Content::File(fs::read(path)?)
    };
    let mtime = (stat.mtime(), stat.mtime_nsec());
    let metadata =
        Metadata { mode: stat.mode() & 0o7777, owner: (stat.uid(), stat.gid()), mtime, xattrs: xattrs(path)? };
    Ok(Entry { content, metadata, inode: stat.ino() })
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let (mut names, mut value) = (vec![0; 1024], vec![0; 1024]);
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let len = rustix::fs::lgetxattr(path, OsString::from_vec(name.to_vec()), &mut value[..])?;
        found.insert(name.to_vec(), value[..len].to_vec());
    }
    Ok(found)
}
