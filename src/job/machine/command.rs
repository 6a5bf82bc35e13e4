//! Commands: which a state allows, and what each does.

use super::{Step, is_asked_comparison, is_cutting_over, place};
use crate::job::event::What;
use crate::job::input::Action;
use crate::job::input::{Command, CommandName, Purpose, Refusal, RunCommand};
use crate::job::record::{Job, State, Waiting};
use crate::job::spec::{Cutover, JobPatch, Kind};
use crate::job::window::Now;

/// A refusal for the job's state.
pub(super) fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal { what: what.into(), remedy: remedy.into(), conflict: true, field: None }
}

/// Whether the job's state allows a command.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn permit(job: &Job, name: CommandName) -> Result<(), Refusal> {
    let is = format!("the job is {}", job.state.word());
    match name {
        CommandName::Pause => pause(job, is),
        CommandName::Resume => resume(job, is),
        CommandName::Cancel => match job.state {
            State::Cancelling => Err(refuse("the job is being cancelled already", "wait for its end")),
            state if state.is_final() => Err(refuse(is, "it has ended; delete it where its record is not needed")),
            _ => Ok(()),
        },
        CommandName::Cutover => cutover(job, is),
        CommandName::Abort if is_cutting_over(job) || is_asked_comparison(job) => Ok(()),
        CommandName::Abort => {
            Err(refuse(format!("{is}: there is no cutover to abort"), "use pause or cancel to stop the job itself"))
        }
        CommandName::RetryFailed => retry_failed(job, is),
        CommandName::Verify => match job.state {
            State::Ready | State::InSync | State::OutOfSync | State::Completed => Ok(()),
            State::Failed => Err(refuse(is, "resume it: what it had not finished is done again")),
            _ => Err(refuse(is, "wait until it is ready, in sync or completed")),
        },
        CommandName::Patch | CommandName::Restarted => Ok(()),
        CommandName::Start if job.wants_slot() => Ok(()),
        CommandName::Start => Err(refuse(format!("{is}, and waits for no place among the runs"), "look at it again")),
    }
}

fn pause(job: &Job, is: String) -> Result<(), Refusal> {
    match job.state {
        State::Paused => Err(refuse("the job is paused already", "resume it to go on")),
        State::Cancelling => Err(refuse("the job is being cancelled", "create it anew to go on later")),
        state if state.is_final() => Err(refuse(is, "it has ended: there is nothing to pause")),
        State::Verifying if job.return_to == Some(State::Completed) => {
            Err(refuse("the job is completed, and only compared once more", "abort the comparison"))
        }
        _ => Ok(()),
    }
}

fn resume(job: &Job, is: String) -> Result<(), Refusal> {
    match job.state {
        State::Paused => Ok(()),
        State::Failed if job.failure.as_ref().is_none_or(|failure| failure.resumable) => Ok(()),
        State::Failed => Err(refuse("the job has failed for good", "create it anew")),
        State::Cancelled | State::Cancelling => {
            Err(refuse(is, "create it anew: what is at the destination already is not copied again"))
        }
        _ => Err(refuse(is, "only a job that is paused or has failed can be resumed")),
    }
}

fn cutover(job: &Job, is: String) -> Result<(), Refusal> {
    if job.kind() != Kind::Migrate {
        let what = format!("a job of kind {} has no cutover", job.kind().word());
        return Err(refuse(what, "make a migrate job for that"));
    }
    if let Some(group) = &job.spec.group {
        let what = format!("the job is a member of the group {group}, whose members cut over together");
        return Err(refuse(what, "cut the group over"));
    }
    match job.state {
        State::Ready => Ok(()),
        State::Cutover | State::Verifying => Err(refuse("the job is cutting over already", "watch it, or abort it")),
        _ => Err(refuse(is, "wait until it is ready")),
    }
}

fn retry_failed(job: &Job, is: String) -> Result<(), Refusal> {
    if job.state == State::Failed {
        return resume(job, is);
    }
    if !matches!(job.state, State::Ready | State::InSync | State::OutOfSync | State::Paused) {
        let remedy = "a pass that goes on tries them again by itself; a job that has ended has none left";
        return Err(refuse(is, remedy));
    }
    if job.kind() == Kind::Verify || job.totals.failed == 0 && job.totals.hot == 0 {
        return Err(refuse("no entry failed in the last pass", "there is nothing to try again"));
    }
    Ok(())
}

impl Step {
    pub(super) fn command(&mut self, command: Command) -> Result<(), Refusal> {
        permit(&self.job, command.name())?;
        if CommandName::CALLERS.contains(&command.name()) {
            self.event(What::Command { command: command.name() });
        }
        match command {
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Cancel => self.cancel(),
            Command::Cutover => self.begin_cutover(false),
            Command::Abort => self.abort(),
            Command::RetryFailed => self.retry_failed(),
            Command::Verify => self.verify(),
            Command::Patch(patch) => self.patch(patch)?,
            Command::Start => self.start_as_planned(),
            Command::Restarted => self.restarted(),
        }
        Ok(())
    }

