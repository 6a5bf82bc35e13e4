//! Descriptors that came with the process: a link to the parent, a socket of the service manager.

#![expect(unsafe_code, reason = "a number becomes an owner")]

use std::collections::HashSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The numbers that have an owner already. An inherited descriptor is taken once.
static TAKEN: LazyLock<Mutex<HashSet<RawFd>>> = LazyLock::new(Mutex::default);

/// Takes a descriptor that the process was started with, and keeps it from programs that this one starts.
///
/// # Errors
/// `EBADF` where it is not open; `InvalidInput` for the three standard streams, which have owners, and for one that
/// was taken before.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if number <= libc::STDERR_FILENO || taken.contains(&number) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: takes numbers; a descriptor that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What Rust opens has the flag from its first moment; what came through an `execve` can't have it. So one
    // without it was opened by nobody here, and has no owner.
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.insert(number);
    // SAFETY: it is open, came with the process, and the set says that it is handed out for the first time.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn only_an_open_descriptor_without_an_owner_is_taken() {
        let file = std::fs::File::open("/dev/null").expect("there is one");
        for number in [-1, 0, 1, 2, 1_000_000, file.as_raw_fd()] {
            assert!(take_inherited(number).is_err(), "{number}");
        }
    }
}
