//! What is known of a job: the record that is stored at each transition, and that the API shows.
//!
//! Only [`super::step`] makes a record from another one. Everything that a daemon needs to go on after a restart
//! stands in it, and what a worker said a moment ago does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::input::{Purpose, RunSummary};
use super::series::{Series, Span};
use super::spec::{JobSpec, Kind};
use crate::fidelity::LossClass;
use crate::limits;

/// Version of the record's form: a changed one raises it, a new field with a default does not.
pub const RECORD_SCHEMA: u32 = 1;

/// Where a job stands. Which kind goes through which is drawn in the head of `machine.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for its first run.
    Queued,
    /// A worker starts and opens both roots.
    Mounting,
    /// The worker tries what both sides can do.
    Probing,
    /// The first pass: everything is copied.
    Baseline,
    /// Further passes: what has changed meanwhile is copied.
    Incremental,
    /// It waits for the command to cut over, and is refreshed from time to time.
    Ready,
    /// The last pass and its confirmation. Nobody may write to the source.
    Cutover,
    /// What was copied is compared.
    Verifying,
    /// Done.
    Completed,
    /// Stopped at a safe point until it is resumed.
    Paused,
    /// It is to end; its run has not ended yet.
    Cancelling,
    /// Ended before its time, as was asked.
    Cancelled,
    /// It can't go on by itself; `failure` says why and what to do.
    Failed,
    /// The replica is consistent, and no older than asked.
    InSync,
    /// A pass of a replica.
    Syncing,
    /// The last pass of a replica did not end well, or is longer ago than the RPO allows.
    OutOfSync,
}

impl State {
    pub const ALL: [Self; 16] = [
        Self::Queued,
        Self::Mounting,
        Self::Probing,
        Self::Baseline,
        Self::Incremental,
        Self::Ready,
        Self::Cutover,
        Self::Verifying,
        Self::Completed,
        Self::Paused,
        Self::Cancelling,
        Self::Cancelled,
        Self::Failed,
        Self::InSync,
        Self::Syncing,
        Self::OutOfSync,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Mounting => "mounting",
            Self::Probing => "probing",
            Self::Baseline => "baseline",
            Self::Incremental => "incremental",
            Self::Ready => "ready",
            Self::Cutover => "cutover",
            Self::Verifying => "verifying",
            Self::Completed => "completed",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::InSync => "in_sync",
            Self::Syncing => "syncing",
            Self::OutOfSync => "out_of_sync",
        }
    }

    /// It goes on by no other means than a command.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }
}

/// What a job without a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// A free place among the runs. It would start now.
    Slot,
    /// The hours of the day in which it may run.
    Window,
    /// The time of its next pass.
    Schedule,
    /// The other members of its group.
    Barrier,
    /// Some time after a run that died.
    Backoff,
}

/// A run that was started and has not ended, as far as is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActiveRun {
    /// Which of the job's runs, from 1.
    pub number: u32,
    pub purpose: Purpose,
    /// Only what an earlier pass left as failed.
    #[serde(default)]
    pub retry_failed: bool,
    pub started_ms: u64,
    /// It was told to come to a safe point.
    #[serde(default)]
    pub stopping: bool,
    /// When it is killed if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_at_ms: Option<u64>,
    /// Its last word, where it has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub summary: Option<Box<RunSummary>>,
}

/// What one pass found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassFacts {
    /// Which of the job's passes, from 1.
    pub pass: u32,
    pub purpose: Purpose,
    /// Only what an earlier pass left as failed.
    #[serde(default)]
    pub retry_failed: bool,
    pub started_ms: u64,
    pub elapsed_ms: u64,
    /// Entries at the source, in scope.
    pub entries: u64,
    /// Entries that the pass made, changed, moved or removed at the destination.
    pub changed_entries: u64,
    pub files_copied: u64,
    pub bytes_copied: u64,
    pub bytes_verified: u64,
    pub deleted: u64,
    /// Files that changed whenever they were read.
    pub hot: u64,
    pub failed: u64,
    pub exit_code: u8,
}

