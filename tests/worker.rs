//! `copyd worker` as a control plane calls it: specification and commands in, events out, and the bounds that
//! whoever hands it the specification has set.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::trees;

/// A worker with its pipes.
struct Worker {
    child: Child,
    commands: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    fn start(specification: &Value) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_copyd"))
            .args(["worker", "--spec", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("copyd starts");
        let mut commands = child.stdin.take().expect("a pipe");
        writeln!(commands, "{specification}").expect("it listens");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, commands, lines }
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").expect("it listens");
    }

    fn next(&mut self) -> Option<Value> {
        self.lines.next().map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
    }

    /// Everything that is still said, and the exit code.
    fn end(mut self) -> (Vec<Value>, i32) {
        let said: Vec<Value> = std::iter::from_fn(|| self.next()).collect();
        (said, self.child.wait().expect("it ends").code().expect("no signal"))
    }
}

/// Runs a specification to its end; the last line is the summary.
fn run(specification: &Value) -> (Vec<Value>, i32) {
    let (said, code) = Worker::start(specification).end();
    let summary = said.last().expect("a summary");
    assert_eq!((&summary["event"], summary["exit_code"].as_i64()), (&json!("summary"), Some(code.into())));
    (said, code)
}

fn specification(kind: &str, source: &Path, destination: &Path, state: &Path) -> Value {
    json!({ "schema": 1, "kind": kind, "source": { "export": source }, "destination": { "export": destination },
            "state_dir": state })
}

