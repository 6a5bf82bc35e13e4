//! The daemon through its binary: jobs over the API, and what becomes of them when something dies.
//!
//! How many kills and which seed are variables: `COPYD_DAEMON_KILLS` (6) and `COPYD_SEED`.

mod rig;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use rig::plan::{Fault, Kind};
use rig::stage::{Side, Stage, plant};
use support::Rng;
use support::crash::{mixed_tree, number, seed};
use support::daemon::Daemon;
use support::oracle::assert_same;

const MIB: u64 = 1 << 20;

/// A share with some files.
fn share(daemon: &Daemon, name: &str) {
    let root = daemon.share(name);
    fs::create_dir_all(root.join("directory")).expect("it is ours");
    for n in 0..20u8 {
        fs::write(root.join(format!("directory/{n}")), vec![n; 3000]).expect("it is ours");
    }
}

/// A share that takes a job with a limit of so many bytes a second about so many seconds.
fn large_share(daemon: &Daemon, name: &str, mib: u64) {
    share(daemon, name);
    let mut rng = Rng::new(mib);
    for n in 0..mib * 4 {
        fs::write(daemon.share(name).join(format!("large-{n}")), rng.bytes(256 << 10)).expect("it is ours");
    }
}

/// The events of a job have the numbers 1, 2, 3, …
fn assert_no_gap(events: &[Value]) {
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["id"], at as u64 + 1, "{event}");
    }
}

fn count(events: &[Value], of: impl Fn(&Value) -> bool) -> usize {
    events.iter().filter(|event| of(event)).count()
}

fn enters(state: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["type"] == "state_changed" && event["to"] == state
}

#[test]
fn a_migration_goes_from_the_request_to_the_switch() {
    let mut daemon = Daemon::start("");
    share(&daemon, "a");
    let id = daemon.create_between("migrate", "a", "b", json!({"private_data": {"ticket": "7"}}));
    daemon.until_state(&id, "ready");
    fs::write(daemon.share("a/late"), "written while the job was ready").expect("it is ours");
    fs::remove_file(daemon.share("a/directory/3")).expect("it is ours");
    daemon.commanded(&id, "cutover");
    let job = daemon.until_state(&id, "completed");
    assert_same(&daemon.share("a"), &daemon.share("b"));
    assert!(job["switch_safe_ms"].is_u64() && job["outcome"]["exit_code"] == 0, "{job:#}");
    assert_eq!(job["spec"]["private_data"]["ticket"], "7");
    // The confirmation copies nothing; what it takes as equal was proved by the passes before it.
    let totals = &job["totals"];
    assert_eq!((&totals["assumed"], &totals["proved_before"]), (&totals["entries"], &totals["entries"]), "{totals}");
    let events = daemon.events(&id);
    assert_no_gap(&events);
    assert_eq!(count(&events, |event| event["type"] == "switch_safe"), 1, "{events:#?}");
    let metrics = daemon.get("/metrics");
    let metrics: Vec<&str> = metrics.as_str().expect("text").lines().collect();
    let runs = job["totals"]["runs"].as_u64().expect("it counts them");
    for line in [
        "copyd_jobs{kind=\"migrate\",state=\"completed\"} 1".to_owned(),
        format!("copyd_runs_total{{kind=\"migrate\",exit_code=\"0\"}} {runs}"),
        "copyd_workers 0".to_owned(),
        format!("copyd_events_total {}", events.len() - 1),
    ] {
        // The event of its creation is written with the job.
        assert!(metrics.contains(&line.as_str()), "{line} in {metrics:#?}");
    }
    let (took, status) = daemon.terminate();
    assert!(status.success() && took < Duration::from_secs(2), "{took:?} {status} {}", daemon.log());
}

#[test]
fn every_kind_of_job_comes_to_its_end() {
    let daemon = Daemon::start("");
    share(&daemon, "a");
    let restore = daemon.create_between("restore", "a", "b", json!({"verify": "full"}));
    daemon.until_state(&restore, "completed");
    let verify = daemon.create_between("verify", "a", "b", json!({}));
    let job = daemon.until_state(&verify, "completed");
    assert_eq!(job["verification"]["equal"], true, "{job:#}");
    share(&daemon, "c");
    let replicate = daemon.create_between("replicate", "c", "d", json!({"schedule": "every 1s"}));
    daemon.until_state(&replicate, "in_sync");
    fs::write(daemon.share("c/new"), "new").expect("it is ours");
    daemon.until(&replicate, "a pass that found the new file", |_| daemon.share("d/new").exists());
    daemon.commanded(&replicate, "cancel");
    daemon.until_state(&replicate, "cancelled");
    let auto = daemon.create_between("migrate", "a", "e", json!({"cutover": "auto"}));
    daemon.until_state(&auto, "completed");
    assert_same(&daemon.share("a"), &daemon.share("e"));
}

