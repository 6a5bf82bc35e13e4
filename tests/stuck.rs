//! T24 and P7: calls that are never answered, on either side and by both backends. The stall is named with its
//! side, a cancel is recorded and over within five seconds, a timeout ends with 30, and once the file system
//! answers again the same command completes. And T33: a worker that lost its job while it slept changes nothing.

mod rig;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use rig::plan::{Fault, Kind};
use rig::stage::{Side, Stage, plant};
use support::copyd::{Copyd, Run};
use support::crash::number;
use support::mounts::{FsType, volume};
use support::oracle::assert_same;
use support::trees;

/// Promise P7: from the cancel until it is recorded.
const CANCEL: Duration = Duration::from_secs(5);

/// What hangs: the kind of call, on which side.
type Case = (Side, Kind);

/// READ, WRITE, FSYNC and FLUSH, GETATTR, LOOKUP, READDIR, where each side sees them.
const CASES: [Case; 10] = [
    (Side::Source, Kind::Read),
    (Side::Source, Kind::Getattr),
    (Side::Source, Kind::Lookup),
    (Side::Source, Kind::Readdir),
    (Side::Source, Kind::Flush),
    (Side::Destination, Kind::Write),
    (Side::Destination, Kind::Fsync),
    (Side::Destination, Kind::Flush),
    (Side::Destination, Kind::Getattr),
    (Side::Destination, Kind::Lookup),
];

const fn word(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Destination => "destination",
    }
}

/// A stage with a tree at its source, and how often a clean run makes each call.
fn staged(verb: &str, backend: &str, side: Side) -> (Stage, BTreeMap<Kind, u64>) {
    let mut stage = Stage::new();
    plant(&stage.source_backing);
    stage.patient_command(verb, backend).run().expect(0);
    let counts = stage.plan(side).counts();
    stage.begin_again();
    (stage, counts)
}

/// From the middle of a run on, every call of a kind hangs.
fn hang(stage: &Stage, (side, kind): Case, counts: &BTreeMap<Kind, u64>) {
    let clean = counts.get(&kind).copied().unwrap_or(0);
    assert!(clean > 0, "a clean run never makes {kind:?} at the {side:?}");
    let from = clean / 2 + 1;
    stage.plan(side).on(move |call| (call.kind == kind && call.nth >= from).then_some(Fault::Hangs));
}

fn job_state(state: &Path) -> String {
    let jobs = rusqlite::Connection::open(state.join("jobs.sqlite")).expect("the list of jobs is there");
    jobs.query_row("SELECT state FROM job", [], |row| row.get(0)).expect("there is one job")
}

fn stalls(run: &Run) -> Vec<Value> {
    run.events().into_iter().filter(|event| event["event"] == "stall").collect()
}

fn names_side(run: &Run, side: Side) {
    let stalls = stalls(run);
    let last = stalls.last().unwrap_or_else(|| panic!("no stall is named: {run}"));
    assert_eq!(last["side"], word(side), "{last}\n{run}");
    assert!(last["operation"].is_string(), "{last}");
}

/// The share answers again: what was withheld is answered, or its connection is gone and another there.
fn answer(stage: &mut Stage, side: Side, by_release: bool) {
    stage.clear();
    if by_release {
        stage.plan(side).release();
        return;
    }
    let rig = if side == Side::Source { &mut stage.source } else { &mut stage.destination };
    rig.abort();
    rig.unmount();
    rig.mount();
}

fn cancelled(case: Case, backend: &str, by_release: bool) {
    let (side, _) = case;
    let (mut stage, counts) = staged("migrate", backend, side);
    hang(&stage, case, &counts);
    let command = stage.patient_command("migrate", backend);
    let mut running = command.spawn();
    running.until("a call hangs", || stage.plan(side).held() > 0);
    thread::sleep(Duration::from_millis(300));
    running.signal_supervisor(Signal::INT);
    let asked = Instant::now();
    let run = running.wait();
    let took = asked.elapsed();
    let run = run.expect(20);
    assert_eq!(run.summary().text("outcome"), "cancelled", "{case:?} {backend}: {run}");
    names_side(&run, side);
    assert_eq!(job_state(stage.state()), "cancelled", "{case:?} {backend}: {run}");
    // The fence comes first; what follows is the kill, and a look whether it worked.
    assert!(took < CANCEL + Duration::from_secs(1), "{case:?} {backend}: {took:?}: {run}");
    answer(&mut stage, side, by_release);
    assert_eq!(stage.completes(&command), Ok(()), "{case:?} {backend}: {run}");
}

/// Runs cases side by side: nearly all of their time is waiting.
fn side_by_side(cases: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = cases.into_iter().map(thread::spawn).collect();
    let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
    assert_eq!(failed, 0, "cases failed, see above");
}

