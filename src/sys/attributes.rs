//! Owner, mode and times of an entry, by its own descriptor or by (directory, single name).
//!
//! Nothing here follows a symlink and nothing sees a path of more than one component. Where the
//! kernel has no call of that kind, the way round goes through procfs, whose descriptor is opened
//! and checked once: a tenant can't mount over `/proc`.

#![expect(unsafe_code, reason = "fchmodat2 and getpwnam_r have no safe wrapper")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::thread::CapabilitySet;

use super::stat::{Stat, Time, stat_at, stat_fd};

/// How an entry is named to a system call.
#[derive(Clone, Copy, Debug)]
pub enum EntryRef<'a> {
    /// By a descriptor of its own: files and directories.
    Fd(BorrowedFd<'a>),
    /// By a single name below a held directory, never followed: symlinks and special files, and
    /// anything that is only looked at.
    At(BorrowedFd<'a>, &'a CStr),
}

impl EntryRef<'_> {
    /// `statx` of the entry.
    ///
    /// # Errors
    /// As [`stat_fd`].
    pub fn stat(self) -> io::Result<Stat> {
        match self {
            Self::Fd(fd) => stat_fd(fd),
            Self::At(directory, name) => stat_at(directory, name),
        }
    }

    /// A descriptor on the entry's file system.
    fn nearest(&self) -> BorrowedFd<'_> {
        match self {
            Self::Fd(fd) | Self::At(fd, _) => *fd,
        }
    }
}

/// What a call that not every file system knows has answered, besides failing.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T = ()> {
    Done(T),
    /// The file system or the kernel has no such thing; nothing was changed.
    Unsupported,
}

impl<T> Answer<T> {
    /// Sorts "not supported here" out of a call's errors.
    pub(super) fn of(result: io::Result<T>) -> io::Result<Self> {
        match result {
            Ok(value) => Ok(Self::Done(value)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY)) => {
                Ok(Self::Unsupported)
            }
            Err(e) => Err(e),
        }
    }

    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Sets owner and group; `None` leaves one as it is. The kernel clears set-id bits and
/// `security.capability` of everything but directories (`chown(2)`).
///
/// # Errors
/// `EPERM` without the right, `EINVAL` for an id that the user namespace or the kernel does not
/// know (all ones among them), and whatever `fchownat` says.
pub fn set_owner(entry: EntryRef<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(match entry {
        EntryRef::Fd(fd) => rustix::fs::fchown(fd, uid, gid),
        EntryRef::At(directory, name) => rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    }?)
}

/// Sets permission, set-id and sticky bits. Not for symlinks, which have none on Linux.
///
/// # Errors
/// `EOPNOTSUPP` for a symlink or where neither `fchmodat2` (Linux 6.6) nor procfs serves, and
/// whatever `fchmod` says.
pub fn set_mode(entry: EntryRef<'_>, mode: u32) -> io::Result<()> {
    match entry {
        EntryRef::Fd(fd) => Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?),
        EntryRef::At(directory, name) if has_fchmodat2() => set_mode_fchmodat2(directory, name, mode),
        EntryRef::At(directory, name) => set_mode_proc(directory, name, mode),
    }
}

/// The same number on every architecture but alpha: all calls since 424 share one table.
const FCHMODAT2: libc::c_long = 452;

