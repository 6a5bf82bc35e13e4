//! Inode flags, project ids and extent-size hints (`ioctl_iflags(2)`, `ioctl_xfs_fsgetxattr(2)`).
//!
//! Two families of ioctl overlap: `FS_IOC_GETFLAGS` knows what ext4 and btrfs have,
//! `FS_IOC_FSGETXATTR` what xfs has and project ids everywhere. By name, without opening, Linux
//! 6.17 offers the second family as `file_getattr` and `file_setattr`. The descriptors given here
//! must be of files or directories: to a device, an ioctl may mean anything.

#![expect(unsafe_code, reason = "ioctls and the calls of Linux 6.17 have no safe wrapper")]

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::opcode;

use super::attributes::Answer;

/// `struct fsxattr` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedFlags {
    /// `FS_XFLAG_*`.
    pub flags: u32,
    /// Extent size hint, bytes.
    pub extent_size: u32,
    /// Number of extents; only read.
    pub extents: u32,
    pub project: u32,
    /// Extent size hint for copies on write, bytes.
    pub cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct file_attr` of `<linux/fs.h>`, Linux 6.17.
#[repr(C, align(8))]
#[derive(Default)]
struct FileAttr {
    flags: u64,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
}

/// The numbers, which carry the size of what they pass. The first two say `long`, but the kernel
/// reads and writes an `int` (`ioctl_iflags(2)`).
#[allow(clippy::cast_lossless, clippy::cast_possible_wrap, reason = "C libraries differ on the type of a number")]
mod number {
    use super::{ExtendedFlags, c_long, opcode};

    pub const GETFLAGS: libc::Ioctl = opcode::read::<c_long>(b'f', 1) as libc::Ioctl;
    pub const SETFLAGS: libc::Ioctl = opcode::write::<c_long>(b'f', 2) as libc::Ioctl;
    pub const FSGETXATTR: libc::Ioctl = opcode::read::<ExtendedFlags>(b'X', 31) as libc::Ioctl;
    pub const FSSETXATTR: libc::Ioctl = opcode::write::<ExtendedFlags>(b'X', 32) as libc::Ioctl;
}

/// Numbers of the calls of Linux 6.17: the same on every architecture but alpha.
const FILE_GETATTR: c_long = 468;
const FILE_SETATTR: c_long = 469;

fn done(result: c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The `FS_*_FL` flags of a file or directory.
///
/// # Errors
/// Whatever the ioctl says.
pub fn get_flags(fd: BorrowedFd<'_>) -> io::Result<Answer<u32>> {
    let mut flags: c_long = 0;
    // SAFETY: the kernel writes an `int`, at most a `long`, to `flags`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number::GETFLAGS, &raw mut flags) };
    // SAFETY: a `long` holds an `int` at its address; every bit pattern is one.
    let flags = unsafe { (&raw const flags).cast::<u32>().read() };
    Answer::of(done(result.into()).map(|()| flags))
}

/// Sets all settable `FS_*_FL` flags at once.
///
/// # Errors
/// `EPERM` without `CAP_LINUX_IMMUTABLE` or ownership, `EINVAL` for flags that exclude each other,
/// and whatever the ioctl says.
pub fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> io::Result<Answer> {
    let mut argument: c_long = 0;
    // SAFETY: a `long` has room for an `int` at its address.
    unsafe { (&raw mut argument).cast::<u32>().write(flags) };
    // SAFETY: the kernel reads an `int`, at most a `long`, from `argument`.
    let result: c_int = unsafe { libc::ioctl(fd.as_raw_fd(), number::SETFLAGS, &raw const argument) };
    Answer::of(done(result.into()))
}

/// The extended flags of a file or directory.
///
/// # Errors
/// Whatever the ioctl says.
pub fn get_extended_flags(fd: BorrowedFd<'_>) -> io::Result<Answer<ExtendedFlags>> {
    let mut answer = ExtendedFlags::default();
    // SAFETY: `answer` is the kernel's own layout, of the size that is part of the number.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number::FSGETXATTR, &raw mut answer) };
    Answer::of(done(result.into()).map(|()| answer))
}

/// Sets the extended flags, hints and project id of a file or directory.
///
/// # Errors
/// `EPERM` without ownership, `EINVAL` for a hint that does not fit the block size or comes after
/// the data, or from another user namespace than the first, and whatever the ioctl says.
pub fn set_extended_flags(fd: BorrowedFd<'_>, wanted: &ExtendedFlags) -> io::Result<Answer> {
    // SAFETY: `wanted` is the kernel's own layout, of the size that is part of the number.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number::FSSETXATTR, &raw const *wanted) };
    Answer::of(done(result.into()))
}

/// The extended flags of an entry of any type, by (directory, single name); of the descriptor
/// itself where the name is empty. Unsupported before Linux 6.17, and for most special files.
///
/// # Errors
/// Whatever `file_getattr` says.
pub fn get_extended_flags_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Answer<ExtendedFlags>> {
    let mut answer = FileAttr::default();
    // SAFETY: the name is a C string; `answer` is the kernel's own layout, whose size is told.
    let result = unsafe {
        libc::syscall(
            FILE_GETATTR,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw mut answer,
            size_of::<FileAttr>(),
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
        )
    };
    Answer::of(done(result).map(|()| ExtendedFlags {
        // The upper half is not in use; what it may hold one day can't be carried by ioctl.
        flags: u32::try_from(answer.flags & u64::from(u32::MAX)).unwrap_or_default(),
        extent_size: answer.extent_size,
        extents: answer.extents,
        project: answer.project,
        cow_extent_size: answer.cow_extent_size,
        padding: [0; 8],
    }))
}

/// Sets the extended flags of an entry of any type, by (directory, single name).
///
/// # Errors
/// Whatever `file_setattr` says.
pub fn set_extended_flags_at(directory: BorrowedFd<'_>, name: &CStr, wanted: &ExtendedFlags) -> io::Result<Answer> {
    let argument = FileAttr {
        flags: wanted.flags.into(),
        extent_size: wanted.extent_size,
        extents: 0,
        project: wanted.project,
        cow_extent_size: wanted.cow_extent_size,
    };
    // SAFETY: the name is a C string; `argument` is the kernel's own layout, whose size is told.
    let result = unsafe {
        libc::syscall(
            FILE_SETATTR,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw const argument,
            size_of::<FileAttr>(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    Answer::of(done(result))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    const FS_NODUMP_FL: u32 = 0x40;
    const FS_XFLAG_NODUMP: u32 = 0x80;

    #[test]
    fn a_flag_set_by_descriptor_is_seen_by_both_families_and_by_name() {
        let room = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let directory = File::open(room.path()).expect("open it");
        let file = File::create(room.path().join("file")).expect("create");
        assert!(set_flags(file.as_fd(), FS_NODUMP_FL).expect("set").is_done());
        assert_eq!(get_flags(file.as_fd()).expect("get"), Answer::Done(FS_NODUMP_FL));
        let Answer::Done(by_fd) = get_extended_flags(file.as_fd()).expect("get") else { panic!("tmpfs answers") };
        assert_eq!(by_fd.flags, FS_XFLAG_NODUMP);
        let by_name = get_extended_flags_at(directory.as_fd(), c"file").expect("get");
        assert_eq!(by_name, Answer::Done(by_fd));
        let none = ExtendedFlags::default();
        assert!(set_extended_flags_at(directory.as_fd(), c"file", &none).expect("set").is_done());
        assert_eq!(get_flags(file.as_fd()).expect("get"), Answer::Done(0));
    }

    #[test]
    fn a_file_system_without_flags_says_so_instead_of_failing() {
        let file = File::open("/proc/self/status").expect("open");
        assert_eq!(get_flags(file.as_fd()).expect("answered"), Answer::Unsupported);
        assert_eq!(set_flags(file.as_fd(), 0).expect("answered"), Answer::Unsupported);
        assert_eq!(get_extended_flags(file.as_fd()).expect("answered"), Answer::Unsupported);
    }
}
