//! Faults: calls that fail, lie or never come back, on a file system that does so on demand
//! (`rig/`), and real file systems that are full. The numbers are those of `docs/reliability.md`.

mod rig;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use rig::plan::{Call, Fault, Kind};
use rig::stage::{Side, Stage, counted, names, plant, plant_old};
use rig::{Rig, RigProcess, serve_if_asked};
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, LoopFs, Tmpfs, Volume};
use support::oracle::{Class, Overlook, assert_same, compare, listed};
use support::{Rng, tool};

const BACKENDS: [&str; 2] = ["threads", "uring"];

/// A size or seed from the environment, for runs longer than a merge's.
fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => default,
    }
}

// ---------------------------------------------------------------------------------------------
// The rig itself.

#[test]
fn the_rig_passes_everything_on() {
    let mut stage = Stage::new();
    plant(&stage.source_backing);
    assert_same(&stage.source_backing, stage.source.path());
    for backend in BACKENDS {
        stage.begin_again();
        let run = stage.command("sync", backend).run().expect(0);
        assert!(stage.differences().is_empty(), "{run}");
        assert_same(&stage.source_backing, stage.destination.path());
    }
}

#[test]
fn the_rig_withholds_an_answer_until_it_is_released() {
    for (side, kind) in [(Side::Source, Kind::Read), (Side::Destination, Kind::Fsync)] {
        let stage = Stage::new();
        plant(&stage.source_backing);
        stage.plan(side).nth(kind, 2, Fault::Hangs);
        let mut running = stage.command("sync", "threads").spawn();
        running.until("a call hangs", || stage.plan(side).held() == 1);
        stage.plan(side).release();
        let run = running.wait().expect(0);
        assert!(stage.differences().is_empty(), "{run}");
    }
}

// ---------------------------------------------------------------------------------------------
// T6: the Nth call fails.

/// One call that fails, and how.
#[derive(Clone, Copy, Debug)]
struct Case {
    side: Side,
    kind: Kind,
    nth: u64,
    fault: Fault,
    backend: &'static str,
    /// The destination has older files and some to delete.
    onto_old: bool,
}

/// The answers that T6 tries.
const ANSWERS: [Errno; 7] =
    [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::STALE, Errno::INTR];

fn t06_stage(stage: &mut Stage, onto_old: bool) {
    stage.begin_again();
    if onto_old {
        plant_old(&stage.destination_backing);
        stage.remember_old();
    }
}

/// Every (side, call) pair with the number of such calls in a clean run.
fn t06_calls(stage: &mut Stage) -> Vec<(Side, Kind, u64)> {
    let mut calls = Vec::new();
    t06_stage(stage, true);
    stage.command("sync", "threads").arg("--delete").run().expect(0);
    for side in [Side::Source, Side::Destination] {
        calls.extend(counted(stage, side).into_iter().map(|(kind, count)| (side, kind, count)));
    }
    calls
}

fn t06_case(calls: &[(Side, Kind, u64)], number: usize, rng: &mut Rng) -> Case {
    // Each pair in turn, so that rare calls have their share.
    let (side, kind, count) = calls[number % calls.len()];
    let answer = ANSWERS[usize::try_from(rng.below(ANSWERS.len() as u64)).unwrap()];
    let short = matches!(kind, Kind::Read | Kind::Write) && rng.below(4) == 0;
    let fault = match rng.below(4) {
        _ if short => Fault::Short(usize::try_from(rng.below(5000)).unwrap()),
        0 => Fault::FailsDone(answer),
        _ => Fault::Fails(answer),
    };
    let backend = BACKENDS[usize::try_from(rng.below(2)).unwrap()];
    Case { side, kind, nth: 1 + rng.below(count), fault, backend, onto_old: rng.below(2) == 0 }
}

fn t06_try(stage: &mut Stage, case: Case) -> Result<(), String> {
    t06_stage(stage, case.onto_old);
    stage.plan(case.side).nth(case.kind, case.nth, case.fault);
    let command = stage.command("sync", case.backend).arg("--delete");
    let run = command.run();
    stage.judge(&run).and_then(|()| stage.completes(&command)).map_err(|e| format!("{case:?}: {e}\n{run}\n"))
}

