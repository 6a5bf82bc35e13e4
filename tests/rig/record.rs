//! A recording image: every write to it and every flush, in the order in which they were answered, and
//! from that the disks that a power cut may leave.
//!
//! A disk owes its file system little. What was answered before a flush is there after it; of what was
//! written since, any part may have reached the platter, in any order, and the sector is the most that
//! is whole or not at all. A loop device over a file of a [`Rig`] shows that order: its writes arrive
//! as WRITE before they are answered (no cache of the rig's file holds them back), its flushes as
//! FSYNC. So a point in the log, a last flush before it and a choice among the writes after it make one
//! disk of those that could have been.
//!
//! A write that the rig took while a flush was on its way counts as flushed; no file system lets one
//! that matters overtake another. Of two unflushed writes to one sector either may be there.
//!
//! Several images of one rig have one log: a point in it cuts the power of all of them at once.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::Rig;
use super::plan::{Call, Fault, Kind};
use crate::support::Rng;

/// A write is recorded in pieces of so many bytes, because the kernel joins what lies side by side to
/// writes of a MiB, and a disk parts them as it likes.
const PIECE_BYTES: usize = 32 << 10;

/// The block of all file systems here, and the largest sector.
const BLOCK_BYTES: u64 = 4096;

/// What reached an image. Writes keep their bytes, flushes nothing.
#[derive(Debug)]
struct Event {
    /// The inode of the image's file.
    image: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Write { offset: u64, data: Vec<u8> },
    Flush,
}

/// How a power cut treats what was not flushed.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The first event that did not happen.
    pub point: usize,
    /// Of eight unflushed writes, about so many reach the disk.
    pub kept_of_8: u64,
    /// Of eight of those, about so many are torn.
    pub torn_of_8: u64,
    /// A multiple of this many bytes is whole or not there.
    pub sector: u64,
    /// Where a block of 4096 bytes begins that the disk never tears.
    pub whole: Option<u64>,
}

impl Cut {
    /// Where what cannot be torn ends, of the bytes at an offset.
    fn end(&self, at: u64) -> u64 {
        let unit = if self.whole == Some(at / BLOCK_BYTES * BLOCK_BYTES) { BLOCK_BYTES } else { self.sector };
        at / unit * unit + unit
    }
}

/// The log of a rig's images.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    log: Arc<Mutex<Vec<Event>>>,
}

impl Recording {
    /// Records all files of a rig from now on. Those that are to be rebuilt must be empty yet.
    pub fn of(rig: &Rig) -> Self {
        let recording = Self::default();
        let log = Arc::clone(&recording.log);
        rig.plan().on(move |call| record(&log, call));
        recording
    }

    /// Events so far, which is a point in the log.
    pub fn now(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A point of a range at random: every second one right before a flush of this image, where most is
    /// at stake.
    pub fn point(&self, image: &Path, range: Range<usize>, rng: &mut Rng) -> usize {
        let image = inode(image);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let flush = |at: &usize| log[*at].image == image && matches!(log[*at].what, What::Flush);
        let flushes: Vec<_> = range.clone().filter(flush).collect();
        if rng.below(2) == 0 && !flushes.is_empty() {
            let flush = flushes[index(rng, flushes.len())];
            return flush.saturating_sub(index(rng, 3)).max(range.start);
        }
        range.start + index(rng, range.len() + 1)
    }

    /// Makes the image of a rig's file as a power cut could have left it, in an empty file of its size.
    /// Gives the number of unflushed writes, and of those among them that are there whole or torn.
    pub fn rebuild(&self, image: &Path, cut: &Cut, to: &File, rng: &mut Rng) -> (usize, usize) {
        let image = inode(image);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let ours: Vec<_> = log[..cut.point].iter().filter(|event| event.image == image).collect();
        let flushed = ours.iter().rposition(|event| matches!(event.what, What::Flush)).unwrap_or(0);
        for (offset, data) in writes(&ours[..flushed]) {
            to.write_all_at(data, offset).expect("there is room");
        }
        let loose = writes(&ours[flushed..]);
        let mut kept: Vec<_> = loose.iter().filter(|_| rng.below(8) < cut.kept_of_8).collect();
        // Fisher and Yates.
        for last in (1..kept.len()).rev() {
            kept.swap(last, index(rng, last + 1));
        }
        for &&(offset, data) in &kept {
            let torn = rng.below(8) < cut.torn_of_8;
            write_sectors(to, offset, data, cut, |rng| !torn || rng.below(2) == 0, rng);
        }
        (loose.len(), kept.len())
    }
}

fn writes<'e>(events: &[&'e Event]) -> Vec<(u64, &'e [u8])> {
    let written = events.iter().filter_map(|event| match &event.what {
        What::Write { offset, data } => Some((*offset, &data[..])),
        What::Flush => None,
    });
    written.collect()
}

/// Writes those sectors of `data` that `stays` chooses.
fn write_sectors(
    to: &File,
    offset: u64,
    data: &[u8],
    cut: &Cut,
    mut stays: impl FnMut(&mut Rng) -> bool,
    rng: &mut Rng,
) {
    let mut at = offset;
    while at < offset + data.len() as u64 {
        let end = cut.end(at).min(offset + data.len() as u64);
        let within = |at: u64| usize::try_from(at - offset).expect("it is within the data");
        if stays(rng) {
            to.write_all_at(&data[within(at)..within(end)], at).expect("there is room");
        }
        at = end;
    }
}

fn inode(image: &Path) -> u64 {
    std::fs::metadata(image).expect("the rig answers").ino()
}

fn index(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end as u64)).expect("below a usize")
}

fn record(log: &Mutex<Vec<Event>>, call: &Call<'_>) -> Option<Fault> {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    match call.kind {
        Kind::Write => {
            let offsets = (call.offset..).step_by(PIECE_BYTES);
            log.extend(offsets.zip(call.data.chunks(PIECE_BYTES)).map(|(offset, data)| {
                let what = What::Write { offset, data: data.to_vec() };
                Event { image: call.inode, what }
            }));
        }
        Kind::Fsync => log.push(Event { image: call.inode, what: What::Flush }),
        // Discards and zeroing by range: the block layer writes zeros instead, which are recorded.
        Kind::Fallocate => return Some(Fault::Fails(Errno::OPNOTSUPP)),
        _ => {}
    }
    None
}
