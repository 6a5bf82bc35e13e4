//! The daemon's memory: jobs, what happened to them, what failed, and what was answered to whom.
//!
//! One [`Control`] writes, from one thread, and every commit is on stable storage before it returns: a transition
//! is written before it is acted on, so that a daemon that is killed at any point goes on from what it had said.
//! Any number of [`Reader`]s look on, each at a snapshot of its own. A second daemon on the same file is refused.
//!
//! The record of a job is kept as the JSON of [`crate::job::Job`], with the number of its form beside it; the
//! columns repeat only what jobs are found by. An event gets its number here, in the transaction that stores
//! it, so the numbers of a job have no gap however the process ends.

mod groups;
mod keys;
mod list;
mod reader;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

pub use groups::{GroupDeleted, GroupMade};
pub use keys::{Idempotency, Keyed};
pub use list::{JobFilter, Marker, MarkerError, Page, Sort, SortKey};
pub use reader::{Reader, Readers, StateCount};
pub use rows::{FailureCount, FailureRow, LossRow};
pub use writer::{Committed, Control, Created, Deleted, Retention, Swept};

use super::database::{Schema, Upgrade};

/// `cpyd`, the mark of a daemon's file.
const SCHEMA: Schema =
    Schema { application: 0x6370_7964, upgrades: &[Upgrade { to: 1, sql: include_str!("daemon-1.sql") }] };

/// The file's name in the daemon's directory.
const FILE: &str = "daemon.sqlite";
