//! What the daemon's file promises, on real files.

mod crash;
mod lists;
mod verbs;

use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::error::Error;
use crate::job::{Command, Event, Group, Input, Job, JobSpec, Kind, State, Transition, What, created, step};
use crate::store::StateDir;

const NOW_MS: u64 = 1_770_000_000_000;

fn open(directory: &Path) -> Result<Control, Error> {
    Control::open(&StateDir::open(directory)?, 1000)
}

/// Job `n`, made `n` seconds after the first.
fn job(n: u128, spec: JobSpec) -> Job {
    let now_ms = NOW_MS + u64::try_from(n).expect("a small number") * 1000;
    Job::new(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + n), spec, now_ms)
}

fn migrate() -> JobSpec {
    JobSpec::new(Kind::Migrate, "/a", "/b")
}

fn create(control: &mut Control, job: &Job) {
    let stored = control.create(job, &created(job), None).expect("create");
    assert!(matches!(stored, Created::Stored(events) if events.len() == 1));
}

fn stepped(job: &Job, command: Command) -> Transition {
    step(job, Input::Command(command), job.updated_ms + 1).expect("the command is allowed")
}

/// Steps a job and stores that.
fn commit(control: &mut Control, job: &Job, command: Command) -> Job {
    let step = stepped(job, command);
    let stored = control.commit(&step, job.generation).expect("commit");
    assert!(matches!(stored, Committed::Stored(events) if events.len() == step.events.len()));
    step.job
}

fn note(text: &str) -> Event {
    Event { at_ms: NOW_MS, what: What::Note { text: text.into() } }
}

fn ids(control: &Control, job: &Job) -> Vec<u64> {
    let events = control.reader().expect("reader").events(job.id, 0, 100_000).expect("events");
    events.iter().map(|event| event.id).collect()
}
