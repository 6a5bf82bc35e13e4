//! Extended attributes by descriptor, and by (directory, single name) without following.
//!
//! By name the kernel has calls of its own since 6.13 (`listxattrat` and its family); before, the
//! only way is `/proc/self/fd/N/name` with the `l*xattr` calls. Which of the two serves is found
//! out once.

#![expect(unsafe_code, reason = "the calls by name have no safe wrapper; buffers are filled uninitialised")]

use std::ffi::{CStr, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use super::attributes::{Answer, EntryRef, proc_path};
use crate::limits::{XATTR_BUFFER_BYTES, XATTR_LIST_BYTES, XATTR_TRIES, XATTR_VALUE_BYTES};

/// Numbers of the calls by name: the same on every architecture but alpha.
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// `struct xattr_args` of `<linux/xattr.h>`, Linux 6.13.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// How a name below a directory reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// `*xattrat`, Linux 6.13.
    Calls,
    /// `l*xattr` of `/proc/self/fd/N/name`.
    Procfs,
}

/// Asked once with a descriptor that can't exist: a kernel that knows the call says `EBADF`.
/// Anything else is an old kernel, or a seccomp filter that hides the call.
fn route() -> Route {
    static ROUTE: OnceLock<Route> = OnceLock::new();
    *ROUTE.get_or_init(|| {
        // SAFETY: the name is a C string; a null list of no bytes is never written to.
        let result = unsafe {
            libc::syscall(LISTXATTRAT, -1, c"x".as_ptr(), libc::AT_SYMLINK_NOFOLLOW, std::ptr::null_mut::<c_void>(), 0)
        };
        let known = result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF);
        if known { Route::Calls } else { Route::Procfs }
    })
}

/// The names of all attributes that this process may see, each ended by NUL, into `out`, whose
/// capacity is reused.
///
/// # Errors
/// `E2BIG` when the names are more than 64 KiB together, which the kernel can't list (`xattr(7)`);
/// `ERANGE` when the list outgrew every buffer; and whatever `flistxattr` says.
pub fn list_xattrs(entry: EntryRef<'_>, out: &mut Vec<u8>) -> io::Result<Answer> {
    list_by(route(), entry, out)
}

/// The value of one attribute into `out`, whose capacity is reused.
///
/// # Errors
/// `ENODATA` when the entry has no such attribute; otherwise as [`list_xattrs`].
pub fn get_xattr(entry: EntryRef<'_>, name: &CStr, out: &mut Vec<u8>) -> io::Result<Answer> {
    get_by(route(), entry, name, out)
}

/// Creates or replaces one attribute.
///
/// # Errors
/// Whatever `fsetxattr` says.
pub fn set_xattr(entry: EntryRef<'_>, name: &CStr, value: &[u8]) -> io::Result<Answer> {
    set_by(route(), entry, name, value)
}

/// Removes one attribute; one that is not there is no error.
///
/// # Errors
/// Whatever `fremovexattr` says.
pub fn remove_xattr(entry: EntryRef<'_>, name: &CStr) -> io::Result<Answer> {
    remove_by(route(), entry, name)
}

fn list_by(route: Route, entry: EntryRef<'_>, out: &mut Vec<u8>) -> io::Result<Answer> {
    Answer::of(match (entry, route) {
        (EntryRef::Fd(fd), _) => {
            let fd = fd.as_raw_fd();
            // SAFETY: `fill` hands out `room` writable bytes at `at`.
            fill(out, XATTR_LIST_BYTES, |at, room| unsafe { libc::flistxattr(fd, at.cast(), room) as c_long })
        }
        (EntryRef::At(directory, name), Route::Calls) => {
            let (fd, name) = (directory.as_raw_fd(), name.as_ptr());
            // SAFETY: the name is a C string that outlives the call; `fill` hands out `room`
            // writable bytes at `at`.
            fill(out, XATTR_LIST_BYTES, |at, room| unsafe {
                libc::syscall(LISTXATTRAT, fd, name, libc::AT_SYMLINK_NOFOLLOW, at, room)
            })
        }
        (EntryRef::At(directory, name), Route::Procfs) => {
            let Some(path) = proc_path(directory, name)? else { return Ok(Answer::Unsupported) };
            // SAFETY: the path is a C string that outlives the call; `fill` hands out `room`
            // writable bytes at `at`.
            fill(out, XATTR_LIST_BYTES, |at, room| unsafe {
                libc::llistxattr(path.as_ptr(), at.cast(), room) as c_long
            })
        }
    })
}

