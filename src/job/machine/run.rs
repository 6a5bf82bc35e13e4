//! What a run says, and what its end means.
//!
//! Exit codes are those of `docs/cli.md`. A pass is over with 0, 23, 24, 40 and 41: everything was looked at. 2, 11,
//! 20 that nobody asked for, 30, and a death by signal are tried again after a while; all others need somebody.

use super::{Step, is_asked_comparison, place};
use crate::error::ExitCode;
use crate::job::event::What;
use crate::job::input::{Forced, Purpose, RefusalReason, RunInput, RunSummary};
use crate::job::record::{ActiveRun, Failure, PassFacts, State, Verification, Waiting};
use crate::job::spec::{Kind, VerifyLevel};
use crate::limits;
use crate::units::grouped;

/// What the end of a run means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything was looked at, and all is well.
    Clean,
    /// Everything was looked at, and some entries failed, are hot, or have vanished.
    Partly(ExitCode),
    /// It will not go better by itself.
    Refused(ExitCode),
    /// It did not come to its end.
    Died,
}

impl End {
    fn of(exit_code: Option<u8>, forced: bool, has_summary: bool) -> Self {
        let code = exit_code.and_then(ExitCode::of);
        match code {
            _ if forced => Self::Died,
            Some(ExitCode::Complete) if has_summary => Self::Clean,
            Some(code @ (ExitCode::SomeFailed | ExitCode::Vanished)) if has_summary => Self::Partly(code),
            Some(
                code @ (ExitCode::Usage
                | ExitCode::Guard
                | ExitCode::DeletionLimit
                | ExitCode::Mismatch
                | ExitCode::LossRefused),
            ) => Self::Refused(code),
            _ => Self::Died,
        }
    }

    /// Whether the pass has looked at everything.
    const fn is_whole(self) -> bool {
        matches!(self, Self::Clean | Self::Partly(_) | Self::Refused(ExitCode::Mismatch | ExitCode::LossRefused))
    }
}

impl Step {
    pub(super) fn run(&mut self, input: RunInput) {
        let Some(run) = self.job.run.as_mut() else {
            return; // It was counted as ended when the daemon came up.
        };
        match input {
            RunInput::Started { engine_job, .. } => {
                if engine_job.is_some() {
                    self.job.engine_job = engine_job;
                }
                if self.job.state == State::Mounting {
                    let compares = self.job.kind() == Kind::Verify;
                    self.to(if compares { State::Verifying } else { State::Probing }, None);
                }
            }
            RunInput::Backend { backend, readback } => {
                let totals = &mut self.job.totals;
                if totals.backend.as_ref() != Some(&backend) || totals.readback.as_ref() != Some(&readback) {
                    (totals.backend, totals.readback) = (Some(backend.clone()), Some(readback.clone()));
                    self.event(What::Backend { backend, readback });
                }
            }
            RunInput::PassStarted => {
                self.arrive();
            }
            RunInput::Summary(summary) => run.summary = Some(summary),
            RunInput::Ended { exit_code, forced, moved } => self.ended(exit_code, forced, moved),
            RunInput::Refused { what, remedy, reason } => self.refused(what, remedy, reason),
        }
    }

    fn ended(&mut self, exit_code: Option<u8>, forced: Option<Forced>, moved: bool) {
        let Some(mut run) = self.job.run.take() else { return };
        let said = run.summary.take();
        let end = End::of(exit_code, forced.is_some(), said.is_some());
        let summary = said.map(|summary| *summary).unwrap_or_default();
        self.event(What::RunEnded { number: run.number, purpose: run.purpose, exit_code, forced: forced.clone() });
        let digest_before = self.job.totals.share_digest.clone();
        self.count(&run, &summary, end);
        match self.job.state {
            State::Cancelling => return self.cancelled(),
            State::Paused => return,
            state if state.is_final() => return,
            // It was stopped for something else, and that is what the job waits for.
            _ if run.stopping => {
                if self.job.waiting.is_none() {
                    self.wait_for_slot();
                }
                return;
            }
            _ => {}
        }
        match end {
            End::Died => self.died(exit_code, forced, &summary, moved),
            end => {
                self.job.attempt = 0;
                if end.is_whole() {
                    self.arrive();
                }
                match run.purpose {
                    Purpose::Pass => self.pass_ended(&run, &summary, end),
                    Purpose::CutoverPass => self.cutover_pass_ended(&summary, end),
                    Purpose::Confirm => self.confirm_ended(summary, end, digest_before),
                    Purpose::Verify => self.comparison_ended(&summary, end),
                }
            }
        }
    }

