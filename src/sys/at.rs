//! Opening entries below a held directory: one component at a time, following nothing.
//!
//! The attack each measure answers: a tenant swaps a component for a symlink (`O_NOFOLLOW`,
//! `NO_SYMLINKS`), a server lists `..` or a path (`single`), a link leads into `/proc`
//! (`NO_MAGICLINKS`), or something is mounted over the name (`NO_XDEV`). A FIFO or a terminal put in a
//! file's place can neither block (`O_NONBLOCK`) nor become the controlling terminal (`O_NOCTTY`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// `BENEATH` is not among them: a single name that is neither `..` nor holds a slash can't lead
/// out, [`single`] makes sure that it is one, and the kernel's check takes a lock of all mounts for
/// every open.
const RESOLVE: ResolveFlags = ResolveFlags::NO_MAGICLINKS.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Refuses what is not one component: a hostile server may list `../../etc`.
fn single(name: &CStr) -> io::Result<&CStr> {
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    Ok(name)
}

const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a root that the user named: the only place where a path of more than one component, and
/// symlinks in it, are followed.
///
/// # Errors
/// `ENOTDIR` when it is not a directory, and whatever `open` says.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::open(path, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// Opens a root below a directory that an operator has allowed: whoever owns a directory on the way can lead
/// it nowhere else. Mounts are crossed, because shares are mounted there.
///
/// # Errors
/// `ELOOP` at a symlink, `EXDEV` where the way leads out of the directory, and whatever `openat2` says.
pub fn open_beneath(directory: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(directory, path, flags | OFlags::NOATIME, Mode::empty(), resolve) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)?),
        other => Ok(other?),
    }
}

/// Holds a directory that the user named without opening it: enough to ask what it is, and allowed
/// after the process was confined to others.
///
/// # Errors
/// As [`open_root`].
pub fn hold_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a subdirectory for listing, leaving its access time alone where the caller may.
///
/// # Errors
/// `EXDEV` at a mount, `ELOOP` or `ENOTDIR` when another type stands there by now.
pub fn open_directory(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_quietly(directory, name, flags)
}

/// How a file is opened for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Through the page cache.
    Cached,
    /// Past the page cache (`O_DIRECT`).
    Direct,
}

/// Opens a regular file for reading, leaving its access time alone where the caller may. The caller
/// checks the type on the descriptor.
///
/// # Errors
/// `EINVAL` for [`ReadMode::Direct`] where the file system knows no direct I/O, and whatever
/// `openat2` says.
pub fn open_read(directory: BorrowedFd<'_>, name: &CStr, mode: ReadMode) -> io::Result<OwnedFd> {
    let flags = match mode {
        ReadMode::Direct => READ | OFlags::DIRECT,
        ReadMode::Cached => READ,
    };
    open_quietly(directory, name, flags)
}

/// Opens without moving the access time. Only the owner and CAP_FOWNER may; others get EPERM, and
/// open as everybody does.
fn open_quietly(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let name = single(name)?;
    match rustix::fs::openat2(directory, name, flags | OFlags::NOATIME, Mode::empty(), RESOLVE) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::openat2(directory, name, flags, Mode::empty(), RESOLVE)?),
        other => Ok(other?),
    }
}

/// Creates a file that must not exist, open for reading and writing. With `O_EXCL` the last
/// component is never followed, and there is no other (`open(2)`).
///
/// # Errors
/// `EEXIST` when the name is taken, and whatever `open` says.
pub fn create(directory: BorrowedFd<'_>, name: &CStr, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, single(name)?, flags, mode)?)
}

/// Opens a regular file that a run of copyd has made, for reading and writing.
///
/// # Errors
/// Whatever `openat2(2)` says.
pub fn open_write(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(directory, single(name)?, flags, Mode::empty(), RESOLVE)?)
}

/// Writes back everything that is dirty on the file system of `fd`, and says whether anything
/// failed since this descriptor was opened (Linux 5.8; `syncfs(2)`).
///
/// # Errors
/// The first write-back error since the descriptor was opened.
pub fn sync_file_system(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Where data and holes lie from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Data begins at `start` and ends before `end`.
    Data { start: u64, end: u64 },
    /// No data from `offset` to the end of the file.
    HoleToEnd,
}

/// The next run of data at or after `offset`, by `SEEK_DATA` and `SEEK_HOLE`. A file system that
/// knows nothing of holes answers with one run to the end, and so does this where the question
/// itself is refused: a read of what can't be read says so soon enough. The SMB client of Linux 6.1
/// answers `EIO` for a file with two runs of data on Samba 4.17.
///
/// # Errors
/// Whatever `lseek` says, but `ENXIO`, which means that no data follows, and `EIO`, `EINVAL` and
/// `EOPNOTSUPP`.
pub fn next_extent(fd: impl AsFd, offset: u64) -> io::Result<Extent> {
    use rustix::fs::SeekFrom;
    use rustix::io::Errno;
    let fd = fd.as_fd();
    let start = match rustix::fs::seek(fd, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(Extent::HoleToEnd),
        Err(Errno::IO | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Extent::Data { start: offset, end: u64::MAX }),
        Err(e) => return Err(e.into()),
    };
    let end = match rustix::fs::seek(fd, SeekFrom::Hole(start)) {
        Ok(end) => end,
        // The file was truncated between the calls; its fingerprint will tell.
        Err(Errno::NXIO) => return Ok(Extent::HoleToEnd),
        Err(Errno::IO | Errno::INVAL | Errno::OPNOTSUPP) => u64::MAX,
        Err(e) => return Err(e.into()),
    };
    Ok(Extent::Data { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_question_for_holes_is_refused_everything_counts_as_data() {
        // A file of /proc refuses it with EINVAL (seq_lseek).
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Err(rustix::io::Errno::INVAL));
        assert_eq!(next_extent(&file, 0).unwrap(), Extent::Data { start: 0, end: u64::MAX });
    }
}
