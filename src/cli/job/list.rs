//! `copyd job list` and `copyd group list`.

use serde::Deserialize;

use super::Hand;
use super::args::ListArgs;
use super::client::Ask;
use super::path::Query;
use super::show::{GroupView, JobView};
use super::table::table;
use super::trouble::Trouble;
use crate::error::ExitCode;
use crate::escape::escape;
use crate::job::Kind;
use crate::report::words;
use crate::units::grouped;

/// Jobs of one page, at most: what the daemon gives at once.
const PAGE_MAX: u32 = 1000;

#[derive(Debug, Deserialize)]
struct JobList {
    jobs: Vec<JobView>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct GroupList {
    groups: Vec<GroupView>,
    #[serde(default)]
    next: Option<String>,
}

/// `copyd job list`: as many pages as it takes to the limit.
pub fn jobs(hand: &Hand, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let (mut rows, mut marker, mut left) = (Vec::new(), args.marker.clone(), args.limit);
    while left > 0 {
        let page = left.min(PAGE_MAX);
        let body = hand.client.call(&Ask::get(&query(args, page, marker.as_deref())))?;
        let list: JobList = hand.read(&body)?;
        if hand.json {
            hand.print_json(&body);
        }
        left = left.saturating_sub(u32::try_from(list.jobs.len()).unwrap_or(u32::MAX).max(1));
        rows.extend(list.jobs.iter().map(row));
        marker = list.next.filter(|next| Some(next) != marker.as_ref());
        if marker.is_none() {
            break;
        }
    }
    if !rows.is_empty() {
        let headings = ["JOB", "STATE", "KIND", ">PASS", ">DONE", ">FAILED", "AGE", "PROJECT", "SOURCE", "DESTINATION"];
        hand.say(&table(&headings, rows));
    }
    if let Some(marker) = marker.filter(|_| !hand.json) {
        hand.note(&format!("copyd: there are more: --marker {}, or a larger --limit", escape(marker.as_bytes())));
    }
    Ok(ExitCode::Complete)
}

fn query(args: &ListArgs, page: u32, marker: Option<&str>) -> String {
    let mut query = Query::on("/v1/jobs")
        .with("limit", Some(&page.to_string()))
        .with("marker", marker)
        .with("sort", args.sort.as_deref())
        .with("project", args.project.as_deref())
        .with("state", args.state.as_deref())
        .with("kind", args.kind.map(|kind| Kind::from(kind).word()))
        .with("group", args.group.as_deref());
    for label in &args.labels {
        query = query.with("label", Some(label));
    }
    query.path()
}

fn row(view: &JobView) -> Vec<String> {
    let job = &view.job;
    let done = match (&view.progress, job.outcome) {
        (Some(standing), _) => format!("{}%", standing.percent),
        (None, Some(end)) => format!("exit {}", end.exit_code),
        (None, None) => "-".into(),
    };
    vec![
        job.id.to_string(),
        job.state.word().into(),
        job.kind().word().into(),
        job.pass.to_string(),
        done,
        grouped(job.totals.failed.saturating_add(job.totals.hot)),
        words::span(now_ms().saturating_sub(job.created_ms)),
        escape(job.project.as_bytes()),
        escape(job.spec.source.export.as_bytes()),
        escape(job.spec.destination.export.as_bytes()),
    ]
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `copyd group list`.
pub fn groups(hand: &Hand, project: Option<&str>) -> Result<ExitCode, Trouble> {
    let (mut rows, mut marker) = (Vec::new(), None::<String>);
    loop {
        let query = Query::on("/v1/groups").with("limit", Some("1000")).with("marker", marker.as_deref());
        let body = hand.client.call(&Ask::get(&query.with("project", project).path()))?;
        let list: GroupList = hand.read(&body)?;
        if hand.json {
            hand.print_json(&body);
        }
        rows.extend(list.groups.iter().map(|group| {
            vec![
                escape(group.name.as_bytes()),
                escape(group.project.as_bytes()),
                escape(group.state.as_bytes()),
                group.members.len().to_string(),
                words::utc(group.created_ms),
            ]
        }));
        match list.next {
            Some(next) if Some(&next) != marker.as_ref() => marker = Some(next),
            _ => break,
        }
    }
    if !rows.is_empty() {
        hand.say(&table(&["GROUP", "PROJECT", "STATE", ">MEMBERS", "CREATED"], rows));
    }
    Ok(ExitCode::Complete)
}
