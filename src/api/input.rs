//! What comes with a request: path, query, headers, body. Whatever is not as it should be becomes a
//! problem that names its field; no value is guessed and none is ignored.

use axum::RequestPartsExt;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use uuid::Uuid;

use super::Shared;
use super::access::Peer;
use super::backend::{Caller, Role};
use super::problem::{Kind, Problem};
use crate::job;
use crate::store::control::Idempotency;

/// Characters of an idempotency key: a UUID or a digest with room to spare.
pub const KEY_CHARACTERS_MAX: usize = 255;
/// The project of those who name none.
pub const DEFAULT_PROJECT: &str = "default";
/// Bytes that a command without a body may bring along (`{}`).
const EMPTY_BODY_BYTES_MAX: usize = 64;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Who(pub Caller);

impl FromRequestParts<Shared> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().ok_or_else(Problem::internal)?;
        let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
        let authorization = headers.next();
        if headers.next().is_some() {
            return Err(Problem::unauthenticated("there are two headers Authorization").of("Authorization"));
        }
        shared.access.identify(peer, authorization).map(Self)
    }
}

impl Who {
    /// The caller, if it may do that in the project.
    ///
    /// # Errors
    /// It may not.
    pub fn may(&self, role: Role, project: &str) -> Result<&Caller, Problem> {
        let refused = |what: String| {
            Err(Problem::new(Kind::Forbidden, what, "ask for an access rule that allows it, or name another project"))
        };
        if !self.0.projects.has(project) {
            return refused(format!("{} has no part in project {project}", self.0.name));
        }
        if self.0.role < role {
            return refused(format!(
                "{} has the role {}, and {} is needed",
                self.0.name,
                self.0.role.word(),
                role.word()
            ));
        }
        Ok(&self.0)
    }
}

/// The `{id}` of a job in the path.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

impl FromRequestParts<Shared> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        let text = segment(parts).await?;
        uuid(&text).map(Self).ok_or_else(|| Problem::invalid("id", "it is no UUID of the form 8-4-4-4-12"))
    }
}

/// The `{name}` of a group or a secret in the path.
#[derive(Clone, Debug)]
pub struct Name(pub String);

impl FromRequestParts<Shared> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        let name = segment(parts).await?;
        job::word("name", &name).map_err(invalid)?;
        Ok(Self(name))
    }
}

async fn segment(parts: &mut Parts) -> Result<String, Problem> {
    let path: Result<Path<String>, _> = parts.extract().await;
    path.map(|Path(text)| text).map_err(|rejection| Problem::invalid("path", rejection.body_text()))
}

/// One spelling only, the usual one.
pub fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The query, from which a handler takes what it knows; what is left over is refused.
#[derive(Clone, Debug)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl FromRequestParts<Shared> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

impl Query {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::try_from_uri(uri);
        pairs.map(|found| Self { pairs: found.0 }).map_err(|r| Problem::invalid("query", r.body_text()))
    }

    /// Every value of that name.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (found, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = left;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The only value of that name.
    ///
    /// # Errors
    /// There are two.
    pub fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut found = self.all(name).into_iter();
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Problem::invalid(name, "it is there twice")),
        }
    }

    /// The project, of which there is one for those who name none.
    ///
    /// # Errors
    /// It is no name.
    pub fn project(&mut self) -> Result<String, Problem> {
        let project = self.one("project")?.unwrap_or_else(|| DEFAULT_PROJECT.into());
        job::word("project", &project).map_err(invalid)?;
        Ok(project)
    }

    /// Refuses what nobody took: a misspelt filter must not vanish.
    ///
    /// # Errors
    /// There is something left.
    pub fn end(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(name, "there is no such parameter here")),
        }
    }
}

