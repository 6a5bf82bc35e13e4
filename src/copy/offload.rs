//! What the kernel or the server copies by itself.
//!
//! A clone shares the blocks of the source: instant, and also not a second copy. It is refused
//! where the caller wants every byte allocated (`--provision thick`), and what it made is read and
//! proved like any other copy.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Whether a file was cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloned {
    /// The target has the source's content now.
    Yes,
    /// Not this one (other settings than its neighbours); the next may be.
    NotThisFile,
    /// These two file systems never clone.
    Never,
}

/// `FICLONE` (`ioctl_ficlone(2)`).
#[must_use]
pub fn clone(source: &OwnedFd, target: &OwnedFd) -> Cloned {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Cloned::Yes,
        Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => Cloned::Never,
        Err(_) => Cloned::NotThisFile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_clones_says_so_once_and_for_all() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let make = |name| OwnedFd::from(std::fs::File::create_new(dir.path().join(name)).unwrap());
        let (a, b) = (make("a"), make("b"));
        assert_eq!(clone(&a, &b), Cloned::Never);
    }
}
