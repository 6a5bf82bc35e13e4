//! The ways that the head of the machine draws, one after another.

use super::*;

fn ended(rig: &Rig) -> (State, Option<u8>) {
    (rig.state(), rig.job.outcome.map(|ending| ending.exit_code))
}

#[test]
fn a_migration_goes_from_queued_to_completed_and_says_when_clients_may_switch() {
    let mut rig = Rig::new(migrate());
    assert_eq!(rig.state(), State::Queued);
    rig.ok(Command::Start);
    assert_eq!((rig.state(), rig.purpose()), (State::Mounting, Some(Purpose::Pass)));
    rig.said(RunInput::Started { engine_job: None, resumed: false });
    assert_eq!(rig.state(), State::Probing);
    rig.said(RunInput::PassStarted);
    assert_eq!(rig.state(), State::Baseline);
    rig.end(600, copied(999));
    assert_eq!((rig.state(), rig.purpose()), (State::Incremental, Some(Purpose::Pass)));
    rig.end(100, copied(500));
    assert_eq!((rig.state(), rig.purpose(), rig.job.pass), (State::Incremental, Some(Purpose::Pass), 3));
    rig.end(20, copied(3));
    assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Schedule)));
    assert!(rig.job.forecast.is_some() && rig.saw(|what| matches!(what, What::Forecast(_))));
    rig.ok(Command::Cutover);
    assert_eq!(rig.state(), State::Cutover);
    rig.begin();
    assert_eq!(rig.purpose(), Some(Purpose::CutoverPass));
    rig.end(5, copied(7));
    assert_eq!((rig.state(), rig.purpose()), (State::Cutover, Some(Purpose::Confirm)));
    assert!(rig.alive.as_ref().is_some_and(|plan| plan.items), "names of what changes are of interest");
    rig.end(5, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
    assert!(rig.saw(|what| *what == What::SwitchSafe) && rig.job.switch_safe_ms == Some(rig.now_ms));
    assert!(rig.saw(|what| matches!(what, What::StateChanged { to: State::Verifying, .. })));
    assert_eq!((rig.job.totals.files_copied, rig.job.totals.runs, rig.job.passes.len()), (1509, 5, 5));
}

#[test]
fn passes_follow_at_once_only_while_they_leave_less_and_last_long() {
    for (elapsed_s, files, state) in [
        (100, 500, State::Incremental),
        (100, 900, State::Ready), // as much as before
        (20, 500, State::Ready),  // short enough
        (100, 0, State::Ready),   // nothing changed
    ] {
        let mut rig = Rig::new(migrate());
        rig.begin().end(600, copied(999)).end(elapsed_s, copied(files));
        assert_eq!(rig.state(), state, "{files} files in {elapsed_s} s");
    }
    let mut rig = Rig::new(JobSpec { max_passes: Some(2), ..migrate() });
    rig.begin().end(600, copied(999)).end(100, copied(500));
    assert_eq!(rig.state(), State::Ready, "as many passes as asked");
}

#[test]
fn a_full_verification_comes_before_clients_may_switch() {
    let mut rig = ready(JobSpec { verify: VerifyLevel::Full, ..migrate() });
    rig.ok(Command::Cutover).begin().end(5, copied(7)).end(5, copied(0));
    assert_eq!((rig.state(), rig.purpose()), (State::Verifying, Some(Purpose::Verify)));
    assert!(!rig.saw(|what| *what == What::SwitchSafe));
    let mut differs = rig.clone();
    differs.end(60, RunSummary { differing: 2, ..ended_with(ExitCode::Mismatch) });
    assert_eq!(ended(&differs), (State::Failed, Some(40)));
    assert!(differs.job.verification.as_ref().is_some_and(|v| !v.equal && v.differing == 2));
    differs.ok(Command::Resume);
    assert_eq!((differs.state(), differs.job.wants_slot()), (State::Ready, true), "a pass finds what differs");
    rig.end(60, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
    assert!(rig.job.verification.as_ref().is_some_and(|v| v.equal));
}

#[test]
fn a_source_that_still_changes_is_named_and_the_job_is_ready_again() {
    let changed = || RunSummary { changed_names: vec!["a/b".into(); 300], ..copied(300) };
    let mut confirmed = ready(migrate());
    confirmed.ok(Command::Cutover).begin().end(5, copied(7)).end(5, changed());
    let mut hot = ready(migrate());
    hot.ok(Command::Cutover).begin().end(5, RunSummary { hot: 300, exit_code: 23, ..changed() });
    let mut digest = ready(migrate());
    digest.ok(Command::Cutover).begin().end(5, copied(7));
    digest.end(5, RunSummary { share_digest: Some("bb".into()), ..copied(0) });
    for (rig, names) in [(confirmed, 100), (hot, 100), (digest, 0)] {
        assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Schedule)));
        assert!(rig.saw(|what| matches!(what, What::SourceChanges { names: n, .. } if n.len() == names)));
        assert_eq!((rig.job.still_changing.len(), rig.job.cutover), (names, None));
        assert!(!rig.saw(|what| *what == What::SwitchSafe));
    }
}