/// Bytes of a path in the query, which need not be UTF-8; `None` where the parameter is not there.
pub fn path_bytes(uri: &Uri, name: &str) -> Option<Vec<u8>> {
    let query = uri.query()?.as_bytes();
    let found = query.split(|byte| *byte == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (parts.next() == Some(name.as_bytes())).then(|| parts.next().unwrap_or_default())
    })?;
    let hex = |at: usize| std::str::from_utf8(found.get(at..at + 2)?).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
    let mut bytes = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        match (found[at], hex(at + 1)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        at += 1;
    }
    Some(bytes)
}

/// A specification or a change that can't be.
pub fn invalid(invalid: job::Invalid) -> Problem {
    let job::Invalid { field, what, remedy } = invalid;
    let problem = Problem::new(Kind::Invalid, what, remedy);
    if field.is_empty() { problem } else { problem.of(&field) }
}

/// A body of JSON, as bytes within the bound.
#[derive(Clone, Debug)]
pub struct Json(pub Bytes);

impl FromRequest<Shared> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                Kind::MediaType,
                "the body is to be of the type application/json",
                "send the header Content-Type: application/json",
            )
            .of("Content-Type"));
        }
        read(request, shared, shared.bounds.body_bytes_max).await.map(Self)
    }
}

impl Json {
    /// The body, an object, in the form of `T`.
    ///
    /// # Errors
    /// It is not JSON, or not of that form; names the field.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let first = self.0.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| *byte != b'{') {
            // A form of ours could be read from a list of its fields, which is not what is described.
            serde_json::from_slice::<IgnoredAny>(&self.0).map_err(|error| json_problem(".", &error))?;
            return Err(Problem::new(Kind::Invalid, "the body is no JSON object", "send an object"));
        }
        let text = whole_numbers(&self.0);
        let mut deserializer = serde_json::Deserializer::from_slice(&text);
        let parsed: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            json_problem(&path, &error.into_inner())
        })?;
        deserializer.end().map_err(|error| json_problem(".", &error))?;
        Ok(parsed)
    }

    /// As [`Json::parse`], and no object within may be given as a list of its fields.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn parse_whole<T: DeserializeOwned + Serialize>(&self) -> Result<T, Problem> {
        let parsed: T = self.parse()?;
        let given = serde_json::from_slice(&self.0).unwrap_or_default();
        let understood = serde_json::to_value(&parsed).unwrap_or_default();
        match list_for_object(&given, &understood) {
            None => Ok(parsed),
            Some(field) => Err(Problem::invalid(&field, "it is a list, and an object is expected")),
        }
    }
}

/// The text with `720.0` as `720`: to JSON both are the same number, but not to a field that is a whole one.
fn whole_numbers(text: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(text.len());
    let (mut quoted, mut escaped, mut at) = (false, false, 0);
    while let Some(byte) = text.get(at) {
        if !quoted
            && *byte == b'.'
            && let Some(length) = idle_fraction(&whole, &text[at + 1..])
        {
            at += 1 + length;
            continue;
        }
        quoted ^= *byte == b'"' && !escaped;
        escaped = quoted && *byte == b'\\' && !escaped;
        whole.push(*byte);
        at += 1;
    }
    whole
}

/// How many noughts stand behind a point, if nothing else does until the number's end.
fn idle_fraction(before: &[u8], behind: &[u8]) -> Option<usize> {
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let first = before.get(before.len().wrapping_sub(digits + 1));
    let zeros = behind.iter().take_while(|digit| **digit == b'0').count();
    let end = behind.get(zeros).is_none_or(|next| matches!(next, b',' | b']' | b'}') || next.is_ascii_whitespace());
    let whole = digits > 0 && first.is_none_or(|byte| !matches!(byte, b'.' | b'e' | b'E' | b'+'));
    (whole && zeros > 0 && end).then_some(zeros)
}

