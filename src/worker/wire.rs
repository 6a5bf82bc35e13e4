//! What a worker and its supervisor say to each other: JSON lines, `{"event": …, "schema": 1, …}`.
//!
//! The one definition of these lines: `--json` prints them as the worker wrote them, and a supervisor reads
//! them back to draw what people see. The field names are a contract, see `docs/cli.md`. A name or path that is
//! not UTF-8 goes into the same field with `_b64` after it. No control byte leaves unescaped: JSON itself asks
//! that only of the first 32, but DEL and the C1 controls act on terminals too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};

use super::names::{DestinationName, Name, SourceName};
use crate::error::{Class, Error, ExitCode, Side};
use crate::escape::{escape, escape_path};
use crate::fidelity::LossClass;
use crate::pass::{Confined, Event, Known, Outcome, Summary, digest};
use crate::store::Proof;
use crate::tree::plan::Action;

/// Version of the lines' form; a new field does not raise it, a changed one does.
pub const SCHEMA: u32 = 1;

type Text<'a> = Cow<'a, str>;

/// One line of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report<'a> {
    Started {
        job: String,
        /// What a supervisor needs to fence the job.
        #[serde(default)]
        epoch: u64,
        kind: Text<'a>,
        resumed: bool,
        #[serde(flatten)]
        source: SourceName,
        #[serde(flatten)]
        destination: DestinationName,
    },
    Confined(Cow<'a, Confined>),
    Backend {
        backend: Text<'a>,
        readback: Text<'a>,
        jobs: usize,
        reason: Text<'a>,
    },
    PassStarted {
        pass: u32,
    },
    Item {
        #[serde(flatten)]
        name: Name,
        kind: Text<'a>,
        action: Text<'a>,
        itemized: String,
    },
    Deleted {
        #[serde(flatten)]
        name: Name,
        kind: Text<'a>,
    },
    Compared {
        #[serde(flatten)]
        name: Name,
        sign: char,
        what: Text<'a>,
    },
    EntryFailed {
        #[serde(flatten)]
        name: Name,
        class: Class,
        side: Side,
        operation: Text<'a>,
        error: Option<String>,
        remedy: Text<'a>,
    },
    /// What the state knows of an entry that was asked for.
    Entry(Box<Inspected>),
    Loss {
        #[serde(flatten)]
        name: Name,
        class: LossClass,
        detail: Text<'a>,
    },
    Ignored {
        #[serde(flatten)]
        name: Name,
        why: Text<'a>,
    },
    Note {
        text: Text<'a>,
    },
    PassEnded {
        pass: u32,
        copied: u64,
        hot: u64,
        failed: u64,
    },
    Progress(Standing),
    Stall(Stall),
    /// A command that this version does not know.
    UnknownCommand {
        command: String,
    },
    Summary(Box<LastWord>),
}

/// What a job's state knows of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    #[serde(flatten)]
    pub name: Name,
    /// False where the job has never recorded it: all else is empty then, but for what failed.
    pub known: bool,
    /// Classes of what failed with it in the last run.
    pub failed: Vec<String>,
    pub kind: Option<String>,
    /// It stands at the destination under its final name, durable.
    pub published: bool,
    /// Read from an unchanged source and read back equal.
    pub proved: bool,
    /// Some of its metadata could not be kept.
    pub lost: bool,
    /// What the source said when it was read: bytes, permission bits, owners, names of the inode.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    /// Modification time at the source.
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// `b3` or `b3-nonzero`, and lower-case hex.
    pub digest_kind: Option<String>,
    pub digest: Option<String>,
    /// Of a symlink, in printable characters.
    pub target: Option<String>,
}

/// Where the run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub pass: u64,
    pub phase: String,
    /// Never less than before, never 100.
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

/// Nothing moves, and who does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// `None` where it can't be told.
    pub side: Option<Side>,
    /// The call that waits, as the kernel names it.
    pub operation: Option<String>,
    pub seconds: u64,
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.side {
            Some(side) => write!(f, "no answer from {side} for {} s", self.seconds)?,
            None => write!(f, "nothing has moved for {} s", self.seconds)?,
        }
        match &self.operation {
            Some(operation) => write!(f, " ({})", escape(operation.as_bytes())),
            None => Ok(()),
        }
    }
}

/// Deletions wanted and allowed, where the limit was exceeded and so none was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverLimit {
    pub wanted: u64,
    pub limit: u64,
}

/// The last line of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastWord {
    /// `None` where the job's identity never came to be known.
    pub job: Option<String>,
    pub kind: String,
    pub dry_run: bool,
    pub outcome: Outcome,
    pub exit_code: u8,
    pub verify: String,
    pub passes: u32,
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
    #[serde(default)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<OverLimit>,
    pub differing: u64,
    pub missing: u64,
    pub extra: u64,
    pub share_digest: Option<String>,
    pub metadata_digest: Option<String>,
    pub backend: String,
    pub readback: String,
    pub elapsed_s: f64,
    /// What ended the run before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// An error that ended a run, in printable characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: String,
    pub message: String,
    /// The causes, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    pub remedy: String,
}

