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
        let result = plainly(&operation, self.buffers.slot_mut(slot));
        self.finished.push_back((slot, result));
        Ok(())
    }

    fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        self.finished.pop_front().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// One operation by a plain call.
fn plainly(operation: &Operation, buffer: &mut [u8]) -> io::Result<usize> {
    let Operation { fd, what, offset, bytes } = operation;
    loop {
        let attempt = match *what {
            Transfer::Read => rustix::io::pread(fd, &mut buffer[..*bytes], *offset),
            Transfer::Write { at } => rustix::io::pwrite(fd, &buffer[at..at + bytes], *offset),
            Transfer::Sync => rustix::fs::fsync(fd).map(|()| 0),
        };
        if attempt != Err(rustix::io::Errno::INTR) {
            return attempt.map_err(io::Error::from);
        }
    }
}

/// A restricted ring with registered buffers.
///
/// What would block is carried out by threads that the kernel starts for the ring. Where a limit gives it
/// none (`RLIMIT_NPROC`, `pids.max`), it cancels such operations one after the other, each after a while.
/// They are carried out by plain calls then, and from the first one on the ring is used no more.
#[derive(Debug)]
pub struct Uring {
    ring: Ring,
    /// What is in flight, by slot.
    operations: Vec<Option<Operation>>,
    /// The ring has no threads.
    given_up: bool,
    finished: VecDeque<(usize, io::Result<usize>)>,
}

impl Uring {
    /// # Errors
    /// As [`Ring::new`].
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(limits::RING_SLOTS, limits::BLOCK_BYTES, limits::RING_WORKERS)?,
            operations: (0..limits::RING_SLOTS).map(|_| None).collect(),
            given_up: false,
            finished: VecDeque::new(),
        })
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
        if self.given_up {
            let result = plainly(&operation, self.ring.buffer(slot));
            self.finished.push_back((slot, result));
            return Ok(());
        }
        let Operation { what, offset, bytes, .. } = operation;
        self.ring.submit(slot, Arc::clone(&operation.fd), what, offset, bytes)?;
        self.operations[slot] = Some(operation);
        Ok(())
    }

    fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        if let Some(finished) = self.finished.pop_front() {
            return Ok(finished);
        }
        let (slot, result) = self.ring.complete()?;
        let operation = self.operations[slot].take();
        match (result, operation) {
            (Err(e), Some(operation)) if e.raw_os_error() == Some(libc::ECANCELED) => {
                if !self.given_up {
                    tracing::warn!("the kernel gives the ring no threads: plain calls serve");
                }
                self.given_up = true;
                Ok((slot, plainly(&operation, self.ring.buffer(slot))))
            }
            (result, _) => Ok((slot, result)),
        }
    }
}