    /// The first run is past its beginnings, whatever of them it has said.
    fn arrive(&mut self) {
        match (self.job.kind(), self.job.state) {
            (Kind::Verify, State::Mounting) => self.to(State::Verifying, None),
            (Kind::Verify, _) => {}
            (_, State::Mounting) => {
                self.to(State::Probing, None);
                self.to(State::Baseline, None);
            }
            (_, State::Probing) => self.to(State::Baseline, None),
            _ => {}
        }
    }

    /// Adds what a run did to what the record knows.
    fn count(&mut self, run: &ActiveRun, summary: &RunSummary, end: End) {
        let totals = &mut self.job.totals;
        totals.run_ms = totals.run_ms.saturating_add(self.now_ms.saturating_sub(run.started_ms));
        totals.bytes_verified = totals.bytes_verified.saturating_add(summary.bytes_verified);
        if run.purpose == Purpose::Verify {
            return self.compared(summary, end);
        }
        totals.files_copied = totals.files_copied.saturating_add(summary.files_copied);
        totals.bytes_copied = totals.bytes_copied.saturating_add(summary.bytes_copied);
        totals.deleted = totals.deleted.saturating_add(summary.deleted);
        totals.renamed = totals.renamed.saturating_add(summary.renamed);
        if !end.is_whole() {
            return;
        }
        (totals.failed, totals.hot, totals.vanished) = (summary.failed, summary.hot, summary.vanished);
        if !run.retry_failed {
            (totals.entries, totals.proved, totals.assumed) = (summary.entries, summary.proved, summary.assumed);
            totals.proved_before = summary.proved_before;
            totals.ignored = summary.ignored;
            (totals.lost, totals.degraded) = (summary.lost.clone(), summary.degraded.clone());
            totals.unsettable.clone_from(&summary.unsettable);
            totals.share_digest.clone_from(&summary.share_digest);
            totals.metadata_digest.clone_from(&summary.metadata_digest);
        }
        if end == End::Clean && !run.retry_failed {
            self.job.last_consistent_ms = Some(run.started_ms);
        }
        let facts = PassFacts {
            pass: self.job.pass,
            purpose: run.purpose,
            retry_failed: run.retry_failed,
            started_ms: run.started_ms,
            elapsed_ms: summary.elapsed_ms(),
            entries: summary.entries,
            changed_entries: summary.changed(),
            files_copied: summary.files_copied,
            bytes_copied: summary.bytes_copied,
            bytes_verified: summary.bytes_verified,
            deleted: summary.deleted,
            hot: summary.hot,
            failed: summary.failed,
            exit_code: summary.exit_code,
        };
        self.event(What::PassEnded(facts.clone()));
        self.job.keep_pass(facts);
    }

    fn compared(&mut self, summary: &RunSummary, end: End) {
        if !end.is_whole() {
            return;
        }
        let verification = Verification {
            verified_ms: self.now_ms,
            equal: end == End::Clean,
            entries: summary.entries,
            differing: summary.differing,
            missing: summary.missing,
            extra: summary.extra,
            failed: summary.failed,
            share_digest: summary.share_digest.clone(),
            metadata_digest: summary.metadata_digest.clone(),
        };
        self.event(What::Verified(verification.clone()));
        self.job.verification = Some(verification);
    }

