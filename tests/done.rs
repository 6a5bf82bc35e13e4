//! What the journal calls done is not read again: a file system that counts every read stands on both
//! sides (`rig/`), so nothing that copyd or a cache says has to be believed.

mod rig;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use rig::Rig;
use rig::plan::Kind;
use rig::stage::Stage;
use support::copyd::Copyd;
use support::crash::{catalog, journal_says_done};
use support::trees;

/// More than three batches, so that a run can be cut off with one of them recorded.
const FILES: usize = 3600;
/// Files done at which a run is cut off.
const DONE: i64 = 1100;

/// Entries that the catalog calls done, while the run that writes it goes on.
fn done_so_far(state: &Path) -> i64 {
    let count = catalog(state).map(|path| {
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|c| c.query_row("SELECT count(*) FROM tree WHERE state <> 'pending'", [], |row| row.get(0)))
    });
    count.and_then(Result::ok).unwrap_or(0)
}

/// The inodes that are read from now on.
fn watched(rig: &Rig) -> Arc<Mutex<BTreeSet<u64>>> {
    let read = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&read);
    rig.plan().on(move |call| {
        if call.kind == Kind::Read {
            seen.lock().unwrap().insert(call.inode);
        }
        None
    });
    read
}

fn inodes<'p>(root: &Path, paths: impl Iterator<Item = &'p String>) -> BTreeSet<u64> {
    paths.map(|path| fs::symlink_metadata(root.join(path)).expect("it stands").ino()).collect()
}

/// Paths of what lies in the directories of a root.
fn two_levels(root: &Path) -> Vec<String> {
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let below =
        |directory: String| names(&root.join(&directory)).into_iter().map(move |name| format!("{directory}/{name}"));
    names(root).into_iter().flat_map(below).collect()
}

fn cut_off_and_resumed(signal: Signal, code: Option<i32>, backend: &str) {
    let stage = Stage::new();
    trees::small_files(&stage.source_backing, FILES, 3).unwrap();
    let jobs = tempfile::tempdir_in("/tmp").unwrap();
    let command = Copyd::new("migrate").arg("--json").arg(stage.source.path()).arg(stage.destination.path());
    let command = command.args(&["--jobs", "2", "--bwlimit", "12M", "--backend", backend]).state_dir(jobs.path());
    let mut running = command.spawn();
    running.until("a batch is recorded", || done_so_far(jobs.path()) >= DONE);
    running.signal(signal);
    assert_eq!(running.wait().status.code(), code);

    let files = |path: &String| fs::metadata(stage.source_backing.join(path)).is_ok_and(|m| m.is_file() && m.len() > 0);
    let done: BTreeSet<String> =
        journal_says_done(jobs.path()).into_iter().map(|done| done.path).filter(files).collect();
    let all: BTreeSet<String> = two_levels(&stage.source_backing).into_iter().filter(files).collect();
    let left: BTreeSet<String> = all.difference(&done).cloned().collect();
    assert!(done.len() > 500 && left.len() > 100, "cut off too late: {} done, {} left", done.len(), left.len());
    let here = (inodes(&stage.source_backing, done.iter()), inodes(&stage.source_backing, left.iter()));
    let there = inodes(&stage.destination_backing, done.iter());

    stage.clear();
    let (source, destination) = (watched(&stage.source), watched(&stage.destination));
    let run = command.run().expect(0);
    let (source, destination) = (source.lock().unwrap(), destination.lock().unwrap());
    let again = source.intersection(&here.0).count();
    assert_eq!(again, 0, "{again} of {} files that are done were read again at the source: {run}", done.len());
    let again = destination.intersection(&there).count();
    assert_eq!(again, 0, "{again} of {} files that are done were read again at the destination: {run}", done.len());
    // The same look does see what is read.
    assert!(here.1.is_subset(&source), "not all of {} files that were left were read: {run}", left.len());
    assert!(stage.differences().is_empty(), "{run}");
    println!("{signal:?}, {backend}: {} done and not read, {} left", done.len(), left.len());
}

#[test]
fn p3_entries_done_are_not_read_again() {
    cut_off_and_resumed(Signal::KILL, None, "threads");
    cut_off_and_resumed(Signal::INT, Some(20), "uring");
}
