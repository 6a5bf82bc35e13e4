//! The report of a job: what was moved, proved, assumed, lost, left hot, failed and deleted, and how long it took.
//!
//! ```text
//! record, events, failures, losses (job, store) ──► gather.rs ──► Report ──┬─► JSON: the API's answer
//!                                                                          └─► page.rs, plot.rs: one HTML page
//! ```
//!
//! Pure: what is known comes in, a report goes out, and nothing is read or asked. The JSON is a contract
//! (`docs/report.md`): a new field does not raise [`SCHEMA`], a changed one does. The page holds everything that it
//! shows, asks no other server for anything, has no script, and no name that a tenant chose ever acts in it.

mod gather;
pub mod history;
mod page;
mod plot;
#[cfg(test)]
pub(crate) mod sample;
pub mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Class, Side};
use crate::fidelity::LossClass;
use crate::job::{Ending, Failure, Forecast, JobSpec, Kind, PassFacts, Series, State, StoredEvent, Verification};

pub use gather::Sources;
pub use page::page;

/// Version of the report's form; a new field does not raise it, a changed one does.
pub const SCHEMA: u32 = 1;

/// What is to be known of a job, for whoever was not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    pub schema: u32,
    /// The version of copyd that made it.
    pub copyd: String,
    /// Milliseconds since 1970, as all times here.
    pub made_ms: u64,
    pub job: About,
    /// In one sentence: how it stands.
    pub verdict: String,
    pub moved: Moved,
    pub proof: Proof,
    /// What the destination can't hold, by class.
    pub lost: Vec<Shortfall>,
    /// What it holds in a coarser or mapped form, by class.
    pub degraded: Vec<Shortfall>,
    /// What no file system lets be set.
    pub unsettable: Vec<Unsettable>,
    /// What failed in the last pass, by cause. Files that were hot are of the class `hot`.
    pub failed: Vec<Cause>,
    /// Names that still changed after the cutover had begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_changing: Vec<String>,
    /// The latest passes, the oldest first.
    pub passes: Vec<PassFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<CutoverReport>,
    /// The last forecast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// What was moved in which stretch of time: `[from_ms, length_ms, bytes, entries]`.
    #[schema(value_type = Vec<[u64; 4]>)]
    pub throughput: Series,
    /// What happened, the oldest first.
    pub history: Vec<StoredEvent>,
    /// Events that are kept and do not stand in `history`, because there are too many.
    pub history_left_out: u64,
}

/// Which job it was, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct About {
    pub id: Uuid,
    pub project: String,
    pub kind: Kind,
    pub state: State,
    pub generation: u64,
    /// As it was asked, without the caller's private data.
    pub spec: JobSpec,
    pub created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_safe_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_consistent_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Ending>,
    /// What ended it, or holds it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What was done at the destination in all passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// Entries at the source, in scope, in the last pass.
    pub entries: u64,
    pub files_copied: u64,
    pub bytes_copied: u64,
    pub deleted: u64,
    pub renamed: u64,
    pub vanished: u64,
    pub ignored: u64,
    /// Time in runs, all together.
    pub run_ms: u64,
    pub runs: u32,
    /// Runs that died and were made again.
    pub runs_died: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// What is known of the bytes at the destination, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// The level asked.
    pub verify: String,
    /// Entries read from an unchanged source, durable, and equal when read back.
    pub proved: u64,
    /// Entries taken as equal by size and times, or copied without read-back.
    pub assumed: u64,
    /// Of those assumed: proved by an earlier run of the job, and by size and times as it left them.
    #[serde(default)]
    pub proved_before: u64,
    pub bytes_verified: u64,
    /// `direct`, `evicted`, `memory`, `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readback: Option<String>,
    /// Over paths and content, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_digest: Option<String>,
    /// Over owners, modes, times and attributes, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_digest: Option<String>,
    /// The last comparison of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Verification>,
}

/// One class of what is not at the destination as it is at the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shortfall {
    pub class: LossClass,
    pub count: u64,
    /// Whether the specification accepts it.
    pub accepted: bool,
    pub description: String,
    pub remedy: String,
    /// A few of them.
    pub examples: Vec<Example>,
}

/// A class that no file system lets be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unsettable {
    pub class: LossClass,
    pub description: String,
}

/// Entries that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    pub class: Class,
    pub count: u64,
    pub remedy: String,
    /// A few of them; the API's list of failures has more.
    pub examples: Vec<Example>,
}

/// One entry, by name. What is no UTF-8 stands in `name_b64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Example {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// What copyd was doing, and what came of it; of a loss, how it shows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Example {
    /// With a path from the root.
    #[must_use]
    pub fn of(name: &[u8], side: Option<Side>, detail: String) -> Self {
        match std::str::from_utf8(name) {
            Ok(text) => Self { name: Some(text.into()), name_b64: None, side, detail },
            Err(_) => Self { name: None, name_b64: Some(STANDARD.encode(name)), side, detail },
        }
    }

    /// The path from the root; empty for the root itself, and for one that is damaged.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        match (&self.name, &self.name_b64) {
            (Some(name), _) => name.clone().into_bytes(),
            (None, Some(coded)) => STANDARD.decode(coded).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }
}

/// The last cutover, and what had been forecast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutoverReport {
    pub began_ms: u64,
    /// From when on clients could use the destination, if it came to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_ms: Option<u64>,
    /// From its beginning until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Cutovers that were begun, this one too.
    pub attempts: u64,
    /// Why earlier ones went back, as far as it is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went_back: Vec<String>,
    /// What had been forecast when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// How the two compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_forecast: Option<Against>,
}

/// What came, against what had been forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// No longer than the median.
    WithinMedian,
    /// No longer than nine of ten would take.
    WithinP90,
    /// Longer than that.
    Longer,
}
