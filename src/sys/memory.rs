//! The allocator, and a proper end where the machine has no memory left.
//!
//! Rust ends a program whose allocation fails by a signal, which looks like a crash to whoever watches
//! it. Here it ends with the exit code of a resource that is short and with words about it. That is as
//! safe as a kill: no final name ever holds a torn object, and the same command resumes.

#![expect(unsafe_code, reason = "an allocator is unsafe by its contract")]

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

use crate::error::ExitCode;

/// mimalloc, which never says that there is no memory: it ends the process then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

// SAFETY: every call is handed to mimalloc unchanged, and what it gives is given on unless it is null.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is ours.
        given(unsafe { MiMalloc.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is ours.
        given(unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is ours.
        given(unsafe { MiMalloc.realloc(pointer, layout, size) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is ours.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn given(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        exhausted();
    }
    pointer
}

/// Has the kernel give this process, and every one that it starts, memory in its smallest pages. The
/// allocator asks for huge ones; a run touches little of each, and gives it back soon, but pays for
/// clearing all of it. Where it is refused nothing is lost but time.
pub fn keep_pages_small() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cold]
fn exhausted() -> ! {
    const WORDS: &[u8] = b"copyd: error: no memory left\n  help: raise the limit (of the shell, the service or the \
        container), or lower --jobs; then run the same command again: it resumes\n  exit 11: no memory left\n";
    // SAFETY: the bytes are readable; neither call allocates, and the second does not return.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        libc::_exit(ExitCode::Root as i32)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_huge_pages_are_given_once_they_were_declined() {
        super::keep_pages_small();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
