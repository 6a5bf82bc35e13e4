//! What moves a job, and what a transition asks for in return.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::event::Event;
use super::record::{Failure, Job};
use super::spec::{Invalid, JobPatch};
use crate::fidelity::LossClass;

/// What moves a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Command(Command),
    /// From the run that the job believes alive. What an earlier run still says does not belong here.
    Run(RunInput),
    /// From the job's group, for all members together.
    Group(GroupInput),
    /// Time has passed: what was to be woken for is looked at.
    Timer,
}

/// What a job is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Pause,
    Resume,
    Cancel,
    Cutover,
    /// Gives a cutover, or a comparison in between, up.
    Abort,
    RetryFailed,
    Verify,
    Patch(JobPatch),
    /// From the scheduler: there is a place among the runs.
    Start,
    /// The daemon has come up, and no run is under way any more.
    Restarted,
}

/// A command by name, as callers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandName {
    Pause,
    Resume,
    Cancel,
    Cutover,
    Abort,
    RetryFailed,
    Verify,
    Patch,
    Start,
    Restarted,
}

impl CommandName {
    /// Those of a caller.
    pub const CALLERS: [Self; 8] = [
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Cutover,
        Self::Abort,
        Self::RetryFailed,
        Self::Verify,
        Self::Patch,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Cutover => "cutover",
            Self::Abort => "abort",
            Self::RetryFailed => "retry_failed",
            Self::Verify => "verify",
            Self::Patch => "patch",
            Self::Start => "start",
            Self::Restarted => "restarted",
        }
    }
}

impl Command {
    #[must_use]
    pub const fn name(&self) -> CommandName {
        match self {
            Self::Pause => CommandName::Pause,
            Self::Resume => CommandName::Resume,
            Self::Cancel => CommandName::Cancel,
            Self::Cutover => CommandName::Cutover,
            Self::Abort => CommandName::Abort,
            Self::RetryFailed => CommandName::RetryFailed,
            Self::Verify => CommandName::Verify,
            Self::Patch(_) => CommandName::Patch,
            Self::Start => CommandName::Start,
            Self::Restarted => CommandName::Restarted,
        }
    }
}

/// What a group tells its members, see `group.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupInput {
    /// Cut over, and wait for the others before the end.
    Cutover,
    /// All members have come to the barrier.
    Release,
    /// One of them can't: nobody does.
    Abort { reason: String },
}

impl GroupInput {
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Cutover => "its group's cutover",
            Self::Release => "its group's release",
            Self::Abort { .. } => "its group's abort",
        }
    }
}

/// What a run says.
#[derive(Clone, Debug, PartialEq)]
pub enum RunInput {
    /// Both roots are open.
    Started {
        engine_job: Option<Uuid>,
        resumed: bool,
    },
    /// It was probed how blocks are moved.
    Backend {
        backend: String,
        readback: String,
    },
    PassStarted,
    /// Its last word.
    Summary(Box<RunSummary>),
    /// The process is gone; nothing of this run comes after it.
    Ended {
        /// `None` where it was killed by a signal.
        exit_code: Option<u8>,
        forced: Option<Forced>,
        /// It has copied or proved something that a later run need not do again.
        moved: bool,
    },
    /// It was never started.
    Refused {
        what: String,
        remedy: String,
        reason: RefusalReason,
    },
}

/// Why the spawner started no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The lists of what is allowed do not hold it.
    NotAllowed,
    /// The specification makes no sense to it.
    Invalid,
    /// The machine has no more of something; later it may.
    Resources,
}

/// A run that was killed, or died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forced {
    pub what: String,
    pub remedy: String,
}

/// The last word of a run: the worker's `summary`, of which unknown fields are left out, so that its line can be
/// read into this.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSummary {
    pub exit_code: u8,
    pub entries: u64,
    pub files_copied: u64,
    pub files_unchanged: u64,
    pub directories_created: u64,
    pub links_made: u64,
    pub metadata_updated: u64,
    pub bytes_copied: u64,
    pub bytes_verified: u64,
    pub proved: u64,
    pub assumed: u64,
    pub proved_before: u64,
    pub deleted: u64,
    pub renamed: u64,
    pub hot: u64,
    pub failed: u64,
    pub vanished: u64,
    pub ignored: u64,
    pub lost: BTreeMap<LossClass, u64>,
    pub degraded: BTreeMap<LossClass, u64>,
    pub unsettable: Vec<LossClass>,
    pub differing: u64,
    pub missing: u64,
    pub extra: u64,
    pub share_digest: Option<String>,
    pub metadata_digest: Option<String>,
    pub backend: String,
    pub readback: String,
    pub elapsed_s: f64,
    pub error: Option<RunError>,
    /// Names of what was changed or hot, from the run's items, escaped; no field of the worker's line. The
    /// transition keeps [`crate::limits::CHANGED_NAMES_KEPT`] of them.
    pub changed_names: Vec<String>,
}

/// What ended a run before its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunError {
    pub class: String,
    pub message: String,
    pub why: Vec<String>,
    pub remedy: String,
}

impl RunSummary {
    /// Entries that the run made, changed, moved or removed, and those that it could not keep up with.
    #[must_use]
    pub fn changed(&self) -> u64 {
        [
            self.files_copied,
            self.directories_created,
            self.links_made,
            self.metadata_updated,
            self.deleted,
            self.renamed,
            self.hot,
        ]
        .iter()
        .fold(0, |sum, n| sum.saturating_add(*n))
    }

    #[must_use]
    pub(super) fn elapsed_ms(&self) -> u64 {
        let seconds = if self.elapsed_s.is_finite() { self.elapsed_s.max(0.0) } else { 0.0 };
        u64::try_from(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis()).unwrap_or(0)
    }
}

/// What a run is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Copy what has changed.
    #[default]
    Pass,
    /// The same, after which nobody may write to the source.
    CutoverPass,
    /// The same once more, and it must find nothing.
    Confirm,
    /// Compare both sides.
    Verify,
}

/// What run is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Which of the job's runs, from 1.
    pub number: u32,
    pub purpose: Purpose,
    /// Only what an earlier pass left as failed.
    pub retry_failed: bool,
    /// Ask for an event for each change: their names are of interest.
    pub items: bool,
}

/// What a run is told while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunCommand {
    Limits { bytes_per_s: Option<u64> },
}

/// What is to be done once the transition is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    StartRun(RunPlan),
    /// To a safe point.
    StopRun,
    KillRun,
    TellRun(RunCommand),
    /// Feed [`Input::Timer`] then. A later one replaces an earlier one.
    WakeAt(u64),
}

/// A step of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub job: Job,
    pub events: Vec<Event>,
    pub actions: Vec<Action>,
    /// The job is another one than before, and its generation one more. Else there is nothing to store.
    pub changed: bool,
}

/// A command that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    pub what: String,
    pub remedy: String,
    /// The job's state or kind is the reason, and another one would allow it. Else the command itself is wrong.
    pub conflict: bool,
    /// The field of a change that is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let Invalid { field, what, remedy } = invalid;
        Self { what, remedy, conflict: false, field: Some(field) }
    }
}

impl From<&RunError> for Failure {
    fn from(error: &RunError) -> Self {
        Self {
            class: error.class.clone(),
            message: error.message.clone(),
            why: error.why.clone(),
            remedy: error.remedy.clone(),
            exit_code: None,
            resumable: true,
        }
    }
}
