//! The daemon as the API sees it: requests go into the manager's queue, and the answer comes back.

use std::sync::Arc;

use crossbeam_channel::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::allow::Asked;
use super::requests::{Answer, Ask};
use super::shared::Shared;
use crate::api::backend::{
    Answered, Backend, Caller, CommandGroup, CommandJob, CreateGroup, CreateJob, Denied, Inspection, Later, Progress,
    Published, Readiness, WorkerInfo,
};
use crate::job::{Group, Invalid, Job, JobSpec};
use crate::limits::{INSPECT_LINES_STEP, INSPECT_LINES_WAITING};
use crate::store::control::Readers;

/// See [`Backend`].
#[derive(Clone, Debug)]
pub struct Daemon(Arc<Shared>);

impl Daemon {
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Puts a request into the manager's queue and waits for the answer.
    fn ask<'a, T: Send + 'a>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Later<'a, T> {
        let (to, answer) = oneshot::channel();
        let sent = self.send(ask(to));
        Box::pin(async move {
            sent?;
            // Without an answer the manager has gone, and so will this process.
            answer.await.map_err(|_| ending())?
        })
    }

    fn send(&self, ask: Ask) -> Result<(), Denied> {
        self.0.asks.try_send(ask).map_err(|error| match error {
            TrySendError::Full(_) => Denied::Unavailable {
                what: "too many requests wait for their turn".into(),
                remedy: "ask again in a moment".into(),
            },
            TrySendError::Disconnected(_) => ending(),
        })
    }
}

fn ending() -> Denied {
    Denied::Unavailable { what: "the daemon is coming to its end".into(), remedy: "ask again in a while".into() }
}

impl Backend for Daemon {
    fn readers(&self) -> Readers {
        self.0.readers.clone()
    }

    fn create(&self, request: CreateJob) -> Later<'_, Answered<Job>> {
        self.ask(|to| Ask::Create(Box::new(request), to))
    }

    fn command(&self, request: CommandJob) -> Later<'_, Answered<Job>> {
        self.ask(|to| Ask::Command(Box::new(request), to))
    }

    fn delete(&self, id: Uuid, if_match: Option<u64>, caller: Caller) -> Later<'_, ()> {
        self.ask(|answer| Ask::Delete { id, if_match, caller, answer })
    }

    fn group_create(&self, request: CreateGroup) -> Later<'_, Answered<Group>> {
        self.ask(|to| Ask::GroupCreate(Box::new(request), to))
    }

    fn group_command(&self, request: CommandGroup) -> Later<'_, Answered<Group>> {
        self.ask(|to| Ask::GroupCommand(Box::new(request), to))
    }

    fn group_delete(&self, project: String, name: String, caller: Caller) -> Later<'_, ()> {
        self.ask(|answer| Ask::GroupDelete { project, name, caller, answer })
    }

    fn live(&self, id: Uuid) -> Option<Progress> {
        self.0.live(id)
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.0.subscribe()
    }

    fn inspect(&self, id: Uuid, inspection: Inspection) -> Later<'_, mpsc::Receiver<Result<String, Denied>>> {
        let run = Uuid::now_v7();
        let (lines, coming) = mpsc::unbounded_channel();
        let begun = self.ask(|answer| Ask::Inspect { run, id, what: inspection, lines, answer });
        Box::pin(async move {
            begun.await?;
            let (out, reader) = mpsc::channel(INSPECT_LINES_WAITING);
            tokio::spawn(forward(self.clone(), run, coming, out));
            Ok(reader)
        })
    }

    fn allowed(&self, spec: &JobSpec) -> Result<(), Denied> {
        let invalid = |e: Invalid| Denied::Invalid { field: Some(e.field), what: e.what, remedy: e.remedy };
        let (source, destination) =
            (spec.source.path("source").map_err(invalid)?, spec.destination.path("destination").map_err(invalid)?);
        let sides = [&spec.source, &spec.destination];
        let namespaces: Vec<&str> = sides.iter().filter_map(|side| side.network_namespace.as_deref()).collect();
        let asked = Asked { project: &spec.project, paths: &[&source, &destination], namespaces: &namespaces };
        let judged = self.0.allowed.judge(asked);
        judged.map(drop).map_err(|no| Denied::Forbidden { what: no.what, remedy: no.remedy })
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        self.0.workers()
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness()
    }
}

/// Hands lines on as fast as they are read, and says how many were.
async fn forward(
    daemon: Daemon,
    run: Uuid,
    mut coming: mpsc::UnboundedReceiver<Result<String, Denied>>,
    out: mpsc::Sender<Result<String, Denied>>,
) {
    let mut taken = 0;
    while let Some(line) = coming.recv().await {
        if out.send(line).await.is_err() {
            patiently(&daemon, || Ask::InspectGone { run }).await;
            return;
        }
        taken += 1;
        if taken == INSPECT_LINES_STEP {
            patiently(&daemon, || Ask::InspectMore { run, lines: taken }).await;
            taken = 0;
        }
    }
}

/// What must be said, however many requests wait at the moment.
async fn patiently(daemon: &Daemon, ask: impl Fn() -> Ask) {
    while let Err(TrySendError::Full(_)) = daemon.0.asks.try_send(ask()) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
