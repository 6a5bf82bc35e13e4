//! How a job goes from state to state. Pure: the record, an input and the time give another record, the events to
//! store with it, and what is to be done afterwards.
//!
//! ```text
//! migrate    queued → mounting → probing → baseline → incremental ⟲ → ready ⟲ → cutover → verifying → completed
//!                                                                       ▲          │          │
//!                                                                       └──────────┴──────────┘
//!                                     abort, deadline, the source still changes, entries failed, the group gave up
//! restore    queued → mounting → probing → baseline → verifying → completed
//! verify     queued → mounting → verifying → completed
//! replicate  queued → mounting → probing → baseline → in_sync ⇄ syncing ⇄ out_of_sync, in_sync → out_of_sync (RPO)
//!
//! not ended                                → paused → (resume) → where it was
//! not ended                                → cancelling → cancelled, at once where nothing runs
//! not ended                                → failed → (resume, retry-failed) → where it was
//! ready, in_sync, out_of_sync, completed   → (verify) → verifying → back
//! ```
//!
//! What holds after every step, and is tested with sequences of inputs at random:
//! - A job that is neither ended nor paused has a run, or says what it waits for; so none is forgotten.
//! - `StartRun` comes only where no run is believed alive. A run that is to be replaced is stopped first, and the
//!   job waits until it has said that it ended.
//! - Every command is answered by a step or by a refusal with a reason and a remedy.
//! - The generation grows by one with every change, and a step without change asks for nothing to be stored.
//! - A clock that is put back, by however much, lengthens no wait.
//! - A state at the end of a row changes by a command only: `resume`, `retry-failed`, `verify`.
//!
//! Places among the runs are given by [`super::Command::Start`] to jobs that [`Job::wants_slot`]. A job keeps its place
//! from one pass to the next where these follow at once; the command to start is not repeated for them. A run that
//! dies gives its place back, and the job waits for the next attempt. The hours of a window bind every run but a
//! cutover, and a comparison that a caller asked for: people wait for these.

mod command;
mod run;
mod time;

use super::event::{Event, What};
use super::forecast::forecast;
use super::input::{Action, CommandName, GroupInput, Input, Purpose, Refusal, RunPlan, Transition};
use super::record::{ActiveRun, CutoverFacts, Ending, Failure, Job, Outcome, State, Waiting};
use super::schedule::Schedule;
use super::spec::{Cutover, Kind, VerifyLevel};
use super::window::{Now, Window};
use crate::error::ExitCode;
use crate::limits;

/// What an input makes of a job.
///
/// # Errors
/// A command that the job's state does not allow, or that is wrong in itself.
pub fn step(job: &Job, input: Input, now_ms: u64) -> Result<Transition, Refusal> {
    let mut step = Step::new(job, now_ms);
    match input {
        Input::Command(command) => step.command(command)?,
        Input::Run(input) => step.run(input),
        Input::Group(input) => step.group(input)?,
        Input::Timer => step.timer(),
    }
    Ok(step.finish(job))
}

/// The commands of callers that the job's state allows now. A change may still be refused for what it says.
#[must_use]
pub fn commands_allowed(job: &Job) -> Vec<CommandName> {
    CommandName::CALLERS.into_iter().filter(|name| command::permit(job, *name).is_ok()).collect()
}

/// The events with which a new job begins.
#[must_use]
pub fn created(job: &Job) -> Vec<Event> {
    vec![Event { at_ms: job.created_ms, what: What::Created { kind: job.kind() } }]
}

/// A step that is being made.
struct Step {
    job: Job,
    events: Vec<Event>,
    actions: Vec<Action>,
    now_ms: u64,
}

impl Step {
    fn new(job: &Job, now_ms: u64) -> Self {
        let mut job = job.clone();
        time::put_back(&mut job, now_ms);
        Self { job, events: Vec::new(), actions: Vec::new(), now_ms }
    }

    fn finish(mut self, before: &Job) -> Transition {
        // A command that finds its work done has been given all the same.
        let changed = self.job != *before || !self.events.is_empty();
        if changed {
            self.job.generation = before.generation + 1;
            self.job.updated_ms = self.now_ms;
        }
        if let Some(wake) = time::wake_ms(&self.job, self.now_ms) {
            self.actions.push(Action::WakeAt(wake));
        }
        Transition { job: self.job, events: self.events, actions: self.actions, changed }
    }

    fn event(&mut self, what: What) {
        self.events.push(Event { at_ms: self.now_ms, what });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.event(What::Note { text: text.into() });
    }

