//! One pass over a pair of trees: scan → plan → transfer → fidelity → verify.
//!
//! A reader begins at [`session`], which opens a job and runs its passes; then [`state`], which
//! every worker of a pass shares; then the way of an entry: [`scan`] and [`decide`] say what is to
//! be done, [`transfer`] makes it whole in a temporary, [`batch`] makes a thousand of those durable,
//! [`publish`] reads them back and gives them their names, [`relink`] adds the other names of an
//! inode, [`extras`] and [`delete`] find and remove what the source no longer has, and [`workers`] finishes directories.
//! What is deleted or replaced can be kept in the [`trash`]. What a process may do while it does all that is in [`confine`]. Where an immutable flag at the destination is in the way of one of these, [`lift`] takes it away.

mod again;
mod batch;
mod confine;
mod decide;
mod delete;
mod digests;
mod directory;
mod extras;
mod inspect;
mod journal;
mod known;
mod lift;
mod nursery;
mod options;
mod publish;
mod queue;
mod recognise;
mod records;
mod relink;
mod remove;
mod report;
mod retry;
mod row;
mod scan;
mod session;
mod setup;
mod staging;
mod state;
mod transfer;
pub(crate) mod trash;
mod verify;
mod workers;

use std::sync::Arc;

pub use confine::{Confined, Confinement, capabilities_max, confine};
pub use inspect::{InspectOptions, Known, inspect};
pub use options::{
    BackendChoice, Bounds, Extras, JobKind, ManifestOptions, Options, Provision, VerifyLevel, VerifyOptions, canonical,
};
pub use report::{Counter, Event, Observer, Opened, Outcome, Progress, Stop, Summary};
pub use row::digest;
pub use trash::{Entry as TrashEntry, Expired, Fate as RestoreFate, RestoreOptions, Restored};

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

/// Calls `visit` for every entry in the trash of a destination, the newest first.
///
/// # Errors
/// [`Error::Root`] and [`Error::Guard`] for a destination or a trash that can't be used.
pub fn trash_list(destination: &std::path::Path, visit: &mut dyn FnMut(&TrashEntry)) -> Result<(), Error> {
    trash::list(destination, visit)
}

/// Moves entries back from the trash of a destination, and calls `visit` for each.
///
/// # Errors
/// As [`trash_list`].
pub fn trash_restore(options: &RestoreOptions, visit: &mut dyn FnMut(&Restored)) -> Result<(), Error> {
    session::raise_descriptor_limit();
    trash::restore(options, visit)
}

/// Removes from the trash of a destination what is older than `age`, or than its own run was asked to
/// keep it.
///
/// # Errors
/// As [`trash_list`].
pub fn trash_expire(destination: &std::path::Path, age: Option<std::time::Duration>) -> Result<Expired, Error> {
    trash::expire_command(destination, age)
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
