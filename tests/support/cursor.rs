//! A place in a tree of any depth: one held directory, and the names that led there.
//!
//! Trees here are thousands of levels deep, beyond `PATH_MAX` and beyond any stack. So nothing
//! recurses, no path is handed to the kernel, and one descriptor is held however deep it goes:
//! the way back is `..`, and the directory it gives is checked against the one that was left.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags};

/// What identifies an inode: major and minor number of its device, and its number there.
pub type Identity = (u32, u32, u64);

pub fn identity(stat: &Statx) -> Identity {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

pub fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// `statx` of a single name, never following.
pub fn stat_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?)
}

pub fn stat_fd(fd: impl AsFd) -> io::Result<Statx> {
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?)
}

/// Opens a name for reading without moving its access time where the caller may ask for that.
/// Only for files and directories: the caller has looked at the type.
pub fn open_at(directory: BorrowedFd<'_>, name: &CStr, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Cursor {
    here: OwnedFd,
    above: Vec<(CString, Identity)>,
}

impl Cursor {
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { here: rustix::fs::openat(CWD, root, flags, Mode::empty())?, above: Vec::new() })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    pub fn depth(&self) -> usize {
        self.above.len()
    }

    pub fn enter(&mut self, name: &CStr) -> io::Result<()> {
        let parent = identity(&stat_fd(&self.here)?);
        self.here = open_at(self.here.as_fd(), name, OFlags::DIRECTORY)?;
        self.above.push((name.to_owned(), parent));
        Ok(())
    }

    /// Goes one level up and returns the name of the directory that was left.
    pub fn leave(&mut self) -> io::Result<CString> {
        let (name, parent) = self.above.pop().ok_or_else(|| io::Error::other("already at the root"))?;
        let up = open_at(self.here.as_fd(), c"..", OFlags::DIRECTORY)?;
        if identity(&stat_fd(&up)?) != parent {
            return Err(io::Error::other("the tree moved while it was read"));
        }
        self.here = up;
        Ok(name)
    }

    /// The names in this directory, sorted by their bytes.
    pub fn names(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::new(open_at(self.here.as_fd(), c".", OFlags::DIRECTORY)?)? {
            let name = entry?.file_name().to_owned();
            if name.as_bytes() != b"." && name.as_bytes() != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Path of `name` from the root, with slashes; `name` may be empty for this directory itself.
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = Vec::new();
        for (step, _) in &self.above {
            path.extend_from_slice(step.as_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if name.is_empty() {
            path.pop();
        }
        path
    }
}
