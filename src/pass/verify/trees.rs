//! `copyd verify SRC DST`: what the workers share, and the run from the roots to the digests.
//!
//! ```text
//! scan (walk.rs) ──pairs of files──▶ compare (compare.rs) ──equal──▶ records ──sorted──▶ digests
//!   │   └─large files──▶ chunks (big.rs)     └──▶ judge: differs, missing, extra, failed
//!   └─what one side only has──▶ counted
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::copy::blocks::BlockIo;
use crate::copy::probe::Backend;
use crate::error::{Class, EntryError, Error, Side};
use crate::fidelity::{Rules, SideTraits};
use crate::hash::HolePolicy;
use crate::limits;
use crate::pass::VerifyOptions;
use crate::pass::batch::cores;
use crate::pass::confine::Confinement;
use crate::pass::queue::{Next, Queue};
use crate::pass::report::{Event, Observer, Opened, Progress, Stop, Summary};
use crate::pass::session::raise_descriptor_limit;
use crate::pass::setup::{self, RootPlace, Roots};
use crate::pass::workers::open_backend;
use crate::sys;
use crate::tree::filter::Seen;
use crate::tree::node::{Handles, Node};

use super::big::BigPair;
use super::compare::{Files, Waiting};
use super::content::PastCache;
use super::judge::{self, Judge, Means};
use super::links::Links;
use crate::pass::digests::Collector;
use crate::pass::records::Records;

/// A directory of the comparison. Nothing is kept for it: it is compared before its entries.
pub type Directory = Node<()>;

/// One piece of work for a worker.
#[derive(Debug)]
pub enum Task {
    /// Chunks of one side of a pair of large files: 0 the source's, 1 the destination's.
    Big(Arc<BigPair>, usize),
    Files(Files),
    /// A directory to be listed on both sides.
    Scan(Arc<Directory>),
    /// A directory that one side only has, to be counted.
    Count(Arc<Directory>, Side),
}

/// Lanes of the queue, the most urgent first.
pub mod lane {
    pub const BIG: usize = 0;
    pub const FILES: usize = 1;
    pub const SCAN: usize = 2;
    pub const COUNT: usize = 3;
}

/// State of one comparison of two trees, shared by its workers.
#[derive(Debug)]
pub struct Trees<'a> {
    pub options: &'a VerifyOptions,
    pub roots: Roots,
    pub judge: Judge<'a>,
    pub past_cache: PastCache,
    pub source_traits: SideTraits,
    pub destination_traits: SideTraits,
    pub queue: Queue<Task, { lane::COUNT }>,
    pub workers: usize,
    pub links: Links<Waiting>,
    pub records: Records,
    pub seen: Seen,
    /// Directories that are still to be listed.
    scans: AtomicU64,
}

/// Compares two trees.
///
/// # Errors
/// What ends the run before its time.
pub fn run(
    options: &VerifyOptions,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    let started = Instant::now();
    raise_descriptor_limit();
    let (backend, reason) = judge::backend(options.backend);
    let trees = open(options, observer, progress, stop)?;
    let confinement = options.confine.then(|| Confinement {
        read: vec![trees.roots.source.as_fd(), trees.roots.destination.as_fd()],
        outputs: options.manifest.iter().cloned().collect(),
        ring: backend == Backend::Uring,
        in_memory: trees.roots.in_memory,
        ..Confinement::default()
    });
    let (readback, workers) = (trees.past_cache.word(), trees.workers);
    let means = Means { backend, confinement, readback, workers, reason: &reason };
    let mut summary = trees.judge.conduct((&options.source, &options.destination), means, || {
        trees.carry(backend)?;
        trees.name_missing();
        Ok(())
    })?;
    if trees.judge.all_equal() && !trees.judge.halted() {
        let (share, metadata) = digests(trees.options, trees.links, trees.records)?;
        (summary.share_digest, summary.metadata_digest) = (Some(share), Some(metadata));
    } else if options.manifest.is_some() {
        trees.judge.event(&Event::Note("no manifest is written: it would prove a share that is not as it should be"));
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

fn open<'a>(
    options: &'a VerifyOptions,
    observer: &'a dyn Observer,
    progress: &'a Progress,
    stop: &'a Arc<Stop>,
) -> Result<Trees<'a>, Error> {
    progress.open_root(Some(Side::Destination));
    refuse_absent(&options.destination)?;
    let (roots, _) = Roots::open(
        RootPlace { path: &options.source, within: &options.within },
        RootPlace { path: &options.destination, within: &options.within },
        false,
        progress,
    )?;
    observer.opened(&Opened { source: Some(&roots.source), destination: &roots.destination })?;
    progress.open_root(None);
    let at = |side, e| {
        let path = if side == Side::Source { &options.source } else { &options.destination };
        setup::root_error(side, path, e)
    };
    let probe = |side, fd: &std::os::fd::OwnedFd| SideTraits::probe(fd.as_fd()).map_err(|e| at(side, e));
    let source_magic = sys::file_system_magic(roots.source.as_fd());
    let source_kind = setup::durability(source_magic.map_err(|e| at(Side::Source, e))?);
    let slowest = judge::slower(source_kind, roots.durability);
    Ok(Trees {
        options,
        judge: Judge::new(observer, progress, stop, options.items, &options.throttle),
        past_cache: PastCache::new(roots.read_back),
        source_traits: probe(Side::Source, &roots.source)?,
        destination_traits: probe(Side::Destination, &roots.destination)?,
        queue: Queue::default(),
        workers: slowest.workers(options.jobs, cores()),
        links: Links::default(),
        records: Records::prepared(),
        seen: options.filter.watch(),
        scans: AtomicU64::new(0),
        roots,
    })
}