#[test]
fn failed_entries_abort_and_deadline_lead_back_to_ready_with_the_reason() {
    let deadline = || JobSpec { cutover_deadline_s: Some(60), ..migrate() };
    let mut failed = ready(migrate());
    failed.ok(Command::Cutover).begin().end(5, RunSummary { failed: 2, exit_code: 23, ..copied(7) });
    let mut aborted = ready(migrate());
    aborted.ok(Command::Cutover).begin().ok(Command::Abort);
    let mut late = ready(deadline());
    late.ok(Command::Cutover).begin().after(60_000);
    let mut late_in_verifying = ready(JobSpec { verify: VerifyLevel::Full, ..deadline() });
    late_in_verifying.ok(Command::Cutover).begin().end(5, copied(7)).end(5, copied(0)).after(60_000);
    for (rig, reason) in
        [(failed, "2 entries failed"), (aborted, "aborted"), (late, "deadline"), (late_in_verifying, "deadline")]
    {
        assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Schedule)), "{reason}");
        assert!(rig.saw(|what| matches!(what, What::StateChanged { to: State::Ready, reason: Some(why), .. } if why.contains(reason))));
        assert_eq!(rig.alive.is_some(), rig.job.run.as_ref().is_some_and(|run| run.stopping), "{reason}");
    }
}

#[test]
fn a_cutover_stops_a_refresh_and_begins_when_that_has_ended() {
    let mut rig = ready(migrate());
    rig.after(15 * 60_000).begin().asked();
    rig.ok(Command::Cutover);
    assert_eq!((rig.state(), rig.asked()), (State::Cutover, vec![Action::StopRun]));
    assert!(!rig.job.wants_slot() && rig.command(Command::Start).is_err());
    rig.end(1, ended_with(ExitCode::Stopped)).begin();
    assert_eq!(rig.purpose(), Some(Purpose::CutoverPass));
}

#[test]
fn a_cutover_by_itself_tries_again_after_each_refresh_until_the_source_holds_still() {
    let mut rig = Rig::new(JobSpec { cutover: Cutover::Auto, ..migrate() });
    rig.begin().end(10, copied(999)).end(5, copied(1));
    assert_eq!((rig.state(), rig.purpose()), (State::Cutover, Some(Purpose::CutoverPass)));
    rig.end(5, copied(3)).end(5, copied(1));
    assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Schedule)));
    rig.after(15 * 60_000).begin().end(5, RunSummary { failed: 1, exit_code: 23, ..copied(1) });
    assert_eq!(rig.state(), State::Ready, "not with failed entries");
    rig.after(15 * 60_000).begin().end(5, copied(1));
    assert_eq!((rig.state(), rig.purpose()), (State::Cutover, Some(Purpose::CutoverPass)));
    rig.end(5, copied(3)).end(5, copied(0));
    assert_eq!(rig.state(), State::Completed);
}

#[test]
fn a_job_that_is_ready_is_refreshed_on_its_schedule_and_stays_ready() {
    let mut rig = ready(JobSpec { schedule: Some("every 5m".into()), ..migrate() });
    // Counted from the start of the last pass, which took 5 s.
    rig.after(294_000);
    assert!(!rig.job.wants_slot());
    rig.after(1_000).begin();
    assert_eq!(rig.state(), State::Ready);
    let before = rig.job.forecast.clone();
    rig.end(30, copied(50));
    assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Schedule)));
    assert_ne!(rig.job.forecast, before);
    let patch = JobPatch { schedule: Some(Some("every 1m".into())), ..JobPatch::default() };
    rig.ok(Command::Patch(patch)).after(30_000);
    assert!(rig.job.wants_slot(), "the new schedule holds at once");
}

