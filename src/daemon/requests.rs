//! What callers ask of the manager, and what they get.
//!
//! Each request is carried out to its end on the manager's thread: looked up by its key, checked against the
//! record, stepped, stored with its answer, acted on. What was answered with `Ok` is on stable storage, and so is
//! the answer, so a caller that never saw it gets the same one again.

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::inspect::Inspection;
use super::link::{Request, Start};
use super::manager::Manager;
use crate::api::backend::{self, Answered, Caller, CommandGroup, CommandJob, CreateGroup, CreateJob, Denied};
use crate::error::Error;
use crate::job::{self, Command, Group, GroupInput, Input, Job, Refusal, Transition};
use crate::store::control::{Created, Deleted, GroupDeleted, GroupMade, Idempotency, Keyed};
use crate::worker::{Kind, Specification};

/// Where an answer goes; who asked may have gone.
pub type Answer<T> = oneshot::Sender<Result<T, Denied>>;

/// One request.
#[derive(Debug)]
pub enum Ask {
    Create(Box<CreateJob>, Answer<Answered<Job>>),
    Command(Box<CommandJob>, Answer<Answered<Job>>),
    Delete {
        id: Uuid,
        if_match: Option<u64>,
        caller: Caller,
        answer: Answer<()>,
    },
    GroupCreate(Box<CreateGroup>, Answer<Answered<Group>>),
    GroupCommand(Box<CommandGroup>, Answer<Answered<Group>>),
    GroupDelete {
        project: String,
        name: String,
        caller: Caller,
        answer: Answer<()>,
    },
    Inspect {
        run: Uuid,
        id: Uuid,
        what: backend::Inspection,
        lines: Lines,
        answer: Answer<()>,
    },
    /// So many lines of an inspection have reached its reader.
    InspectMore {
        run: Uuid,
        lines: u64,
    },
    /// Its reader has gone.
    InspectGone {
        run: Uuid,
    },
    /// Whether the manager still turns round.
    Alive(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The lines of an inspection. Bounded by what the spawner was allowed to send.
pub type Lines = mpsc::UnboundedSender<Result<String, Denied>>;

fn answer<T>(to: Answer<T>, with: Result<T, Denied>) {
    let _ = to.send(with);
}

impl Manager {
    /// Carries a request out.
    pub(super) fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Create(request, to) => answer(to, self.create(*request)),
            Ask::Command(request, to) => answer(to, self.command(*request)),
            Ask::Delete { id, if_match, caller, answer: to } => answer(to, self.delete(id, if_match, &caller)),
            Ask::GroupCreate(request, to) => answer(to, self.group_create(*request)),
            Ask::GroupCommand(request, to) => answer(to, self.group_command(*request)),
            Ask::GroupDelete { project, name, caller, answer: to } => {
                answer(to, self.group_delete(&project, &name, &caller));
            }
            Ask::Inspect { run, id, what, lines, answer: to } => {
                answer(to, self.begin_inspection(run, id, what, lines));
            }
            Ask::InspectMore { run, lines } => self.ask_spawner(Request::More { run, lines }),
            Ask::InspectGone { run } => self.ask_spawner(Request::Cancel { run }),
            Ask::Alive(to) => drop(to.send(())),
            Ask::Stop(done) => self.stop(done),
        }
    }

    /// Whether anything can be asked for now.
    fn open(&self) -> Result<(), Denied> {
        let why = if self.is_stopping() {
            "the daemon is coming to its end"
        } else if self.store_fails() {
            "the record of jobs can't be written now"
        } else {
            return Ok(());
        };
        Err(Denied::Unavailable { what: why.into(), remedy: "ask again in a while".into() })
    }

    fn create(&mut self, request: CreateJob) -> Result<Answered<Job>, Denied> {
        self.open()?;
        let CreateJob { spec, idempotency, .. } = request;
        let now_ms = self.clock.now_ms();
        let new = Job::new(Uuid::now_v7(), spec, now_ms);
        let text = recorded(&new)?;
        let key = idempotency.as_ref().map(|key| (key, text.as_str()));
        match self.store.create(&new, &job::created(&new), key).map_err(|error| unwritten(&error))? {
            Created::Stored(events) => {
                self.took(&new, events);
                Ok(Answered { value: new, replayed: false })
            }
            Created::Replay(answer) => replayed(&answer),
            Created::KeyReused => Err(Denied::KeyReused),
            Created::UnknownGroup => Err(Denied::Invalid {
                field: Some("group".into()),
                what: "there is no such group".into(),
                remedy: "make the group first, or leave it out".into(),
            }),
        }
    }

