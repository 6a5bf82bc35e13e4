//! A large file whose copy was cut off goes on from the chunks that a crash could not take back, and
//! from none that is not as it should be.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use support::Rng;
use support::copyd::{Copyd, Run, Summary};
use support::crash::{catalog, staging};
use support::mounts::{FsType, Volume, volume};
use support::oracle::assert_same;

const CHUNK: u64 = 16 << 20;
/// Six chunks and a bit.
const SIZE: u64 = 6 * CHUNK + 12_345;

/// A large file, a small one, and a run that was killed when so many chunks were journaled.
struct Cut {
    source: PathBuf,
    destination: PathBuf,
    state: PathBuf,
    arguments: Vec<&'static str>,
    _volumes: [Box<dyn Volume>; 2],
}

impl Cut {
    fn new(to: FsType, arguments: &[&'static str]) -> Self {
        let volumes = [volume(FsType::Tmpfs, 512), volume(to, 512)];
        let source = volumes[0].directory("source");
        fs::create_dir(source.join("within")).unwrap();
        fs::write(source.join("small"), b"small").unwrap();
        let (state, destination) = (volumes[0].path().join("state"), volumes[1].path().join("destination"));
        Self { source, destination, state, arguments: arguments.to_vec(), _volumes: volumes }
    }

    fn large(&self) -> PathBuf {
        self.source.join("within/large")
    }

    fn filled(self) -> Self {
        fs::write(self.large(), Rng::new(5).bytes(usize::try_from(SIZE).unwrap())).unwrap();
        self
    }

    fn command(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).state_dir(&self.state).args(&self.arguments)
    }

    /// Runs until so many chunks are journaled, and kills it. Gives the bytes of the source that have not
    /// to be copied any more.
    fn killed_at(&self, chunks: u64, bytes_per_second: &str) -> u64 {
        let mut running = self.command().args(&["--bwlimit", bytes_per_second]).spawn();
        running.until("chunks are journaled", || journaled(&self.state) >= chunks);
        running.signal(Signal::KILL);
        drop(running.wait());
        assert!(!self.destination.join("within/large").exists(), "it was too late");
        journaled_bytes(&self.state)
    }

    /// Runs until that is reached, and stops it by a signal. Gives how it went, and the bytes of the source
    /// that have not to be copied any more: the staging directory holds them and nothing else.
    fn stopped_when(&self, signal: Signal, bytes_per_second: &str, reached: impl Fn(&Self) -> bool) -> (Run, u64) {
        let mut running = self.command().args(&["--bwlimit", bytes_per_second]).spawn();
        running.until("chunks are copied", || reached(self));
        let asked = running.elapsed();
        running.signal(signal);
        let run = running.wait().expect(20);
        let took = run.elapsed.saturating_sub(asked);
        assert!(took < Duration::from_secs(5), "it took {took:?} to stop: {run}");
        assert!(!self.destination.join("within/large").exists(), "it was too late");
        self.temporary();
        let lanes: Vec<_> = fs::read_dir(staging(&self.destination).unwrap()).unwrap().flatten().collect();
        assert_eq!(lanes.len(), 1, "more than the large file is left: {lanes:?}");
        let chunks = journaled(&self.state);
        assert!(run.words().contains(&format!("kept for the run that resumes: {chunks} chunk")), "{run}");
        (run, journaled_bytes(&self.state))
    }

    /// The temporary of the large file.
    fn temporary(&self) -> PathBuf {
        let directory = staging(&self.destination).expect("the staging directory stands").join("large");
        let mut names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let only = names.next().expect("a large file grows");
        assert!(names.next().is_none(), "only one grows");
        only
    }

    /// The same command goes on: everything is equal, nothing is left over, here and in the journal.
    fn goes_on(&self) -> Summary {
        let run = self.command().run().expect(0);
        assert_same(&self.source, &self.destination);
        assert!(staging(&self.destination).is_none(), "the staging directory is left over: {run}");
        assert_eq!((journaled(&self.state), rows(&self.state, "growing")), (0, 0), "the journal is not empty: {run}");
        run.summary()
    }
}

/// The large files that grow now.
fn temporaries(destination: &Path) -> Vec<PathBuf> {
    let large = staging(destination).map(|staging| staging.join("large"));
    let entries = large.and_then(|large| fs::read_dir(large).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn rows(state: &Path, table: &str) -> u64 {
    let Some(path) = catalog(state) else { return 0 };
    // While the run opens it, it may be in another's hands.
    let count = rusqlite::Connection::open(path)
        .and_then(|c| c.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)));
    count.map_or(0, |count| u64::try_from(count).unwrap())
}