fn get_by(route: Route, entry: EntryRef<'_>, name: &CStr, out: &mut Vec<u8>) -> io::Result<Answer> {
    Answer::of(match (entry, route) {
        (EntryRef::Fd(fd), _) => {
            let fd = fd.as_raw_fd();
            // SAFETY: the name is a C string; `fill` hands out `room` writable bytes at `at`.
            fill(out, XATTR_VALUE_BYTES, |at, room| unsafe {
                libc::fgetxattr(fd, name.as_ptr(), at.cast(), room) as c_long
            })
        }
        (EntryRef::At(directory, entry_name), Route::Calls) => {
            fill(out, XATTR_VALUE_BYTES, |at, room| get_at(directory, entry_name, name, at, room))
        }
        (EntryRef::At(directory, entry_name), Route::Procfs) => {
            let Some(path) = proc_path(directory, entry_name)? else { return Ok(Answer::Unsupported) };
            // SAFETY: both names are C strings; `fill` hands out `room` writable bytes at `at`.
            fill(out, XATTR_VALUE_BYTES, |at, room| unsafe {
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), at.cast(), room) as c_long
            })
        }
    })
}

/// `getxattrat`, with the result of a system call: a length, or -1 and `errno`.
fn get_at(directory: BorrowedFd<'_>, entry_name: &CStr, name: &CStr, at: *mut u8, room: usize) -> c_long {
    let arguments = XattrArgs { value: at as u64, size: u32::try_from(room).unwrap_or(u32::MAX), flags: 0 };
    // SAFETY: both names are C strings and `arguments` is the kernel's own layout, all outlive the
    // call; the caller hands out `room` writable bytes at `at`.
    unsafe {
        libc::syscall(
            GETXATTRAT,
            directory.as_raw_fd(),
            entry_name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw const arguments,
            size_of::<XattrArgs>(),
        )
    }
}

fn set_by(route: Route, entry: EntryRef<'_>, name: &CStr, value: &[u8]) -> io::Result<Answer> {
    let (from, length) = (value.as_ptr(), value.len());
    let size = u32::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let result = match (entry, route) {
        // SAFETY: the name is a C string, and `length` bytes at `from` are readable.
        (EntryRef::Fd(fd), _) => unsafe {
            libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), from.cast(), length, 0).into()
        },
        (EntryRef::At(directory, entry_name), Route::Calls) => {
            let arguments = XattrArgs { value: from as u64, size, flags: 0 };
            // SAFETY: both names are C strings and `arguments` is the kernel's own layout, all
            // outlive the call; `size` bytes at `from` are readable.
            unsafe {
                libc::syscall(
                    SETXATTRAT,
                    directory.as_raw_fd(),
                    entry_name.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    name.as_ptr(),
                    &raw const arguments,
                    size_of::<XattrArgs>(),
                )
            }
        }
        (EntryRef::At(directory, entry_name), Route::Procfs) => {
            let Some(path) = proc_path(directory, entry_name)? else { return Ok(Answer::Unsupported) };
            // SAFETY: both names are C strings, and `length` bytes at `from` are readable.
            unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), from.cast(), length, 0).into() }
        }
    };
    Answer::of(done(result))
}

fn remove_by(route: Route, entry: EntryRef<'_>, name: &CStr) -> io::Result<Answer> {
    let result: c_long = match (entry, route) {
        // SAFETY: the name is a C string.
        (EntryRef::Fd(fd), _) => unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()).into() },
        // SAFETY: both names are C strings.
        (EntryRef::At(directory, entry_name), Route::Calls) => unsafe {
            libc::syscall(
                REMOVEXATTRAT,
                directory.as_raw_fd(),
                entry_name.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
            )
        },
        (EntryRef::At(directory, entry_name), Route::Procfs) => {
            let Some(path) = proc_path(directory, entry_name)? else { return Ok(Answer::Unsupported) };
            // SAFETY: both names are C strings.
            unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()).into() }
        }
    };
    match done(result) {
        Err(e) if e.raw_os_error() == Some(libc::ENODATA) => Ok(Answer::Done(())),
        other => Answer::of(other),
    }
}

