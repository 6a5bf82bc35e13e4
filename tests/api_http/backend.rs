//! A daemon without workers: the real store and the real state machine, and nothing that runs.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use copyd::api::Backend;
use copyd::api::backend::{
    Answered, Caller, CommandGroup, CommandJob, CreateGroup, CreateJob, Denied, Inspection, Later, News, Progress,
    Published, Readiness, WorkerInfo,
};
use copyd::job::{self, Event, Group, Input, Job, JobSpec, StoredEvent, What};
use copyd::store::StateDir;
use copyd::store::control::{
    Committed, Control, Created, Deleted, GroupDeleted, GroupMade, Idempotency, Keyed, Readers,
};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

/// Few, so that a subscriber that is slow misses some.
const NEWS_KEPT: usize = 8;

pub struct Daemon {
    control: Mutex<Control>,
    readers: Readers,
    news: broadcast::Sender<Arc<Published>>,
    pub well: Mutex<bool>,
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("it is earlier than the end of time")
}

fn broken(error: impl std::fmt::Display) -> Denied {
    Denied::Internal { what: error.to_string() }
}

impl Daemon {
    pub fn new(directory: &Path) -> Arc<Self> {
        let state = StateDir::open(directory).expect("the directory can be used");
        let control = Control::open(&state, 10_000).expect("the store can be opened");
        let readers = control.readers();
        let news = broadcast::Sender::new(NEWS_KEPT);
        Arc::new(Self { control: Mutex::new(control), readers, news, well: Mutex::new(true) })
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().expect("no test panics while it holds the store")
    }

    fn publish(&self, events: Vec<StoredEvent>) {
        for event in events {
            self.tell(event.job, News::Event(event));
        }
    }

    fn tell(&self, job: Uuid, what: News) {
        // Nobody may be listening.
        let _ = self.news.send(Arc::new(Published { job, what }));
    }

    /// Something happens to a job.
    pub fn note(&self, job: Uuid, text: &str) {
        let event = Event { at_ms: now_ms(), what: What::Note { text: text.into() } };
        let mut control = self.control();
        let stored = control.append(job, &[event]).expect("it can be stored");
        self.publish(stored);
    }

    pub fn progress(&self, job: Uuid, percent: u8) {
        self.tell(job, News::Progress(Progress { percent, ..Progress::default() }));
    }

    fn create_now(&self, request: CreateJob) -> Result<Answered<Job>, Denied> {
        let job = Job::new(Uuid::now_v7(), request.spec, now_ms());
        let answer = serde_json::to_string(&job).map_err(broken)?;
        let key = request.idempotency.as_ref().map(|key| (key, answer.as_str()));
        match self.control().create(&job, &job::created(&job), key).map_err(broken)? {
            Created::Stored(events) => {
                self.publish(events);
                Ok(Answered { value: job, replayed: false })
            }
            Created::Replay(text) => replay(&text),
            Created::KeyReused => Err(Denied::KeyReused),
            Created::UnknownGroup => {
                Err(Denied::Conflict { what: "there is no such group".into(), remedy: "make the group first".into() })
            }
        }
    }

    fn command_now(&self, request: CommandJob) -> Result<Answered<Job>, Denied> {
        let mut control = self.control();
        if let Some(answered) = keyed(&control, request.idempotency.as_ref())? {
            return Ok(answered);
        }
        let job = self.job(request.id)?;
        if let Some(seen) = request.if_match.filter(|seen| *seen != job.generation) {
            assert_ne!(seen, job.generation);
            return Err(Denied::Precondition { generation: job.generation });
        }
        let step = job::step(&job, Input::Command(request.command), now_ms()).map_err(refused)?;
        let answer = serde_json::to_string(&step.job).map_err(broken)?;
        let key = request.idempotency.as_ref().map(|key| (key, answer.as_str()));
        match control.commit_all(&[(&step, job.generation)], key).map_err(broken)? {
            Committed::Stored(events) => self.publish(events),
            Committed::Moved => return Err(broken("another writer")),
        }
        Ok(Answered { value: step.job, replayed: false })
    }

    fn job(&self, id: Uuid) -> Result<Job, Denied> {
        let reader = self.readers.open().map_err(broken)?;
        reader.job(id).map_err(broken)?.ok_or(Denied::NotFound { what: "job" })
    }

    fn group_now(&self, request: &CommandGroup) -> Result<Answered<Group>, Denied> {
        let reader = self.readers.open().map_err(broken)?;
        let group = reader.group(&request.project, &request.name).map_err(broken)?;
        let group = group.ok_or(Denied::NotFound { what: "group" })?;
        let members = reader.members(&request.project, &request.name).map_err(broken)?;
        let mut control = self.control();
        let mut steps = Vec::new();
        for member in &members {
            let input = Input::Command(request.command.clone());
            steps.push((job::step(member, input, now_ms()).map_err(refused)?, member.generation));
        }
        let steps: Vec<_> = steps.iter().map(|(step, generation)| (step, *generation)).collect();
        match control.commit_all(&steps, None).map_err(broken)? {
            Committed::Stored(events) => self.publish(events),
            Committed::Moved => return Err(broken("another writer")),
        }
        Ok(Answered { value: group, replayed: false })
    }
}

