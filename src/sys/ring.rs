//! An io_uring that moves blocks, and can do nothing else.
//!
//! seccomp does not see what happens inside a ring, so the ring is created disabled, restricted
//! to read, write and fsync, and only then enabled: a worker that is taken over can't open or
//! connect through it. Buffers belong to the ring and are registered; each slot has one buffer
//! and at most one operation in flight, so a buffer can't be touched while the kernel may write
//! to it, and the descriptor of an operation lives until its completion arrived.
#![allow(unsafe_code)] // the kernel is handed raw buffers and descriptors

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use io_uring::{IoUring, opcode, register::Restriction, squeue, types};

use super::buffers::Buffers;

/// What one operation does with its slot's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Fill the buffer from `offset`.
    Read,
    /// Write the buffer's bytes from `at` on to `offset`.
    Write { at: usize },
    /// Flush the file's data and metadata to stable storage.
    Sync,
}

/// A ring with its buffers. Belongs to the thread that made it.
#[derive(Debug)]
pub struct Ring {
    handle: RingHandle,
    buffers: Buffers,
    /// The buffers are registered: the fixed opcodes can be used.
    registered: bool,
    /// Descriptors of the operations in flight, by slot.
    in_flight: Vec<Option<Arc<OwnedFd>>>,
    /// The same for whoever looks from outside, see [`in_flight`].
    shown: Arc<Shown>,
    /// Prepared, and not yet handed to the kernel.
    unsubmitted: usize,
}

/// What a ring has in flight, by slot: 0, or the descriptor and what is done with it. A thread that waits in
/// a ring shows only the ring to procfs, so this is how a watcher finds out what it waits for.
type Shown = [AtomicU64];

/// The rings of this process, as long as they live.
static RINGS: Mutex<Vec<Weak<Shown>>> = Mutex::new(Vec::new());

const READ: u64 = 1;
const WRITE: u64 = 2;
const SYNC: u64 = 3;

fn show(slots: usize) -> Arc<Shown> {
    let shown: Arc<Shown> = (0..slots).map(|_| AtomicU64::new(0)).collect();
    let mut rings = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
    rings.retain(|ring| ring.strong_count() > 0);
    rings.push(Arc::downgrade(&shown));
    shown
}

/// What all rings of this process have handed to the kernel and not got back: descriptor and operation.
/// Never waits for a ring; an operation that completes meanwhile may still be named.
#[must_use]
pub fn in_flight() -> Vec<(RawFd, &'static str)> {
    let rings = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let alive = rings.iter().filter_map(Weak::upgrade);
    let mut found = Vec::new();
    for ring in alive {
        for slot in ring.iter() {
            let value = slot.load(Ordering::Relaxed);
            let word = match value & 3 {
                READ => "read",
                WRITE => "write",
                SYNC => "fsync",
                _ => continue,
            };
            found.extend(RawFd::try_from(value >> 2).ok().map(|fd| (fd, word)));
        }
    }
    found
}

/// `IoUring` has no `Debug` of its own.
struct RingHandle(IoUring);

impl std::fmt::Debug for RingHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoUring")
    }
}

