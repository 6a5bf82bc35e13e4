//! The backing tree of the rig: inodes by held descriptors, never by paths, so that entries may be
//! renamed and removed below it. Inode numbers are those of the backing file system (one device);
//! the root is 1, as the protocol wants it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, StatxTimestamp, Timespec, Timestamps};

pub const ROOT: u64 = 1;

struct Node {
    fd: Arc<OwnedFd>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// An entry of a directory as it is listed.
#[derive(Debug)]
pub struct Listed {
    pub inode: u64,
    pub kind: FileType,
    pub name: Vec<u8>,
}

/// An open file, or a directory with the names of its last listing.
#[derive(Debug)]
pub struct Handle {
    pub fd: OwnedFd,
    pub names: Mutex<Vec<Listed>>,
}

/// What to set, each only if given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
}

impl Handle {
    /// One more name of a file that is not there.
    pub fn add(&self, name: &str) {
        let listed = Listed { inode: u64::MAX / 2, kind: FileType::RegularFile, name: name.into() };
        locked(&self.names).push(listed);
    }
}

pub struct Tree {
    root_inode: u64,
    nodes: Mutex<HashMap<u64, Node>>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path that leads to a held descriptor, for the calls that take only paths.
fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Tree {
    pub fn open(backing: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(CWD, backing, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let root_inode = rustix::fs::fstat(&fd)?.st_ino;
        let root = Node { fd: Arc::new(fd), lookups: 1 };
        let nodes = Mutex::new(HashMap::from([(ROOT, root)]));
        Ok(Self { root_inode, nodes, handles: Mutex::default(), next_handle: AtomicU64::new(1) })
    }

    pub fn node(&self, inode: u64) -> io::Result<Arc<OwnedFd>> {
        let nodes = locked(&self.nodes);
        let node = nodes.get(&inode).ok_or(rustix::io::Errno::STALE)?;
        Ok(Arc::clone(&node.fd))
    }

    fn shown_inode(&self, backing: u64) -> u64 {
        if backing == self.root_inode { ROOT } else { backing }
    }

    fn attributes_of(&self, fd: BorrowedFd<'_>) -> io::Result<FileAttr> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(fd, c"", flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        Ok(FileAttr {
            ino: INodeNo(self.shown_inode(stat.stx_ino)),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: system_time(stat.stx_atime),
            mtime: system_time(stat.stx_mtime),
            ctime: system_time(stat.stx_ctime),
            crtime: system_time(stat.stx_btime),
            kind: kind_of(rustix::fs::FileType::from_raw_mode(stat.stx_mode.into())),
            perm: stat.stx_mode & 0o7777,
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: (stat.stx_rdev_major << 8) | (stat.stx_rdev_minor & 0xff) | ((stat.stx_rdev_minor & 0xfff00) << 12),
            blksize: 4096,
            flags: 0,
        })
    }

    pub fn attributes(&self, inode: u64) -> io::Result<FileAttr> {
        self.attributes_of(self.node(inode)?.as_fd())
    }

