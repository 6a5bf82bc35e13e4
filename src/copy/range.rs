//! One range of one file: read, hash while the block is in the cache, write.
//!
//! ```text
//!            ┌────────── hole: hash zeros, skip ──────────┐
//!            ▼                                            │
//!   start → Reading ──data──▶ hash ──target?──▶ Writing ──┴─▶ end: Done
//!                               └──no target──▶ Reading …
//! ```
//!
//! Without a target the same machine reads back what was written, hashes a source again, or
//! serves `copyd verify`: what is read differs, what is proved does not.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Class, Side};
use crate::hash::{ChunkHasher, FileHasher, SumsError};
use crate::limits;
use crate::sys::{self, Extent, Transfer};
use crate::throttle::Throttle;

use super::blocks::Operation;
use super::drive::{Machine, Step};

/// How holes are found at the file that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// The file has none by its block count: every byte is read, and written.
    None,
    /// By `SEEK_DATA` and `SEEK_HOLE`: holes are neither read nor written.
    Extents,
    /// The file system tells nothing: everything is read, and blocks of zeros are not written.
    Zeros,
}

/// Takes the bytes of a range in order.
#[derive(Debug)]
pub enum Digester {
    /// `--verify=none`: nothing is hashed.
    Off,
    Whole(Box<FileHasher>),
    Chunk(Box<ChunkHasher>),
}

impl Digester {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Off => {}
            Self::Whole(hasher) => hasher.update(bytes),
            Self::Chunk(hasher) => hasher.update(bytes),
        }
    }

    fn zeros(&mut self, count: u64) {
        match self {
            Self::Off => {}
            Self::Whole(hasher) => hasher.zeros(count),
            Self::Chunk(hasher) => hasher.zeros(count),
        }
    }
}

/// Why a range could not be moved: on which side, doing what.
#[derive(Debug)]
pub struct MoveError {
    pub class: Class,
    pub side: Side,
    pub operation: &'static str,
    pub source: Option<io::Error>,
}

impl MoveError {
    /// An error of a system call.
    #[must_use]
    pub fn io(side: Side, operation: &'static str, source: io::Error) -> Self {
        Self { class: Class::on(side, &source), side, operation, source: Some(source) }
    }

    /// The hashing was interrupted, or fed otherwise than announced: the file is begun again.
    pub fn internal(_error: SumsError) -> Self {
        Self::hot("hash")
    }

    /// The file ends before the size it had: at the source somebody truncated it, at the
    /// destination it is not what was written.
    #[must_use]
    pub const fn ended(side: Side) -> Self {
        let class = match side {
            Side::Source => Class::Hot,
            Side::Destination => Class::Mismatch,
        };
        Self { class, side, operation: "read to the end", source: None }
    }

    /// The source is no longer what it was when the copy began.
    #[must_use]
    pub const fn hot(operation: &'static str) -> Self {
        Self { class: Class::Hot, side: Side::Source, operation, source: None }
    }
}

/// How fast bytes may move, and when to stop waiting for that.
pub struct Pace {
    throttle: Throttle,
    stop: Box<dyn Fn() -> bool + Send + Sync>,
    /// Counts every block, so that a watcher sees that something moves.
    beat: Arc<AtomicU64>,
}

impl Pace {
    /// At the rate of `throttle`; a wait ends early once `stop` answers true.
    #[must_use]
    pub fn new(throttle: &Throttle, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { throttle: throttle.clone(), stop: Box::new(stop), beat: Arc::default() }
    }

    /// Counts its blocks there.
    #[must_use]
    pub fn counting(mut self, beat: &Arc<AtomicU64>) -> Self {
        self.beat = Arc::clone(beat);
        self
    }

    /// As fast as it goes.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(&Throttle::new(None), || false)
    }

    /// Waits until so many bytes may move.
    pub fn take(&self, bytes: u64) {
        self.beat.fetch_add(1, Ordering::Relaxed);
        // A stopped wait lets the block through: the file it belongs to is not finished any more.
        // Waiting for its turn is no stall.
        let _ = self.throttle.take(bytes, || {
            self.beat.fetch_add(1, Ordering::Relaxed);
            (self.stop)()
        });
    }
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.throttle.fmt(f)
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    /// Read from `offset`, a multiple of the page, which lies up to a page before `position`.
    Reading {
        offset: u64,
    },
    /// Bytes `at..filled` of the buffer go to `position`.
    Writing {
        at: usize,
        filled: usize,
    },
}

