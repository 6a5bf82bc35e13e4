//! Every field of a job's specification reaches the worker, and what a worker says is told once.

use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::job::JobSpec;
use crate::throttle::Throttle;
use crate::worker::Name;

fn job(kind: job::Kind) -> Job {
    Job::new(Uuid::from_u128(1), JobSpec::new(kind, "/srv/a", "file:///srv/b"), 0)
}

fn plan(purpose: Purpose) -> RunPlan {
    RunPlan { number: 1, purpose, retry_failed: false, items: false }
}

#[test]
fn every_kind_and_purpose_gives_a_specification_that_a_worker_takes() {
    for kind in job::Kind::ALL {
        for purpose in [Purpose::Pass, Purpose::CutoverPass, Purpose::Confirm, Purpose::Verify] {
            for retry_failed in [false, true] {
                let mut job = job(kind);
                job.spec.delete = kind == job::Kind::Replicate;
                job.spec.verify = job::VerifyLevel::Full;
                job.spec.provisioning = job::Provision::Thick;
                job.spec.strict = true;
                job.spec.trash = Some("7d".into());
                job.spec.max_delete = Some(3);
                job.spec.limits.file_bytes = Some(5);
                let plan = RunPlan { retry_failed, items: true, ..plan(purpose) };
                let made = specification(&job, &plan).expect("both sides are paths");
                made.work(&Throttle::new(None)).unwrap_or_else(|e| panic!("{kind:?} {purpose:?}: {e}"));
                let compares = purpose == Purpose::Verify || kind == job::Kind::Verify;
                let expected = match kind {
                    _ if compares => Kind::Verify,
                    job::Kind::Migrate => Kind::Migrate,
                    _ => Kind::Sync,
                };
                assert_eq!(made.kind, expected);
                assert_eq!(made.destination, crate::worker::End::from(Path::new("/srv/b")));
                assert_eq!(
                    made.delete,
                    matches!(kind, job::Kind::Replicate | job::Kind::Restore) && !retry_failed && !compares
                );
            }
        }
    }
}

#[test]
fn a_job_of_two_passes_is_two_runs_of_one_pass() {
    let made = specification(&job(job::Kind::Migrate), &plan(Purpose::Pass)).expect("paths");
    assert_eq!(made.max_passes, Some(1));
}

#[test]
fn what_fails_is_listed_by_name_and_told_by_class() {
    let mut ears = Ears::new(Purpose::Pass);
    for n in 0..3u8 {
        let heard = ears.hear(
            Report::EntryFailed {
                name: Name::from([b'a', n, 0xff].as_slice()),
                class: if n == 0 { Class::Hot } else { Class::Permission },
                side: crate::error::Side::Source,
                operation: "open".into(),
                error: None,
                remedy: "r".into(),
            },
            4,
        );
        assert!(heard.events.is_empty() && heard.inputs.is_empty());
    }
    assert_eq!(ears.failures.iter().map(|row| (row.pass, row.path.len())).collect::<Vec<_>>(), [(4, 3); 3]);
    let word = LastWord::counted(
        &crate::worker::Identity::of("migrate", "readback", false),
        &Standing::default(),
        crate::error::ExitCode::SomeFailed,
        None,
    );
    let heard = ears.hear(Report::Summary(Box::new(word)), 4);
    let told: Vec<_> = heard
        .events
        .iter()
        .map(|what| match what {
            What::EntryFailed { class, count, .. } => (*class, *count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(Class::Hot, 1), (Class::Permission, 2)]);
    let [RunInput::Summary(summary)] = heard.inputs.as_slice() else { panic!("{:?}", heard.inputs) };
    assert_eq!((summary.exit_code, summary.changed_names.len()), (23, 1));
}

#[test]
fn a_stall_is_told_once_and_so_is_its_end() {
    let mut ears = Ears::new(Purpose::Pass);
    let stall = |seconds| Report::Stall(crate::worker::Stall { side: None, operation: None, seconds });
    let stands = |still_s| Report::Progress(Standing { still_s, ..Standing::default() });
    let mut told = Vec::new();
    for report in [stall(2), stands(2), stall(5), stall(6), stands(7), stall(8), stands(0), stands(0)] {
        told.extend(ears.hear(report, 1).events);
    }
    assert_eq!(told, [What::Stall { side: None, operation: None, seconds: 5 }, What::StallOver { seconds: 8 },]);
}

#[test]
fn a_run_that_has_copied_something_has_moved_and_a_comparison_never_has() {
    for (purpose, expected) in [(Purpose::Pass, true), (Purpose::Verify, false)] {
        let mut ears = Ears::new(purpose);
        assert!(!ears.moved());
        ears.hear(Report::Progress(Standing { bytes_verified: 1, ..Standing::default() }), 1);
        assert_eq!(ears.moved(), expected);
    }
}

#[test]
fn what_a_run_moves_is_told_in_spans_of_time() {
    let mut ears = Ears::new(Purpose::Pass);
    assert_eq!(ears.moved_until(1000), None, "its first word begins it");
    let stands = |bytes_done| Report::Progress(Standing { bytes_done, entries_done: 1, ..Standing::default() });
    ears.hear(stands(700), 1);
    let span = ears.moved_until(1500).expect("time has passed");
    assert_eq!((span.from_ms, span.length_ms, span.bytes, span.entries), (1000, 500, 700, 1));
    ears.hear(stands(700), 1);
    assert_eq!(ears.moved_until(2000).map(|span| span.bytes), Some(0));
}