fn replay(text: &str) -> Result<Answered<Job>, Denied> {
    Ok(Answered { value: serde_json::from_str(text).map_err(broken)?, replayed: true })
}

fn keyed(control: &Control, key: Option<&Idempotency>) -> Result<Option<Answered<Job>>, Denied> {
    let Some(key) = key else { return Ok(None) };
    match control.keyed(key).map_err(broken)? {
        Keyed::New => Ok(None),
        Keyed::Replay(text) => replay(&text).map(Some),
        Keyed::Reused => Err(Denied::KeyReused),
    }
}

fn refused(refusal: job::Refusal) -> Denied {
    let job::Refusal { what, remedy, conflict, field } = refusal;
    if conflict { Denied::Conflict { what, remedy } } else { Denied::Invalid { field, what, remedy } }
}

fn soon<T: Send + 'static>(result: Result<T, Denied>) -> Later<'static, T> {
    Box::pin(std::future::ready(result))
}

impl Backend for Daemon {
    fn readers(&self) -> Readers {
        self.readers.clone()
    }

    fn create(&self, request: CreateJob) -> Later<'_, Answered<Job>> {
        soon(self.create_now(request))
    }

    fn command(&self, request: CommandJob) -> Later<'_, Answered<Job>> {
        soon(self.command_now(request))
    }

    fn delete(&self, id: Uuid, if_match: Option<u64>, _: Caller) -> Later<'_, ()> {
        let done = self.job(id).and_then(|job| {
            if if_match.is_some_and(|seen| seen != job.generation) {
                return Err(Denied::Precondition { generation: job.generation });
            }
            match self.control().delete(id).map_err(broken)? {
                Deleted::Done => {
                    self.tell(id, News::Deleted);
                    Ok(())
                }
                Deleted::Unknown => Err(Denied::NotFound { what: "job" }),
                Deleted::NotFinal => {
                    Err(Denied::Conflict { what: "it has not ended".into(), remedy: "cancel it first".into() })
                }
            }
        });
        soon(done)
    }

    fn group_create(&self, request: CreateGroup) -> Later<'_, Answered<Group>> {
        let group = Group { name: request.name, project: request.project, created_ms: now_ms() };
        let made = self.control().create_group(&group).map_err(broken).map(|made| match made {
            GroupMade::Made => Answered { value: group, replayed: false },
            GroupMade::Exists(group) => Answered { value: group, replayed: true },
        });
        soon(made)
    }

    fn group_command(&self, request: CommandGroup) -> Later<'_, Answered<Group>> {
        soon(self.group_now(&request))
    }

    fn group_delete(&self, project: String, name: String, _: Caller) -> Later<'_, ()> {
        let done = self.control().delete_group(&project, &name).map_err(broken).and_then(|done| match done {
            GroupDeleted::Done => Ok(()),
            GroupDeleted::Unknown => Err(Denied::NotFound { what: "group" }),
            GroupDeleted::HasMembers(members) => Err(Denied::Conflict {
                what: format!("it has {members} members"),
                remedy: "delete the jobs first".into(),
            }),
        });
        soon(done)
    }

    fn live(&self, _: Uuid) -> Option<Progress> {
        None
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.news.subscribe()
    }

    fn inspect(&self, id: Uuid, inspection: Inspection) -> Later<'_, mpsc::Receiver<Result<String, Denied>>> {
        let (sender, receiver) = mpsc::channel(4);
        let lines = match inspection {
            Inspection::Why { path } => vec![format!(r#"{{"job":"{id}","bytes":{}}}"#, path.len())],
            Inspection::Manifest => vec![r#"{"n":1}"#.to_owned(), r#"{"n":2}"#.to_owned()],
        };
        tokio::spawn(async move {
            for line in lines {
                // The reader may have gone.
                let _ = sender.send(Ok(line)).await;
            }
        });
        soon(Ok(receiver))
    }

    fn allowed(&self, spec: &JobSpec) -> Result<(), Denied> {
        let sides = [&spec.source.export, &spec.destination.export];
        if sides.iter().all(|export| export.starts_with("/srv/")) {
            return Ok(());
        }
        Err(Denied::Forbidden { what: "the path is not allowed".into(), remedy: "name one below /srv".into() })
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        Vec::new()
    }

    fn readiness(&self) -> Readiness {
        let well = *self.well.lock().expect("no test panics while it holds this");
        let store = if well { Ok(()) } else { Err("/var/lib/secret is full".into()) };
        Readiness { store, spawner: Ok(()), running: 0, queued: 0 }
    }
}
