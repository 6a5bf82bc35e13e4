//! Chunks of large files that a crash can't take back.
//!
//! ```text
//!  chunk copied ──▶ pending ──5 s or 1 GiB──▶ fdatasync of its temporary ──▶ catalog
//!                                                                              │ kill
//!  source unchanged, temporary as it was ◀── next run: kept in the staging ◀───┘
//!        └─▶ each chunk hashed again where it lies: equal is taken, else copied
//! ```
//! An orderly stop does not wait for the 5 s or the GiB: it flushes what is pending, and keeps the
//! temporaries whose chunks the catalog has.
//!
//! A flush for the journal has a descriptor of its own, opened before the first write: an error that it
//! meets is reported to the flush of the batch too, which alone decides about the file.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use crate::copy::big::{Claims, Copied};
use crate::limits;
use crate::store::{Batch, Fingerprint, Growing, Grown, GrownChunk};
use crate::sys::{self, Kind, ReadMode, Stat};
use crate::tree::node::lock;

use super::batch::Durability;
use super::decide::fingerprint;
use super::directory::Item;
use super::staging::Temporary;
use super::state::Run;
use super::{Provision, VerifyLevel};

/// A temporary whose chunks are journaled as long as this lives: until it is published or thrown away.
#[derive(Debug)]
pub struct Growth {
    growing: Growing,
    /// For flushes only.
    flush: OwnedFd,
    /// The catalog knows of it.
    announced: Mutex<bool>,
    /// A flush has failed: nothing of it is claimed any more.
    broken: AtomicBool,
    /// Chunks that the catalog has.
    claimed: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pending {
    chunks: Vec<(Weak<Growth>, Copied)>,
    bytes: u64,
    since: Option<Instant>,
}

/// The journal of one pass.
#[derive(Debug, Default)]
pub struct Journal {
    /// What an earlier run has left, by source.
    left: Mutex<HashMap<(u64, u64), Grown>>,
    pending: Mutex<Pending>,
    /// What a stop has cut off.
    set_aside: Mutex<Vec<Arc<Growth>>>,
}

/// What a stop keeps of large files.
#[derive(Debug, Default)]
pub struct Kept {
    /// Names of their temporaries.
    pub names: Vec<Vec<u8>>,
    chunks: usize,
}

impl Kept {
    /// What was kept and where, for whoever stopped the run.
    #[must_use]
    pub fn sentence(&self, staging: &std::ffi::CStr) -> String {
        let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        format!(
            "kept for the run that resumes: {} of {} MiB of {}, in {} at the destination",
            many(self.chunks, "chunk"),
            limits::CHUNK_BYTES >> 20,
            many(self.names.len(), "large file"),
            staging.to_string_lossy()
        )
    }
}

/// What an earlier run has left of a file, open.
#[derive(Debug)]
pub struct Resumed {
    pub temporary: Temporary,
    pub target: OwnedFd,
    pub claims: Claims,
}

impl Journal {
    /// Begins with what an earlier run has left.
    #[must_use]
    pub fn new(left: Vec<Grown>) -> Self {
        let left = left.into_iter().map(|grown| ((grown.growing.source.dev, grown.growing.source.ino), grown));
        let pending = Pending { since: Some(Instant::now()), ..Pending::default() };
        Self { left: Mutex::new(left.collect()), pending: Mutex::new(pending), set_aside: Mutex::default() }
    }

    fn take_left(&self, source: &Fingerprint) -> Option<Grown> {
        lock(&self.left).remove(&(source.dev, source.ino))
    }

    /// Adds a chunk; gives out all that wait when it is time to flush them.
    fn add(&self, growth: &Arc<Growth>, chunk: Copied, at_once: bool) -> Vec<(Weak<Growth>, Copied)> {
        let mut pending = lock(&self.pending);
        pending.chunks.push((Arc::downgrade(growth), chunk));
        pending.bytes += limits::CHUNK_BYTES;
        let aged = pending.since.is_none_or(|since| since.elapsed() >= limits::JOURNAL_AGE);
        if !at_once && !aged && pending.bytes < limits::JOURNAL_BYTES {
            return Vec::new();
        }
        std::mem::replace(&mut *pending, Pending { since: Some(Instant::now()), ..Pending::default() }).chunks
    }

    /// A stop has cut this one off. It lives on, so that the chunks that are still on their way, or wait
    /// for their flush, are journaled too.
    pub fn set_aside(&self, growth: Arc<Growth>) {
        lock(&self.set_aside).push(growth);
    }
}

impl Run<'_> {
    /// Whether chunks of this file are worth a journal: there are several, they are hashed, and the
    /// temporary is where the next run looks for it.
    #[must_use]
    pub fn journals(&self, item: &Item) -> bool {
        item.stat.kind == Kind::File
            && item.stat.size > limits::CHUNK_BYTES
            && !item.beside
            && !item.nested
            && self.options.verify > VerifyLevel::None
    }

    /// Begins the journal of a new temporary.
    pub fn begin_growth(&self, item: &Item, temporary: &mut Temporary, target: &OwnedFd) {
        let begun = (|| -> io::Result<Growth> {
            let made = sys::stat_fd(target)?;
            let flush = sys::open_read(temporary.directory.as_fd(), &temporary.name, ReadMode::Cached)?;
            Ok(self.growth(item, temporary, &made, flush, 0))
        })();
        match begun {
            Ok(growth) => temporary.growth = Some(Arc::new(growth)),
            // The file is copied all the same; after a crash it is begun anew.
            Err(error) => tracing::warn!(%error, path = %item.path().escape_ascii(), "no journal"),
        }
    }