    fn pass_ended(&mut self, run: &ActiveRun, summary: &RunSummary, end: End) {
        if let End::Refused(code) = end {
            return self.fail_with(code, summary);
        }
        match self.job.kind() {
            Kind::Migrate => self.migrate_pass_ended(),
            Kind::Replicate => self.replica_pass_ended(run, end),
            Kind::Restore => match end {
                End::Partly(code) => self.fail_with(code, summary),
                _ => self.restored(run),
            },
            // It has no passes; nothing was learnt of what it is for.
            Kind::Verify => self.wait_for_slot(),
        }
    }

    fn migrate_pass_ended(&mut self) {
        match self.job.state {
            State::Baseline => {
                // Once at least, because only a second pass measures what a look costs and how much changes.
                self.to(State::Incremental, None);
                self.start_next(Purpose::Pass);
            }
            State::Incremental if self.another_pass_gains() => self.start_next(Purpose::Pass),
            State::Incremental => self.enter_ready(),
            _ => self.refreshed(),
        }
        self.take_slot_of_last_run();
    }

    /// A cutover that begins by itself goes on in the place of the pass that made it possible.
    fn take_slot_of_last_run(&mut self) {
        if self.job.state == State::Cutover && self.job.wants_slot() {
            self.start(Purpose::CutoverPass);
        }
    }

    /// Whether another pass before the cutover would leave less to the cutover.
    fn another_pass_gains(&self) -> bool {
        let most = self.job.spec.max_passes.unwrap_or(limits::PASSES_DEFAULT);
        let [.., before, last] = self.job.passes.as_slice() else { return true };
        let shrinks = u128::from(last.changed_entries) * 100
            < u128::from(before.changed_entries) * u128::from(limits::SHRINKING_PERCENT);
        self.job.pass < most && last.elapsed_ms > limits::SHORT_PASS_S * 1000 && last.changed_entries > 0 && shrinks
    }

    fn replica_pass_ended(&mut self, run: &ActiveRun, end: End) {
        match end {
            End::Clean if run.retry_failed => {
                // What changed meanwhile was not looked at: a whole pass follows.
                self.to(State::OutOfSync, Some("what had failed is done; a whole pass follows".into()));
                return self.wait_for_slot();
            }
            End::Clean => {
                self.to(State::InSync, None);
                let rpo_ms = self.job.spec.rpo_s.map(|s| s.saturating_mul(1000));
                if rpo_ms.is_some_and(|rpo| self.job.lag_ms(self.now_ms).is_some_and(|lag| lag > rpo)) {
                    self.expire();
                }
            }
            _ => {
                let (failed, hot) = (self.job.totals.failed, self.job.totals.hot);
                self.to(State::OutOfSync, Some(format!("{} failed, {} hot", grouped(failed), grouped(hot))));
            }
        }
        self.wait_for_schedule();
    }

    fn restored(&mut self, run: &ActiveRun) {
        if run.retry_failed {
            self.note("what had failed is done; a whole pass follows");
            return self.start_next(Purpose::Pass);
        }
        let level = self.job.spec.verify;
        if level == VerifyLevel::Full {
            self.to(State::Verifying, None);
            return self.start_next(Purpose::Verify);
        }
        self.to(State::Verifying, Some(format!("verified on the way, level {}", level.word())));
        self.complete();
    }

    fn cutover_pass_ended(&mut self, summary: &RunSummary, end: End) {
        match end {
            End::Refused(code) => self.fail_with(code, summary),
            _ if summary.failed > 0 => {
                self.back_to_ready(format!("{} failed in the last pass: see its failures", entries(summary.failed)));
            }
            _ if summary.hot > 0 => self.source_changes(summary, summary.hot),
            End::Partly(_) => self.back_to_ready("entries vanished in the last pass, and strict was asked".into()),
            _ => self.start(Purpose::Confirm),
        }
    }