#[test]
fn a_restore_ends_after_its_pass_or_after_the_comparison_asked_for() {
    let mut rig = Rig::of(Kind::Restore);
    rig.begin().end(9, copied(9));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
    let mut rig = Rig::new(JobSpec { verify: VerifyLevel::Full, ..JobSpec::new(Kind::Restore, "/a", "/b") });
    rig.begin().end(9, copied(9));
    assert_eq!((rig.state(), rig.purpose()), (State::Verifying, Some(Purpose::Verify)));
    rig.end(9, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
    let mut rig = Rig::of(Kind::Restore);
    rig.begin().end(9, RunSummary { failed: 1, exit_code: 23, ..copied(9) });
    assert_eq!(ended(&rig), (State::Failed, Some(23)));
    rig.ok(Command::RetryFailed).begin();
    assert!(rig.alive.as_ref().is_some_and(|plan| plan.retry_failed), "only what had failed");
    rig.end(9, copied(1));
    assert!(rig.alive.as_ref().is_some_and(|plan| !plan.retry_failed), "and then the whole once more");
    rig.end(9, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
}

#[test]
fn a_verify_completes_or_fails_with_what_it_found() {
    let mut rig = Rig::of(Kind::Verify);
    rig.begin();
    assert_eq!((rig.state(), rig.purpose()), (State::Verifying, Some(Purpose::Verify)));
    rig.end(9, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
    let mut rig = Rig::of(Kind::Verify);
    rig.begin().end(9, RunSummary { differing: 1, missing: 2, ..ended_with(ExitCode::Mismatch) });
    assert_eq!(ended(&rig), (State::Failed, Some(40)));
    assert_eq!(rig.job.verification.as_ref().map(|v| (v.differing, v.missing)), Some((1, 2)));
    rig.ok(Command::Resume).begin().end(9, copied(0));
    assert_eq!(ended(&rig), (State::Completed, Some(0)));
}

#[test]
fn a_replica_is_in_sync_until_a_pass_fails_or_it_is_too_old() {
    let mut rig = in_sync(JobSpec { rpo_s: Some(600), ..JobSpec::new(Kind::Replicate, "/a", "/b") });
    assert_eq!(rig.job.last_consistent_ms, Some(BEGAN_MS), "as of the start of the pass");
    rig.after(291_000).begin();
    assert_eq!(rig.state(), State::Syncing, "every half of the RPO");
    rig.end(5, RunSummary { failed: 3, exit_code: 23, ..copied(1) });
    assert_eq!((rig.state(), rig.job.last_consistent_ms), (State::OutOfSync, Some(BEGAN_MS)));
    rig.ok(Command::RetryFailed).begin().end(5, copied(3));
    assert_eq!((rig.state(), rig.job.wants_slot()), (State::OutOfSync, true), "a whole pass follows");
    rig.begin();
    let began = rig.now_ms;
    rig.end(5, copied(0));
    assert_eq!((rig.state(), rig.job.last_consistent_ms), (State::InSync, Some(began)));
    rig.after(300_000).after(296_000);
    assert_eq!((rig.state(), rig.job.wants_slot()), (State::OutOfSync, true), "no place came free");
    assert!(rig.saw(|what| matches!(what, What::RpoExceeded { rpo_s: 600, lag_s: 601 })));
}

#[test]
fn a_pass_longer_than_the_rpo_leaves_the_replica_out_of_sync() {
    let mut rig = Rig::new(JobSpec { rpo_s: Some(60), ..JobSpec::new(Kind::Replicate, "/a", "/b") });
    rig.begin().end(61, copied(999));
    assert_eq!(rig.state(), State::OutOfSync);
    assert!(rig.saw(|what| matches!(what, What::StateChanged { to: State::InSync, .. })));
}

#[test]
fn a_run_that_dies_is_tried_again_later_and_later_and_not_for_ever() {
    let mut rig = Rig::new(migrate());
    rig.begin().die(false);
    assert_eq!((rig.state(), rig.job.pass), (State::Baseline, 1));
    for (attempt, delay_ms) in [(1, 5_000), (2, 10_000), (3, 20_000), (4, 40_000)] {
        assert_eq!((rig.job.attempt, rig.job.waiting), (attempt, Some(Waiting::Backoff)));
        assert_eq!(rig.job.not_before_ms, Some(rig.now_ms + delay_ms));
        rig.after(delay_ms - 1);
        assert!(!rig.job.wants_slot());
        rig.after(1).begin();
        assert_eq!(rig.job.pass, 1, "it is the same pass");
        rig.die(false);
    }
    assert_eq!(ended(&rig), (State::Failed, Some(2)));
    assert!(rig.job.failure.as_ref().is_some_and(|f| f.resumable && f.message == "the worker was killed"));
    rig.ok(Command::Resume).begin();
    assert_eq!((rig.state(), rig.job.attempt), (State::Baseline, 0));
    for _ in 0..10 {
        rig.die(true).after(300_000).begin();
    }
    assert_eq!((rig.state(), rig.job.attempt), (State::Baseline, 1), "it comes on, if slowly");
}

#[test]
fn what_will_not_go_better_by_itself_fails_at_once_and_resumes() {
    for code in [ExitCode::Guard, ExitCode::Usage, ExitCode::LossRefused, ExitCode::Mismatch, ExitCode::DeletionLimit] {
        let mut rig = Rig::new(migrate());
        rig.begin().end(1, ended_with(code));
        assert_eq!(ended(&rig), (State::Failed, Some(code as u8)));
        rig.ok(Command::Resume).begin();
        assert_eq!(rig.state(), State::Baseline);
    }
    for code in [ExitCode::Root, ExitCode::Timeout, ExitCode::Internal, ExitCode::Stopped] {
        let mut rig = Rig::new(migrate());
        rig.begin().end(1, ended_with(code));
        assert_eq!((rig.state(), rig.job.waiting), (State::Baseline, Some(Waiting::Backoff)), "{code:?}");
    }
}

#[test]
fn a_run_that_was_never_started_fails_for_what_is_not_allowed_and_waits_for_resources() {
    let refused = |reason| RunInput::Refused { what: "no".into(), remedy: "do".into(), reason };
    let mut rig = Rig::new(migrate());
    rig.ok(Command::Start).said(refused(RefusalReason::NotAllowed));
    assert_eq!(ended(&rig), (State::Failed, Some(43)));
    assert_eq!(rig.job.failure.as_ref().map(|f| (f.class.as_str(), f.remedy.as_str())), Some(("not_allowed", "do")));
    let mut rig = Rig::new(migrate());
    rig.ok(Command::Start).said(refused(RefusalReason::Resources));
    assert_eq!((rig.state(), rig.job.waiting), (State::Queued, Some(Waiting::Backoff)));
}

#[test]
fn a_pause_lets_the_run_come_to_a_safe_point_and_a_resume_waits_for_that() {
    let mut rig = Rig::new(migrate());
    rig.begin().asked();
    rig.ok(Command::Pause);
    assert_eq!((rig.state(), rig.asked()), (State::Paused, vec![Action::StopRun]));
    rig.ok(Command::Resume);
    assert_eq!((rig.state(), rig.job.wants_slot()), (State::Baseline, false));
    rig.ok(Command::Pause).ok(Command::Resume);
    rig.end(1, ended_with(ExitCode::Stopped));
    assert_eq!((rig.state(), rig.job.wants_slot(), rig.asked()), (State::Baseline, true, vec![]));
}

#[test]
fn a_cancel_ends_at_once_without_a_run_and_kills_one_that_does_not_end() {
    let mut rig = Rig::new(migrate());
    rig.ok(Command::Cancel);
    assert_eq!(ended(&rig), (State::Cancelled, Some(20)));
    let mut rig = Rig::new(migrate());
    rig.begin().asked();
    rig.ok(Command::Cancel);
    assert_eq!((rig.state(), rig.asked()), (State::Cancelling, vec![Action::StopRun]));
    let kill_ms = rig.wake_ms.expect("a time") - rig.now_ms;
    assert_eq!(kill_ms, limits::KILL_AFTER_MS);
    rig.after(kill_ms - 1);
    assert_eq!(rig.asked(), vec![]);
    rig.after(1);
    assert_eq!(rig.asked(), vec![Action::KillRun]);
    assert!(rig.command(Command::Cancel).is_err() && rig.command(Command::Pause).is_err());
    rig.die(false);
    assert_eq!(ended(&rig), (State::Cancelled, Some(20)));
}

#[test]
fn a_daemon_that_comes_up_goes_on_with_every_job() {
    let mut probing = Rig::new(migrate());
    probing.ok(Command::Start).said(RunInput::Started { engine_job: None, resumed: false });
    let mut baseline = Rig::new(migrate());
    baseline.begin();
    let mut cutover = ready(migrate());
    cutover.ok(Command::Cutover).begin().end(5, copied(7));
    let mut syncing = in_sync(JobSpec::new(Kind::Replicate, "/a", "/b"));
    syncing.after(15 * 60_000).begin();
    for (mut rig, state, purpose) in [
        (probing, State::Queued, Purpose::Pass),
        (baseline, State::Baseline, Purpose::Pass),
        (cutover, State::Cutover, Purpose::CutoverPass),
        (syncing, State::Syncing, Purpose::Pass),
    ] {
        rig.ok(Command::Restarted);
        assert_eq!((rig.state(), rig.job.wants_slot(), rig.job.attempt), (state, true, 0));
        rig.begin();
        assert_eq!(rig.purpose(), Some(purpose));
    }
    let mut cancelling = Rig::new(migrate());
    cancelling.begin().ok(Command::Cancel).ok(Command::Restarted);
    assert_eq!(cancelling.state(), State::Cancelled);
    let mut waiting = ready(migrate());
    let before = waiting.job.clone();
    waiting.ok(Command::Restarted);
    assert_eq!(waiting.job, before, "nothing was lost, and its time is told again");
    assert_eq!(waiting.wake_ms, waiting.job.not_before_ms);
}

#[test]
fn a_clock_that_is_put_back_lengthens_no_wait() {
    const TEN_YEARS_MS: u64 = 3650 * 86_400_000;
    let back = |mut rig: Rig| {
        rig.now_ms -= TEN_YEARS_MS;
        rig.after(1);
        rig
    };
    let started = |spec: JobSpec| {
        let mut rig = Rig::new(spec);
        rig.now_ms += TEN_YEARS_MS;
        rig.begin();
        rig
    };
    let mut waits = started(migrate());
    waits.end(10, copied(999)).end(5, copied(1));
    let mut backs_off = started(migrate());
    backs_off.die(false);
    let mut cancels = started(migrate());
    cancels.ok(Command::Cancel);
    let mut cuts_over = started(JobSpec { cutover_deadline_s: Some(600), ..migrate() });
    cuts_over.end(10, copied(999)).end(5, copied(1)).ok(Command::Cutover).begin();
    let mut replica = started(JobSpec { rpo_s: Some(600), ..JobSpec::new(Kind::Replicate, "/a", "/b") });
    replica.end(10, copied(999));
    for (rig, at_most_ms) in
        [(waits, 900_000), (backs_off, 5_000), (cancels, 6_000), (cuts_over, 600_000), (replica, 300_000)]
    {
        let state = rig.state();
        let mut rig = back(rig);
        assert_eq!(rig.state(), state, "nothing of it is due yet");
        let wake_ms = rig.wake_ms.expect("it waits") - rig.now_ms;
        assert!(wake_ms <= at_most_ms, "{state:?} waits for {wake_ms} ms");
        rig.asked();
        let before = rig.job.clone();
        rig.after(wake_ms);
        assert!(rig.job != before, "and then it comes");
    }
}

#[test]
fn limits_change_while_it_runs_and_a_window_that_closes_stops_it() {
    // 2026-02-02T02:40:00Z.
    let mut rig = Rig::new(migrate());
    rig.begin().asked();
    let limits = |patch: &str| JobPatch::parse(patch.as_bytes()).expect("a change");
    rig.ok(Command::Patch(limits(r#"{"limits":{"bytes_per_s":1000000}}"#)));
    let told = Action::TellRun(crate::job::RunCommand::Limits { bytes_per_s: Some(1_000_000) });
    assert_eq!(rig.asked(), vec![told]);
    rig.ok(Command::Patch(limits(r#"{"limits":{"window":"02:00-03:00"},"priority":70}"#)));
    assert_eq!((rig.asked(), rig.job.spec.priority), (vec![], 70));
    let closes = rig.wake_ms.expect("the window's end") - rig.now_ms;
    assert_eq!(closes, 20 * 60_000);
    rig.after(closes);
    assert_eq!((rig.asked(), rig.job.waiting), (vec![Action::StopRun], Some(Waiting::Window)));
    rig.end(1, ended_with(ExitCode::Stopped)).after(22 * 3_600_000);
    assert_eq!((rig.state(), rig.job.waiting), (State::Baseline, Some(Waiting::Window)));
    rig.ok(Command::Patch(limits(r#"{"limits":{"window":null}}"#)));
    assert!(rig.job.wants_slot(), "without a window it goes on at once");
    let refused = rig.command(Command::Patch(limits(r#"{"limits":{"window":"1-2"}}"#))).expect_err("no window");
    assert_eq!((refused.field.as_deref(), refused.conflict), (Some("limits.window"), false));
}

#[test]
fn a_window_binds_no_cutover() {
    let mut rig = Rig::new(migrate());
    rig.job.spec.limits.window = Some("02:00-03:00".into());
    rig.begin().end(10, copied(999)).end(5, copied(1)).after(2 * 3_600_000);
    assert_eq!((rig.state(), rig.job.waiting), (State::Ready, Some(Waiting::Window)), "it is not refreshed");
    rig.ok(Command::Cutover).begin().end(5, copied(1)).end(5, copied(0));
    assert_eq!(rig.state(), State::Completed);
}

#[test]
fn retry_failed_runs_only_what_failed_and_only_where_something_did() {
    let mut rig = ready(migrate());
    assert!(rig.command(Command::RetryFailed).is_err());
    rig.after(15 * 60_000).begin().end(5, RunSummary { failed: 2, exit_code: 23, ..copied(1) });
    let entries = rig.job.totals.entries;
    rig.ok(Command::RetryFailed).begin();
    assert!(rig.alive.as_ref().is_some_and(|plan| plan.retry_failed));
    rig.end(1, RunSummary { entries: 2, ..copied(2) });
    assert_eq!((rig.state(), rig.job.totals.failed, rig.job.totals.entries), (State::Ready, 0, entries));
    rig.after(15 * 60_000).begin();
    assert!(rig.alive.as_ref().is_some_and(|plan| !plan.retry_failed), "once");
}

#[test]
fn a_comparison_between_leaves_the_job_where_it_was_whatever_it_finds() {
    let mut done = ready(migrate());
    done.ok(Command::Cutover).begin().end(5, copied(1)).end(5, copied(0));
    let finished = done.job.finished_ms;
    for (start, state) in [(ready(migrate()), State::Ready), (done, State::Completed)] {
        let found: [&dyn Fn(&mut Rig); 4] = [
            &|rig| _ = rig.end(9, RunSummary { differing: 1, ..ended_with(ExitCode::Mismatch) }),
            &|rig| _ = rig.end(9, ended_with(ExitCode::Guard)),
            &|rig| _ = rig.ok(Command::Abort).end(1, ended_with(ExitCode::Stopped)),
            &|rig| {
                for _ in 0..5 {
                    if rig.alive.is_none() {
                        rig.after(300_000).begin();
                    }
                    rig.die(false);
                }
            },
        ];
        for find in found {
            let mut rig = start.clone();
            rig.ok(Command::Verify).begin();
            assert_eq!((rig.state(), rig.purpose()), (State::Verifying, Some(Purpose::Verify)));
            find(&mut rig);
            assert_eq!((rig.state(), rig.job.return_to), (state, None));
        }
        if state == State::Completed {
            let mut rig = start.clone();
            assert!(rig.ok(Command::Verify).command(Command::Pause).is_err());
            rig.ok(Command::Cancel);
            assert_eq!((rig.state(), rig.job.finished_ms), (State::Completed, finished));
        }
    }
}

/// Steps all that the barrier concerns, as a daemon does.
fn settle(members: &mut [Rig]) -> Vec<State> {
    loop {
        let jobs: Vec<Job> = members.iter().map(|rig| rig.job.clone()).collect();
        let Some((input, concerned)) = crate::job::group::barrier(&jobs) else {
            return jobs.iter().map(|job| job.state).collect();
        };
        for at in concerned {
            members[at].give(Input::Group(input.clone())).expect("it has a part in this");
        }
    }
}

fn group_of(members: usize) -> Vec<Rig> {
    (0..members)
        .map(|n| {
            let mut rig = ready(JobSpec { group: Some("g".into()), ..migrate() });
            rig.job.id = uuid::Uuid::from_u128(n as u128 + 1);
            rig
        })
        .collect()
}

#[test]
fn members_of_a_group_complete_together_and_not_one_of_them_before() {
    let mut members = group_of(3);
    assert!(members[0].command(Command::Cutover).is_err_and(|r| r.remedy.contains("group")));
    let jobs: Vec<Job> = members.iter().map(|rig| rig.job.clone()).collect();
    assert_eq!(crate::job::group::cutover(&jobs), Ok(vec![0, 1, 2]));
    for rig in &mut members {
        rig.give(Input::Group(GroupInput::Cutover)).expect("ready");
    }
    for at in 0..3 {
        assert_eq!(settle(&mut members)[2], State::Cutover);
        members[at].begin().end(5, copied(1)).end(5, copied(0));
        assert_eq!(members[at].job.waiting, Some(Waiting::Barrier));
        members[at].ok(Command::Restarted);
        assert!(!members[at].saw(|what| *what == What::SwitchSafe));
    }
    assert_eq!(settle(&mut members), vec![State::Completed; 3]);
    assert!(members.iter().all(|rig| rig.job.switch_safe_ms.is_some()));
}

#[test]
fn a_member_that_can_t_takes_the_others_back_to_ready() {
    type Break<'a> = (&'a dyn Fn(&mut Rig), State);
    let breaks: [Break<'_>; 6] = [
        (&|rig| _ = rig.end(5, copied(1)), State::Ready), // its source still changes
        (&|rig| _ = rig.ok(Command::Abort), State::Ready),
        (&|rig| _ = rig.ok(Command::Pause), State::Paused),
        (&|rig| _ = rig.ok(Command::Cancel), State::Cancelling),
        (&|rig| _ = rig.ok(Command::Cancel).end(1, ended_with(ExitCode::Stopped)), State::Cancelled),
        (&|rig| _ = rig.end(1, ended_with(ExitCode::Guard)), State::Failed),
    ];
    for (break_it, state) in breaks {
        let mut members = group_of(3);
        for rig in &mut members {
            rig.give(Input::Group(GroupInput::Cutover)).expect("ready");
        }
        members[0].begin().end(5, copied(1)).end(5, copied(0));
        members[1].begin().end(5, copied(1));
        break_it(&mut members[1]);
        assert_eq!(settle(&mut members), [State::Ready, state, State::Ready]);
        if state == State::Cancelled {
            // It has left the group, whose others can cut over without it.
            let jobs: Vec<Job> = members.iter().map(|rig| rig.job.clone()).collect();
            for at in crate::job::group::cutover(&jobs).expect("the others are ready") {
                members[at].now_ms += 60_000;
                members[at].give(Input::Group(GroupInput::Cutover)).expect("ready");
                members[at].begin().end(5, copied(1)).end(5, copied(0));
            }
            assert_eq!(settle(&mut members), [State::Completed, State::Cancelled, State::Completed]);
        }
    }
}

#[test]
fn a_group_with_a_member_that_is_not_ready_does_not_begin_and_says_which() {
    let mut members: Vec<Job> = group_of(2).into_iter().map(|rig| rig.job).collect();
    members[1].state = State::Incremental;
    let refused = crate::job::group::cutover(&members).expect_err("one is behind");
    assert!(refused.conflict && refused.what.contains(&members[1].id.to_string()), "{refused:?}");
    assert_eq!(crate::job::group::state(&members), crate::job::GroupState::Preparing);
    assert!(crate::job::group::cutover(&[]).is_err());
}
