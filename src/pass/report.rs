//! What a run says while it goes on and when it ends: live counters, events, the summary.
//!
//! The engine only counts and names; how that looks on a terminal or as JSON lines is the
//! business of whoever implements [`Observer`]. Nothing in here prints.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{EntryError, Error, ExitCode, Side};
use crate::fidelity::LossClass;
use crate::tree::plan::Change;

use super::confine::Confined;
use super::inspect::Known;

/// One counter that many threads add to and one reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Back to nothing: another pass counts anew.
    pub fn restart(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Live counts of a run. Monotonic within a run, so a reader can take rates from them.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries the source scan has seen, all passes together, the root included.
    pub entries_scanned: Counter,
    /// Entries that are settled: copied and published, equal, or failed.
    pub entries_done: Counter,
    /// Content bytes in scope: the sizes of all files that the scan found to copy.
    pub bytes_planned: Counter,
    /// Content bytes moved to the destination so far; holes are not moved.
    pub bytes_copied: Counter,
    /// Content bytes settled of `bytes_planned`, holes included.
    pub bytes_done: Counter,
    /// Content bytes read back, or compared, so far.
    pub bytes_verified: Counter,
    pub files_copied: Counter,
    pub files_unchanged: Counter,
    pub deleted: Counter,
    pub failed: Counter,
    /// The scan of the current pass has listed everything (`to-chk` instead of `ir-chk`).
    pub scan_complete: AtomicBool,
    /// Number of the current pass, from 1.
    pub pass: Counter,
    /// Blocks moved and rows digested, of no meaning but that it grows while anything moves.
    pub beat: Arc<AtomicU64>,
    /// The root that is being opened: what hangs then has no descriptor to be known by. 0 for none.
    opening: AtomicU8,
}

impl Progress {
    /// Notes which root is being opened, or that none is.
    pub fn open_root(&self, side: Option<Side>) {
        let number = match side {
            None => 0,
            Some(Side::Source) => 1,
            Some(Side::Destination) => 2,
        };
        self.opening.store(number, Ordering::Relaxed);
    }

    /// The root that is being opened.
    #[must_use]
    pub fn opening(&self) -> Option<Side> {
        match self.opening.load(Ordering::Relaxed) {
            1 => Some(Side::Source),
            2 => Some(Side::Destination),
            _ => None,
        }
    }

    /// A number that is another one whenever anything at all has moved since.
    #[must_use]
    pub fn pulse(&self) -> u64 {
        let counters =
            [&self.entries_scanned, &self.entries_done, &self.bytes_copied, &self.bytes_verified, &self.deleted];
        counters.iter().fold(self.beat.load(Ordering::Relaxed), |sum, counter| sum.wrapping_add(counter.get()))
    }
}

