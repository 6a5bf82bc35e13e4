//! Large files: both sides in chunks, which every worker with time to spare takes.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::copy::big::{BigFile, Claim};
use crate::copy::blocks::BlockIo;
use crate::copy::drive::drive;
use crate::copy::range::MoveError;
use crate::error::Side;
use crate::fidelity::{Losses, Metadata};
use crate::hash::Digest;
use crate::limits;
use crate::pass::state::Once;
use crate::sys::{self, EntryRef, ReadMode};
use crate::tree::node::lock;

use super::compare::{Compared, Pair, Settled};
use super::content::{self, is_difference, unchanged};
use super::judge::{Aspects, Judge};
use super::trees::{Directory, Task, Trees, lane};

/// What comes of reading one side.
type Found = Result<Option<Digest>, MoveError>;

/// A pair of large files.
#[derive(Debug)]
pub struct BigPair {
    node: Arc<Directory>,
    /// Taken by whoever settles the pair.
    waiting: Once<(Pair, Metadata, Aspects, Losses)>,
    source: Arc<OwnedFd>,
    /// The source's file, then the destination's.
    files: [BigFile<()>; 2],
    found: Mutex<[Option<Found>; 2]>,
    told: Told,
}

/// How much of a large file was told to whoever watches the progress.
#[derive(Debug)]
pub struct Told {
    size: u64,
    bytes: AtomicU64,
}

impl Told {
    #[must_use]
    pub const fn new(size: u64) -> Self {
        Self { size, bytes: AtomicU64::new(0) }
    }

    /// Another chunk is done.
    pub fn chunk(&self, judge: &Judge<'_>) {
        let before = self.bytes.fetch_add(limits::CHUNK_BYTES, Ordering::Relaxed);
        tell(judge, self.size.saturating_sub(before).min(limits::CHUNK_BYTES));
    }

    /// The rest, which was hole.
    pub fn rest(&self, judge: &Judge<'_>) {
        let before = self.bytes.swap(u64::MAX / 2, Ordering::Relaxed);
        tell(judge, self.size.saturating_sub(before));
    }
}

fn tell(judge: &Judge<'_>, bytes: u64) {
    judge.progress.bytes_verified.add(bytes);
    judge.progress.bytes_done.add(bytes);
}

/// Reads chunks of a file as long as there are any. True for the worker that is to complete it.
///
/// # Errors
/// A failure of the backend itself.
pub fn read_chunks(
    file: &BigFile<()>,
    judge: &Judge<'_>,
    told: Option<&Told>,
    io: &mut dyn BlockIo,
) -> io::Result<bool> {
    let complete = Cell::new(false);
    let claim = || match file.claim() {
        Claim::Chunk(chunk) => Some(*chunk),
        Claim::Nothing => None,
        Claim::Finished => {
            complete.set(true);
            None
        }
    };
    drive(
        io,
        || if judge.halted() { None } else { claim() },
        |chunk, outcome| {
            if let Some(told) = told {
                told.chunk(judge);
            }
            if file.settle(chunk, outcome).last {
                complete.set(true);
            }
        },
    )?;
    Ok(complete.get())
}

impl Trees<'_> {
    /// Opens a pair of large files of the same size and invites every worker to them.
    pub fn begin_big(&self, node: &Arc<Directory>, pair: Pair, sides: (&OwnedFd, &OwnedFd)) {
        match self.open_big(node, &pair, sides) {
            Err(e) => self.failed(node, pair, e),
            Ok((mut big, wanted, aspects, losses)) => {
                big.waiting = (pair, wanted, aspects, losses).into();
                let big = Arc::new(big);
                for _ in 0..self.workers {
                    for side in [0, 1] {
                        self.queue.push(lane::BIG, Task::Big(Arc::clone(&big), side));
                    }
                }
            }
        }
    }

    fn open_big(
        &self,
        node: &Arc<Directory>,
        pair: &Pair,
        (source, destination): (&OwnedFd, &OwnedFd),
    ) -> Result<(BigPair, Metadata, Aspects, Losses), MoveError> {
        let opened = |side| move |e| MoveError::io(side, "open", e);
        let from = sys::open_read(source.as_fd(), &pair.name, ReadMode::Cached).map_err(opened(Side::Source))?;
        let wanted = self.capture(Side::Source, EntryRef::Fd(from.as_fd()), &pair.source)?;
        let to = self.past_cache.open(destination, &pair.name).map_err(opened(Side::Destination))?;
        let have = self.capture(Side::Destination, EntryRef::Fd(to.as_fd()), &pair.there)?;
        let mut aspects = Aspects { links: pair.broken, ..Aspects::default() };
        let losses = self.metadata(&wanted, &have, &mut aspects);
        let (from, policy) = (Arc::new(from), self.hole_policy());
        let files = [
            content::big(Arc::clone(&from), Side::Source, &pair.source, policy, &self.judge.pace),
            content::big(Arc::new(to), Side::Destination, &pair.there, policy, &self.judge.unlimited),
        ];
        let big = BigPair {
            node: Arc::clone(node),
            waiting: Once::default(),
            source: from,
            files,
            found: Mutex::default(),
            told: Told::new(pair.source.size),
        };
        Ok((big, wanted, aspects, losses))
    }

    /// Reads chunks of one side of a large file.
    ///
    /// # Errors
    /// A failure of the backend itself.
    pub fn read_big(&self, big: &BigPair, side: usize, io: &mut dyn BlockIo) -> io::Result<()> {
        let file = &big.files[side];
        if !read_chunks(file, &self.judge, (side == 1).then_some(&big.told), io)? {
            return Ok(());
        }
        let outcome = file.outcome(&|| self.judge.halted());
        let both = {
            let mut found = lock(&big.found);
            found[side] = Some(outcome);
            if found.iter().all(Option::is_some) { Some(std::mem::take(&mut *found)) } else { None }
        };
        if let (Some([Some(source), Some(destination)]), false) = (both, self.judge.halted()) {
            self.big_done(big, source, destination);
        }
        Ok(())
    }

    fn big_done(&self, big: &BigPair, source: Found, destination: Found) {
        let Some((pair, wanted, mut aspects, losses)) = big.waiting.take() else { return };
        big.told.rest(&self.judge);
        let still = sys::stat_fd(&big.source).is_ok_and(|after| unchanged(&pair.source, &after));
        let source =
            source.and_then(|digest| if still { Ok(digest) } else { Err(MoveError::hot("read it unchanged")) });
        let digest = match (source, destination) {
            (Ok(_), Err(e)) if is_difference(&e) => None,
            (Err(e), _) | (Ok(_), Err(e)) => return self.failed(&big.node, pair, e),
            (Ok(wanted), Ok(found)) => wanted.filter(|wanted| found == Some(*wanted)),
        };
        aspects.content = digest.is_none();
        let compared = Compared { aspects, digest, target: None, wanted, losses };
        let mut settled = Settled::default();
        self.settle(&big.node, &big.node.path(), &pair, compared, &mut settled);
        settled.told();
        self.bring(settled);
    }
}
