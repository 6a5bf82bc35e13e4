//! The machine, driven as a daemon would: what it asks for is noted, and what it promises is checked after every
//! step, whatever the test is about.

mod exploration;
mod record;
mod walks;

use super::*;
use crate::job::input::{Forced, RefusalReason, RunInput, RunSummary};
use crate::job::spec::JobSpec;
use crate::job::{Action, Command, JobPatch, StoredEvent};

/// A job and the daemon around it.
#[derive(Clone, Debug)]
struct Rig {
    job: Job,
    now_ms: u64,
    /// The process of a run is there.
    alive: Option<RunPlan>,
    /// What was asked for since it was last looked at.
    actions: Vec<Action>,
    events: Vec<Event>,
    wake_ms: Option<u64>,
}

const BEGAN_MS: u64 = 1_770_000_000_000;

impl Rig {
    fn new(spec: JobSpec) -> Self {
        spec.check().expect("a specification that can be carried out");
        let job = Job::new(uuid::Uuid::from_u128(7), spec, BEGAN_MS);
        Self { job, now_ms: BEGAN_MS, alive: None, actions: Vec::new(), events: Vec::new(), wake_ms: None }
    }

    fn of(kind: Kind) -> Self {
        Self::new(JobSpec::new(kind, "/a", "/b"))
    }

    fn give(&mut self, input: Input) -> Result<(), Refusal> {
        let command = if let Input::Command(command) = &input { Some(command.name()) } else { None };
        let ended = matches!(&input, Input::Run(RunInput::Ended { .. } | RunInput::Refused { .. }));
        if ended || command == Some(CommandName::Restarted) {
            self.alive = None;
        }
        let is_timer = input == Input::Timer;
        let before = self.job.clone();
        let step = match step(&self.job, input, self.now_ms) {
            Ok(step) => step,
            Err(refusal) => {
                assert!(!refusal.what.is_empty() && !refusal.remedy.is_empty(), "{refusal:?}");
                if let Some(name) = command.filter(|_| refusal.conflict && command != Some(CommandName::Patch)) {
                    assert!(!commands_allowed(&before).contains(&name), "{name:?} is refused and said to be allowed");
                }
                return Err(refusal);
            }
        };
        if let Some(name) = command {
            let callers = CommandName::CALLERS.contains(&name);
            assert!(!callers || commands_allowed(&before).contains(&name), "{name:?} is taken and said to be refused");
            assert!(!callers || step.changed, "{name:?} left no trace");
            assert!(!callers || step.events.iter().any(|e| e.what == What::Command { command: name }));
        }
        self.hold(&before, &step, is_timer);
        for action in &step.actions {
            match action {
                Action::StartRun(plan) => {
                    assert!(self.alive.is_none(), "a second run: {plan:?}");
                    self.alive = Some(plan.clone());
                }
                Action::WakeAt(at_ms) => self.wake_ms = Some(*at_ms),
                Action::StopRun | Action::KillRun | Action::TellRun(_) => {
                    assert!(self.alive.is_some(), "nobody is there to hear {action:?}");
                }
            }
        }
        self.actions.extend(step.actions);
        self.events.extend(step.events);
        self.job = step.job;
        Ok(())
    }

    /// What holds after every step.
    fn hold(&self, before: &Job, step: &Transition, is_timer: bool) {
        let job = &step.job;
        let grown = before.generation + u64::from(step.changed);
        assert_eq!(job.generation, grown, "the generation is one more with each change, and only then");
        assert_eq!(step.changed, job != before);
        assert!(step.changed || step.events.is_empty(), "what happened is stored: {:?}", step.events);
        assert!(step.events.iter().all(|event| event.at_ms == self.now_ms), "it happens now");
        let goes_on = !job.state.is_final() && !matches!(job.state, State::Paused | State::Cancelling);
        if goes_on {
            assert!(job.run.is_some() || job.waiting.is_some(), "the job is forgotten: {job:#?}");
            assert!(job.run.as_ref().is_none_or(|run| !run.stopping) || job.waiting.is_some(), "{job:#?}");
            assert!(commands_allowed(job).contains(&CommandName::Cancel), "{:?} can't be cancelled", job.state);
        } else {
            assert_eq!((job.waiting, job.not_before_ms), (None, None), "{:?} waits for a command only", job.state);
            assert!(job.run.as_ref().is_none_or(|run| run.stopping), "{:?} has a run that nobody stops", job.state);
        }
        if job.state == State::Cancelling {
            assert!(job.run.is_some(), "nothing is left to end");
        }
        let by_clock = matches!(job.waiting, Some(Waiting::Window | Waiting::Schedule | Waiting::Backoff));
        assert_eq!(by_clock, job.not_before_ms.is_some(), "{:?} until {:?}", job.waiting, job.not_before_ms);
        let wake = step.actions.iter().find_map(|a| if let Action::WakeAt(at) = a { Some(*at) } else { None });
        assert!(!by_clock || wake.is_some_and(|at| at <= job.not_before_ms.unwrap_or(0)), "nobody is woken: {job:#?}");
        assert!(!is_timer || wake.is_none_or(|at| at > self.now_ms), "a timer that never rests: {job:#?}");
        assert_eq!(job.state.is_final(), job.outcome.is_some() && job.return_to != Some(State::Completed), "{job:#?}");
        assert_eq!(job.state == State::Failed, job.failure.is_some());
        assert!(
            job.switch_safe_ms.is_none() || job.state == State::Completed || job.return_to == Some(State::Completed)
        );
        self.hold_events(before, step);
    }

