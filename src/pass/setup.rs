//! The two roots, before anything is copied: opened, checked, judged.

use std::ffi::CString;
use std::io::{self, ErrorKind::NotFound};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::ByteSlice;

use crate::error::{Error, Side};
use crate::sys::{self, Stat};

use super::batch::Durability;
use super::publish::ReadBack;
use super::report::Progress;

/// Both roots, open, with what holds for all of a run.
#[derive(Debug)]
pub struct Roots {
    pub source: Arc<OwnedFd>,
    pub destination: Arc<OwnedFd>,
    pub source_stat: Stat,
    pub destination_stat: Stat,
    pub durability: Durability,
    pub read_back: ReadBack,
    /// The destination did not stand, and was made: the directory that holds it, and its name there.
    made: Option<(OwnedFd, CString)>,
    /// Both are of a kind whose server may copy between them by itself.
    pub server_copy: bool,
    /// Both roots lie in memory file systems.
    pub in_memory: bool,
}

const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;
/// File systems whose syncfs reaches stable storage: ext4, xfs, btrfs, NFS and Ceph's kernel client.
const SYNCFS_MAGICS: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x6969, 0x00c3_6400];
/// Clients that hand `copy_file_range(2)` on to their server: NFS (since 4.2), SMB (since 2) and Ceph's
/// kernel client.
const SERVER_COPY_MAGICS: [u32; 3] = [0x6969, 0xfe53_4d42, 0x00c3_6400];

impl Roots {
    /// Opens both roots. A destination that is missing is made when its parent is there; in a dry
    /// run the parent stands in for it, nothing of which is looked at, and the answer is true.
    ///
    /// # Errors
    /// [`Error::Root`] for a root that can't be used, [`Error::Guard`] for roots in one another, and for one
    /// that lies outside of where it may.
    pub fn open(
        source: RootPlace<'_>,
        destination: RootPlace<'_>,
        make: bool,
        progress: &Progress,
    ) -> Result<(Self, bool), Error> {
        progress.open_root(Some(Side::Source));
        let from = source.open(Side::Source)?;
        progress.open_root(Some(Side::Destination));
        let standing = destination.open(Side::Destination);
        let missing = matches!(&standing, Err(Error::Root { source: Some(e), .. }) if e.kind() == NotFound);
        let mut to = if missing { open_parent(destination)? } else { standing? };
        if missing {
            // Before anything is made: a directory inside the source would be in the source.
            outside(&from, &to)?;
        }
        let mut new = None;
        if missing && make {
            let name = make_directory(&to, destination.path)?;
            let inside = sys::open_directory(to.as_fd(), &name);
            let inside = inside.map_err(|e| root_error(Side::Destination, destination.path, e))?;
            new = Some((std::mem::replace(&mut to, inside), name));
        }
        let (source, destination) = (source.path, destination.path);
        let at = |side, path: &Path| {
            let path = path.to_owned();
            move |e| root_error(side, &path, e)
        };
        let source_stat = sys::stat_fd(&from).map_err(at(Side::Source, source))?;
        let destination_stat = sys::stat_fd(&to).map_err(at(Side::Destination, destination))?;
        if make || !missing {
            apart(&from, &source_stat, &to, &destination_stat)?;
        }
        let magic = sys::file_system_magic(to.as_fd()).map_err(at(Side::Destination, destination))?;
        let source_magic = sys::file_system_magic(from.as_fd()).map_err(at(Side::Source, source))?;
        let durability = durability(magic);
        let read_back = match durability {
            Durability::Memory => ReadBack::Memory,
            // Where nothing is written each open says for itself, and falls back.
            _ if !make || direct_works(&to) => ReadBack::Direct,
            _ => ReadBack::Evicted,
        };
        let roots = Self {
            source: Arc::new(from),
            destination: Arc::new(to),
            source_stat,
            destination_stat,
            durability,
            read_back,
            made: new,
            server_copy: server_may_copy(source_magic, magic),
            in_memory: [source_magic, magic].map(self::durability) == [Durability::Memory; 2],
        };
        Ok((roots, missing && !make))
    }

    /// The run was refused: a destination that was made for it goes again, if nothing is in it.
    pub fn unmake(&self) {
        if let Some((parent, name)) = &self.made {
            let _ = rustix::fs::unlinkat(parent, name.as_c_str(), rustix::fs::AtFlags::REMOVEDIR);
        }
    }

