//! `copyd job why`: what happened to one entry, and why, in sentences.
//!
//! The engine's record of the entry says how it stands; the lists of what failed and what was lost say, where they
//! name it, what the system answered. Nothing is claimed that none of them holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Hand;
use super::client::Ask;
use super::create::usage;
use super::path::{self, Query};
use super::show::{FailedEntry, LostEntry};
use super::trouble::Trouble;
use crate::error::{Class, ExitCode};
use crate::escape::escape;
use crate::report::words;
use crate::units::grouped;

/// What the API says of an entry.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    facts: Vec<Fact>,
}

/// The engine's record of an entry. Fields that are missing say nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fact {
    known: bool,
    /// Classes of what failed with it in the last run.
    failed: Vec<String>,
    kind: Option<String>,
    published: bool,
    proved: bool,
    lost: bool,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime_s: i64,
    digest_kind: Option<String>,
    digest: Option<String>,
    target: Option<String>,
}

pub fn run(hand: &Hand, job: Uuid, entry: &OsStr) -> Result<ExitCode, Trouble> {
    let entry = relative(entry)?;
    let query = Query::on(path::of_job(job, "why")).with_bytes("path", Some(&entry)).path();
    let body = hand.client.call(&Ask::get(&query))?;
    if hand.json {
        hand.print_json(&body);
        return Ok(ExitCode::Complete);
    }
    let answer: Answer = hand.read(&body)?;
    let failures: Vec<FailedEntry> = named(hand, job, "failures", |failed: &FailedEntry| failed.name.bytes() == entry)?;
    let losses: Vec<LostEntry> = named(hand, job, "losses", |lost: &LostEntry| lost.name.bytes() == entry)?;
    hand.say(&escape(&entry));
    for sentence in sentences(&answer.facts, &failures, &losses) {
        hand.say(&format!("  {sentence}"));
    }
    Ok(ExitCode::Complete)
}

/// A path from the root of the share. One that was completed with the source's own root can't be told from a
/// relative one, so it is refused.
fn relative(entry: &OsStr) -> Result<Vec<u8>, Trouble> {
    let bytes = entry.as_bytes();
    let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    let wrong = bytes.split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b".."));
    if wrong {
        return Err(usage(format!("PATH {} is no path from the root of the source", escape(entry.as_bytes()))));
    }
    Ok(bytes.to_vec())
}

/// Those of a list that are about the entry. The list is bounded by the daemon, and so is what is read of it.
fn named<T: DeserializeOwned>(
    hand: &Hand,
    job: Uuid,
    list: &str,
    is_it: impl Fn(&T) -> bool,
) -> Result<Vec<T>, Trouble> {
    const PAGES: usize = 20;
    let (mut found, mut marker) = (Vec::new(), None::<String>);
    for _ in 0..PAGES {
        let query = Query::on(path::of_job(job, list)).with("limit", Some("1000")).with("marker", marker.as_deref());
        let mut page: serde_json::Value = hand.read(&hand.client.call(&Ask::get(&query.path()))?)?;
        let rows: Vec<T> = hand.read(&page[list].take().to_string())?;
        found.extend(rows.into_iter().filter(&is_it));
        match page["next"].as_str() {
            Some(next) => marker = Some(next.to_owned()),
            None => break,
        }
    }
    Ok(found)
}

fn sentences(facts: &[Fact], failures: &[FailedEntry], losses: &[LostEntry]) -> Vec<String> {
    let mut out: Vec<String> = facts.iter().flat_map(of_fact).collect();
    if facts.is_empty() {
        out.push("Nothing is known of it.".into());
    }
    for failed in failures {
        let error = failed.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        let what = escape(format!("{}{error}", failed.operation).as_bytes());
        out.push(format!("It failed in the last pass ({}) at the {}: {what}.", failed.class.word(), failed.side));
        out.push(format!("What to do: {}.", failed.class.remedy()));
    }
    for lost in losses {
        let how = if lost.detail.is_empty() { String::new() } else { format!(" ({})", escape(lost.detail.as_bytes())) };
        out.push(format!("The destination can't hold its {}{how}: {}", lost.class.word(), lost.class.description()));
        out.push(format!("What to do: {}", lost.class.remedy()));
    }
    // Classes that the list of failures, which is bounded, does not have.
    for word in facts.iter().flat_map(|fact| &fact.failed) {
        let class: Option<Class> = serde_json::from_value(serde_json::Value::String(word.clone())).ok();
        if failures.iter().all(|failed| failed.class.word() != word) {
            out.push(format!("It failed in the last run: {}.", escape(word.as_bytes())));
            out.extend(class.map(|class| format!("What to do: {}.", class.remedy())));
        }
    }
    out
}

