//! `copyd job` and `copyd group` through the binary, against a daemon that answers from a script: what is asked of
//! it, what people and programs are told, and the exit codes.

#[path = "job_cli/daemon.rs"]
mod daemon;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

use copyd::job::{Ending, Forecast, ForecastBasis, Job, JobSpec, Kind, Outcome, State};
use daemon::{Asked, Daemon, Reply};
use serde_json::{Value, json};
use uuid::Uuid;

const ID: &str = "0190a6f0-0000-7000-8000-000000000001";
/// A name that would clear a screen, end a line, and be no UTF-8 to those who show C1.
const HOSTILE: &str = "x\u{1b}[2J\ny\u{9b}z";

fn job(state: State) -> Job {
    let mut job = Job::new(ID.parse().unwrap(), JobSpec::new(Kind::Migrate, "/srv/a", "/srv/b"), 1_795_624_216_000);
    (job.state, job.generation) = (state, 7);
    job
}

fn ended(exit_code: u8) -> Job {
    let mut job = job(State::Completed);
    job.outcome = Some(Ending { outcome: Outcome::Completed, exit_code });
    job
}

/// As the API shows a job.
fn view(job: &Job) -> Value {
    let mut view = serde_json::to_value(job).unwrap();
    view["progress"] = Value::Null;
    view["commands"] = json!(["pause", "cancel", "patch"]);
    view
}

fn copyd(daemon: &Daemon, words: &[&str]) -> Output {
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    run(&daemon.url(), &words)
}

