//! Page-aligned buffers in one mapping, as direct I/O and the ring need them.
#![allow(unsafe_code)] // one anonymous mapping, cut into slots

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

/// Alignment of every slot, in bytes: a page, which no file system's direct I/O exceeds.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Slots of equal size; each starts on a page.
#[derive(Debug)]
pub struct Buffers {
    base: NonNull<u8>,
    slot_bytes: usize,
    slots: usize,
    leaked: bool,
}

// SAFETY: the mapping is owned by this value alone and is reached only through `&mut self`.
unsafe impl Send for Buffers {}

impl Buffers {
    /// `slots` buffers of `slot_bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// `ENOMEM`, or `InvalidInput` for a size of zero or one that overflows.
    pub fn new(slots: usize, slot_bytes: usize) -> io::Result<Self> {
        let slot_bytes = slot_bytes.checked_next_multiple_of(ALIGNMENT_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let length = slots.checked_mul(slot_bytes).filter(|n| *n > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::PRIVATE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, slot_bytes, slots, leaked: false })
    }

    /// One slot's bytes.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        assert!(slot < self.slots, "no such slot");
        // SAFETY: slots are disjoint parts of the mapping, which is readable and writable, starts
        // zeroed, and is borrowed mutably through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(slot * self.slot_bytes), self.slot_bytes) }
    }

    /// Gives up the mapping without unmapping it: somebody may still write to it.
    pub fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: the mapping was made by `new` with this length, and no borrow outlives `self`.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.slots * self.slot_bytes) };
        }
    }
}
