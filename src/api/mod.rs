//! The job API: HTTP over a unix socket or TLS, for control planes and `copyd job`.
//!
//! ```text
//! front.rs        sockets bound; a task for each connection          connections.rs  bounds, who is cut
//!    │ request + Peer
//!    ▼
//! this file       panics, time, metrics ──► version.rs ──► router
//!    │
//!    ▼
//! a handler       input.rs: who (access.rs), path, query, headers, body
//!    │            reads: `Shared::read`, a blocking task with a reader of the store
//!    │            changes: `backend.rs`, the daemon
//!    ▼
//! an answer       JSON in the types that openapi.rs describes, or a problem.rs
//! ```
//!
//! One file a noun: jobs, commands, lists (events, failures, losses), stream (events live), record
//! (report, why, manifest), groups, credentials, daemon (workers, capabilities, health, metrics).
//!
//! What holds everywhere: an answer of 400 or more is a problem document; no list is without a
//! bound; what is in a project that is not the caller's is not found; no handler reads the disk on
//! a thread of the runtime.

mod access;
pub mod backend;
mod commands;
mod connections;
mod credentials;
mod daemon;
mod front;
mod groups;
mod input;
mod jobs;
mod lists;
mod openapi;
mod page;
pub mod problem;
mod record;
mod settings;
mod stream;
pub mod version;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, watch};

pub use access::{Access, Certificate, Peer};
pub use backend::Backend;
pub use credentials::{Credential, Credentials};
pub use front::Front;
pub use jobs::{JobList, JobView};
pub use openapi::text as openapi_text;
pub use settings::{AccessRule, Bounds, Settings, TlsFiles};

use crate::observe::{Metrics, RequestLabels, RouteLabels};
use crate::store::control::Reader;
use problem::{Kind, Problem};
use stream::Streams;

/// What all handlers share.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

/// See [`Shared`].
#[expect(missing_debug_implementations, reason = "it is shown as [`Shared`]")]
pub struct Inner {
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    credentials: Arc<Credentials>,
    access: Access,
    bounds: Bounds,
    /// Requests that read the store take one each, so that a flood of them does not take every
    /// thread, and with them the disk.
    reads: Semaphore,
    streams: Arc<Streams>,
    stop: watch::Receiver<bool>,
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("access", &self.access).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Shared {
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
        credentials: Arc<Credentials>,
        access: Access,
        bounds: Bounds,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let reads = Semaphore::new(bounds.reads_at_once_max);
        let streams = Arc::new(Streams::default());
        Self(Arc::new(Inner { backend, metrics, credentials, access, bounds, reads, streams, stop }))
    }

    /// Reads the store in a blocking task.
    ///
    /// # Errors
    /// The read's own problem, or the store can't be read.
    async fn read<T, F>(&self, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, Problem> + Send + 'static,
    {
        // Never closed.
        let _turn = self.reads.acquire().await.map_err(|_| Problem::internal())?;
        let backend = Arc::clone(&self.backend);
        let done = tokio::task::spawn_blocking(move || {
            let reader = backend.readers().open().map_err(|error| unreadable(&error))?;
            read(&reader)
        })
        .await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "a read of the store panicked");
            Err(Problem::internal())
        })
    }
}

/// What an error of the store is to a caller.
fn unreadable(error: &impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "the store can't be read");
    Problem::new(Kind::Unavailable, "the record of jobs can't be read now", "see the daemon's log, and ask again")
}

/// The whole API.
pub fn router(shared: Shared) -> Router {
    let (router, _) = openapi::routes().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(version::layer))
        .layer(middleware::from_fn_with_state(shared.clone(), around))
        .with_state(shared)
}

async fn no_route() -> Problem {
    Problem::new(Kind::NotFound, "there is nothing at this path", "see /openapi.json for what there is")
}

async fn no_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "nothing is done here with this method", "see the header Allow")
}

/// Around every request: it ends in time, a defect is an answer, and all are counted.
async fn around(State(shared): State<Shared>, request: Request, next: Next) -> Response<Body> {
    let began = Instant::now();
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(shared.bounds.request_timeout, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(method, route, "a handler panicked");
            Problem::internal().into_response()
        }
        Err(_) => Problem::new(
            Kind::Unavailable,
            "the daemon did not come to an answer in time",
            "ask again; with an idempotency key nothing is done twice",
        )
        .into_response(),
    };
    let status = response.status().as_u16();
    shared.metrics.requests.get_or_create(&RequestLabels { method, route: route.clone(), status }).inc();
    shared.metrics.answer.get_or_create(&RouteLabels { route }).observe(began.elapsed().as_secs_f64());
    response
}

/// Few values, whatever a caller sends.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// An answer of 202: the job as it is now, and where to look at it.
fn accepted(view: &impl serde::Serialize, location: &str, etag: Option<u64>, replayed: bool) -> Response<Body> {
    let mut response = (StatusCode::ACCEPTED, axum::Json(view)).into_response();
    let headers = response.headers_mut();
    if let Ok(value) = location.parse() {
        headers.insert(axum::http::header::LOCATION, value);
    }
    if let Some(value) = etag.and_then(etag_value) {
        headers.insert(axum::http::header::ETAG, value);
    }
    if replayed {
        headers.insert("idempotency-replayed", axum::http::HeaderValue::from_static("true"));
    }
    response
}

/// A job's generation as an entity tag.
fn etag_value(generation: u64) -> Option<axum::http::HeaderValue> {
    format!("\"{generation}\"").parse().ok()
}
