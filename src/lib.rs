//! copyd: the data plane for share migration and replication.
//!
//! The map of the house. Each layer uses only what stands below it:
//!
//! ```text
//! main          parse, dispatch, exit code
//! cli           one file a command; progress line, itemized changes, JSON lines
//! daemon        `copyd serve` and its spawner: settings, allow-lists, the link, who runs when
//! worker        one job in one process: specification in, events out, commands in; its supervisor
//! api           the job API over HTTP: a handler file a noun, access, problem documents, streams of events
//! report        what a job did, as JSON and as a page
//! pass          scan → plan → transfer → fidelity → verify
//! store         SQLite: a job's identity and the entries it made; the jobs of the daemon
//! job           what a job of the daemon is: specification, record, transitions; pure
//! tree          walk, filter, differences, plan, hard links
//! copy          one file's state machine; blocks, chunks, holes; backends: uring, threads
//! fidelity      capture and apply owner, mode, xattrs, ACLs, times, flags; classes of loss
//! hash          chunk hashing, subtree merge, manifest, share digest
//! throttle      bytes a second
//! observe       every metric in one table
//! sys           every unsafe block; ring, xattrs by name, ioctls
//! limits error units escape   serve all
//! fuzzing       each parser by itself, for the targets in fuzz/ and for nobody else
//! ```

pub mod api;
pub mod cli;
pub mod copy;
pub mod daemon;
pub mod error;
pub mod escape;
pub mod fidelity;
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod job;
pub mod limits;
pub mod observe;
pub mod pass;
pub mod report;
pub mod store;
pub mod sys;
pub mod throttle;
pub mod tree;
pub mod units;
pub mod worker;
