//! Everything the workers of one pass share, and how a pass goes from phase to phase.
//!
//! ```text
//!   copy ──────────▶ deletions ────────▶ after ─────────▶ finish
//!  scan, copy,       what only the       entries whose    staging away, root's
//!  publish, then     destination has     place was a      metadata, last flush,
//!  links to what                         directory, and   rows to the catalog
//!  stands                                their links
//! ```
//! Each phase begins when nothing of the one before runs; what a phase adds (a link whose leader
//! failed is copied after all) is worked off before the next.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use rustix::fs::AtFlags;

use crate::copy::big::BigFile;
use crate::copy::offload::ServerCopy;
use crate::copy::range::{MoveError, Pace};
use crate::error::{Class, EntryError, Error, Side};
use crate::fidelity::{LossLog, Losses, Rules, SideTraits};
use crate::hash::{FileHasher, HolePolicy};
use crate::limits;
use crate::store::{Batch, Catalog, Facts, Failure, Proof, Writer};
use crate::sys::{Kind, Stat};
use crate::tree::filter::Seen;
use crate::tree::links::{Group, Inode, Links};
use crate::tree::node::lock;
use crate::tree::plan::Change;

use super::Options;
use super::again::Suspect;
use super::batch::Batches;
use super::directory::{Directory, Item, Work};
use super::extras::Extra;
use super::journal::Journal;
use super::publish::Staged;
use super::queue::Queue;
use super::records::Records;
use super::report::{Counter, Event, Observer, Progress, Stop};
use super::retry::Retry;
use super::setup::Roots;
use super::staging::Staging;
use super::transfer::BigCopy;
use super::trash::Trash;

/// One piece of work for a worker.
#[derive(Debug)]
pub enum Task {
    /// Read back and rename what is durable.
    Publish(Vec<Box<Staged>>),
    /// Chunks of one large file, on the way there or read back.
    Big(Arc<BigFile<BigCopy>>),
    /// Names of inodes that stand at the destination.
    Link(Box<Group<Work, Settled>>),
    /// Entries to copy.
    Copy(Vec<Item>),
    /// Files to be hashed before it is known whether they are to be copied.
    HashAgain(Vec<Suspect>),
    /// A directory to list.
    Scan(Arc<Directory>),
}

/// Lanes of the queue, the most urgent first.
pub mod lane {
    pub const PUBLISH: usize = 0;
    pub const BIG: usize = 1;
    pub const COPY: usize = 2;
    pub const SCAN: usize = 3;
    pub const COUNT: usize = 4;
}

/// What followers need to know of their leader: the inode at the destination and its row.
#[derive(Clone, Debug)]
pub struct Settled {
    pub inode: Inode,
    pub facts: Facts,
    pub target: Option<Vec<u8>>,
}

/// Counts that only the summary needs.
#[derive(Debug, Default)]
pub struct Tally {
    pub directories_created: Counter,
    pub links_made: Counter,
    pub metadata_updated: Counter,
    pub proved: Counter,
    pub assumed: Counter,
    pub proved_before: Counter,
    pub hot: Counter,
    pub vanished: Counter,
    pub ignored: Counter,
    pub mismatched: Counter,
    pub entries: Counter,
}

impl Tally {
    /// Another pass begins: what it finds counts, not what the one before found.
    pub fn start_again(&self, progress: &Progress) {
        let per_pass = [
            &self.proved,
            &self.assumed,
            &self.proved_before,
            &self.hot,
            &self.ignored,
            &self.mismatched,
            &self.entries,
            &progress.failed,
            &progress.files_unchanged,
        ];
        per_pass.into_iter().for_each(Counter::restart);
    }
}

/// What the pass has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Copy,
    After,
    Finish,
    Over,
}