/// The state machine of one range.
#[derive(Debug)]
pub struct RangeMove {
    from: Arc<OwnedFd>,
    side: Side,
    to: Option<Arc<OwnedFd>>,
    position: u64,
    /// First byte after the range.
    end: u64,
    /// First byte after the data that is known to begin at `position`.
    data_end: u64,
    holes: Holes,
    pub digester: Digester,
    pace: Arc<Pace>,
    phase: Phase,
    /// Bytes written to the target.
    pub written_bytes: u64,
}

impl RangeMove {
    /// Moves `start..end` of `from` to the same place in `to`.
    #[must_use]
    pub fn copy(
        from: Arc<OwnedFd>,
        to: Arc<OwnedFd>,
        range: std::ops::Range<u64>,
        holes: Holes,
        digester: Digester,
        pace: Arc<Pace>,
    ) -> Self {
        let mut this = Self::read(from, Side::Source, range, holes, digester, pace);
        this.to = Some(to);
        this
    }

    /// Reads and hashes `start..end` of a file on `side`.
    #[must_use]
    pub fn read(
        from: Arc<OwnedFd>,
        side: Side,
        range: std::ops::Range<u64>,
        holes: Holes,
        digester: Digester,
        pace: Arc<Pace>,
    ) -> Self {
        let data_end = if holes == Holes::Extents { range.start } else { range.end };
        Self {
            from,
            side,
            to: None,
            position: range.start,
            end: range.end,
            data_end,
            holes,
            digester,
            pace,
            phase: Phase::Idle,
            written_bytes: 0,
        }
    }

    /// Passes over holes and asks for the next block of data.
    fn next(&mut self, buffer_bytes: usize) -> Step<Result<(), MoveError>> {
        while self.position < self.end && self.position >= self.data_end {
            match sys::next_extent(&self.from, self.position) {
                Ok(Extent::Data { start, end }) => {
                    self.skip_hole(start.min(self.end));
                    // A server that answers with what lies behind would be asked for ever.
                    self.data_end = if end > self.position { end.min(self.end) } else { self.end };
                }
                Ok(Extent::HoleToEnd) => self.skip_hole(self.end),
                Err(e) => return Step::Done(Err(MoveError::io(self.side, "find data", e))),
            }
        }
        if self.position >= self.end {
            return Step::Done(Ok(()));
        }
        // Direct I/O needs aligned offsets and lengths; for the page cache it makes no difference.
        let offset = self.position - self.position % limits::ALIGNMENT;
        let wanted = (self.data_end - offset).next_multiple_of(limits::ALIGNMENT);
        let bytes = usize::try_from(wanted).unwrap_or(usize::MAX).min(buffer_bytes);
        self.phase = Phase::Reading { offset };
        Step::Submit(Operation { fd: Arc::clone(&self.from), what: Transfer::Read, offset, bytes })
    }

    fn skip_hole(&mut self, to: u64) {
        if to > self.position {
            self.digester.zeros(to - self.position);
            self.position = to;
        }
    }

    fn after_read(&mut self, offset: u64, got: io::Result<usize>, buffer: &[u8]) -> Step<Result<(), MoveError>> {
        let got = match got {
            Ok(n) => n,
            Err(e) => return Step::Done(Err(MoveError::io(self.side, "read", e))),
        };
        let at = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
        let left = usize::try_from(self.data_end - offset).unwrap_or(usize::MAX);
        let filled = got.min(left);
        if filled <= at {
            return Step::Done(Err(MoveError::ended(self.side)));
        }
        self.digester.update(&buffer[at..filled]);
        self.pace.take((filled - at) as u64);
        if self.to.is_none() || (self.holes == Holes::Zeros && all_zero(&buffer[at..filled])) {
            self.position += (filled - at) as u64;
            return self.next(buffer.len());
        }
        self.phase = Phase::Writing { at, filled };
        self.write()
    }

    fn after_write(
        &mut self,
        at: usize,
        filled: usize,
        put: io::Result<usize>,
        buffer_bytes: usize,
    ) -> Step<Result<(), MoveError>> {
        let put = match put {
            // Nothing moved and no reason given: a file system that is out of its depth.
            Ok(0) => {
                return Step::Done(Err(MoveError::io(Side::Destination, "write", io::ErrorKind::WriteZero.into())));
            }
            Ok(n) => n,
            Err(e) => return Step::Done(Err(MoveError::io(Side::Destination, "write", e))),
        };
        self.position += put as u64;
        self.written_bytes += put as u64;
        if at + put < filled {
            self.phase = Phase::Writing { at: at + put, filled };
            return self.write();
        }
        self.next(buffer_bytes)
    }

