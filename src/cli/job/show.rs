//! `copyd job show` and `copyd group show`: one job or group, for people.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::args::GroupArgs;
use super::client::Ask;
use super::path::Query;
use super::table::table;
use super::trouble::Trouble;
use super::{Hand, group_path, path};
use crate::cli::output::progress_line;
use crate::error::{Class, ExitCode, Side};
use crate::escape::escape;
use crate::fidelity::LossClass;
use crate::job::{self, Job, PassFacts, State, StoredEvent, Waiting};
use crate::report::{history, words};
use crate::units::grouped;
use crate::worker::{Name, Standing};

/// Entries that a page of a list has at most: what the daemon gives at once.
const PAGE: &str = "1000";

/// A job as the API gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct JobView {
    #[serde(flatten)]
    pub job: Job,
    #[serde(default)]
    pub progress: Option<Standing>,
    /// What it can be told now.
    #[serde(default)]
    pub commands: Vec<String>,
}

/// A group as the API gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct GroupView {
    pub name: String,
    pub project: String,
    pub created_ms: u64,
    pub state: String,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub id: Uuid,
    pub state: State,
    pub generation: u64,
}

/// `copyd job show`.
pub fn job(hand: &Hand, id: Uuid) -> Result<ExitCode, Trouble> {
    let body = hand.client.call(&Ask::get(&path::of_job(id, "")))?;
    if hand.json {
        hand.print_json(&body);
        return Ok(ExitCode::Complete);
    }
    let view: JobView = hand.read(&body)?;
    for (name, value) in facts(&view) {
        hand.say(&format!("{name:<16} {value}"));
    }
    if !view.job.passes.is_empty() {
        hand.say(&format!("\n{}", passes(&view.job.passes)));
    }
    Ok(ExitCode::Complete)
}

/// Where a job stands, in a few words.
pub fn standing(view: &JobView) -> String {
    let job = &view.job;
    let state = job.state.word().replace('_', " ");
    let text = match (job.state, &job.failure, &job.forecast) {
        (State::Failed, Some(failure), _) => format!("{state}: {}", escape(failure.message.as_bytes())),
        (State::Ready, _, Some(forecast)) => format!("{state}: {}", history::forecast(forecast)),
        (State::Completed, ..) => match job.outcome {
            Some(end) if end.exit_code != 0 => format!("{state}, exit {}", end.exit_code),
            _ => state,
        },
        _ => state,
    };
    let waits = match (job.waiting, job.not_before_ms) {
        _ if job.state.is_final() || job.run.is_some() => return text,
        (Some(Waiting::Slot), _) => "waits for a free place".into(),
        (Some(Waiting::Window), until) => until_when("waits for its hours", until),
        (Some(Waiting::Schedule), until) => until_when("waits for its next pass", until),
        (Some(Waiting::Backoff), until) => until_when("waits after a run that died", until),
        (Some(Waiting::Barrier), _) => "waits for the others of its group".into(),
        (None, _) => return text,
    };
    format!("{text}; {waits}")
}

fn until_when(what: &str, until: Option<u64>) -> String {
    until.map_or_else(|| what.to_owned(), |at| format!("{what}, not before {}", words::utc(at)))
}

/// All that is worth a line, in order.
fn facts(view: &JobView) -> Vec<(&'static str, String)> {
    let job = &view.job;
    let mut facts = about(view);
    let mut fact = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    fact(
        "progress",
        view.progress.as_ref().map(|standing| progress_line(standing, None, false).trim_start().to_owned()),
    );
    let t = &job.totals;
    if job.pass > 0 || t.entries > 0 {
        fact(
            "entries",
            Some(format!(
                "{}: {} proved by the last pass, {} by earlier ones, {} assumed",
                grouped(t.entries),
                grouped(t.proved),
                grouped(t.proved_before),
                grouped(t.assumed.saturating_sub(t.proved_before))
            )),
        );
        fact(
            "copied",
            Some(format!("{}, {}", words::many(t.files_copied, "file", "files"), words::size_in_full(t.bytes_copied))),
        );
        fact("failed", Some(format!("{}, {} hot", grouped(t.failed), grouped(t.hot))));
        fact("deleted", (t.deleted > 0).then(|| grouped(t.deleted)));
        fact("lost", classes(&t.lost));
        fact("degraded", classes(&t.degraded));
    }
    fact("compared", job.verification.as_ref().map(|found| history::sentence(&job::What::Verified(found.clone()))));
    fact("share digest", t.share_digest.as_deref().map(|hex| escape(hex.as_bytes())));
    fact("switch safe", job.switch_safe_ms.map(words::utc));
    fact("consistent as of", job.last_consistent_ms.map(words::utc));
    fact("still changing", (!job.still_changing.is_empty()).then(|| names(&job.still_changing)));
    if let Some(failure) = &job.failure {
        fact("why", (!failure.why.is_empty()).then(|| escape(failure.why.join(": ").as_bytes())));
        fact("help", Some(escape(failure.remedy.as_bytes())));
    }
    fact("can be told", (!view.commands.is_empty()).then(|| commands(&view.commands)));
    facts
}

