//! Which file system a root lies on, in a form that survives a remount.
//!
//! Device numbers don't: loop devices, LVM, NFS and everything without a block device get another
//! one at each mount. What serves, best first: `f_fsid` of statfs(2) where it is more than the device
//! number in disguise (ext4, btrfs and tmpfs derive it from a UUID; XFS, FAT and others from the
//! device; NFS and FUSE give 0), the file system's own UUID, and for network mounts the mount's source
//! together with the server's own file system id. The UUID comes second, because the subvolumes of a
//! btrfs have one in common, and their roots one inode number: only `f_fsid` tells them apart.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::sys::{Answer, file_system_uuid, nfs_volumes, stat_fd};

/// A root as a job remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootIdentity {
    /// As the user gave it, absolute; for messages, never for matching.
    pub path: PathBuf,
    /// `st_dev` now, `makedev` form.
    pub dev: u64,
    pub ino: u64,
    /// Names the file system across mounts; `None` where only `dev` is known.
    pub fs_id: Option<[u8; 16]>,
    /// Digest of the content of a file at the root that tells it from every other, where one is asked for.
    pub marker: Option<[u8; 32]>,
}

impl RootIdentity {
    /// The identity of an open root.
    ///
    /// # Errors
    /// Whatever statx(2) or fstatfs(2) say of the descriptor.
    pub fn of(root: impl AsFd, path: &Path) -> io::Result<Self> {
        let stat = stat_fd(&root)?;
        let statvfs = rustix::fs::fstatvfs(&root)?;
        let uuid = || match file_system_uuid(root.as_fd()) {
            Ok(Answer::Done(uuid)) => Some(uuid),
            // Not every server behind FUSE says in so many words that it knows no such call.
            Ok(Answer::Unsupported) | Err(_) => None,
        };
        let fs_id = from_fsid(statvfs.f_fsid, stat.dev).or_else(uuid).or_else(|| {
            // Without procfs the device number has to do.
            let mounts = std::fs::read("/proc/thread-self/mountinfo").ok()?;
            let volumes = nfs_volumes();
            from_mount(&mounts, &volumes, stat.mount_id, stat.dev)
        });
        Ok(Self { path: path.to_owned(), dev: stat.dev, ino: stat.ino, fs_id, marker: None })
    }

    /// What two runs on the same root have in common. A marker counts beside what names the file system;
    /// where nothing does it counts instead, because device and inode are others at the next mount.
    pub(super) fn key(&self) -> Vec<u8> {
        let Some(marker) = &self.marker else { return self.unmarked_key() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"copyd marked root").update(marker);
        if self.fs_id.is_some() {
            hasher.update(&self.unmarked_key());
        }
        [&[2], &hasher.finalize().as_bytes()[..24]].concat()
    }

    /// As [`Self::key`], of a root whose marker nobody asked for.
    pub(super) fn unmarked_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(25);
        if let Some(id) = &self.fs_id {
            key.push(1);
            key.extend_from_slice(id);
        } else {
            key.push(0);
            key.extend_from_slice(&self.dev.to_be_bytes());
        }
        key.extend_from_slice(&self.ino.to_be_bytes());
        key
    }
}

/// Whether two keys of roots without a marker are of one file system: they differ in the inode alone.
pub(super) fn same_file_system(one: &[u8], other: &[u8]) -> bool {
    let file_system = |key: &[u8]| key.len().checked_sub(8).map(|end| key[..end].to_vec());
    file_system(one).is_some() && file_system(one) == file_system(other)
}

/// `f_fsid`, unless it is missing or merely the device number (`huge_encode_dev` in the kernel's
/// `include/linux/kdev_t.h`).
fn from_fsid(fsid: u64, dev: u64) -> Option<[u8; 16]> {
    let (major, minor) = (u64::from(rustix::fs::major(dev)), u64::from(rustix::fs::minor(dev)));
    let disguised = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    if fsid == 0 || fsid == disguised {
        return None;
    }
    let mut id = [0; 16];
    id[..8].copy_from_slice(&fsid.to_be_bytes());
    Some(id)
}

/// The identity of a network mount: type and source from `mountinfo` (`proc_pid_mountinfo(5)`), and
/// for NFS the server's file system id from `/proc/fs/nfsfs/volumes` (columns: version, server, port,
/// device, fsid). `None` for anything whose source does not name a server.
pub(super) fn from_mount(mountinfo: &[u8], volumes: &[u8], mount_id: u64, dev: u64) -> Option<[u8; 16]> {
    let id = mount_id.to_string();
    let line = mountinfo.split(|byte| *byte == b'\n').find(|line| words(line).next() == Some(id.as_bytes()))?;
    let mut after = words(line).skip_while(|word| *word != b"-").skip(1);
    let (kind, source) = (after.next()?, after.next()?);
    if !source.starts_with(b"//") && !source.windows(2).any(|pair| pair == b":/") {
        return None;
    }
    let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let fsid = volumes
        .split(|byte| *byte == b'\n')
        .find(|line| words(line).nth(3) == Some(device.as_bytes()))
        .and_then(|line| words(line).nth(4));
    let mut hasher = blake3::Hasher::new();
    for field in [b"copyd network root", kind, source, fsid.unwrap_or_default()] {
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
    }
    hasher.finalize().as_bytes().first_chunk().copied()
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"36 35 0:44 / /mnt/a rw,relatime shared:1 - nfs4 10.0.0.5:/shares/x rw,vers=4.2\n\
        37 35 0:45 / /mnt/b rw - nfs4 10.0.0.5:/shares/y rw\n38 35 0:46 / /mnt/c rw - fuse.portal portal rw\n";
    const VOLUMES: &[u8] = b"NV SERVER   PORT DEV          FSID                              FSC\n\
        v4 0a000005  801 0:44         fd00:2                            no \n";

    #[test]
    fn a_network_root_is_the_same_after_a_remount_under_another_device_number() {
        let first = from_mount(MOUNTS, VOLUMES, 36, rustix::fs::makedev(0, 44));
        let text = |bytes: &[u8], old: &str, new: &str| String::from_utf8_lossy(bytes).replace(old, new).into_bytes();
        let (mounts, volumes) = (text(MOUNTS, "36 35 0:44", "90 35 0:77"), text(VOLUMES, "0:44", "0:77"));
        assert!(first.is_some());
        assert_eq!(first, from_mount(&mounts, &volumes, 90, rustix::fs::makedev(0, 77)));
        let other_export = text(VOLUMES, "fd00:2", "fd00:3");
        assert_ne!(first, from_mount(MOUNTS, &other_export, 36, rustix::fs::makedev(0, 44)));
        assert_ne!(first, from_mount(MOUNTS, VOLUMES, 37, rustix::fs::makedev(0, 45)));
    }

    #[test]
    fn a_mount_that_names_no_server_has_no_identity_beyond_its_device() {
        assert_eq!(from_mount(MOUNTS, VOLUMES, 38, rustix::fs::makedev(0, 46)), None);
        assert_eq!(from_mount(MOUNTS, VOLUMES, 99, rustix::fs::makedev(0, 46)), None);
    }

    #[test]
    fn a_device_number_in_the_fsid_is_no_identity() {
        assert_eq!(from_fsid(0x70c, rustix::fs::makedev(7, 12)), None);
        assert_eq!(from_fsid(0x10_0701, rustix::fs::makedev(7, 0x101)), None);
        assert_eq!(from_fsid(0, rustix::fs::makedev(7, 12)), None);
        assert!(from_fsid(0x70d, rustix::fs::makedev(7, 12)).is_some());
    }
}
