//! What a job is asked to do: the form that the API takes and the record keeps.
//!
//! A caller's text comes in here and nowhere else. What has no meaning is refused with the field's name:
//! unknown fields and values, and fields that the kind has no use for, because a guard that was misspelt or
//! misplaced must not vanish. Whether the caller may touch the paths is not decided here, and nothing is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check;
use crate::fidelity::LossClass;

/// Version of the form; a new field does not raise it, a changed one does.
pub const SCHEMA: u32 = 1;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Passes while the source is in use, then a short cutover, then done.
    Migrate,
    /// The destination is kept a replica, pass after pass, until the job is cancelled.
    Replicate,
    /// Both sides are compared; nothing is written.
    Verify,
    /// The destination is made equal to the source once, and what the source does not have is removed.
    Restore,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Migrate, Self::Replicate, Self::Verify, Self::Restore];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Replicate => "replicate",
            Self::Verify => "verify",
            Self::Restore => "restore",
        }
    }
}

/// How far a copy is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// No hash at all.
    None,
    /// The hash made on the way is kept and trusted.
    Inline,
    /// What is durable at the destination is read back past the cache and compared.
    #[default]
    Readback,
    /// Read-back, and the source is read once more after publishing.
    Full,
}

impl VerifyLevel {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Inline => "inline",
            Self::Readback => "readback",
            Self::Full => "full",
        }
    }
}

/// Who moves the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendChoice {
    /// A short probe of the two file systems decides.
    #[default]
    Auto,
    /// The kernel's ring of operations.
    Uring,
    /// Plain calls on many threads.
    Threads,
}

/// Whether holes stay holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provision {
    /// Holes of the source stay holes.
    #[default]
    Thin,
    /// Every byte is allocated at the destination; no clones.
    Thick,
}

/// What happens once a migration is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cutover {
    /// It waits for the command.
    #[default]
    Wait,
    /// It goes on by itself, again after each refresh until the source holds still.
    Auto,
}

/// A job's specification. Unknown fields and values are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Version of this form.
    #[serde(default = "schema")]
    #[schema(default = 1, minimum = 1, maximum = 1)]
    pub schema: u32,
    pub kind: Kind,
    pub source: Side,
    pub destination: Side,
    /// How far the copy is proved. Not of a `verify`, which compares everything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: VerifyLevel,
    /// Remove what only the destination has. Implied by `restore`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delete: bool,
    /// Leave what only the destination has. Excludes `delete`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_extra: bool,
    /// An empty source is meant, and is no mount that is missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_empty_source: bool,
    /// Where a pass would delete more entries, it deletes none and fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete: Option<u64>,
    /// What is deleted or replaced is kept at the destination for so long: seconds, or as in `7d` or `1h30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "7d")]
    pub trash: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub filters: Filters,
    /// Stop where the device number changes without a mount, too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub one_file_system: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub id_map: Ids,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provisioning: Provision,
    #[serde(default, skip_serializing_if = "is_default")]
    pub backend: BackendChoice,
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Who comes first where jobs wait: higher before lower.
    #[serde(default = "priority")]
    #[schema(default = 50, minimum = 0, maximum = 100)]
    pub priority: u8,
    /// `every` and a duration: of a `replicate` the time from the start of one pass to the next, of a `migrate`
    /// that of the refreshes while it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "every 15m")]
    pub schedule: Option<String>,
    /// Seconds that a replica may lag behind before it is out of sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub rpo_s: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cutover: Cutover,
    /// A cutover that has not come to its end after so many seconds is given up, and the job is ready again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub cutover_deadline_s: Option<u64>,
    /// The consistency group: its members cut over together, and finish or fail together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub group: Option<String>,
    /// Whose job it is.
    #[serde(default = "project")]
    #[schema(default = "default", max_length = 64)]
    pub project: String,
    /// Names and values to find jobs by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The caller's own; it gets them back unchanged. Keys of at most 255 bytes, values of at most 1,023.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub private_data: BTreeMap<String, String>,
    /// Classes of loss with which a job is complete all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_loss: Vec<LossClass>,
    /// Entries that vanish while they are read count as failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict: bool,
    /// Seconds without any progress after which a run is given up, and tried again later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub timeout_s: Option<u64>,
    /// Passes of a `migrate` after which it is ready even though the source still changes much. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_passes: Option<u32>,
}

/// One side of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// A directory of the machine that the daemon runs on: `/absolute/path` or `file:///absolute/path`.
    #[schema(example = "/srv/shares/alpha")]
    pub export: String,
    /// The network namespace in which its server is reached, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<String>,
    /// Where it lies, in the caller's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
}

/// What is in scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// In order, each with its sign: `- *.o`, `+ /keep/`. The first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Only these entries and what is below them, relative to the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_from: Option<Vec<String>>,
}

/// Owners in numbers, as `--usermap` and `--groupmap` take them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1000-1999:5000")]
    pub users: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
}

/// What a job may use, and what an entry may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Content bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 512)]
    pub bytes_per_s: Option<u64>,
    /// The hours of the day in which it runs, several with commas, with a time zone where it is not UTC:
    /// `22:00-06:00 Europe/Berlin`. A cutover that was begun goes on outside of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "22:00-06:00")]
    pub window: Option<String>,
    /// A larger file fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// A file with more bytes allocated at the source fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_allocated_bytes: Option<u64>,
    /// A directory that lists more entries fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub directory_entries: Option<u64>,
}

