//! What must not move: a tree beside the roots, and snapshots of what a run may not touch.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};

use super::cursor::{Cursor, file_type, open_at, stat_at, stat_fd};
use super::escaped;

/// Bytes of a file that a snapshot keeps.
const CONTENT_MAX: u64 = 1 << 20;

/// How one entry stood.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    mode: u16,
    owner: (u32, u32),
    links: u32,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    /// Not of symbolic links, whose target can't be read without moving it.
    atime: (i64, u32),
    /// Bytes of a file up to [`CONTENT_MAX`], target of a link. What is larger is told by its
    /// ctime, which no program can put back.
    content: Vec<u8>,
}

impl Seen {
    fn of(stat: &rustix::fs::Statx, content: Vec<u8>) -> Self {
        let time = |t: &rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
        let link = file_type(stat) == FileType::Symlink;
        Self {
            inode: stat.stx_ino,
            mode: stat.stx_mode,
            owner: (stat.stx_uid, stat.stx_gid),
            links: stat.stx_nlink,
            size: stat.stx_size,
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            atime: if link { (0, 0) } else { time(&stat.stx_atime) },
            content,
        }
    }

    /// What differs from an earlier look, in words; empty when nothing does.
    fn changes(&self, earlier: &Self, reading_counts: bool) -> String {
        let parts = [
            (self.inode != earlier.inode, "inode"),
            (self.mode != earlier.mode, "mode"),
            (self.owner != earlier.owner, "owner"),
            (self.links != earlier.links, "links"),
            (self.size != earlier.size, "size"),
            (self.mtime != earlier.mtime, "mtime"),
            (self.ctime != earlier.ctime, "ctime"),
            (self.content != earlier.content, "bytes"),
            (reading_counts && self.atime != earlier.atime, "atime (it was read)"),
        ];
        let words: Vec<_> = parts.iter().filter_map(|(differs, word)| differs.then_some(*word)).collect();
        words.join(", ")
    }
}

/// How every entry of a tree stood at one moment, its root left out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    entries: BTreeMap<Vec<u8>, Seen>,
}

impl Snapshot {
    /// Looks at all of a tree, without moving access times. Holds every small file's content, so it
    /// is for small trees.
    pub fn take(root: &Path) -> io::Result<Self> {
        let mut cursor = Cursor::open(root)?;
        let mut entries = BTreeMap::new();
        let mut pending = vec![cursor.names()?];
        while let Some(names) = pending.last_mut() {
            let Some(name) = names.pop() else {
                pending.pop();
                if !pending.is_empty() {
                    cursor.leave()?;
                }
                continue;
            };
            let stat = stat_at(cursor.fd(), &name)?;
            let mut content = Vec::new();
            match file_type(&stat) {
                FileType::RegularFile if stat.stx_size <= CONTENT_MAX => {
                    File::from(open_at(cursor.fd(), &name, OFlags::empty())?).read_to_end(&mut content)?;
                }
                FileType::Symlink => {
                    content = rustix::fs::readlinkat(cursor.fd(), &name, Vec::new())?.into_bytes();
                }
                _ => {}
            }
            entries.insert(cursor.path_of(&name), Seen::of(&stat, content));
            if file_type(&stat) == FileType::Directory {
                cursor.enter(&name)?;
                pending.push(cursor.names()?);
            }
        }
        Ok(Self { entries })
    }

    /// What has changed since, a line each.
    pub fn changes(&self, root: &Path, reading_counts: bool) -> io::Result<Vec<String>> {
        let now = Self::take(root)?;
        let mut lines = Vec::new();
        for (path, seen) in &now.entries {
            match self.entries.get(path) {
                None => lines.push(format!("{}: appeared", escaped(path))),
                Some(earlier) => {
                    let changes = seen.changes(earlier, reading_counts);
                    if !changes.is_empty() {
                        lines.push(format!("{}: {changes}", escaped(path)));
                    }
                }
            }
        }
        let gone = self.entries.keys().filter(|path| !now.entries.contains_key(*path));
        lines.extend(gone.map(|path| format!("{}: gone", escaped(path))));
        Ok(lines)
    }

    /// Panics unless the tree stands as it stood, but for access times.
    pub fn assert_unchanged(&self, root: &Path, why: &str) {
        let changes = self.changes(root, false).expect("the tree can be read again");
        assert!(changes.is_empty(), "{why}: {} changed:\n  {}", root.display(), changes.join("\n  "));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A tree outside the roots of a run. Reading it moves an access time, writing it anything else.
/// Looks again when it is dropped.
#[derive(Debug)]
pub struct Canary {
    root: PathBuf,
    planted: Snapshot,
    root_planted: Seen,
}

impl Canary {
    /// Makes `canary/` in an existing directory.
    pub fn plant(beside: &Path) -> Self {
        let root = beside.join("canary");
        let made: io::Result<_> = (|| {
            fs::create_dir(&root)?;
            fs::create_dir(root.join("directory"))?;
            fs::write(root.join("secret"), b"canary: nobody reads this\n")?;
            fs::write(root.join("directory/deeper"), b"nor this\n")?;
            fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o600))?;
            fs::hard_link(root.join("secret"), root.join("second-name"))?;
            symlink("secret", root.join("link"))?;
            for path in ["secret", "directory/deeper", "directory", "."] {
                set_atime_long_ago(&root.join(path))?;
            }
            Ok((Snapshot::take(&root)?, root_seen(&root)?))
        })();
        let (planted, root_planted) = made.expect("a canary can be planted");
        assert_eq!(planted.len(), 5, "the canary is whole");
        Self { root, planted, root_planted }
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What has moved, a line each.
    pub fn changes(&self) -> io::Result<Vec<String>> {
        let mut changes = self.planted.changes(&self.root, true)?;
        let of_root = root_seen(&self.root)?.changes(&self.root_planted, true);
        if !of_root.is_empty() {
            changes.push(format!("the canary's root: {of_root}"));
        }
        Ok(changes)
    }

    pub fn assert_untouched(&self) {
        let changes = self.changes().expect("the canary can be read");
        assert!(changes.is_empty(), "something outside the roots was touched:\n  {}", changes.join("\n  "));
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_untouched();
        }
    }
}

fn root_seen(root: &Path) -> io::Result<Seen> {
    let directory = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    Ok(Seen::of(&stat_fd(&directory)?, Vec::new()))
}

/// Puts the access time into 2001: under `relatime` the next read then moves it, by more than any
/// clock's grain.
fn set_atime_long_ago(path: &Path) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    };
    Ok(rustix::fs::utimensat(CWD, path.as_os_str().as_bytes(), &times, AtFlags::empty())?)
}
