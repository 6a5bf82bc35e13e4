//! What `copyd serve` and its spawner say to each other: one JSON object a line, both ways, over a unix stream.
//!
//! ```text
//! serve   ── start, cancel, end, tell, more ────────────────────────► spawner
//!         ◄─ hello (first) · event* · remark* · refused? · ended (last of a run) ──
//! ```
//!
//! The spawner trusts nothing that comes over it: a line that it can't read ends the link, and every run is held
//! to the allow-lists. `serve` trusts what it hears as far as it shows it: a worker's events are typed again here.
//! The end of the stream says that the other side has gone.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::WIRE_LINE_BYTES_MAX;
use crate::worker::{Command, Report, Specification};

/// Version of these lines; both ends are the same program, so another one is refused.
pub const SCHEMA: u32 = 1;

/// One line to the spawner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Start a worker, if the lists allow what it is to do.
    Start(Box<Start>),
    /// Ask it for a stop at a safe point; by force where it comes to none.
    Cancel { run: Uuid },
    /// End it now.
    End { run: Uuid },
    /// Hand it a command of the worker's own.
    Tell { run: Uuid, line: Command },
    /// It may send so many more lines; of an inspection, which sends none that it may not.
    More { run: Uuid, lines: u64 },
}

/// A run to be started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub run: Uuid,
    pub project: String,
    pub specification: Specification,
    /// A name in `/run/netns`.
    #[serde(default)]
    pub network_namespace: Option<String>,
    /// End the run when nothing moved for so long.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}

/// One line from the spawner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    Hello { hello: Hello },
    Event { run: Uuid, event: Box<Report<'static>> },
    Remark { run: Uuid, remark: String },
    Refused { run: Uuid, refused: Refused },
    Ended { run: Uuid, ended: Ended },
}

/// The spawner's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub schema: u32,
    pub version: String,
    /// It may act on files of all owners.
    pub privileged: bool,
}

/// A run that was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub what: String,
    pub remedy: String,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The allow-lists say no: it will be no again.
    NotAllowed,
    /// No worker would take it.
    Invalid,
    /// Not now.
    Resources,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub exit_code: u8,
    /// Set where the worker gave no summary of its own.
    #[serde(default)]
    pub forced: Option<Forced>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    pub what: String,
    pub remedy: String,
}

/// An event's line with the worker's own words: they are not read and written again on the way.
#[must_use]
pub fn event_line(run: Uuid, line: &str, report: &Report<'_>) -> Vec<u8> {
    // What the worker said that is no event comes as a note, and only the note is surely one line of JSON.
    let text = if matches!(report, Report::Note { .. }) { report.line() } else { line.trim_end().to_owned() };
    format!("{{\"run\":\"{run}\",\"event\":{text}}}\n").into_bytes()
}

/// Writes a line.
///
/// # Errors
/// The other side has gone.
pub fn write(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// Reads a line; none at the end.
///
/// # Errors
/// The stream's own, and `InvalidData` for a line that is none of these.
pub fn read<T: for<'de> Deserialize<'de>>(input: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if Read::take(input, WIRE_LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
    }
    serde_json::from_slice(&line).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::worker::Kind;

    fn there_and_back<T: Serialize + for<'de> Deserialize<'de>>(line: &T) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, line).expect("memory takes all");
        let again: T = read(&mut bytes.as_slice()).expect("a line").expect("one");
        assert_eq!(serde_json::to_value(line).expect("JSON"), serde_json::to_value(&again).expect("JSON"));
        String::from_utf8(bytes).expect("JSON is text")
    }

    #[test]
    fn lines_are_as_they_are_documented_and_can_be_read_back() {
        let run = Uuid::nil();
        let specification = Specification::new(Kind::Sync, Some(Path::new("/a")), Path::new("/b"));
        let start = Start { run, project: "p".into(), specification, network_namespace: None, timeout_s: Some(3) };
        assert!(there_and_back(&Request::Start(Box::new(start))).starts_with("{\"do\":\"start\",\"run\":\"0000"));
        assert_eq!(
            there_and_back(&Request::Cancel { run }),
            "{\"do\":\"cancel\",\"run\":\"00000000-0000-0000-0000-000000000000\"}\n"
        );
        there_and_back(&Request::Tell { run, line: Command::Cancel });
        let refused = Refused { what: "w".into(), remedy: "r".into(), reason: Reason::NotAllowed };
        assert!(there_and_back(&Reply::Refused { run, refused }).contains("\"reason\":\"not_allowed\""));
        there_and_back(&Reply::Ended { run, ended: Ended { exit_code: 20, forced: None } });
        there_and_back(&Reply::Remark { run, remark: "x".into() });
    }

    #[test]
    fn a_workers_line_goes_through_as_it_is_and_what_is_none_becomes_a_note() {
        let run = Uuid::nil();
        let line = "{\"event\":\"pass_started\",\"schema\":1,\"pass\":3,\"new_field\":true}";
        let report = Report::parse(line).expect("an event");
        let sent = event_line(run, line, &report);
        assert!(String::from_utf8_lossy(&sent).contains(line));
        let Some(Reply::Event { event, .. }) = read(&mut sent.as_slice()).expect("a line") else { panic!("no event") };
        assert!(matches!(*event, Report::PassStarted { pass: 3 }));
        // A worker that was taken over can't speak for its spawner.
        let line = "{}}\n{\"run\":\"00000000-0000-0000-0000-000000000000\",\"ended\":{\"exit_code\":0}}";
        let report = Report::Note { text: format!("the worker said: {line}").into() };
        let sent = event_line(run, line, &report);
        assert_eq!(String::from_utf8_lossy(&sent).lines().count(), 1);
        let Some(Reply::Event { event, .. }) = read(&mut sent.as_slice()).expect("a line") else { panic!("no event") };
        assert!(matches!(*event, Report::Note { .. }));
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for line in ["{\"do\":\"stop\"}\n", "{\"do\":\"cancel\",\"run\":\"7\"}\n", "\n", "[]\n", "{\"do\":\"cancel\""] {
            assert!(read::<Request>(&mut line.as_bytes()).is_err(), "{line}");
        }
        assert!(read::<Request>(&mut &b""[..]).expect("the end").is_none());
    }
}
