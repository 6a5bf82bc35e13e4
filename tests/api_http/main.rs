//! The job API over real sockets: the real store and state machine behind it, and no workers.
//!
//! Each test says one thing that a client can rely on. `backend.rs` is the daemon, `house.rs` the sockets and the
//! client; `flow.rs` holds the tests of connections and streams, this file those of requests and answers.

mod backend;
mod flow;
mod house;

use house::{Ask, House, specification};
use serde_json::{Value, json};

#[tokio::test]
async fn the_version_document_names_the_range() {
    let house = House::new();
    let answer = house.get("/").await;
    assert_eq!(answer.status, 200);
    let version = &answer.json()["versions"][0];
    assert_eq!((&version["min_version"], &version["version"]), (&json!("1.0"), &json!("1.0")));
}

#[tokio::test]
async fn every_answer_of_v1_says_its_version() {
    let house = House::new();
    for (path, status) in [("/v1/jobs", 200), ("/v1/jobs?limit=x", 400), ("/v1/nothing", 404)] {
        let answer = house.get(path).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("openstack-api-version"), "copyd 1.0", "{path}");
        assert!(answer.header("vary").contains("OpenStack-API-Version"), "{path}");
    }
    assert_eq!(house.get("/healthz").await.header("openstack-api-version"), "");
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_406_with_the_range() {
    let house = House::new();
    let answer = house.ask(Ask::new("GET", "/v1/jobs").with("OpenStack-API-Version", "copyd 1.99")).await;
    answer.problem(406, "version_not_acceptable");
    let json = answer.json();
    assert_eq!((&json["min_version"], &json["max_version"]), (&json!("1.0"), &json!("1.0")));
    let latest = house.ask(Ask::new("GET", "/v1/jobs").with("OpenStack-API-Version", "copyd latest")).await;
    assert_eq!(latest.status, 200);
}

#[tokio::test]
async fn a_job_that_is_made_can_be_looked_at() {
    let house = House::new();
    let made = house.post("/v1/jobs", &specification("default", &json!({"team": "x"}))).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let job = made.json();
    assert_eq!((&job["state"], &job["generation"], &job["progress"]), (&json!("queued"), &json!(1), &Value::Null));
    assert!(job["commands"].as_array().is_some_and(|all| all.contains(&json!("cancel"))), "{job}");
    assert_eq!(made.header("etag"), "\"1\"");

    let shown = house.get(made.header("location")).await;
    assert_eq!((shown.status, shown.json()), (200, job.clone()));
    assert_eq!(shown.header("etag"), "\"1\"");
    let list = house.get("/v1/jobs").await.json();
    assert_eq!(list, json!({"jobs": [job], "next": null}));
}