#[test]
fn what_is_not_allowed_makes_no_job() {
    let daemon = Daemon::start("");
    share(&daemon, "a");
    for destination in ["/etc/copyd-test", "/tmp"] {
        let spec = json!({
            "kind": "migrate", "source": {"export": daemon.share("a")}, "destination": {"export": destination},
        });
        let (status, answer) = daemon.ask("POST", "/v1/jobs", Some(&spec));
        assert_eq!(status, 403, "{answer}");
        assert!(answer["remedy"].as_str().is_some_and(|remedy| remedy.contains("local_roots")), "{answer}");
    }
    assert_eq!(daemon.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn the_members_of_a_group_cut_over_together_or_not_at_all() {
    let daemon = Daemon::start("");
    let (status, answer) = daemon.ask("POST", "/v1/groups", Some(&json!({"name": "tier"})));
    assert!(status == 201 || status == 202, "{status} {answer}");
    let mut ids = Vec::new();
    for n in 0..2 {
        share(&daemon, &format!("from-{n}"));
        let more = json!({"group": "tier"});
        ids.push(daemon.create_between("migrate", &format!("from-{n}"), &format!("to-{n}"), more));
    }
    let (status, answer) = daemon.command(&ids[0], "cutover");
    assert_eq!(status, 409, "a member does not go alone: {answer}");
    for id in &ids {
        daemon.until_state(id, "ready");
    }
    let (status, answer) = daemon.ask("POST", "/v1/groups/tier/cutover", None);
    assert_eq!(status, 202, "{answer}");
    let switched: Vec<u64> = ids
        .iter()
        .map(|id| daemon.until_state(id, "completed")["switch_safe_ms"].as_u64().expect("it may be switched"))
        .collect();
    assert_eq!(switched[0], switched[1], "in one step");
    for (n, id) in ids.iter().enumerate() {
        assert_no_gap(&daemon.events(id));
        assert_same(&daemon.share(&format!("from-{n}")), &daemon.share(&format!("to-{n}")));
    }
}

/// A daemon that is killed with five jobs running, again and again: every job completes, none twice.
#[test]
fn jobs_survive_a_daemon_that_is_killed_at_random() {
    let kills = number("COPYD_DAEMON_KILLS", 6);
    let seed = seed();
    println!("COPYD_SEED={seed} COPYD_DAEMON_KILLS={kills}");
    let mut rng = Rng::new(seed);
    let mut daemon = Daemon::start("[daemon]\njobs_max = 5");
    let mut ids = Vec::new();
    for n in 0..5 {
        let (from, to) = (format!("from-{n}"), format!("to-{n}"));
        mixed_tree(&daemon.share(&from), seed ^ n, 40, [3, 5]);
        // About as long as all kills together.
        let rate = 30 * MIB / kills.max(1);
        let more = json!({"cutover": "auto", "limits": {"bytes_per_s": rate}});
        ids.push(daemon.create_between("migrate", &from, &to, more));
    }
    let mut last: Vec<u64> = vec![0; ids.len()];
    let mut running = 0;
    for kill in 0..kills {
        thread::sleep(Duration::from_millis(rng.below(900)));
        running += daemon.get("/v1/workers")["workers"].as_array().map_or(0, Vec::len);
        daemon.kill();
        daemon.begin();
        for (id, last) in ids.iter().zip(&mut last) {
            let events = daemon.events(id);
            assert_no_gap(&events);
            // What was heard of once is never taken back.
            assert!(events.len() as u64 >= *last, "kill {kill}: {events:#?}");
            *last = events.len() as u64;
        }
    }
    println!("{running} workers ran at {kills} kills");
    assert!(running as u64 >= 3 * kills, "most jobs run at most kills: {running}");
    for id in &ids {
        let change = json!({"limits": {"bytes_per_s": null}});
        daemon.ask("PATCH", &format!("/v1/jobs/{id}"), Some(&change));
    }
    for (n, id) in ids.iter().enumerate() {
        daemon.until_state(id, "completed");
        assert_same(&daemon.share(&format!("from-{n}")), &daemon.share(&format!("to-{n}")));
        let events = daemon.events(id);
        assert_no_gap(&events);
        assert_eq!(count(&events, enters("completed")), 1, "{events:#?}");
        assert_eq!(count(&events, |event| event["type"] == "switch_safe"), 1, "{events:#?}");
    }
    let listed = daemon.get("/v1/jobs?limit=100");
    let listed: BTreeSet<&str> =
        listed["jobs"].as_array().expect("a list").iter().filter_map(|j| j["id"].as_str()).collect();
    assert_eq!(listed, ids.iter().map(String::as_str).collect(), "no job is lost, and none came to be");
}

#[test]
fn a_worker_that_is_killed_costs_its_own_job_some_time_and_no_other_anything() {
    let daemon = Daemon::start("");
    large_share(&daemon, "a", 6);
    large_share(&daemon, "c", 6);
    let slow = json!({"limits": {"bytes_per_s": MIB}});
    let first = daemon.create_between("migrate", "a", "b", slow.clone());
    daemon.until(&first, "copied something", |job| job["progress"]["bytes_copied"].as_u64() > Some(0));
    let killed = daemon.workers();
    assert_eq!(killed.len(), 1, "{killed:?}");
    let second = daemon.create_between("migrate", "c", "d", slow);
    daemon.until(&second, "copied something", |job| job["progress"]["bytes_copied"].as_u64() > Some(0));
    kill_process(killed[0], Signal::KILL).expect("it runs");
    let job = daemon.until(&first, "noticed", |job| job["totals"]["runs_died"] == 1);
    assert_eq!(job["state"], "baseline", "{job:#}");
    let free = json!({"limits": {"bytes_per_s": null}});
    for id in [&first, &second] {
        daemon.ask("PATCH", &format!("/v1/jobs/{id}"), Some(&free));
        daemon.until_state(id, "ready");
    }
    assert_same(&daemon.share("a"), &daemon.share("b"));
    assert_same(&daemon.share("c"), &daemon.share("d"));
    let other = daemon.job(&second);
    assert_eq!(other["totals"]["runs_died"], 0, "{other:#}");
    let forced = |event: &Value| event["type"] == "run_ended" && event["forced"].is_object();
    assert_eq!((count(&daemon.events(&first), forced), count(&daemon.events(&second), forced)), (1, 0));
}

#[test]
fn a_source_that_hangs_holds_up_its_own_job_alone_and_a_cancel_is_recorded_in_time() {
    let stage = Stage::new();
    plant(&stage.source_backing);
    let mut daemon = Daemon::place(Some(Path::new("/tmp")), "");
    daemon.begin();
    let scratch = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
    let other = scratch.path().join("a");
    mixed_tree(&other, 3, 20, [1, 1]);
    stage.plan(Side::Source).on(|call| (call.kind == Kind::Read && call.nth > 3).then_some(Fault::Hangs));
    let stuck = daemon.create(&json!({
        "kind": "migrate",
        "source": {"export": stage.source.path()}, "destination": {"export": stage.destination.path()},
    }));
    let begun = Instant::now();
    while stage.plan(Side::Source).held() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing hangs: {:#}\n{}", daemon.job(&stuck), daemon.log());
        thread::sleep(Duration::from_millis(10));
    }
    let healthy = daemon.create(&json!({
        "kind": "migrate", "cutover": "auto", "limits": {"bytes_per_s": 4 * MIB},
        "source": {"export": &other}, "destination": {"export": scratch.path().join("b")},
    }));
    daemon.until(&stuck, "named the stall", |_| {
        daemon.events(&stuck).iter().any(|event| event["type"] == "stall" && event["side"] == "source")
    });
    let asked = Instant::now();
    daemon.commanded(&stuck, "cancel");
    let job = daemon.until_state(&stuck, "cancelled");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}: {job:#}", asked.elapsed());
    daemon.until_state(&healthy, "completed");
    assert_same(&other, &scratch.path().join("b"));
    assert_eq!(daemon.job(&healthy)["totals"]["runs_died"], 0);
    stage.clear();
    stage.plan(Side::Source).release();
    // What could not be ended has gone, and leaves no entry in the table of processes.
    let begun = Instant::now();
    while !daemon.workers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", daemon.workers());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn limits_and_window_are_changed_while_the_job_runs() {
    let daemon = Daemon::start("");
    large_share(&daemon, "a", 8);
    let id = daemon.create_between("migrate", "a", "b", json!({"limits": {"bytes_per_s": MIB / 2}}));
    daemon.until(&id, "copied something", |job| job["progress"]["bytes_copied"].as_u64() > Some(0));
    let change = |change: Value| {
        let (status, answer) = daemon.ask("PATCH", &format!("/v1/jobs/{id}"), Some(&change));
        assert_eq!(status, 202, "{answer}");
    };
    // A window that is closed now: it began two hours ago, for one hour.
    let hour = jiff::Timestamp::now().as_second() / 3600 % 24;
    let closed = format!("{:02}:00-{:02}:00", (hour + 20) % 24, (hour + 21) % 24);
    change(json!({"limits": {"window": closed}}));
    let job = daemon.until(&id, "waited for its window", |job| job["waiting"] == "window" && job["run"].is_null());
    assert_eq!(job["state"], "baseline", "{job:#}");
    change(json!({"limits": {"window": null}}));
    daemon.until(&id, "ran again", |job| job["progress"]["bytes_copied"].as_u64() > Some(0));
    let begun = Instant::now();
    change(json!({"limits": {"bytes_per_s": null}}));
    let job = daemon.until_state(&id, "ready");
    assert!(begun.elapsed() < Duration::from_secs(8), "the running worker took the new rate: {job:#}");
    assert_eq!(job["totals"]["runs_died"], 0, "{job:#}");
    assert_same(&daemon.share("a"), &daemon.share("b"));
}

#[test]
fn a_daemon_that_is_asked_to_end_does_within_five_seconds_and_goes_on_at_its_next_start() {
    let stage = Stage::new();
    plant(&stage.source_backing);
    let mut daemon = Daemon::place(Some(Path::new("/tmp")), "");
    daemon.begin();
    let scratch = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
    mixed_tree(&scratch.path().join("a"), 5, 20, [2, 2]);
    stage.plan(Side::Source).on(|call| (call.kind == Kind::Read && call.nth > 3).then_some(Fault::Hangs));
    let stuck = daemon.create(&json!({
        "kind": "migrate", "cutover": "auto",
        "source": {"export": stage.source.path()}, "destination": {"export": stage.destination.path()},
    }));
    let healthy = daemon.create(&json!({
        "kind": "migrate", "cutover": "auto", "limits": {"bytes_per_s": MIB},
        "source": {"export": scratch.path().join("a")}, "destination": {"export": scratch.path().join("b")},
    }));
    daemon.until(&healthy, "copied something", |job| job["progress"]["bytes_copied"].as_u64() > Some(0));
    let begun = Instant::now();
    while stage.plan(Side::Source).held() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing hangs: {}", daemon.log());
        thread::sleep(Duration::from_millis(10));
    }
    let (took, status) = daemon.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?} {status} {}", daemon.log());
    stage.clear();
    stage.plan(Side::Source).release();
    daemon.begin();
    daemon.ask("PATCH", &format!("/v1/jobs/{healthy}"), Some(&json!({"limits": {"bytes_per_s": null}})));
    for id in [&stuck, &healthy] {
        daemon.until_state(id, "completed");
        assert_no_gap(&daemon.events(id));
    }
    assert_same(&stage.source_backing, &stage.destination_backing);
    assert_same(&scratch.path().join("a"), &scratch.path().join("b"));
}