    fn to(&mut self, state: State, reason: Option<String>) {
        let from = std::mem::replace(&mut self.job.state, state);
        if from == state {
            return;
        }
        self.event(What::StateChanged { from, to: state, reason });
        if state.is_final() {
            (self.job.waiting, self.job.not_before_ms) = (None, None);
        }
    }

    fn wait(&mut self, waiting: Waiting, not_before_ms: Option<u64>) {
        (self.job.waiting, self.job.not_before_ms) = (Some(waiting), not_before_ms);
    }

    /// It would run now, if the hours allow.
    fn wait_for_slot(&mut self) {
        match self.closed_until() {
            Some(opens_ms) => self.wait(Waiting::Window, Some(opens_ms)),
            None => self.wait(Waiting::Slot, None),
        }
    }

    /// Until when the job's window is closed, where it binds what the job does.
    fn closed_until(&self) -> Option<u64> {
        match window(&self.job)?.at(self.now_ms) {
            Now::Closed { opens_ms } => Some(opens_ms),
            Now::Open { .. } => None,
        }
    }

    /// It runs again when its schedule says, counted from the start of the last pass; at once where only what
    /// failed is to be tried again.
    fn wait_for_schedule(&mut self) {
        if self.job.retry_failed {
            return self.wait_for_slot();
        }
        let began_ms = self.job.passes.last().map_or(self.now_ms, |pass| pass.started_ms);
        let due_ms = schedule(&self.job).next_ms(began_ms, self.now_ms);
        self.wait(Waiting::Schedule, Some(due_ms));
    }

    /// Starts a run. None is alive.
    fn start(&mut self, purpose: Purpose) {
        let retry_failed = purpose == Purpose::Pass && std::mem::take(&mut self.job.retry_failed);
        self.job.totals.runs += 1;
        let number = self.job.totals.runs;
        if purpose != Purpose::Verify {
            // A pass whose run died is the same pass when it is run again.
            self.job.pass = self.job.passes.last().map_or(0, |pass| pass.pass) + 1;
        }
        self.job.started_ms.get_or_insert(self.now_ms);
        self.job.run = Some(ActiveRun {
            number,
            purpose,
            retry_failed,
            started_ms: self.now_ms,
            stopping: false,
            kill_at_ms: None,
            summary: None,
        });
        (self.job.waiting, self.job.not_before_ms) = (None, None);
        self.event(What::RunStarted { number, purpose });
        let items = matches!(purpose, Purpose::Confirm);
        self.actions.push(Action::StartRun(RunPlan { number, purpose, retry_failed, items }));
    }

    /// Goes on with the next pass at once, or at the window's next hour.
    fn start_next(&mut self, purpose: Purpose) {
        match self.closed_until() {
            Some(opens_ms) => self.wait(Waiting::Window, Some(opens_ms)),
            None => self.start(purpose),
        }
    }

    /// Tells a run to come to a safe point.
    fn stop(&mut self) {
        let kill_at_ms = self.now_ms.saturating_add(limits::KILL_AFTER_MS);
        if let Some(run) = self.job.run.as_mut().filter(|run| !run.stopping) {
            (run.stopping, run.kill_at_ms) = (true, Some(kill_at_ms));
            self.actions.push(Action::StopRun);
        }
    }

    fn begin_cutover(&mut self, by_group: bool) {
        let deadline_ms = self.job.spec.cutover_deadline_s.map(|s| self.now_ms.saturating_add(s.saturating_mul(1000)));
        self.job.cutover = Some(CutoverFacts { since_ms: self.now_ms, deadline_ms, by_group, confirmed: false });
        self.job.still_changing.clear();
        self.job.retry_failed = false;
        self.to(State::Cutover, None);
        self.stop();
        self.wait_for_slot();
    }

    fn back_to_ready(&mut self, reason: String) {
        self.job.cutover = None;
        self.to(State::Ready, Some(reason));
        self.stop();
        // What stopped it may last: the next refresh comes a whole interval from now.
        let due_ms = self.now_ms.saturating_add(schedule(&self.job).every_ms);
        self.wait(Waiting::Schedule, Some(due_ms));
    }

    fn enter_ready(&mut self) {
        self.to(State::Ready, None);
        self.refreshed();
    }

    /// A pass of a job that is ready has ended.
    fn refreshed(&mut self) {
        let compares = self.job.spec.verify == VerifyLevel::Full;
        let every_ms = schedule(&self.job).every_ms;
        if let Some(found) = forecast(&self.job.passes, every_ms, compares, self.now_ms) {
            self.event(What::Forecast(found.clone()));
            self.job.forecast = Some(found);
        }
        self.wait_for_schedule();
        self.cut_over_by_itself();
    }

