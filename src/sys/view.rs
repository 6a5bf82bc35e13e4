//! A view of the file system that holds nothing but the places of one job.
//!
//! ```text
//! before: / ── etc, home, srv ── share      after: / (empty, in memory, read-only)
//!                           └── replica            ├─ srv/share    read-only
//!                                                  ├─ srv/replica
//!                                                  ├─ var/lib/copyd/engine
//!                                                  └─ proc, sys/fs/cgroup, sys/fs/fuse/connections   read-only
//! ```
//!
//! What has no name can't be opened, so a process that was taken over finds neither another tenant's share nor a
//! configuration, a device or a socket. Landlock says the same of what it covers; this also covers what Landlock
//! has no right for (owners, modes and attributes of the source), and roots in memory, where it is left out.
//!
//! Every place is taken as a copy of its mount (`open_tree(2)`), and no symlink is followed below the directory that
//! was allowed: the name that was allowed is the directory that appears under it, whoever changes what meanwhile. Mounts below a place
//! come with it, as the engine has to see them. The place that holds another one comes alone, so that `..` leads
//! from the inner to the outer as before: guards look for that.

#![expect(unsafe_code, reason = "mounts have no safe wrapper here")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// What a job does at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    Write,
}

/// A directory that stays in view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute, and without `..`.
    pub path: PathBuf,
    pub access: Access,
    /// Its beginning that whoever allowed it has named: symlinks are followed there, and nowhere below.
    pub trusted: PathBuf,
}

impl Place {
    /// A place whose name is to be trusted whole.
    #[must_use]
    pub fn trusted(path: &Path, access: Access) -> Self {
        Self { path: path.to_owned(), access, trusted: path.to_owned() }
    }

    /// Holds the directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`; `ELOOP` for a symlink below what is trusted.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let trusted = rustix::fs::open(&self.trusted, flags, Mode::empty())?;
        let below = self.path.strip_prefix(&self.trusted).unwrap_or(&self.path);
        if below.as_os_str().is_empty() {
            return Ok(trusted);
        }
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
        Ok(rustix::fs::openat2(&trusted, below, flags, Mode::empty(), resolve)?)
    }
}

/// What copyd reads of the kernel: its own threads and locks; the group's share of the processors; how many
/// requests a FUSE server owes.
const KERNEL: [&str; 3] = ["/proc", "/sys/fs/cgroup", "/sys/fs/fuse/connections"];

/// Where the empty root is made before it becomes the root. Any directory would do; this one is always there.
const WORKSHOP: &CStr = c"/proc";

/// The places without those that come with another one; outer ones first. One that is only read stays apart inside
/// of one that is written; one that is written takes the outer one along.
fn outermost(places: &[Place]) -> Vec<Place> {
    let mut sorted = places.to_vec();
    sorted.sort_by(|one, other| one.path.cmp(&other.path).then(other.access.cmp(&one.access)));
    let mut kept: Vec<Place> = Vec::new();
    for place in sorted {
        match kept.iter_mut().rfind(|outer| place.path.starts_with(&outer.path)) {
            Some(outer) if place.access < outer.access && place.path != outer.path => kept.push(place),
            Some(outer) => outer.access = outer.access.max(place.access),
            None => kept.push(place),
        }
    }
    kept
}

/// Leaves nothing in view but `places`, for good. With `scratch` there is a place for temporary files, in memory.
/// The process has a mount namespace of its own by now, from which nothing comes out.
///
/// A place that is not there is left out; whoever opens it says so.
///
/// # Errors
/// The place or the step that failed, with what the kernel said. The process must not go on then: it may be
/// half way.
pub fn show_only(places: &[Place], scratch: bool) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &str| {
        let path = PathBuf::from(path);
        move |error| (path, error)
    };
    let mut trees = Vec::new();
    for place in outermost(places) {
        if let Some(tree) = copy_of(&place).map_err(|error| (place.path.clone(), error))? {
            trees.push((place.path, tree));
        }
    }
    for path in KERNEL {
        let place = Place::trusted(Path::new(path), Access::Read);
        // Kernels without FUSE or groups have no such place.
        if let Some(tree) = copy_of(&place).map_err(at(path))? {
            trees.push((place.path, tree));
        }
    }
    let root = empty_root().map_err(at("/"))?;
    if scratch {
        let directory = made(&root, Path::new("/tmp")).map_err(at("/tmp"))?;
        rustix::process::fchdir(&directory).map_err(|error| (PathBuf::from("/tmp"), error.into()))?;
        in_memory(c".", c"mode=0700").map_err(at("/tmp"))?;
    }
    for (path, tree) in trees {
        let attached = made(&root, &path).and_then(|directory| attach(&tree, &directory));
        attached.map_err(|error| (path, error))?;
    }
    become_root(&root).map_err(at("/"))
}

