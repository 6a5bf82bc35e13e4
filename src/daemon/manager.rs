//! The manager: the one thread that writes jobs' states.
//!
//! ```text
//!   API ── asks ──┐                      ┌─► store   first
//! spawner ─ heard ┼─► step (job::step) ──┼─► spawner then
//!    time ────────┘                      └─► news    last
//! ```
//!
//! Everything that moves a job comes through one of two queues or from the time, and is done to its end before the
//! next thing is looked at; so no two writers ever meet. A step is stored before it is acted on, so that a daemon
//! which is killed in between does it again rather than believes it done; and it is published last, so that nobody
//! hears what could still be lost. What the store does not take (a full disk) is kept in order and tried again:
//! what a run has said is never dropped, and requests are refused until then.
//!
//! Records of jobs that run are kept in memory, of all others only what the order of starting needs: ten thousand
//! queued jobs are ten thousand small entries. `requests.rs` holds what callers ask for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::clock::Clock;
use super::inspect::Inspection;
use super::link::{Ended, Reason, Refused, Reply, Request, Start};
use super::runs::{self, Ears};
use super::scheduler::{self, Candidate};
use super::shared::Shared;
use crate::api::backend::{News, WorkerInfo};
use crate::error::{Error, ExitCode};
use crate::job::{
    self, Action, Event, Forced, Input, Job, RefusalReason, RunCommand, RunInput, RunPlan, Transition, What,
};
use crate::limits::{KEYS_KEPT, MANAGER_LOOK, SHUTDOWN_GRACE, STORE_RETRY, SWEEP_EVERY_MS, TAKEN_UP_TOGETHER};
use crate::observe::{Metrics, RunLabels};
use crate::store::control::{Committed, Control, Idempotency, Reader, Retention};
use crate::worker::{Command, Report};

pub use super::requests::Ask;

/// What the spawner's link gives the manager.
#[derive(Debug)]
pub enum Heard {
    Line(Reply),
    /// The other side has gone.
    Lost(String),
}

/// What the settings say of it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub jobs_max: usize,
    /// Jobs that have ended are kept for so long.
    pub retention: Duration,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Manager {
    pub(super) store: Control,
    pub(super) reader: Reader,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    rules: Rules,
    link: Sender<Request>,
    /// Jobs that would start a run.
    waiting: HashMap<Uuid, Candidate>,
    /// When jobs are to be looked at again, in order and by job.
    wakes: BTreeSet<(u64, Uuid)>,
    wake_of: HashMap<Uuid, u64>,
    runs: HashMap<Uuid, Run>,
    run_of: HashMap<Uuid, Uuid>,
    /// Records of jobs that run.
    records: HashMap<Uuid, Job>,
    /// What jobs are still to be told, in order; the store did not take it, or it follows from an action.
    owed: VecDeque<Owed>,
    store_failed: Option<Instant>,
    stopping: Option<Stopping>,
    sweep_at_ms: u64,
}

/// A worker that runs.
#[derive(Debug)]
struct Run {
    job: Uuid,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// A run of the job; with which number, and who listens.
    OfJob {
        number: u32,
        ears: Box<Ears>,
    },
    Inspection(Inspection),
}

/// What a job is to be told, with what is to be stored beside it.
#[derive(Debug)]
struct Owed {
    job: Uuid,
    /// Of which run; of an earlier one nothing is told any more.
    number: Option<u32>,
    input: Option<Input>,
    events: Vec<What>,
}

#[derive(Debug)]
struct Stopping {
    until: Instant,
    done: Option<oneshot::Sender<()>>,
}

/// How the manager's work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Over {
    /// It was asked to stop.
    Stopped,
    /// The spawner has gone, and nothing can run.
    SpawnerLost(String),
}

impl Manager {
    /// Takes every job up that has not ended. `link` is where requests to the spawner go.
    ///
    /// # Errors
    /// The store's.
    pub fn new(store: Control, shared: Arc<Shared>, rules: Rules, link: Sender<Request>) -> Result<Self, Error> {
        let reader = store.reader()?;
        let mut manager = Self {
            store,
            reader,
            shared,
            clock: Clock::new(),
            rules,
            link,
            waiting: HashMap::new(),
            wakes: BTreeSet::new(),
            wake_of: HashMap::new(),
            runs: HashMap::new(),
            run_of: HashMap::new(),
            records: HashMap::new(),
            owed: VecDeque::new(),
            store_failed: None,
            stopping: None,
            sweep_at_ms: 0,
        };
        manager.take_up()?;
        Ok(manager)
    }