/// How long a cutover would take if it began now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    pub as_of_ms: u64,
    /// Seconds from the command until clients may use the destination; as often less as more.
    pub median_s: u64,
    /// Seconds that nine of ten cutovers would keep to.
    pub p90_s: u64,
    /// Entries that will have changed since the last pass.
    pub changed_entries: u64,
    /// Content bytes that will have.
    pub changed_bytes: u64,
    pub basis: ForecastBasis,
}

/// What a forecast rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForecastBasis {
    /// The first pass alone: how much changes is not known, and its own duration is the bound.
    FirstPass,
    /// A single pass after the first: the change rate was measured once.
    OnePass,
    /// Several passes.
    Passes,
}

/// A cutover under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutoverFacts {
    pub since_ms: u64,
    /// When it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The group was told to cut over, and all members end together.
    #[serde(default)]
    pub by_group: bool,
    /// This pass and its confirmation agree; for a member of a group, the others may not have come so far.
    #[serde(default)]
    pub confirmed: bool,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    pub verified_ms: u64,
    pub equal: bool,
    /// Entries that were compared.
    pub entries: u64,
    pub differing: u64,
    pub missing: u64,
    pub extra: u64,
    /// Entries that could not be compared.
    pub failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_digest: Option<String>,
}

/// What was done in all passes, and how the share stands after the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Totals {
    /// Entries at the source, in scope, in the last pass.
    pub entries: u64,
    pub files_copied: u64,
    pub bytes_copied: u64,
    pub bytes_verified: u64,
    pub deleted: u64,
    pub renamed: u64,
    /// Entries that were read from an unchanged source, are durable, and read back equal.
    pub proved: u64,
    /// Entries that were taken as equal by size and times, or copied without read-back.
    pub assumed: u64,
    /// Of those assumed: proved by an earlier run of the job, and by size and times as it left them.
    pub proved_before: u64,
    /// Entries that failed in the last pass.
    pub failed: u64,
    /// Files that changed whenever they were read, in the last pass.
    pub hot: u64,
    pub vanished: u64,
    pub ignored: u64,
    /// What the destination can't hold: a count for each class.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub lost: BTreeMap<LossClass, u64>,
    /// What it holds in a coarser or mapped form.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub degraded: BTreeMap<LossClass, u64>,
    /// What no file system lets be set.
    pub unsettable: Vec<LossClass>,
    /// Over paths and content, in hex.
    pub share_digest: Option<String>,
    /// Over owners, modes, times and attributes, in hex.
    pub metadata_digest: Option<String>,
    /// Who moved the blocks.
    pub backend: Option<String>,
    /// How the destination was read back.
    pub readback: Option<String>,
    /// Time in runs, all together.
    pub run_ms: u64,
    /// Runs that were started.
    pub runs: u32,
    /// Runs that died or were killed without being asked to end.
    pub runs_died: u32,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The kind of error, in a word of the worker's.
    pub class: String,
    pub message: String,
    /// The causes, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    pub remedy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Whether `resume` goes on once the cause is gone.
    pub resumable: bool,
}