    fn write(&self) -> Step<Result<(), MoveError>> {
        let (Phase::Writing { at, filled }, Some(to)) = (self.phase, &self.to) else {
            return Step::Done(Ok(()));
        };
        let operation =
            Operation { fd: Arc::clone(to), what: Transfer::Write { at }, offset: self.position, bytes: filled - at };
        Step::Submit(operation)
    }
}

impl Machine for RangeMove {
    type Outcome = Result<(), MoveError>;

    fn step(&mut self, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Self::Outcome> {
        match (self.phase, last) {
            (Phase::Reading { offset }, Some(got)) => self.after_read(offset, got, buffer),
            (Phase::Writing { at, filled }, Some(put)) => self.after_write(at, filled, put, buffer.len()),
            _ => self.next(buffer.len()),
        }
    }
}

/// Whether every byte is zero; leaves at the first sixteen that are not.
#[must_use]
pub fn all_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::blocks::{BlockIo, Threads, Uring};
    use crate::copy::drive::drive;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn backends() -> Vec<Box<dyn BlockIo>> {
        vec![Box::new(Threads::new().unwrap()), Box::new(Uring::new().unwrap())]
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    fn run(io: &mut dyn BlockIo, machine: RangeMove) -> (RangeMove, Result<(), MoveError>) {
        let mut supply = Some(machine);
        let mut out = None;
        drive(io, || supply.take(), |m, o| out = Some((m, o))).unwrap();
        out.unwrap()
    }

    #[test]
    fn a_range_is_moved_and_hashed_alike_by_both_backends() {
        let data = pattern(3 * limits::BLOCK_BYTES + 4097);
        for mut io in backends() {
            let from = tempfile::tempfile().unwrap();
            from.write_all_at(&data, 0).unwrap();
            let to = tempfile::tempfile().unwrap();
            let target: Arc<OwnedFd> = Arc::new(to.try_clone().unwrap().into());
            let mut hasher = Box::<FileHasher>::default();
            hasher.begin(data.len() as u64, crate::hash::HolePolicy::Extents);
            let machine = RangeMove::copy(
                Arc::new(from.into()),
                target,
                0..data.len() as u64,
                Holes::None,
                Digester::Whole(hasher),
                Arc::new(Pace::unlimited()),
            );
            let (machine, outcome) = run(io.as_mut(), machine);
            outcome.unwrap();
            let Digester::Whole(mut hasher) = machine.digester else { unreachable!() };
            assert_eq!(hasher.finish().unwrap().bytes, *blake3::hash(&data).as_bytes());
            let mut back = vec![0; data.len()];
            to.read_exact_at(&mut back, 0).unwrap();
            assert_eq!(back, data);
        }
    }

    #[test]
    fn blocks_of_zeros_are_not_written_where_the_source_tells_nothing_of_holes() {
        let mut data = vec![0; 8 * limits::BLOCK_BYTES];
        data[5 * limits::BLOCK_BYTES] = 7;
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(&data, 0).unwrap();
        let to = tempfile::tempfile().unwrap();
        to.set_len(data.len() as u64).unwrap();
        let machine = RangeMove::copy(
            Arc::new(from.into()),
            Arc::new(to.try_clone().unwrap().into()),
            0..data.len() as u64,
            Holes::Zeros,
            Digester::Off,
            Arc::new(Pace::unlimited()),
        );
        let (machine, outcome) = run(&mut Threads::new().unwrap(), machine);
        outcome.unwrap();
        assert_eq!(machine.written_bytes, limits::BLOCK_BYTES as u64);
        assert!(to.metadata().unwrap().blocks() * 512 <= 2 * limits::BLOCK_BYTES as u64);
    }

    #[test]
    fn a_file_that_ends_early_is_hot_and_not_an_endless_loop() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(b"short", 0).unwrap();
        let machine = RangeMove::read(
            Arc::new(from.into()),
            Side::Source,
            0..100_000,
            Holes::None,
            Digester::Off,
            Arc::new(Pace::unlimited()),
        );
        let (_, outcome) = run(&mut Threads::new().unwrap(), machine);
        assert_eq!(outcome.unwrap_err().class, Class::Hot);
    }

    #[test]
    fn a_single_set_byte_anywhere_is_not_zero() {
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 100] {
            assert!(all_zero(&vec![0; len]), "{len}");
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(!all_zero(&bytes), "{at} of {len}");
            }
        }
    }
}