/// Which job it is and where it stands.
fn about(view: &JobView) -> Vec<(&'static str, String)> {
    let job = &view.job;
    let mut facts = vec![
        ("job", job.id.to_string()),
        ("kind", job.kind().word().to_owned()),
        ("project", escape(job.project.as_bytes())),
        ("state", standing(view)),
        ("generation", job.generation.to_string()),
        ("source", escape(job.spec.source.export.as_bytes())),
        ("destination", escape(job.spec.destination.export.as_bytes())),
        ("created", words::utc(job.created_ms)),
    ];
    facts.extend(job.spec.group.as_deref().map(|group| ("group", escape(group.as_bytes()))));
    facts.extend(job.finished_ms.map(|at| ("finished", words::utc(at))));
    if !job.spec.labels.is_empty() {
        let label = |(key, value): (&String, &String)| format!("{key}={value}");
        let labels: Vec<String> = job.spec.labels.iter().map(label).collect();
        facts.push(("labels", escape(labels.join(", ").as_bytes())));
    }
    facts
}

fn classes(counts: &BTreeMap<LossClass, u64>) -> Option<String> {
    let words: Vec<String> = counts.iter().map(|(class, n)| format!("{} {}", grouped(*n), class.word())).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn names(list: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = list.iter().take(SHOWN).map(|name| escape(name.as_bytes())).collect();
    let more = list.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// As verbs of `copyd job`: a change is `set`.
fn commands(list: &[String]) -> String {
    let verb = |word: &String| if word == "patch" { "set".into() } else { escape(word.replace('_', "-").as_bytes()) };
    list.iter().map(verb).collect::<Vec<_>>().join(", ")
}

fn passes(passes: &[PassFacts]) -> String {
    let row = |pass: &PassFacts| {
        let what = match pass.purpose {
            job::Purpose::Pass => "pass",
            job::Purpose::CutoverPass => "cutover",
            job::Purpose::Confirm => "confirm",
            job::Purpose::Verify => "verify",
        };
        vec![
            pass.pass.to_string(),
            what.into(),
            words::utc(pass.started_ms),
            words::span(pass.elapsed_ms),
            grouped(pass.entries),
            grouped(pass.changed_entries),
            words::size(pass.bytes_copied),
            words::rate(pass.bytes_copied, pass.elapsed_ms),
            grouped(pass.hot),
            grouped(pass.failed),
        ]
    };
    let headings = [">PASS", "WHAT", "BEGAN", ">TOOK", ">ENTRIES", ">CHANGED", ">WRITTEN", ">RATE", ">HOT", ">FAILED"];
    table(&headings, passes.iter().map(row))
}

/// `copyd job show --events`.
pub fn events(hand: &Hand, id: Uuid) -> Result<ExitCode, Trouble> {
    #[derive(Deserialize)]
    struct List {
        events: Vec<StoredEvent>,
        next: Option<String>,
    }
    pages(hand, id, "events", |list: List| {
        for stored in &list.events {
            hand.say(&event_line(stored));
        }
        list.next
    })
}

/// One event as a line, with no control byte in it.
pub fn event_line(stored: &StoredEvent) -> String {
    let event = &stored.event;
    format!("{}  {}", words::utc(event.at_ms), escape(history::sentence(&event.what).as_bytes()))
}

/// An entry that failed, as the API gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct FailedEntry {
    #[serde(flatten)]
    pub name: Name,
    pub class: Class,
    pub side: Side,
    pub operation: String,
    #[serde(default)]
    pub error: Option<String>,
}

/// An example of a loss, as the API gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct LostEntry {
    #[serde(flatten)]
    pub name: Name,
    pub class: LossClass,
    #[serde(default)]
    pub detail: String,
}

/// `copyd job show --failures`: in the form that a run prints, and at the end each class with its remedy.
pub fn failures(hand: &Hand, id: Uuid) -> Result<ExitCode, Trouble> {
    #[derive(Deserialize)]
    struct Count {
        class: Class,
        entries: u64,
    }
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        counts: Vec<Count>,
        failures: Vec<FailedEntry>,
        next: Option<String>,
    }
    pages(hand, id, "failures", |list: List| {
        for failed in &list.failures {
            let error = failed.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
            let how = escape(format!("{}{error}", failed.operation).as_bytes());
            hand.say(&format!("{}: {} {}: {how}", failed.class.word(), failed.side, shown(&failed.name)));
        }
        if list.next.is_none() {
            for Count { class, entries } in &list.counts {
                hand.note(&format!("copyd: {} {}: {}", grouped(*entries), class.word(), class.remedy()));
            }
        }
        list.next
    })
}