    /// Looks a name up and remembers that the kernel knows it.
    pub fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.node(parent)?, name, flags, Mode::empty())?;
        let attributes = self.attributes_of(fd.as_fd())?;
        let mut nodes = locked(&self.nodes);
        nodes.entry(attributes.ino.0).or_insert_with(|| Node { fd: Arc::new(fd), lookups: 0 }).lookups += 1;
        Ok(attributes)
    }

    /// Looks up an inode that the kernel knows already, as by another name of it.
    pub fn look_again(&self, inode: u64) -> io::Result<FileAttr> {
        let attributes = self.attributes(inode)?;
        if let Some(node) = locked(&self.nodes).get_mut(&inode) {
            node.lookups += 1;
        }
        Ok(attributes)
    }

    pub fn forget(&self, inode: u64, times: u64) {
        let mut nodes = locked(&self.nodes);
        if let Some(node) = nodes.get_mut(&inode) {
            node.lookups = node.lookups.saturating_sub(times);
            if node.lookups == 0 && inode != ROOT {
                nodes.remove(&inode);
            }
        }
    }

    /// Opens an inode as the kernel asks, without what it has seen to already.
    pub fn open_node(&self, inode: u64, flags: i32) -> io::Result<u64> {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let wanted =
            (flags & (OFlags::RWMODE | OFlags::TRUNC | OFlags::DIRECTORY)) | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let node = self.node(inode)?;
        Ok(self.keep(rustix::fs::openat(CWD, proc_path(&node), wanted, Mode::empty())?))
    }

    pub fn create(&self, parent: u64, name: &OsStr, mode: u32, flags: i32) -> io::Result<(FileAttr, u64)> {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let wanted = (flags & (OFlags::RWMODE | OFlags::EXCL | OFlags::TRUNC)) | OFlags::CREATE | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(mode);
        let fd = rustix::fs::openat(&*self.node(parent)?, name, wanted | OFlags::CLOEXEC, mode)?;
        let attributes = self.look_up(parent, name)?;
        Ok((attributes, self.keep(fd)))
    }

    fn keep(&self, fd: OwnedFd) -> u64 {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        locked(&self.handles).insert(number, Arc::new(Handle { fd, names: Mutex::default() }));
        number
    }

    pub fn handle(&self, number: u64) -> io::Result<Arc<Handle>> {
        locked(&self.handles).get(&number).cloned().ok_or_else(|| rustix::io::Errno::BADF.into())
    }

    pub fn release(&self, number: u64) {
        locked(&self.handles).remove(&number);
    }

    /// Lists a directory anew into its handle.
    pub fn list(&self, handle: &Handle) -> io::Result<()> {
        let mut names = Vec::new();
        let mut directory = Dir::read_from(&handle.fd)?;
        while let Some(entry) = directory.read() {
            let entry = entry?;
            let (kind, name) = (kind_of(entry.file_type()), entry.file_name().to_bytes().to_vec());
            // The parent of the root lies outside; its number means nothing here.
            let inode = if name == b".." { ROOT } else { self.shown_inode(entry.ino()) };
            names.push(Listed { inode, kind, name });
        }
        *locked(&handle.names) = names;
        Ok(())
    }

    pub fn change(&self, inode: u64, handle: Option<u64>, change: &Change) -> io::Result<FileAttr> {
        let node = self.node(inode)?;
        if let Some(size) = change.size {
            if let Some(number) = handle {
                rustix::fs::ftruncate(&self.handle(number)?.fd, size)?;
            } else {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::ftruncate(rustix::fs::openat(CWD, proc_path(&node), flags, Mode::empty())?, size)?;
            }
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(rustix::fs::Uid::from_raw), change.gid.map(rustix::fs::Gid::from_raw));
            rustix::fs::chownat(&*node, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = change.mode {
            rustix::fs::chmod(proc_path(&node), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps { last_access: timespec(change.atime), last_modification: timespec(change.mtime) };
            rustix::fs::utimensat(&*node, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        self.attributes(inode)
    }

    pub fn read_link(&self, inode: u64) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&*self.node(inode)?, c"", Vec::new())?.into_bytes())
    }

    pub fn link(&self, inode: u64, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        rustix::fs::linkat(&*self.node(inode)?, c"", &*self.node(parent)?, name, AtFlags::EMPTY_PATH)?;
        self.look_up(parent, name)
    }

    pub fn attribute(&self, inode: u64, name: &OsStr) -> io::Result<Vec<u8>> {
        let (path, mut value) = (proc_path(&*self.node(inode)?), vec![0; 65_536]);
        let len = rustix::fs::getxattr(path, name, &mut value)?;
        value.truncate(len);
        Ok(value)
    }

    pub fn attribute_names(&self, inode: u64) -> io::Result<Vec<u8>> {
        let (path, mut names) = (proc_path(&*self.node(inode)?), vec![0; 65_536]);
        let len = rustix::fs::listxattr(path, &mut names)?;
        names.truncate(len);
        Ok(names)
    }

    pub fn set_attribute(&self, inode: u64, name: &OsStr, value: &[u8], flags: i32) -> io::Result<()> {
        let flags = rustix::fs::XattrFlags::from_bits_retain(flags.cast_unsigned());
        Ok(rustix::fs::setxattr(proc_path(&*self.node(inode)?), name, value, flags)?)
    }

    pub fn remove_attribute(&self, inode: u64, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::removexattr(proc_path(&*self.node(inode)?), name)?)
    }
}

fn kind_of(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn system_time(time: StatxTimestamp) -> SystemTime {
    let whole = Duration::from_secs(time.tv_sec.unsigned_abs());
    let second = if time.tv_sec < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    second + Duration::from_nanos(time.tv_nsec.into())
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let time = match time {
        None => return Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => return Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => time,
    };
    let (mut seconds, mut rest_ns) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs().cast_signed(), i64::from(after.subsec_nanos())),
        Err(before) => (-before.duration().as_secs().cast_signed(), -i64::from(before.duration().subsec_nanos())),
    };
    if rest_ns < 0 {
        (seconds, rest_ns) = (seconds - 1, rest_ns + 1_000_000_000);
    }
    Timespec { tv_sec: seconds, tv_nsec: rest_ns }
}
