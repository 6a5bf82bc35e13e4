//! Groups of the process at the other end of a unix socket (`unix(7)`, `SO_PEERGROUPS`, Linux 4.13).
//!
//! They are those of the moment at which it connected, kept by the kernel: unlike `/proc/PID`, which
//! may be another process by the time it is read.

#![expect(unsafe_code, reason = "no safe wrapper knows this socket option")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most groups that a process can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// Enough for nearly everyone, so that one call does.
const GROUPS_USUAL: usize = 64;

/// The supplementary groups of the peer.
///
/// # Errors
/// The descriptor is no connected unix socket.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_USUAL];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes into the vector, which has that many, and
        // sets `bytes` to what it wrote, or would have to write.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let error = io::Error::last_os_error();
        let needed = bytes as usize / size_of::<u32>();
        if done == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() || needed > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::peer_groups;

    #[test]
    fn the_peer_has_the_groups_of_its_process() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets can be made");
        let mut found = peer_groups(ours.as_fd()).expect("the kernel knows the option");
        let mut expected: Vec<u32> =
            rustix::process::getgroups().expect("groups can be read").iter().map(|g| g.as_raw()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_unix_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").expect("there is a /dev/null");
        assert!(peer_groups(file.as_fd()).is_err());
    }
}
