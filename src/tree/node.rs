//! A directory of the pair of trees: held descriptors on both sides, reached one name at a time.
//!
//! Paths never reach the kernel. A node knows its parent and its own name; its descriptors are
//! opened below the parent's when they are needed, kept while there is room ([`Handles`]), and
//! opened again by walking down from the nearest ancestor that still holds one. So a tree may be
//! deeper than PATH_MAX, and deeper than there are descriptors. A directory that was swapped
//! meanwhile is noticed by its inode.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::error::Side;
use crate::sys;

/// Locks, and goes on with the data when another thread panicked: that panic ends the run anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directories whose descriptors are open, oldest first, and how many there may be.
#[derive(Debug)]
pub struct Handles<P> {
    open: Mutex<VecDeque<(Weak<Node<P>>, Side)>>,
    limit: usize,
}

impl<P> Handles<P> {
    /// Room for `limit` open directories. The least is what one walk down needs at a time.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::new(VecDeque::new()), limit: limit.max(16) })
    }

    fn opened(&self, node: &Arc<Node<P>>, side: Side) {
        let mut open = lock(&self.open);
        open.push_back((Arc::downgrade(node), side));
        while open.len() > self.limit {
            let Some((oldest, side)) = open.pop_front() else { break };
            if let Some(oldest) = oldest.upgrade() {
                // Whoever uses the descriptor right now holds a share of its own.
                lock(&oldest.side(side).fd).take();
            }
        }
    }
}

/// One side of a directory.
#[derive(Debug, Default)]
struct Handle {
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// (device, inode) from the first opening; every later one must find the same.
    identity: OnceLock<(u64, u64)>,
}

/// A directory below (or at) the roots, with what the pass keeps for it.
#[derive(Debug)]
pub struct Node<P> {
    parent: Option<Arc<Self>>,
    /// Empty for the root.
    name: CString,
    /// Directories above it.
    level: u32,
    source: Handle,
    destination: Handle,
    handles: Arc<Handles<P>>,
    pub payload: P,
}

impl<P> Node<P> {
    /// The pair of roots. Their descriptors stay open for the whole run.
    #[must_use]
    pub fn root(
        handles: Arc<Handles<P>>,
        source: Arc<OwnedFd>,
        destination: Option<Arc<OwnedFd>>,
        payload: P,
    ) -> Arc<Self> {
        let held = |fd: Option<Arc<OwnedFd>>| {
            let stat = fd.as_ref().and_then(|fd| sys::stat_fd(fd).ok());
            let identity = stat.map(|stat| OnceLock::from((stat.dev, stat.ino))).unwrap_or_default();
            Handle { fd: Mutex::new(fd), identity }
        };
        let (source, destination) = (held(Some(source)), held(destination));
        Arc::new(Self { parent: None, name: CString::default(), level: 0, source, destination, handles, payload })
    }

    /// The subdirectory `name`.
    #[must_use]
    pub fn child(self: &Arc<Self>, name: CString, payload: P) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            name,
            level: self.level.saturating_add(1),
            source: Handle::default(),
            destination: Handle::default(),
            handles: Arc::clone(&self.handles),
            payload,
        })
    }

    #[must_use]
    pub fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The directory's own name; empty for the root.
    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// How many directories are above it.
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// Whether this directory or one above it is this inode, as far as they were opened.
    #[must_use]
    pub fn has_above(&self, side: Side, inode: (u64, u64)) -> bool {
        let above = std::iter::successors(Some(self), |node| node.parent.as_deref());
        above.into_iter().any(|node| node.side(side).identity.get() == Some(&inode))
    }

    /// Path from the root, without a slash at either end; empty for the root.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_bytes());
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Path from the root of the entry `name` in this directory.
    #[must_use]
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    fn side(&self, side: Side) -> &Handle {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// The descriptor of this directory on one side.
    ///
    /// # Errors
    /// Whatever opening it, or an ancestor again, says; `ESTALE` when another directory stands
    /// under the name by now.
    pub fn open(self: &Arc<Self>, side: Side) -> io::Result<Arc<OwnedFd>> {
        let mut below: Vec<&Arc<Self>> = Vec::new();
        let mut at = self;
        let mut fd = loop {
            if let Some(fd) = lock(&at.side(side).fd).as_ref() {
                break Arc::clone(fd);
            }
            below.push(at);
            at = at.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
        };
        for node in below.into_iter().rev() {
            let opened = Arc::new(sys::open_directory(fd.as_fd(), &node.name)?);
            let stat = sys::stat_fd(&opened)?;
            let first = *node.side(side).identity.get_or_init(|| (stat.dev, stat.ino));
            if first != (stat.dev, stat.ino) {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            *lock(&node.side(side).fd) = Some(Arc::clone(&opened));
            self.handles.opened(node, side);
            fd = opened;
        }
        Ok(fd)
    }

    /// Takes a descriptor of the directory that was opened elsewhere: it has no name below its parent
    /// yet, so it is kept open until [`Self::reachable`] says otherwise.
    ///
    /// # Errors
    /// Whatever statx says.
    pub fn adopt(&self, side: Side, fd: Arc<OwnedFd>) -> io::Result<()> {
        let stat = sys::stat_fd(&fd)?;
        let _ = self.side(side).identity.set((stat.dev, stat.ino));
        *lock(&self.side(side).fd) = Some(fd);
        Ok(())
    }

    /// An adopted directory stands under its name: it can be opened again, and so be closed.
    pub fn reachable(self: &Arc<Self>, side: Side) {
        self.handles.opened(self, side);
    }

    /// Lets go of both descriptors: the directory is finished. The root keeps its own.
    pub fn close(&self) {
        if self.parent.is_some() {
            lock(&self.source.fd).take();
            lock(&self.destination.fd).take();
        }
    }
}

impl<P> Drop for Node<P> {
    fn drop(&mut self) {
        // A chain of a hundred thousand parents must not be a hundred thousand stack frames.
        let mut next = self.parent.take();
        while let Some(node) = next {
            next = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(at: &std::path::Path, limit: usize) -> Arc<Node<()>> {
        let fd = Arc::new(sys::open_root(at).unwrap());
        Node::root(Handles::new(limit), Arc::clone(&fd), Some(fd), ())
    }

    #[test]
    fn a_directory_deeper_than_the_descriptors_allow_is_reached_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = pair(dir.path(), 16);
        let mut nodes = vec![];
        for level in 0..300 {
            let name = CString::new(format!("level{level}")).unwrap();
            rustix::fs::mkdirat(&*node.open(Side::Source).unwrap(), &name, rustix::fs::Mode::RWXU).unwrap();
            node = node.child(name, ());
            nodes.push(Arc::clone(&node));
        }
        for node in nodes.iter().rev() {
            node.open(Side::Source).unwrap();
        }
        assert_eq!(nodes[2].path(), b"level0/level1/level2");
    }

    #[test]
    fn another_directory_under_the_same_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let root = pair(dir.path(), 16);
        let node = root.child(c"a".into(), ());
        node.open(Side::Source).unwrap();
        node.close();
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(node.open(Side::Source).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_directories_is_dropped_without_recursion() {
        let mut node = pair(std::path::Path::new("/"), 16);
        for _ in 0..100_000 {
            node = node.child(c"x".into(), ());
        }
        drop(node);
    }
}