fn run(url: &str, words: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_copyd"))
        .args(words)
        .env("COPYD_URL", url)
        .env_remove("COPYD_TOKEN_FILE")
        .env_remove("COLUMNS")
        .output()
        .expect("copyd starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("a signal: {}", stderr(output)))
}

fn clean(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

#[test]
fn create_sends_a_specification_and_prints_the_id_alone() {
    let daemon = Daemon::answering(|_, _| Reply::json(202, &view(&job(State::Queued))));
    let output = copyd(&daemon, &["job", "create", "--delete", "--label=a=b", "/srv/a", "/srv/b"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, format!("{ID}\n").as_str()), "{}", stderr(&output));
    assert!(stderr(&output).contains("queued; waits for a free place"), "{}", stderr(&output));
    let [asked] = daemon.asked().try_into().unwrap();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/v1/jobs"));
    assert_eq!(asked.header("openstack-api-version"), Some("copyd 1.0"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("host"), Some("localhost"));
    assert!(asked.header("idempotency-key").is_some_and(|key| key.parse::<Uuid>().is_ok()));
    assert_eq!(asked.header("authorization"), None);
    let mut expected = JobSpec::new(Kind::Migrate, "/srv/a", "/srv/b");
    expected.delete = true;
    expected.labels.insert("a".into(), "b".into());
    assert_eq!(serde_json::from_str::<JobSpec>(&asked.body).unwrap(), expected);
}

#[test]
fn create_asks_again_with_the_same_key_where_no_answer_came() {
    let daemon =
        Daemon::answering(|_, n| if n == 0 { Reply::Hang } else { Reply::json(202, &view(&job(State::Queued))) });
    let output = copyd(&daemon, &["job", "create", "/srv/a", "/srv/b"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let asked = daemon.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("idempotency-key"), asked[1].header("idempotency-key"));
    assert_eq!(asked[0].body, asked[1].body);
}

#[test]
fn a_specification_from_a_file_goes_as_it_was_written() {
    let daemon = Daemon::answering(|_, _| Reply::json(202, &view(&job(State::Queued))));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spec.json");
    let text = "{ \"kind\": \"migrate\",\n  \"later\": 1 }\n";
    std::fs::write(&file, text).unwrap();
    let output = copyd(&daemon, &["job", "create", "--spec", file.to_str().unwrap(), "--idempotency-key=k", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["id"], ID);
    let asked = daemon.asked();
    assert_eq!((asked[0].body.as_str(), asked[0].header("idempotency-key")), (text, Some("k")));
    let missing = copyd(&daemon, &["job", "create", "--spec", "/nowhere/spec.json"]);
    assert_eq!(code(&missing), 11);
}

#[test]
fn list_prints_a_row_for_each_job_over_all_pages_and_no_control_byte() {
    let daemon = Daemon::answering(|asked, _| {
        let mut second = ended(23);
        second.spec.source.export = format!("/srv/{HOSTILE}");
        let (jobs, next) = if asked.path.contains("marker=m1") {
            (view(&second), None)
        } else {
            (view(&job(State::Ready)), Some("m1"))
        };
        Reply::json(200, &json!({ "jobs": [jobs], "next": next }))
    });
    let output = copyd(
        &daemon,
        &["job", "list", "--project=p q", "--state=ready,completed", "--label=a=b", "--label=c=d", "--sort=-created"],
    );
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().next().is_some_and(|line| line.starts_with("JOB") && line.contains("DESTINATION")), "{text}");
    assert!(text.contains("exit 23") && text.contains("/srv/x\\#033[2J\\#012y\\#302\\#233z") && clean(&text), "{text}");
    let asked = daemon.asked();
    assert_eq!(
        asked[0].path,
        "/v1/jobs?limit=100&sort=-created&project=p%20q&state=ready%2Ccompleted&label=a%3Db&label=c%3Dd"
    );
    assert!(asked[1].path.contains("limit=99&marker=m1"), "{}", asked[1].path);
    let limited = copyd(&daemon, &["job", "list", "--limit=1"]);
    assert!(stderr(&limited).contains("--marker m1"), "{}", stderr(&limited));
}

#[test]
fn json_is_what_the_daemon_said_with_control_characters_escaped() {
    let body = format!("{{\"jobs\": [],  \"later\": \"{}\", \"next\": null}}", "a\u{9b}b\u{7f}");
    let daemon = Daemon::answering(move |_, _| Reply::text(200, "application/json", &body));
    let output = copyd(&daemon, &["job", "list", "--json"]);
    assert_eq!(stdout(&output), "{\"jobs\": [],  \"later\": \"a\\u009bb\\u007f\", \"next\": null}\n");
}

#[test]
fn every_command_has_its_path_and_the_generation_goes_with_it() {
    for (verb, path) in [
        ("pause", "pause"),
        ("resume", "resume"),
        ("cancel", "cancel"),
        ("cutover", "cutover"),
        ("abort", "abort"),
        ("verify", "verify"),
        ("retry-failed", "retry-failed"),
    ] {
        let daemon = Daemon::answering(|_, _| Reply::json(202, &view(&job(State::Paused))));
        let output = copyd(&daemon, &["job", verb, "--if-generation=7", ID]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stdout(&output), format!("{ID}: paused; waits for a free place\n"));
        let asked = daemon.asked();
        assert_eq!((asked[0].method.as_str(), asked[0].path.clone()), ("POST", format!("/v1/jobs/{ID}/{path}")));
        assert_eq!(asked[0].header("if-match"), Some("\"7\""));
        assert_eq!(asked[0].body, "");
    }
}

#[test]
fn set_changes_what_is_named_and_delete_removes_a_record() {
    let daemon = Daemon::answering(|asked, _| match asked.method.as_str() {
        "DELETE" => Reply::text(204, "application/json", ""),
        _ => Reply::json(202, &view(&job(State::Ready))),
    });
    let output = copyd(&daemon, &["job", "set", ID, "--priority=80", "--window=none", "--if-generation=3"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("generation 7"));
    let asked = daemon.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].header("if-match")), ("PATCH", Some("\"3\"")));
    assert_eq!(asked[0].body, r#"{"priority":80,"limits":{"window":null}}"#);
    assert_eq!(code(&copyd(&daemon, &["job", "set", ID])), 1, "nothing is to be set");
    assert_eq!(code(&copyd(&daemon, &["job", "delete", ID])), 0);
    assert_eq!(daemon.asked().last().map(|asked| asked.method.clone()).as_deref(), Some("DELETE"));
}

#[test]
fn of_several_jobs_all_are_tried_and_the_first_code_of_the_contract_counts() {
    let other = "0190a6f0-0000-7000-8000-000000000002";
    let daemon = Daemon::answering(move |asked, _| {
        if asked.path.contains(ID) {
            Reply::problem(
                409,
                &json!({ "title": "The state does not allow it", "detail": "it has ended", "remedy": "look" }),
            )
        } else {
            Reply::json(202, &view(&job(State::Paused)))
        }
    });
    let output = copyd(&daemon, &["job", "pause", ID, other]);
    assert_eq!(code(&output), 43, "{}", stderr(&output));
    assert_eq!(daemon.asked().len(), 2);
    assert!(stderr(&output).contains("it has ended") && stderr(&output).contains("help: look"));
}

#[test]
fn a_refusal_is_told_with_its_field_and_remedy_and_decides_the_code() {
    for (status, exit) in
        [(400, 1), (401, 43), (403, 43), (404, 1), (406, 1), (409, 43), (412, 43), (429, 11), (500, 2), (503, 11)]
    {
        let daemon = Daemon::answering(move |_, _| {
            let detail = format!("no \u{1b}[2J{HOSTILE}");
            Reply::problem(
                status,
                &json!({ "type": "urn:copyd:problem:x", "title": "t", "status": status,
                "detail": detail, "remedy": "do y", "retry": "no", "field": "source.export" }),
            )
        });
        let output = copyd(&daemon, &["job", "show", ID]);
        assert_eq!(code(&output), exit, "{status}: {}", stderr(&output));
        assert!(stderr(&output).contains("source.export: no \\#033[2J") && stderr(&output).contains("help: do y"));
        assert!(clean(&stderr(&output)), "{}", stderr(&output));
        let json = copyd(&daemon, &["job", "show", ID, "--json"]);
        assert_eq!(code(&json), exit);
        assert_eq!(serde_json::from_str::<Value>(&stdout(&json)).unwrap()["type"], "urn:copyd:problem:x");
    }
}

#[test]
fn a_daemon_that_is_not_there_or_is_none_is_11_with_a_remedy() {
    let verb: Vec<&OsStr> = ["job", "list"].iter().map(OsStr::new).collect();
    let gone = run("unix:/nowhere/copyd.sock", &verb);
    assert_eq!(code(&gone), 11);
    assert!(stderr(&gone).contains("can't reach the daemon at unix:/nowhere/copyd.sock"), "{}", stderr(&gone));
    assert!(stderr(&gone).contains("systemctl status copyd"), "{}", stderr(&gone));
    let html = Daemon::answering(|_, _| Reply::text(200, "text/html", "<html>"));
    let output = copyd(&html, &["job", "list"]);
    assert_eq!(code(&output), 11, "{}", stderr(&output));
    assert!(stderr(&output).contains("a form that this copyd does not know"), "{}", stderr(&output));
    let closing = Daemon::answering(|_, _| Reply::Hang);
    assert_eq!(code(&copyd(&closing, &["job", "list"])), 11);
}

#[test]
fn show_names_what_counts_and_its_lists_are_lines() {
    let daemon = Daemon::answering(|asked, _| {
        let path = asked.path.split('?').next().unwrap_or_default();
        let list = match path.rsplit('/').next() {
            Some("failures") => {
                json!({ "counts": [{ "pass": 1, "class": "permission", "entries": 1204, "remedy": "r" }],
                "failures": [{ "name": HOSTILE, "pass": 1, "class": "permission", "side": "source", "operation": "open",
                    "error": "no", "remedy": "r" }, { "name_b64": "/w==", "pass": 1, "class": "io",
                    "side": "destination", "operation": "write", "error": null, "remedy": "r" }], "next": null })
            }
            Some("losses") => json!({ "losses": [{ "name": "", "class": "owner", "detail": HOSTILE }], "next": null }),
            Some("events") => json!({ "events": [{ "id": 1, "job": ID, "at_ms": 0, "type": "note", "text": HOSTILE }],
                "next": null }),
            _ => {
                let mut job = job(State::Ready);
                job.forecast = Some(Forecast {
                    as_of_ms: 0,
                    median_s: 42,
                    p90_s: 75,
                    changed_entries: 1,
                    changed_bytes: 1,
                    basis: ForecastBasis::Passes,
                });
                view(&job)
            }
        };
        Reply::json(200, &list)
    });
    let shown = stdout(&copyd(&daemon, &["job", "show", ID]));
    assert!(shown.contains("ready: a cutover would take 42 s, nine of ten at most 1 min 15 s"), "{shown}");
    assert!(shown.contains("can be told      pause, cancel, set"), "{shown}");
    let failures = copyd(&daemon, &["job", "show", "--failures", ID]);
    assert_eq!(
        stdout(&failures),
        "permission: source x\\#033[2J\\#012y\\#302\\#233z: open: no\nio: destination \\#377: write\n"
    );
    assert!(stderr(&failures).contains("1,204 permission: run as root"), "{}", stderr(&failures));
    let losses = stdout(&copyd(&daemon, &["job", "show", "--losses", ID]));
    assert_eq!(losses, "owner: . (x\\#033[2J\\#012y\\#302\\#233z)\n");
    let events = stdout(&copyd(&daemon, &["job", "show", "--events", ID]));
    assert_eq!(events, "1970-01-01 00:00:00 UTC  x\\#033[2J\\#012y\\#302\\#233z\n");
}

/// One piece of a stream of events.
fn event(id: u64, kind: &str, mut data: Value) -> String {
    data["id"] = id.into();
    data["job"] = ID.into();
    data["at_ms"] = 1000.into();
    data["type"] = kind.into();
    format!("id: {id}\nevent: {kind}\ndata: {data}\n\n")
}

fn changed(id: u64, from: &str, to: &str) -> String {
    event(id, "state_changed", json!({ "from": from, "to": to }))
}

const PROGRESS: &str = "event: progress\ndata: {\"pass\":1,\"phase\":\"working\",\"percent\":7,\"entries_scanned\":1,\
    \"entries_done\":1,\"scan_complete\":true,\"bytes_planned\":1,\"bytes_done\":1,\"bytes_copied\":1,\
    \"bytes_verified\":1,\"files_copied\":1,\"files_unchanged\":0,\"deleted\":0,\"failed\":0,\"bytes_per_s\":1,\
    \"left_s\":null,\"elapsed_s\":1.0,\"still_s\":0}\n\n";

fn is_stream(asked: &Asked) -> bool {
    asked.header("accept") == Some("text/event-stream")
}

#[test]
fn watch_goes_on_after_a_broken_connection_where_it_was_and_ends_with_the_job_s_code() {
    let daemon = Daemon::answering(|asked, _| match (is_stream(asked), asked.header("last-event-id")) {
        // A history in which the job failed once and was resumed ends nothing; then the connection breaks.
        (true, None) => Reply::Stream(
            [": alive\n\n", &changed(1, "baseline", "failed"), &changed(2, "failed", "baseline"), PROGRESS].concat(),
        ),
        (true, Some("2")) => Reply::Stream(
            [
                event(3, "note", json!({ "text": HOSTILE })),
                event(4, "unheard_of", json!({})),
                changed(5, "cutover", "completed"),
            ]
            .concat(),
        ),
        (true, other) => panic!("asked after {other:?}"),
        (false, _) => {
            let over = asked.earlier.iter().filter(|asked| is_stream(asked)).count() > 1;
            Reply::json(200, &view(&if over { ended(23) } else { job(State::Baseline) }))
        }
    });
    let output = copyd(&daemon, &["job", "watch", ID]);
    let (out, err) = (stdout(&output), stderr(&output));
    assert_eq!(code(&output), 23, "{out}\n{err}");
    let lines: Vec<&str> = out.lines().map(|line| line.split("UTC  ").nth(1).unwrap_or(line)).collect();
    assert_eq!(
        lines,
        [
            "baseline → failed",
            "failed → baseline",
            "x\\#033[2J\\#012y\\#302\\#233z",
            "event unheard_of",
            "cutover → completed"
        ]
    );
    assert!(err.contains("the connection to the daemon broke") && err.contains("completed, exit 23"), "{err}");
    assert!(clean(&out) && clean(&err));
}

#[test]
fn watch_until_ready_ends_with_0_and_prints_the_daemon_s_json_where_asked() {
    let daemon = Daemon::answering(|asked, n| {
        if is_stream(asked) {
            return Reply::Stream([PROGRESS, &changed(1, "incremental", "ready")].concat());
        }
        Reply::json(200, &view(&job(if n == 0 { State::Incremental } else { State::Ready })))
    });
    let output = copyd(&daemon, &["job", "watch", "--until=ready", "--json", ID]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["percent"], &lines[1]["to"]), (2, &json!(7), &json!("ready")));
}

#[test]
fn watch_of_a_job_that_has_ended_or_is_not_there_ends_at_once() {
    let daemon = Daemon::answering(|_, _| Reply::json(200, &view(&ended(0))));
    assert_eq!(code(&copyd(&daemon, &["job", "watch", ID])), 0);
    assert_eq!(daemon.asked().len(), 1);
    let none = Daemon::answering(|_, _| {
        Reply::problem(404, &json!({ "title": "Not found", "detail": "there is no such job" }))
    });
    let output = copyd(&none, &["job", "watch", ID]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("there is no such job") && stderr(&output).contains("copyd job list"));
}

#[test]
fn why_takes_a_path_of_any_bytes_and_answers_in_sentences() {
    let daemon = Daemon::answering(|asked, _| {
        let body = if asked.path.contains("/why?") {
            json!({ "name_b64": "YS//", "facts": [{ "event": "entry", "name_b64": "YS//", "known": true,
                "failed": ["permission"], "kind": "file", "published": false, "size": 10, "mode": 33188 }] })
        } else if asked.path.contains("/failures") {
            json!({ "counts": [], "failures": [{ "name_b64": "YS//", "pass": 1, "class": "permission", "side": "source",
                "operation": "open", "error": "Permission denied (os error 13)", "remedy": "r" },
                { "name": "other", "pass": 1, "class": "io", "side": "source", "operation": "read", "error": null,
                "remedy": "r" }], "next": null })
        } else {
            json!({ "losses": [], "next": null })
        };
        Reply::json(200, &body)
    });
    let path = OsStr::from_bytes(b"a/\xff");
    let output = run(&daemon.url(), &[OsStr::new("job"), OsStr::new("why"), OsStr::new(ID), path]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(text.starts_with("a/\\#377\n") && text.contains("It does not stand at the destination yet."), "{text}");
    assert!(text.contains("at the source: open: Permission denied") && !text.contains("other"), "{text}");
    assert_eq!(daemon.asked()[0].path, format!("/v1/jobs/{ID}/why?path=a%2F%FF"));
}

#[test]
fn report_is_words_json_or_a_page_that_needs_nothing() {
    use copyd::report::{Report, Sources};
    let daemon = Daemon::answering(|_, _| {
        let mut job = ended(0);
        job.spec.labels.insert("t".into(), "<script>alert(1)</script>".into());
        let sources = Sources { job: &job, events: &[], failures: &[], failure_counts: &[], losses: &[] };
        Reply::json(200, &serde_json::to_value(Report::of(sources, 0)).unwrap())
    });
    let words = copyd(&daemon, &["job", "report", ID]);
    assert!(stdout(&words).starts_with("migrate /srv/a -> /srv/b\nCompleted:"), "{}{}", stdout(&words), stderr(&words));
    let json = copyd(&daemon, &["job", "report", "--json", ID]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&json)).unwrap()["schema"], 1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.html");
    let output = copyd(&daemon, &["job", "report", "--html", file.to_str().unwrap(), ID]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, ""), "{}", stderr(&output));
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("&lt;script&gt;") && !page.contains("<script"));
    assert_eq!(stdout(&copyd(&daemon, &["job", "report", "--html=-", ID])), page);
    assert_eq!(code(&copyd(&daemon, &["job", "report", "--html=/nowhere/r.html", ID])), 11);
}

