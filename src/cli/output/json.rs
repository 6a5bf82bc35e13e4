//! Events and the summary as JSON lines: `{"event": …, "schema": 1, …}`.
//!
//! The field names are a contract, see `docs/cli.md`. A name or path that is not UTF-8 goes into
//! the same field with `_b64` after it. No control byte leaves unescaped: JSON itself asks that
//! only of the first 32, but DEL and the C1 controls act on terminals too.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::progress::Reading;
use crate::error::{Error, Side};
use crate::fidelity::LossClass;
use crate::pass::{Event, Outcome, Summary};
use crate::sys::Kind;
use crate::tree::plan::Action;

/// Version of the lines' form; a new field does not raise it, a changed one does.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Line<T> {
    event: &'static str,
    schema: u32,
    #[serde(flatten)]
    body: T,
}

/// A name as `name`, or as `name_b64` where it is not UTF-8.
#[derive(Serialize)]
struct Name<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
}

impl<'a> Name<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (name, name_b64) = text_or_base64(bytes);
        Self { name, name_b64 }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(base64::engine::general_purpose::STANDARD.encode(bytes))),
    }
}

#[derive(Serialize)]
struct Started<'a> {
    job: String,
    kind: &'static str,
    resumed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_b64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Started(Started<'a>),
    Backend {
        backend: &'static str,
        readback: &'static str,
        jobs: usize,
        reason: &'a str,
    },
    PassStarted {
        pass: u32,
    },
    Item {
        #[serde(flatten)]
        name: Name<'a>,
        kind: &'static str,
        action: &'static str,
        itemized: String,
    },
    Deleted {
        #[serde(flatten)]
        name: Name<'a>,
        kind: &'static str,
    },
    Compared {
        #[serde(flatten)]
        name: Name<'a>,
        sign: char,
        what: &'a str,
    },
    Failed {
        #[serde(flatten)]
        name: Name<'a>,
        class: &'static str,
        side: Side,
        operation: &'static str,
        error: Option<String>,
        remedy: &'static str,
    },
    Loss {
        #[serde(flatten)]
        name: Name<'a>,
        class: &'static str,
        detail: &'a str,
    },
    Ignored {
        #[serde(flatten)]
        name: Name<'a>,
        why: &'static str,
    },
    Note {
        text: &'static str,
    },
    PassEnded {
        pass: u32,
        copied: u64,
        hot: u64,
        failed: u64,
    },
}

/// The line of an event.
pub fn event(event: &Event<'_>) -> String {
    let (word, body) = match *event {
        Event::Started { job, kind, resumed, source, destination } => {
            ("started", started(job, kind, resumed, source, destination))
        }
        Event::Backend { backend, readback, jobs, reason } => {
            ("backend", Body::Backend { backend, readback, jobs, reason })
        }
        Event::PassStarted { pass } => ("pass_started", Body::PassStarted { pass }),
        Event::Item(change) => {
            let itemized = String::from_utf8_lossy(&change.itemized()).into_owned();
            let (kind, action) = (change.kind.word(), action_word(change.action));
            ("item", Body::Item { name: Name::of(&change.path), kind, action, itemized })
        }
        Event::Deleted { path, kind } => ("deleted", Body::Deleted { name: Name::of(path), kind: Kind::word(kind) }),
        Event::Compared { sign, path, what } => ("compared", Body::Compared { name: Name::of(path), sign, what }),
        Event::EntryFailed(error) => ("entry_failed", failed(error)),
        Event::Loss { class, path, detail } => {
            ("loss", Body::Loss { name: Name::of(path), class: class.word(), detail })
        }
        Event::Ignored { path, why } => ("ignored", Body::Ignored { name: Name::of(path), why }),
        Event::Note(text) => ("note", Body::Note { text }),
        Event::PassEnded { pass, copied, hot, failed } => ("pass_ended", Body::PassEnded { pass, copied, hot, failed }),
    };
    render(&Line { event: word, schema: SCHEMA, body })
}

fn started<'a>(
    job: uuid::Uuid,
    kind: &'static str,
    resumed: bool,
    source: &'a Path,
    destination: &'a Path,
) -> Body<'a> {
    let (source, source_b64) = text_or_base64(source.as_os_str().as_bytes());
    let (destination, destination_b64) = text_or_base64(destination.as_os_str().as_bytes());
    Body::Started(Started { job: job.to_string(), kind, resumed, source, source_b64, destination, destination_b64 })
}