#[test]
fn a_rate_is_changed_and_lifted_while_the_worker_runs() {
    let [source, destination, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    fs::write(source.path().join("large"), vec![7; 48 << 20]).unwrap();
    let mut slow = specification("migrate", source.path(), destination.path(), state.path());
    slow["limits"] = json!({ "bytes_per_s": 1 << 20 });
    let mut worker = Worker::start(&slow);
    let begun = Instant::now();
    while worker.next().expect("it goes on")["event"] != "pass_started" {}
    // A rate that is missing, or misspelt, is not the same as none.
    worker.tell(&json!({ "command": "limits" }));
    worker.tell(&json!({ "command": "limits", "bytes_per_second": null }));
    let mut refused = 0;
    while refused < 2 {
        refused += usize::from(worker.next().expect("it goes on")["event"] == "unknown_command");
    }
    worker.tell(&json!({ "command": "limits", "bytes_per_s": null }));
    let (said, code) = worker.end();
    assert_eq!(code, 0, "{:?}", said.last());
    assert!(begun.elapsed() < Duration::from_secs(30), "at the old rate it would take 48 s: {:?}", begun.elapsed());
    assert_eq!(fs::metadata(destination.path().join("large")).unwrap().len(), 48 << 20);
}

#[test]
fn p6_roots_lie_within_what_is_allowed_and_no_symlink_leads_there() {
    let allowed = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let top = fs::canonicalize(allowed.path()).unwrap();
    for name in ["source", "destination"] {
        fs::create_dir(top.join(name)).unwrap();
        fs::create_dir(outside.path().join(name)).unwrap();
    }
    fs::write(top.join("source/file"), b"inside").unwrap();
    fs::write(outside.path().join("source/secret"), b"outside").unwrap();
    symlink(outside.path(), top.join("way-out")).unwrap();
    symlink(top.join("source"), top.join("link")).unwrap();
    let bounded = |kind: &str, source: &Path, destination: &Path| {
        let mut bounded = specification(kind, source, destination, state.path());
        if kind == "verify" {
            bounded.as_object_mut().unwrap().remove("state_dir");
        }
        bounded["within"] = json!(["/nowhere", top]);
        run(&bounded)
    };
    for kind in ["migrate", "sync", "verify"] {
        for (source, destination, what) in [
            (outside.path().join("source"), top.join("destination"), "lies outside"),
            (top.join("source"), outside.path().join("destination"), "lies outside"),
            (top.join("source"), outside.path().join("new"), "lies outside"),
            (top.join("destination/../../").join("source"), top.join("destination"), "lies outside"),
            (top.join("way-out/source"), top.join("destination"), "symlink"),
            (top.join("source"), top.join("way-out/destination"), "symlink"),
            (top.join("link"), top.join("destination"), "symlink"),
        ] {
            let (said, code) = bounded(kind, &source, &destination);
            // What is not there is said before where it would lie.
            let absent = kind == "verify" && !destination.exists();
            let message = said.last().unwrap()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(code, if absent { 11 } else { 43 }, "{kind} {source:?} {destination:?}: {message}");
            assert!(absent || message.contains(what), "{message}");
        }
        assert!(fs::read_dir(outside.path().join("destination")).unwrap().next().is_none());
        assert!(!outside.path().join("new").exists());
    }
    // A destination that is missing is made below what is allowed, and nowhere else.
    let (_, code) = bounded("migrate", &top.join("source"), &top.join("way-out/made"));
    assert_eq!(code, 43);
    assert!(!outside.path().join("made").exists());
    let (_, code) = bounded("migrate", &top.join("source"), &top.join("destination/made"));
    assert_eq!(code, 0);
    assert_eq!(fs::read(top.join("destination/made/file")).unwrap(), b"inside");
}

/// The `entry` events of an inspection.
fn entries(specification: &Value) -> Vec<Value> {
    let (said, code) = run(specification);
    assert_eq!(code, 0, "{said:?}");
    said.into_iter().filter(|event| event["event"] == "entry").collect()
}

#[test]
fn an_inspection_tells_what_the_job_knows_of_one_entry_or_of_all() {
    let [source, destination, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("a")).unwrap();
    fs::write(source.path().join("a/file"), b"content").unwrap();
    symlink("file", source.path().join("a/link")).unwrap();
    let (said, code) = run(&specification("migrate", source.path(), destination.path(), state.path()));
    assert_eq!(code, 0);
    let job = said.last().unwrap()["job"].clone();
    assert_eq!((&said.last().unwrap()["proved"], &said.last().unwrap()["proved_before"]), (&json!(4), &json!(0)));
    // A second run finds all as it left it, and tells what of that it has only taken as equal.
    let (said, _) = run(&specification("migrate", source.path(), destination.path(), state.path()));
    let again = said.last().unwrap();
    assert_eq!((&again["proved"], &again["assumed"], &again["proved_before"]), (&json!(0), &json!(4), &json!(4)));
    let ask = |path: Option<&str>| {
        let mut ask = json!({ "schema": 1, "kind": "inspect", "job": job, "state_dir": state.path() });
        if let Some(path) = path {
            ask["path"] = json!(path);
        }
        entries(&ask)
    };
    let [file] = &ask(Some("a/file"))[..] else { panic!("one entry") };
    let digest = blake3::hash(b"content").to_hex();
    assert_eq!(file["digest"], json!(digest.as_str()));
    assert_eq!((&file["known"], &file["published"], &file["proved"]), (&json!(true), &json!(true), &json!(true)));
    let there = fs::metadata(source.path().join("a/file")).unwrap();
    assert_eq!((file["size"].as_u64(), file["mtime_s"].as_i64()), (Some(7), Some(there.mtime())));
    assert_eq!(ask(Some("a/link"))[0]["target"], "file");
    for unknown in ["b", "a/file/below", "a/fil"] {
        assert_eq!(ask(Some(unknown))[0]["known"], json!(false), "{unknown}");
    }
    let all: Vec<String> = ask(None).iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all, ["", "a", "a/file", "a/link"]);
    // The share may be gone.
    fs::remove_dir_all(destination.path()).unwrap();
    assert_eq!(ask(Some("a"))[0]["kind"], "directory");

    let foreign =
        json!({ "schema": 1, "kind": "inspect", "job": uuid::Uuid::nil().to_string(), "state_dir": state.path() });
    let (said, code) = run(&foreign);
    assert_eq!(code, 1, "{said:?}");
}

#[test]
fn an_inspection_reads_while_the_job_runs_and_takes_nothing_from_it() {
    let [source, destination, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    trees::small_files(source.path(), 4000, 5).unwrap();
    let mut slow = specification("migrate", source.path(), destination.path(), state.path());
    slow["limits"] = json!({ "bytes_per_s": 8 << 20 });
    let mut worker = Worker::start(&slow);
    let job = loop {
        let event = worker.next().expect("it goes on");
        if event["event"] == "started" {
            break event["job"].clone();
        }
    };
    while worker.next().expect("it goes on")["files_copied"].as_u64().unwrap_or(0) < 300 {}
    // What is recorded by now is told; a directory is when all in it is.
    let seen = entries(&json!({ "schema": 1, "kind": "inspect", "job": job, "state_dir": state.path() }));
    assert!(seen.iter().all(|entry| entry["known"] == json!(true)));
    worker.tell(&json!({ "command": "limits", "bytes_per_s": null }));
    let (said, code) = worker.end();
    assert_eq!(code, 0, "{:?}", said.last());
}