    /// Refuses a state directory inside a root: it would be copied, or deleted, while it is used.
    /// It is looked at before it is made.
    ///
    /// # Errors
    /// [`Error::Guard`] where it lies, or would lie, inside one.
    pub fn refuse_state_inside(&self, path: &Path) -> Result<(), Error> {
        let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let Some(there) = full.ancestors().find_map(|at| sys::open_root(at).ok()) else { return Ok(()) };
        let stat = sys::stat_fd(&there).map_err(|e| root_error(Side::Destination, path, e))?;
        for (side, root) in [("source", &self.source_stat), ("destination", &self.destination_stat)] {
            let identity = (root.dev, root.ino);
            if identity == (stat.dev, stat.ino) || above(&there, identity) {
                return Err(Error::Guard {
                    what: format!("the state directory {} lies inside the {side}", path.display()),
                    remedy: "name another place with --state-dir",
                });
            }
        }
        Ok(())
    }
}

/// How the file system of this type makes things durable.
#[must_use]
pub fn durability(magic: u32) -> Durability {
    match magic {
        TMPFS_MAGIC | RAMFS_MAGIC => Durability::Memory,
        magic if SYNCFS_MAGICS.contains(&magic) => Durability::FileSystem,
        _ => Durability::EachFile,
    }
}

/// Whether a server may copy from a file system of the one type to one of the other: they have to be of
/// one client. Whether it does is seen at the first file ([`crate::copy::offload::ServerCopy`]).
#[must_use]
pub fn server_may_copy(source_magic: u32, destination_magic: u32) -> bool {
    source_magic == destination_magic && SERVER_COPY_MAGICS.contains(&source_magic)
}

/// Whether a file there opens for direct I/O: asked of an unnamed one.
fn direct_works(directory: &OwnedFd) -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => true,
        // No unnamed files there, or none in an immutable root: each open says for itself, and falls back.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => true,
        Err(_) => false,
    }
}

/// A root as it was named, and where it may lie.
#[derive(Clone, Copy, Debug)]
pub struct RootPlace<'a> {
    pub path: &'a Path,
    /// Directories of which one has to hold it, reached from there without a symlink: whoever may name a root
    /// may not own all that lies above it. Empty where the caller's own rights are the bound.
    pub within: &'a [PathBuf],
}

impl RootPlace<'_> {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Root`], with what to do about it, [`Error::Guard`] where it lies outside.
    pub fn open(self, side: Side) -> Result<OwnedFd, Error> {
        self.open_at(self.path, side)?.map_err(|e| self.error(side, e))
    }

    /// Opens the root, or a directory above it.
    fn open_at(self, path: &Path, side: Side) -> Result<io::Result<OwnedFd>, Error> {
        if self.within.is_empty() {
            return Ok(sys::open_root(path));
        }
        let plain = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
        let holders = self.within.iter().filter(|holder| plain && path.starts_with(holder));
        let Some(holder) = holders.max_by_key(|holder| holder.components().count()) else {
            return Err(Error::Guard {
                what: format!("the {side} {} lies outside of the directories that are allowed", path.display()),
                remedy: "name a directory below one of them, or have the list of allowed directories changed",
            });
        };
        let below = path.strip_prefix(holder).unwrap_or(path);
        let opened = sys::open_root(holder);
        Ok(if below.as_os_str().is_empty() { opened } else { opened.and_then(|top| sys::open_beneath(&top, below)) })
    }

    fn error(self, side: Side, e: io::Error) -> Error {
        if !self.within.is_empty() && matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EXDEV)) {
            return Error::Guard {
                what: format!("a symlink lies on the way to the {side} {}", self.path.display()),
                remedy: "name it by the path that the symlink leads to",
            };
        }
        root_error(side, self.path, e)
    }
}

/// Opens one root that the caller's own rights are the bound of.
///
/// # Errors
/// [`Error::Root`], with what to do about it.
pub fn open_one(path: &Path, side: Side) -> Result<OwnedFd, Error> {
    RootPlace { path, within: &[] }.open(side)
}

