//! Directories below a root by their paths, opened one component at a time.
//!
//! A manifest names entries by paths, and neighbours mostly share their directories. So the last
//! chain of descriptors is kept: what the next path shares with it need not be opened again.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::limits;
use crate::sys;

/// The chain of one worker.
#[derive(Debug)]
pub struct Chain {
    root: Arc<OwnedFd>,
    /// The directories from the root down, with their names; as many as are kept.
    open: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    /// The directory of the last path, where it lies deeper than the chain reaches.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl Chain {
    #[must_use]
    pub const fn new(root: Arc<OwnedFd>) -> Self {
        Self { root, open: Vec::new(), last: None }
    }

    /// The directory at `path` from the root; empty for the root itself.
    ///
    /// # Errors
    /// Whatever opening a component says: `ELOOP` for a symlink, `EXDEV` for a mount, `InvalidInput`
    /// for a NUL byte.
    pub fn directory(&mut self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(fd));
        }
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        let mut shared = 0;
        while names.next_if(|name| self.open.get(shared).is_some_and(|(open, _)| open == name)).is_some() {
            shared += 1;
        }
        self.open.truncate(shared);
        let mut fd = Arc::clone(self.open.last().map_or(&self.root, |(_, fd)| fd));
        for name in names {
            fd = Arc::new(sys::open_directory(fd.as_fd(), &CString::new(name)?)?);
            if self.open.len() < limits::CHAIN_HANDLES {
                self.open.push((name.to_vec(), Arc::clone(&fd)));
            } else {
                self.last = None;
            }
        }
        if self.open.len() == limits::CHAIN_HANDLES {
            self.last = Some((path.to_vec(), Arc::clone(&fd)));
        }
        Ok(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_directories_however_deep_and_in_whatever_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(sys::open_root(dir.path()).unwrap());
        let mut paths = vec![Vec::new()];
        let mut at = Arc::clone(&root);
        for level in 0..limits::CHAIN_HANDLES + 20 {
            let name = format!("level{level}");
            rustix::fs::mkdirat(&at, &*name, rustix::fs::Mode::RWXU).unwrap();
            at = Arc::new(sys::open_directory(at.as_fd(), &CString::new(name.clone()).unwrap()).unwrap());
            let mut path: Vec<u8> = paths.last().cloned().unwrap_or_default();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            paths.push(path);
        }
        let identity = |fd: &OwnedFd| sys::stat_fd(fd).unwrap().ino;
        let mut forwards = Chain::new(Arc::clone(&root));
        let found: Vec<u64> = paths.iter().map(|path| identity(&forwards.directory(path).unwrap())).collect();
        assert_eq!(found.last(), Some(&identity(&at)));
        let mut backwards = Chain::new(root);
        for (path, ino) in paths.iter().zip(&found).rev() {
            assert_eq!(identity(&backwards.directory(path).unwrap()), *ino);
        }
        let different: std::collections::HashSet<u64> = found.iter().copied().collect();
        assert_eq!(different.len(), paths.len());
    }

    #[test]
    fn a_symlink_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let mut chain = Chain::new(Arc::new(sys::open_root(dir.path()).unwrap()));
        assert!(chain.directory(b"real").is_ok());
        let refused = chain.directory(b"link").unwrap_err().raw_os_error();
        assert!(matches!(refused, Some(libc::ELOOP | libc::ENOTDIR)), "{refused:?}");
        assert!(chain.directory(b"real").is_ok());
    }
}
