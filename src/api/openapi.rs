//! The description of the API, from the handlers and their types.
//!
//! What holds for every operation is added here once: the version header, the problems that can come of it, and how
//! a caller proves who it is. Forms that a type can't say (`refine`) are added as patterns, and a test generates
//! values from them that the parsers have to take.
//!
//! A version of the API is frozen as `docs/openapi/vN.N.json`. The test that compares them writes the file anew when
//! `COPYD_WRITE_OPENAPI` is set, and what has changed is then to be looked at: a client that knows the version must
//! not notice.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Kind, Problem, Retry};
use super::{Shared, commands, credentials, daemon, groups, jobs, lists, record, version};
use crate::limits::{SECONDS_MAX, SIZE_BYTES_MAX};

#[derive(OpenApi)]
#[openapi(
    info(title = "copyd", description = "Jobs that migrate, replicate, verify and restore file shares."),
    components(schemas(Problem, Retry))
)]
struct Base;

/// All routes, with their descriptions.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(version::document))
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(jobs::show, jobs::change, jobs::delete))
        .routes(routes!(commands::pause))
        .routes(routes!(commands::resume))
        .routes(routes!(commands::cancel))
        .routes(routes!(commands::cutover))
        .routes(routes!(commands::abort))
        .routes(routes!(commands::retry_failed))
        .routes(routes!(commands::verify))
        .routes(routes!(lists::events))
        .routes(routes!(lists::failures))
        .routes(routes!(lists::losses))
        .routes(routes!(record::report))
        .routes(routes!(record::why))
        .routes(routes!(record::manifest))
        .routes(routes!(credentials::list))
        .routes(routes!(credentials::put, credentials::delete))
        .routes(routes!(groups::create, groups::list))
        .routes(routes!(groups::show, groups::delete))
        .routes(routes!(groups::cutover))
        .routes(routes!(groups::abort))
        .routes(routes!(groups::pause))
        .routes(routes!(groups::resume))
        .routes(routes!(groups::cancel))
        .routes(routes!(daemon::capabilities))
        .routes(routes!(daemon::workers))
        .routes(routes!(daemon::healthz))
        .routes(routes!(daemon::readyz))
        .routes(routes!(daemon::metrics))
        .routes(routes!(file))
}

/// The description, as it is served.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(text()));

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "daemon", operation_id = "describe", security(()),
    responses((status = 200, description = "The description", body = Object)))]
async fn file() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// The description as it is frozen: sorted, and a line for each value.
#[must_use]
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// The description of the newest version.
#[must_use]
pub fn document() -> Value {
    let (_, api) = routes().split_for_parts();
    // Types of utoipa's, which are made to be written as JSON.
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["info"]["version"] = json!(version::MAX.to_string());
    document["info"]["license"] = json!({"name": "Apache-2.0", "identifier": "Apache-2.0"});
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "A token of the daemon's file of tokens"},
        "certificate": {"type": "mutualTLS", "description": "A client certificate that an access rule names"},
    });
    // A peer of the unix socket is known without either.
    document["security"] = json!([{"token": []}, {"certificate": []}]);
    document["components"]["parameters"] = json!({"Version": version_parameter()});
    document["components"]["headers"] = json!({"Version": version_header(), "Vary": vary_header()});
    document["components"]["responses"] = problems();
    refine(&mut document["components"]["schemas"]);
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, operations) in paths {
            for (method, operation) in operations.as_object_mut().into_iter().flatten() {
                complete(path, method, operation);
            }
        }
    }
    document
}

fn version_parameter() -> Value {
    json!({
        "name": "OpenStack-API-Version", "in": "header", "required": false,
        "description": "The version in which to answer; without it the oldest. One that is not spoken is answered \
            with 406 and the range.",
        "schema": {"type": "string", "enum": ["copyd 1.0", "copyd latest"]}, "example": "copyd 1.0",
    })
}

fn version_header() -> Value {
    json!({
        "description": "The version in which this is answered", "required": true,
        "schema": {"type": "string", "pattern": r"^copyd 1\.[0-9]+$"},
    })
}

fn vary_header() -> Value {
    json!({"description": "What the answer depends on", "required": true, "schema": {"type": "string"}})
}

/// Every problem that more than one operation can have, by the name of its status.
const PROBLEMS: &[(Kind, &str)] = &[
    (Kind::Invalid, "A value is not valid, or the body is not JSON; `field` names which"),
    (Kind::Unauthenticated, "It is not known who asks"),
    (Kind::Forbidden, "The caller, or the daemon, may not do that"),
    (Kind::NotFound, "It is not there, or in a project that is not the caller's"),
    (Kind::VersionNotAcceptable, "The version is not spoken here; the range is given"),
    (Kind::Timeout, "The body did not come in time"),
    (Kind::Conflict, "The state does not allow it"),
    (Kind::PreconditionFailed, "The generation is another one than If-Match says"),
    (Kind::TooLarge, "The body is too large"),
    (Kind::MediaType, "The body is not application/json"),
    (Kind::KeyReused, "The idempotency key came with another request before"),
    (Kind::Internal, "A defect of copyd"),
    (Kind::Unavailable, "Not now; ask again later"),
];