    fn pause(&mut self) {
        let return_to = match self.job.state {
            // The comparison is given up, and may be asked for again.
            State::Verifying if self.job.return_to.is_some() => self.job.return_to,
            // The others of the group do not wait for who pauses.
            _ if is_cutting_over(&self.job) && self.job.cutover.is_some_and(|cutover| cutover.by_group) => {
                self.job.cutover = None;
                Some(State::Ready)
            }
            // What was confirmed is old when it goes on.
            State::Verifying if is_cutting_over(&self.job) => Some(State::Cutover),
            state => Some(place(state)),
        };
        self.job.return_to = return_to;
        (self.job.waiting, self.job.not_before_ms) = (None, None);
        self.to(State::Paused, None);
        self.stop();
    }

    fn resume(&mut self) {
        let state = self.job.return_to.take().unwrap_or(State::Queued);
        (self.job.failure, self.job.outcome, self.job.finished_ms, self.job.attempt) = (None, None, None, 0);
        self.to(state, None);
        self.wait_for_slot();
    }

    fn cancel(&mut self) {
        if is_asked_comparison(&self.job) && self.job.return_to == Some(State::Completed) {
            // The job is done, and stays so; it is the comparison that goes.
            return self.end_comparison();
        }
        self.job.return_to = None;
        (self.job.waiting, self.job.not_before_ms) = (None, None);
        if self.job.run.is_none() {
            return self.cancelled();
        }
        self.to(State::Cancelling, None);
        self.stop();
    }

    fn abort(&mut self) {
        if is_asked_comparison(&self.job) {
            self.end_comparison();
        } else {
            self.back_to_ready("aborted".into());
        }
    }

    fn retry_failed(&mut self) {
        self.job.retry_failed = true;
        match self.job.state {
            State::Failed => self.resume(),
            // When it is resumed.
            State::Paused => {}
            // After the pass that goes on, or at once.
            _ if self.job.run.as_ref().is_some_and(|run| !run.stopping) => {}
            _ => self.wait_for_slot(),
        }
    }

    fn verify(&mut self) {
        self.job.return_to = Some(self.job.state);
        self.to(State::Verifying, None);
        self.stop();
        self.wait_for_slot();
    }

    fn patch(&mut self, patch: JobPatch) -> Result<(), Refusal> {
        let over = matches!(self.job.state, State::Completed | State::Cancelled | State::Cancelling);
        if over && !patch.is_of_names_only() {
            let what =
                format!("the job is {}: only labels and private_data can still be changed", self.job.state.word());
            return Err(refuse(what, "create a job with the other settings"));
        }
        let spec = self.job.spec.patched(&patch)?;
        let old = std::mem::replace(&mut self.job.spec, spec);
        self.event(What::LimitsChanged { patch });
        let bytes_per_s = self.job.spec.limits.bytes_per_s;
        if bytes_per_s != old.limits.bytes_per_s && self.job.run.as_ref().is_some_and(|run| !run.stopping) {
            self.actions.push(Action::TellRun(RunCommand::Limits { bytes_per_s }));
        }
        if let (Some(deadline_s), Some(cutover)) = (self.job.spec.cutover_deadline_s, self.job.cutover.as_mut()) {
            cutover.deadline_ms = Some(cutover.since_ms.saturating_add(deadline_s.saturating_mul(1000)));
        } else if let Some(cutover) = self.job.cutover.as_mut() {
            cutover.deadline_ms = None;
        }
        if self.job.waiting == Some(Waiting::Schedule) && self.job.spec.schedule != old.schedule {
            self.wait_for_schedule();
        }
        if self.job.waiting == Some(Waiting::Window) {
            self.wait_for_slot();
        }
        self.keep_to_window();
        if self.job.state == State::Ready && old.cutover == Cutover::Wait {
            self.cut_over_by_itself();
        }
        Ok(())
    }

    /// Stops a run outside of the hours in which it may go on.
    pub(super) fn keep_to_window(&mut self) {
        let running = self.job.run.as_ref().is_some_and(|run| !run.stopping);
        let Some(window) = super::window(&self.job).filter(|_| running) else { return };
        if let Now::Closed { opens_ms } = window.at(self.now_ms) {
            self.stop();
            self.wait(Waiting::Window, Some(opens_ms));
        }
    }

    /// There is a place among the runs.
    fn start_as_planned(&mut self) {
        if let Some(opens_ms) = self.closed_until() {
            return self.wait(Waiting::Window, Some(opens_ms));
        }
        let purpose = match self.job.state {
            State::Queued if self.job.kind() == Kind::Verify => Purpose::Verify,
            State::Verifying => Purpose::Verify,
            State::Cutover => Purpose::CutoverPass,
            _ => Purpose::Pass,
        };
        match self.job.state {
            State::Queued => self.to(State::Mounting, None),
            State::InSync | State::OutOfSync => self.to(State::Syncing, None),
            _ => {}
        }
        self.start(purpose);
    }

    /// No run is under way any more, whatever the record believes.
    fn restarted(&mut self) {
        let lost = self.job.run.take();
        if lost.is_some() {
            self.event(What::Restarted);
        }
        match self.job.state {
            State::Cancelling => self.cancelled(),
            State::Paused => {}
            state if state.is_final() => {}
            state => {
                self.to(place(state), None);
                if self.job.waiting.is_none() {
                    self.wait_for_slot();
                }
            }
        }
    }
}
