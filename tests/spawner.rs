//! The spawner as one meets it who has taken the API over: what the lists don't allow is not started, whatever is
//! said on the link, and nothing outlives its daemon.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use support::link::{Spawner, specification};

const RUN: &str = "01890000-0000-7000-8000-000000000001";

/// A place with an allowed directory, one beside it, and room for state.
struct Place {
    scratch: tempfile::TempDir,
    allowed: PathBuf,
    beside: PathBuf,
    state: PathBuf,
}

fn place() -> Place {
    let scratch = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
    let directory = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).expect("it is ours");
        path
    };
    let (allowed, beside, state) = (directory("allowed"), directory("allowed-not"), directory("state"));
    for parent in [&allowed, &beside] {
        fs::create_dir(parent.join("source")).expect("it is ours");
        fs::write(parent.join("source/file"), "content").expect("it is ours");
    }
    Place { scratch, allowed, beside, state }
}

fn refusal(lines: &[Value]) -> (&str, &str) {
    let refused = &lines[0]["refused"];
    assert_eq!(lines.len(), 2, "refused, and nothing else: {lines:#?}");
    assert!(refused["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{refused}");
    (refused["reason"].as_str().unwrap_or_default(), refused["what"].as_str().unwrap_or_default())
}

#[test]
fn a_run_below_an_allowed_root_is_carried_out_and_its_events_are_relayed() {
    let place = place();
    let mut spawner = Spawner::start(&place.allowed, &place.state);
    assert_eq!(spawner.hello["hello"]["schema"], 1);
    assert_eq!(spawner.hello["hello"]["privileged"], rustix::process::geteuid().is_root());
    spawner.start_copy(RUN, "sync", &place.allowed.join("source"), &place.allowed.join("destination"));
    let lines = spawner.until_end_of(RUN);
    assert_eq!(lines.last().expect("a line")["ended"]["exit_code"], 0, "{lines:#?}");
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"]["event"].as_str()).collect();
    assert!(events.contains(&"started") && events.contains(&"confined"), "{events:?}");
    assert_eq!(events.last(), Some(&"summary"), "{events:?}");
    assert_eq!(fs::read_to_string(place.allowed.join("destination/file")).expect("it was copied"), "content");
    assert!(place.state.join("engine/jobs.sqlite").exists(), "the state lies where the spawner was told");
    let (_, status) = spawner.leave();
    assert!(status.success(), "{status}");
}

#[test]
fn what_the_lists_do_not_allow_is_refused_although_the_link_asks_for_it_directly() {
    let place = place();
    let mut spawner = Spawner::start(&place.allowed, &place.state);
    let inside = place.allowed.join("source");
    let to = place.allowed.join("destination");
    let copy = |source: &Path, destination: &Path| specification("sync", source, destination);
    let with = |field: &str, value: Value| {
        let mut specification = copy(&inside, &to);
        specification[field] = value;
        specification
    };
    let up = place.allowed.join("source/../../allowed-not/source");
    let cases = [
        ("default", copy(&place.beside.join("source"), &to), None, "not_allowed"),
        ("default", copy(&inside, &place.beside.join("destination")), None, "not_allowed"),
        ("default", copy(&up, &to), None, "not_allowed"),
        ("default", copy(Path::new("source"), &to), None, "not_allowed"),
        ("other", copy(&inside, &to), None, "not_allowed"),
        ("default", copy(&inside, &to), Some("other-tenant"), "not_allowed"),
        ("default", copy(&inside, &to), Some("../netns/tenant"), "not_allowed"),
        ("default", with("manifest", json!("/etc/copyd-manifest")), None, "not_allowed"),
        ("default", with("manifest_b64", json!("L2V0Yy9tYW5pZmVzdA==")), None, "not_allowed"),
        ("default", with("state_dir", json!(place.beside)), None, "not_allowed"),
        ("default", with("state_dir_b64", json!("L2V0Yw==")), None, "not_allowed"),
        ("default", with("destination", json!({})), None, "invalid"),
    ];
    for (project, specification, namespace, expected) in cases {
        spawner.start_with(RUN, project, &specification, namespace);
        let lines = spawner.until_end_of(RUN);
        assert_eq!(refusal(&lines).0, expected, "{specification} {namespace:?}: {lines:#?}");
    }
    // A list of allowed places that the link itself gives is not the spawner's.
    spawner.start_with(
        RUN,
        "default",
        &{
            let mut specification = copy(&place.beside.join("source"), &to);
            specification["within"] = json!(["/"]);
            specification
        },
        None,
    );
    assert_eq!(refusal(&spawner.until_end_of(RUN)).0, "not_allowed");
    assert!(!to.exists() && !place.beside.join("destination").exists(), "nothing was touched");
    spawner.leave();
}

#[test]
fn a_symlink_below_an_allowed_root_leads_nowhere() {
    let place = place();
    std::os::unix::fs::symlink(&place.beside, place.allowed.join("way")).expect("a link");
    let mut spawner = Spawner::start(&place.allowed, &place.state);
    let (source, to) = (place.allowed.join("source"), place.allowed.join("destination"));
    for (from, to) in [(place.allowed.join("way/source"), to), (source, place.allowed.join("way/destination"))] {
        spawner.start_copy(RUN, "sync", &from, &to);
        let lines = spawner.until_end_of(RUN);
        let code = &lines.last().expect("a line")["ended"]["exit_code"];
        assert_eq!(code, 43, "{lines:#?}");
    }
    assert!(!place.beside.join("destination").exists() && !place.allowed.join("destination").exists());
    spawner.leave();
}

#[test]
fn a_line_that_is_no_request_ends_the_link_and_with_it_the_spawner() {
    for line in ["{\"do\":\"stop\"}\n", "nonsense\n", "{\"do\":\"start\",\"run\":\"x\"}\n"] {
        let place = place();
        let mut spawner = Spawner::start(&place.allowed, &place.state);
        spawner.raw(line);
        assert_eq!(spawner.line(), None, "{line}");
        assert!(spawner.child.wait().expect("it is ours").success());
    }
}

#[test]
fn the_runs_of_a_daemon_that_has_gone_come_to_a_safe_point_and_the_spawner_ends() {
    let place = place();
    let source = place.allowed.join("source");
    for n in 0..64 {
        fs::write(source.join(format!("large-{n}")), vec![n; 1 << 20]).expect("it is ours");
    }
    let mut spawner = Spawner::start(&place.allowed, &place.state);
    let mut specification = specification("sync", &source, &place.allowed.join("destination"));
    specification["limits"] = json!({"bytes_per_s": 1 << 20});
    spawner.start_with(RUN, "default", &specification, None);
    while spawner.line().expect("the link is open")["event"]["event"] != "pass_started" {}
    std::thread::sleep(Duration::from_millis(500));
    let (took, status) = spawner.leave();
    assert!(status.success() && took < Duration::from_secs(6), "{took:?} {status}");
    let jobs = rusqlite::Connection::open(place.state.join("engine/jobs.sqlite")).expect("there is state");
    let state: String = jobs.query_row("SELECT state FROM job", [], |row| row.get(0)).expect("there is one job");
    assert_eq!(state, "cancelled", "it was told and could record that");
}

#[test]
fn at_a_socket_it_serves_one_after_the_other_and_nobody_who_is_not_the_daemon() {
    let place = place();
    let socket = place.state.join("spawner.sock");
    // Whoever it is must reach the socket.
    for directory in [place.scratch.path(), &place.state] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let child = Spawner::listen(&socket, &place.allowed, &place.state);
    let mut first = Spawner::connect(child, &socket);
    first.start_copy(RUN, "sync", &place.allowed.join("source"), &place.allowed.join("destination"));
    assert_eq!(first.until_end_of(RUN).last().expect("a line")["ended"]["exit_code"], 0);
    let child = first.disconnect();
    let second = Spawner::connect(child, &socket);
    let mut child = second.disconnect();
    let stranger = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.settimeout(20)\n\
                    print(len(s.recv(1000)))";
    let heard = |uid: u32| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", stranger]).arg(&socket).uid(uid).gid(uid);
        let output = command.output().expect("python3 is there");
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().unwrap_or_else(|_| panic!("{output:?}"))
    };
    assert_eq!(heard(65534), 0, "turned away without a word");
    assert!(heard(0) > 0, "root is greeted");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("it runs");
    assert!(child.wait().expect("it is ours").success());
}

#[test]
fn runs_are_counted_and_none_is_started_twice() {
    let place = place();
    let mut spawner = Spawner::start(&place.allowed, &place.state);
    let (source, to) = (place.allowed.join("source"), place.allowed.join("destination"));
    fs::write(source.join("large"), vec![7; 64 << 20]).expect("it is ours");
    let mut specification = specification("sync", &source, &to);
    specification["limits"] = json!({"bytes_per_s": 1 << 20});
    spawner.start_with(RUN, "default", &specification, None);
    while spawner.line().expect("the link is open")["event"]["event"] != "pass_started" {}
    spawner.start_with(RUN, "default", &specification, None);
    let refused = loop {
        let line = spawner.line().expect("the link is open");
        if line.get("refused").is_some() {
            break line;
        }
    };
    assert_eq!(refused["refused"]["reason"], "invalid", "{refused}");
    spawner.say(&json!({"do": "end", "run": RUN}));
    let last = loop {
        let line = spawner.line().expect("the link is open");
        if line["ended"].is_object() && line["ended"]["exit_code"] != 1 {
            break line;
        }
    };
    // By force, or at a safe point where it was quicker than that.
    assert_eq!(last["ended"]["exit_code"], 20, "{last}");
    spawner.leave();
}