    /// Where the specification says so, and nothing stands against it.
    fn cut_over_by_itself(&mut self) {
        let totals = &self.job.totals;
        let clean = totals.failed == 0 && totals.hot == 0 && !self.job.retry_failed;
        if self.job.spec.cutover == Cutover::Auto && clean && self.job.run.is_none() {
            self.begin_cutover(false);
        }
    }

    fn complete(&mut self) {
        self.job.outcome = Some(Ending { outcome: Outcome::Completed, exit_code: ExitCode::Complete as u8 });
        self.job.finished_ms = Some(self.now_ms);
        self.to(State::Completed, None);
    }

    /// Cutover and comparison are done: clients may switch.
    fn switch(&mut self) {
        self.job.switch_safe_ms = Some(self.now_ms);
        self.event(What::SwitchSafe);
        self.complete();
    }

    fn cancelled(&mut self) {
        self.job.outcome = Some(Ending { outcome: Outcome::Cancelled, exit_code: ExitCode::Stopped as u8 });
        self.job.finished_ms = Some(self.now_ms);
        self.job.return_to = None;
        self.to(State::Cancelled, None);
    }

    fn fail(&mut self, failure: Failure) {
        if is_asked_comparison(&self.job) {
            // Whatever became of the comparison, the job itself is as good as before.
            self.note(format!("the comparison came to nothing: {}", failure.message));
            return self.end_comparison();
        }
        self.job.return_to = Some(place(self.job.state));
        self.job.cutover = None;
        let exit_code = failure.exit_code.unwrap_or(ExitCode::Internal as u8);
        self.job.outcome = Some(Ending { outcome: Outcome::Failed, exit_code });
        self.job.finished_ms = Some(self.now_ms);
        self.event(What::Failed(failure.clone()));
        let message = failure.message.clone();
        self.job.failure = Some(failure);
        self.job.attempt = 0;
        self.to(State::Failed, Some(message));
    }

    /// Goes back to where the job was when a caller asked for a comparison.
    fn end_comparison(&mut self) {
        let state = self.job.return_to.take().unwrap_or(State::Queued);
        self.stop();
        self.job.attempt = 0;
        self.to(state, None);
        if !state.is_final() {
            self.wait_for_schedule();
        }
    }

    fn group(&mut self, input: GroupInput) -> Result<(), Refusal> {
        match input {
            GroupInput::Cutover if self.job.state == State::Ready && self.job.spec.group.is_some() => {
                self.event(What::Command { command: CommandName::Cutover });
                self.begin_cutover(true);
                Ok(())
            }
            GroupInput::Release if super::group::at_barrier(&self.job) => {
                self.switch();
                Ok(())
            }
            GroupInput::Abort { reason } if super::group::in_cutover(&self.job) => {
                self.back_to_ready(reason);
                Ok(())
            }
            input => Err(command::refuse(
                format!("the job is {}, and has no part in {}", self.job.state.word(), input.word()),
                "look at the states of the group's members",
            )),
        }
    }
}

/// Where a job goes on that was interrupted in this state.
const fn place(state: State) -> State {
    match state {
        // What these did is lost with the run, and waiting for a first run is called so.
        State::Mounting | State::Probing => State::Queued,
        state => state,
    }
}

/// It compares because a caller asked, and goes back afterwards.
fn is_asked_comparison(job: &Job) -> bool {
    job.state == State::Verifying && job.return_to.is_some()
}

/// It is between the command to cut over and the end.
fn is_cutting_over(job: &Job) -> bool {
    job.cutover.is_some() && matches!(job.state, State::Cutover | State::Verifying) && job.return_to.is_none()
}

/// The window, where it binds what the job does.
fn window(job: &Job) -> Option<Window> {
    if is_cutting_over(job) || is_asked_comparison(job) {
        return None;
    }
    // It was checked when the specification came.
    job.spec.limits.window.as_deref().and_then(|text| text.parse().ok())
}

/// The schedule; where none is given, one that a refresh or the RPO asks for.
fn schedule(job: &Job) -> Schedule {
    let given = job.spec.schedule.as_deref().and_then(|text| text.parse().ok());
    let seconds = match (job.kind(), job.spec.rpo_s) {
        // A pass that begins twice within the RPO may take half of it.
        (Kind::Replicate, Some(rpo_s)) => (rpo_s / 2).clamp(*limits::SCHEDULE_S.start(), limits::SCHEDULE_DEFAULT_S),
        _ => limits::SCHEDULE_DEFAULT_S,
    };
    given.unwrap_or(Schedule { every_ms: seconds * 1000 })
}

#[cfg(test)]
#[path = "../machine_tests/mod.rs"]
mod tests;