impl Ring {
    /// A ring of `slots` operations with a buffer of `buffer_bytes` each, and up to `workers`
    /// kernel threads for files whose reads and writes the kernel punts (NFS, SMB, buffered
    /// writes): its own bound of min(entries, 4 × CPUs) starves a server with latency.
    ///
    /// # Errors
    /// `EPERM` or `ENOSYS` where a container or the administrator refuses io_uring; `ENOMEM`.
    pub fn new(slots: usize, buffer_bytes: usize, workers: u32) -> io::Result<Self> {
        let entries = u32::try_from(slots.next_power_of_two()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ring = Self::build(entries)?;
        let mut buffers = Buffers::new(slots, buffer_bytes)?;
        let iovecs: Vec<libc::iovec> = (0..slots)
            .map(|slot| {
                let buffer = buffers.slot_mut(slot);
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
            })
            .collect();
        // SAFETY: the iovecs point into `buffers`, which lives as long as the ring (same struct,
        // and `Drop` waits for what is in flight).
        // ENOMEM: RLIMIT_MEMLOCK; the plain opcodes serve as well.
        let registered = unsafe { ring.submitter().register_buffers(&iovecs) }.is_ok();
        // EINVAL before 5.15: the kernel's own bound stays.
        let _ = ring.submitter().register_iowq_max_workers(&mut [workers, workers]);
        Self::restrict(&ring)?;
        let in_flight = (0..slots).map(|_| None).collect();
        let shown = show(slots);
        Ok(Self { handle: RingHandle(ring), buffers, registered, in_flight, shown, unsubmitted: 0 })
    }

    fn build(entries: u32) -> io::Result<IoUring> {
        // One thread submits and reaps; completions are worked off when it asks (Linux 6.1).
        let modern = IoUring::builder().setup_r_disabled().setup_single_issuer().setup_defer_taskrun().build(entries);
        match modern {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().setup_r_disabled().build(entries),
            other => other,
        }
    }

    fn restrict(ring: &IoUring) -> io::Result<()> {
        let mut allowed = [
            Restriction::sqe_op(opcode::Read::CODE),
            Restriction::sqe_op(opcode::Write::CODE),
            Restriction::sqe_op(opcode::ReadFixed::CODE),
            Restriction::sqe_op(opcode::WriteFixed::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
        ];
        ring.submitter().register_restrictions(&mut allowed)?;
        ring.submitter().register_enable_rings()
    }

    /// The buffer of a slot that has nothing in flight.
    ///
    /// # Panics
    /// If the slot has an operation in flight: the kernel owns its buffer then.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        assert!(self.in_flight[slot].is_none(), "the kernel owns this buffer");
        self.buffers.slot_mut(slot)
    }

    /// Prepares one operation of `bytes` bytes at `offset` of `fd`.
    ///
    /// # Errors
    /// Whatever `io_uring_enter` says when the queue had to be submitted to make room.
    ///
    /// # Panics
    /// If the slot has an operation in flight, or `bytes` exceed its buffer.
    pub fn submit(
        &mut self,
        slot: usize,
        fd: Arc<OwnedFd>,
        what: Transfer,
        offset: u64,
        bytes: usize,
    ) -> io::Result<()> {
        let registered = self.registered;
        let buffer = self.buffer(slot);
        let at = if let Transfer::Write { at } = what { at } else { 0 };
        assert!(at.saturating_add(bytes) <= buffer.len(), "an operation stays inside its buffer");
        // SAFETY: `at` is within the buffer, as just checked.
        let pointer = unsafe { buffer.as_mut_ptr().add(at) };
        let length = u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let target = types::Fd(fd.as_raw_fd());
        let index = u16::try_from(slot).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entry = match (what, registered) {
            (Transfer::Read, true) => opcode::ReadFixed::new(target, pointer, length, index).offset(offset).build(),
            (Transfer::Read, false) => opcode::Read::new(target, pointer, length).offset(offset).build(),
            (Transfer::Write { .. }, true) => {
                opcode::WriteFixed::new(target, pointer, length, index).offset(offset).build()
            }
            (Transfer::Write { .. }, false) => opcode::Write::new(target, pointer, length).offset(offset).build(),
            (Transfer::Sync, _) => opcode::Fsync::new(target).build(),
        };
        self.push(&entry.user_data(slot as u64))?;
        let operation = match what {
            Transfer::Read => READ,
            Transfer::Write { .. } => WRITE,
            Transfer::Sync => SYNC,
        };
        self.shown[slot].store(u64::from(fd.as_raw_fd().unsigned_abs()) << 2 | operation, Ordering::Relaxed);
        self.in_flight[slot] = Some(fd);
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the buffer belongs to `self` and stays untouched, and the descriptor is kept in
        // `in_flight`, until the completion of this slot arrives.
        if unsafe { self.handle.0.submission().push(entry) }.is_err() {
            self.enter(0)?;
            // SAFETY: as above; `enter` emptied the queue.
            unsafe { self.handle.0.submission().push(entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
        }
        self.unsubmitted += 1;
        Ok(())
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.handle.0.submit_and_wait(want) {
                Ok(_) => {
                    self.unsubmitted = 0;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for one operation: its slot, and the bytes moved or its error.
    ///
    /// # Errors
    /// Whatever `io_uring_enter` says; the operations stay in flight then. `NotFound` when
    /// nothing is in flight.
    pub fn complete(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        loop {
            let next = self.handle.0.completion().next();
            if let Some(entry) = next {
                let slot = usize::try_from(entry.user_data()).map_err(|_| io::ErrorKind::InvalidData)?;
                self.in_flight[slot] = None;
                self.shown[slot].store(0, Ordering::Relaxed);
                let result = usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
                return Ok((slot, result));
            }
            if self.in_flight.iter().all(Option::is_none) {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.enter(1)?;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write to the buffers: they are given back only when it can't.
        while self.in_flight.iter().any(Option::is_some) {
            if self.complete().is_err() {
                self.buffers.leak();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn scratch() -> Arc<OwnedFd> {
        Arc::new(tempfile::tempfile().unwrap().into())
    }

    #[test]
    fn what_was_written_through_the_ring_reads_back() {
        let mut ring = Ring::new(4, 8192, 4).unwrap();
        let file = scratch();
        ring.buffer(1)[..5].copy_from_slice(b"hello");
        ring.submit(1, Arc::clone(&file), Transfer::Write { at: 0 }, 3, 5).unwrap();
        let (slot, written) = ring.complete().unwrap();
        assert_eq!((slot, written.unwrap()), (1, 5));
        ring.submit(2, Arc::clone(&file), Transfer::Sync, 0, 0).unwrap();
        assert_eq!(ring.complete().unwrap().1.unwrap(), 0);
        ring.submit(0, Arc::clone(&file), Transfer::Read, 0, 8192).unwrap();
        let (slot, read) = ring.complete().unwrap();
        assert_eq!((slot, read.unwrap()), (0, 8));
        assert_eq!(&ring.buffer(0)[..8], b"\0\0\0hello");
    }

    #[test]
    fn an_operation_outside_the_allowed_set_is_refused_by_the_kernel() {
        let mut ring = Ring::new(2, 4096, 1).unwrap();
        let file = scratch();
        let close = opcode::Close::new(types::Fd(file.as_fd().as_raw_fd())).build().user_data(0);
        ring.push(&close).unwrap();
        ring.in_flight[0] = Some(Arc::clone(&file));
        let (_, result) = ring.complete().unwrap();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EACCES));
        rustix::fs::fstat(&file).unwrap();
    }

    #[test]
    fn a_ring_dropped_with_operations_in_flight_waits_for_them() {
        let mut ring = Ring::new(8, 65536, 4).unwrap();
        let file = scratch();
        for slot in 0..8 {
            ring.submit(slot, Arc::clone(&file), Transfer::Write { at: 0 }, slot as u64 * 65536, 65536).unwrap();
        }
        drop(ring);
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 8 * 65536);
    }
}