    fn growth(&self, item: &Item, at: &Temporary, made: &Stat, flush: OwnedFd, claimed: usize) -> Growth {
        let growing = Growing {
            ino: made.ino,
            temporary: at.name.to_bytes().to_vec(),
            directory: item.node.payload.id,
            name: item.name.to_bytes().to_vec(),
            source: fingerprint(&item.stat),
        };
        // A temporary without a chunk is not announced, and one that was kept has some.
        Growth { growing, flush, announced: Mutex::new(claimed > 0), broken: false.into(), claimed: claimed.into() }
    }

    /// The temporary that an earlier run has left of this very source, if it is still what that run
    /// wrote to. Which of its chunks are good is seen when they are hashed.
    #[must_use]
    pub fn resume(&self, item: &Item) -> Option<Resumed> {
        let source = fingerprint(&item.stat);
        let grown = self.journal.take_left(&source)?;
        let kept = self.staging.kept(&grown.growing.temporary).filter(|_| grown.growing.source == source);
        let Some(mut temporary) = kept else {
            self.wither(&grown.growing);
            return None;
        };
        let opened = (|| -> io::Result<Option<(OwnedFd, OwnedFd, OwnedFd, Stat)>> {
            let target = sys::open_write(temporary.directory.as_fd(), &temporary.name)?;
            let found = sys::stat_fd(&target)?;
            let same = found.kind == Kind::File
                && found.ino == grown.growing.ino
                && found.size == item.stat.size
                && found.nlink == 1;
            if !same {
                return Ok(None);
            }
            let flush = sys::open_read(temporary.directory.as_fd(), &temporary.name, ReadMode::Cached)?;
            let stored = self.roots.read_back.open(&temporary.directory, &temporary.name)?;
            Ok(Some((target, flush, stored, found)))
        })();
        let Ok(Some((target, flush, stored, found))) = opened else {
            self.wither(&grown.growing);
            return None;
        };
        temporary.growth = Some(Arc::new(self.growth(item, &temporary, &found, flush, grown.chunks.len())));
        tracing::info!(path = %item.path().escape_ascii(), chunks = grown.chunks.len(), "goes on from its chunks");
        let thick = self.options.provision == Provision::Thick;
        let claims = Claims { stored: Arc::new(stored), values: grown.chunks, thick };
        Some(Resumed { temporary, target, claims })
    }

    /// What is left of a large file fits nothing: it goes, first from the journal, because another
    /// temporary may get its inode number.
    fn wither(&self, growing: &Growing) {
        if let Err(e) = self.writer.send(Batch { withered: vec![growing.ino], ..Batch::default() }) {
            self.end(e);
        }
        if let Some(temporary) = self.staging.kept(&growing.temporary) {
            temporary.discard();
        }
    }

    /// The pass is over, and nobody has asked for these.
    pub fn wither_left(&self) {
        let left = std::mem::take(&mut *lock(&self.journal.left));
        for grown in left.into_values() {
            self.wither(&grown.growing);
        }
    }

    /// A chunk of a large file has been copied.
    pub fn grown(&self, growth: &Arc<Growth>, chunk: Copied) {
        let at_once = self.batches.durability == Durability::Memory;
        self.settle_chunks(self.journal.add(growth, chunk, at_once));
    }

    /// Makes chunks durable and claims them.
    fn settle_chunks(&self, chunks: Vec<(Weak<Growth>, Copied)>) {
        let at_once = self.batches.durability == Durability::Memory;
        let mut due: BTreeMap<u64, (Arc<Growth>, Vec<Copied>)> = BTreeMap::new();
        for (growth, chunk) in chunks {
            // What was published or thrown away meanwhile needs no journal any more.
            let Some(growth) = growth.upgrade() else { continue };
            due.entry(growth.growing.ino).or_insert_with(|| (growth, Vec::new())).1.push(chunk);
        }
        for (growth, chunks) in due.into_values() {
            if !at_once && let Err(error) = rustix::fs::fdatasync(&growth.flush) {
                // The batch's own flush will meet it as well.
                tracing::warn!(%error, "flush of a large file");
                growth.broken.store(true, Ordering::Relaxed);
            }
            if !growth.broken.load(Ordering::Relaxed) {
                self.claim(&growth, &chunks);
            }
        }
    }

    fn claim(&self, growth: &Growth, chunks: &[Copied]) {
        let Growing { ino, source, .. } = growth.growing;
        let mut batch = Batch::default();
        // Held until it is sent, so that no chunk comes before its temporary.
        let mut announced = lock(&growth.announced);
        if !std::mem::replace(&mut *announced, true) {
            batch.growing.push(growth.growing.clone());
        }
        batch.grown.extend(chunks.iter().map(|c| GrownChunk { ino, source, index: c.index, value: c.value }));
        growth.claimed.fetch_add(chunks.len(), Ordering::Relaxed);
        if let Err(e) = self.writer.send(batch) {
            self.end(e);
        }
    }

    /// An orderly stop: what waits for its flush is journaled, and what the journal has of large files is
    /// named, so that it is kept.
    pub fn keep_grown(&self) -> Kept {
        let pending = std::mem::take(&mut *lock(&self.journal.pending));
        self.settle_chunks(pending.chunks);
        let mut kept = Kept::default();
        let mut keep = |growing: &Growing, chunks: usize| {
            if chunks > 0 && !kept.names.contains(&growing.temporary) {
                kept.names.push(growing.temporary.clone());
                kept.chunks += chunks;
            }
        };
        for growth in std::mem::take(&mut *lock(&self.journal.set_aside)) {
            if !growth.broken.load(Ordering::Relaxed) {
                keep(&growth.growing, growth.claimed.load(Ordering::Relaxed));
            }
        }
        // What this run did not come to.
        for grown in std::mem::take(&mut *lock(&self.journal.left)).into_values() {
            keep(&grown.growing, grown.chunks.len());
        }
        kept
    }
}