fn journaled(state: &Path) -> u64 {
    rows(state, "chunk")
}

/// Bytes of all journaled chunks; the last one of the file is short.
fn journaled_bytes(state: &Path) -> u64 {
    let connection = rusqlite::Connection::open(catalog(state).unwrap()).unwrap();
    let mut rows = connection.prepare("SELECT chunk FROM chunk").unwrap();
    let indexes = rows.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    indexes.map(|index| CHUNK.min(SIZE - CHUNK * u64::try_from(index.unwrap()).unwrap())).sum()
}

fn edit(state: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(catalog(state).unwrap()).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

#[test]
fn t01_a_large_file_goes_on_from_its_chunks_in_memory_by_both_backends() {
    for backend in ["threads", "uring"] {
        let cut = Cut::new(FsType::Tmpfs, &["--backend", backend]).filled();
        let durable = cut.killed_at(2, "40M");
        let copied = cut.goes_on().count("bytes_copied");
        assert_eq!(copied, SIZE - durable, "{durable} bytes were journaled, {backend}");
    }
}

#[test]
fn t01_a_large_file_goes_on_from_its_flushed_chunks_on_ext4() {
    let cut = Cut::new(FsType::Ext4, &[]).filled();
    let durable = cut.killed_at(1, "12M");
    let copied = cut.goes_on().count("bytes_copied");
    // The small file's batch was not flushed.
    assert!(copied <= SIZE + 5 - durable, "{durable} bytes were journaled, {copied} bytes copied");
}

#[test]
fn a_large_file_goes_on_from_its_chunks_after_a_stop_by_both_backends() {
    for (backend, signal) in [("threads", Signal::INT), ("uring", Signal::TERM)] {
        let cut = Cut::new(FsType::Tmpfs, &["--backend", backend]).filled();
        let (run, kept) = cut.stopped_when(signal, "40M", |cut| journaled(&cut.state) >= 2);
        assert_eq!(run.summary().text("outcome"), "cancelled", "{run}");
        let copied = cut.goes_on().count("bytes_copied");
        assert_eq!(copied, SIZE - kept, "{kept} bytes were journaled, {backend}");
    }
}

#[test]
fn a_stop_journals_the_chunks_that_wait_for_their_flush_on_ext4() {
    for backend in ["threads", "uring"] {
        let cut = Cut::new(FsType::Ext4, &["--backend", backend, "--jobs", "1"]).filled();
        // Younger than the journal's 5 s, and with the ring all chunks are under way at once.
        let (_, kept) = cut.stopped_when(Signal::INT, "32M", |cut| {
            let path = temporaries(&cut.destination).into_iter().next();
            path.and_then(|path| fs::metadata(path).ok()).is_some_and(|meta| meta.blocks() * 512 > 3 * CHUNK)
        });
        assert!(kept >= 2 * CHUNK, "{kept} bytes were journaled, {backend}");
        let copied = cut.goes_on().count("bytes_copied");
        assert!(copied <= SIZE + 5 - kept, "{kept} bytes were journaled, {copied} bytes copied, {backend}");
    }
}

#[test]
fn a_second_stop_keeps_what_the_first_one_kept() {
    let cut = Cut::new(FsType::Tmpfs, &[]).filled();
    let (_, first) = cut.stopped_when(Signal::INT, "40M", |cut| journaled(&cut.state) >= 1);
    let before = journaled(&cut.state);
    let (_, second) = cut.stopped_when(Signal::INT, "24M", |cut| journaled(&cut.state) > before);
    assert!(second > first, "{first} bytes, then {second}");
    assert_eq!(cut.goes_on().count("bytes_copied"), SIZE - second);
}

#[test]
fn what_a_stop_kept_goes_with_the_source_that_it_was_of() {
    let cut = Cut::new(FsType::Tmpfs, &[]).filled();
    cut.stopped_when(Signal::INT, "40M", |cut| journaled(&cut.state) >= 1);
    fs::remove_file(cut.large()).unwrap();
    assert_eq!(cut.goes_on().count("bytes_copied"), 0);
}

#[test]
fn a_chunk_that_is_not_as_the_journal_has_it_is_copied_again() {
    let cut = Cut::new(FsType::Tmpfs, &[]).filled();
    let durable = cut.killed_at(2, "40M");
    let file = File::options().read(true).write(true).open(cut.temporary()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).unwrap();
    file.write_all_at(&[!byte[0]], 1000).unwrap();
    let copied = cut.goes_on().count("bytes_copied");
    assert_eq!(copied, SIZE - durable + CHUNK, "{durable} bytes were journaled, one chunk is wrong");
}

#[test]
fn a_source_that_changed_meanwhile_is_copied_from_its_start() {
    let cut = Cut::new(FsType::Tmpfs, &[]).filled();
    cut.killed_at(2, "40M");
    let file = File::options().write(true).open(cut.large()).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", 77).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(cut.goes_on().count("bytes_copied"), SIZE);
}

/// What somebody does to a temporary.
type Harm<'a> = &'a dyn Fn(&Path);

#[test]
fn a_temporary_that_was_replaced_cut_or_linked_is_not_gone_on_from() {
    let replace = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let beside = path.with_extension("other");
        fs::write(&beside, bytes).unwrap();
        fs::rename(beside, path).unwrap();
    };
    let shorten = |path: &Path| File::options().write(true).open(path).unwrap().set_len(CHUNK).unwrap();
    let link = |path: &Path| fs::hard_link(path, path.with_extension("link")).unwrap();
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    let ways: [(&str, Harm); 4] = [("replaced", &replace), ("shortened", &shorten), ("gone", &gone), ("linked", &link)];
    for (word, way) in ways {
        let cut = Cut::new(FsType::Tmpfs, &[]).filled();
        let durable = cut.killed_at(1, "40M");
        way(&cut.temporary());
        let copied = cut.goes_on().count("bytes_copied");
        // The second name of a linked one goes with all that nobody claims.
        let expected = if word == "linked" { SIZE - durable } else { SIZE };
        assert_eq!(copied, expected, "{word}");
    }
}