#[test]
fn groups_are_made_shown_steered_and_removed() {
    let daemon = Daemon::answering(|asked, _| {
        let group = json!({ "name": HOSTILE, "project": "p", "created_ms": 0, "state": "ready",
            "members": [{ "id": ID, "state": "ready", "generation": 4 }] });
        match (asked.method.as_str(), asked.path.starts_with("/v1/groups?")) {
            ("DELETE", _) => Reply::text(204, "application/json", ""),
            ("GET", true) => Reply::json(200, &json!({ "groups": [group], "next": null })),
            _ => Reply::json(200, &group),
        }
    });
    for (words, method, path) in [
        (&["create", "g", "--project=p"][..], "POST", "/v1/groups"),
        (&["list", "--project=p"][..], "GET", "/v1/groups?limit=1000&project=p"),
        (&["show", "g", "--project=p"][..], "GET", "/v1/groups/g?project=p"),
        (&["cutover", "g", "--project=p"][..], "POST", "/v1/groups/g/cutover?project=p"),
        (&["abort", "g"][..], "POST", "/v1/groups/g/abort?project=default"),
        (&["pause", "g"][..], "POST", "/v1/groups/g/pause?project=default"),
        (&["resume", "g"][..], "POST", "/v1/groups/g/resume?project=default"),
        (&["cancel", "g"][..], "POST", "/v1/groups/g/cancel?project=default"),
        (&["delete", "g"][..], "DELETE", "/v1/groups/g?project=default"),
    ] {
        let output = copyd(&daemon, &[&["group"], words].concat());
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
        let asked = daemon.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.path.as_str()), (method, path));
        assert!(clean(&stdout(&output)), "{}", stdout(&output));
        if words[0] == "create" {
            assert_eq!(asked.body, r#"{"name":"g","project":"p"}"#);
        }
    }
}