fn of_fact(fact: &Fact) -> Vec<String> {
    if !fact.known {
        return vec![
            "The job has not recorded it: it is not at the source, is left out by a filter, or no pass has come to it \
             yet."
                .into(),
        ];
    }
    let kind = escape(fact.kind.as_deref().unwrap_or("entry").replace('_', " ").as_bytes());
    let names = if fact.links > 1 && kind != "directory" {
        format!(", {} names", grouped(fact.links.into()))
    } else {
        String::new()
    };
    let mut out = vec![format!(
        "At the source it was a {kind} of {}, mode {:04o}, owner {}, group {}{names}, last changed {}.",
        words::size_in_full(fact.size),
        fact.mode & 0o7777,
        fact.uid,
        fact.gid,
        changed(fact.mtime_s),
    )];
    out.extend(fact.target.as_deref().map(|target| format!("It leads to {}.", escape(target.as_bytes()))));
    out.push(match (fact.published, fact.proved) {
        (true, true) => {
            "It stands at the destination under its name, durable, and was proved: read from an unchanged source, and \
             equal when read back."
                .into()
        }
        (true, false) => {
            "It stands at the destination under its name, and is assumed to be equal: its content was not read back."
                .into()
        }
        (false, _) => "It does not stand at the destination yet.".into(),
    });
    if let (Some(kind), Some(digest)) = (&fact.digest_kind, &fact.digest) {
        out.push(format!("Its digest ({}) is {}.", escape(kind.as_bytes()), escape(digest.as_bytes())));
    }
    if fact.lost {
        out.push("Some of its metadata could not be kept.".into());
    }
    out
}

fn changed(mtime_s: i64) -> String {
    match u64::try_from(mtime_s) {
        Ok(seconds) => words::utc(seconds.saturating_mul(1000)),
        Err(_) => format!("{} s before 1970", mtime_s.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(json: &str) -> Vec<Fact> {
        serde_json::from_str::<Answer>(json).unwrap().facts
    }

    #[test]
    fn a_proved_file_is_told_from_an_assumed_and_from_an_unknown_one() {
        let proved = facts(
            r#"{"name":"a","facts":[{"event":"entry","schema":1,"name":"a","known":true,"failed":[],"kind":"file",
                "published":true,"proved":true,"lost":false,"size":2048,"mode":33188,"uid":7,"gid":8,"links":2,
                "mtime_s":0,"mtime_ns":0,"digest_kind":"b3","digest":"ab12","target":null}]}"#,
        );
        let told = sentences(&proved, &[], &[]);
        assert_eq!(
            told[0],
            "At the source it was a file of 2.00 KiB (2,048 bytes), mode 0644, owner 7, group 8, 2 names, last changed \
             1970-01-01 00:00:00 UTC."
        );
        assert!(told[1].contains("was proved"), "{told:?}");
        assert_eq!(told[2], "Its digest (b3) is ab12.");
        let assumed = facts(r#"{"facts":[{"known":true,"published":true,"proved":false}]}"#);
        assert!(sentences(&assumed, &[], &[])[1].contains("is assumed to be equal"));
        let unknown = facts(r#"{"facts":[{"known":false}]}"#);
        assert!(sentences(&unknown, &[], &[])[0].contains("has not recorded it"));
        assert_eq!(sentences(&[], &[], &[]), ["Nothing is known of it."]);
    }

    #[test]
    fn a_failure_is_told_once_with_the_system_s_word_and_the_remedy() {
        let failed: FailedEntry = serde_json::from_str(
            r#"{"name":"a","class":"permission","side":"source","operation":"open","error":"Permission denied\u001b"}"#,
        )
        .unwrap();
        let known = facts(r#"{"facts":[{"known":true,"failed":["permission","hot"]}]}"#);
        let told = sentences(&known, &[failed], &[]).join("\n");
        assert!(told.contains("It failed in the last pass (permission) at the source: open: Permission denied\\#033."));
        assert!(told.contains(Class::Permission.remedy()));
        assert_eq!(told.matches("permission)").count(), 1);
        assert!(told.contains("It failed in the last run: hot.") && told.contains(Class::Hot.remedy()));
    }

    #[test]
    fn a_path_is_one_from_the_root() {
        for (given, path) in [("a/b", "a/b"), ("./a", "a"), ("a/", "a")] {
            assert_eq!(relative(OsStr::new(given)).unwrap(), path.as_bytes());
        }
        for wrong in ["", "/a", "..", "a//b", "a/../b", "."] {
            assert!(relative(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }
}