    fn confirm_ended(&mut self, summary: RunSummary, end: End, digest_before: Option<String>) {
        let differ = matches!((&digest_before, &summary.share_digest), (Some(a), Some(b)) if a != b);
        match end {
            End::Refused(code) => self.fail_with(code, &summary),
            _ if summary.failed > 0 => {
                self.back_to_ready(format!("{} failed in the confirmation: see its failures", entries(summary.failed)));
            }
            _ if summary.changed() > 0 || differ => {
                let changed = summary.changed();
                self.source_changes(&summary, changed);
            }
            End::Partly(_) => self.back_to_ready("entries vanished in the confirmation, and strict was asked".into()),
            _ if self.job.spec.verify == VerifyLevel::Full => {
                self.to(State::Verifying, None);
                self.start(Purpose::Verify);
            }
            _ => {
                self.to(State::Verifying, Some("the confirmation found nothing changed".into()));
                self.settle();
            }
        }
    }

    /// Nothing is left to do but what the group waits for.
    fn settle(&mut self) {
        let by_group = self.job.cutover.as_mut().is_some_and(|cutover| {
            cutover.confirmed = true;
            cutover.by_group
        });
        if by_group {
            self.wait(Waiting::Barrier, None);
        } else {
            self.switch();
        }
    }

    fn source_changes(&mut self, summary: &RunSummary, changed: u64) {
        let mut names = summary.changed_names.clone();
        names.truncate(limits::CHANGED_NAMES_KEPT);
        for name in &mut names {
            let end = (0..=limits::CHANGED_NAME_BYTES_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
            name.truncate(end.unwrap_or(0));
        }
        self.event(What::SourceChanges { names: names.clone(), entries: changed });
        self.job.still_changing = names;
        self.back_to_ready(format!("the source still changes: {} after the cutover began", entries(changed)));
    }

    fn comparison_ended(&mut self, summary: &RunSummary, end: End) {
        if is_asked_comparison(&self.job) {
            return match end {
                End::Refused(code) if code != ExitCode::Mismatch => self.fail_with(code, summary),
                _ => self.end_comparison(),
            };
        }
        match (self.job.kind(), end) {
            (Kind::Migrate, End::Clean) => self.settle(),
            (Kind::Migrate, End::Partly(_)) => {
                self.back_to_ready(format!("{} could not be compared: see its failures", entries(summary.failed)));
            }
            (_, End::Clean) => self.complete(),
            (_, End::Partly(code) | End::Refused(code)) => self.fail_with(code, summary),
            (_, End::Died) => {}
        }
    }

    /// The run ended by itself, and the job can't go on by itself.
    fn fail_with(&mut self, code: ExitCode, summary: &RunSummary) {
        let failure = summary.error.as_ref().map_or_else(
            || {
                let (class, message, remedy) = told(code, summary);
                failure(class, message, remedy.into())
            },
            Failure::from,
        );
        self.fail(Failure { exit_code: Some(code as u8), ..failure });
        self.go_back_to_copying(code);
    }

    /// Where it goes on when it is resumed: what differs is found by a pass, not by another comparison.
    fn go_back_to_copying(&mut self, code: ExitCode) {
        if self.job.state != State::Failed {
            return;
        }
        self.job.return_to = match (self.job.kind(), self.job.return_to) {
            (Kind::Migrate, Some(State::Cutover | State::Verifying)) => Some(State::Ready),
            (Kind::Restore, Some(State::Verifying)) if code == ExitCode::Mismatch => Some(State::Baseline),
            (_, other) => other,
        };
    }

    fn died(&mut self, exit_code: Option<u8>, forced: Option<Forced>, summary: &RunSummary, moved: bool) {
        self.job.totals.runs_died += 1;
        self.job.attempt = if moved { 1 } else { self.job.attempt + 1 };
        let mut failure = match (&summary.error, forced) {
            (_, Some(Forced { what, remedy })) => failure("worker", what, remedy),
            (Some(error), None) => Failure::from(error),
            (None, None) => {
                let what = match exit_code {
                    Some(code) => format!("the worker ended with {code} and said nothing of why"),
                    None => "the worker was killed".to_owned(),
                };
                failure(
                    "worker",
                    what,
                    "look at the daemon's log and the kernel's (memory, limits), then resume it".into(),
                )
            }
        };
        failure.exit_code = Some(exit_code.unwrap_or(ExitCode::Internal as u8));
        self.try_again(failure);
    }

    /// After a while, or never where it was tried often enough.
    fn try_again(&mut self, failure: Failure) {
        if self.job.attempt >= limits::ATTEMPTS_MAX {
            self.fail(failure);
            return self.go_back_to_copying(ExitCode::Internal);
        }
        let doublings = self.job.attempt.saturating_sub(1).min(16);
        let delay_ms = (limits::BACKOFF_MS_MIN << doublings).min(limits::BACKOFF_MS_MAX);
        let not_before_ms = self.now_ms.saturating_add(delay_ms);
        self.to(place(self.job.state), Some(failure.message));
        self.event(What::RetryPlanned { attempt: self.job.attempt, at_most: limits::ATTEMPTS_MAX, not_before_ms });
        self.wait(Waiting::Backoff, Some(not_before_ms));
    }

    fn refused(&mut self, what: String, remedy: String, reason: RefusalReason) {
        let Some(run) = self.job.run.take() else { return };
        match self.job.state {
            State::Cancelling => return self.cancelled(),
            State::Paused => return,
            state if state.is_final() => return,
            _ => {}
        }
        let (class, code) = match reason {
            RefusalReason::NotAllowed => ("not_allowed", ExitCode::Guard),
            RefusalReason::Invalid => ("invalid", ExitCode::Usage),
            RefusalReason::Resources => ("resources", ExitCode::Root),
        };
        let failure = Failure { exit_code: Some(code as u8), ..failure(class, what, remedy) };
        if run.retry_failed {
            self.job.retry_failed = true;
        }
        if reason == RefusalReason::Resources {
            self.job.attempt += 1;
            self.try_again(failure);
        } else {
            self.fail(failure);
            self.go_back_to_copying(code);
        }
    }
}

fn failure(class: &str, message: String, remedy: String) -> Failure {
    Failure { class: class.into(), message, why: Vec::new(), remedy, exit_code: None, resumable: true }
}

fn entries(n: u64) -> String {
    format!("{} {}", grouped(n), if n == 1 { "entry" } else { "entries" })
}

/// Class, message and remedy of a run that ended so, where it named no single error.
fn told(code: ExitCode, summary: &RunSummary) -> (&'static str, String, &'static str) {
    match code {
        ExitCode::SomeFailed => (
            "some_failed",
            format!("{} failed, {} hot", entries(summary.failed), grouped(summary.hot)),
            "look at the failures, remove their causes, then retry-failed or resume",
        ),
        ExitCode::Vanished => (
            "vanished",
            format!("{} vanished, and strict was asked", entries(summary.vanished)),
            "resume it when the source is quiet",
        ),
        ExitCode::Mismatch => (
            "mismatch",
            format!(
                "{} differ, {} missing at the destination, {} only there",
                entries(summary.differing),
                grouped(summary.missing),
                grouped(summary.extra)
            ),
            "look at what differs and who writes there, then resume it",
        ),
        ExitCode::LossRefused => {
            let classes: Vec<&str> = summary.lost.keys().map(|class| class.word()).collect();
            (
                "loss",
                format!("the destination can't hold {}", classes.join(", ")),
                "choose another destination, or accept the loss (accept_loss) and resume it",
            )
        }
        ExitCode::DeletionLimit => (
            "deletion_limit",
            "more deletions than max_delete allows; nothing was deleted".into(),
            "look at what would go, raise max_delete, then resume it",
        ),
        _ => ("run", format!("the run ended with {}", code as u8), "look at its events, then resume it"),
    }
}