/// The error of a root, with what to do about it.
#[must_use]
pub fn root_error(side: Side, path: &Path, e: io::Error) -> Error {
    let (what, remedy) = match e.raw_os_error() {
        Some(libc::ENOENT) => ("no such directory", "check the path, and that the share is mounted"),
        Some(libc::ENOTDIR) => ("is not a directory", "copyd copies directories: name the directory that holds it"),
        Some(libc::EACCES | libc::EPERM) => ("permission denied", "run as root, or as a user who may read it"),
        Some(libc::EROFS) => ("is on a read-only file system", "remount it read-write"),
        _ => ("can't be opened", "check that the file system behind it answers (ls, dmesg)"),
    };
    Error::Root { side, path: path.to_owned(), what, remedy, source: Some(e) }
}

/// Opens the directory in which a destination that is missing is to be made.
fn open_parent(destination: RootPlace<'_>) -> Result<OwnedFd, Error> {
    let parent = destination.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    destination.open_at(parent, Side::Destination)?.map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT) => Error::Root {
            side: Side::Destination,
            path: destination.path.to_owned(),
            what: "neither it nor its parent directory exists",
            remedy: "make the parent directory, or check that the share is mounted",
            source: Some(e),
        },
        _ => destination.error(Side::Destination, e),
    })
}

/// Makes the destination, and gives its name.
fn make_directory(parent: &OwnedFd, path: &Path) -> Result<CString, Error> {
    let made = || {
        let name = CString::new(path.file_name().unwrap_or_default().as_bytes())?;
        rustix::fs::mkdirat(parent, name.as_c_str(), rustix::fs::Mode::RWXU)?;
        Ok(name)
    };
    made().map_err(|e| root_error(Side::Destination, path, e))
}

/// Refuses a destination that would be made inside the source.
fn outside(source: &OwnedFd, parent: &OwnedFd) -> Result<(), Error> {
    let stat = |fd, side| sys::stat_fd(fd).map_err(|e| root_error(side, Path::new("."), e));
    let (from, to) = (stat(source, Side::Source)?, stat(parent, Side::Destination)?);
    let identity = (from.dev, from.ino);
    if identity == (to.dev, to.ino) || above(parent, identity) {
        return Err(inside("the destination lies inside the source"));
    }
    Ok(())
}

fn inside(what: &str) -> Error {
    Error::Guard { what: what.into(), remedy: "name two directories of which neither holds the other" }
}

/// Refuses roots that are the same directory, or lie inside one another.
fn apart(source: &OwnedFd, source_stat: &Stat, destination: &OwnedFd, destination_stat: &Stat) -> Result<(), Error> {
    let (from, to) = ((source_stat.dev, source_stat.ino), (destination_stat.dev, destination_stat.ino));
    let what = if from == to {
        "source and destination are the same directory"
    } else if above(destination, from) {
        "the destination lies inside the source"
    } else if above(source, to) {
        "the source lies inside the destination"
    } else {
        return Ok(());
    };
    Err(inside(what))
}

/// Whether a directory with this identity is above `below`.
fn above(below: &OwnedFd, wanted: (u64, u64)) -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut last = None;
    let mut at = below.try_clone().ok();
    while let Some(fd) = at {
        let Ok(parent) = rustix::fs::openat(&fd, c"..", flags, Mode::empty()) else { return false };
        let Ok(stat) = sys::stat_fd(&parent) else { return false };
        let identity = (stat.dev, stat.ino);
        if identity == wanted {
            return true;
        }
        if last == Some(identity) {
            return false;
        }
        last = Some(identity);
        at = Some(parent);
    }
    false
}

/// The guard of a destination with entries that no earlier run of the job put there.
#[must_use]
pub fn foreign(destination: &Path, path: &[u8]) -> Error {
    let destination: PathBuf = destination.to_owned();
    Error::Guard {
        what: format!(
            "the destination {} has entries that no earlier run of this job put there, the first: {}",
            destination.display(),
            path.as_bstr().escape_ascii()
        ),
        remedy: "--delete removes what the source does not have, --keep-extra leaves it, or choose an empty directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_roots_of_one_kind_of_server_are_left_to_the_server() {
        let [nfs, smb, ceph] = SERVER_COPY_MAGICS;
        for magic in [nfs, smb, ceph] {
            assert!(server_may_copy(magic, magic), "{magic:x}");
        }
        for (source, destination) in
            [(nfs, smb), (smb, ceph), (nfs, TMPFS_MAGIC), (0xef53, nfs), (0xef53, 0xef53), (TMPFS_MAGIC, TMPFS_MAGIC)]
        {
            assert!(!server_may_copy(source, destination), "{source:x} {destination:x}");
        }
    }
}