fn problems() -> Value {
    let problem = |(kind, description): &(Kind, &str)| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let value = json!({"description": description, "content": {super::problem::MEDIA_TYPE: {"schema": schema}}});
        (format!("Problem{}", kind.status().as_u16()), value)
    };
    Value::Object(PROBLEMS.iter().map(problem).collect())
}

/// The problems that an operation can have besides those that it names itself.
fn possible(path: &str, method: &str, operation: &Value) -> Vec<Kind> {
    let versioned = path.starts_with("/v1/");
    let takes =
        |name: &str| operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name));
    let mut kinds = vec![Kind::Internal, Kind::Unavailable];
    if operation["security"].is_null() {
        kinds.push(Kind::Unauthenticated);
    }
    if versioned {
        kinds.extend([Kind::Invalid, Kind::VersionNotAcceptable]);
    }
    if path.contains('{') {
        kinds.push(Kind::NotFound);
    }
    if takes("project") {
        kinds.push(Kind::Forbidden);
    }
    if method != "get" {
        kinds.extend([Kind::Forbidden, Kind::NotFound, Kind::Conflict]);
    }
    if matches!(method, "post" | "put" | "patch") {
        kinds.extend([Kind::Timeout, Kind::TooLarge]);
    }
    if !operation["requestBody"].is_null() {
        kinds.push(Kind::MediaType);
    }
    if takes("If-Match") {
        kinds.push(Kind::PreconditionFailed);
    }
    if takes("Idempotency-Key") {
        kinds.push(Kind::KeyReused);
    }
    // They ask a worker, which may refuse, or find that there is nothing to look at.
    if path.ends_with("/why") || path.ends_with("/manifest") {
        kinds.extend([Kind::Forbidden, Kind::Conflict]);
    }
    kinds
}

/// Adds to an operation what holds for all.
fn complete(path: &str, method: &str, operation: &mut Value) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        // A parameter may be left out, but there is no way to write null in a header or a query.
        if let Some([kind, Value::String(null)]) = parameter["schema"]["type"].as_array().map(Vec::as_slice)
            && null == "null"
        {
            parameter["schema"]["type"] = kind.clone();
        }
    }
    for kind in possible(path, method, operation) {
        let status = kind.status().as_u16().to_string();
        let responses = &mut operation["responses"];
        if responses.get(&status).is_none() {
            responses[&status] = json!({"$ref": format!("#/components/responses/Problem{status}")});
        }
    }
    if operation["operationId"] == "create_job" {
        operation["responses"]["202"]["links"] = links();
        operation["requestBody"]["content"]["application/json"]["example"] = json!({
            "kind": "migrate", "source": {"export": "/srv/shares/alpha"}, "destination": {"export": "/srv/new/alpha"},
            "max_delete": 1000, "limits": {"bytes_per_s": 100_000_000, "window": "22:00-06:00"},
        });
    }
    if !path.starts_with("/v1/") {
        return;
    }
    let parameter = json!({"$ref": "#/components/parameters/Version"});
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter),
        None => operation["parameters"] = json!([parameter]),
    }
    for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if response.get("$ref").is_none() {
            response["headers"]["OpenStack-API-Version"] = json!({"$ref": "#/components/headers/Version"});
            response["headers"]["Vary"] = json!({"$ref": "#/components/headers/Vary"});
        }
    }
}

/// What can be asked about a job that was made.
fn links() -> Value {
    let operations = [
        "show_job",
        "change_job",
        "pause_job",
        "resume_job",
        "cancel_job",
        "cut_over_job",
        "abort_job",
        "retry_job",
        "verify_job",
        "list_events",
        "list_failures",
        "list_losses",
        "show_report",
        "show_manifest",
        "delete_job",
    ];
    let link = |id: &str| (id.to_owned(), json!({"operationId": id, "parameters": {"id": "$response.body#/id"}}));
    Value::Object(operations.into_iter().map(link).collect())
}

/// A duration: seconds, or numbers with units from the largest to the smallest.
const DURATION: &str = "[0-9]{1,7}|[0-9]{1,3}d([0-9]{1,2}h)?([0-9]{1,2}m)?([0-9]{1,2}s)?\
    |[0-9]{1,3}h([0-9]{1,2}m)?([0-9]{1,2}s)?|[0-9]{1,4}m([0-9]{1,2}s)?|[0-9]{1,6}s";