fn failed(error: &crate::error::EntryError) -> Body<'_> {
    Body::Failed {
        name: Name::of(&error.path),
        class: error.class.word(),
        side: error.side,
        operation: error.operation,
        error: error.source.as_ref().map(ToString::to_string),
        remedy: error.class.remedy(),
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

/// The line that says where the run stands.
pub fn progress(reading: &Reading) -> String {
    #[derive(Serialize)]
    struct Body {
        pass: u64,
        phase: &'static str,
        percent: u8,
        entries_scanned: u64,
        entries_done: u64,
        scan_complete: bool,
        bytes_planned: u64,
        bytes_done: u64,
        bytes_copied: u64,
        bytes_verified: u64,
        files_copied: u64,
        failed: u64,
        bytes_per_s: u64,
        left_s: Option<u64>,
        elapsed_s: f64,
    }
    let s = &reading.snapshot;
    let body = Body {
        pass: s.pass,
        phase: s.phase(),
        percent: reading.percent,
        entries_scanned: s.entries_scanned,
        entries_done: s.entries_done,
        scan_complete: s.scan_complete,
        bytes_planned: s.bytes_planned,
        bytes_done: s.bytes_done,
        bytes_copied: s.bytes_copied,
        bytes_verified: s.bytes_verified,
        files_copied: s.files_copied,
        failed: s.failed,
        bytes_per_s: reading.bytes_per_second(),
        left_s: reading.left.map(|left| left.as_secs()),
        elapsed_s: milliseconds(reading.elapsed),
    };
    render(&Line { event: "progress", schema: SCHEMA, body })
}

#[derive(Serialize)]
struct SummaryBody<'a> {
    job: Option<String>,
    kind: &'a str,
    dry_run: bool,
    outcome: Outcome,
    exit_code: u8,
    verify: &'a str,
    passes: u32,
    entries: u64,
    files_copied: u64,
    files_unchanged: u64,
    directories_created: u64,
    links_made: u64,
    metadata_updated: u64,
    bytes_copied: u64,
    bytes_verified: u64,
    proved: u64,
    assumed: u64,
    deleted: u64,
    renamed: u64,
    hot: u64,
    failed: u64,
    vanished: u64,
    ignored: u64,
    lost: BTreeMap<&'static str, u64>,
    degraded: BTreeMap<&'static str, u64>,
    unsettable: Vec<&'static str>,
    differing: u64,
    missing: u64,
    extra: u64,
    share_digest: Option<&'a str>,
    metadata_digest: Option<&'a str>,
    backend: &'a str,
    readback: &'a str,
    elapsed_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

#[derive(Serialize)]
struct ErrorBody {
    class: &'static str,
    message: String,
    remedy: &'static str,
}

/// The last line. `error` is what ended the run before its time. A job whose identity never came
/// to be known has the nil id in `summary`, and `null` in the line.
pub fn summary(summary: &Summary, error: Option<&Error>) -> String {
    let counts =
        |map: &BTreeMap<LossClass, u64>| map.iter().map(|(class, n)| (class.word(), *n)).collect::<BTreeMap<_, _>>();
    let body = SummaryBody {
        job: (!summary.job.is_nil()).then(|| summary.job.to_string()),
        kind: summary.kind,
        dry_run: summary.dry_run,
        outcome: summary.outcome(),
        exit_code: summary.exit as u8,
        verify: summary.verify,
        passes: summary.passes,
        entries: summary.entries,
        files_copied: summary.files_copied,
        files_unchanged: summary.files_unchanged,
        directories_created: summary.directories_created,
        links_made: summary.links_made,
        metadata_updated: summary.metadata_updated,
        bytes_copied: summary.bytes_copied,
        bytes_verified: summary.bytes_verified,
        proved: summary.proved,
        assumed: summary.assumed,
        deleted: summary.deleted,
        renamed: summary.renamed,
        hot: summary.hot,
        failed: summary.failed,
        vanished: summary.vanished,
        ignored: summary.ignored,
        lost: counts(&summary.lost),
        degraded: counts(&summary.degraded),
        unsettable: summary.unsettable.iter().map(|class| class.word()).collect(),
        differing: summary.differing,
        missing: summary.missing,
        extra: summary.extra,
        share_digest: summary.share_digest.as_deref(),
        metadata_digest: summary.metadata_digest.as_deref(),
        backend: summary.backend,
        readback: summary.readback,
        elapsed_s: milliseconds(summary.elapsed),
        error: error.map(|e| ErrorBody {
            class: super::edge::class(e),
            message: super::edge::message(e),
            remedy: e.remedy(),
        }),
    };
    render(&Line { event: "summary", schema: SCHEMA, body })
}

/// Seconds with no more than milliseconds behind the point.
fn milliseconds(time: std::time::Duration) -> f64 {
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

fn render<T: Serialize>(line: &Line<T>) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Printable::default());
    if let Err(error) = line.serialize(&mut serializer) {
        // Only a map key that is no string can get here, and every key above is one.
        return format!(r#"{{"event":"{}","schema":{SCHEMA},"unprintable":"{}"}}"#, line.event, error.classify() as u8);
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::error::{Class, EntryError};
    use crate::tree::plan::{Change, Differences};

    fn parse(line: &str) -> Value {
        assert!(!line.contains('\n'));
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn every_line_begins_with_the_event_and_the_schema() {
        let line = event(&Event::PassStarted { pass: 3 });
        assert_eq!(line, r#"{"event":"pass_started","schema":1,"pass":3}"#);
    }

    #[test]
    fn a_name_that_is_not_utf8_is_name_b64() {
        let value = parse(&event(&Event::Deleted { path: b"a/\xff", kind: Kind::File }));
        assert_eq!(value["name_b64"], "YS//");
        assert!(value.get("name").is_none());
        let value = parse(&event(&Event::Deleted { path: b"a/b", kind: Kind::Directory }));
        assert_eq!(value["name"], "a/b");
        assert!(value.get("name_b64").is_none());
    }

    #[test]
    fn no_control_byte_leaves_raw_and_the_name_comes_back_whole() {
        let name = "esc\x1b nl\n del\x7f csi\u{9b}2J quote\" back\\ ü";
        let value = parse(&event(&Event::Compared { sign: '*', path: name.as_bytes(), what: "content" }));
        assert_eq!(value["name"], name);
        assert_eq!(value["sign"], "*");
    }

    #[test]
    fn a_failure_carries_class_side_cause_and_remedy() {
        let error = EntryError::io(Side::Source, "open", b"x".to_vec(), io::Error::from_raw_os_error(libc::EACCES));
        let value = parse(&event(&Event::EntryFailed(&error)));
        assert_eq!(value["event"], "entry_failed");
        assert_eq!(value["class"], "permission");
        assert_eq!(value["side"], "source");
        assert_eq!(value["remedy"], Class::Permission.remedy());
        assert!(value["error"].as_str().unwrap().contains("Permission denied"));
    }

    #[test]
    fn an_item_carries_rsyncs_eleven_characters() {
        let change = Change {
            path: b"d/f".to_vec(),
            kind: Kind::File,
            action: Action::Make { exists: false },
            differences: Differences::default(),
        };
        let value = parse(&event(&Event::Item(&change)));
        assert_eq!(value["itemized"], ">f+++++++++");
        assert_eq!(value["action"], "make");
        assert_eq!(value["kind"], "file");
    }

    #[test]
    fn the_summary_holds_every_field_of_the_contract() {
        let value = parse(&summary(&super::super::tests::summary(), None));
        for field in [
            "job",
            "outcome",
            "exit_code",
            "verify",
            "passes",
            "entries",
            "files_copied",
            "files_unchanged",
            "bytes_copied",
            "bytes_verified",
            "proved",
            "assumed",
            "deleted",
            "renamed",
            "hot",
            "failed",
            "ignored",
            "lost",
            "degraded",
            "share_digest",
            "metadata_digest",
            "backend",
            "readback",
            "elapsed_s",
            "kind",
            "dry_run",
            "unsettable",
            "vanished",
            "differing",
            "missing",
            "extra",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert_eq!(value["event"], "summary");
        assert_eq!(value["outcome"], "completed");
        assert!(value.get("error").is_none());
    }

    #[test]
    fn a_run_that_a_guard_refused_says_so_in_its_summary() {
        let error = Error::Guard { what: "the source is empty".into(), remedy: "mount it" };
        let mut refused = super::super::tests::summary();
        refused.exit = error.exit_code();
        refused.job = uuid::Uuid::nil();
        let value = parse(&summary(&refused, Some(&error)));
        assert_eq!(value["outcome"], "refused");
        assert_eq!(value["exit_code"], 43);
        assert_eq!(value["job"], Value::Null);
        assert_eq!(value["error"]["class"], "guard");
        assert_eq!(value["error"]["message"], "the source is empty");
        assert_eq!(value["error"]["remedy"], "mount it");
    }
}