    fn command(&mut self, request: CommandJob) -> Result<Answered<Job>, Denied> {
        self.open()?;
        let CommandJob { id, command, if_match, idempotency, caller } = request;
        if let Some(answer) = self.known(idempotency.as_ref())? {
            return replayed(&answer);
        }
        let job = self.of_caller(id, &caller)?;
        if if_match.is_some_and(|generation| generation != job.generation) {
            return Err(Denied::Precondition { generation: job.generation });
        }
        let step = job::step(&job, Input::Command(command), self.clock.now_ms()).map_err(refused)?;
        let (value, group) = (step.job.clone(), step.job.spec.group.clone());
        let text = recorded(&value)?;
        let key = idempotency.as_ref().map(|key| (key, text.as_str()));
        self.commit(vec![(step, job.generation)], key).map_err(|error| unwritten(&error))?;
        if let Some(group) = group
            && let Err(error) = self.follow_group(&job.project, &group)
        {
            // The command itself stands; the group is looked at again with the next step of a member.
            tracing::error!(job = %id, %error, "the group could not follow");
        }
        Ok(Answered { value, replayed: false })
    }

    fn known(&self, key: Option<&Idempotency>) -> Result<Option<String>, Denied> {
        let Some(key) = key else { return Ok(None) };
        match self.store.keyed(key).map_err(|error| unwritten(&error))? {
            Keyed::New => Ok(None),
            Keyed::Replay(answer) => Ok(Some(answer)),
            Keyed::Reused => Err(Denied::KeyReused),
        }
    }

    /// The job, if the caller may know of it.
    fn of_caller(&self, id: Uuid, caller: &Caller) -> Result<Job, Denied> {
        let found = self.record(id).map_err(|error| unwritten(&error))?;
        found.filter(|job| caller.projects.has(&job.project)).ok_or(Denied::NotFound { what: "job" })
    }