/// The path of a list that was taken for an object.
fn list_for_object(given: &Value, understood: &Value) -> Option<String> {
    match (given, understood) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(name, value)| {
            let inner = list_for_object(value, understood.get(name)?)?;
            Some(if inner.is_empty() { name.clone() } else { format!("{name}.{inner}") })
        }),
        _ => None,
    }
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    if error.classify() != serde_json::error::Category::Data {
        return Problem::new(Kind::Malformed, text, "send one JSON object, in UTF-8");
    }
    // Where it stands in the text is of less help than in which field.
    let text = text.split(" at line ").next().unwrap_or(&text);
    let quoted = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start)?.split_once('`').map(|(name, _)| name));
    let path = if path == "." { "" } else { path };
    let field = match quoted {
        Some(name) if path.is_empty() || path == name => name.to_owned(),
        Some(name) if path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    };
    let problem = Problem::new(Kind::Invalid, text, "see /openapi.json for what it may hold");
    if field.is_empty() { problem } else { problem.of(&field) }
}

/// A command: whatever body it brings says nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

impl FromRequest<Shared> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        let body = read(request, shared, EMPTY_BODY_BYTES_MAX).await?;
        // Clients that send an object with every POST are fine, as long as nothing in it is lost.
        let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body);
        if body.iter().all(u8::is_ascii_whitespace) || object.is_ok_and(|fields| fields.is_empty()) {
            return Ok(Self);
        }
        Err(Problem::new(Kind::Invalid, "this request has no body", "send none, or {}"))
    }
}

/// `application/json`, with parameters or without.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let first = values.next().and_then(|value| value.to_str().ok());
    let essence = first.and_then(|text| text.split(';').next()).map(str::trim);
    values.next().is_none() && essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

async fn read(request: Request, shared: &Shared, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Kind::TooLarge, format!("the body has more than {bytes_max} bytes"), "send less at once");
    let body: Body = request.into_body();
    if hyper::body::Body::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(shared.bounds.body_timeout(), Limited::new(body, bytes_max).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if is_too_large(error.as_ref()) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::Malformed, "the body broke off", "send it again")),
        Err(_) => Err(Problem::new(Kind::Timeout, "the body did not come in time", "send it again, in one go")),
    }
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |cause| cause.source()).any(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// One header's text, if it is there once.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName, shown: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(shown, "the header is there twice"));
    }
    value.to_str().map(Some).map_err(|_| Problem::invalid(shown, "the header has characters that are not printable"))
}

/// `If-Match`: the generations that the caller has seen; `None` for any.
///
/// What is no entity tag of ours is one that never matches (RFC 9110, 13.1.1): a guard that can't be understood holds.
#[derive(Clone, Debug)]
pub struct IfMatch(Option<Vec<u64>>);

impl FromRequestParts<Shared> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        Ok(Self::of(&parts.headers))
    }
}

impl IfMatch {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Self(None);
        }
        let texts: Vec<&str> =
            values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).collect();
        if texts.iter().any(|text| text.trim() == "*") {
            return Self(None);
        }
        Self(Some(texts.into_iter().filter_map(|text| tag(text.trim())).collect()))
    }

    /// The generation that the job has to have. The daemon compares it, because a request that is repeated with its
    /// key has its answer whatever has become of the job.
    #[must_use]
    pub fn of_job(&self, job: &job::Job) -> Option<u64> {
        let seen = self.0.as_ref()?;
        // No job has the generation 0.
        Some(if seen.contains(&job.generation) { job.generation } else { seen.first().copied().unwrap_or(0) })
    }
}

/// Reads `"12"`.
fn tag(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('"')?.strip_suffix('"')?;
    let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// `Idempotency-Key`.
#[derive(Clone, Debug)]
pub struct Key(Option<String>);

impl FromRequestParts<Shared> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        let name = HeaderName::from_static("idempotency-key");
        let text = header(&parts.headers, &name, "Idempotency-Key")?;
        if text
            .is_some_and(|t| t.is_empty() || t.len() > KEY_CHARACTERS_MAX || !t.bytes().all(|b| b.is_ascii_graphic()))
        {
            let what = format!("it has 1 to {KEY_CHARACTERS_MAX} printable characters without spaces");
            return Err(Problem::invalid("Idempotency-Key", what));
        }
        Ok(Self(text.map(ToOwned::to_owned)))
    }
}

