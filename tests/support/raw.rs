//! What no safe crate offers: an inode's project id, its flags by name, a mount namespace of one's own, limits, and a
//! kernel that refuses a call.
//!
//! The library keeps its unsafe blocks in `src/sys/`; its judge may not use them, so these few
//! stand here.

#![allow(
    unsafe_code,
    reason = "FS_IOC_FS[GS]ETXATTR, file_setattr, unshare(CLONE_NEWNS), pre_exec and seccomp have no safe wrapper"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::ioctl::{Getter, Setter, ioctl, opcode};

/// `struct fsxattr` of `linux/fs.h`, 28 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Fsxattr {
    /// `FS_XFLAG_*`.
    pub xflags: u32,
    pub extent_size: u32,
    pub extents: u32,
    pub project: u32,
    pub cow_extent_size: u32,
    pub padding: [u8; 8],
}

const GET: rustix::ioctl::Opcode = opcode::read::<Fsxattr>(b'X', 31);
const SET: rustix::ioctl::Opcode = opcode::write::<Fsxattr>(b'X', 32);

/// `FS_IOC_FSGETXATTR`: extended flags and project id.
pub fn fsxattr(fd: impl AsFd) -> io::Result<Fsxattr> {
    // SAFETY: the opcode reads exactly one `struct fsxattr`, whose layout `Fsxattr` has, and every
    // bit pattern is a valid value of it.
    Ok(unsafe { ioctl(fd, Getter::<GET, Fsxattr>::new()) }?)
}

/// `FS_IOC_FSSETXATTR`.
pub fn set_fsxattr(fd: impl AsFd, value: Fsxattr) -> io::Result<()> {
    // SAFETY: the opcode takes a pointer to one `struct fsxattr`, and only reads it.
    Ok(unsafe { ioctl(fd, Setter::<SET, Fsxattr>::new(value)) }?)
}

/// Makes an entry of any type immutable, by its name (`file_setattr`, Linux 6.17). False where the
/// kernel has no such call, or the file system no such flag on this type.
pub fn make_immutable(path: &Path) -> io::Result<bool> {
    const FILE_SETATTR: libc::c_long = 469;
    const FS_XFLAG_IMMUTABLE: u64 = 0x8;
    let name = CString::new(path.as_os_str().as_bytes())?;
    // `struct file_attr`: flags, then five numbers of 32 bits that stay 0.
    let attributes = [FS_XFLAG_IMMUTABLE, 0, 0];
    let size = std::mem::size_of_val(&attributes);
    // SAFETY: the name is a C string, and the kernel reads as many bytes of `attributes` as it has.
    let answer = unsafe {
        libc::syscall(FILE_SETATTR, libc::AT_FDCWD, name.as_ptr(), attributes.as_ptr(), size, libc::AT_SYMLINK_NOFOLLOW)
    };
    match io::Error::last_os_error() {
        _ if answer == 0 => Ok(true),
        e if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => Ok(false),
        e => Err(e),
    }
}

/// Gives the calling thread, and all that it starts, a copy of the mount table. Its mounts are
/// nobody else's, and vanish with the last process in it, however that ends.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: only the mount namespace (and with it the working directory and umask) stops being
    // shared with other threads; descriptors and memory stay as they are.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}

/// Makes one system call with plain numbers, of which none is the address of anything; `None` where it
/// succeeds, else its error's number.
pub fn error_of(call: libc::c_long, arguments: [libc::c_long; 5]) -> Option<i32> {
    let of = |place: usize| arguments[place];
    // SAFETY: the kernel checks every address that it is given, and these are none.
    let answer = unsafe { libc::syscall(call, of(0), of(1), of(2), of(3), of(4)) };
    (answer < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

/// Puts a limit on the program to come: at most `value` of a resource, for it and all that it starts.
pub fn limit(command: &mut Command, resource: rustix::process::Resource, value: u64) {
    let set = move || {
        let limit = rustix::process::Rlimit { current: Some(value), maximum: Some(value) };
        Ok(rustix::process::setrlimit(resource, limit)?)
    };
    // SAFETY: between fork and exec it makes one system call, and neither allocates nor locks.
    unsafe { command.pre_exec(set) };
}

/// Puts a filter on the program to come which refuses one system call with an error of this number, as
/// container runtimes and old kernels do. Every other call goes through (seccomp(2),
/// `linux/bpf_common.h`).
pub fn refuse(command: &mut Command, call: libc::c_long, error: i32) {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("an opcode has 16 bits"),
        jt,
        jf,
        k,
    };
    let number = u32::try_from(call).expect("call numbers are small");
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(error).expect("error numbers are positive");
    let filter = [
        // The call's number is the first field of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: both calls only change the calling thread; `program` and the filter that it
        // points to live to the end of the block, and the kernel copies them.
        let answer = unsafe {
            let answer = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if answer == 0 {
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
            } else {
                answer
            }
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(install) };
}
