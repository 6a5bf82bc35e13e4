//! Jobs: make one, look at one, look at many, change one, remove its record.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::backend::{CommandJob, CreateJob, Progress, Role};
use super::input::{Id, IfMatch, Json, Key, Query, Who, invalid};
use super::page::{JobPage, Wanted};
use super::problem::{self, Problem};
use super::{Shared, accepted, etag_value, unreadable};
use crate::job::{Command, CommandName, Invalid, Job, JobPatch, JobSpec, Kind, commands_allowed};

/// A job: its record, where it stands, and what it can be told now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    #[serde(flatten)]
    pub job: Job,
    /// Where the run stands; null where there is none, in lists of jobs that wait, and in answers to commands.
    pub progress: Option<Progress>,
    /// What the job can be told now.
    pub commands: Vec<CommandName>,
}

impl JobView {
    /// The view of a record. The same record gives the same view, but for the progress.
    #[must_use]
    pub fn of(mut job: Job, progress: Option<Progress>) -> Self {
        let commands = commands_allowed(&job).into_iter().filter(|name| CommandName::CALLERS.contains(name)).collect();
        // A run's last word is in the totals a moment later; this is the manager's own note of it.
        if let Some(run) = &mut job.run {
            run.summary = None;
        }
        Self { job, progress, commands }
    }
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    pub jobs: Vec<JobView>,
    /// The marker of the next page; null on the last.
    pub next: Option<String>,
}

/// The job, if the caller may see it.
pub(super) async fn visible(shared: &Shared, who: &Who, id: Uuid) -> Result<Job, Problem> {
    let found = shared.read(move |reader| reader.job(id).map_err(|error| unreadable(&error))).await?;
    found.filter(|job| who.0.projects.has(&job.project)).ok_or_else(|| Problem::not_found("job"))
}

/// Make a job.
///
/// The answer comes once the job is stored; it waits for its first run then. With an `Idempotency-Key` the request
/// can be sent again until an answer comes: the job is made once, and the answer is the same.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "create_job", request_body = JobSpec,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it can be repeated",
        pattern = "^[!-~]{1,255}$", min_length = 1, max_length = 255)),
    responses((status = 202, description = "The job is taken on", body = JobView,
        headers(("Location" = String, description = "Where the job is"), ("ETag" = String, description = "Its generation")))))]
pub async fn create(State(shared): State<Shared>, who: Who, key: Key, body: Json) -> Result<Response, Problem> {
    let spec: JobSpec = body.parse_whole()?;
    let caller = who.may(Role::Operate, &spec.project)?.clone();
    // Before the rest is looked at: who may not use a path is not told what else would be wrong.
    shared.backend.allowed(&spec)?;
    spec.check().map_err(invalid)?;
    let idempotency = key.scoped(&caller, &spec.project, "POST /v1/jobs", &spec);
    let made = shared.backend.create(CreateJob { spec, idempotency, caller }).await?;
    Ok(answer(made.value, made.replayed))
}

/// The answer to a change: without progress, so that the same change always has the same answer.
pub(super) fn answer(job: Job, replayed: bool) -> Response {
    let (id, generation) = (job.id, job.generation);
    accepted(&JobView::of(job, None), &format!("/v1/jobs/{id}"), Some(generation), replayed)
}

/// A page of jobs.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(JobPage),
    responses((status = 200, description = "The page", body = JobList)))]
pub async fn list(State(shared): State<Shared>, who: Who, mut query: Query) -> Result<axum::Json<JobList>, Problem> {
    let Wanted { filter, sort, limit, marker } = Wanted::read(&mut query, &who)?;
    query.end()?;
    let page = shared
        .read(move |reader| reader.jobs(&filter, sort, limit, marker).map_err(|error| unreadable(&error)))
        .await?;
    let view = |job: Job| {
        let progress = job.run.as_ref().and_then(|_| shared.backend.live(job.id));
        JobView::of(job, progress)
    };
    Ok(axum::Json(JobList { jobs: page.items.into_iter().map(view).collect(), next: page.next }))
}

/// A job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "show_job",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The job", body = JobView,
        headers(("ETag" = String, description = "Its generation, for If-Match")))))]
pub async fn show(State(shared): State<Shared>, who: Who, Id(id): Id, query: Query) -> Result<Response, Problem> {
    query.end()?;
    let job = visible(&shared, &who, id).await?;
    let tag = etag_value(job.generation);
    let progress = job.run.as_ref().and_then(|_| shared.backend.live(id));
    let mut response = axum::Json(JobView::of(job, progress)).into_response();
    response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// Change a job while it lives.
#[utoipa::path(patch, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "change_job", request_body = JobPatch,
    params(("id" = Uuid, Path, description = "The job"),
        ("If-Match" = Option<String>, Header, description = "The generation that the caller has seen, as ETag has it",
            pattern = r#"^"[0-9]{1,18}"$"#, min_length = 3, max_length = 20),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it can be repeated",
            pattern = "^[!-~]{1,255}$", min_length = 1, max_length = 255)),
    responses((status = 202, description = "The change is stored", body = JobView,
        headers(("Location" = String, description = "Where the job is"), ("ETag" = String, description = "Its generation")))))]
pub async fn change(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    if_match: IfMatch,
    key: Key,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.end()?;
    let patch: JobPatch = body.parse_whole()?;
    let job = visible(&shared, &who, id).await?;
    let caller = who.may(Role::Operate, &job.project)?.clone();
    // The same lists that a new job is held to; a later change of them is the spawner's to enforce.
    let changed = job.spec.patched(&patch).map_err(|wrong| refused(&patch, wrong))?;
    shared.backend.allowed(&changed)?;
    let idempotency = key.scoped(&caller, &job.project, &format!("PATCH /v1/jobs/{id}"), &patch);
    let (command, if_match) = (Command::Patch(patch), if_match.of_job(&job));
    let done = shared.backend.command(CommandJob { id, command, if_match, idempotency, caller }).await?;
    Ok(answer(done.value, done.replayed))
}

/// Why a change can't be made: it is wrong for every job, or only for this one.
fn refused(patch: &JobPatch, wrong: Invalid) -> Problem {
    let others = [Kind::Migrate, Kind::Replicate].map(|kind| JobSpec::new(kind, "/a", "/b").patched(patch));
    let wrong_anyway = others.iter().all(|other| other.as_ref().is_err_and(|found| found.field == wrong.field));
    if wrong_anyway {
        return invalid(wrong);
    }
    let Invalid { field, what, .. } = wrong;
    Problem::new(problem::Kind::Conflict, what, "leave the field out for a job of this kind").of(&field)
}

/// Remove the record of a job that has ended, with its events.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "delete_job",
    params(("id" = Uuid, Path, description = "The job"),
        ("If-Match" = Option<String>, Header, description = "The generation that the caller has seen, as ETag has it",
            pattern = r#"^"[0-9]{1,18}"$"#, min_length = 3, max_length = 20)),
    responses((status = 204, description = "The record is gone")))]
pub async fn delete(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    if_match: IfMatch,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.end()?;
    let job = visible(&shared, &who, id).await?;
    let caller = who.may(Role::Admin, &job.project)?.clone();
    shared.backend.delete(id, if_match.of_job(&job), caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