impl Key {
    /// The key in its scope, with what was asked for.
    #[must_use]
    pub fn scoped(self, caller: &Caller, project: &str, request: &str, asked: &impl Serialize) -> Option<Idempotency> {
        let key = self.0?;
        // Types of ours, without a map whose keys are no strings.
        let asked = serde_json::to_vec(asked).unwrap_or_default();
        let scope = [&caller.name, project, request].join("\n");
        Some(Idempotency { scope, key, fingerprint: *blake3::hash(&asked).as_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_of_an_identifier_is_taken() {
        let text = "0199b3a0-0000-7000-8000-000000000001";
        assert!(uuid(text).is_some());
        for wrong in ["0199b3a0000070008000000000000001", "{0199b3a0-0000-7000-8000-000000000001}", "", "x"] {
            assert!(uuid(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_field_is_named_however_deep_it_stands() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only the parsing is of interest")]
        struct Outer {
            inner: Inner,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only the parsing is of interest")]
        struct Inner {
            number: u8,
        }
        let parse = |text: &'static str| Json(Bytes::from_static(text.as_bytes())).parse::<Outer>();
        assert!(parse(r#"{"inner":{"number":1}}"#).is_ok());
        for (text, field) in [
            (r#"{"inner":{"number":"x"}}"#, Some("inner.number")),
            (r#"{"inner":{"number":1,"numbr":2}}"#, Some("inner.numbr")),
            (r#"{"inner":{}}"#, Some("inner.number")),
            (r#"{"innr":{}}"#, Some("innr")),
            ("{}", Some("inner")),
            ("[]", None),
        ] {
            let problem = parse(text).expect_err("it is not of that form");
            assert_eq!((problem.status, problem.field.as_deref()), (400, field), "{text}");
        }
        for text in ["", "{", "{\"inner\":{\"number\":1}} x", "\u{feff}{}"] {
            let problem = parse(text).expect_err("it is no JSON");
            assert_eq!(problem.kind, "urn:copyd:problem:malformed", "{text}");
        }
    }

    #[test]
    fn a_whole_number_may_have_a_point() {
        for (text, expected) in [
            (r#"{"a":720.0,"b":[1.00 ,2]}"#, r#"{"a":720,"b":[1 ,2]}"#),
            (r#"{"a":"1.0","b\\":"\"2.0","c":3.0}"#, r#"{"a":"1.0","b\\":"\"2.0","c":3}"#),
            ("1.5", "1.5"),
            ("1.0e3", "1.0e3"),
            ("1.0.0", "1.0.0"),
            ("[.0]", "[.0]"),
            ("-0.0", "-0"),
        ] {
            assert_eq!(String::from_utf8_lossy(&whole_numbers(text.as_bytes())), expected);
        }
    }

    #[test]
    fn no_object_is_a_list_of_its_fields() {
        let parse = |text: &'static str| {
            let json = Json(Bytes::from_static(text.as_bytes()));
            json.parse_whole::<job::JobSpec>().map(|_| ()).map_err(|problem| (problem.status, problem.field))
        };
        let sides = r#"{"kind":"verify","source":{"export":"/a"},"destination":{"export":"/b"}}"#;
        assert_eq!(parse(sides), Ok(()));
        let list = r#"{"kind":"verify","source":["/a"],"destination":{"export":"/b"}}"#;
        assert!(parse(list).is_err_and(|(status, field)| status == 400 && field.is_some()), "{:?}", parse(list));
        assert_eq!(parse(r#"[1,"verify",{"export":"/a"},{"export":"/b"}]"#), Err((400, None)));
    }

    #[test]
    fn json_that_is_too_deep_is_refused_without_harm() {
        let deep = "[".repeat(200_000);
        let problem = Json(Bytes::from(deep)).parse::<serde_json::Value>().expect_err("it is no JSON");
        assert_eq!(problem.status, 400);
    }

    #[test]
    fn a_parameter_that_is_unknown_or_there_twice_is_refused() {
        let query = |text: &str| Query::of(&text.parse().expect("the test writes URIs")).expect("it can be read");
        let mut found = query("/x?a=1&b=2&a=3");
        assert_eq!(found.clone().all("a"), ["1", "3"]);
        assert!(found.one("a").is_err());
        assert_eq!(found.one("b").ok().flatten().as_deref(), Some("2"));
        assert!(found.end().is_ok());
        assert_eq!(query("/x?limt=1").end().map_err(|p| p.field), Err(Some("limt".into())));
        assert_eq!(query("/x").project().ok().as_deref(), Some("default"));
        assert!(query("/x?project=").project().is_err() && query("/x?project=a/b").project().is_err());
    }

    #[test]
    fn a_path_may_hold_any_byte() {
        let of = |text: &str| path_bytes(&text.parse().expect("the test writes URIs"), "path");
        assert_eq!(of("/w?x=1&path=a%2Fb%FF%26+%2B").as_deref(), Some(&b"a/b\xff& +"[..]));
        assert_eq!(of("/w?path=").as_deref(), Some(&b""[..]));
        assert_eq!(of("/w?path=%4").as_deref(), Some(&b"%4"[..]));
        assert_eq!(of("/w?paths=x"), None);
    }

    #[test]
    fn a_generation_stands_in_quotes() {
        assert_eq!(tag("\"12\""), Some(12));
        for wrong in ["12", "\"\"", "\"x\"", "\"-1\"", "\"+1\"", "W/\"1\"", "\"1\", \"2\"", "\"9999999999999999999\""] {
            assert_eq!(tag(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_guard_that_can_not_be_understood_holds() {
        let mut job = job::Job::new(Uuid::nil(), job::JobSpec::new(job::Kind::Verify, "/a", "/b"), 0);
        job.generation = 7;
        let wanted = |texts: &[&str]| {
            let values = texts.iter().map(|text| (header::IF_MATCH, text.parse().expect("the test writes headers")));
            let mut headers = HeaderMap::new();
            values.for_each(|(name, value)| {
                headers.append(name, value);
            });
            IfMatch::of(&headers).of_job(&job)
        };
        assert_eq!((wanted(&[]), wanted(&["*"])), (None, None));
        assert_eq!(
            (wanted(&["\"7\""]), wanted(&["\"6\", \"7\""]), wanted(&["\"6\"", "\"7\""])),
            (Some(7), Some(7), Some(7))
        );
        for text in ["", "7", "\"6\"", "W/\"7\"", "\"x\"", "\"7"] {
            assert!(wanted(&[text]).is_some_and(|generation| generation != 7), "{text}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let of =
            |text: &'static str| is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, text.parse().expect("fine"))]));
        assert!(of("application/json") && of("Application/JSON; charset=utf-8"));
        assert!(!of("text/plain") && !of("application/jsonx") && !of("") && !is_json(&HeaderMap::new()));
    }

    #[test]
    fn keys_of_others_never_meet() {
        let caller = |name: &str| Caller {
            name: name.into(),
            role: Role::Admin,
            projects: super::super::backend::Projects::All,
        };
        let key = || Key(Some("k".into()));
        let scoped = |name, project, request| key().scoped(&caller(name), project, request, &1).map(|i| i.scope);
        let one = scoped("a", "p", "POST /v1/jobs");
        assert_ne!(one, scoped("b", "p", "POST /v1/jobs"));
        assert_ne!(one, scoped("a", "q", "POST /v1/jobs"));
        assert_ne!(one, scoped("a", "p", "POST /v1/groups"));
        assert_eq!(one, scoped("a", "p", "POST /v1/jobs"));
    }

    proptest! {
        #[test]
        fn any_body_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let json = Json(Bytes::from(bytes));
            let _ = json.parse::<crate::job::JobPatch>();
        }
    }
}