/// `copyd job show --losses`.
pub fn losses(hand: &Hand, id: Uuid) -> Result<ExitCode, Trouble> {
    #[derive(Deserialize)]
    struct List {
        losses: Vec<LostEntry>,
        next: Option<String>,
    }
    pages(hand, id, "losses", |list: List| {
        for lost in &list.losses {
            let how =
                if lost.detail.is_empty() { String::new() } else { format!(" ({})", escape(lost.detail.as_bytes())) };
            hand.say(&format!("{}: {}{how}", lost.class.word(), shown(&lost.name)));
        }
        list.next
    })
}

/// A path from the root; the root itself is `.`.
pub fn shown(name: &Name) -> String {
    let bytes = name.bytes();
    if bytes.is_empty() { ".".into() } else { escape(&bytes) }
}

/// Reads a list page by page. `print` gives the marker of the next one.
fn pages<T: serde::de::DeserializeOwned>(
    hand: &Hand,
    id: Uuid,
    what: &str,
    mut print: impl FnMut(T) -> Option<String>,
) -> Result<ExitCode, Trouble> {
    let mut marker: Option<String> = None;
    loop {
        let path = Query::on(path::of_job(id, what)).with("limit", Some(PAGE)).with("marker", marker.as_deref()).path();
        let body = hand.client.call(&Ask::get(&path))?;
        if hand.json {
            hand.print_json(&body);
        }
        match print(hand.read(&body)?) {
            // A daemon that gives the same marker again would be asked forever.
            Some(next) if Some(&next) != marker.as_ref() => marker = Some(next),
            _ => return Ok(ExitCode::Complete),
        }
    }
}

/// `copyd group show`.
pub fn group(hand: &Hand, args: &GroupArgs) -> Result<ExitCode, Trouble> {
    let body = hand.client.call(&Ask::get(&group_path(args, "")))?;
    print_group(hand, &body)
}

/// Prints a group that the daemon answered with.
pub fn print_group(hand: &Hand, body: &str) -> Result<ExitCode, Trouble> {
    if hand.json {
        hand.print_json(body);
        return Ok(ExitCode::Complete);
    }
    let group: GroupView = hand.read(body)?;
    hand.say(&format!(
        "group {} of project {}: {}, {}",
        escape(group.name.as_bytes()),
        escape(group.project.as_bytes()),
        escape(group.state.replace('_', " ").as_bytes()),
        words::many(group.members.len() as u64, "member", "members"),
    ));
    if !group.members.is_empty() {
        let row =
            |member: &Member| vec![member.id.to_string(), member.state.word().into(), member.generation.to_string()];
        hand.say(&table(&["JOB", "STATE", ">GENERATION"], group.members.iter().map(row)));
    }
    Ok(ExitCode::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::migration;

    fn view(job: Job) -> JobView {
        JobView { job, progress: None, commands: vec!["retry_failed".into(), "patch".into()] }
    }

    #[test]
    fn a_job_reads_back_from_the_api_s_form_with_its_progress() {
        let job = migration(b"a").job;
        let mut json = serde_json::to_value(&job).unwrap();
        json["progress"] = serde_json::to_value(Standing { percent: 7, ..Standing::default() }).unwrap();
        json["commands"] = serde_json::json!(["pause", "cancel"]);
        let read: JobView = serde_json::from_value(json).unwrap();
        assert_eq!(read.job, job);
        assert_eq!((read.progress.unwrap().percent, read.commands.len()), (7, 2));
    }

    #[test]
    fn every_fact_is_one_line_without_control_bytes() {
        let mut sample = migration(b"x\x1b[2J\n");
        sample.job.failure = Some(job::Failure {
            class: "guard".into(),
            message: "no \x07".into(),
            why: vec!["a\nb".into()],
            remedy: "c\rd".into(),
            exit_code: None,
            resumable: true,
        });
        sample.job.state = State::Failed;
        let all = facts(&view(sample.job));
        assert!(all.iter().all(|(_, value)| value.chars().all(|c| !c.is_control())), "{all:?}");
        let of = |name| all.iter().find(|(fact, _)| *fact == name).map(|(_, value)| value.as_str());
        assert_eq!(of("state"), Some("failed: no \\#007"));
        assert_eq!(of("lost"), Some("812 owner"));
        assert_eq!(of("help"), Some("c\\#015d"));
        assert_eq!(of("can be told"), Some("retry-failed, set"));
        assert_eq!(of("labels"), Some("ticket=x\\#033[2J\\#012"));
    }

    #[test]
    fn where_a_job_stands_says_what_it_waits_for_and_what_a_cutover_would_take() {
        let mut job = migration(b"a").job;
        assert_eq!(standing(&view(job.clone())), "completed, exit 23");
        (job.state, job.outcome, job.waiting) = (State::Ready, None, Some(Waiting::Schedule));
        job.not_before_ms = Some(0);
        assert_eq!(
            standing(&view(job.clone())),
            "ready: a cutover would take 42 s, nine of ten at most 1 min 15 s; waits for its next pass, not before \
             1970-01-01 00:00:00 UTC"
        );
        (job.state, job.waiting, job.not_before_ms) = (State::Queued, Some(Waiting::Slot), None);
        assert_eq!(standing(&view(job)), "queued; waits for a free place");
    }
}
