//! What happened to a job: what its callers read, and what is kept when the job is over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::input::{CommandName, Forced, Purpose};
use super::record::{Failure, Forecast, PassFacts, State, Verification};
use super::spec::{JobPatch, Kind};
use crate::error::{Class, Side};
use crate::fidelity::LossClass;

/// Something that happened, before it has its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

/// An event as it is kept and sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoredEvent {
    /// From 1 for each job, without a gap.
    pub id: u64,
    pub job: Uuid,
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The job was taken on.
    Created {
        kind: Kind,
    },
    /// A caller's command was taken.
    Command {
        command: CommandName,
    },
    StateChanged {
        from: State,
        to: State,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A worker was asked for.
    RunStarted {
        number: u32,
        purpose: Purpose,
    },
    /// How blocks are moved and read back.
    Backend {
        backend: String,
        readback: String,
    },
    PassEnded(PassFacts),
    RunEnded {
        number: u32,
        purpose: Purpose,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
        /// It was killed, or died.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forced: Option<Forced>,
    },
    /// The run is tried again at that time.
    RetryPlanned {
        attempt: u32,
        at_most: u32,
        not_before_ms: u64,
    },
    /// Nothing moves, and who does not answer.
    Stall {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        side: Option<Side>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operation: Option<String>,
        seconds: u64,
    },
    /// It moves again.
    StallOver {
        seconds: u64,
    },
    /// An example of what the destination can't hold.
    Loss {
        class: LossClass,
        name: String,
        detail: String,
    },
    /// Entries of one class that failed in a pass; their names are in the list of failures.
    EntryFailed {
        class: Class,
        count: u64,
        remedy: String,
    },
    /// Something that a person should know.
    Note {
        text: String,
    },
    /// What a cutover would take.
    Forecast(Forecast),
    /// The source changed after the cutover had begun: these names, and more where they are too many.
    SourceChanges {
        names: Vec<String>,
        entries: u64,
    },
    /// Both sides were compared.
    Verified(Verification),
    /// From now on clients may use the destination.
    SwitchSafe,
    /// The replica is older than asked.
    RpoExceeded {
        lag_s: u64,
        rpo_s: u64,
    },
    /// The job can't go on by itself.
    Failed(Failure),
    /// The specification was changed.
    LimitsChanged {
        patch: JobPatch,
    },
    /// The daemon was started again, and goes on with the job.
    Restarted,
}

impl What {
    /// The word in `type`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Command { .. } => "command",
            Self::StateChanged { .. } => "state_changed",
            Self::RunStarted { .. } => "run_started",
            Self::Backend { .. } => "backend",
            Self::PassEnded(_) => "pass_ended",
            Self::RunEnded { .. } => "run_ended",
            Self::RetryPlanned { .. } => "retry_planned",
            Self::Stall { .. } => "stall",
            Self::StallOver { .. } => "stall_over",
            Self::Loss { .. } => "loss",
            Self::EntryFailed { .. } => "entry_failed",
            Self::Note { .. } => "note",
            Self::Forecast(_) => "forecast",
            Self::SourceChanges { .. } => "source_changes",
            Self::Verified(_) => "verified",
            Self::SwitchSafe => "switch_safe",
            Self::RpoExceeded { .. } => "rpo_exceeded",
            Self::Failed(_) => "failed",
            Self::LimitsChanged { .. } => "limits_changed",
            Self::Restarted => "restarted",
        }
    }
}