/// A name of a project, a group or a network namespace.
const WORD: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$";
/// A directory of this machine. That it has no part `..` is beyond a pattern that every client understands.
const EXPORT: &str = r"^(file://)?/[^\x00%?#]{0,4000}$";
/// Hours of the day, and a time zone.
const WINDOW: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]\
    (,([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]){0,23}( [A-Za-z0-9_+/-]{1,64})?$";

/// What the types can't say of their fields: schema, field, what is added.
fn refinements() -> Vec<(&'static str, &'static str, Value)> {
    let duration = format!("^({DURATION})$");
    let schedule = "^every ([1-9][0-9]{0,6}|[1-9][0-9]{0,1}[dhm])$";
    let names = |bytes: u16, value: u16, nullable: bool| {
        let types = if nullable { json!(["string", "null"]) } else { json!("string") };
        json!({
            "propertyNames": {"minLength": 1, "maxLength": bytes, "pattern": r"^[^\x00]+$"}, "maxProperties": 64,
            "additionalProperties": {"type": types, "maxLength": value, "pattern": r"^[^\x00]*$"},
        })
    };
    vec![
        ("Side", "export", json!({"pattern": EXPORT})),
        ("Side", "network_namespace", json!({"pattern": WORD})),
        ("Side", "availability_zone", json!({"maxLength": 255, "pattern": r"^[^\x00]*$"})),
        ("JobSpec", "schema", json!({"const": 1})),
        ("JobSpec", "project", json!({"pattern": WORD})),
        ("JobSpec", "group", json!({"pattern": WORD})),
        ("JobSpec", "trash", json!({"pattern": duration})),
        ("JobSpec", "schedule", json!({"pattern": schedule})),
        ("JobPatch", "schedule", json!({"pattern": schedule})),
        ("Limits", "window", json!({"pattern": WINDOW})),
        ("LimitsPatch", "window", json!({"pattern": WINDOW})),
        ("JobSpec", "rpo_s", json!({"maximum": SECONDS_MAX})),
        ("JobSpec", "cutover_deadline_s", json!({"maximum": SECONDS_MAX})),
        ("JobSpec", "timeout_s", json!({"maximum": SECONDS_MAX})),
        ("JobPatch", "rpo_s", json!({"maximum": SECONDS_MAX})),
        ("JobPatch", "cutover_deadline_s", json!({"maximum": SECONDS_MAX})),
        ("Limits", "bytes_per_s", json!({"maximum": SIZE_BYTES_MAX})),
        ("LimitsPatch", "bytes_per_s", json!({"maximum": SIZE_BYTES_MAX})),
        ("Limits", "file_bytes", json!({"maximum": SIZE_BYTES_MAX})),
        ("Limits", "file_allocated_bytes", json!({"maximum": SIZE_BYTES_MAX})),
        ("JobSpec", "labels", names(255, 1023, false)),
        ("JobSpec", "private_data", names(255, 1023, false)),
        ("JobPatch", "labels", names(255, 1023, true)),
        ("JobPatch", "private_data", names(255, 1023, true)),
    ]
}

/// Which fields go together: what the kind has no use for is refused, and so is what contradicts itself.
fn conditions() -> Value {
    let none = json!({"type": "null"});
    let only = |kinds: &[&str], properties: Value| json!({"if": {"properties": {"kind": {"enum": kinds}}}, "then": {"properties": properties}});
    let never = |both: Value| {
        let required: Vec<_> = both.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        json!({"not": {"properties": both, "required": required}})
    };
    json!([
        only(
            &["verify"],
            json!({
                "verify": {"const": "readback"}, "provisioning": {"const": "thin"}, "delete": {"const": false},
                "keep_extra": {"const": false}, "allow_empty_source": {"const": false}, "strict": {"const": false},
                "max_delete": none, "trash": none,
                "limits": {"properties": {"file_bytes": none, "file_allocated_bytes": none}},
            })
        ),
        only(&["verify", "restore"], json!({"schedule": none})),
        only(&["verify", "restore", "migrate"], json!({"rpo_s": none})),
        only(
            &["verify", "restore", "replicate"],
            json!({
                "cutover": {"const": "wait"}, "cutover_deadline_s": none, "group": none, "max_passes": none,
            })
        ),
        never(json!({"delete": {"const": true}, "keep_extra": {"const": true}})),
        never(json!({"kind": {"const": "restore"}, "keep_extra": {"const": true}})),
        never(json!({"cutover": {"const": "auto"}, "group": {"type": "string"}})),
    ])
}

fn refine(schemas: &mut Value) {
    // One example for both sides would be a copy of a directory onto itself.
    if let Some(export) = schemas.pointer_mut("/Side/properties/export").and_then(Value::as_object_mut) {
        export.remove("example");
    }
    schemas["JobSpec"]["allOf"] = conditions();
    for (schema, field, added) in refinements() {
        let Some(property) = schemas.pointer_mut(&format!("/{schema}/properties/{field}")) else { continue };
        if let (Some(property), Value::Object(added)) = (property.as_object_mut(), added) {
            property.extend(added);
        }
    }
    for (_, schema) in schemas.as_object_mut().into_iter().flatten() {
        bound(schema);
    }
}

/// Whole numbers have an upper end, beyond which they would be refused.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let most = match fields.get("format").and_then(Value::as_str) {
                Some("int32") => Some(u64::from(u32::MAX)),
                Some("int64") => Some(u64::MAX),
                _ => None,
            };
            if let Some(most) = most.filter(|_| !fields.contains_key("maximum")) {
                fields.insert("maximum".into(), json!(most));
            }
            fields.values_mut().for_each(bound);
        }
        Value::Array(values) => values.iter_mut().for_each(bound),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;
    use proptest::prelude::*;
    use proptest::string::string_regex;

    /// The pattern of a field, as it is described.
    fn pattern(schema: &str, field: &str) -> String {
        let document = document();
        let property = &document["components"]["schemas"][schema]["properties"][field];
        property["pattern"].as_str().unwrap_or_else(|| panic!("{schema}.{field} has no pattern: {property}")).to_owned()
    }

    fn specification() -> Value {
        json!({"kind": "migrate", "source": {"export": "/srv/a"}, "destination": {"export": "/srv/b"}})
    }

    /// Every text that the pattern allows is taken by the parser, in that field of a specification.
    fn taken(pattern: &str, at: &str) {
        let texts = string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).expect("it is a pattern");
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let held = runner.run(&texts, |text| {
            let mut specification = specification();
            let (parent, field) = at.rsplit_once('/').expect("it is a pointer");
            let parent = if parent.is_empty() {
                Some(&mut specification)
            } else {
                if specification.pointer(parent).is_none() {
                    specification[&parent[1..]] = json!({});
                }
                specification.pointer_mut(parent)
            };
            parent.expect("it is there")[field] = json!(text);
            let parsed = JobSpec::parse(specification.to_string().as_bytes());
            prop_assert!(parsed.is_ok(), "{at} {text:?}: {parsed:?}");
            Ok(())
        });
        held.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn what_the_description_allows_the_parser_takes() {
        for (schema, field, at) in [
            ("JobSpec", "trash", "/trash"),
            ("JobSpec", "schedule", "/schedule"),
            ("JobSpec", "group", "/group"),
            ("JobSpec", "project", "/project"),
            ("Side", "network_namespace", "/source/network_namespace"),
            ("Side", "availability_zone", "/source/availability_zone"),
        ] {
            taken(&pattern(schema, field), at);
        }
        // A pattern can't say that a path has no part `..`, nor which time zones there are.
        assert_eq!(pattern("Side", "export"), EXPORT);
        taken("(file://)?/[a-z][^\x00%?#./]{0,200}", "/source/export");
        let hours = WINDOW.split("( [A").next().expect("there are hours");
        let refused = JobSpec::parse(b"{}").is_err();
        assert!(refused && hours.len() < WINDOW.len());
    }

    #[test]
    fn every_refinement_has_its_field() {
        let document = document();
        for (schema, field, _) in refinements() {
            let property = &document["components"]["schemas"][schema]["properties"][field];
            assert!(property.is_object(), "{schema} has no field {field} any more");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
                    Some(target) if key == "$ref" => found.push(target),
                    _ => references(value, found),
                }),
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} is elsewhere"));
            assert!(document.pointer(pointer).is_some(), "{target} is not there");
        }
    }

    #[test]
    fn every_operation_says_what_can_go_wrong() {
        let document = document();
        for (path, methods) in document["paths"].as_object().expect("there are paths") {
            for (method, operation) in methods.as_object().expect("there are methods") {
                let responses = operation["responses"].as_object().expect("there are responses");
                assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
                assert!(responses.contains_key("500") && responses.contains_key("503"), "{method} {path}");
                let versioned = path.starts_with("/v1/");
                assert_eq!(versioned, responses.contains_key("406"), "{method} {path}");
                let open = operation["security"] == json!([{}]);
                assert_eq!(open, !responses.contains_key("401"), "{method} {path}: {}", operation["security"]);
                assert!(!open || !versioned, "{method} {path} is open to everybody");
            }
        }
    }
}
