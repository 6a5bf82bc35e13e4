//! The block-I/O seam: operations on descriptors go in, completions come out.
//!
//! It stands here because higher up (copy a tree) each backend would walk again, and lower down
//! (an object for a file system) all would get the poorest common set. A slot is a buffer with at
//! most one operation in flight; whoever drives a file owns one slot. The backends are equals:
//! [`Threads`] answers each operation at once on the calling thread, [`Uring`] keeps many in
//! flight from one thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::limits;
use crate::sys::{Buffers, Ring, Transfer};

/// One operation on a slot's buffer.
#[derive(Debug)]
pub struct Operation {
    pub fd: Arc<OwnedFd>,
    pub what: Transfer,
    /// Bytes from the start of the file.
    pub offset: u64,
    pub bytes: usize,
}

/// Moves blocks. Belongs to one thread.
pub trait BlockIo {
    /// How many operations may be in flight: slots are `0..slots()`.
    fn slots(&self) -> usize;
    /// The buffer of an idle slot; its address is a multiple of a page.
    fn buffer(&mut self, slot: usize) -> &mut [u8];
    /// Begins an operation on an idle slot.
    ///
    /// # Errors
    /// Only what concerns the backend itself; the operation's own error arrives with its completion.
    fn submit(&mut self, slot: usize, operation: Operation) -> io::Result<()>;
    /// Waits for one operation: its slot, and the bytes moved or its error.
    ///
    /// # Errors
    /// `NotFound` when nothing is in flight, and what concerns the backend itself.
    fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)>;
}

/// Plain `pread`, `pwrite` and `fsync` on the calling thread; parallel by having many threads.
#[derive(Debug)]
pub struct Threads {
    buffers: Buffers,
    finished: VecDeque<(usize, io::Result<usize>)>,
}

impl Threads {
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { buffers: Buffers::new(1, limits::BLOCK_BYTES)?, finished: VecDeque::with_capacity(1) })
    }
}

impl BlockIo for Threads {
    fn slots(&self) -> usize {
        1
    }

    fn buffer(&mut self, slot: usize) -> &mut [u8] {
        self.buffers.slot_mut(slot)
    }

    fn submit(&mut self, slot: usize, operation: Operation) -> io::Result<()> {
        let buffer = self.buffers.slot_mut(slot);
        let Operation { fd, what, offset, bytes } = operation;
        let result = loop {
            let attempt = match what {
                Transfer::Read => rustix::io::pread(&fd, &mut buffer[..bytes], offset),
                Transfer::Write { at } => rustix::io::pwrite(&fd, &buffer[at..at + bytes], offset),
                Transfer::Sync => rustix::fs::fsync(&fd).map(|()| 0),
            };
            if attempt != Err(rustix::io::Errno::INTR) {
                break attempt;
            }
        };
        self.finished.push_back((slot, result.map_err(io::Error::from)));
        Ok(())
    }

    fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        self.finished.pop_front().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A restricted ring with registered buffers.
#[derive(Debug)]
pub struct Uring {
    ring: Ring,
}

impl Uring {
    /// # Errors
    /// As [`Ring::new`].
    pub fn new() -> io::Result<Self> {
        Ok(Self { ring: Ring::new(limits::RING_SLOTS, limits::BLOCK_BYTES, limits::RING_WORKERS)? })
    }
}

impl BlockIo for Uring {
    fn slots(&self) -> usize {
        limits::RING_SLOTS
    }

    fn buffer(&mut self, slot: usize) -> &mut [u8] {
        self.ring.buffer(slot)
    }

    fn submit(&mut self, slot: usize, operation: Operation) -> io::Result<()> {
        self.ring.submit(slot, operation.fd, operation.what, operation.offset, operation.bytes)
    }

    fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        self.ring.complete()
    }
}
