//! One pass over a pair of trees: scan → plan → transfer → fidelity → verify.

mod options;
mod report;

pub use options::{BackendChoice, Extras, JobKind, ManifestOptions, Options, Provision, VerifyLevel, VerifyOptions};
pub use report::{Counter, Event, Observer, Outcome, Progress, Stop, Summary};

use crate::error::Error;

/// Carries out a `migrate` or `sync`.
///
/// # Errors
/// What ends the run before its time; failures of entries are counted in the summary instead.
pub fn run(_options: &Options, _observer: &dyn Observer, _progress: &Progress, _stop: &Stop) -> Result<Summary, Error> {
    Err(Error::Internal { what: "under way".into() })
}

/// Compares two trees by content and metadata; writes nothing.
///
/// # Errors
/// As [`run`].
pub fn verify(
    _options: &VerifyOptions,
    _observer: &dyn Observer,
    _progress: &Progress,
    _stop: &Stop,
) -> Result<Summary, Error> {
    Err(Error::Internal { what: "under way".into() })
}

/// Compares a tree with a manifest; writes nothing.
///
/// # Errors
/// As [`run`].
pub fn verify_manifest(
    _options: &ManifestOptions,
    _observer: &dyn Observer,
    _progress: &Progress,
    _stop: &Stop,
) -> Result<Summary, Error> {
    Err(Error::Internal { what: "under way".into() })
}
