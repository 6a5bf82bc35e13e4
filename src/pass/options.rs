//! What a run is asked to do, after parsing and before anything is opened.

use std::path::PathBuf;

use crate::fidelity::{IdMap, LossClass};
pub use crate::job::{BackendChoice, Provision, VerifyLevel};
use crate::sys::{Kind, Stat};
use crate::throttle::Throttle;
use crate::tree::filter::Filter;

/// Which verb the run carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Passes until nothing changed meanwhile, or `max_passes`.
    Migrate,
    /// One pass; the destination becomes a replica.
    Sync,
}

impl JobKind {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Sync => "sync",
        }
    }
}

/// What may happen to entries at the destination that the source does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    /// Foreign entries end the run (43); entries of this job whose source has gone are removed.
    Guard,
    /// `--delete`: all of them are removed, under the guards.
    Delete,
    /// `--keep-extra`: foreign entries stay; entries of this job whose source has gone are removed.
    Keep,
}

/// What an entry may be at most; beyond it, it fails by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a file, logical: a hole counts.
    pub size: Option<u64>,
    /// Bytes that are allocated for a file at the source.
    pub allocated: Option<u64>,
    /// Entries of one directory.
    pub directory_entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { size: None, allocated: None, directory_entries: crate::limits::DIRECTORY_ENTRIES_MAX }
    }
}

impl Bounds {
    /// What a file is too large for.
    #[must_use]
    pub fn exceeded(&self, stat: &Stat) -> Option<&'static str> {
        if stat.kind != Kind::File {
            return None;
        }
        let allocated = stat.blocks.saturating_mul(512);
        if self.size.is_some_and(|most| stat.size > most) {
            return Some("copy more bytes than --max-size allows");
        }
        self.allocated.is_some_and(|most| allocated > most).then_some("copy more than --max-allocated allows")
    }
}

/// Everything a `migrate` or `sync` is asked.
#[derive(Clone, Debug)]
pub struct Options {
    pub kind: JobKind,
    pub source: PathBuf,
    pub destination: PathBuf,
    /// Where both roots may lie, see [`super::setup::RootPlace`].
    pub within: Vec<PathBuf>,
    pub verify: VerifyLevel,
    pub dry_run: bool,
    /// Send an [`super::Event::Item`] for each change (`-n`, `-i`, `-v`).
    pub items: bool,
    pub extras: Extras,
    pub allow_empty_source: bool,
    /// A file at the source's root that tells this share from every other.
    pub source_marker: Option<std::ffi::CString>,
    /// The destination may lie on another file system than an earlier job's at the same path.
    pub new_destination: bool,
    pub max_delete: Option<u64>,
    /// What is deleted or replaced is kept at the destination for so long.
    pub trash: Option<std::time::Duration>,
    pub max_passes: u32,
    /// Only what an earlier run left as failed or hot.
    pub retry_failed: bool,
    pub filter: Filter,
    pub one_file_system: bool,
    pub bounds: Bounds,
    pub id_map: IdMap,
    pub backend: BackendChoice,
    pub provision: Provision,
    /// Data threads; `None` lets the probe decide.
    pub jobs: Option<usize>,
    /// Content bytes written, both directions counted once. May be changed while the run goes on.
    pub throttle: Throttle,
    pub accept_loss: Vec<LossClass>,
    pub state_dir: Option<PathBuf>,
    /// Vanished entries count as failures (24).
    pub strict: bool,
    pub manifest: Option<PathBuf>,
    pub manifest_holes: bool,
    /// The process has no other work: it gives up what this run does not need, for good.
    pub confine: bool,
}

/// The options that would change what an unfinished job makes, each with its canonical text: a
/// resumed run must ask for the same.
#[must_use]
pub fn canonical(options: &Options) -> Vec<(&'static str, String)> {
    vec![
        ("filters", options.filter.canonical()),
        ("one-file-system", options.one_file_system.to_string()),
        ("id-map", options.id_map.canonical()),
    ]
}

/// Everything a `verify` of two trees is asked.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    pub source: PathBuf,
    pub destination: PathBuf,
    /// Where both roots may lie, see [`super::setup::RootPlace`].
    pub within: Vec<PathBuf>,
    /// Send [`super::Event::Compared`] for equal entries too.
    pub items: bool,
    pub filter: Filter,
    pub one_file_system: bool,
    /// Entries that one directory may have.
    pub directory_entries: u64,
    pub id_map: IdMap,
    pub backend: BackendChoice,
    pub jobs: Option<usize>,
    /// Content bytes read of one side.
    pub throttle: Throttle,
    pub manifest: Option<PathBuf>,
    pub manifest_holes: bool,
    /// Leave out the comparison of classes the caller has accepted as lost.
    pub accept_loss: Vec<LossClass>,
    /// As [`Options::confine`].
    pub confine: bool,
}

/// A `verify` of one tree against a manifest.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    pub manifest: PathBuf,
    pub directory: PathBuf,
    pub items: bool,
    pub jobs: Option<usize>,
    /// Content bytes read of one side.
    pub throttle: Throttle,
    /// As [`Options::confine`].
    pub confine: bool,
}