#[test]
fn t31_a_journal_that_was_altered_costs_the_copy_and_nothing_else() {
    for sql in [
        "UPDATE chunk SET value = zeroblob(32)",
        "UPDATE chunk SET value = x'00'",
        "UPDATE chunk SET sum = sum + 1",
        "UPDATE growing SET src_ino = src_ino + 1",
        "UPDATE growing SET sum = sum + 1",
        "UPDATE growing SET version = 2",
        "UPDATE growing SET temporary = x'2e2e'",
        "DELETE FROM growing",
    ] {
        let cut = Cut::new(FsType::Tmpfs, &[]).filled();
        cut.killed_at(1, "60M");
        edit(&cut.state, sql);
        let run = cut.command().run().expect(0);
        assert_same(&cut.source, &cut.destination);
        assert_eq!(run.summary().count("bytes_copied"), SIZE, "{sql}");
        assert!(staging(&cut.destination).is_none(), "{sql}: {run}");
    }
}

#[test]
fn holes_stay_holes_and_room_stays_room_when_a_large_file_goes_on() {
    for (provision, thick) in [("thin", false), ("thick", true)] {
        let cut = Cut::new(FsType::Tmpfs, &["--provision", provision]);
        let file = File::create(cut.large()).unwrap();
        file.set_len(SIZE).unwrap();
        let mut rng = Rng::new(6);
        for chunk in 0..6 {
            // Half of each chunk is a hole.
            file.write_all_at(&rng.bytes(8 << 20), chunk * CHUNK + (4 << 20)).unwrap();
        }
        cut.killed_at(2, "24M");
        // Garbage where the source has a hole, in a chunk that the journal calls done.
        let temporary = File::options().write(true).open(cut.temporary()).unwrap();
        temporary.write_all_at(&[7; 8192], 1 << 20).unwrap();
        drop(temporary);
        let run = cut.command().run().expect(0);
        let blocks = fs::metadata(cut.destination.join("within/large")).unwrap().blocks() * 512;
        assert_eq!(thick, blocks >= SIZE, "{provision}: {blocks} bytes of {SIZE} are allocated: {run}");
        assert!(thick || blocks < SIZE * 3 / 5, "{provision}: {blocks} bytes of {SIZE} are allocated: {run}");
        let equal = fs::read(cut.large()).unwrap() == fs::read(cut.destination.join("within/large")).unwrap();
        assert!(equal, "{provision}: {run}");
    }
}
