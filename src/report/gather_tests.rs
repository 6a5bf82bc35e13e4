//! What a report says of a job, and what it does not claim.

use uuid::Uuid;

use super::super::sample::{BEGAN, migration};
use super::*;
use crate::job::{Event, JobSpec};

#[test]
fn failures_are_grouped_by_cause_with_remedy_and_a_count_that_is_whole() {
    let report = migration(b"a/b").report();
    let causes: Vec<_> = report.failed.iter().map(|cause| (cause.class, cause.count, cause.examples.len())).collect();
    assert_eq!(causes, [(Class::Permission, 1204, 1), (Class::Hot, 1, 1)], "and none of the pass before");
    assert_eq!(report.failed[0].remedy, Class::Permission.remedy());
    assert_eq!(report.failed[0].examples[0].detail, "open: Permission denied (os error 13)");
}

#[test]
fn a_cutover_is_held_against_what_had_been_forecast_when_it_began() {
    let report = migration(b"a").report();
    let cutover = report.cutover.unwrap();
    assert_eq!((cutover.attempts, cutover.took_ms), (2, Some(59_000)));
    assert_eq!(cutover.forecast.unwrap().as_of_ms, BEGAN + 7_900_000);
    assert_eq!(cutover.against_forecast, Some(Against::WithinP90));
    assert_eq!(cutover.went_back, ["the source still changes"]);
    assert_eq!(migration(b"a").report().job.spec.private_data.len(), 0, "what is the caller's own is not passed on");
}

#[test]
fn a_longer_cutover_and_one_that_never_came_to_its_end_are_said_to_be_so() {
    let mut sample = migration(b"a");
    sample.job.switch_safe_ms = Some(BEGAN + 7_990_000 + 76_000);
    assert_eq!(sample.report().cutover.unwrap().against_forecast, Some(Against::Longer));
    sample.job.switch_safe_ms = Some(BEGAN + 7_990_000 + 42_000);
    assert_eq!(sample.report().cutover.unwrap().against_forecast, Some(Against::WithinMedian));
    sample.job.switch_safe_ms = None;
    let cutover = sample.report().cutover.unwrap();
    assert_eq!((cutover.took_ms, cutover.against_forecast), (None, None));
}

#[test]
fn the_verdict_claims_no_more_than_the_record_carries() {
    let mut sample = migration(b"a");
    let verdict = sample.report().verdict;
    assert!(verdict.contains("of which 13,055 entries are not proved"), "{verdict}");
    assert!(verdict.contains("1,204 failed") && verdict.contains("812 losses"), "{verdict}");
    (sample.job.totals.assumed, sample.job.totals.failed, sample.job.totals.hot) = (0, 0, 0);
    sample.job.totals.lost.clear();
    assert_eq!(
        sample.report().verdict,
        "Completed: 412,380 entries at the destination, every one of them proved in the last pass."
    );
    (sample.job.totals.assumed, sample.job.totals.proved) = (412_380, 0);
    assert!(sample.report().verdict.contains("none was proved by its content"));
    sample.job.totals.proved_before = 412_000;
    assert!(sample.report().verdict.contains("of which 380 entries are not proved"));
    sample.job.totals.proved_before = 412_380;
    assert!(sample.report().verdict.contains("every one of them proved: in the last pass, or by an earlier one"));

    let fresh = Job::new(Uuid::nil(), JobSpec::new(Kind::Migrate, "/a", "/b"), BEGAN);
    let sources = Sources { job: &fresh, events: &[], failures: &[], failure_counts: &[], losses: &[] };
    let report = Report::of(sources, BEGAN);
    assert!(report.verdict.starts_with("Not ended: queued."), "{}", report.verdict);
    assert!(report.cutover.is_none() && report.failed.is_empty());
}

#[test]
fn a_history_too_long_keeps_its_beginning_and_its_end() {
    let event = |id| StoredEvent { id, job: Uuid::nil(), event: Event { at_ms: id, what: What::Restarted } };
    let events: Vec<_> = (1..=REPORT_EVENTS as u64 + 500).map(event).collect();
    let (kept, left_out) = history(&events);
    assert_eq!((kept.len(), left_out), (REPORT_EVENTS, 500));
    assert_eq!((kept[0].id, kept[REPORT_EVENTS - 1].id), (1, REPORT_EVENTS as u64 + 500));
    assert_eq!(history(&events[..REPORT_EVENTS]).1, 0);
}

#[test]
fn the_json_reads_back_as_the_same_report() {
    let report = migration(b"no \xff text").report();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(text.starts_with(r#"{"schema":1,"#));
    assert_eq!(report.failed[0].examples[0].path(), b"no \xff text");
}

/// Names of fields in a value, with those inside it, but of what others document: the specification and events.
fn fields(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, inner) in map.iter().filter(|(name, _)| !matches!(name.as_str(), "spec" | "history")) {
                into.insert(name.clone());
                fields(inner, into);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|inner| fields(inner, into)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_report_is_documented() {
    let mut names = std::collections::BTreeSet::new();
    fields(&serde_json::to_value(migration(b"no \xff text").report()).unwrap(), &mut names);
    assert!(names.len() > 60, "{}", names.len());
    let missing: Vec<_> =
        names.iter().filter(|name| !include_str!("../../docs/report.md").contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