/// Changes to a job while it lives, as a merge patch (RFC 7396): what is not named stays, `null` removes.
/// Unknown fields, and those that can't be changed, are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// As in the specification; `null` for the kind's own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<String>)]
    pub schedule: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub rpo_s: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<u64>)]
    pub max_delete: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub cutover_deadline_s: Option<Option<u64>>,
    /// Labels to set, and with `null` those to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Entries to set, and with `null` those to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_data: Option<BTreeMap<String, Option<String>>>,
    /// The whole list; it counts from the next run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_loss: Option<Vec<LossClass>>,
}

/// Changes to a job's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsPatch {
    /// Content bytes a second; `null` for no limit. A run that goes on keeps to it at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<u64>, minimum = 512)]
    pub bytes_per_s: Option<Option<u64>>,
    /// As in the specification; `null` for all day.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    #[schema(value_type = Option<String>)]
    pub window: Option<Option<String>>,
}

/// A specification, or a change to one, that can't be: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, thiserror::Error)]
#[error("{}{what}", if .field.is_empty() { String::new() } else { format!("{}: ", .field) })]
pub struct Invalid {
    /// The field's path, `limits.window`; empty where the text as a whole is wrong.
    pub field: String,
    pub what: String,
    pub remedy: String,
}

impl Invalid {
    pub(super) fn new(field: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into(), remedy: remedy.into() }
    }
}

const fn schema() -> u32 {
    SCHEMA
}

const fn priority() -> u8 {
    crate::limits::PRIORITY_DEFAULT
}

fn project() -> String {
    "default".into()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is there was named, be it with `null`.
#[expect(clippy::option_option, reason = "not named, named with null, and named with a value are three things")]
fn named<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl JobSpec {
    /// The least: a kind and both sides.
    #[must_use]
    pub fn new(kind: Kind, source: &str, destination: &str) -> Self {
        let side = |export: &str| Side { export: export.into(), ..Side::default() };
        Self {
            schema: SCHEMA,
            kind,
            source: side(source),
            destination: side(destination),
            verify: VerifyLevel::default(),
            delete: false,
            keep_extra: false,
            allow_empty_source: false,
            max_delete: None,
            trash: None,
            filters: Filters::default(),
            one_file_system: false,
            id_map: Ids::default(),
            provisioning: Provision::default(),
            backend: BackendChoice::default(),
            limits: Limits::default(),
            priority: priority(),
            schedule: None,
            rpo_s: None,
            cutover: Cutover::default(),
            cutover_deadline_s: None,
            group: None,
            project: project(),
            labels: BTreeMap::new(),
            private_data: BTreeMap::new(),
            accept_loss: Vec::new(),
            strict: false,
            timeout_s: None,
            max_passes: None,
        }
    }

    /// Reads and checks a specification.
    ///
    /// # Errors
    /// What is no JSON, has unknown fields or values, or contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let specification: Self = check::read(text)?;
        specification.check()?;
        Ok(specification)
    }

    /// Whether it says something that can be done, as far as that can be told without looking at the trees.
    ///
    /// # Errors
    /// The first field that is to blame.
    pub fn check(&self) -> Result<(), Invalid> {
        check::specification(self)
    }

    /// Whether what only the destination has is removed.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.delete || self.kind == Kind::Restore
    }

    /// This specification with a change. The result is checked as a whole.
    ///
    /// # Errors
    /// The field that is to blame.
    pub fn patched(&self, patch: &JobPatch) -> Result<Self, Invalid> {
        let mut new = self.clone();
        let limits = patch.limits.clone().unwrap_or_default();
        set(&mut new.priority, patch.priority);
        set(&mut new.limits.bytes_per_s, limits.bytes_per_s);
        set(&mut new.limits.window, limits.window);
        set(&mut new.schedule, patch.schedule.clone());
        set(&mut new.rpo_s, patch.rpo_s);
        set(&mut new.max_delete, patch.max_delete);
        set(&mut new.cutover, patch.cutover);
        set(&mut new.cutover_deadline_s, patch.cutover_deadline_s);
        set(&mut new.accept_loss, patch.accept_loss.clone());
        merge(&mut new.labels, patch.labels.as_ref());
        merge(&mut new.private_data, patch.private_data.as_ref());
        new.check()?;
        Ok(new)
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn merge(map: &mut BTreeMap<String, String>, patch: Option<&BTreeMap<String, Option<String>>>) {
    for (key, value) in patch.into_iter().flatten() {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

impl JobPatch {
    /// Reads a change.
    ///
    /// # Errors
    /// What is no JSON, has unknown fields or values, or fields that can't be changed.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        check::read(text)
    }

    /// Whether it concerns nothing but what the caller wrote on the job for itself.
    #[must_use]
    pub fn is_of_names_only(&self) -> bool {
        let names = Self { labels: self.labels.clone(), private_data: self.private_data.clone(), ..Self::default() };
        *self == names
    }
}

impl Side {
    /// The directory.
    ///
    /// # Errors
    /// What is no absolute path of this machine, with the field's name after `side`.
    pub fn path(&self, side: &str) -> Result<PathBuf, Invalid> {
        check::export(&self.export, side)
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
