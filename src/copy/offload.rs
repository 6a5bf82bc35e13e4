//! What the kernel or the server copies by itself: clones, and copies within a server.
//!
//! ```text
//!  FICLONE ──refused──▶ remote pair? ──yes──▶ copy_file_range, piece by piece ──▶ read once to be hashed
//!     │                      │ no                    │ refused, or failed half-way: emptied again
//!     ▼                      ▼                       ▼
//!  read to be hashed    read, hash, write       read, hash, write
//! ```
//!
//! A clone shares the blocks of the source: instant, and also not a second copy. What a server
//! makes of `copy_file_range(2)` may be one too. So both are refused where the caller wants every
//! byte allocated (`--provision thick`), and what they made is read and proved like any other copy.
//!
//! `copy_file_range` is for servers only: NFS 4.2, SMB and CephFS copy without the bytes crossing
//! the network twice. On a local file system without clones (ext4, tmpfs, xfs with reflink=0) it is
//! not used: on Linux 6.18 it moved 1.5 GB/s where plain reads and writes moved 1.7, and the bytes
//! have to be read for their hash anyway.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::Side;
use crate::limits;
use crate::sys::{self, Extent};

use super::range::{Holes, MoveError, Pace};

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

/// A file that the server may copy: both ends open, the target empty.
#[derive(Debug)]
pub struct Ends<'a> {
    pub source: &'a OwnedFd,
    pub target: &'a OwnedFd,
    /// Bytes of the source when it was opened.
    pub size: u64,
    pub holes: Holes,
}

/// What a copy by the server asks and tells between two pieces.
pub struct Between<'a> {
    pub pace: &'a Pace,
    /// True ends the copy: the run is to stop.
    pub halted: &'a dyn Fn() -> bool,
    /// Told the bytes of each piece that is at the destination.
    pub moved: &'a dyn Fn(u64),
}

impl std::fmt::Debug for Between<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Between").field("pace", self.pace).finish_non_exhaustive()
    }
}

/// Whether a server copies between the two roots, as far as one run has learned it.
///
/// A client that can't hand the copy on makes it itself, with reads and writes, and says nothing of
/// it: NFS before 4.2 does, and so do 4.2 between two servers and CephFS mounted without `copyfrom`.
/// That is right but slower than copyd's own way, because the source would be read twice. It shows in
/// the pages that this thread has dirtied (`write_bytes` in `proc_pid_io(5)`), which a copy on the
/// server leaves at nothing: so the first piece of a run is measured.
#[derive(Debug)]
pub struct ServerCopy(AtomicU8);

const REFUSED: u8 = 0;
const UNKNOWN: u8 = 1;
const PROVEN: u8 = 2;

/// How the pieces of one file ended.
#[derive(Debug, PartialEq, Eq)]
enum Pieces {
    /// All data of the source is in the target.
    Whole,
    /// The run is to stop, or it is not the server that copies.
    GivenUp,
    /// The call failed after so many bytes.
    Failed(Errno, u64),
}

impl ServerCopy {
    /// `possible`: both roots are of one kind of remote file system.
    #[must_use]
    pub const fn new(possible: bool) -> Self {
        Self(AtomicU8::new(if possible { UNKNOWN } else { REFUSED }))
    }

    /// Whether a file of so many bytes is worth the attempt.
    #[must_use]
    pub fn offered(&self, size: u64) -> bool {
        size >= limits::OFFLOAD_BYTES_MIN && self.0.load(Ordering::Relaxed) != REFUSED
    }

    /// Lets the server copy the file. False: it did not, and the target is empty again; whoever copies
    /// then finds out why, if the file itself is the reason.
    ///
    /// # Errors
    /// Hot when the source ends before its size; failures to find data, and to empty the target.
    pub fn copy(&self, file: &Ends<'_>, between: &Between<'_>) -> Result<bool, MoveError> {
        // Where the source tells nothing of its holes they are found by reading.
        if !self.offered(file.size) || file.holes == Holes::Zeros {
            return Ok(false);
        }
        match self.pieces(file, between)? {
            Pieces::Whole => return Ok(true),
            Pieces::GivenUp => {}
            Pieces::Failed(e, bytes) => {
                tracing::debug!(error = %e, bytes, "copy_file_range failed");
                let lasting = matches!(e, Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::IO);
                if lasting && bytes == 0 && self.0.load(Ordering::Relaxed) == UNKNOWN {
                    self.refuse("copy_file_range is refused");
                }
            }
        }
        rustix::fs::ftruncate(file.target, 0)
            .map_err(|e| MoveError::io(Side::Destination, "empty the temporary", e.into()))?;
        Ok(false)
    }

