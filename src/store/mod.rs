//! What copyd remembers between runs: jobs, and of each job the entries it made.
//!
//! [`StateDir`] is the place, [`Store`] the list of jobs in it, [`Job`] one of them under its lock,
//! [`Catalog`] the rows of its share. Everything lies in `SQLite` files that an operator can open with
//! `sqlite3` (views `jobs`, `failed`, `hot`, `tree`). They belong on a local file system: write-ahead
//! logs need shared memory between processes.

mod catalog;
pub mod control;
mod database;
mod fence;
pub(crate) mod fuzzing;
mod growing;
mod identity;
mod jobs;
mod lock;
mod order;
mod paged;
mod reader;
mod row;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use catalog::{Catalog, Digests};
pub use growing::{Growing, Grown, GrownChunk};
pub use identity::RootIdentity;
pub use jobs::{Job, JobState, Opened, Store};
pub use order::Visit;
pub use paged::Paged;
pub use reader::{CatalogReader, DirectoryRows, Snapshot};
pub use row::{
    ContentDigest, DirectoryId, Facts, Fingerprint, LinkGroup, Proof, Published, ROOT_DIRECTORY, ROOT_PARENT, Row,
    RowRef,
};
pub use state::StateDir;
pub use writer::{Batch, Deletion, Failure, Writer};
