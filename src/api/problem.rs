//! Problem documents (RFC 9457): the one place that turns what went wrong into an answer.
//!
//! Every answer with a status of 400 or more is one of [`Kind`], whoever found the fault: a
//! handler, the daemon, the parser of JSON, the router. `type` is stable and is what programs go
//! by; `detail` and `remedy` are for people; `retry` says whether the same request can succeed later.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::backend::Denied;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Whether the same request can succeed another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It can't.
    No,
    /// As it is, after a while.
    Later,
    /// Once it is changed as the remedy says.
    Changed,
}

/// What kinds of problems there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    Malformed,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    VersionNotAcceptable,
    Timeout,
    Conflict,
    PreconditionFailed,
    TooLarge,
    MediaType,
    KeyReused,
    TooMany,
    Internal,
    Unavailable,
}

impl Kind {
    /// The word at the end of `type`, the status, the title and the retry class of each.
    const fn row(self) -> (&'static str, StatusCode, &'static str, Retry) {
        match self {
            Self::Invalid => ("invalid", StatusCode::BAD_REQUEST, "A value is not valid", Retry::Changed),
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The body is not JSON", Retry::Changed),
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "It is not known who asks", Retry::Changed)
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Not allowed", Retry::No),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found", Retry::No),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The resource does not have this method",
                Retry::Changed,
            ),
            Self::VersionNotAcceptable => (
                "version_not_acceptable",
                StatusCode::NOT_ACCEPTABLE,
                "The version is not one that this daemon speaks",
                Retry::Changed,
            ),
            Self::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT, "The request took too long", Retry::Later),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "The state does not allow it", Retry::Later),
            Self::PreconditionFailed => (
                "precondition_failed",
                StatusCode::PRECONDITION_FAILED,
                "The generation is another one",
                Retry::Changed,
            ),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", Retry::Changed),
            Self::MediaType => {
                ("media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another media type", Retry::Changed)
            }
            Self::KeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
                Retry::Changed,
            ),
            Self::TooMany => ("too_many", StatusCode::TOO_MANY_REQUESTS, "Too much at once", Retry::Later),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "A defect of copyd", Retry::Later),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not now", Retry::Later),
        }
    }

    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }
}

/// What went wrong, as RFC 9457 wants it told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "type": "urn:copyd:problem:invalid", "title": "A value is not valid", "status": 400,
    "detail": "unknown field `max_delet`, expected one of `schema`, `kind`", "retry": "changed",
    "remedy": "see /openapi.json for what the field may hold", "field": "max_delet"
}))]
pub struct Problem {
    /// The stable name of the kind of problem.
    #[serde(rename = "type")]
    #[schema(pattern = "^urn:copyd:problem:[a-z_]+$")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened here.
    pub detail: String,
    /// What the caller can do about it.
    pub remedy: String,
    /// Whether the same request can succeed another time.
    pub retry: Retry,
    /// The field, parameter or header that is to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// The oldest version that this daemon speaks; only where the version was the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = r"^1\.[0-9]+$")]
    pub min_version: Option<String>,
    /// The newest version that this daemon speaks; only where the version was the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = r"^1\.[0-9]+$")]
    pub max_version: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (word, status, title, retry) = kind.row();
        Self {
            kind: format!("urn:copyd:problem:{word}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            remedy: remedy.into(),
            retry,
            field: None,
            min_version: None,
            max_version: None,
        }
    }

    /// A value that is not valid, and whose it is.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail, "see /openapi.json for what it may hold").of(field)
    }

    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(
            Kind::NotFound,
            format!("there is no such {what}, or it is in a project that is not the caller's"),
            "check the identifier and the project",
        )
    }

    #[must_use]
    pub fn unauthenticated(detail: &str) -> Self {
        Self::new(
            Kind::Unauthenticated,
            detail,
            "send a bearer token or a client certificate that an access rule names, or ask over the unix socket",
        )
    }

    /// A defect; what it was is in the log and not for the caller's eyes.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "the request could not be carried out", "please report it with the log")
    }

    /// Names the field that is to blame.
    #[must_use]
    pub fn of(mut self, field: &str) -> Self {
        self.field = Some(field.into());
        self
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let text = denied.to_string();
        match denied {
            Denied::NotFound { what } => Self::not_found(what),
            Denied::Conflict { remedy, .. } => Self::new(Kind::Conflict, text, remedy),
            Denied::Precondition { generation } => Self::new(
                Kind::PreconditionFailed,
                format!("the job's generation is {generation} now"),
                "read the job again, and decide again",
            )
            .of("If-Match"),
            Denied::KeyReused => Self::new(
                Kind::KeyReused,
                "this key came with another body before",
                "use a new key for a new request, and the same body to repeat one",
            )
            .of("Idempotency-Key"),
            Denied::Forbidden { remedy, .. } => Self::new(Kind::Forbidden, text, remedy),
            Denied::Invalid { field, remedy, .. } => {
                let problem = Self::new(Kind::Invalid, text, remedy);
                Self { field, ..problem }
            }
            Denied::Unavailable { remedy, .. } => Self::new(Kind::Unavailable, text, remedy),
            Denied::Internal { what } => {
                tracing::error!(what, "a request failed by a defect");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = self.status();
        // Strings and numbers only, which serde_json always writes.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"copyd\""));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_its_status_and_has_a_name_of_its_own() {
        let kinds = [
            (Kind::Invalid, 400),
            (Kind::Malformed, 400),
            (Kind::Unauthenticated, 401),
            (Kind::Forbidden, 403),
            (Kind::NotFound, 404),
            (Kind::MethodNotAllowed, 405),
            (Kind::VersionNotAcceptable, 406),
            (Kind::Timeout, 408),
            (Kind::Conflict, 409),
            (Kind::PreconditionFailed, 412),
            (Kind::TooLarge, 413),
            (Kind::MediaType, 415),
            (Kind::KeyReused, 422),
            (Kind::TooMany, 429),
            (Kind::Internal, 500),
            (Kind::Unavailable, 503),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for (kind, status) in kinds {
            let problem = Problem::new(kind, "d", "r");
            assert!(seen.insert(problem.kind.clone()), "{} stands twice", problem.kind);
            let response = problem.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        }
    }

    #[test]
    fn what_is_absent_is_left_out_and_not_null() {
        let value = serde_json::to_value(Problem::internal()).expect("it is JSON");
        assert!(value.get("field").is_none() && value.get("min_version").is_none(), "{value}");
        let value = serde_json::to_value(Problem::invalid("limit", "no")).expect("it is JSON");
        assert_eq!(value["field"], "limit");
    }

    #[test]
    fn a_defect_keeps_its_cause_from_the_caller() {
        let problem = Problem::from(Denied::Internal { what: "/var/lib/secret".into() });
        assert!(!format!("{problem:?}").contains("secret"));
    }
}
