//! What time does to a job by itself.

use super::{Step, is_cutting_over, window};
use crate::job::event::What;
use crate::job::input::Action;
use crate::job::record::{Job, State, Waiting};
use crate::job::spec::Kind;
use crate::job::window::Now;
use crate::limits;

/// Moves the times that a job counts from or waits for, where the clock now shows less than it did at the last
/// change: what was to come in a minute still comes in a minute. What has happened keeps the time that it was given.
pub(super) fn put_back(job: &mut Job, now_ms: u64) {
    let by_ms = job.updated_ms.saturating_sub(now_ms);
    if by_ms == 0 {
        return;
    }
    let earlier = |at_ms: &mut u64| *at_ms = at_ms.saturating_sub(by_ms);
    job.not_before_ms.iter_mut().for_each(earlier);
    job.last_consistent_ms.iter_mut().for_each(earlier);
    job.passes.iter_mut().map(|pass| &mut pass.started_ms).for_each(earlier);
    if let Some(run) = job.run.as_mut() {
        earlier(&mut run.started_ms);
        run.kill_at_ms.iter_mut().for_each(earlier);
    }
    if let Some(cutover) = job.cutover.as_mut() {
        earlier(&mut cutover.since_ms);
        cutover.deadline_ms.iter_mut().for_each(earlier);
    }
    job.updated_ms = now_ms;
}

/// When the job is to be looked at again without anything else happening; after `now_ms`, once
/// [`super::Input::Timer`] was given for that time.
pub(super) fn wake_ms(job: &Job, now_ms: u64) -> Option<u64> {
    let waits = matches!(job.waiting, Some(Waiting::Window | Waiting::Schedule | Waiting::Backoff));
    let run = job.run.as_ref();
    let closes_ms = run.filter(|run| !run.stopping).and_then(|_| match window(job)?.at(now_ms) {
        Now::Open { closes_ms } => closes_ms,
        Now::Closed { .. } => Some(now_ms),
    });
    [
        job.not_before_ms.filter(|_| waits),
        run.and_then(|run| run.kill_at_ms),
        deadline_ms(job),
        out_of_sync_ms(job),
        closes_ms,
    ]
    .into_iter()
    .flatten()
    .min()
}

/// When the cutover is given up, also of a job that was paused in it.
fn deadline_ms(job: &Job) -> Option<u64> {
    let paused_in_it = job.state == State::Paused && job.return_to == Some(State::Cutover);
    job.cutover.filter(|_| is_cutting_over(job) || paused_in_it).and_then(|cutover| cutover.deadline_ms)
}

/// When a replica is older than it may be.
fn out_of_sync_ms(job: &Job) -> Option<u64> {
    if job.kind() != Kind::Replicate || job.state != State::InSync {
        return None;
    }
    let rpo_ms = job.spec.rpo_s?.saturating_mul(1000);
    Some(job.last_consistent_ms?.saturating_add(rpo_ms).saturating_add(1))
}

impl Step {
    pub(super) fn timer(&mut self) {
        let due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        let (over, expired) = (due(deadline_ms(&self.job)), due(out_of_sync_ms(&self.job)));
        if over && self.job.state == State::Paused {
            (self.job.return_to, self.job.cutover) = (Some(State::Ready), None);
            self.note("the cutover's deadline has passed: the job will be ready again when it is resumed");
        } else if over {
            self.back_to_ready("the deadline of the cutover has passed".into());
        }
        if expired {
            self.expire();
        }
        let waits = matches!(self.job.waiting, Some(Waiting::Window | Waiting::Schedule | Waiting::Backoff));
        if waits && self.job.not_before_ms.is_none_or(|at_ms| at_ms <= self.now_ms) {
            self.wait_for_slot();
        }
        self.keep_to_window();
        self.kill_what_is_late();
    }

    /// The replica is older than it may be.
    pub(super) fn expire(&mut self) {
        let (Some(rpo_s), Some(lag_ms)) = (self.job.spec.rpo_s, self.job.lag_ms(self.now_ms)) else { return };
        self.event(What::RpoExceeded { lag_s: lag_ms / 1000, rpo_s });
        self.to(
            State::OutOfSync,
            Some(format!("the last good pass began {} s ago, {rpo_s} s are allowed", lag_ms / 1000)),
        );
    }

    fn kill_what_is_late(&mut self) {
        let Some(run) = self.job.run.as_mut() else { return };
        if run.kill_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            run.kill_at_ms = Some(self.now_ms.saturating_add(limits::KILL_AFTER_MS));
            self.actions.push(Action::KillRun);
        }
    }
}