#[test]
fn a_token_goes_in_the_header_and_only_where_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let daemon = Daemon::answering(|_, _| Reply::json(200, &json!({ "jobs": [], "next": null })));
    let flag = format!("--token-file={}", file.display());
    assert_eq!(code(&copyd(&daemon, &["job", &flag, "list"])), 0);
    let environment = Command::new(env!("CARGO_BIN_EXE_copyd"))
        .args(["job", "list", "--url", &daemon.url()])
        .env("COPYD_TOKEN_FILE", &file)
        .output()
        .unwrap();
    assert_eq!(code(&environment), 0);
    let asked = daemon.asked();
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked.header("authorization") == Some("Bearer s3cret")));
    let open = copyd(&daemon, &["job", "list", &flag, "--url=http://192.0.2.1:1"]);
    assert_eq!(code(&open), 1);
    assert!(stderr(&open).contains("for everybody to read") && !stderr(&open).contains("s3cret"));
    let missing = copyd(&daemon, &["job", "list", "--token-file=/nowhere"]);
    assert_eq!(code(&missing), 1, "{}", stderr(&missing));
    assert_eq!(code(&copyd(&daemon, &["job", "list", "--certificate=/x", "--url=https://h"])), 1, "without a key");
}

#[test]
fn over_tls_both_sides_say_who_they_are_and_a_stranger_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (daemon, own, other) =
        Daemon::with_tls(directory.path(), |_, _| Reply::json(200, &json!({ "jobs": [], "next": null })));
    let ask = |ca: &Path, identity: &daemon::Identity| {
        let flag = |name: &str, file: &Path| format!("--{name}={}", file.display());
        let words = [flag("ca", ca), flag("certificate", &identity.certificate), flag("key", &identity.key)];
        copyd(&daemon, &["job", "list", &words[0], &words[1], &words[2]])
    };
    let good = ask(&own.authority, &own);
    assert_eq!(code(&good), 0, "{}", stderr(&good));
    let stranger = ask(&own.authority, &other);
    assert_eq!(code(&stranger), 11, "{}", stderr(&stranger));
    let impostor = ask(&other.authority, &own);
    assert_eq!(code(&impostor), 11);
    assert!(
        stderr(&impostor).contains("can't speak TLS") && stderr(&impostor).contains("--ca"),
        "{}",
        stderr(&impostor)
    );
    assert_eq!(daemon.asked().len(), 1, "only who is known is heard");
}