    /// The jobs of an earlier life: whatever they believed to run does not run any more.
    fn take_up(&mut self) -> Result<(), Error> {
        let mut steps = Vec::new();
        for record in self.reader.unfinished()? {
            let now_ms = self.clock.now_ms();
            match job::step(&record, Input::Command(job::Command::Restarted), now_ms) {
                Ok(step) => steps.push((step, record.generation)),
                Err(refusal) => tracing::error!(job = %record.id, %refusal, "a job could not be taken up"),
            }
            if steps.len() >= TAKEN_UP_TOGETHER {
                self.commit(std::mem::take(&mut steps), None)?;
            }
        }
        self.commit(steps, None)
    }

    /// Works until it is asked to stop and every run has ended, or until the spawner is gone.
    pub fn work(mut self, asks: &Receiver<Ask>, heard: &Receiver<Heard>) -> Over {
        loop {
            self.settle();
            self.schedule();
            self.publish_counts();
            if self.is_done() {
                return Over::Stopped;
            }
            let patience = self.patience();
            crossbeam_channel::select! {
                recv(heard) -> line => match line {
                    Ok(Heard::Line(reply)) => self.hear(reply),
                    Ok(Heard::Lost(why)) => return self.lost(why),
                    Err(_) => return self.lost("the thread that read its lines has ended".into()),
                },
                recv(asks) -> ask => match ask {
                    Ok(ask) => self.asked(ask),
                    // Nobody is left who could ask; that alone ends nothing.
                    Err(_) => std::thread::sleep(patience),
                },
                default(patience) => {}
            }
        }
    }

    fn lost(&mut self, why: String) -> Over {
        if self.stopping.is_some() {
            return Over::Stopped;
        }
        self.shared.set_readiness(|ready| ready.spawner = Err(why.clone()));
        Over::SpawnerLost(why)
    }

