//! The record as it is stored: what was written once is read for ever.

use super::*;
use crate::job::{RECORD_SCHEMA, RecordError};

/// A record of schema 1, as the first version wrote it. It is never changed: a later version has to read it.
const SCHEMA_1: &str = include_str!("record-1.json");

#[test]
fn a_record_of_schema_1_is_read_and_says_what_it_said() {
    let job = Job::from_record(1, SCHEMA_1).expect("the record is read");
    assert_eq!((job.state, job.generation, job.kind()), (State::Verifying, 23, Kind::Migrate));
    let text = serde_json::to_value(&job).expect("JSON");
    let stored: serde_json::Value = serde_json::from_str(SCHEMA_1).expect("JSON");
    assert_eq!(text, stored, "nothing of it is lost, and nothing is added");
}

#[test]
fn a_newer_record_is_refused_and_an_altered_one_is_no_job() {
    assert!(matches!(Job::from_record(RECORD_SCHEMA + 1, SCHEMA_1), Err(RecordError::Newer { found: 2 })));
    assert!(matches!(Job::from_record(1, "{}"), Err(RecordError::Unreadable(_))));
}

#[test]
fn the_passes_that_a_record_keeps_are_the_first_and_the_latest() {
    let mut rig = ready(migrate());
    for _ in 0..limits::PASSES_KEPT + 10 {
        rig.after(15 * 60_000).begin().end(1, copied(1));
    }
    let passes: Vec<u32> = rig.job.passes.iter().map(|facts| facts.pass).collect();
    assert_eq!((passes.len(), passes[0], passes.last()), (limits::PASSES_KEPT, 1, Some(&rig.job.pass)));
    assert!(serde_json::to_string(&rig.job).expect("JSON").len() < 128 << 10);
}

#[test]
fn a_worker_s_last_line_is_read_into_a_summary() {
    let line = r#"{"event":"summary","schema":1,"job":"x","kind":"sync","dry_run":false,"outcome":"partial","exit_code":23,
        "verify":"readback","passes":1,"entries":12,"files_copied":3,"lost":{"owner":2},"degraded":{},"unsettable":["birth_time"],
        "share_digest":null,"backend":"uring","readback":"direct","elapsed_s":1.5,
        "error":{"class":"root","message":"m","remedy":"r"}}"#;
    let summary: RunSummary = serde_json::from_str(line).expect("a summary");
    assert_eq!((summary.exit_code, summary.entries, summary.elapsed_ms()), (23, 12, 1500));
    assert_eq!(summary.lost.len(), 1);
    assert_eq!(summary.error.map(|e| e.remedy), Some("r".into()));
}
