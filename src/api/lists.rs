//! What is on record of a job: its events, the entries that failed, examples of what was lost.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{Id, Query, Who};
use super::page::{NumberedPage, after, limit};
use super::problem::Problem;
use super::{Shared, jobs, stream, unreadable};
use crate::error::{Class, Side};
use crate::fidelity::LossClass;
use crate::job::StoredEvent;
use crate::store::control::{FailureRow, LossRow};

/// A page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    pub events: Vec<StoredEvent>,
    /// The marker of the next page; null where this is the last.
    #[schema(pattern = "^[0-9]{1,18}$")]
    pub next: Option<String>,
}

/// A path from the root of a share. A path that is not UTF-8 is `name_b64`, in standard base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryName {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name_b64: Option<String>,
}

impl From<&[u8]> for EntryName {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { name: Some(text.into()), name_b64: None },
            Err(_) => Self { name: None, name_b64: Some(STANDARD.encode(bytes)) },
        }
    }
}

/// An entry that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedEntry {
    #[serde(flatten)]
    pub name: EntryName,
    /// The pass in which it failed.
    pub pass: u32,
    pub class: Class,
    pub side: Side,
    /// What copyd was doing.
    pub operation: String,
    /// What the system said.
    pub error: Option<String>,
    pub remedy: String,
}

impl From<FailureRow> for FailedEntry {
    fn from(row: FailureRow) -> Self {
        Self {
            name: row.path.as_slice().into(),
            pass: row.pass,
            class: row.class,
            side: row.side,
            operation: row.operation,
            error: row.error,
            remedy: row.class.remedy().into(),
        }
    }
}

/// How many entries of one class failed in a pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedCount {
    pub pass: u32,
    pub class: Class,
    pub entries: u64,
    pub remedy: String,
}

/// A page of entries that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureList {
    /// All that failed, also those of which there are too many to keep their names.
    pub counts: Vec<FailedCount>,
    pub failures: Vec<FailedEntry>,
    /// The marker of the next page; null where this is the last.
    #[schema(pattern = "^[0-9]{1,18}$")]
    pub next: Option<String>,
}

/// An example of what the destination can't hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostEntry {
    #[serde(flatten)]
    pub name: EntryName,
    pub class: LossClass,
    pub detail: String,
}

impl From<LossRow> for LostEntry {
    fn from(row: LossRow) -> Self {
        Self { name: row.path.as_slice().into(), class: row.class, detail: row.detail }
    }
}

/// A page of examples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LossList {
    pub losses: Vec<LostEntry>,
    /// The marker of the next page; null where this is the last.
    #[schema(pattern = "^[0-9]{1,18}$")]
    pub next: Option<String>,
}

/// What happened to a job.
///
/// A page of what is on record, or with `Accept: text/event-stream` a stream: first what is on record after
/// `Last-Event-ID` (or `marker`), then what happens, without a gap and nothing twice. Events of the stream have the
/// `id` and the `type` of their JSON; `progress` has no id, is not on record, and comes at most once a second. The
/// stream ends when the job's record is removed or the daemon stops.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "records", operation_id = "list_events",
    params(("id" = Uuid, Path, description = "The job"), NumberedPage,
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the caller of a stream has had",
            pattern = "^[0-9]{1,18}$")),
    responses((status = 200, description = "The page, or the stream",
        content((EventList = "application/json"), (String = "text/event-stream"))),
        (status = 429, description = "Too many streams are open", body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let (limit, marker) = (limit(&mut query)?, after(&mut query)?);
    query.end()?;
    let last = stream::last_event_id(&headers)?;
    jobs::visible(&shared, &who, id).await?;
    if stream::wanted(&headers) {
        return stream::open(&shared, &who, id, last.unwrap_or(marker));
    }
    let mut events =
        shared.read(move |reader| reader.events(id, marker, limit + 1).map_err(|error| unreadable(&error))).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let next = events.last().filter(|_| more).map(|event| event.id.to_string());
    Ok(axum::Json(EventList { events, next }).into_response())
}

/// The entries that failed in the last pass.
#[utoipa::path(get, path = "/v1/jobs/{id}/failures", tag = "records", operation_id = "list_failures",
    params(("id" = Uuid, Path, description = "The job"), NumberedPage),
    responses((status = 200, description = "The page", body = FailureList)))]
pub async fn failures(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    mut query: Query,
) -> Result<axum::Json<FailureList>, Problem> {
    let (limit, marker) = (limit(&mut query)?, after(&mut query)?);
    query.end()?;
    jobs::visible(&shared, &who, id).await?;
    let (page, counts) = shared
        .read(move |reader| {
            let page = reader.failures(id, marker, limit).map_err(|error| unreadable(&error))?;
            Ok((page, reader.failure_counts(id).map_err(|error| unreadable(&error))?))
        })
        .await?;
    let counts = counts
        .into_iter()
        .map(|c| FailedCount { pass: c.pass, class: c.class, entries: c.entries, remedy: c.class.remedy().into() })
        .collect();
    Ok(axum::Json(FailureList {
        counts,
        failures: page.items.into_iter().map(FailedEntry::from).collect(),
        next: page.next,
    }))
}

/// Examples of what the destination can't hold. The job's totals count all of it.
#[utoipa::path(get, path = "/v1/jobs/{id}/losses", tag = "records", operation_id = "list_losses",
    params(("id" = Uuid, Path, description = "The job"), NumberedPage),
    responses((status = 200, description = "The page", body = LossList)))]
pub async fn losses(
    State(shared): State<Shared>,
    who: Who,
    Id(id): Id,
    mut query: Query,
) -> Result<axum::Json<LossList>, Problem> {
    let (limit, marker) = (limit(&mut query)?, after(&mut query)?);
    query.end()?;
    jobs::visible(&shared, &who, id).await?;
    // A few for each class, so that the whole list is small and its places are markers.
    let all = shared.read(move |reader| reader.losses(id).map_err(|error| unreadable(&error))).await?;
    let from = usize::try_from(marker).unwrap_or(usize::MAX).min(all.len());
    let to = from.saturating_add(limit).min(all.len());
    let next = (to < all.len()).then(|| to.to_string());
    let losses = all.into_iter().skip(from).take(to - from).map(LostEntry::from).collect();
    Ok(axum::Json(LossList { losses, next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_is_base64() {
        let json = |bytes: &[u8]| serde_json::to_string(&EntryName::from(bytes)).unwrap_or_default();
        assert_eq!(json(b"a/b"), r#"{"name":"a/b"}"#);
        assert_eq!(json(b"a\xff"), r#"{"name_b64":"Yf8="}"#);
        assert_eq!(json(b""), r#"{"name":""}"#);
    }
}