#[test]
fn a_daemon_without_its_spawner_ends_and_says_so() {
    let mut daemon = Daemon::start("");
    let spawner = support::daemon::children(daemon.pid().as_raw_pid());
    assert_eq!(spawner.len(), 1, "{spawner:?}");
    let spawner = rustix::process::Pid::from_raw(spawner[0]).expect("a process");
    kill_process(spawner, Signal::KILL).expect("it runs");
    let (took, status) = daemon.ended();
    assert_eq!(status.code(), Some(2), "{took:?} {}", daemon.log());
    assert!(daemon.log().contains("spawner"), "{}", daemon.log());
}

#[test]
fn the_api_side_has_no_rights() {
    let daemon = Daemon::start("");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_pid())).expect("it runs");
    for line in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        let found = status.lines().find_map(|found| found.strip_prefix(line)).expect("the kernel shows it");
        assert_eq!(found.trim_start_matches(':').trim(), "0000000000000000", "{line}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Of all its threads.
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid().as_raw_pid())).expect("it runs").flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("it runs");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
}

#[test]
fn what_the_engine_knows_of_an_entry_can_be_asked() {
    let daemon = Daemon::start("");
    share(&daemon, "a");
    for n in 0..2600 {
        fs::write(daemon.share("a").join(format!("many-{n}")), "x").expect("it is ours");
    }
    let id = daemon.create_between("migrate", "a", "b", json!({}));
    daemon.until_state(&id, "ready");
    let why = daemon.get(&format!("/v1/jobs/{id}/why?path=directory/7"));
    assert!(why.to_string().contains("directory/7"), "{why}");
    let (status, manifest) = daemon.ask("GET", &format!("/v1/jobs/{id}/manifest"), None);
    assert_eq!(status, 200, "{manifest}");
    let lines = manifest.as_str().map_or(0, |text| text.lines().count());
    assert!(lines > 2600, "more lines than are sent ahead: {lines}");
    assert_eq!(daemon.get("/v1/workers")["workers"], json!([]), "none of them is left");
}

#[test]
fn the_example_of_the_settings_is_what_the_program_prints() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_copyd")).args(["serve", "--example-config"]).output();
    let printed = String::from_utf8(output.expect("the built binary starts").stdout).expect("it is text");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/copyd.toml.example");
    let found = fs::read_to_string(&kept).unwrap_or_default();
    assert_eq!(found, printed, "write it anew: copyd serve --example-config > systemd/copyd.toml.example");
}