/// A value that is taken once, by whoever completes the work.
#[derive(Debug)]
pub struct Once<T>(Mutex<Option<T>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> From<T> for Once<T> {
    fn from(value: T) -> Self {
        Self(Mutex::new(Some(value)))
    }
}

impl<T> Once<T> {
    pub fn take(&self) -> Option<T> {
        lock(&self.0).take()
    }
}

/// Hashers at rest: each is two kilobytes that need not be made anew for every file.
#[derive(Debug, Default)]
pub struct Hashers(Mutex<Vec<Box<FileHasher>>>);

impl Hashers {
    #[must_use]
    pub fn take(&self) -> Box<FileHasher> {
        lock(&self.0).pop().unwrap_or_default()
    }

    pub fn give(&self, hasher: Box<FileHasher>) {
        lock(&self.0).push(hasher);
    }
}

/// State of one pass, shared by its workers: what it is made of, and what it finds. The parts are read as
/// fields of the run itself.
#[derive(Debug)]
pub struct Run<'a> {
    parts: Parts<'a>,
    pub queue: Queue<Task, { lane::COUNT }>,
    pub batches: Batches,
    pub links: Links<Work, Settled>,
    pub hashers: Hashers,
    pub unlimited: Arc<Pace>,
    pub extras: Mutex<Vec<Extra>>,
    /// Entries that wait for a directory in their place to be removed.
    pub replacements: Mutex<Vec<Item>>,
    /// Directories from which flags were lifted.
    pub lifted: Mutex<Vec<Arc<Directory>>>,
    /// A listing or statx failed somewhere: nothing is deleted in this pass (P4).
    pub listing_failed: AtomicBool,
    /// The source changed while the pass ran: another pass is worth it.
    pub source_moved: AtomicBool,
    /// Anything at all was changed at the destination.
    pub changed: AtomicBool,
    /// Deletions wanted and allowed, where the limit was exceeded.
    pub over_limit: Mutex<Option<(u64, u64)>>,
    pub flush_failures: AtomicU32,
    pub clones_refused: AtomicBool,
    pub server_copy: ServerCopy,
    pub phase: Mutex<Phase>,
    pub seen: Seen,
    /// Data threads that the machine did not give.
    pub workers_missed: AtomicUsize,
    /// A data thread got no ring.
    pub ring_missed: AtomicBool,
    /// Directories that grow in the staging area, and how many may.
    pub nurseries: AtomicUsize,
    pub nurseries_most: usize,
    /// User and group that new files have by themselves.
    pub own_ids: (u32, u32),
    /// Mode bits that they never have.
    pub own_mask: u32,
    fatal: Mutex<Option<Error>>,
    ended: AtomicBool,
    /// When somebody first saw that no new work is begun.
    halted_at: OnceLock<Instant>,
}

impl<'a> std::ops::Deref for Run<'a> {
    type Target = Parts<'a>;

    fn deref(&self) -> &Self::Target {
        &self.parts
    }
}

/// The process's umask. The kernel tells it only in exchange for another, so for a moment new files
/// of other threads are private.
fn own_mask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

/// The observer, in a form that can be printed.
#[derive(Clone, Copy)]
pub struct Watcher<'a>(pub &'a dyn Observer);

impl std::fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// What a pass is made of, apart from what it finds.
#[derive(Debug)]
pub struct Parts<'a> {
    pub options: &'a Options,
    pub roots: &'a Roots,
    pub progress: &'a Progress,
    pub stop: &'a Stop,
    pub observer: Watcher<'a>,
    pub catalog: &'a Catalog,
    pub writer: &'a Writer,
    /// The job has finished a pass before, so its catalog knows all that it put there.
    pub catalog_complete: bool,
    /// Rows of what the job itself put there may be missing: a file that the catalog doesn't know is
    /// hashed before it counts as equal.
    pub doubtful: bool,
    pub workers: usize,
    pub staging: Staging,
    /// Where what is deleted or replaced is kept, if it is.
    pub trash: Option<Trash>,
    /// The source root is the destination of another job, and a trash in it is copyd's own.
    pub source_has_trash: bool,
    pub journal: Journal,
    pub losses: &'a LossLog<'a>,
    pub pace: Arc<Pace>,
    pub source_traits: SideTraits,
    pub destination_traits: SideTraits,
    pub tally: &'a Tally,
    /// All entries, for the digests, where this pass records every one of them.
    pub records: Option<&'a Records>,
    /// Only this is looked at, where a run tries again what failed.
    pub retry: Option<&'a Retry>,
}

impl<'a> Run<'a> {
    #[must_use]
    pub fn new(parts: Parts<'a>) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
        Self {
            queue: Queue::default(),
            batches: Batches::new(parts.roots.durability, Arc::clone(&parts.roots.destination)),
            links: Links::default(),
            hashers: Hashers::default(),
            unlimited: Arc::new(Pace::unlimited().counting(&parts.progress.beat)),
            extras: Mutex::default(),
            replacements: Mutex::default(),
            lifted: Mutex::default(),
            listing_failed: AtomicBool::new(false),
            source_moved: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            over_limit: Mutex::default(),
            flush_failures: AtomicU32::new(0),
            clones_refused: AtomicBool::new(false),
            server_copy: ServerCopy::new(parts.roots.server_copy),
            phase: Mutex::new(Phase::Copy),
            seen: parts.options.filter.watch(),
            nurseries: AtomicUsize::new(0),
            workers_missed: AtomicUsize::new(0),
            ring_missed: AtomicBool::new(false),
            nurseries_most: super::nursery::most(descriptors),
            own_ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            own_mask: own_mask(),
            fatal: Mutex::default(),
            ended: AtomicBool::new(false),
            halted_at: OnceLock::new(),
            parts,
        }
    }

