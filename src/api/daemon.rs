//! The daemon itself: what it can do, whether it is well, who works, what was counted.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

use super::Shared;
use super::backend::{Readiness, WorkerInfo};
use super::input::{Query, Who};
use super::problem::Problem;
use super::version::{MAX, MIN};
use crate::job::{JobPatch, JobSpec, Kind, SCHEMA};
use crate::observe::{self, JobLabels};

/// What this daemon can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "control planes of this field know it by that name")]
pub struct Capabilities {
    /// The version of copyd.
    pub copyd: String,
    pub api: ApiVersions,
    /// Kinds of jobs.
    pub kinds: Vec<Kind>,
    pub specification: SpecificationForm,
    /// How an `export` may begin.
    pub exports: Vec<String>,
    pub capabilities: Common,
}

/// The range of microversions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiVersions {
    #[schema(pattern = r"^1\.[0-9]+$")]
    pub min_version: String,
    #[schema(pattern = r"^1\.[0-9]+$")]
    pub max_version: String,
}

/// What a specification may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpecificationForm {
    pub schema: u32,
    /// Its fields.
    pub fields: Vec<String>,
    /// Those that can be changed while the job lives.
    pub changeable: Vec<String>,
}

/// Capabilities by the names that control planes of this field have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Common {
    /// Holes stay holes.
    pub thin_provisioning: bool,
    /// Every byte can be allocated.
    pub thick_provisioning: bool,
    /// Blocks are shared instead of copied where both sides lie on one file system that can.
    pub reflink: bool,
    /// Equal files are found and stored once.
    pub dedupe: bool,
    pub compression: bool,
    /// A snapshot can be the source by itself. A directory in which one is mounted can be in any case.
    pub snapshot_source: bool,
    pub nfs: bool,
    pub cifs: bool,
    /// Directories of the machine that the daemon runs on.
    pub local: bool,
    /// The destination can be kept a replica.
    pub replication: bool,
    /// The destination of a replication can become the source.
    pub promote: bool,
    pub reverse: bool,
    /// A share can be made equal to an earlier state of it.
    pub revert_to_snapshot: bool,
    pub consistency_groups: bool,
    /// Bytes a second can be bound, also while a job runs.
    pub bandwidth_limit: bool,
    /// Jobs can be bound to hours of the day.
    pub time_windows: bool,
    /// Every byte can be read back and compared.
    pub verification: bool,
}

/// Nothing here is a plan: each is what this version does.
const COMMON: Common = Common {
    thin_provisioning: true,
    thick_provisioning: true,
    reflink: true,
    dedupe: false,
    compression: false,
    snapshot_source: false,
    nfs: false,
    cifs: false,
    local: true,
    replication: true,
    promote: false,
    reverse: false,
    revert_to_snapshot: true,
    consistency_groups: true,
    bandwidth_limit: true,
    time_windows: true,
    verification: true,
};

/// What this daemon can do.
#[utoipa::path(get, path = "/v1/capabilities", tag = "daemon", operation_id = "show_capabilities",
    responses((status = 200, description = "The capabilities", body = Capabilities)))]
pub async fn capabilities(_: Who, query: Query) -> Result<axum::Json<Capabilities>, Problem> {
    query.end()?;
    Ok(axum::Json(Capabilities {
        copyd: env!("CARGO_PKG_VERSION").into(),
        api: ApiVersions { min_version: MIN.to_string(), max_version: MAX.to_string() },
        kinds: Kind::ALL.to_vec(),
        specification: SpecificationForm {
            schema: SCHEMA,
            fields: fields::<JobSpec>(),
            changeable: fields::<JobPatch>(),
        },
        exports: vec!["/".into(), "file:///".into()],
        capabilities: COMMON,
    }))
}

/// The fields of a type, as the types themselves say.
fn fields<T: PartialSchema>() -> Vec<String> {
    let schema = serde_json::to_value(T::schema()).unwrap_or_default();
    let properties = schema.get("properties").and_then(|found| found.as_object());
    properties.into_iter().flat_map(|found| found.keys().cloned()).collect()
}

/// The workers that run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    pub workers: Vec<WorkerInfo>,
}

/// The workers that run for jobs that the caller may see.
#[utoipa::path(get, path = "/v1/workers", tag = "daemon", operation_id = "list_workers",
    responses((status = 200, description = "The workers", body = WorkerList)))]
pub async fn workers(State(shared): State<Shared>, who: Who, query: Query) -> Result<axum::Json<WorkerList>, Problem> {
    query.end()?;
    let mut workers = shared.backend.workers();
    workers.retain(|worker| who.0.projects.has(&worker.project));
    Ok(axum::Json(WorkerList { workers }))
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    #[schema(example = "ok")]
    pub status: String,
    /// What is not as it should be, in words.
    pub troubles: Vec<String>,
}

/// Whether the daemon answers.
#[utoipa::path(get, path = "/healthz", tag = "daemon", operation_id = "health", security(()),
    responses((status = 200, description = "It does", body = Health)))]
pub async fn healthz() -> axum::Json<Health> {
    axum::Json(Health { status: "ok".into(), troubles: Vec::new() })
}

/// Whether the daemon can take jobs and run them.
#[utoipa::path(get, path = "/readyz", tag = "daemon", operation_id = "readiness", security(()),
    responses((status = 200, description = "It can", body = Health), (status = 503, description = "It can't now", body = Health)))]
pub async fn readyz(State(shared): State<Shared>) -> Response {
    let Readiness { store, spawner, .. } = shared.backend.readiness();
    // Where the trouble is suffices for whoever is not known; the log has the rest.
    let troubles: Vec<String> = [("store", store), ("spawner", spawner)]
        .into_iter()
        .filter_map(|(part, state)| state.err().map(|_| format!("the {part} does not answer")))
        .collect();
    let (status, word) =
        if troubles.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    (status, axum::Json(Health { status: word.into(), troubles })).into_response()
}

/// What was counted, in the text form of OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "daemon", operation_id = "metrics",
    responses((status = 200, description = "The metrics", content((String = "application/openmetrics-text")))))]
pub async fn metrics(State(shared): State<Shared>, _: Who) -> Result<Response, Problem> {
    let counts = shared.read(|reader| reader.counts().map_err(|error| super::unreadable(&error))).await?;
    let labelled = counts.into_iter().map(|of| (JobLabels { kind: of.kind.word(), state: of.state.word() }, of.jobs));
    shared.metrics.set_jobs(labelled);
    let text = shared.metrics.text().map_err(|error| {
        tracing::error!(%error, "the metrics can't be written");
        Problem::internal()
    })?;
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(observe::MEDIA_TYPE));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_types() {
        let known = fields::<JobSpec>();
        for field in ["schema", "kind", "source", "destination", "max_delete", "private_data"] {
            assert!(known.iter().any(|name| name == field), "{field} is missing in {known:?}");
        }
        let changeable = fields::<JobPatch>();
        assert!(changeable.iter().all(|name| known.contains(name)), "{changeable:?}");
        assert!(!changeable.iter().any(|name| name == "source"));
    }
}
