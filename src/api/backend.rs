//! What the API asks of the daemon, as one trait.
//!
//! The API holds no job and decides nothing about one: it says who calls, checks what a request
//! looks like, and hands it on. Whoever writes jobs implements [`Backend`]; tests do it with the
//! same store and a state machine without workers. Reads go past it: a handler opens one of the
//! [`Readers`] and reads in a blocking task, so a slow disk holds up that request and no other.
//!
//! What holds for every implementation:
//! - A request that is answered with `Ok` is durable. With an [`Idempotency`] the answer is kept in
//!   the same transaction, so a caller that never saw it gets it again, and nothing happens twice.
//! - What is published was stored before, and a job's stored events are published in the order of
//!   their ids. A subscriber that was too slow may miss some: it reads them from the store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::job;
use crate::store::control::{Idempotency, Readers};

/// An answer that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Denied>> + Send + 'a>>;

/// The daemon, as the API sees it.
pub trait Backend: Send + Sync + 'static {
    /// Where readers of the store come from.
    fn readers(&self) -> Readers;

    /// Makes a job. The specification has passed `JobSpec::check`, and `allowed` said yes.
    fn create(&self, request: CreateJob) -> Later<'_, Answered<job::Job>>;

    /// Gives a job a command (a PATCH is one). The answer is the job as the command left it.
    fn command(&self, request: CommandJob) -> Later<'_, Answered<job::Job>>;

    /// Removes the record of a job that has reached a final state, with its events.
    fn delete(&self, id: Uuid, if_match: Option<u64>, caller: Caller) -> Later<'_, ()>;

    /// Makes a group without members; a job joins it by naming it. One that is there already is given
    /// back as `replayed`, so the request can be repeated without a key.
    fn group_create(&self, request: CreateGroup) -> Later<'_, Answered<job::Group>>;

    /// Gives every member of a group the same command: all of them, or none.
    fn group_command(&self, request: CommandGroup) -> Later<'_, Answered<job::Group>>;

    /// Removes a group that has no member any more.
    fn group_delete(&self, project: String, name: String, caller: Caller) -> Later<'_, ()>;

    /// The last progress of a job that runs. Never waits.
    fn live(&self, id: Uuid) -> Option<Progress>;

    /// Everything that is published from now on, of all jobs.
    fn subscribe(&self) -> broadcast::Receiver<Arc<Published>>;

    /// Asks the engine's record of a job: what happened to one entry (`path`, bytes from the root), or
    /// the whole manifest. Each item is one JSON object without a line end; an `Err` is the last item.
    fn inspect(&self, id: Uuid, inspection: Inspection) -> Later<'_, mpsc::Receiver<Result<String, Denied>>>;

    /// Whether the lists of what this daemon may touch allow the specification, which may not have been
    /// checked yet. The spawner holds the same lists and has the last word; this only refuses early.
    ///
    /// # Errors
    /// [`Denied::Forbidden`], with what is not allowed.
    fn allowed(&self, spec: &job::JobSpec) -> Result<(), Denied>;

    /// The workers that run now.
    fn workers(&self) -> Vec<WorkerInfo>;

    /// Whether jobs can be taken and run at this moment. Answers within milliseconds, from what is
    /// known, and asks nobody.
    fn readiness(&self) -> Readiness;
}

/// Who calls, and what that caller may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// As the access rules name it: `token:backup`, `cn:manila`, `uid:1000`.
    pub name: String,
    pub role: Role,
    pub projects: Projects,
}

/// What a caller may do, each including the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See jobs of its projects.
    Read,
    /// Make and steer them.
    Operate,
    /// Remove their records, and see the daemon's own state.
    Admin,
}

impl Role {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// The projects in which a caller may do anything at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Projects {
    All,
    Named(Vec<String>),
}

impl Projects {
    /// `*` stands for all.
    #[must_use]
    pub fn of(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") { Self::All } else { Self::Named(names.to_vec()) }
    }

    #[must_use]
    pub fn has(&self, project: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == project),
        }
    }
}

/// What a mutating request gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered<T> {
    pub value: T,
    /// The answer was given before, and nothing was done now.
    pub replayed: bool,
}

#[derive(Clone, Debug)]
pub struct CreateJob {
    pub spec: job::JobSpec,
    pub idempotency: Option<Idempotency>,
    pub caller: Caller,
}

#[derive(Clone, Debug)]
pub struct CommandJob {
    pub id: Uuid,
    pub command: job::Command,
    /// Only if the job's generation is this one.
    pub if_match: Option<u64>,
    pub idempotency: Option<Idempotency>,
    pub caller: Caller,
}

#[derive(Clone, Debug)]
pub struct CreateGroup {
    pub project: String,
    pub name: String,
    pub caller: Caller,
}

#[derive(Clone, Debug)]
pub struct CommandGroup {
    pub project: String,
    pub name: String,
    pub command: job::Command,
    pub idempotency: Option<Idempotency>,
    pub caller: Caller,
}

/// What is asked of the engine's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    Why { path: Vec<u8> },
    Manifest,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("there is no such {what}")]
    NotFound { what: &'static str },
    /// The job, as it stands, has no use for it.
    #[error("{what}")]
    Conflict { what: String, remedy: String },
    /// `If-Match` named a generation that has passed.
    #[error("the generation is {generation}")]
    Precondition { generation: u64 },
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    #[error("{what}")]
    Forbidden { what: String, remedy: String },
    #[error("{what}")]
    Invalid { field: Option<String>, what: String, remedy: String },
    /// Not now: the store, the spawner or the queue does not take it.
    #[error("{what}")]
    Unavailable { what: String, remedy: String },
    /// A defect of copyd.
    #[error("internal error: {what}")]
    Internal { what: String },
}

/// What subscribers hear.
#[derive(Clone, Debug)]
pub struct Published {
    pub job: Uuid,
    pub what: News,
}

#[derive(Clone, Debug)]
pub enum News {
    /// Stored before it was published.
    Event(job::StoredEvent),
    /// Live only: neither stored nor numbered.
    Progress(Progress),
    /// The job's record is gone.
    Deleted,
}

/// Where a run stands: the worker's own `progress`, field for field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub pass: u64,
    /// What it is doing, in a word.
    pub phase: String,
    /// Never less than before, never 100.
    #[schema(maximum = 99)]
    pub percent: u8,
    pub entries_scanned: u64,
    pub entries_done: u64,
    pub scan_complete: bool,
    pub bytes_planned: u64,
    pub bytes_done: u64,
    pub bytes_copied: u64,
    pub bytes_verified: u64,
    pub files_copied: u64,
    pub files_unchanged: u64,
    pub deleted: u64,
    pub failed: u64,
    pub bytes_per_s: u64,
    pub left_s: Option<u64>,
    pub elapsed_s: f64,
    /// Seconds for which nothing at all has moved.
    pub still_s: u64,
}

/// One worker that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerInfo {
    pub job: Uuid,
    pub project: String,
    /// `pass`, `cutover_pass`, `confirm`, `verify`, `inspect`.
    pub purpose: String,
    pub started_ms: u64,
    /// When its last line came.
    pub heard_ms: u64,
}

/// Whether jobs can be taken and run; `Err` says why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub store: Result<(), String>,
    pub spawner: Result<(), String>,
    /// Jobs that run, and that wait for their turn.
    pub running: u64,
    pub queued: u64,
}
