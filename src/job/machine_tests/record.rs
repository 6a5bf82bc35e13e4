//! The record as it is stored: what was written once is read for ever.

use super::*;
use crate::job::{RECORD_SCHEMA, RecordError};

/// A record of schema 1, as the first version wrote it. It is never changed: a later version has to read it.
const SCHEMA_1: &str = include_str!("record-1.json");

#[test]
fn a_record_of_schema_1_is_read_and_says_what_it_said() {
    let job = Job::from_record(1, SCHEMA_1).expect("the record is read");
    assert_eq!((job.state, job.generation, job.kind()), (State::Verifying, 31, Kind::Migrate));
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

#[test]
fn zz_write_fixture() {
    use crate::job::{Failure, JobSpec};
    let text = r#"{"schema":1,"kind":"migrate","source":{"export":"/srv/a","network_namespace":"tenant-7","availability_zone":"az1"},
      "destination":{"export":"file:///srv/b"},"verify":"full","delete":true,"allow_empty_source":true,"max_delete":1000,"trash":"7d",
      "filters":{"rules":["- *.tmp"],"files_from":["a","b/c"]},"one_file_system":true,"id_map":{"users":"1000:2000","groups":"*:100"},
      "provisioning":"thick","backend":"threads","limits":{"bytes_per_s":1000000,"window":"22:00-06:00 Europe/Berlin","file_bytes":1099511627776,"file_allocated_bytes":1099511627776,"directory_entries":1000000},
      "priority":70,"schedule":"every 5m","cutover_deadline_s":3600,"group":"g","project":"p","labels":{"ticket":"42"},"private_data":{"k":"v"},
      "accept_loss":["owner"],"strict":true,"timeout_s":600,"max_passes":5}"#;
    let mut spec = JobSpec::parse(text.as_bytes()).expect("spec");
    let window = spec.limits.window.take();
    let mut rig = Rig::new(spec);
    rig.job.id = uuid::Uuid::parse_str("0199c3a0-7d5e-7c11-9a55-5d1f0a2b3c4d").expect("id");
    let lost = || RunSummary {
        lost: [(crate::fidelity::LossClass::Owner, 3)].into(),
        degraded: [(crate::fidelity::LossClass::TimeGrain, 9)].into(),
        unsettable: vec![crate::fidelity::LossClass::BirthTime],
        metadata_digest: Some("cc".into()),
        ..copied(900)
    };
    rig.begin().die(true).after(5_000).begin().end(600, lost()).end(10, RunSummary { files_copied: 3, ..lost() });
    rig.ok(Command::Verify).begin().end(60, RunSummary { metadata_digest: Some("cc".into()), ..copied(0) });
    rig.give(Input::Group(GroupInput::Cutover)).expect("ready");
    rig.begin().end(5, lost());
    rig.end(5, RunSummary { files_copied: 0, bytes_copied: 0, ..lost() });
    rig.said(RunInput::Summary(Box::new(RunSummary {
        error: Some(crate::job::RunError {
            class: "root".into(),
            message: "m".into(),
            why: vec!["w".into()],
            remedy: "r".into(),
        }),
        changed_names: vec!["x".into()],
        ..lost()
    })));
    let run = rig.job.run.as_mut().expect("run");
    (run.stopping, run.kill_at_ms, run.retry_failed) = (true, Some(1_770_000_900_000), true);
    rig.job.waiting = Some(Waiting::Backoff);
    rig.job.not_before_ms = Some(1_770_000_900_000);
    rig.job.return_to = Some(State::Ready);
    rig.job.retry_failed = true;
    rig.job.attempt = 2;
    rig.job.still_changing = vec!["docs/a\\#012b".into()];
    rig.job.failure = Some(Failure {
        class: "worker".into(),
        message: "m".into(),
        why: vec!["w".into()],
        remedy: "r".into(),
        exit_code: Some(2),
        resumable: true,
    });
    rig.job.outcome = Some(Ending { outcome: Outcome::Failed, exit_code: 2 });
    rig.job.switch_safe_ms = Some(1_770_000_900_000);
    rig.job.last_consistent_ms = Some(1_770_000_900_000);
    rig.job.finished_ms = Some(1_770_000_900_000);
    rig.job.spec.limits.window = window;
    std::fs::write("src/job/machine_tests/record-1.json", serde_json::to_string_pretty(&rig.job).expect("json") + "\n")
        .expect("write");
    eprintln!("generation {}", rig.job.generation);
}