fn fchmodat2(directory: c_int, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: the name is a C string that outlives the call; the kernel writes to no memory.
    let result = unsafe { libc::syscall(FCHMODAT2, directory, name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asked once with a descriptor that can't exist: a kernel that knows the call says `EBADF`.
/// Anything else is an old kernel, or a seccomp filter that hides the call.
fn has_fchmodat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| fchmodat2(-1, c"x", 0).is_err_and(|e| e.raw_os_error() == Some(libc::EBADF)))
}

fn set_mode_fchmodat2(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    fchmodat2(directory.as_raw_fd(), name, mode)
}

/// `fchmodat` of the number of an `O_PATH` descriptor inside `/proc/self/fd`: the magic link leads
/// to the very inode that the descriptor holds, whatever its name means by now.
fn set_mode_proc(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    let unsupported = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let proc = proc_self_fd().ok_or_else(unsupported)?;
    let held = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if stat_fd(&held)?.kind == super::Kind::Symlink {
        return Err(unsupported());
    }
    let number = held.as_raw_fd().to_string();
    Ok(rustix::fs::chmodat(proc, number, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// `/proc/self/fd`, opened once and found to be procfs; `None` where it is something else.
pub(super) fn proc_self_fd() -> Option<BorrowedFd<'static>> {
    static PROC: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()).ok()?;
        let magic = rustix::fs::fstatfs(&fd).ok()?.f_type;
        (magic == rustix::fs::PROC_SUPER_MAGIC).then_some(fd)
    };
    PROC.get_or_init(open).as_ref().map(OwnedFd::as_fd)
}

/// Sets both times of the entry itself.
///
/// # Errors
/// `EPERM` or `EACCES` without the right, and whatever `utimensat` says. A time outside the file
/// system's range is no error: the kernel clamps it in silence (since Linux 5.4).
pub fn set_times(entry: EntryRef<'_>, atime: Time, mtime: Time) -> io::Result<()> {
    let spec = |t: Time| Timespec { tv_sec: t.seconds, tv_nsec: t.nanoseconds.into() };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    Ok(match entry {
        EntryRef::Fd(fd) => rustix::fs::futimens(fd, &times),
        EntryRef::At(directory, name) => rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    }?)
}

/// Bytes that anybody may still write to the file system that holds the entry. What only the
/// superuser may use is left out, because ext4 counts there what nobody gets (its metadata reserve).
///
/// # Errors
/// Whatever `fstatvfs` says.
pub fn available_bytes(entry: EntryRef<'_>) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(entry.nearest())?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The file system's magic number (`statfs(2)`), truncated to the 32 bits that it has.
///
/// # Errors
/// Whatever `fstatfs` says.
pub fn file_system_magic(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let magic = rustix::fs::fstatfs(fd)?.f_type;
    Ok(u32::try_from(i128::from(magic) & i128::from(u32::MAX)).unwrap_or_default())
}

/// Whether this thread may see and set `trusted.*` attributes (`CAP_SYS_ADMIN`, `xattr(7)`). The
/// kernel hides them from lists otherwise.
pub fn sees_trusted() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The id of a user by name, from the system's user database; `None` when there is no such user.
///
/// # Errors
/// What the database says when it can't be read.
pub fn user_id(name: &CStr) -> io::Result<Option<u32>> {
    lookup(|buffer, length| {
        let mut record = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the record and `length` writable bytes at `buffer` live through the call.
        let error = unsafe { libc::getpwnam_r(name.as_ptr(), record.as_mut_ptr(), buffer, length, &raw mut found) };
        // SAFETY: a non-null `found` points at the record, which the call has filled.
        (error, (!found.is_null()).then(|| unsafe { (*found).pw_uid }))
    })
}

/// The id of a group by name; `None` when there is no such group.
///
/// # Errors
/// As [`user_id`].
pub fn group_id(name: &CStr) -> io::Result<Option<u32>> {
    lookup(|buffer, length| {
        let mut record = std::mem::MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the record and `length` writable bytes at `buffer` live through the call.
        let error = unsafe { libc::getgrnam_r(name.as_ptr(), record.as_mut_ptr(), buffer, length, &raw mut found) };
        // SAFETY: a non-null `found` points at the record, which the call has filled.
        (error, (!found.is_null()).then(|| unsafe { (*found).gr_gid }))
    })
}

/// Calls a `get..nam_r` with a growing buffer. Several ways to say "no such name" are known
/// (`getpwnam(3)`): they are no errors.
pub(super) fn lookup<T>(call: impl Fn(*mut c_char, usize) -> (c_int, Option<T>)) -> io::Result<Option<T>> {
    let mut length = 1 << 10;
    loop {
        let mut buffer: Vec<c_char> = vec![0; length];
        match call(buffer.as_mut_ptr(), length) {
            (libc::ERANGE, _) if length < crate::limits::NAME_RECORD_BYTES => length *= 4,
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, id) => return Ok(id),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The path of a single name below a held directory, by way of procfs, for calls that take
/// nothing else; `None` where procfs does not serve.
///
/// # Errors
/// Never in practice: both parts are free of NUL.
pub(super) fn proc_path(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<CString>> {
    if proc_self_fd().is_none() {
        return Ok(None);
    }
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(name.to_bytes());
    Ok(Some(CString::new(bytes)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    fn with_fifo(check: impl Fn(BorrowedFd<'_>, &CStr, &Path)) {
        let room = tempfile::tempdir().expect("a temporary directory");
        let directory = std::fs::File::open(room.path()).expect("open it");
        rustix::fs::mknodat(&directory, c"fifo", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("make a fifo");
        check(directory.as_fd(), c"fifo", &room.path().join("fifo"));
        let after = std::fs::symlink_metadata(room.path().join("fifo")).expect("stat");
        assert!(after.file_type().is_fifo());
    }

    #[test]
    fn both_ways_set_the_mode_of_a_fifo_without_opening_it() {
        with_fifo(|directory, name, path| {
            set_mode_fchmodat2(directory, name, 0o2751).expect("fchmodat2");
            assert_eq!(std::fs::symlink_metadata(path).expect("stat").mode() & 0o7777, 0o2751);
            set_mode_proc(directory, name, 0o4604).expect("procfs");
            assert_eq!(std::fs::symlink_metadata(path).expect("stat").mode() & 0o7777, 0o4604);
        });
    }

    #[test]
    fn the_way_round_by_procfs_refuses_a_symlink_and_leaves_its_target_alone() {
        let room = tempfile::tempdir().expect("a temporary directory");
        let directory = std::fs::File::open(room.path()).expect("open it");
        std::fs::write(room.path().join("target"), "x").expect("write");
        let before = std::fs::metadata(room.path().join("target")).expect("stat").mode();
        std::os::unix::fs::symlink("target", room.path().join("link")).expect("symlink");
        for way in [set_mode_proc, set_mode_fchmodat2] {
            let error = way(directory.as_fd(), c"link", 0o4777).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        }
        assert_eq!(std::fs::metadata(room.path().join("target")).expect("stat").mode(), before);
    }

    #[test]
    fn an_id_of_all_ones_is_refused_instead_of_meaning_unchanged() {
        with_fifo(|directory, name, _| {
            let entry = EntryRef::At(directory, name);
            assert_eq!(set_owner(entry, Some(u32::MAX), None).expect_err("refused").raw_os_error(), Some(libc::EINVAL));
            assert!(set_owner(entry, Some(5), Some(u32::MAX)).is_err());
            assert_eq!(entry.stat().expect("stat").uid, 0);
        });
    }

    #[test]
    fn names_resolve_by_the_system_s_databases() {
        assert_eq!(user_id(c"root").expect("database"), Some(0));
        assert_eq!(group_id(c"root").expect("database"), Some(0));
        assert_eq!(user_id(c"no such user here").expect("database"), None);
    }
}