/// So many cases at a time: copies are quick, but each is a process with two mounts.
fn in_groups(mut cases: Vec<Box<dyn FnOnce() + Send>>) {
    let at_a_time = usize::try_from(number("COPYD_T24_AT_A_TIME", 5)).expect("a small number");
    while !cases.is_empty() {
        let rest = cases.split_off(cases.len().min(at_a_time));
        side_by_side(std::mem::replace(&mut cases, rest));
    }
}

#[test]
fn t24_a_call_that_is_never_answered_is_named_and_a_cancel_ends_the_run() {
    let mut cases: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for (at, case) in CASES.into_iter().enumerate() {
        for backend in ["threads", "uring"] {
            // Only blocks move through the ring; the rest is the same by both.
            let through_ring = matches!(case.1, Kind::Read | Kind::Write | Kind::Fsync);
            if backend == "threads" || through_ring {
                cases.push(Box::new(move || cancelled(case, backend, at % 2 == 0)));
            }
        }
    }
    println!("T24: {} cancelled runs", cases.len());
    in_groups(cases);
}

#[test]
fn t24_a_timeout_ends_the_run_with_30_and_names_the_side() {
    let timed_out = |case: Case, verb: &'static str, backend: &'static str| {
        move || {
            let (side, _) = case;
            let (mut stage, counts) = staged(verb, backend, side);
            hang(&stage, case, &counts);
            let command = stage.patient_command(verb, backend).args(&["--timeout", "3"]);
            let run = command.run().expect(30);
            assert_eq!(run.summary().text("outcome"), "failed", "{run}");
            let error = run.summary().0["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(error.starts_with(&format!("no answer from {} for", word(side))), "{error}\n{run}");
            answer(&mut stage, side, true);
            assert_eq!(stage.completes(&command), Ok(()), "{run}");
        }
    };
    side_by_side(vec![
        Box::new(timed_out((Side::Source, Kind::Read), "sync", "uring")),
        Box::new(timed_out((Side::Destination, Kind::Write), "migrate", "threads")),
        Box::new(timed_out((Side::Destination, Kind::Lookup), "migrate", "threads")),
    ]);
}

#[test]
fn t24_a_root_that_does_not_answer_and_a_verify_end_by_a_cancel_too() {
    let opening = || {
        let stage = Stage::new();
        plant(&stage.source_backing);
        stage.plan(Side::Source).every(Kind::Getattr, Fault::Hangs);
        let mut running = stage.patient_command("migrate", "threads").spawn();
        running.until("a call hangs", || stage.plan(Side::Source).held() > 0);
        running.signal_supervisor(Signal::INT);
        let run = running.wait().expect(20);
        names_side(&run, Side::Source);
        stage.plan(Side::Source).release();
    };
    let verifying = || {
        let stage = Stage::new();
        plant(&stage.source_backing);
        stage.patient_command("migrate", "threads").run().expect(0);
        stage.clear();
        stage.plan(Side::Destination).every(Kind::Read, Fault::Hangs);
        let mut running = stage.patient_command("verify", "threads").spawn();
        running.until("a call hangs", || stage.plan(Side::Destination).held() > 0);
        running.signal_supervisor(Signal::TERM);
        let run = running.wait().expect(20);
        names_side(&run, Side::Destination);
        stage.plan(Side::Destination).release();
    };
    side_by_side(vec![Box::new(opening), Box::new(verifying)]);
}

// ---------------------------------------------------------------------------------------------
// One of the two processes dies, or sleeps.

/// A tree that takes a while at 4 MiB a second, and its copy under way.
struct Slow {
    source: PathBuf,
    destination: PathBuf,
    state: PathBuf,
    _volume: Box<dyn support::mounts::Volume>,
}

impl Slow {
    fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 256);
        let source = volume.directory("source");
        trees::small_files(&source, 400, 5).expect("there is room");
        fs::write(source.join("large"), support::Rng::new(3).bytes(24 << 20)).expect("there is room");
        let (destination, state) = (volume.path().join("destination"), volume.path().join("state"));
        Self { source, destination, state, _volume: volume }
    }

    fn command(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).state_dir(&self.state)
    }

    fn under_way(&self) -> support::copyd::Running {
        let mut running = self.command().args(&["--bwlimit", "4M"]).spawn();
        running.until("bytes are copied", || {
            let large = support::crash::staging(&self.destination).map(|staging| staging.join("large"));
            large.is_some_and(|large| fs::read_dir(large).is_ok_and(|mut entries| entries.next().is_some()))
        });
        running
    }

    fn completes(&self) {
        let run = self.command().run().expect(0);
        assert_same(&self.source, &self.destination);
        assert!(support::crash::staging(&self.destination).is_none(), "left over: {run}");
    }

    /// Every name with its inode and times of change.
    fn picture(&self) -> Vec<(PathBuf, u64, i64, i64)> {
        let mut found = Vec::new();
        let mut pending = vec![self.destination.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).expect("it can be listed").flatten() {
                let meta = entry.metadata().expect("it is there");
                found.push((entry.path(), meta.ino(), meta.mtime_nsec(), meta.ctime_nsec()));
                if meta.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn p7_a_killed_worker_is_said_to_be_dead_with_2_and_the_same_command_resumes() {
    let slow = Slow::new();
    let running = slow.under_way();
    running.signal_worker(Signal::KILL);
    let run = running.wait().expect(2);
    assert_eq!(run.summary().0["error"]["class"], "worker", "{run}");
    assert!(run.err_text().contains("run the same command again"), "{run}");
    assert_eq!(job_state(&slow.state), "running");
    slow.completes();
}

#[test]
fn p7_a_worker_whose_supervisor_was_killed_ends_by_itself_and_a_run_right_after_completes() {
    let slow = Slow::new();
    let running = slow.under_way();
    let worker = running.worker().expect("it works");
    running.signal_supervisor(Signal::KILL);
    slow.completes();
    let gone = || rustix::process::test_kill_process(worker).is_err();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < deadline, "the worker goes on without a supervisor");
        thread::sleep(Duration::from_millis(20));
    }
    drop(running);
}