#[tokio::test]
async fn a_body_that_can_not_be_makes_no_job_and_names_the_field() {
    let house = House::new();
    let with = |field: &str, value: Value| {
        let mut body = specification("default", &json!({}));
        body[field] = value;
        body
    };
    for (body, field) in [
        (with("max_delet", json!(5)), "max_delet"),
        (with("max_delete", json!("5")), "max_delete"),
        (with("kind", json!("sync")), "kind"),
        (with("limits", json!({"bytes_per_s": 1})), "limits.bytes_per_s"),
        (with("source", json!({"export": "/srv/a", "exprt": 1})), "source.exprt"),
        (with("priority", json!(101)), "priority"),
        (with("schedule", json!("often")), "schedule"),
        (with("project", json!("a/b")), "project"),
    ] {
        let answer = house.post("/v1/jobs", &body).await;
        assert_eq!(answer.problem(400, "invalid").as_deref(), Some(field), "{}", answer.text);
    }
    for text in ["", "{", "[1,", "nonsense"] {
        let ask = Ask::new("POST", "/v1/jobs").with("content-type", "application/json").body(text);
        house.ask(ask).await.problem(400, "malformed");
    }
    let deep = "[".repeat(100_000);
    let ask = Ask::new("POST", "/v1/jobs").with("content-type", "application/json").body(deep);
    house.ask(ask).await.problem(400, "malformed");
    assert_eq!(house.get("/v1/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn what_the_body_is_and_how_large_it_may_be_is_held() {
    let house = House::new();
    let post = |kind: &'static str, body: String| {
        house.ask(Ask::new("POST", "/v1/jobs").with("content-type", kind).body(body))
    };
    post("text/plain", "{}".into()).await.problem(415, "media_type");
    house.ask(Ask::new("POST", "/v1/jobs").body("{}")).await.problem(415, "media_type");
    post("application/json", " ".repeat((1 << 20) + 1)).await.problem(413, "too_large");
    post("application/json", " ".repeat(1 << 20)).await.problem(400, "malformed");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let house = House::new();
    house.get("/nothing").await.problem(404, "not_found");
    house.get("/v1/jobs/0199b3a0-0000-7000-8000-000000000001").await.problem(404, "not_found");
    let field = house.get("/v1/jobs/nonsense").await.problem(400, "invalid");
    assert_eq!(field.as_deref(), Some("id"));
    let answer = house.ask(Ask::new("PUT", "/v1/jobs")).await;
    answer.problem(405, "method_not_allowed");
    let allow = answer.header("allow");
    assert!(allow.contains("GET") && allow.contains("POST") && !allow.contains("PUT"), "{allow}");
}

#[tokio::test]
async fn a_path_that_is_not_allowed_is_refused_early() {
    let house = House::new();
    let mut body = specification("default", &json!({}));
    body["source"]["export"] = json!("/etc");
    house.post("/v1/jobs", &body).await.problem(403, "forbidden");
    assert_eq!(house.get("/v1/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_done_once() {
    let house = House::new();
    let make = |labels: Value, key: &'static str, token: &'static str| {
        let ask = Ask::new("POST", "/v1/jobs").json(&specification("a", &labels)).with("Idempotency-Key", key);
        house.ask(ask.token(token))
    };
    let first = make(json!({"n": "1"}), "key", "boss").await;
    let again = make(json!({"n": "1"}), "key", "boss").await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!((first.header("location"), first.header("etag")), (again.header("location"), again.header("etag")));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    let other = make(json!({"n": "2"}), "key", "boss").await;
    assert_eq!(other.problem(422, "idempotency_key_reused").as_deref(), Some("Idempotency-Key"));
    let of_another = make(json!({"n": "2"}), "key", "writer").await;
    assert_eq!(of_another.status, 202, "keys of others never meet");
    assert_eq!(house.get("/v1/jobs").await.json()["jobs"].as_array().map(Vec::len), Some(2));
    let bad = make(json!({}), "with blank", "boss").await;
    assert_eq!(bad.problem(400, "invalid").as_deref(), Some("Idempotency-Key"));
}

#[tokio::test]
async fn a_command_repeated_with_its_key_has_its_answer_again() {
    let house = House::new();
    let job = house.job("default", &json!({})).await;
    let path = format!("/v1/jobs/{}/pause", job["id"].as_str().expect("it has one"));
    let pause = |key: &'static str| house.ask(Ask::new("POST", &path).with("Idempotency-Key", key));
    let first = pause("a").await;
    assert_eq!((first.status, &first.json()["state"]), (202, &json!("paused")), "{}", first.text);
    let again = pause("a").await;
    assert_eq!((again.status, again.text), (202, first.text));
    pause("b").await.problem(409, "conflict");
}

#[tokio::test]
async fn a_generation_that_has_passed_is_412() {
    let house = House::new();
    let job = house.job("default", &json!({})).await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("it has one"));
    let changing = |tag: &'static str, priority: u8| {
        house.ask(Ask::new("PATCH", &path).json(&json!({"priority": priority})).with("If-Match", tag))
    };
    let changed = changing("\"1\"", 60).await;
    assert_eq!((changed.status, changed.header("etag")), (202, "\"2\""), "{}", changed.text);
    assert_eq!(changed.json()["spec"]["priority"], json!(60));
    assert_eq!(changing("\"1\"", 70).await.problem(412, "precondition_failed").as_deref(), Some("If-Match"));
    assert_eq!(changing("*", 70).await.status, 202);
    changing("1", 80).await.problem(412, "precondition_failed");
    let change = async |body: Value| house.ask(Ask::new("PATCH", &path).json(&body)).await;
    assert_eq!(change(json!({"schedule": "often"})).await.problem(400, "invalid").as_deref(), Some("schedule"));
    let of_another_kind = change(json!({"rpo_s": 60})).await;
    assert_eq!(of_another_kind.problem(409, "conflict").as_deref(), Some("rpo_s"));
    let field = house.ask(Ask::new("PATCH", &path).json(&json!({"source": {"export": "/srv/c"}}))).await;
    assert_eq!(field.problem(400, "invalid").as_deref(), Some("source"));
}

#[tokio::test]
async fn pages_together_are_the_list() {
    let house = House::new();
    let mut made = Vec::new();
    for number in 0..25 {
        let project = if number % 2 == 0 { "a" } else { "b" };
        made.push(house.job(project, &json!({"n": (number % 5).to_string()})).await["id"].clone());
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?limit=10".to_owned());
    loop {
        let page = house.get(&path).await.json();
        seen.extend(page["jobs"].as_array().expect("it is a list").iter().map(|job| job["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/jobs?limit=10&marker={next}");
    }
    assert_eq!(seen, made);
    let ids = |page: &Value| page["jobs"].as_array().map_or(0, Vec::len);
    for (query, count) in [
        ("project=a", 13),
        ("label=n=1", 5),
        ("label=n=1&label=n=2", 0),
        ("label=n%3D1&project=b", 3),
        ("state=queued,ready", 25),
        ("state=ready", 0),
        ("kind=migrate", 25),
        ("kind=verify,restore", 0),
        ("limit=7", 7),
    ] {
        assert_eq!(ids(&house.get(&format!("/v1/jobs?{query}")).await.json()), count, "{query}");
    }
    let last = house.get("/v1/jobs?sort=-created&limit=1").await.json();
    assert_eq!(last["jobs"][0]["id"], made[24]);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=+5", "limit"),
        ("limit=1&limit=2", "limit"),
        ("marker=x", "marker"),
        ("sort=size", "sort"),
        ("state=redy", "state"),
        ("kind=", "kind"),
        ("label=x", "label"),
        ("staet=ready", "staet"),
    ] {
        let found = house.get(&format!("/v1/jobs?{query}")).await.problem(400, "invalid");
        assert_eq!(found.as_deref(), Some(field), "{query}");
    }
}

#[tokio::test]
async fn a_caller_sees_and_does_what_its_rule_says() {
    let house = House::new();
    let (ours, theirs) = (house.job("a", &json!({})).await, house.job("b", &json!({})).await);
    let path = |job: &Value| format!("/v1/jobs/{}", job["id"].as_str().expect("it has one"));
    let (ours, theirs) = (path(&ours), path(&theirs));
    let get = async |path: &str, token: &str| house.ask(Ask::new("GET", path).token(token)).await;
    assert_eq!(get("/v1/jobs", "reader").await.json()["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(get("/v1/jobs", "boss").await.json()["jobs"].as_array().map(Vec::len), Some(2));
    get("/v1/jobs?project=b", "reader").await.problem(403, "forbidden");
    assert_eq!(get(&ours, "reader").await.status, 200);
    for suffix in ["", "/events", "/failures", "/losses", "/report", "/manifest", "/why?path=x"] {
        get(&format!("{theirs}{suffix}"), "reader").await.problem(404, "not_found");
    }
    let pause =
        async |path: &str, token: &str| house.ask(Ask::new("POST", &format!("{path}/pause")).token(token)).await;
    pause(&ours, "reader").await.problem(403, "forbidden");
    pause(&theirs, "writer").await.problem(404, "not_found");
    assert_eq!(pause(&ours, "writer").await.status, 202);
    let create = async |project: &str, token: &str| {
        house.ask(Ask::new("POST", "/v1/jobs").json(&specification(project, &json!({}))).token(token)).await
    };
    create("a", "reader").await.problem(403, "forbidden");
    create("b", "writer").await.problem(403, "forbidden");
    house.ask(Ask::new("DELETE", &ours).token("writer")).await.problem(403, "forbidden");
    let unknown = house.ask(Ask::new("GET", "/v1/jobs").with("authorization", "Bearer nonsense")).await;
    unknown.problem(401, "unauthenticated");
    assert!(unknown.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn a_job_that_has_ended_can_be_deleted_and_is_gone() {
    let house = House::new();
    let job = house.job("default", &json!({})).await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("it has one"));
    house.ask(Ask::new("DELETE", &path)).await.problem(409, "conflict");
    let cancelled = house.ask(Ask::new("POST", &format!("{path}/cancel"))).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (202, &json!("cancelled")));
    assert_eq!(house.ask(Ask::new("DELETE", &path)).await.status, 204);
    house.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn what_a_job_has_to_show_can_be_read() {
    let house = House::new();
    let job = house.job("default", &json!({})).await;
    let id = job["id"].as_str().expect("it has one");
    for number in 0..5 {
        house.daemon.note(id.parse().expect("it is one"), &number.to_string());
    }
    let path = format!("/v1/jobs/{id}");
    let page = house.get(&format!("{path}/events?limit=4")).await.json();
    let ids: Vec<_> = page["events"].as_array().expect("it is a list").iter().map(|e| e["id"].clone()).collect();
    assert_eq!((ids, &page["next"]), (vec![json!(1), json!(2), json!(3), json!(4)], &json!("4")));
    let rest = house.get(&format!("{path}/events?marker=4")).await.json();
    assert_eq!((rest["events"].as_array().map(Vec::len), &rest["next"]), (Some(2), &Value::Null));
    assert_eq!((&rest["events"][1]["type"], &rest["events"][1]["text"]), (&json!("note"), &json!("4")));
    let failures = house.get(&format!("{path}/failures")).await.json();
    assert_eq!(failures, json!({"counts": [], "failures": [], "next": null}));
    assert_eq!(house.get(&format!("{path}/losses")).await.json(), json!({"losses": [], "next": null}));
    assert_eq!(house.get(&format!("{path}/report")).await.json()["job"]["id"], json!(id));
    let why = house.get(&format!("{path}/why?path=a%2Fb%FF")).await.json();
    assert_eq!((&why["name_b64"], &why["facts"][0]["bytes"]), (&json!("YS9i/w=="), &json!(4)));
    assert_eq!(house.get(&format!("{path}/why")).await.problem(400, "invalid").as_deref(), Some("path"));
    let manifest = house.get(&format!("{path}/manifest")).await;
    assert_eq!(
        (manifest.header("content-type"), manifest.text.as_str()),
        ("application/x-ndjson", "{\"n\":1}\n{\"n\":2}\n")
    );
}

#[tokio::test]
async fn a_secret_is_written_and_never_read() {
    let house = House::new();
    let put = |body: Value| house.ask(Ask::new("PUT", "/v1/credentials/nas").json(&body));
    assert_eq!(put(json!({"user": "u", "secret": "hunter2"})).await.status, 201);
    assert_eq!(put(json!({"secret": "hunter3"})).await.status, 204);
    let list = house.get("/v1/credentials").await;
    assert_eq!(list.json(), json!({"credentials": ["nas"]}));
    let wrong = put(json!({"secret": "hunter2", "usr": "u"})).await;
    // A field that nobody knows may be the secret itself, at the wrong place.
    assert_eq!(wrong.problem(400, "invalid"), None);
    assert!(!wrong.text.contains("usr"));
    let wrong = put(json!({"secret": ["hunter2"]})).await;
    wrong.problem(400, "invalid");
    assert!(!wrong.text.contains("hunter2"));
    house.get("/v1/credentials/nas").await.problem(405, "method_not_allowed");
    let kept = house.credentials.get("default", "nas").expect("it was put");
    assert!(!format!("{kept:?}").contains("hunter3"));
    house.ask(Ask::new("GET", "/v1/credentials").token("reader")).await.problem(403, "forbidden");
    assert_eq!(house.ask(Ask::new("DELETE", "/v1/credentials/nas")).await.status, 204);
    house.ask(Ask::new("DELETE", "/v1/credentials/nas")).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_group_says_where_its_members_stand() {
    let house = House::new();
    let make = async || house.post("/v1/groups", &json!({"name": "g", "project": "a"})).await;
    assert_eq!(make().await.status, 201);
    assert_eq!(make().await.status, 200, "the request can be repeated");
    let mut body = specification("a", &json!({}));
    body["group"] = json!("g");
    assert_eq!(house.post("/v1/jobs", &body).await.status, 202);
    let group = house.get("/v1/groups/g?project=a").await.json();
    assert_eq!((&group["state"], group["members"].as_array().map(Vec::len)), (&json!("preparing"), Some(1)));
    assert_eq!(house.get("/v1/groups").await.json()["groups"], json!([group]));
    house.get("/v1/groups/g").await.problem(404, "not_found");
    house.ask(Ask::new("POST", "/v1/groups/g/cutover?project=a")).await.problem(409, "conflict");
    let paused = house.ask(Ask::new("POST", "/v1/groups/g/pause?project=a")).await;
    assert_eq!((paused.status, &paused.json()["members"][0]["state"]), (202, &json!("paused")));
    house.ask(Ask::new("DELETE", "/v1/groups/g?project=a")).await.problem(409, "conflict");
    body["group"] = json!("unknown");
    house.post("/v1/jobs", &body).await.problem(409, "conflict");
}

#[tokio::test]
async fn the_daemon_says_how_it_is() {
    let house = House::new();
    assert_eq!(house.get("/healthz").await.json(), json!({"status": "ok", "troubles": []}));
    assert_eq!(house.get("/readyz").await.status, 200);
    *house.daemon.well.lock().expect("no test panics while it holds this") = false;
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(!answer.text.contains("secret"), "{}", answer.text);
    assert_eq!(house.get("/healthz").await.status, 200);
    let metrics = house.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text.contains(r#"copyd_api_requests_total{method="GET",route="/readyz",status="503"} 1"#));
    assert_eq!(house.get("/v1/workers").await.json(), json!({"workers": []}));
    let capabilities = house.get("/v1/capabilities").await.json();
    assert_eq!(capabilities["capabilities"]["nfs"], json!(false));
    assert!(capabilities["specification"]["fields"].as_array().is_some_and(|all| all.contains(&json!("max_delete"))));
}

#[tokio::test]
async fn the_description_is_the_frozen_one() {
    let house = House::new();
    let served = house.get("/openapi.json").await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi/v1.0.json");
    if std::env::var_os("COPYD_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &served.text).expect("it can be written");
    }
    let frozen = std::fs::read_to_string(path).expect("the file is there");
    let at = served.text.lines().zip(frozen.lines()).position(|(a, b)| a != b);
    assert!(
        served.text == frozen,
        "docs/openapi/v1.0.json differs from line {:?} on: what a client of this version sees has changed. If that is \
         meant, and old clients do not notice, write it anew with COPYD_WRITE_OPENAPI=1",
        at.map(|at| at + 1)
    );
}

#[tokio::test]
async fn a_command_takes_no_body_but_an_empty_one() {
    let house = House::new();
    let job = house.job("default", &json!({})).await;
    let path = format!("/v1/jobs/{}/pause", job["id"].as_str().expect("it has one"));
    house.ask(Ask::new("POST", &path).json(&json!({"force": true}))).await.problem(400, "invalid");
    house.ask(Ask::new("POST", &path).body(vec![b' '; 100])).await.problem(413, "too_large");
    assert_eq!(house.ask(Ask::new("POST", &path).json(&json!({}))).await.status, 202);
}