    /// The events tell the way that the state has gone, without a gap.
    fn hold_events(&self, before: &Job, step: &Transition) {
        let mut state = before.state;
        for event in &step.events {
            if let What::StateChanged { from, to, .. } = &event.what {
                assert_eq!(*from, state, "the events skip a state");
                state = *to;
            }
            let stored = StoredEvent { id: 1, job: step.job.id, event: event.clone() };
            let text = serde_json::to_string(&stored).expect("an event is JSON");
            assert_eq!(serde_json::from_str::<StoredEvent>(&text).expect(&text), stored);
            assert!(text.contains(&format!("\"type\":\"{}\"", event.what.word())), "{text}");
        }
        assert_eq!(state, step.job.state, "a state changed without an event");
    }

    fn command(&mut self, command: Command) -> Result<(), Refusal> {
        self.give(Input::Command(command))
    }

    fn ok(&mut self, command: Command) -> &mut Self {
        self.command(command).expect("the command is allowed");
        self
    }

    fn said(&mut self, input: RunInput) -> &mut Self {
        self.give(Input::Run(input)).expect("what a run says is never refused");
        self
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self.give(Input::Timer).expect("time is never refused");
        self
    }

    /// The scheduler gives it a place, and the worker comes up.
    fn begin(&mut self) -> &mut Self {
        assert!(self.job.wants_slot(), "{:?} waits for {:?}", self.job.state, self.job.waiting);
        self.ok(Command::Start);
        self.come_up()
    }

    fn come_up(&mut self) -> &mut Self {
        self.said(RunInput::Started { engine_job: Some(uuid::Uuid::from_u128(9)), resumed: false });
        self.said(RunInput::Backend { backend: "uring".into(), readback: "direct".into() });
        self.said(RunInput::PassStarted)
    }

    /// A run ends by itself, and has said so.
    fn end(&mut self, elapsed_s: u64, summary: RunSummary) -> &mut Self {
        assert!(self.alive.is_some(), "{:?} has no run", self.job.state);
        self.now_ms += elapsed_s * 1000;
        let exit_code = Some(summary.exit_code);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let elapsed_s = elapsed_s as f64;
        self.said(RunInput::Summary(Box::new(RunSummary { elapsed_s, ..summary })));
        self.said(RunInput::Ended { exit_code, forced: None, moved: false })
    }

    fn die(&mut self, moved: bool) -> &mut Self {
        let forced = Some(Forced { what: "the worker was killed".into(), remedy: "look at the log".into() });
        self.said(RunInput::Ended { exit_code: None, forced, moved })
    }

    fn state(&self) -> State {
        self.job.state
    }

    fn purpose(&self) -> Option<Purpose> {
        self.alive.as_ref().map(|plan| plan.purpose)
    }

    fn saw(&self, found: impl Fn(&What) -> bool) -> bool {
        self.events.iter().any(|event| found(&event.what))
    }

    fn asked(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions).into_iter().filter(|a| !matches!(a, Action::WakeAt(_))).collect()
    }
}

/// A pass that copied so many files of a thousand.
fn copied(files: u64) -> RunSummary {
    RunSummary {
        entries: 1000,
        files_copied: files,
        bytes_copied: files << 20,
        proved: 1000,
        share_digest: Some("aa".into()),
        ..RunSummary::default()
    }
}

fn ended_with(code: ExitCode) -> RunSummary {
    RunSummary { exit_code: code as u8, ..copied(0) }
}

/// A migration in `ready`.
fn ready(spec: JobSpec) -> Rig {
    let mut rig = Rig::new(spec);
    rig.begin().end(10, copied(999)).come_up().end(5, copied(1));
    assert_eq!(rig.state(), State::Ready);
    rig
}

fn migrate() -> JobSpec {
    JobSpec::new(Kind::Migrate, "/a", "/b")
}

/// A replica in `in_sync`.
fn in_sync(spec: JobSpec) -> Rig {
    let mut rig = Rig::new(spec);
    rig.begin().end(10, copied(999));
    assert_eq!(rig.state(), State::InSync);
    rig
}