#[test]
fn t33_a_worker_that_lost_its_job_while_it_slept_commits_and_publishes_nothing() {
    let slow = Slow::new();
    let sleeping = slow.under_way();
    sleeping.signal_worker(Signal::STOP);
    let (job, epoch) = {
        let jobs = rusqlite::Connection::open(slow.state.join("jobs.sqlite")).expect("the list of jobs is there");
        jobs.query_row("SELECT id, epoch FROM job", [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)))
            .expect("there is one job")
    };
    let job = job.parse().expect("an id");
    assert!(copyd::store::Store::fence(&slow.state, job, epoch.into()).expect("it can be fenced"));
    assert_eq!(job_state(&slow.state), "cancelled");
    slow.completes();
    let before = slow.picture();
    sleeping.signal_worker(Signal::CONT);
    let run = sleeping.wait();
    assert!(matches!(run.status.code(), Some(11 | 43)), "{run}");
    assert!(run.words().contains("another run has taken"), "{run}");
    assert_eq!(slow.picture(), before, "{run}");
    assert_eq!(job_state(&slow.state), "complete", "{run}");
}

#[test]
fn p7_a_worker_that_stands_still_as_a_whole_is_said_to_be_silent_and_ended() {
    let slow = Slow::new();
    let running = slow.under_way();
    running.signal_worker(Signal::STOP);
    thread::sleep(Duration::from_secs(6));
    running.signal_supervisor(Signal::INT);
    let run = running.wait().expect(20);
    assert!(run.err_text().contains("no sign of life"), "{run}");
    assert_eq!(job_state(&slow.state), "cancelled");
    slow.completes();
}

#[test]
fn a_second_interrupt_ends_a_worker_that_does_not_listen_at_once_with_20_and_a_summary() {
    let slow = Slow::new();
    let running = slow.under_way();
    running.signal_worker(Signal::STOP);
    running.signal_supervisor(Signal::INT);
    thread::sleep(Duration::from_millis(300));
    running.signal_supervisor(Signal::INT);
    let asked = Instant::now();
    let run = running.wait().expect(20);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}: {run}", asked.elapsed());
    assert_eq!(run.summary().text("outcome"), "cancelled", "{run}");
    assert!(run.err_text().contains("temporaries are left to the next run"), "{run}");
    assert_eq!(job_state(&slow.state), "cancelled");
    slow.completes();
}

#[test]
fn a_worker_is_usable_without_copyds_own_supervisor() {
    let slow = Slow::new();
    let specification = serde_json::json!({
        "schema": 1, "kind": "migrate",
        "source": {"export": slow.source}, "destination": {"export": slow.destination},
        "state_dir": slow.state, "limits": {"bytes_per_s": 4 << 20},
    });
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_copyd"))
        .arg("worker")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the built binary starts");
    let mut stdin = worker.stdin.take().expect("piped");
    writeln!(stdin, "{specification}").expect("it reads its specification");
    let (mut events, mut lines) = (Vec::<Value>::new(), BufReader::new(worker.stdout.take().expect("piped")).lines());
    while let Some(Ok(line)) = lines.next() {
        events.push(serde_json::from_str(&line).expect("every line is JSON"));
        if events.iter().filter(|event| event["event"] == "progress").count() == 2 && events.len() < 100 {
            writeln!(stdin, r#"{{"command":"cancel"}}"#).expect("it reads commands");
        }
    }
    let last = events.last().expect("a summary");
    assert_eq!((&last["event"], &last["outcome"]), (&"summary".into(), &"cancelled".into()), "{last}");
    assert_eq!(worker.wait().expect("it is ours").code(), Some(20));
    assert_eq!(job_state(&slow.state), "cancelled");
    drop(stdin);
    slow.completes();
}