    /// Comes to an end: runs are asked for a safe point, and nothing is begun any more.
    pub(super) fn stop(&mut self, done: oneshot::Sender<()>) {
        for run in self.runs.keys() {
            let _ = self.link.send(Request::Cancel { run: *run });
        }
        self.stopping = Some(Stopping { until: Instant::now() + SHUTDOWN_GRACE, done: Some(done) });
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn is_done(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let over = self.runs.is_empty() && self.owed.is_empty();
        if over || Instant::now() >= stopping.until {
            if let Some(done) = stopping.done.take() {
                // Who asked may be gone.
                let _ = done.send(());
            }
            return true;
        }
        false
    }

    /// For how long nothing is to be done unless somebody comes.
    fn patience(&mut self) -> Duration {
        if self.stopping.is_some() {
            return Duration::from_millis(50);
        }
        if !self.owed.is_empty() {
            return STORE_RETRY;
        }
        let now_ms = self.clock.now_ms();
        let wake = self.wakes.first().map_or(u64::MAX, |(at, _)| *at).min(self.sweep_at_ms);
        Duration::from_millis(wake.saturating_sub(now_ms)).min(MANAGER_LOOK)
    }

    // -----------------------------------------------------------------------------------------
    // Steps.

    /// A job's record, if there is one.
    pub(super) fn record(&self, id: Uuid) -> Result<Option<Job>, Error> {
        match self.records.get(&id) {
            Some(job) => Ok(Some(job.clone())),
            None => self.reader.job(id),
        }
    }

    /// Stores steps, all or none, then acts on them, then publishes them.
    ///
    /// # Errors
    /// The store's; nothing was done then.
    pub(super) fn commit(
        &mut self,
        steps: Vec<(Transition, u64)>,
        key: Option<(&Idempotency, &str)>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let worth = |step: &Transition| step.changed || !step.events.is_empty();
        let stored = if key.is_some() || steps.iter().any(|(step, _)| worth(step)) {
            let refer: Vec<_> = steps.iter().map(|(step, generation)| (step, *generation)).collect();
            match self.store.commit_all(&refer, key)? {
                Committed::Stored(events) => events,
                Committed::Moved => {
                    for (step, _) in &steps {
                        self.records.remove(&step.job.id);
                    }
                    return Err(Error::Internal { what: "another writer has moved a job".into() });
                }
            }
        } else {
            Vec::new()
        };
        self.count_commit(began, stored.len());
        for (step, _) in steps {
            self.act(step);
        }
        for event in stored {
            self.shared.publish(event.job, News::Event(event));
        }
        Ok(())
    }

    fn count_commit(&self, began: Instant, events: usize) {
        let metrics = &self.shared.metrics;
        metrics.commit.observe(began.elapsed().as_secs_f64());
        metrics.events.inc_by(events as u64);
    }

    /// What a stored step asks for.
    fn act(&mut self, step: Transition) {
        let Transition { job, actions, .. } = step;
        let id = job.id;
        let wake = actions.iter().rev().find_map(|action| match action {
            Action::WakeAt(at) => Some(*at),
            _ => None,
        });
        self.wake_at(id, wake);
        self.note(&job);
        for action in actions {
            match action {
                Action::StartRun(plan) => self.start(&job, &plan),
                Action::StopRun => self.tell_run(id, |run| Request::Cancel { run }),
                Action::KillRun => self.tell_run(id, |run| Request::End { run }),
                Action::TellRun(RunCommand::Limits { bytes_per_s }) => {
                    let line = Command::Limits { bytes_per_s };
                    self.tell_run(id, |run| Request::Tell { run, line });
                }
                Action::WakeAt(_) => {}
            }
        }
    }

    /// Keeps what is needed of a record until its next step.
    fn note(&mut self, job: &Job) {
        if job.run.is_some() {
            self.records.insert(job.id, job.clone());
        } else {
            self.records.remove(&job.id);
        }
        if !job.wants_slot() {
            self.waiting.remove(&job.id);
            return;
        }
        let new = Candidate {
            job: job.id,
            cutover: job.cutover.is_some(),
            priority: job.spec.priority,
            since_ms: job.updated_ms,
        };
        // A change of what it is called does not send it to the end of the queue.
        let since_ms = self.waiting.get(&job.id).map_or(new.since_ms, |before| before.since_ms);
        self.waiting.insert(job.id, Candidate { since_ms, ..new });
    }

    pub(super) fn forget(&mut self, id: Uuid) {
        self.wake_at(id, None);
        self.waiting.remove(&id);
        self.records.remove(&id);
        self.shared.publish(id, News::Deleted);
    }

    fn wake_at(&mut self, id: Uuid, at_ms: Option<u64>) {
        if let Some(before) = self.wake_of.remove(&id) {
            self.wakes.remove(&(before, id));
        }
        if let Some(at_ms) = at_ms {
            self.wakes.insert((at_ms, id));
            self.wake_of.insert(id, at_ms);
        }
    }

    /// Tells a job something, now or as soon as the store takes it, after all that it is told already.
    fn tell(&mut self, owed: Owed) {
        self.owed.push_back(owed);
        if self.store_failed.is_none() {
            self.pay();
        }
    }

    /// Tells jobs what they are owed, until the store does not take it.
    fn pay(&mut self) {
        while let Some(owed) = self.owed.pop_front() {
            match self.step(&owed) {
                Ok(()) => {
                    if self.store_failed.take().is_some() {
                        self.shared.set_readiness(|ready| ready.store = Ok(()));
                    }
                }
                Err(error @ Error::Internal { .. }) => tracing::error!(job = %owed.job, %error, "a step is lost"),
                Err(error) => {
                    tracing::error!(job = %owed.job, %error, "the daemon's file takes nothing; tried again");
                    self.shared.set_readiness(|ready| ready.store = Err(error.to_string()));
                    self.store_failed = Some(Instant::now());
                    self.owed.push_front(owed);
                    return;
                }
            }
        }
    }

    fn step(&mut self, owed: &Owed) -> Result<(), Error> {
        let Some(job) = self.record(owed.job)? else { return Ok(()) };
        if owed.number.is_some_and(|number| job.run.as_ref().is_none_or(|run| run.number != number)) {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let beside = owed.events.iter().map(|what| Event { at_ms: now_ms.max(job.updated_ms), what: what.clone() });
        let Some(input) = owed.input.clone() else {
            let events: Vec<Event> = beside.collect();
            let began = Instant::now();
            let stored = self.store.append(owed.job, &events)?;
            self.count_commit(began, stored.len());
            for event in stored {
                self.shared.publish(owed.job, News::Event(event));
            }
            return Ok(());
        };
        match job::step(&job, input, now_ms) {
            Ok(mut step) => {
                step.events.splice(0..0, beside);
                let group = step.job.spec.group.clone();
                self.commit(vec![(step, job.generation)], None)?;
                if let Some(group) = group {
                    self.follow_group(&job.project, &group)?;
                }
            }
            // Only commands are refused, and these come from callers or from `schedule`.
            Err(refusal) => tracing::warn!(job = %owed.job, %refusal, "an input was refused"),
        }
        Ok(())
    }

    pub(super) const fn store_fails(&self) -> bool {
        self.store_failed.is_some()
    }

    /// A new job is stored: it is known from now on.
    pub(super) fn took(&mut self, job: &Job, events: Vec<job::StoredEvent>) {
        self.note(job);
        for event in events {
            self.shared.publish(event.job, News::Event(event));
        }
    }

    /// What time and the store have left to do.
    fn settle(&mut self) {
        if self.store_failed.is_none_or(|since| since.elapsed() >= STORE_RETRY) {
            self.pay();
        }
        let now_ms = self.clock.now_ms();
        // A job that wants to be woken at once again has its turn after everybody else.
        let due: Vec<Uuid> = self.wakes.iter().take_while(|(at, _)| *at <= now_ms).map(|(_, id)| *id).collect();
        for id in due {
            self.wake_at(id, None);
            self.tell(Owed { job: id, number: None, input: Some(Input::Timer), events: Vec::new() });
        }
        if now_ms >= self.sweep_at_ms && self.stopping.is_none() {
            self.sweep(now_ms);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.sweep_at_ms = now_ms.saturating_add(SWEEP_EVERY_MS);
        let retention = Retention { jobs: Some(self.rules.retention), keys: KEYS_KEPT };
        match self.store.sweep(retention, now_ms) {
            Ok(swept) => {
                if !swept.jobs.is_empty() {
                    // There may be more; callers are served in between.
                    self.sweep_at_ms = now_ms.saturating_add(1000);
                }
                for id in swept.jobs {
                    self.forget(id);
                }
            }
            Err(error) => tracing::error!(%error, "old jobs could not be removed"),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Runs.

    /// Gives the free places to jobs.
    fn schedule(&mut self) {
        if self.stopping.is_some() || self.store_failed.is_some() {
            return;
        }
        let free = self.rules.jobs_max.saturating_sub(self.run_of.len());
        if free == 0 || self.waiting.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        for id in scheduler::choose(self.waiting.values().copied(), free, now_ms) {
            // If it does not start, it says itself what it waits for.
            self.waiting.remove(&id);
            let input = Some(Input::Command(job::Command::Start));
            self.tell(Owed { job: id, number: None, input, events: Vec::new() });
        }
    }

    fn publish_counts(&self) {
        let (running, queued) = (self.run_of.len() as u64, self.waiting.len() as u64);
        self.shared.set_readiness(|ready| (ready.running, ready.queued) = (running, queued));
    }

    fn start(&mut self, job: &Job, plan: &RunPlan) {
        if self.stopping.is_some() {
            // The record says that a run is under way; the next start finds that it is not.
            return;
        }
        let made = runs::specification(job, plan);
        let specification = match made {
            Ok(specification) => specification,
            Err(invalid) => {
                let input = RunInput::Refused {
                    what: invalid.to_string(),
                    remedy: invalid.remedy,
                    reason: RefusalReason::Invalid,
                };
                self.owe_run(job.id, plan.number, input);
                return;
            }
        };
        let run = Uuid::now_v7();
        let namespace = [&job.spec.source, &job.spec.destination].iter().find_map(|s| s.network_namespace.clone());
        let start = Start {
            run,
            project: job.project.clone(),
            specification,
            network_namespace: namespace,
            timeout_s: job.spec.timeout_s,
        };
        let ears = Box::new(Ears::new(plan.purpose));
        self.begin(run, job, purpose_word(plan.purpose), Work::OfJob { number: plan.number, ears }, start);
        self.run_of.insert(job.id, run);
    }

    fn begin(&mut self, run: Uuid, job: &Job, purpose: &str, work: Work, start: Start) {
        let now_ms = self.clock.now_ms();
        let worker = WorkerInfo {
            job: job.id,
            project: job.project.clone(),
            purpose: purpose.into(),
            started_ms: now_ms,
            heard_ms: now_ms,
        };
        self.shared.begins(run, worker);
        self.runs.insert(run, Run { job: job.id, work });
        // Where the link is gone, that is heard and ends the daemon.
        let _ = self.link.send(Request::Start(Box::new(start)));
    }

    /// Starts a worker that reads a job's record.
    pub(super) fn inspect(&mut self, job: &Job, inspection: Inspection, start: Start) {
        let run = start.run;
        self.begin(run, job, "inspect", Work::Inspection(inspection), start);
    }

    pub(super) fn ask_spawner(&self, request: Request) {
        let _ = self.link.send(request);
    }

    fn tell_run(&mut self, job: Uuid, request: impl FnOnce(Uuid) -> Request) {
        match self.run_of.get(&job) {
            Some(run) => self.ask_spawner(request(*run)),
            None => self.owe_end(job),
        }
    }

    /// A job believes in a run that is not there: it is told so, or it would wait for ever.
    fn owe_end(&mut self, job: Uuid) {
        let Some(number) = self.records.get(&job).and_then(|job| job.run.as_ref()).map(|run| run.number) else {
            return;
        };
        let forced = Forced { what: "the run is not there".into(), remedy: "nothing to do: it is started anew".into() };
        self.owe_run(job, number, RunInput::Ended { exit_code: None, forced: Some(forced), moved: false });
    }

    fn owe_run(&mut self, job: Uuid, number: u32, input: RunInput) {
        self.owed.push_back(Owed { job, number: Some(number), input: Some(Input::Run(input)), events: Vec::new() });
    }

    /// A line of the spawner.
    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Hello { .. } => {}
            Reply::Event { run, event } => self.event(run, *event),
            Reply::Remark { run, remark } => {
                if let Some(Run { job, work: Work::OfJob { number, ears } }) = self.runs.get_mut(&run)
                    && let Some(note) = ears.note(&remark)
                {
                    let owed = Owed { job: *job, number: Some(*number), input: None, events: vec![note] };
                    self.tell(owed);
                }
            }
            Reply::Refused { run, refused } => self.refused(run, refused),
            Reply::Ended { run, ended } => self.ended(run, ended),
        }
    }

    fn event(&mut self, run: Uuid, report: Report<'static>) {
        let now_ms = self.clock.now_ms();
        self.shared.heard(run, now_ms);
        let Some(Run { job, work }) = self.runs.get_mut(&run) else { return };
        let id = *job;
        let (number, ears) = match work {
            Work::Inspection(inspection) => return inspection.hear(report),
            Work::OfJob { number, ears } => (*number, ears),
        };
        let pass = self.records.get(&id).map_or(0, |job| job.pass);
        let heard = ears.hear(report, pass);
        let speaks_of_itself = heard.progress.is_some() || !heard.inputs.is_empty();
        let span = if speaks_of_itself { ears.moved_until(now_ms) } else { None };
        // For the plot of its report; it is stored with the next transition, since nothing is decided by it.
        if let (Some(span), Some(job)) = (span.filter(|span| span.bytes > 0), self.records.get_mut(&id)) {
            job.keep_span(span);
        }
        let flush = heard.flush;
        let mut events = heard.events;
        count(&self.shared.metrics, &events, &heard.inputs);
        for input in heard.inputs {
            let events = std::mem::take(&mut events);
            self.tell(Owed { job: id, number: Some(number), input: Some(Input::Run(input)), events });
        }
        if !events.is_empty() {
            self.tell(Owed { job: id, number: Some(number), input: None, events });
        }
        if let Some(progress) = heard.progress {
            self.shared.stands(id, progress);
        }
        if flush {
            self.flush(run, pass);
        }
    }

    /// Writes the rows that a run's listener has gathered.
    fn flush(&mut self, run: Uuid, pass: u32) {
        let Some(Run { job, work: Work::OfJob { ears, .. } }) = self.runs.get_mut(&run) else { return };
        let written = (|| {
            if !ears.failures.is_empty() {
                self.store.record_failures(*job, pass, &ears.failures)?;
                ears.failures.clear();
            }
            if !ears.losses.is_empty() {
                self.store.record_losses(*job, pass, &ears.losses)?;
                ears.losses.clear();
            }
            Ok::<(), Error>(())
        })();
        if let Err(error) = written {
            // They stay, and are written with those that follow.
            tracing::error!(job = %job, %error, "rows of failed entries could not be written");
        }
    }

    fn refused(&mut self, run: Uuid, refused: Refused) {
        let Some(found) = self.runs.get_mut(&run) else { return };
        match &mut found.work {
            Work::Inspection(inspection) => inspection.refused(refused),
            Work::OfJob { number, .. } => {
                let (job, number) = (found.job, *number);
                let reason = match refused.reason {
                    Reason::NotAllowed => RefusalReason::NotAllowed,
                    Reason::Invalid => RefusalReason::Invalid,
                    Reason::Resources => RefusalReason::Resources,
                };
                // Its last line follows at once and says nothing more.
                self.remove(run);
                self.owe_run(job, number, RunInput::Refused { what: refused.what, remedy: refused.remedy, reason });
            }
        }
    }

    fn ended(&mut self, run: Uuid, ended: Ended) {
        let Some(job) = self.runs.get(&run).map(|run| run.job) else { return };
        let (pass, asked) =
            self.records.get(&job).map_or((0, false), |job| (job.pass, job.run.as_ref().is_some_and(|r| r.stopping)));
        self.flush(run, pass);
        let Some(found) = self.remove(run) else { return };
        let (number, ears) = match found.work {
            Work::Inspection(inspection) => return inspection.ended(&ended),
            Work::OfJob { number, ears } => (number, ears),
        };
        if self.stopping.is_some() && !asked && ended.exit_code == ExitCode::Stopped as u8 {
            // It was the daemon that stopped it, and not its job: the job goes on at the next start.
            return;
        }
        if let Err(error) = self.store.end_pass(job, pass) {
            tracing::error!(job = %job, %error, "failures of earlier passes could not be removed");
        }
        let kind = self.records.get(&job).map_or("unknown", |job| job.kind().word());
        self.shared.metrics.runs.get_or_create(&RunLabels { kind, exit_code: ended.exit_code }).inc();
        if ended.forced.is_some() {
            self.shared.metrics.worker_deaths.inc();
        }
        let forced = ended.forced.map(|forced| Forced { what: forced.what, remedy: forced.remedy });
        let input = RunInput::Ended { exit_code: Some(ended.exit_code), forced, moved: ears.moved() };
        self.owe_run(job, number, input);
    }

    fn remove(&mut self, run: Uuid) -> Option<Run> {
        let found = self.runs.remove(&run)?;
        let of_job = matches!(found.work, Work::OfJob { .. });
        if of_job && self.run_of.get(&found.job) == Some(&run) {
            self.run_of.remove(&found.job);
        }
        self.shared.ends(run, of_job.then_some(found.job));
        Some(found)
    }
}

const fn purpose_word(purpose: job::Purpose) -> &'static str {
    match purpose {
        job::Purpose::Pass => "pass",
        job::Purpose::CutoverPass => "cutover_pass",
        job::Purpose::Confirm => "confirm",
        job::Purpose::Verify => "verify",
    }
}

/// Counts what a run says of itself.
fn count(metrics: &Metrics, events: &[What], inputs: &[RunInput]) {
    let stalls = events.iter().filter(|event| matches!(event, What::Stall { .. })).count();
    metrics.stalls.inc_by(stalls as u64);
    for input in inputs {
        if let RunInput::Summary(summary) = input {
            metrics.bytes_copied.inc_by(summary.bytes_copied);
            metrics.bytes_verified.inc_by(summary.bytes_verified);
            metrics.entries_failed.inc_by(summary.failed);
        }
    }
}
