//! `copyd job` against `copyd serve`, both of the built binary: a migration of a real tree from its making to its
//! report, and what people meet on the way.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

use support::daemon::Daemon;

/// What a tenant called a file: it would colour a terminal, ends a line, and is no UTF-8.
const HOSTILE: &[u8] = b"bad\x1b[31m\xff\nname";

fn copyd(daemon: &Daemon, words: &[&OsStr]) -> Output {
    let url = format!("unix:{}", daemon.socket().display());
    Command::new(env!("CARGO_BIN_EXE_copyd"))
        .args(words)
        .env("COPYD_URL", url)
        .env_remove("COPYD_TOKEN_FILE")
        .output()
        .expect("copyd starts")
}

/// Runs words that must end with the code, and gives what stands on stdout.
fn told(daemon: &Daemon, code: i32, words: &[&str]) -> String {
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let output = copyd(daemon, &words);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {out}\n{err}");
    let clean = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    assert!(clean(&out) && clean(&err), "{words:?}: {out}\n{err}");
    out.into_owned()
}

fn create(daemon: &Daemon, flags: &[&str], source: &Path, destination: &Path) -> String {
    let (source, destination) = (source.to_str().expect("it is ours"), destination.to_str().expect("it is ours"));
    let words = [&["job", "create"], flags, &[source, destination]].concat();
    told(daemon, 0, &words).trim().to_owned()
}

fn tree(at: &Path) {
    std::fs::create_dir_all(at.join("d")).expect("it is ours");
    std::fs::write(at.join("d/file"), b"content").expect("it is ours");
    std::fs::write(at.join(OsStr::from_bytes(HOSTILE)), b"x").expect("it is ours");
}

#[test]
fn a_migration_is_made_watched_cut_over_and_reported_by_hand() {
    let daemon = Daemon::start("");
    let (source, destination) = (daemon.share("a"), daemon.share("b"));
    tree(&source);
    let job = create(&daemon, &["--label=ticket=7"], &source, &destination);
    let watched = told(&daemon, 0, &["job", "watch", "--until=ready", &job]);
    assert!(watched.contains("queued → mounting") && watched.contains("→ ready"), "{watched}");
    assert!(told(&daemon, 0, &["job", "list", "--label=ticket=7"]).contains(&job));
    assert!(!told(&daemon, 0, &["job", "list", "--label=ticket=8"]).contains(&job));
    assert!(told(&daemon, 0, &["job", "show", &job]).contains("ready: a cutover would take"));
    told(&daemon, 0, &["job", "set", &job, "--priority=80", "--bwlimit=100M"]);
    told(&daemon, 43, &["job", "cutover", "--if-generation=1", &job]);

    std::fs::write(source.join("d/file"), b"changed since").expect("it is ours");
    told(&daemon, 0, &["job", "cutover", &job]);
    let watched = told(&daemon, 0, &["job", "watch", &job]);
    assert!(watched.contains("clients may use the destination from now on"), "{watched}");
    assert_eq!(std::fs::read(destination.join("d/file")).expect("it was copied"), b"changed since");

    let why = copyd(
        &daemon,
        &["job", "why", &job].map(OsStr::new).into_iter().chain([OsStr::from_bytes(HOSTILE)]).collect::<Vec<_>>(),
    );
    let text = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(text.starts_with("bad\\#033[31m\\#377\\#012name\n") && text.contains("was proved"), "{text}");
    assert!(told(&daemon, 0, &["job", "why", &job, "nothing"]).contains("has not recorded it"));

    let page = daemon.path("report.html");
    told(&daemon, 0, &["job", "report", "--html", page.to_str().expect("it is ours"), &job]);
    let page = std::fs::read_to_string(page).expect("it was written");
    assert!(page.contains("Clients may switch") && page.contains("Completed: "), "{page}");
    let report: serde_json::Value =
        serde_json::from_str(&told(&daemon, 0, &["job", "report", "--json", &job])).expect("JSON");
    assert_eq!(report["job"]["outcome"]["exit_code"], 0, "{report}");
    assert_eq!(report["cutover"]["attempts"], 1, "{report}");
    assert_eq!(report["passes"].as_array().map(Vec::len), Some(4), "{report}");

    told(&daemon, 43, &["job", "cutover", &job]);
    told(&daemon, 0, &["job", "delete", &job]);
    told(&daemon, 1, &["job", "show", &job]);
}

#[test]
fn what_is_not_allowed_or_not_there_is_refused_with_its_code() {
    let daemon = Daemon::start("");
    let share = daemon.share("x");
    told(&daemon, 43, &["job", "create", "/etc", share.to_str().expect("it is ours")]);
    told(&daemon, 1, &["job", "show", "0190a6f0-0000-7000-8000-000000000009"]);
    let [from, to] = [daemon.share("a"), daemon.share("b")].map(|path| path.to_str().expect("it is ours").to_owned());
    told(&daemon, 1, &["job", "create", "--window=25:00-26:00", &from, &to]);
    assert!(told(&daemon, 0, &["job", "list"]).is_empty(), "no job came of it");
}

#[test]
fn a_watch_outlives_the_daemon_and_ends_with_the_job_s_code() {
    let mut daemon = Daemon::start("");
    let (source, destination) = (daemon.share("a"), daemon.share("b"));
    tree(&source);
    std::fs::write(source.join("large"), vec![7_u8; 40 << 20]).expect("there is room");
    let job = create(&daemon, &["--bwlimit=8M", "--cutover=auto"], &source, &destination);
    let url = format!("unix:{}", daemon.socket().display());
    let watch = Command::new(env!("CARGO_BIN_EXE_copyd"))
        .args(["job", "watch", "--url", &url, &job])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("copyd starts");
    daemon.until_state(&job, "baseline");
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.kill();
    daemon.begin();
    let output = watch.wait_with_output().expect("it is ours");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert!(err.contains("the connection to the daemon broke"), "{err}");
    assert_eq!(out.matches("taken on: migrate").count(), 1, "nothing is told twice: {out}");
    assert_eq!(out.matches("→ completed").count(), 1, "{out}");
    let report: serde_json::Value =
        serde_json::from_str(&told(&daemon, 0, &["job", "report", "--json", &job])).expect("JSON");
    let moved: u64 = report["throughput"].as_array().into_iter().flatten().filter_map(|span| span[2].as_u64()).sum();
    assert!(moved > 0, "there is something to draw: {report}");
}

#[test]
fn a_group_cuts_over_by_hand_and_a_cancelled_job_is_20() {
    let daemon = Daemon::start("");
    let source = daemon.share("a");
    tree(&source);
    told(&daemon, 0, &["group", "create", "g"]);
    let jobs = ["b", "c"].map(|name| create(&daemon, &["--group=g"], &source, &daemon.share(name)));
    for job in &jobs {
        told(&daemon, 0, &["job", "watch", "--until=ready", job]);
    }
    told(&daemon, 0, &["group", "cutover", "g"]);
    for job in &jobs {
        told(&daemon, 0, &["job", "watch", job]);
    }
    assert!(told(&daemon, 0, &["group", "show", "g"]).contains("completed, 2 members"));
    std::fs::write(source.join("large"), vec![7_u8; 8 << 20]).expect("there is room");
    let job = create(&daemon, &["--bwlimit=512K"], &source, &daemon.share("d"));
    told(&daemon, 0, &["job", "pause", &job]);
    told(&daemon, 0, &["job", "resume", &job]);
    told(&daemon, 0, &["job", "cancel", &job]);
    told(&daemon, 20, &["job", "watch", &job]);
}