/// A copy would make its destination; a comparison has nothing to compare with.
///
/// # Errors
/// [`Error::Root`] where nothing stands at the path.
fn refuse_absent(path: &Path) -> Result<(), Error> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::Root {
            side: Side::Destination,
            path: path.to_owned(),
            what: "no such directory",
            remedy: "check the path, and that the share is mounted",
            source: Some(e),
        }),
        // Opening says the rest.
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Trees<'_> {
    /// What holds for the metadata of every entry.
    #[must_use]
    pub fn rules(&self) -> Rules<'_> {
        Rules { source: &self.source_traits, destination: &self.destination_traits, id_map: &self.options.id_map }
    }

    /// Which rule files with large holes are hashed by.
    #[must_use]
    pub const fn hole_policy(&self) -> HolePolicy {
        if self.options.manifest_holes { HolePolicy::Standard } else { HolePolicy::Extents }
    }

    /// Hands out a directory to be listed.
    pub fn push_scan(&self, task: Task) {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.queue.push(lane::SCAN, task);
    }

    fn scanned(&self) {
        if self.scans.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.judge.progress.scan_complete.store(true, Ordering::Relaxed);
        }
    }

    fn carry(&self, backend: Backend) -> Result<(), Error> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
        // The rest is for files in flight.
        let limit = usize::try_from(limit / 2).unwrap_or(usize::MAX).min(limits::COMPARE_HANDLES);
        let (source, destination) = (Arc::clone(&self.roots.source), Arc::clone(&self.roots.destination));
        self.judge.progress.entries_scanned.add(1);
        self.judge.entries.add(1);
        self.push_scan(Task::Scan(Node::root(Handles::new(limit), source, Some(destination), ())));
        work(self.workers, &self.judge, || self.queue.close(), || self.work(backend))
    }

    fn work(&self, backend: Backend) -> Result<(), Error> {
        let (mut io, _) = open_backend(backend).map_err(no_buffers)?;
        loop {
            if self.judge.halted() {
                self.queue.clear_from(lane::BIG);
            }
            match self.queue.next() {
                Next::Closed => return Ok(()),
                Next::Task(task) => {
                    self.carry_out(task, io.as_mut());
                    self.queue.finished();
                }
                Next::Idle => {
                    self.queue.close();
                    self.queue.finished();
                }
            }
        }
    }

    /// One task.
    pub fn carry_out(&self, task: Task, io: &mut dyn BlockIo) {
        let result = match task {
            Task::Big(pair, side) => self.read_big(&pair, side, io),
            Task::Files(files) => self.compare_files(files, io),
            Task::Scan(node) => {
                self.scan(&node, io);
                self.scanned();
                Ok(())
            }
            Task::Count(node, side) => {
                self.count(&node, side);
                self.scanned();
                Ok(())
            }
        };
        if let Err(e) = result {
            self.judge.end(Error::Internal { what: format!("the I/O backend failed: {e}") });
        }
    }

    /// Paths of `--files-from` that neither side has could not be compared, as with rsync.
    fn name_missing(&self) {
        if self.judge.halted() {
            return;
        }
        for (_, path) in self.seen.missing() {
            let (class, operation, path) = (Class::Vanished, "find the listed entry", path.to_vec());
            self.judge.fail(&EntryError { class, side: Side::Source, operation, path, source: None });
        }
    }
}

/// Runs `worker` on as many threads, and gives the error that ended one of them.
///
/// # Errors
/// What ended the run before its time.
pub fn work(
    workers: usize,
    judge: &Judge<'_>,
    close: impl Fn() + Sync,
    worker: impl Fn() -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let failed = |e| {
        judge.end(e);
        close();
    };
    std::thread::scope(|scope| {
        for number in 0..workers {
            let thread = std::thread::Builder::new().name(format!("data-{number}"));
            let spawned = thread.spawn_scoped(scope, || {
                if let Err(e) = worker() {
                    failed(e);
                }
            });
            match spawned {
                Ok(_) => {}
                Err(source) if number == 0 => failed(Error::Resources { what: "no thread to read with", source }),
                Err(error) => {
                    tracing::warn!(%error, number, "fewer threads than planned");
                    break;
                }
            }
        }
    });
    judge.take_fatal().map_or(Ok(()), Err)
}

/// A worker has nothing to read into.
pub fn no_buffers(source: std::io::Error) -> Error {
    Error::Resources { what: "no memory for a data thread's buffers", source }
}

/// The digests of the share, and the manifest where one is asked for.
fn digests(options: &VerifyOptions, links: Links<Waiting>, records: Records) -> Result<(String, String), Error> {
    let mut collector = Collector::new(links.shared(), options.manifest.as_deref())?;
    records.for_each(&mut |path, record| collector.take(path, record))?;
    match collector.finish()? {
        (Some(share), Some(metadata)) => Ok((share, metadata)),
        _ => Err(Error::Internal { what: "an equal file has no digest".into() }),
    }
}