    /// Sends an event.
    pub fn event(&self, event: &Event<'_>) {
        self.observer.0.event(event);
    }

    /// Sends one line of the plan, where somebody wants to see it.
    pub fn show_change(&self, change: &Change) {
        if self.options.items {
            self.event(&Event::Item(change));
        }
    }

    /// What holds for the metadata of every entry.
    #[must_use]
    pub fn rules(&self) -> Rules<'_> {
        Rules { source: &self.source_traits, destination: &self.destination_traits, id_map: &self.options.id_map }
    }

    /// Which rule files with large holes are hashed by.
    #[must_use]
    pub fn hole_policy(&self) -> HolePolicy {
        if self.options.manifest_holes { HolePolicy::Standard } else { HolePolicy::Extents }
    }

    /// No new work is begun: somebody asked to stop, or the run has failed as a whole.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.stop.requested() || self.ended.load(Ordering::Relaxed)
    }

    /// What is under way is not carried to its end either.
    #[must_use]
    pub fn cut_off(&self) -> bool {
        self.halted() && self.halted_at.get_or_init(Instant::now).elapsed() >= limits::STOP_GRACE
    }

    /// Somebody asked to stop, and nothing else is wrong.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.requested() && !self.ended.load(Ordering::Relaxed)
    }

    /// Ends the run with this error, unless it has one already.
    pub fn end(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the run still owns its job. Where a supervisor has given it to another, the run ends here:
    /// what it would change yet, nobody would record (P5).
    pub fn still_ours(&self) -> bool {
        let ours = self.catalog.is_owned();
        if !ours {
            self.end(Error::Guard {
                what: "another run has taken this job over".into(),
                remedy: "nothing to do here: the later run goes on with it",
            });
        }
        ours
    }

    /// The error that ended the run, if one did.
    pub fn take_fatal(&self) -> Option<Error> {
        lock(&self.fatal).take()
    }

    /// An entry is settled as equal.
    pub fn unchanged(&self, kind: Kind, proof: Proof) {
        self.progress.files_unchanged.add(u64::from(kind == Kind::File));
        self.progress.entries_done.add(1);
        self.count_kept(proof);
    }

    /// One more entry that stands as the catalog has it, by size and times on both sides. What an earlier pass
    /// of this very run has proved is proved; what an earlier run has, is assumed to be so still.
    pub fn count_kept(&self, proof: Proof) {
        if self.progress.pass.get() > 1 {
            return self.count_proof(proof);
        }
        self.tally.assumed.add(1);
        self.tally.proved_before.add(u64::from(proof == Proof::Proved));
    }

    /// Something that a person should know about the pass as a whole.
    pub fn note(&self, text: &'static str) {
        tracing::warn!("{text}");
        self.event(&Event::Note(text));
    }

    /// A dry run has got as far as a copy would begin.
    pub fn would_copy(&self, item: Item) {
        if item.linked() {
            // Its followers are shown as links.
            let facts = Facts::new(item.stat.kind);
            self.links.settle(item.inode(), Settled { inode: (0, 0), facts, target: None });
        }
        if item.stat.kind == Kind::File {
            self.progress.files_copied.add(1);
            self.progress.bytes_done.add(item.stat.size);
        }
        self.progress.entries_done.add(1);
        self.release(&item.node, 1);
    }

    /// An entry was listed and is gone.
    pub fn vanished(&self, node: &Directory, name: &CStr) {
        self.source_moved.store(true, Ordering::Relaxed);
        self.tally.vanished.add(1);
        tracing::info!(path = %node.path_of(name).escape_ascii(), "vanished");
    }

    /// An entry that is left alone on purpose.
    pub fn ignored(&self, node: &Directory, name: &CStr, why: &'static str) {
        self.tally.ignored.add(1);
        if node.is_root() {
            self.event(&Event::Ignored { path: name.to_bytes(), why });
        }
    }

    /// Names what an entry could not take with it.
    pub fn record_losses(&self, item: &Item, losses: &Losses) {
        if !losses.is_empty() {
            self.losses.record(&item.path(), losses);
        }
    }

    /// An entry failed for good: counted, named, kept for the operator.
    pub fn fail_entry(&self, error: EntryError) {
        match error.class {
            Class::Vanished if error.side == Side::Source => {
                self.tally.vanished.add(1);
                self.source_moved.store(true, Ordering::Relaxed);
            }
            Class::Hot => {
                self.tally.hot.add(1);
                self.source_moved.store(true, Ordering::Relaxed);
            }
            class => {
                self.progress.failed.add(1);
                self.tally.mismatched.add(u64::from(class == Class::Mismatch));
            }
        }
        self.progress.entries_done.add(1);
        if let Some(retry) = self.retry {
            retry.fail(&error.path);
        }
        self.event(&Event::EntryFailed(&error));
        self.keep_failure(&error);
        if error.side == Side::Destination && error.class.stops_the_run() {
            self.end(Error::Root {
                side: Side::Destination,
                path: self.options.destination.clone(),
                what: match error.class {
                    Class::Quota => "its quota is used up",
                    Class::ReadOnly => "it is read-only",
                    _ => "no room is left",
                },
                remedy: error.class.remedy(),
                source: error.source,
            });
        }
    }

    /// What failed is tried again by a later run, if that is asked for. A dry run leaves the list alone.
    fn keep_failure(&self, error: &EntryError) {
        let batch = Batch { failures: vec![Failure::from(error)], ..Batch::default() };
        if !self.options.dry_run
            && let Err(e) = self.writer.send(batch)
        {
            self.end(e);
        }
    }

    /// Paths of `--files-from` that the source does not have fail the run, as they do with rsync.
    pub fn name_missing(&self) {
        if self.halted() || self.retry.is_some() {
            return;
        }
        for (_, path) in self.seen.missing() {
            let (class, operation) = (Class::Missing, "find what --files-from names");
            self.fail_entry(EntryError { class, side: Side::Source, operation, path: path.to_vec(), source: None });
        }
    }

    /// An entry that is not whole must neither stand in the directory it was made in, which gets its name
    /// with all that is in it, nor hold it up. It is removed here whatever was removed before: a call
    /// that failed may have done its work all the same.
    fn leave_nursery(&self, item: &mut Item) {
        if !std::mem::take(&mut item.nested) {
            return;
        }
        let removed = item
            .node
            .open(Side::Destination)
            .and_then(|directory| Ok(rustix::fs::unlinkat(&directory, &*item.name, AtFlags::empty())?));
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => self.end(Error::Root {
                side: Side::Destination,
                path: self.options.destination.clone(),
                what: "an entry that is not whole can't be removed from a new directory",
                remedy: "check that the file system behind it answers (ls, dmesg), then run the same command again",
                source: Some(e),
            }),
            _ => self.nursed(&item.node, None),
        }
    }

    /// An entry that could not be moved: begun again where that can help, else failed.
    pub fn settle_failure(&self, mut item: Item, e: MoveError) {
        self.leave_nursery(&mut item);
        if e.class == Class::Hot {
            // Whatever comes of it now was not looked at from the start: another pass is worth it.
            self.source_moved.store(true, Ordering::Relaxed);
        }
        if e.class == Class::Hot && self.halted() {
            // Cut off in the middle, which looks like a file that changes: no failure, and begun again by
            // the run that resumes.
            return self.release(&item.node, 1);
        }
        let again = match e.class {
            Class::Hot => item.attempt + 1 < limits::HOT_ATTEMPTS,
            // An error at the source may be that of another entry put in its place since the scan.
            Class::Mismatch => item.attempt == 0,
            Class::Io => item.attempt == 0 && e.side == Side::Source,
            _ => false,
        };
        if again && !self.halted() {
            return self.retry(item, e.operation);
        }
        if item.stat.kind == Kind::File {
            self.progress.bytes_done.add(item.stat.size);
        }
        let path = item.path();
        self.fail_entry(EntryError { class: e.class, side: e.side, operation: e.operation, path, source: e.source });
        self.release(&item.node, 1);
    }

    /// Begins an entry again, from a new look at it.
    pub fn retry(&self, mut item: Item, why: &'static str) {
        self.leave_nursery(&mut item);
        tracing::info!(path = %item.path().escape_ascii(), why, "begun again");
        item.attempt += 1;
        let look = item.node.open(Side::Source).and_then(|fd| crate::sys::stat_at(fd.as_fd(), &item.name));
        match look {
            Ok(stat) if item.attempt <= limits::HOT_ATTEMPTS && (stat.kind == item.stat.kind) => {
                item.stat.size = item.stat.size.max(stat.size);
                item.stat = Stat { size: item.stat.size, ..stat };
                self.queue.push(lane::COPY, Task::Copy(vec![item]));
            }
            Ok(_) => {
                let path = item.path();
                let (class, operation) = (Class::Hot, "read it unchanged");
                self.fail_entry(EntryError { class, side: Side::Source, operation, path, source: None });
                self.release(&item.node, 1);
            }
            Err(e) => {
                self.fail_entry(EntryError::io(Side::Source, "stat", item.path(), e));
                self.release(&item.node, 1);
            }
        }
    }
}