fn done(result: c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fills `out` by a call that takes a buffer and says `ERANGE` when it is too small, or, given no
/// room at all, how much it needs. In the usual case that is one call into a reused buffer. The
/// value can grow between the calls, so growing is tried a bounded number of times.
fn fill(out: &mut Vec<u8>, most: usize, call: impl Fn(*mut u8, usize) -> c_long) -> io::Result<()> {
    out.clear();
    out.reserve(XATTR_BUFFER_BYTES);
    for _ in 0..XATTR_TRIES {
        let room = out.capacity().min(most);
        match usize::try_from(call(out.as_mut_ptr(), room)) {
            Ok(length) if length <= room => {
                // SAFETY: the kernel has written `length` bytes, which the capacity holds.
                unsafe { out.set_len(length) };
                return Ok(());
            }
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) || room == most {
                    return Err(error);
                }
            }
        }
        let needed = call(std::ptr::null_mut(), 0);
        let needed = usize::try_from(needed).map_err(|_| io::Error::last_os_error())?;
        // Not less than twice as much: a value that grows slowly must not use up the tries.
        out.reserve(needed.max(room * 2).min(most));
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE as c_int))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    /// A room on a file system that takes `user.*` and `trusted.*`.
    fn room() -> (tempfile::TempDir, File) {
        let room = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let directory = File::open(room.path()).expect("open it");
        (room, directory)
    }

    #[test]
    fn a_symlink_has_attributes_of_its_own_by_both_routes_and_its_target_stays_untouched() {
        let (room, directory) = room();
        std::fs::write(room.path().join("target"), "x").expect("write");
        std::os::unix::fs::symlink("target", room.path().join("link")).expect("symlink");
        let link = EntryRef::At(directory.as_fd(), c"link");
        let (mut names, mut value) = (Vec::new(), Vec::new());
        for route in [Route::Calls, Route::Procfs] {
            assert!(set_by(route, link, c"trusted.copyd", b"\x00\xff").expect("set").is_done());
            assert!(list_by(route, link, &mut names).expect("list").is_done());
            assert_eq!(names, b"trusted.copyd\0");
            assert!(get_by(route, link, c"trusted.copyd", &mut value).expect("get").is_done());
            assert_eq!(value, b"\x00\xff");
            assert!(list_by(route, EntryRef::At(directory.as_fd(), c"target"), &mut names).expect("list").is_done());
            assert_eq!(names, b"");
            assert!(remove_by(route, link, c"trusted.copyd").expect("remove").is_done());
            assert!(remove_by(route, link, c"trusted.copyd").expect("remove what is gone").is_done());
            assert!(list_by(route, link, &mut names).expect("list").is_done());
            assert_eq!(names, b"");
        }
    }

    #[test]
    fn a_list_and_a_value_larger_than_the_first_buffer_come_whole() {
        let (room, directory) = room();
        let file = File::create(room.path().join("file")).expect("create");
        let value: Vec<u8> = (0..=250).cycle().take(XATTR_VALUE_BYTES).collect();
        for number in 0..400 {
            let name = std::ffi::CString::new(format!("trusted.a name that is long enough.{number:03}")).expect("name");
            let bytes = if number == 0 { &value[..] } else { b"small" };
            assert!(set_xattr(EntryRef::Fd(file.as_fd()), &name, bytes).expect("set").is_done());
        }
        for entry in [EntryRef::Fd(file.as_fd()), EntryRef::At(directory.as_fd(), c"file")] {
            let (mut names, mut got) = (Vec::new(), Vec::new());
            assert!(list_xattrs(entry, &mut names).expect("list").is_done());
            assert_eq!(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).count(), 400);
            let name = c"trusted.a name that is long enough.000";
            assert!(get_xattr(entry, name, &mut got).expect("get").is_done());
            assert!(got == value);
        }
    }

    #[test]
    fn a_value_that_grows_at_every_call_ends_with_an_error_after_a_bounded_number_of_tries() {
        let calls = std::cell::Cell::new(0);
        let error = fill(&mut Vec::new(), usize::MAX >> 8, |_, room| {
            calls.set(calls.get() + 1);
            if room == 0 {
                return 1;
            }
            // SAFETY: sets this thread's errno, as a system call does.
            unsafe { *libc::__errno_location() = libc::ERANGE };
            -1
        })
        .expect_err("it never fits");
        assert_eq!(error.raw_os_error(), Some(libc::ERANGE));
        assert_eq!(calls.get(), XATTR_TRIES * 2);
    }

    #[test]
    fn a_missing_attribute_is_an_error_and_a_missing_namespace_is_unsupported() {
        let (room, _) = room();
        let file = File::create(room.path().join("file")).expect("create");
        let entry = EntryRef::Fd(file.as_fd());
        let error = get_xattr(entry, c"user.none", &mut Vec::new()).expect_err("not there");
        assert_eq!(error.raw_os_error(), Some(libc::ENODATA));
        assert_eq!(set_xattr(entry, c"nothing.like.this", b"").expect("answered"), Answer::Unsupported);
    }
}