/// A copy of the mount that a place lies on, from the place on, with all that is mounted below it.
fn copy_of(place: &Place) -> io::Result<Option<OwnedFd>> {
    const CLONE: libc::c_uint = 1;
    let held = match place.hold() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        held => held?,
    };
    let wanted = CLONE | libc::O_CLOEXEC.cast_unsigned() | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE).cast_unsigned();
    // SAFETY: reads an empty, terminated string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, held.as_raw_fd(), c"".as_ptr(), wanted) };
    let tree = descriptor(tree)?;
    // No device opens, no program starts and no link is followed there, whatever lies in it.
    let kept = if place.access == Access::Read { RDONLY } else { 0 } | NOSUID | NODEV | NOEXEC;
    let tenants = !KERNEL.iter().any(|path| Path::new(path) == place.path);
    match set_attributes(&tree, c"", true, if tenants { kept | NOSYMFOLLOW } else { kept }) {
        // Linux 5.14 knows it.
        Err(error) if tenants && error.raw_os_error() == Some(libc::EINVAL) => {
            set_attributes(&tree, c"", true, kept)?;
        }
        other => other?,
    }
    Ok(Some(tree))
}

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// Sets attributes of the mount at `path` below `directory`, and of all below it.
fn set_attributes(directory: &OwnedFd, path: &CStr, recursive: bool, attributes: u64) -> io::Result<()> {
    let wanted = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is terminated, and the structure is as long as is said.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    done(answer)
}

/// An empty file system in memory, with room for directories alone.
fn empty_root() -> io::Result<OwnedFd> {
    in_memory(WORKSHOP, c"mode=0755,size=64k,nr_inodes=4k")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(WORKSHOP, flags, Mode::empty())?)
}

fn in_memory(at: &CStr, options: &CStr) -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: four terminated strings.
    let answer =
        unsafe { libc::mount(c"copyd".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) };
    done(answer.into())
}

/// The directory of that path below `root`; each one on the way that is missing is made.
fn made(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let name = CString::new(name.as_bytes())?;
        at = match rustix::fs::openat(&at, &name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755))?;
                rustix::fs::openat(&at, &name, flags, Mode::empty())?
            }
            there => there?,
        };
    }
    Ok(at)
}

fn attach(tree: &OwnedFd, directory: &OwnedFd) -> io::Result<()> {
    /// Both paths are empty: the descriptors themselves are meant.
    const EMPTY_PATHS: libc::c_uint = 0x4 | 0x40;
    // SAFETY: two empty, terminated strings.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            c"".as_ptr(),
            EMPTY_PATHS,
        )
    };
    done(answer)
}

/// Makes `root` the root of this process, and lets the one before go (pivot_root(2), the form with two dots).
fn become_root(root: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // SAFETY: two terminated strings.
    done(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: a terminated string.
    done(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    rustix::process::chdir(c"/")?;
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    set_attributes(&root, c"", false, RDONLY | NOSUID | NODEV | NOEXEC)
}

fn descriptor(answer: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made it, and it is nobody else's.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn done(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, access: Access) -> Place {
        Place::trusted(Path::new(path), access)
    }

    #[test]
    fn a_place_within_another_comes_with_it_but_for_one_that_is_only_read_in_one_that_is_written() {
        let places = [
            place("/srv/b/c", Access::Write),
            place("/srv/a", Access::Read),
            place("/srv/b", Access::Read),
            place("/srv/b-side", Access::Read),
            place("/srv/d", Access::Write),
            place("/srv/d/e", Access::Read),
            place("/srv/d/f", Access::Write),
        ];
        let wanted = [
            place("/srv/a", Access::Read),
            place("/srv/b", Access::Write),
            place("/srv/b-side", Access::Read),
            place("/srv/d", Access::Write),
            place("/srv/d/e", Access::Read),
        ];
        assert_eq!(outermost(&places), wanted);
        assert_eq!(outermost(&[place("/", Access::Read), place("/a", Access::Write)]), [place("/", Access::Write)]);
    }
}
