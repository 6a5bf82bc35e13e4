//! What a job has to show in the end: its report, its manifest, and what happened to one entry.
//!
//! The report is made from the store. The other two stand in the engine's own state, which this process can't read:
//! a worker does, and its lines are passed on.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::backend::{Denied, Inspection};
use super::input::{Id, Query, Who, path_bytes};
use super::lists::EntryName;
use super::problem::Problem;
use super::{Shared, jobs, unreadable};
use crate::job::{Job, StoredEvent};
use crate::limits::OPEN_PATH_BYTES_MAX;
use crate::report::{Report, Sources};
use crate::store::control::{FailureRow, Reader};

/// Rows that are read at once.
const PAGE: usize = 1000;
/// Events and failed entries that a report looks at.
const ROWS_MAX: usize = 100_000;
/// Facts about one entry: one for each pass that touched it, and some.
const FACTS_MAX: usize = 1000;

/// What was moved, proved, assumed, lost, left hot, failed and deleted, and how long it took.
#[utoipa::path(get, path = "/v1/jobs/{id}/report", tag = "records", operation_id = "show_report",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The report", body = Report)))]
pub async fn report(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    query: Query,
) -> Result<axum::Json<Report>, Problem> {
    query.end()?;
    let job = jobs::visible(&shared, &who, id).await?;
    shared.read(move |reader| make(reader, &job)).await.map(axum::Json)
}

fn make(reader: &Reader, job: &Job) -> Result<Report, Problem> {
    let mut events: Vec<StoredEvent> = Vec::new();
    while events.len() < ROWS_MAX {
        let after = events.last().map_or(0, |event| event.id);
        let page = reader.events(job.id, after, PAGE).map_err(|error| unreadable(&error))?;
        let done = page.len() < PAGE;
        events.extend(page);
        if done {
            break;
        }
    }
    let mut failures: Vec<FailureRow> = Vec::new();
    let mut after = Some(0);
    while let Some(from) = after.filter(|_| failures.len() < ROWS_MAX) {
        let page = reader.failures(job.id, from, PAGE).map_err(|error| unreadable(&error))?;
        after = page.next.as_deref().and_then(|next| next.parse().ok());
        failures.extend(page.items);
    }
    let failure_counts = reader.failure_counts(job.id).map_err(|error| unreadable(&error))?;
    let losses = reader.losses(job.id).map_err(|error| unreadable(&error))?;
    let sources =
        Sources { job, events: &events, failures: &failures, failure_counts: &failure_counts, losses: &losses };
    Ok(Report::of(sources, now_ms()))
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The entry that is asked about.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes a parameter, which is read by hand")]
pub struct OfEntry {
    /// Its path from the root of the share. Each byte may be percent-encoded, so that names that are not UTF-8 can
    /// be asked about.
    #[param(min_length = 1, max_length = 4095, pattern = r"^[^/\x00]+(/[^/\x00]+)*$")]
    path: String,
}

/// What is known of one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntryFacts {
    #[serde(flatten)]
    pub name: EntryName,
    /// In the order in which it was found out; what each holds is said in docs/cli.md.
    #[schema(value_type = Vec<Object>)]
    pub facts: Vec<serde_json::Value>,
}

/// What happened to one entry, and why.
#[utoipa::path(get, path = "/v1/jobs/{id}/why", tag = "records", operation_id = "explain_entry",
    params(("id" = Uuid, Path, description = "The job"), OfEntry),
    responses((status = 200, description = "What is known", body = EntryFacts)))]
pub async fn why(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    mut query: Query,
    uri: Uri,
) -> Result<axum::Json<EntryFacts>, Problem> {
    query.one("path")?;
    query.end()?;
    let path = path_bytes(&uri, "path").ok_or_else(|| Problem::invalid("path", "it is missing"))?;
    let parts = path.split(|byte| *byte == b'/').all(|part| !part.is_empty());
    if !parts || path.len() > OPEN_PATH_BYTES_MAX || path.contains(&0) {
        return Err(Problem::invalid("path", "it is no path of an entry"));
    }
    jobs::visible(&shared, &who, id).await?;
    let name = EntryName::from(path.as_slice());
    let mut lines = shared.backend.inspect(id, Inspection::Why { path }).await?;
    let mut facts = Vec::new();
    while let Some(line) = lines.recv().await {
        let fact = serde_json::from_str(&line?).map_err(|_| Problem::internal())?;
        if facts.len() < FACTS_MAX {
            facts.push(fact);
        }
    }
    Ok(axum::Json(EntryFacts { name, facts }))
}

/// Every entry with its digest, one JSON object a line.
#[utoipa::path(get, path = "/v1/jobs/{id}/manifest", tag = "records", operation_id = "show_manifest",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The manifest; one that breaks off is not complete",
        content((String = "application/x-ndjson")))))]
pub async fn manifest(State(shared): State<Shared>, who: Who, Id(id): Id, query: Query) -> Result<Response, Problem> {
    query.end()?;
    jobs::visible(&shared, &who, id).await?;
    let mut lines = shared.backend.inspect(id, Inspection::Manifest).await?;
    // What goes wrong before the first line can still be told.
    let first = match lines.recv().await {
        Some(first) => Some(first?),
        None => None,
    };
    let mut response = Response::new(Body::from_stream(rest(first, lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// The lines as pieces of a body, which breaks off at the first that is an error.
fn rest(
    first: Option<String>,
    lines: mpsc::Receiver<Result<String, Denied>>,
) -> impl futures_util::Stream<Item = Result<Bytes, Denied>> {
    stream::unfold((first, Some(lines)), |(first, lines)| async move {
        let mut lines = lines?;
        let line = match first {
            Some(first) => Ok(first),
            None => lines.recv().await?,
        };
        match line {
            Ok(mut line) => {
                line.push('\n');
                Some((Ok(Bytes::from(line)), (None, Some(lines))))
            }
            Err(denied) => {
                tracing::warn!(%denied, "a manifest broke off");
                Some((Err(denied), (None, None)))
            }
        }
    })
}