    fn refuse(&self, why: &'static str) {
        if self.0.swap(REFUSED, Ordering::Relaxed) != REFUSED {
            tracing::info!(why, "the server does not copy files by itself");
        }
    }

    fn pieces(&self, file: &Ends<'_>, between: &Between<'_>) -> Result<Pieces, MoveError> {
        if file.holes == Holes::Extents {
            rustix::fs::ftruncate(file.target, file.size)
                .map_err(|e| MoveError::io(Side::Destination, "set the size", e.into()))?;
        }
        let (mut at, mut piece_bytes, mut done) = (0, *limits::OFFLOAD_PIECE_BYTES.start(), 0);
        while at < file.size {
            let Some((start, end)) = next_data(file, at)? else { break };
            at = start;
            while at < end {
                if (between.halted)() {
                    return Ok(Pieces::GivenUp);
                }
                // Up to a multiple of the least piece, so that whole blocks, objects and chunks of the
                // server are copied, also after a short count.
                let to = (at - at % limits::OFFLOAD_PIECE_BYTES.start()).saturating_add(piece_bytes).min(end);
                let begun = Instant::now();
                let got = match self.piece(file, at..to) {
                    Ok(Some(0)) => return Err(MoveError::ended(Side::Source)),
                    Ok(Some(got)) => got,
                    Ok(None) => return Ok(Pieces::GivenUp),
                    Err(Errno::INTR) => continue,
                    Err(e) => return Ok(Pieces::Failed(e, done)),
                };
                at += got;
                done += got;
                (between.moved)(got);
                between.pace.take(got);
                piece_bytes = next_piece(piece_bytes, got, begun.elapsed());
            }
        }
        Ok(Pieces::Whole)
    }

    /// One call, and the bytes that it copied. While nothing is known it is measured who moved them;
    /// `None`: not the server, or that can't be told.
    fn piece(&self, file: &Ends<'_>, range: std::ops::Range<u64>) -> Result<Option<u64>, Errno> {
        let (mut from, mut to) = (range.start, range.start);
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut call = || rustix::fs::copy_file_range(file.source, Some(&mut from), file.target, Some(&mut to), bytes);
        if self.0.load(Ordering::Relaxed) != UNKNOWN {
            return Ok(Some(call()? as u64));
        }
        let before = dirtied_bytes();
        let got = call()? as u64;
        let dirtied = before.zip(dirtied_bytes()).map(|(before, after)| after.saturating_sub(before));
        match dirtied {
            _ if got == 0 => {}
            // Pages at the edges may be dirtied by a copy on the server too.
            Some(dirtied) if dirtied < got.div_ceil(2) => {
                if self.0.compare_exchange(UNKNOWN, PROVEN, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    tracing::info!("the server copies files by itself");
                }
            }
            Some(_) => {
                self.refuse("this machine moves the bytes itself");
                return Ok(None);
            }
            None => {
                self.refuse("who moves the bytes can't be measured");
                return Ok(None);
            }
        }
        Ok(Some(got))
    }
}

/// The next run of data at or after `at`, cut at the size; `None` when only a hole follows.
fn next_data(file: &Ends<'_>, at: u64) -> Result<Option<(u64, u64)>, MoveError> {
    if file.holes != Holes::Extents {
        return Ok(Some((at, file.size)));
    }
    match sys::next_extent(file.source, at) {
        Ok(Extent::Data { start, end }) if start < file.size => Ok(Some((start, end.min(file.size)))),
        Ok(_) => Ok(None),
        Err(e) => Err(MoveError::io(Side::Source, "find data", e)),
    }
}

/// The bytes of the next piece: what took about [`limits::OFFLOAD_PIECE_MS`] at the rate just seen,
/// waits for the rate limit included, and at most twice the last one.
fn next_piece(last_bytes: u64, moved_bytes: u64, took: Duration) -> u64 {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let fitting = moved_bytes.saturating_mul(limits::OFFLOAD_PIECE_MS) / took_ms;
    let (least, most) = (*limits::OFFLOAD_PIECE_BYTES.start(), *limits::OFFLOAD_PIECE_BYTES.end());
    let bytes = fitting.min(last_bytes.saturating_mul(2)).clamp(least, most);
    bytes - bytes % least
}

/// Bytes of pages that this thread has made dirty so far; `None` where the kernel does not count
/// them (`CONFIG_TASK_IO_ACCOUNTING`) or /proc is not there.
fn dirtied_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
