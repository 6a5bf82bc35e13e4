//! Which backend moves blocks faster at this destination: tried, not guessed.
//!
//! The same blocks are written by each backend to temporary files, flushed, and read back past the
//! cache. On a memory file system plain calls win by nature; on a disk or a server the ring keeps the
//! queue full. A tie goes to the threads, which every kernel and container allows.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode};

use crate::limits;
use crate::sys::{self, ReadMode, Transfer};

use super::blocks::{BlockIo, Operation, Threads, Uring};
use super::drive::{Machine, Step, drive};

/// Who moves blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Threads,
    Uring,
}

impl Backend {
    /// The word of the contract.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Uring => "uring",
        }
    }
}

/// What a probe found.
#[derive(Debug)]
pub struct Found {
    pub backend: Backend,
    /// In words, with the figures.
    pub reason: String,
}

/// Why io_uring can't be used here, in one line; `None` where it can.
#[must_use]
pub fn refused() -> Option<String> {
    let error = Uring::new().err()?;
    Some(format!("io_uring is refused here ({error}): plain threads serve instead"))
}

/// Tries both backends on `threads` worker threads each in `directory`, a private one.
///
/// # Errors
/// Only what concerns the destination itself: no room, read-only.
pub fn probe(directory: &Arc<OwnedFd>, workers: usize) -> io::Result<Found> {
    if let Some(reason) = refused() {
        return Ok(Found { backend: Backend::Threads, reason });
    }
    let threads = timed(directory, Backend::Threads, workers)?;
    let uring = timed(directory, Backend::Uring, workers)?;
    let backend = if uring * 10 < threads * 9 { Backend::Uring } else { Backend::Threads };
    let reason = format!("probe: threads {:.1} ms, io_uring {:.1} ms", millis(threads), millis(uring));
    Ok(Found { backend, reason })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Writes, flushes and reads back small files; the time of the read-back and the writes.
fn timed(directory: &Arc<OwnedFd>, backend: Backend, workers: usize) -> io::Result<Duration> {
    let names: Vec<CString> = (0..limits::PROBE_FILES)
        .map(|i| CString::new(format!("probe-{}-{i}", backend.word())))
        .collect::<Result<_, _>>()?;
    let made = write_all(directory, &names);
    let read = made.and_then(|()| {
        rustix::fs::syncfs(directory)?;
        let started = Instant::now();
        read_all(directory, &names, backend, workers)?;
        Ok(started.elapsed())
    });
    for name in &names {
        let _ = rustix::fs::unlinkat(directory, &**name, AtFlags::empty());
    }
    read
}

fn write_all(directory: &OwnedFd, names: &[CString]) -> io::Result<()> {
    for name in names {
        let file = sys::create(directory.as_fd(), name, Mode::RUSR | Mode::WUSR)?;
        rustix::io::pwrite(&file, &[0x5a; 16 << 10], 0)?;
    }
    Ok(())
}

/// Reads every name once, shared out among workers.
fn read_all(directory: &Arc<OwnedFd>, names: &[CString], backend: Backend, workers: usize) -> io::Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| -> io::Result<()> {
                    let mut io: Box<dyn BlockIo> = match backend {
                        Backend::Threads => Box::new(Threads::new()?),
                        Backend::Uring => Box::new(Uring::new()?),
                    };
                    let supply = || {
                        let name = names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))?;
                        let direct = sys::open_read(directory.as_fd(), name, ReadMode::Direct);
                        let fd = direct.or_else(|_| sys::open_read(directory.as_fd(), name, ReadMode::Cached)).ok()?;
                        Some(OneRead(Arc::new(fd)))
                    };
                    drive(io.as_mut(), supply, |_, ()| {})
                })
            })
            .collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
    })
}

/// Reads the first block of a file.
struct OneRead(Arc<OwnedFd>);

impl Machine for OneRead {
    type Outcome = ();

    fn step(&mut self, last: Option<io::Result<usize>>, _buffer: &mut [u8]) -> Step<()> {
        if last.is_some() {
            return Step::Done(());
        }
        Step::Submit(Operation { fd: Arc::clone(&self.0), what: Transfer::Read, offset: 0, bytes: 16 << 10 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_what_it_measured_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let fd = Arc::new(sys::open_root(dir.path()).unwrap());
        let found = probe(&fd, 2).unwrap();
        assert!(found.reason.contains("threads"), "{}", found.reason);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