    fn delete(&mut self, id: Uuid, if_match: Option<u64>, caller: &Caller) -> Result<(), Denied> {
        self.open()?;
        let job = self.of_caller(id, caller)?;
        if if_match.is_some_and(|generation| generation != job.generation) {
            return Err(Denied::Precondition { generation: job.generation });
        }
        match self.store.delete(id).map_err(|error| unwritten(&error))? {
            Deleted::Done => {
                self.forget(id);
                Ok(())
            }
            Deleted::Unknown => Err(Denied::NotFound { what: "job" }),
            Deleted::NotFinal => Err(Denied::Conflict {
                what: format!("the job is {}: only the record of a job that has ended is removed", job.state.word()),
                remedy: "cancel it first".into(),
            }),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Groups.

    fn group_create(&mut self, request: CreateGroup) -> Result<Answered<Group>, Denied> {
        self.open()?;
        let CreateGroup { project, name, .. } = request;
        let group = Group { name, project, created_ms: self.clock.now_ms() };
        match self.store.create_group(&group).map_err(|error| unwritten(&error))? {
            GroupMade::Made => Ok(Answered { value: group, replayed: false }),
            GroupMade::Exists(group) => Ok(Answered { value: group, replayed: true }),
        }
    }

    fn group_delete(&mut self, project: &str, name: &str, caller: &Caller) -> Result<(), Denied> {
        self.open()?;
        if !caller.projects.has(project) {
            return Err(Denied::NotFound { what: "group" });
        }
        match self.store.delete_group(project, name).map_err(|error| unwritten(&error))? {
            GroupDeleted::Done => Ok(()),
            GroupDeleted::Unknown => Err(Denied::NotFound { what: "group" }),
            GroupDeleted::HasMembers(members) => Err(Denied::Conflict {
                what: format!("the group has {members} members"),
                remedy: "delete the records of its members first".into(),
            }),
        }
    }

    fn group_command(&mut self, request: CommandGroup) -> Result<Answered<Group>, Denied> {
        self.open()?;
        let CommandGroup { project, name, command, idempotency, caller } = request;
        if let Some(answer) = self.known(idempotency.as_ref())? {
            return replayed(&answer);
        }
        let group = self.reader.group(&project, &name).map_err(|error| unwritten(&error))?;
        let group = group.filter(|_| caller.projects.has(&project)).ok_or(Denied::NotFound { what: "group" })?;
        let members = self.reader.members(&project, &name).map_err(|error| unwritten(&error))?;
        let steps = group_steps(&members, &command, self.clock.now_ms())?;
        let text = recorded(&group)?;
        let key = idempotency.as_ref().map(|key| (key, text.as_str()));
        self.commit(steps, key).map_err(|error| unwritten(&error))?;
        if let Err(error) = self.follow_group(&project, &name) {
            tracing::error!(group = name, %error, "the group could not follow");
        }
        Ok(Answered { value: group, replayed: false })
    }

    /// What a group does after a step of one of its members: all members that it concerns in one transaction.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn follow_group(&mut self, project: &str, name: &str) -> Result<(), Error> {
        /// A member at the barrier, a release or an abort: more steps in a row would be a circle.
        const STEPS: usize = 4;
        for _ in 0..STEPS {
            let members = self.reader.members(project, name)?;
            let Some((input, concerned)) = job::group::barrier(&members) else { return Ok(()) };
            let now_ms = self.clock.now_ms();
            let step = |at: &usize| {
                let member = members.get(*at)?;
                let step = job::step(member, Input::Group(input.clone()), now_ms).ok()?;
                Some((step, member.generation))
            };
            let steps: Vec<_> = concerned.iter().filter_map(step).collect();
            if steps.len() < concerned.len() {
                return Err(Error::Internal { what: format!("a member of the group {name} refuses what all do") });
            }
            self.commit(steps, None)?;
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // The engine's own record.

    fn begin_inspection(&mut self, run: Uuid, id: Uuid, what: backend::Inspection, lines: Lines) -> Result<(), Denied> {
        self.open()?;
        let found = self.record(id).map_err(|error| unwritten(&error))?;
        let job = found.ok_or(Denied::NotFound { what: "job" })?;
        let Some(engine_job) = job.engine_job else {
            return Err(Denied::Conflict {
                what: "nothing is known of the job's entries: no pass has begun".into(),
                remedy: "ask again when it has copied something".into(),
            });
        };
        let mut specification = Specification::new(Kind::Inspect, None, std::path::Path::new(""));
        specification.destination = crate::worker::End::default();
        specification.job = Some(engine_job.to_string());
        if let backend::Inspection::Why { path } = &what {
            (specification.path, specification.path_b64) = crate::worker::text_or_base64(path);
        }
        let start =
            Start { run, project: job.project.clone(), specification, network_namespace: None, timeout_s: None };
        self.inspect(&job, Inspection::new(lines), start);
        Ok(())
    }
}

/// The steps of all members that a command concerns.
fn group_steps(members: &[Job], command: &Command, now_ms: u64) -> Result<Vec<(Transition, u64)>, Denied> {
    let (concerned, input): (Vec<usize>, Input) = match command {
        Command::Cutover => (job::group::cutover(members).map_err(refused)?, Input::Group(GroupInput::Cutover)),
        command => {
            let alive = (0..members.len()).filter(|at| !members[*at].state.is_final()).collect();
            (alive, Input::Command(command.clone()))
        }
    };
    if concerned.is_empty() {
        return Err(Denied::Conflict {
            what: "the group has no member that has not ended".into(),
            remedy: "add jobs that name it".into(),
        });
    }
    let step = |at: &usize| {
        let member = &members[*at];
        let step = job::step(member, input.clone(), now_ms).map_err(|refusal| {
            refused(Refusal { what: format!("member {}: {}", member.id, refusal.what), ..refusal })
        })?;
        Ok((step, member.generation))
    };
    concerned.iter().map(step).collect()
}

fn refused(refusal: Refusal) -> Denied {
    let Refusal { what, remedy, conflict, field } = refusal;
    if conflict { Denied::Conflict { what, remedy } } else { Denied::Invalid { field, what, remedy } }
}

fn unwritten(error: &Error) -> Denied {
    tracing::error!(%error, "the daemon's file can't be used");
    match error {
        Error::Internal { what } => Denied::Internal { what: what.clone() },
        error => Denied::Unavailable {
            what: "the record of jobs can't be written now".into(),
            remedy: format!("ask again in a while; {}", error.remedy()),
        },
    }
}

fn recorded(value: &impl serde::Serialize) -> Result<String, Denied> {
    serde_json::to_string(value).map_err(|error| Denied::Internal { what: error.to_string() })
}

fn replayed<T: for<'de> serde::Deserialize<'de>>(answer: &str) -> Result<Answered<T>, Denied> {
    let value = serde_json::from_str(answer).map_err(|error| Denied::Internal { what: error.to_string() })?;
    Ok(Answered { value, replayed: true })
}
