//! Microversions, in the form that the control planes of this field use.
//!
//! A request may say `OpenStack-API-Version: copyd 1.N` (or `latest`); without it the oldest
//! version answers. Every answer of `/v1` says which version it is in, and that it depends on the
//! header. A version that is not spoken is 406 with the range. A header that names no version of
//! copyd, or is misspelt, is 400: taken for the oldest version it would do something else than
//! what was asked for.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Kind, Problem};

/// The header, in requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("openstack-api-version");

/// A version of the API. The first part is that of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

/// The oldest that is spoken.
pub const MIN: Version = Version { major: 1, minor: 0 };
/// The newest that is spoken.
pub const MAX: Version = Version { major: 1, minor: 0 };

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `1.0`: digits only, no sign, no leading nought, so that one version has one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            plain.then(|| text.parse().ok()).flatten()
        };
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: part(major)?, minor: part(minor)? })
    }
}

/// The version in which to answer.
///
/// # Errors
/// The header can't be understood, or asks for a version that is not spoken.
pub fn negotiate(headers: &HeaderMap) -> Result<Version, Problem> {
    let mut wanted = None;
    for value in headers.get_all(HEADER) {
        let text = value.to_str().map_err(|_| malformed("it holds bytes that are not printable"))?;
        // One header may speak to several services, each with its own version.
        for part in text.split(',') {
            match part.trim().split_once(' ') {
                Some(("copyd", version)) if wanted.is_none() => wanted = Some(version.trim().to_owned()),
                Some(("copyd", _)) => return Err(malformed("it names two versions of copyd")),
                _ => {}
            }
        }
    }
    match wanted.as_deref() {
        None if headers.contains_key(HEADER) => Err(malformed("it names no version of copyd")),
        None => Ok(MIN),
        Some("latest") => Ok(MAX),
        Some(text) => {
            let version = Version::parse(text).ok_or_else(|| malformed("the version is not of the form 1.N"))?;
            if (MIN..=MAX).contains(&version) { Ok(version) } else { Err(unspoken(version)) }
        }
    }
}

fn malformed(why: &str) -> Problem {
    let detail = format!("the header OpenStack-API-Version can't be understood: {why}");
    Problem::new(Kind::Invalid, detail, "write `copyd 1.N` or `copyd latest`").of("OpenStack-API-Version")
}

fn unspoken(version: Version) -> Problem {
    let problem = Problem::new(
        Kind::VersionNotAcceptable,
        format!("version {version} is not spoken here"),
        format!("ask for a version from {MIN} to {MAX}"),
    );
    let (min_version, max_version) = (Some(MIN.to_string()), Some(MAX.to_string()));
    Problem { min_version, max_version, ..problem.of("OpenStack-API-Version") }
}

/// Answers each request of `/v1` in its version, and says so. Other paths have no versions.
pub async fn layer(request: Request, next: Next) -> Response<axum::body::Body> {
    let path = request.uri().path();
    if path != "/v1" && !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    let (version, mut response) = match negotiate(request.headers()) {
        Ok(version) => (version, next.run(request).await),
        Err(problem) => (MAX, problem.into_response()),
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("copyd {version}")) {
        headers.insert(HEADER, value);
    }
    headers.append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    response
}

/// The version document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    pub versions: Vec<VersionEntry>,
}

/// One generation of the API: the range of its microversions, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionEntry {
    #[schema(example = "v1")]
    pub id: String,
    #[schema(example = "CURRENT")]
    pub status: String,
    /// The newest microversion.
    #[schema(pattern = r"^1\.[0-9]+$", example = "1.0")]
    pub version: String,
    /// The oldest microversion.
    #[schema(pattern = r"^1\.[0-9]+$", example = "1.0")]
    pub min_version: String,
    pub links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    #[schema(example = "self")]
    pub rel: String,
    #[schema(example = "/v1/")]
    pub href: String,
}

/// Which versions of the API this daemon speaks.
#[utoipa::path(get, path = "/", tag = "daemon", operation_id = "versions", security(()),
    responses((status = 200, description = "The versions", body = Versions)))]
pub async fn document() -> Json<Versions> {
    let link = |rel: &str, href: &str| Link { rel: rel.into(), href: href.into() };
    Json(Versions {
        versions: vec![VersionEntry {
            id: "v1".into(),
            status: "CURRENT".into(),
            version: MAX.to_string(),
            min_version: MIN.to_string(),
            links: vec![link("self", "/v1/"), link("describedby", "/openapi.json")],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(values: &[&str]) -> Result<Version, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_str(value).expect("the test writes headers"));
        }
        negotiate(&headers).map_err(|problem| problem.status)
    }

    #[test]
    fn the_oldest_answers_who_does_not_ask() {
        assert_eq!(asked(&[]), Ok(MIN));
        assert_eq!(asked(&["copyd 1.0"]), Ok(MIN));
        assert_eq!(asked(&["copyd latest"]), Ok(MAX));
        assert_eq!(asked(&["compute 2.53, copyd 1.0"]), Ok(MIN));
        assert_eq!(asked(&["compute 2.53", "copyd 1.0"]), Ok(MIN));
    }

    #[test]
    fn what_is_not_spoken_is_refused_with_the_range() {
        assert_eq!(asked(&["copyd 1.99"]), Err(406));
        assert_eq!(asked(&["copyd 0.9"]), Err(406));
        assert_eq!(asked(&["copyd 2.0"]), Err(406));
        let problem = unspoken(Version { major: 1, minor: 99 });
        assert_eq!((problem.min_version.as_deref(), problem.max_version.as_deref()), (Some("1.0"), Some("1.0")));
    }

    #[test]
    fn what_can_not_be_understood_is_no_silent_minimum() {
        for value in ["", "1.0", "coppyd 1.0", "copyd", "copyd 1", "copyd 1.00", "copyd +1.0", "copyd 1.0, copyd 1.0"] {
            assert_eq!(asked(&[value]), Err(400), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_version_that_is_written_is_read_again(major in 0..9u16, minor in 0..=u16::MAX) {
            let version = Version { major, minor };
            prop_assert_eq!(Version::parse(&version.to_string()), Some(version));
        }

        #[test]
        fn any_header_is_answered(text in "[ -~]{0,40}") {
            let status = asked(&[&text]);
            prop_assert!(matches!(status, Ok(MIN) | Err(400 | 406)), "{:?}", status);
        }
    }
}
