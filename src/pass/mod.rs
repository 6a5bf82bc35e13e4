//! One pass over a pair of trees: scan → plan → transfer → fidelity → verify.
//!
//! A reader begins at [`session`], which opens a job and runs its passes; then [`state`], which
//! every worker of a pass shares; then the way of an entry: [`scan`] and [`decide`] say what is to
//! be done, [`transfer`] makes it whole in a temporary, [`batch`] makes a thousand of those durable,
//! [`publish`] reads them back and gives them their names, [`relink`] adds the other names of an
//! inode, [`extras`] and [`delete`] find and remove what the source no longer has, and [`workers`] finishes directories.
//! Where an immutable flag at the destination is in the way of one of these, [`lift`] takes it away.

mod again;
mod batch;
mod decide;
mod delete;
mod digests;
mod directory;
mod extras;
mod lift;
mod nursery;
mod options;
mod publish;
mod queue;
mod records;
mod relink;
mod remove;
mod report;
mod row;
mod scan;
mod session;
mod setup;
mod staging;
mod state;
mod transfer;
mod verify;
mod workers;

use std::sync::Arc;

pub use options::{BackendChoice, Extras, JobKind, ManifestOptions, Options, Provision, VerifyLevel, VerifyOptions};
pub use report::{Counter, Event, Observer, Outcome, Progress, Stop, Summary};

use crate::error::Error;

/// Carries out a `migrate` or `sync`.
///
/// # Errors
/// What ends the run before its time; failures of entries are counted in the summary instead.
pub fn run(
    options: &Options,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    session::run(options, observer, progress, stop)
}

/// Compares two trees by content and metadata; writes nothing.
///
/// # Errors
/// As [`run`].
pub fn verify(
    options: &VerifyOptions,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    verify::trees(options, observer, progress, stop)
}

/// Compares a tree with a manifest; writes nothing.
///
/// # Errors
/// As [`run`].
pub fn verify_manifest(
    options: &ManifestOptions,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    verify::manifest(options, observer, progress, stop)
}