/// How a job ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    Failed,
    Cancelled,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ending {
    pub outcome: Outcome,
    /// As of the command line.
    pub exit_code: u8,
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// A UUID of version 7: jobs sort by the time they were made.
    pub id: Uuid,
    pub project: String,
    /// As it was asked, with all changes since.
    pub spec: JobSpec,
    pub state: State,
    /// One more with each change of this record; what `If-Match` compares.
    pub generation: u64,
    /// Of a job that is paused, or failed and can be resumed, or compared in between: where it goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to: Option<State>,
    /// The last pass that was begun, from 1; 0 before the first.
    #[serde(default)]
    pub pass: u32,
    /// Runs in a row that died without having moved anything.
    #[serde(default)]
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Until when it waits, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
    /// The run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<ActiveRun>,
    /// The next pass looks only at what failed before.
    #[serde(default)]
    pub retry_failed: bool,
    /// The worker's own number of the job, by which its state directory knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_job: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<CutoverFacts>,
    /// The latest passes, the newest last.
    #[serde(default)]
    pub passes: Vec<PassFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    #[serde(default)]
    pub totals: Totals,
    /// The last comparison of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Ending>,
    /// From when on clients may use the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_safe_ms: Option<u64>,
    /// The destination holds the source as it was at this time or later: the start of the last good pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_consistent_ms: Option<u64>,
    /// Names that changed after a cutover had begun, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_changing: Vec<String>,
    /// How fast it moved: `[from_ms, length_ms, bytes, entries]` of at most 120 stretches of time, over all runs.
    #[serde(default, skip_serializing_if = "Series::is_empty")]
    pub throughput: Series,
    pub created_ms: u64,
    /// When its first run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    pub updated_ms: u64,
    /// When it came to a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
}

/// A stored record that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record's form is {found}, this copyd knows up to {RECORD_SCHEMA}")]
    Newer { found: u32 },
    #[error("the record is no job: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Job {
    /// Reads a stored record of any form that there ever was.
    ///
    /// # Errors
    /// It is of a newer form, or was altered.
    pub fn from_record(schema: u32, text: &str) -> Result<Self, RecordError> {
        match schema {
            RECORD_SCHEMA => Ok(serde_json::from_str(text)?),
            found => Err(RecordError::Newer { found }),
        }
    }

    /// A new job, which waits for its first run. The specification was checked.
    #[must_use]
    pub fn new(id: Uuid, spec: JobSpec, now_ms: u64) -> Self {
        Self {
            id,
            project: spec.project.clone(),
            spec,
            state: State::Queued,
            generation: 1,
            return_to: None,
            pass: 0,
            attempt: 0,
            waiting: Some(Waiting::Slot),
            not_before_ms: None,
            run: None,
            retry_failed: false,
            engine_job: None,
            cutover: None,
            passes: Vec::new(),
            forecast: None,
            totals: Totals::default(),
            verification: None,
            failure: None,
            outcome: None,
            switch_safe_ms: None,
            last_consistent_ms: None,
            still_changing: Vec::new(),
            throughput: Series::default(),
            created_ms: now_ms,
            started_ms: None,
            updated_ms: now_ms,
            finished_ms: None,
        }
    }

    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// Whether it would start a run at once if it were given a place among the runs.
    #[must_use]
    pub fn wants_slot(&self) -> bool {
        self.waiting == Some(Waiting::Slot) && self.run.is_none()
    }

    /// Who comes first among the jobs that want a slot: the greatest. A cutover holds its clients up, so it
    /// comes before every priority; among equals the one that has waited longest.
    #[must_use]
    pub fn urgency(&self) -> (bool, u8, std::cmp::Reverse<(u64, Uuid)>) {
        let cutting_over = self.cutover.is_some() && matches!(self.state, State::Cutover | State::Verifying);
        (cutting_over, self.spec.priority, std::cmp::Reverse((self.updated_ms, self.id)))
    }

    /// Milliseconds that the destination is behind the source, at least.
    #[must_use]
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        self.last_consistent_ms.map(|since| now_ms.saturating_sub(since))
    }

    /// Adds to the plot what was moved. Whoever hears a run does so in its copy of the record; it is stored with
    /// the next transition, since no decision rests on it.
    pub fn keep_span(&mut self, span: Span) {
        self.throughput.push(span);
    }

    pub(super) fn keep_pass(&mut self, facts: PassFacts) {
        self.passes.push(facts);
        let surplus = self.passes.len().saturating_sub(limits::PASSES_KEPT);
        // The first pass says how fast everything was copied, which no later one tells.
        if surplus > 0 {
            self.passes.drain(1..=surplus);
        }
    }
}
