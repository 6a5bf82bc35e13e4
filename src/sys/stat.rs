//! What the kernel says of one entry: `statx` by descriptor or by (directory, single name).
//!
//! Every size and time here is the kernel's own, unrounded. Times are signed seconds and
//! nanoseconds, so dates before 1970 and after 2106 need no special care.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags};

/// A point in time as file systems keep it: signed seconds since 1970 and 0..10^9 nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z, negative before it.
    pub seconds: i64,
    /// Nanoseconds within the second, always forward.
    pub nanoseconds: u32,
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Kind {
    /// The `S_IFMT` bits of this type, as `mknodat` takes them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The type in a `st_mode`; `None` for a value that no Linux file system gives out.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The field's own word, as events and digests carry it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "char-device",
            Self::BlockDevice => "block-device",
        }
    }

    /// Whether the entry has a device number of its own.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// One entry's `statx`, without what copyd never uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission, set-id and sticky bits: `st_mode & 0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Bytes, logical.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    pub ino: u64,
    /// Device the inode lives on, `makedev` form. Btrfs gives each subvolume its own.
    pub dev: u64,
    /// Device number of a device node, `makedev` form; 0 for everything else.
    pub rdev: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Mount the entry was seen through; 0 before Linux 5.8.
    pub mount_id: u64,
    /// The entry is the root of a mount: something is mounted over the name.
    pub mount_root: bool,
}

impl Stat {
    /// Whether fewer blocks are allocated than the size needs: the file may hold holes.
    #[must_use]
    pub const fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

impl Stat {
    /// Whether its holes are few enough bytes to be read instead of believed, at most
    /// [`crate::limits::DOUBTED_HOLES_BYTES`].
    #[must_use]
    pub const fn holes_can_be_read(&self) -> bool {
        self.size.saturating_sub(self.blocks.saturating_mul(512)) <= crate::limits::DOUBTED_HOLES_BYTES
    }
}

const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// `statx` of an open descriptor, refreshed from the server where there is one
/// (`AT_STATX_FORCE_SYNC`), because fingerprints are compared with it.
///
/// # Errors
/// Whatever `statx` says; `InvalidData` for a type that Linux does not know.
pub fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    convert(&rustix::fs::statx(fd, c"", flags, MASK)?)
}

/// Whether an open descriptor is of a regular file: a type never changes, so no server is asked.
///
/// # Errors
/// Whatever `statx` says.
pub fn is_file(fd: impl AsFd) -> io::Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::TYPE)?;
    Ok(Kind::from_mode(u32::from(found.stx_mode)) == Some(Kind::File))
}

/// `statx` of a single name below a held directory; never follows, never triggers an automount.
///
/// # Errors
/// As [`stat_fd`].
pub fn stat_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    convert(&rustix::fs::statx(directory, name, flags, MASK)?)
}

fn convert(raw: &Statx) -> io::Result<Stat> {
    let time = |t: &rustix::fs::StatxTimestamp| Time { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    let kind = Kind::from_mode(u32::from(raw.stx_mode)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Stat {
        kind,
        mode: u32::from(raw.stx_mode) & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        nlink: raw.stx_nlink,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        ino: raw.stx_ino,
        dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        rdev: if kind.is_device() { rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor) } else { 0 },
        atime: time(&raw.stx_atime),
        mtime: time(&raw.stx_mtime),
        ctime: time(&raw.stx_ctime),
        mount_id: raw.stx_mnt_id,
        mount_root: raw.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}
