//! The UUID of a file system, which stays when its device number doesn't.

#![expect(unsafe_code, reason = "neither ioctl has a safe wrapper")]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, ioctl, opcode};

use super::attributes::{Answer, file_system_magic};

/// `struct fsuuid2` of `<linux/fs.h>`.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `FS_IOC_GETFSUUID`, Linux 6.9.
const GET_FS_UUID: Opcode = opcode::read::<FsUuid>(0x15, 0);

/// `struct xfs_fsop_geom_v1` of `<xfs/xfs_fs.h>`: all that is asked of it is the UUID.
#[repr(C, align(8))]
struct XfsGeometry {
    sizes: [u8; 64],
    uuid: [u8; 16],
    rest: [u8; 32],
}

/// `XFS_IOC_FSGEOMETRY_V1`.
const XFS_GEOMETRY: Opcode = opcode::read::<XfsGeometry>(b'X', 100);

const XFS_MAGIC: u32 = 0x5846_5342;

/// The UUID of the file system that `fd` lies on, shorter ones followed by zeros: from Linux 6.9 of
/// every one that has any, before of xfs. The subvolumes of btrfs share one.
///
/// # Errors
/// Whatever the ioctls say; what a FUSE server answers can be anything.
pub fn file_system_uuid(fd: BorrowedFd<'_>) -> io::Result<Answer<[u8; 16]>> {
    match by_any(fd)? {
        Answer::Unsupported if file_system_magic(fd)? == XFS_MAGIC => of_xfs(fd),
        answer => Ok(answer),
    }
}

fn by_any(fd: BorrowedFd<'_>) -> io::Result<Answer<[u8; 16]>> {
    // SAFETY: the opcode writes one `struct fsuuid2`, whose layout `FsUuid` has, and every bit
    // pattern is a value of it.
    let answer = Answer::of(unsafe { ioctl(fd, Getter::<GET_FS_UUID, FsUuid>::new()) }.map_err(io::Error::from))?;
    Ok(match answer {
        Answer::Done(FsUuid { len: 1.., uuid }) => Answer::Done(uuid),
        _ => Answer::Unsupported,
    })
}

fn of_xfs(fd: BorrowedFd<'_>) -> io::Result<Answer<[u8; 16]>> {
    // SAFETY: the opcode writes one `struct xfs_fsop_geom_v1`, of which `XfsGeometry` has the size
    // and the place of the UUID, and every bit pattern is a value of it.
    let answer = Answer::of(unsafe { ioctl(fd, Getter::<XFS_GEOMETRY, XfsGeometry>::new()) }.map_err(io::Error::from))?;
    Ok(match answer {
        Answer::Done(geometry) => Answer::Done(geometry.uuid),
        Answer::Unsupported => Answer::Unsupported,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
        let status = Command::new(program).args(arguments).arg(path).status();
        status.unwrap_or_else(|e| panic!("{program}: {e}")).success()
    }

    #[test]
    fn both_ways_tell_the_uuid_that_an_xfs_was_made_with() {
        let room = tempfile::tempdir().expect("a temporary directory");
        let (image, mount) = (room.path().join("image"), room.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("an image");
        std::fs::create_dir(&mount).expect("mount point");
        assert!(run("mkfs.xfs", &["-q", "-m", "uuid=01234567-89ab-cdef-0123-456789abcdef"], &image));
        assert!(run("mount", &["-o", "loop", &image.to_string_lossy()], &mount));
        let answers = File::open(&mount).map(|root| (by_any(root.as_fd()), of_xfs(root.as_fd())));
        assert!(run("umount", &[], &mount));
        let (any, xfs) = answers.expect("open");
        let made_with = Answer::Done(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
        assert_eq!(xfs.expect("xfs answers"), made_with);
        let any = any.expect("answered");
        assert!(any == made_with || any == Answer::Unsupported, "{any:?}");
    }

    #[test]
    fn a_file_system_without_a_uuid_says_so_instead_of_failing() {
        let proc = File::open("/proc/self").expect("open");
        assert_eq!(file_system_uuid(proc.as_fd()).expect("answered"), Answer::Unsupported);
    }
}