/// What stands in a new directory gets its name with it: an entry that the server has made although it
/// said no must not be in it.
#[test]
fn t06_an_entry_that_was_made_although_the_call_failed_gets_no_name() {
    let mut stage = Stage::new();
    plant(&stage.source_backing);
    for backend in BACKENDS {
        for (kind, name) in [(Kind::Create, &b"inner"[..]), (Kind::Symlink, b"link"), (Kind::Mknod, b"fifo")] {
            for error in [Errno::INTR, Errno::IO, Errno::STALE] {
                stage.begin_again();
                let mut answered = false;
                stage.plan(Side::Destination).on(move |call| {
                    let meant = call.kind == kind && (call.name == name || kind != Kind::Create) && !answered;
                    answered |= meant;
                    meant.then_some(Fault::FailsDone(error))
                });
                let command = stage.command("sync", backend);
                let run = command.run();
                let outcome = stage.judge(&run).and_then(|()| stage.completes(&command));
                assert_eq!(outcome, Ok(()), "{kind:?} {error:?} {backend}: {run}");
                assert_eq!(run.status.code(), Some(23), "{kind:?} {error:?} {backend}: {run}");
            }
        }
    }
}

#[test]
fn t06_every_failing_call_is_named_and_leaves_no_torn_name() {
    let (cases, seed) = (from_environment("COPYD_T06_CASES", 80), from_environment("COPYD_T06_SEED", 6));
    println!("T6: {cases} cases, seed {seed}");
    let lane = |lane: u64| {
        move || {
            let mut stage = Stage::new();
            plant(&stage.source_backing);
            let calls = t06_calls(&mut stage);
            let mut rng = Rng::new(seed);
            let all: Vec<_> = (0..cases).map(|n| t06_case(&calls, usize::try_from(n).unwrap(), &mut rng)).collect();
            let mine = all.into_iter().enumerate().filter(|(n, _)| *n as u64 % 2 == lane);
            mine.filter_map(|(_, case)| t06_try(&mut stage, case).err()).collect::<Vec<_>>()
        }
    };
    let lanes = [0, 1].map(|number| std::thread::spawn(lane(number)));
    let failed: Vec<_> = lanes.into_iter().flat_map(|lane| lane.join().expect("a lane does not panic")).collect();
    assert!(failed.is_empty(), "{} of {cases} cases, seed {seed}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn what_was_refused_once_is_named_until_it_is_granted() {
    let stage = Stage::new();
    plant(&stage.source_backing);
    let command = stage.command("sync", "threads");
    stage.destination.plan().every(Kind::Setxattr, Fault::Fails(Errno::NOTSUP));
    for _ in 0..2 {
        let run = command.run().expect(41);
        let lost: BTreeSet<_> = names(&run.events(), "loss").into_iter().collect();
        assert_eq!(lost, BTreeSet::from([b"dir".to_vec(), b"middle".to_vec()]), "{run}");
    }
    assert_eq!(stage.completes(&command), Ok(()));
}

// ---------------------------------------------------------------------------------------------
// T7: no room.

#[test]
fn t07_no_room_at_write_fsync_or_close_resumes_with_room() {
    for (errno, kind) in [Errno::NOSPC, Errno::DQUOT]
        .into_iter()
        .flat_map(|errno| [Kind::Create, Kind::Write, Kind::Fsync, Kind::Flush].map(|kind| (errno, kind)))
    {
        for backend in BACKENDS {
            let stage = Stage::new();
            plant(&stage.source_backing);
            let from = if kind == Kind::Write { 20 } else { 3 };
            let rule = move |call: &Call<'_>| (call.kind == kind && call.nth >= from).then_some(Fault::Fails(errno));
            stage.destination.plan().on(rule);
            let command = stage.command("sync", backend);
            let run = command.run();
            // What close says after fsync has succeeded is no news about the bytes.
            assert!(kind == Kind::Flush || run.status.code() != Some(0), "{kind:?} {errno:?}: {run}");
            stage.assert_survives(&run, &command);
        }
    }
}

/// A source in memory of so many files of 1 MiB.
fn megabytes(count: u64) -> (Tmpfs, std::path::PathBuf) {
    let volume = Tmpfs::new(256);
    let source = volume.directory("source");
    let mut rng = Rng::new(7);
    for number in 0..count {
        fs::write(source.join(format!("file{number:02}")), rng.bytes(1 << 20)).unwrap();
    }
    (volume, source)
}

/// Final names are whole, or not there yet.
fn assert_nothing_torn(source: &Path, destination: &Path, run: &Run) {
    let found = compare(source, destination, &Overlook::default()).expect("both can be read");
    let torn = |d: &&_| {
        let d: &support::oracle::Difference = d;
        d.class != Class::Missing && !d.path.is_empty() && !d.path.starts_with(b".copyd-")
    };
    let torn: Vec<_> = found.iter().filter(torn).cloned().collect();
    assert!(torn.is_empty(), "torn:\n{}\n{run}", listed(&torn, 10));
}

fn assert_no_leftovers(destination: &Path) {
    let mut entries = fs::read_dir(destination).unwrap().flatten();
    let left = entries.find(|entry| entry.file_name().as_encoded_bytes().starts_with(b".copyd-"));
    assert!(left.is_none(), "left over: {left:?}");
}

/// A run that has too little room, and the same one after there is some.
fn fills_up(source: &Path, destination: &Path, backend: &str, make_room: impl FnOnce()) {
    let command = Copyd::migrate(source, destination).args(&["--backend", backend]);
    let run = command.run();
    assert!(matches!(run.status.code(), Some(11 | 23)), "{run}");
    assert!(!run.words().contains("panicked"), "{run}");
    assert_nothing_torn(source, destination, &run);
    make_room();
    command.run().expect(0);
    assert_same(source, destination);
    assert_no_leftovers(destination);
}

#[test]
fn t07_a_full_ext4_resumes_when_there_is_room() {
    let (_volume, source) = megabytes(30);
    for backend in BACKENDS {
        let full = LoopFs::new(FsType::Ext4, 64);
        let (ballast, destination) = (full.path().join("ballast"), full.directory("destination"));
        fs::write(&ballast, vec![1; 36 << 20]).unwrap();
        fills_up(&source, &destination, backend, || fs::remove_file(&ballast).unwrap());
    }
}

#[test]
fn t07_a_used_up_quota_of_btrfs_resumes_when_it_is_raised() {
    let (_volume, source) = megabytes(30);
    for backend in BACKENDS {
        let volume = LoopFs::new(FsType::Btrfs, 256);
        let destination = volume.path().join("destination");
        let (root, path) = (volume.path().to_string_lossy(), destination.to_string_lossy());
        tool("btrfs-progs", "btrfs", &["quota", "enable", root.as_ref()]);
        tool("btrfs-progs", "btrfs", &["subvolume", "create", path.as_ref()]);
        tool("btrfs-progs", "btrfs", &["qgroup", "limit", "12M", path.as_ref()]);
        fills_up(&source, &destination, backend, || {
            tool("btrfs-progs", "btrfs", &["qgroup", "limit", "none", path.as_ref()]);
        });
    }
}

// ---------------------------------------------------------------------------------------------
// T8: a flush fails once, and then succeeds.

#[test]
fn t08_what_an_fsync_failed_for_once_is_copied_again() {
    for (number, nth) in [1, 2, 3, 10, 40, 69].into_iter().enumerate() {
        let stage = Stage::new();
        plant(&stage.source_backing);
        // As a kernel does whose page could not be written: the bytes are gone, the next fsync says
        // so, the one after it knows nothing any more.
        let (mut victim, mut told) = (None, false);
        stage.destination.plan().on(move |call| {
            if call.kind == Kind::Write && call.nth == nth {
                victim = Some(call.inode);
                return Some(Fault::Loses);
            }
            if call.kind == Kind::Fsync && victim == Some(call.inode) && !told {
                told = true;
                return Some(Fault::Fails(Errno::IO));
            }
            None
        });
        // Nothing is read back: only the error can tell.
        let command = stage.command("sync", BACKENDS[number % 2]).args(&["--verify", "none"]);
        let run = command.run();
        assert_eq!(stage.destination.plan().faults(), 2, "{run}");
        stage.assert_survives(&run, &command);
    }
}

#[test]
fn t08_what_a_syncfs_failed_for_once_is_copied_again_on_ext4() {
    const MARK: &[u8] = b"these bytes never reach the disk at the first time";
    for backend in BACKENDS {
        let (_source_volume, source) = megabytes(4);
        fs::write(source.join("marked"), MARK.repeat(3000)).unwrap();
        let memory = Tmpfs::new(256);
        let rig = Rig::over(&memory.directory("backing"));
        let mut volume = LoopFs::in_directory(FsType::Ext4, 64, rig.path());
        let mut failed = false;
        rig.plan().on(move |call| {
            let marked = call.kind == Kind::Write && call.data.windows(MARK.len()).any(|window| window == MARK);
            (marked && !std::mem::replace(&mut failed, marked)).then_some(Fault::Fails(Errno::IO))
        });
        let destination = volume.path().join("destination");
        let state = tempfile::tempdir_in("/tmp").unwrap();
        let run_at = |destination: &Path| {
            let command = Copyd::migrate(&source, destination).args(&["--verify", "none", "--backend", backend]);
            command.state_dir(state.path()).run()
        };
        let run = run_at(&destination);
        assert_eq!(rig.plan().faults(), 1, "{run}");
        let code = run.status.code();
        // What is only in the cache counts for nothing.
        volume.remount();
        let destination = volume.path().join("destination");
        if code == Some(0) {
            assert_same(&source, &destination);
        } else {
            assert!(matches!(code, Some(11 | 23)), "{run}");
            assert_nothing_torn(&source, &destination, &run);
        }
        run_at(&destination).expect(0);
        volume.remount();
        let destination = volume.path().join("destination");
        assert_same(&source, &destination);
        assert_no_leftovers(&destination);
    }
}

// ---------------------------------------------------------------------------------------------
// T9: the source can't be read somewhere.

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn t09_a_read_error_at_any_offset_costs_one_file_and_no_deletion() {
    let (cases, seed) = (from_environment("COPYD_T09_CASES", 12), from_environment("COPYD_T09_SEED", 9));
    println!("T9: {cases} offsets, seed {seed}");
    let mut rng = Rng::new(seed);
    let mut stage = Stage::new();
    plant(&stage.source_backing);
    for case in 0..cases {
        stage.begin_again();
        plant_old(&stage.destination_backing);
        stage.remember_old();
        let name = ["middle", "large", "page"][usize::try_from(case % 3).unwrap()];
        let (path, at) = (stage.source_backing.join(name), rng.next());
        let (broken, at) = (inode(&path), at % fs::metadata(&path).unwrap().len());
        stage.source.plan().on(move |call| {
            let hit = call.kind == Kind::Read
                && call.inode == broken
                && (call.offset..call.offset + call.wanted).contains(&at);
            hit.then_some(Fault::Fails(Errno::IO))
        });
        let command = stage.command("sync", BACKENDS[usize::try_from(case / 3 % 2).unwrap()]).arg("--delete");
        let run = command.run().expect(23);
        let named: BTreeSet<_> = names(&run.events(), "entry_failed").into_iter().collect();
        let mut expected = BTreeSet::from([name.as_bytes().to_vec()]);
        if name == "page" {
            expected.insert(b"dir/page".to_vec());
        }
        assert_eq!(named, expected, "{at}: {run}");
        assert!(!stage.destination_backing.join("stale").exists(), "a read error forbids no deletion: {run}");
        stage.assert_survives(&run, &command);
    }
}

#[test]
fn t09_a_listing_error_anywhere_forbids_all_deletion() {
    for errno in [Errno::IO, Errno::ACCESS, Errno::STALE] {
        for kind in [Kind::Opendir, Kind::Readdir, Kind::Lookup] {
            let mut stage = Stage::new();
            plant(&stage.source_backing);
            plant_old(&stage.destination_backing);
            stage.remember_old();
            let directory = inode(&stage.source_backing.join("dir"));
            stage.source.plan().on(move |call| {
                let hit =
                    call.kind == kind && call.inode == directory && (kind != Kind::Lookup || call.name == b"inner");
                hit.then_some(Fault::Fails(errno))
            });
            let command = stage.command("sync", "threads").arg("--delete");
            let run = command.run().expect(23);
            assert!(stage.source.plan().faults() > 0, "{kind:?} {errno:?}: {run}");
            assert_eq!(run.summary().count("deleted"), 0, "{kind:?} {errno:?}: {run}");
            assert!(stage.destination_backing.join("stale-dir/inner").exists(), "{run}");
            stage.assert_survives(&run, &command);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// T10: the destination lies.

/// Lies once about every write, told by its bytes: flipped, lost or misplaced in turn.
fn lie_once(told: &Arc<Mutex<BTreeSet<Vec<u8>>>>) -> impl FnMut(&Call<'_>) -> Option<Fault> + use<> {
    let told = Arc::clone(told);
    move |call| {
        let key = call.data.get(..call.data.len().min(64))?.to_vec();
        let mut told = told.lock().unwrap();
        if call.kind != Kind::Write || !told.insert(key) {
            return None;
        }
        let lies = [Fault::Flips(call.data.len() / 2), Fault::Loses, Fault::Misplaces(4096)];
        Some(lies[told.len() % lies.len()])
    }
}

#[test]
fn t10_every_lie_about_a_write_is_found_by_read_back() {
    let count = from_environment("COPYD_T10_FILES", 200);
    for backend in BACKENDS {
        let stage = Stage::new();
        plant(&stage.source_backing);
        support::trees::small_files(&stage.source_backing.join("dir"), usize::try_from(count).unwrap(), 10).unwrap();
        let told = Arc::default();
        stage.destination.plan().on(lie_once(&told));
        let command = stage.command("sync", backend);
        let run = command.run();
        println!("T10: {} lies, {backend}", stage.destination.plan().faults());
        assert!(stage.destination.plan().faults() >= count, "{run}");
        assert!(matches!(run.status.code(), Some(0 | 40)), "{run}");
        assert!(run.summary().count("bytes_copied") > rig::stage::LARGE_BYTES as u64 * 2, "copied again: {run}");
        stage.assert_survives(&run, &command);
    }
}

#[test]
fn t10_a_destination_that_always_lies_makes_it_40() {
    for fault in [Fault::Flips(1000), Fault::Loses, Fault::Misplaces(8192)] {
        let stage = Stage::new();
        plant(&stage.source_backing);
        let bytes = fs::read(stage.source_backing.join("middle")).unwrap();
        let rule = move |call: &Call<'_>| {
            let liable = call.kind == Kind::Write && call.data.len() > 64 && call.data[..64] == bytes[..64];
            liable.then_some(fault)
        };
        stage.destination.plan().on(rule);
        let command = stage.command("sync", "threads");
        let run = command.run().expect(40);
        assert_eq!(names(&run.events(), "entry_failed"), [b"middle".to_vec()], "{run}");
        assert!(!stage.destination_backing.join("middle").exists(), "{run}");
        stage.assert_survives(&run, &command);
    }
}

// ---------------------------------------------------------------------------------------------
// T22, T23: the server dies, the mount goes.

/// After its server died, a run ends in less.
const CLEAN_END: Duration = Duration::from_secs(10);

fn assert_ended_clean(run: &Run, since: Instant) {
    assert!(since.elapsed() < CLEAN_END, "{run}");
    assert!(matches!(run.status.code(), Some(11 | 23 | 43)), "{run}");
    assert!(!run.words().contains("panicked"), "{run}");
}

#[test]
fn t22_a_connection_that_breaks_ends_the_run_and_it_resumes() {
    for side in [Side::Source, Side::Destination] {
        for backend in BACKENDS {
            let mut stage = Stage::new();
            plant(&stage.source_backing);
            let command = stage.command("sync", backend).args(&["--bwlimit", "16M", "--delete"]);
            let mut running = command.spawn();
            running.until("bytes are copied", || stage.destination.plan().count(Kind::Write) >= 20);
            let broken = if side == Side::Source { &mut stage.source } else { &mut stage.destination };
            broken.abort();
            let since = Instant::now();
            let run = running.wait();
            assert_ended_clean(&run, since);
            let broken = if side == Side::Source { &mut stage.source } else { &mut stage.destination };
            broken.unmount();
            broken.mount();
            stage.assert_survives(&run, &command);
        }
    }
}

#[test]
fn t22_a_mount_that_is_taken_away_lazily_takes_nothing_with_it() {
    let mut stage = Stage::new();
    plant(&stage.source_backing);
    let command = stage.command("sync", "threads").args(&["--bwlimit", "16M"]);
    let mut running = command.spawn();
    running.until("bytes are copied", || stage.destination.plan().count(Kind::Write) >= 20);
    stage.destination.detach();
    let run = running.wait();
    // The descriptors that it holds still lead to the share, so nothing lands below the mount point.
    assert_eq!(fs::read_dir(stage.destination.path()).unwrap().count(), 0, "{run}");
    stage.destination.unmount();
    stage.destination.mount();
    stage.assert_survives(&run, &command);
}

#[test]
fn t22_a_killed_server_ends_the_run_and_a_new_one_resumes_it() {
    serve_if_asked();
    let stage = Stage::new();
    plant(&stage.source_backing);
    let test = "t22_a_killed_server_ends_the_run_and_a_new_one_resumes_it";
    let mut server = RigProcess::over(&stage.source_backing, test);
    let jobs = tempfile::tempdir_in("/tmp").unwrap();
    let command = |source: &Path| {
        let command = Copyd::new("sync").arg("--json").arg(source).arg(stage.destination.path());
        command.args(&["--bwlimit", "16M", "--delete"]).state_dir(jobs.path())
    };
    let mut running = command(server.path()).spawn();
    running.until("bytes are copied", || stage.destination.plan().count(Kind::Write) >= 20);
    server.kill();
    let since = Instant::now();
    let run = running.wait();
    assert_ended_clean(&run, since);
    assert_eq!(stage.judge(&run), Ok(()), "{run}");
    // The dead mount is no root.
    command(server.path()).run().expect(11);
    drop(server);
    let server = RigProcess::over(&stage.source_backing, test);
    let run = command(server.path()).run().expect(0);
    assert_eq!(run.started()["resumed"], true, "the same share, so the same job: {run}");
    assert!(stage.differences().is_empty(), "{run}");
    stage.clear();
}

#[test]
fn t22_a_share_without_an_identity_is_the_same_after_a_remount_by_its_marker() {
    let mut stage = Stage::new();
    stage.source = Rig::nameless(&stage.source_backing);
    plant(&stage.source_backing);
    fs::write(stage.source_backing.join("share-id"), b"0190b3c4-7d5e-7c3a-9f00-123456789abc").unwrap();
    let unmarked = stage.command("sync", "threads").arg("--delete");
    let marked = stage.command("migrate", "threads").args(&["--delete", "--source-marker", "share-id"]);
    let device = |stage: &Stage| fs::metadata(stage.source.path()).unwrap().dev();
    let before = device(&stage);
    unmarked.run().expect(0);
    marked.run().expect(0);
    stage.source.unmount();
    // Another mount takes the device number that is free now.
    let aside = tempfile::tempdir_in("/tmp").unwrap();
    let mut others = Vec::new();
    loop {
        stage.source.mount();
        if device(&stage) != before {
            break;
        }
        stage.source.unmount();
        others.push(Rig::over(aside.path()));
        assert!(others.len() < 20, "the device number {before} is given out again and again");
    }
    fs::remove_file(stage.source_backing.join("share-id")).unwrap();
    marked.run().expect(43);
    fs::write(stage.source_backing.join("share-id"), b"0190b3c4-7d5e-7c3a-9f00-123456789abc").unwrap();
    unmarked.run().expect(43);
    let run = marked.run().expect(0);
    assert_eq!(run.events()[0]["resumed"], true, "the same share by its marker: {run}");
    assert!(stage.differences().is_empty(), "{run}");
}

#[test]
fn t23_a_source_that_is_not_mounted_deletes_nothing() {
    for verb in ["sync", "migrate"] {
        let mut stage = Stage::new();
        plant(&stage.source_backing);
        let command = stage.command(verb, "auto").arg("--delete");
        command.run().expect(0);
        let before = support::canary::Snapshot::take(&stage.destination_backing).unwrap();
        stage.source.unmount();
        let run = command.run().expect(43);
        assert_eq!(run.summary().count("deleted"), 0, "{run}");
        before.assert_unchanged(&stage.destination_backing, verb);
        stage.source.mount();
        assert_eq!(stage.completes(&command), Ok(()));
    }
}