/// What of a run is known before it ends.
#[derive(Clone, Debug)]
pub struct Identity {
    pub job: Option<String>,
    pub kind: String,
    pub dry_run: bool,
    pub verify: String,
    pub backend: String,
    pub readback: String,
}

impl Report<'_> {
    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        line(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no event that this version knows.
    pub fn parse(line: &str) -> Result<Report<'static>, serde_json::Error> {
        serde_json::from_str(line)
    }
}

/// The line, without its end, of an enumeration whose tag is `event`.
pub fn line(event: &impl Serialize) -> String {
    /// `{"event":"`, which serde writes first of a tagged enumeration.
    const OPENING: usize = 10;
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Printable::default());
    if let Err(error) = event.serialize(&mut serializer) {
        // Only a map key that is no string can get here, and every key of an event is one.
        return format!(r#"{{"event":"unprintable","schema":{SCHEMA},"error":"{}"}}"#, error.classify() as u8);
    }
    let word = bytes.iter().skip(OPENING).position(|byte| *byte == b'"').unwrap_or(0);
    let schema = format!(r#","schema":{SCHEMA}"#);
    let at = OPENING + word + 1;
    bytes.splice(at..at, schema.into_bytes());
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl<'a> From<&Event<'a>> for Report<'a> {
    fn from(event: &Event<'a>) -> Self {
        match *event {
            Event::Started { job, epoch, kind, resumed, source, destination } => Self::Started {
                // A verify is no job.
                job: job.to_string(),
                epoch,
                kind: kind.into(),
                resumed,
                source: source.as_os_str().as_bytes().into(),
                destination: destination.as_os_str().as_bytes().into(),
            },
            Event::Confined(confined) => Self::Confined(Cow::Borrowed(confined)),
            Event::Backend { backend, readback, jobs, reason } => {
                Self::Backend { backend: backend.into(), readback: readback.into(), jobs, reason: reason.into() }
            }
            Event::PassStarted { pass } => Self::PassStarted { pass },
            Event::Item(change) => Self::Item {
                name: change.path.as_slice().into(),
                kind: change.kind.word().into(),
                action: action_word(change.action).into(),
                itemized: String::from_utf8_lossy(&change.itemized()).into_owned(),
            },
            Event::Deleted { path, kind } => Self::Deleted { name: path.into(), kind: kind.word().into() },
            Event::Compared { sign, path, what } => Self::Compared { name: path.into(), sign, what: what.into() },
            Event::EntryFailed(error) => Self::EntryFailed {
                name: error.path.as_slice().into(),
                class: error.class,
                side: error.side,
                operation: error.operation.into(),
                error: error.source.as_ref().map(ToString::to_string),
                remedy: error.class.remedy().into(),
            },
            Event::Entry(known) => Self::Entry(Box::new(known.into())),
            Event::Loss { class, path, detail } => Self::Loss { name: path.into(), class, detail: detail.into() },
            Event::Ignored { path, why } => Self::Ignored { name: path.into(), why: why.into() },
            Event::Note(text) => Self::Note { text: text.into() },
            Event::PassEnded { pass, copied, hot, failed } => Self::PassEnded { pass, copied, hot, failed },
        }
    }
}

impl From<&Known<'_>> for Inspected {
    fn from(known: &Known<'_>) -> Self {
        let said = Self { name: known.path.into(), failed: known.failures.to_vec(), ..Self::default() };
        let Some(row) = known.row else { return said };
        let digest = row.facts.digest.and_then(digest);
        Self {
            known: true,
            kind: Some(row.facts.kind.word().into()),
            published: row.facts.published.is_some(),
            proved: row.facts.proof == Proof::Proved,
            lost: row.facts.lost,
            size: row.facts.source.size,
            mode: row.facts.mode,
            uid: row.facts.uid,
            gid: row.facts.gid,
            links: row.facts.nlink,
            mtime_s: row.facts.source.mtime.seconds,
            mtime_ns: row.facts.source.mtime.nanoseconds,
            digest_kind: digest.map(|digest| digest.kind.word().into()),
            digest: digest.map(|digest| digest.hex()),
            target: row.target.map(escape),
            ..said
        }
    }
}

const fn action_word(action: Action) -> &'static str {
    match action {
        Action::Keep => "keep",
        Action::Make { .. } => "make",
        Action::Link { .. } => "link",
        Action::Adjust => "adjust",
        Action::Replace { .. } => "replace",
    }
}