/// What happened, as it happens. Called from data threads: implementors lock for themselves.
#[derive(Debug)]
pub enum Event<'a> {
    /// The job is known and the roots are open. Comes first.
    Started {
        job: uuid::Uuid,
        /// Of the job, see [`crate::store::Job::epoch`]; 0 where there is none.
        epoch: u64,
        kind: &'static str,
        resumed: bool,
        source: &'a std::path::Path,
        destination: &'a std::path::Path,
    },
    /// What this process has given up, and what it kept.
    Confined(&'a Confined),
    /// How blocks are moved and how read-back gets past the cache, with the probe's finding in words.
    Backend {
        backend: &'static str,
        readback: &'static str,
        jobs: usize,
        reason: &'a str,
    },
    PassStarted {
        pass: u32,
    },
    /// One entry of the plan; sent only where the options ask for items (`-i`, `-v`, `-n`).
    Item(&'a Change),
    /// An entry that exists only at the destination and was (or with `-n`: would be) removed.
    Deleted {
        path: &'a [u8],
        kind: crate::sys::Kind,
    },
    /// What `copyd verify` found: `=` equal, `-` missing at the source, `+` missing at the
    /// destination, `*` differs, `!` error. Equal entries are sent only where items are asked for.
    Compared {
        sign: char,
        path: &'a [u8],
        what: &'a str,
    },
    EntryFailed(&'a EntryError),
    /// What a catalog knows of an entry that was asked for.
    Entry(&'a Known<'a>),
    /// Something that the destination can't hold. Each class is sent with at most
    /// [`crate::limits::LOSS_EXAMPLES`] examples; the counts are in the summary.
    Loss {
        class: LossClass,
        path: &'a [u8],
        detail: &'a str,
    },
    /// An entry that the filters or the fixed rules leave out, at the root only (`lost+found`).
    Ignored {
        path: &'a [u8],
        why: &'static str,
    },
    /// Something that a person should know about the pass as a whole.
    Note(&'a str),
    PassEnded {
        pass: u32,
        copied: u64,
        hot: u64,
        failed: u64,
    },
}

/// What stands open when the work begins.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// `None` where a tree is held against a manifest.
    pub source: Option<&'a Arc<OwnedFd>>,
    pub destination: &'a Arc<OwnedFd>,
}

/// Receives events. The engine never waits for one longer than the call takes.
pub trait Observer: Sync {
    fn event(&self, event: &Event<'_>);

    /// The roots and the state are open, and nothing of the trees was looked at yet. Called once, on the
    /// thread from which all others of the run start.
    ///
    /// # Errors
    /// What ends the run here.
    fn opened(&self, _opened: &Opened<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// How a run ended, in the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    Partial,
    Failed,
    Cancelled,
    Refused,
}

/// The last word of a run. Field names are those of the JSON summary in `docs/cli.md`.
#[derive(Clone, Debug)]
pub struct Summary {
    pub job: uuid::Uuid,
    /// `migrate`, `sync`, `verify` or `inspect`.
    pub kind: &'static str,
    pub dry_run: bool,
    pub exit: ExitCode,
    pub verify: &'static str,
    pub passes: u32,
    /// Entries at the source in scope, the root included.
    pub entries: u64,
    pub files_copied: u64,
    pub files_unchanged: u64,
    pub directories_created: u64,
    pub links_made: u64,
    /// Metadata set anew on entries whose content was equal.
    pub metadata_updated: u64,
    /// Content bytes written to the destination.
    pub bytes_copied: u64,
    pub bytes_verified: u64,
    /// Entries that were read from an unchanged source, are durable, and read back equal.
    pub proved: u64,
    /// Entries that were skipped as equal, or copied without read-back.
    pub assumed: u64,
    /// Of those assumed: proved by an earlier run of the job, and by size and times as it left them.
    pub proved_before: u64,
    pub deleted: u64,
    pub renamed: u64,
    pub hot: u64,
    pub failed: u64,
    pub vanished: u64,
    pub ignored: u64,
    pub lost: BTreeMap<LossClass, u64>,
    pub degraded: BTreeMap<LossClass, u64>,
    /// Classes that no destination can hold, said once (birth time, ctime, inode number).
    pub unsettable: Vec<LossClass>,
    /// Deletions wanted and allowed, where the limit was exceeded and so none was made.
    pub over_limit: Option<(u64, u64)>,
    /// `copyd verify`: entries that differ, are missing at the destination, or only exist there.
    pub differing: u64,
    pub missing: u64,
    pub extra: u64,
    /// Lower-case hex; `None` where not every entry's digest is known.
    pub share_digest: Option<String>,
    pub metadata_digest: Option<String>,
    pub backend: &'static str,
    pub readback: &'static str,
    pub elapsed: Duration,
}

impl Outcome {
    /// The word for a run that ended with this code.
    #[must_use]
    pub const fn of(exit: ExitCode) -> Self {
        match exit {
            ExitCode::Complete => Self::Completed,
            ExitCode::Stopped => Self::Cancelled,
            ExitCode::Usage | ExitCode::Guard => Self::Refused,
            ExitCode::Internal | ExitCode::Root | ExitCode::Timeout => Self::Failed,
            ExitCode::SomeFailed
            | ExitCode::Vanished
            | ExitCode::DeletionLimit
            | ExitCode::Mismatch
            | ExitCode::LossRefused => Self::Partial,
        }
    }
}

impl Summary {
    /// Of a run that copied and compared nothing, and was no job.
    #[must_use]
    pub fn of(kind: &'static str) -> Self {
        Self {
            job: uuid::Uuid::nil(),
            kind,
            dry_run: false,
            exit: ExitCode::Complete,
            verify: "none",
            passes: 0,
            entries: 0,
            files_copied: 0,
            files_unchanged: 0,
            directories_created: 0,
            links_made: 0,
            metadata_updated: 0,
            bytes_copied: 0,
            bytes_verified: 0,
            proved: 0,
            assumed: 0,
            proved_before: 0,
            deleted: 0,
            renamed: 0,
            hot: 0,
            failed: 0,
            vanished: 0,
            ignored: 0,
            lost: BTreeMap::new(),
            degraded: BTreeMap::new(),
            unsettable: Vec::new(),
            over_limit: None,
            differing: 0,
            missing: 0,
            extra: 0,
            share_digest: None,
            metadata_digest: None,
            backend: "none",
            readback: "none",
            elapsed: Duration::ZERO,
        }
    }

    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        Outcome::of(self.exit)
    }
}

/// A request to stop: set once by a signal or a supervisor, read by every thread at safe points.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