impl From<Summary> for LastWord {
    fn from(s: Summary) -> Self {
        Self {
            job: (!s.job.is_nil()).then(|| s.job.to_string()),
            kind: s.kind.into(),
            dry_run: s.dry_run,
            outcome: s.outcome(),
            exit_code: s.exit as u8,
            verify: s.verify.into(),
            passes: s.passes,
            entries: s.entries,
            files_copied: s.files_copied,
            files_unchanged: s.files_unchanged,
            directories_created: s.directories_created,
            links_made: s.links_made,
            metadata_updated: s.metadata_updated,
            bytes_copied: s.bytes_copied,
            bytes_verified: s.bytes_verified,
            proved: s.proved,
            assumed: s.assumed,
            proved_before: s.proved_before,
            deleted: s.deleted,
            renamed: s.renamed,
            hot: s.hot,
            failed: s.failed,
            vanished: s.vanished,
            ignored: s.ignored,
            lost: s.lost,
            degraded: s.degraded,
            unsettable: s.unsettable,
            over_limit: s.over_limit.map(|(wanted, limit)| OverLimit { wanted, limit }),
            differing: s.differing,
            missing: s.missing,
            extra: s.extra,
            share_digest: s.share_digest,
            metadata_digest: s.metadata_digest,
            backend: s.backend.into(),
            readback: s.readback.into(),
            elapsed_s: seconds(s.elapsed),
            error: None,
        }
    }
}

impl LastWord {
    /// The last word on a run that did not speak it: what its counters tell, and nothing as proved.
    #[must_use]
    pub fn counted(identity: &Identity, standing: &Standing, exit: ExitCode, error: Option<Failure>) -> Self {
        let Identity { job, kind, dry_run, verify, backend, readback } = identity.clone();
        Self {
            job,
            kind,
            dry_run,
            outcome: Outcome::of(exit),
            exit_code: exit as u8,
            verify,
            passes: u32::try_from(standing.pass).unwrap_or(u32::MAX),
            entries: standing.entries_scanned,
            files_copied: standing.files_copied,
            files_unchanged: standing.files_unchanged,
            directories_created: 0,
            links_made: 0,
            metadata_updated: 0,
            bytes_copied: standing.bytes_copied,
            bytes_verified: standing.bytes_verified,
            proved: 0,
            assumed: standing.entries_done.saturating_sub(standing.failed),
            proved_before: 0,
            deleted: standing.deleted,
            renamed: 0,
            hot: 0,
            failed: standing.failed,
            vanished: 0,
            ignored: 0,
            lost: BTreeMap::new(),
            degraded: BTreeMap::new(),
            unsettable: Vec::new(),
            over_limit: None,
            differing: 0,
            missing: 0,
            extra: 0,
            share_digest: None,
            metadata_digest: None,
            backend,
            readback,
            elapsed_s: standing.elapsed_s,
            error,
        }
    }

    /// The exit code; a number that is none of copyd's is a defect.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        ExitCode::of(self.exit_code).unwrap_or(ExitCode::Internal)
    }
}

impl Failure {
    /// The parts of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let first: Option<&(dyn std::error::Error + 'static)> = match error {
            Error::Root { source: Some(source), .. }
            | Error::Output { source, .. }
            | Error::Resources { source, .. } => Some(source),
            Error::State { source: Some(source), .. } => Some(&**source),
            _ => None,
        };
        let why = std::iter::successors(first, |cause| cause.source());
        Self {
            class: class(error).into(),
            message: message(error),
            why: why.map(|cause| escape(cause.to_string().as_bytes())).collect(),
            remedy: error.remedy().into(),
        }
    }
}

/// The word for the kind of error.
const fn class(error: &Error) -> &'static str {
    match error {
        Error::Usage { .. } => "usage",
        Error::Root { .. } => "root",
        Error::Guard { .. } => "guard",
        Error::DeletionLimit { .. } => "deletion_limit",
        Error::State { .. } => "state",
        Error::Output { .. } => "output",
        Error::Timeout { .. } => "timeout",
        Error::Cancelled { .. } => "cancelled",
        Error::Worker { .. } => "worker",
        Error::Resources { .. } => "resources",
        Error::Internal { .. } => "internal",
    }
}

/// What happened and where, in printable characters.
fn message(error: &Error) -> String {
    match error {
        Error::Root { side, path, what, .. } => format!("{side} {}: {what}", escape_path(path)),
        Error::State { path, what, .. } => format!("state directory {}: {what}", escape_path(path)),
        Error::Output { path, what, .. } => format!("{what} {}", escape_path(path)),
        other => escape(other.to_string().as_bytes()),
    }
}

/// Seconds with no more than milliseconds behind the point.
#[must_use]
pub fn seconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// serde's compact form, with DEL and the C1 controls escaped too.
#[derive(Default)]
struct Printable(CompactFormatter);

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            write!(writer, "\\u{:04x}", u32::from(control))?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

/// One line of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Stop at a safe point.
    Cancel,
    /// Another rate from now on, in content bytes a second; null for none.
    Limits {
        // A rate that is left out by mistake must not lift the limit.
        #[serde(deserialize_with = "Option::deserialize")]
        bytes_per_s: Option<u64>,
    },
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
