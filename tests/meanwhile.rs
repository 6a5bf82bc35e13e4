//! What happens meanwhile: the source changes while it is read, the run is stopped or killed in
//! mid-copy, another writer flips bytes before they are read back, the kernel refuses io_uring.
//!
//! Each run is slowed with `--bwlimit`, and a test acts when it sees at the destination how far the
//! run has come, never after a fixed time.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use support::Rng;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Volume, volume};
use support::oracle::{Class, Difference, Overlook, assert_same, compare, listed};
use support::trees;

const MIB: usize = 1 << 20;

/// A source in memory, and where its copy goes.
struct Stage {
    source: PathBuf,
    destination: PathBuf,
    _volumes: [Box<dyn Volume>; 2],
}

impl Stage {
    fn new(to: FsType) -> Self {
        Self::sized(to, 256)
    }

    fn sized(to: FsType, size_mib: u64) -> Self {
        let volumes = [volume(FsType::Tmpfs, size_mib), volume(to, size_mib)];
        let source = volumes[0].directory("source");
        let destination = volumes[1].path().join("destination");
        Self { source, destination, _volumes: volumes }
    }

    fn migrate(&self, bytes_per_second: &str) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).args(&["--bwlimit", bytes_per_second])
    }

    fn differences(&self) -> Vec<Difference> {
        compare(&self.source, &self.destination, &Overlook::default()).expect("both sides can be read")
    }

    /// The same job once more, with nothing that disturbs it.
    fn assert_completes(&self, command: &Copyd) {
        command.run().expect(0);
        assert_same(&self.source, &self.destination);
        assert!(staging(&self.destination).is_none(), "the staging directory is left over");
    }

    /// What has its final name is whole: all that may be missing is entries, and the last touch of
    /// directories that hold them.
    fn assert_nothing_torn(&self) {
        let torn: Vec<_> = self
            .differences()
            .into_iter()
            .filter(|d| {
                let path = Path::new(std::ffi::OsStr::from_bytes(&d.path));
                let staging = d.class == Class::Extra && d.path.starts_with(b".copyd-");
                d.class != Class::Missing && !staging && !self.source.join(path).is_dir()
            })
            .collect();
        assert!(torn.is_empty(), "torn names at the destination:\n{}", listed(&torn, 40));
    }
}

/// The staging directory of a run that goes on, or was killed.
fn staging(destination: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(destination).ok()?.flatten();
    entries.find(|e| e.file_name().as_bytes().starts_with(b".copyd-")).map(|e| e.path())
}

/// The files that grow in the staging directory now. What goes while it is listed is left out.
fn temporaries(destination: &Path) -> Vec<PathBuf> {
    let mut pending: Vec<_> = staging(destination).into_iter().collect();
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Whether some bytes of the largest temporary are written, but not yet many.
fn in_mid_copy(destination: &Path) -> bool {
    let written = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
    temporaries(destination).iter().map(written).max().unwrap_or(0) >= 2 * MIB as u64
}

// ---------------------------------------------------------------------------------------------
// The source changes while it is read.

/// What another program does to a file that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Grows,
    Shrinks,
    RewrittenInPlace,
    RewrittenWithItsTimePutBack,
    Replaced,
    Vanishes,
}

impl Change {
    /// Carries it out at once, and gives the content that stands there afterwards. `other` is a
    /// content of the same length as that of now.
    fn carry_out(self, path: &Path, other: &[u8]) -> Option<Vec<u8>> {
        let file = File::options().write(true).open(path).unwrap();
        match self {
            Self::Grows => file.write_all_at(&other[..MIB], other.len() as u64).unwrap(),
            Self::Shrinks => file.set_len(3 * MIB as u64 + 7).unwrap(),
            Self::RewrittenInPlace => file.write_all_at(other, 0).unwrap(),
            Self::RewrittenWithItsTimePutBack => {
                let before = file.metadata().unwrap().modified().unwrap();
                file.write_all_at(other, 0).unwrap();
                file.set_modified(before).unwrap();
            }
            Self::Replaced => {
                let beside = path.with_extension("new");
                fs::write(&beside, other).unwrap();
                fs::rename(&beside, path).unwrap();
            }
            Self::Vanishes => {
                fs::remove_file(path).unwrap();
                return None;
            }
        }
        Some(fs::read(path).unwrap())
    }
}

/// A run during which a file of so many MiB changes: large ones are moved by several threads.
fn changes_while_it_is_read(change: Change, size_mib: usize, backend: &str) {
    let stage = Stage::new(FsType::Tmpfs);
    let path = stage.source.join("busy");
    let (old, other) = (Rng::new(7).bytes(size_mib * MIB), Rng::new(99).bytes(size_mib * MIB));
    fs::write(&path, &old).unwrap();
    fs::write(stage.source.join("quiet"), b"quiet").unwrap();

    let command = stage.migrate("24M").args(&["--backend", backend]);
    let mut running = command.spawn();
    running.until("bytes are copied", || in_mid_copy(&stage.destination));
    // It stands still meanwhile, however slow this machine is.
    running.signal(Signal::STOP);
    let new = change.carry_out(&path, &other);
    assert!(running.runs(), "it changed only after the run");
    running.signal(Signal::CONT);
    let run = running.wait();
    let code = run.status.code();
    assert!(code == Some(0) || (code == Some(23) && run.summary().count("hot") == 1), "{run}");

    let found = fs::read(stage.destination.join("busy")).ok();
    let whole = match &found {
        None => code == Some(23) || new.is_none(),
        Some(found) => *found == old || Some(found) == new.as_ref(),
    };
    assert!(whole, "a mix, or nothing, stands at the destination: {run}");
    if code == Some(0) {
        assert_same(&stage.source, &stage.destination);
    }
    stage.assert_completes(&command);
}

macro_rules! changes_while_it_is_read {
    ($($name:ident: $change:ident of $size_mib:literal;)*) => {
        $(#[test]
        fn $name() {
            for backend in ["threads", "uring"] {
                changes_while_it_is_read(Change::$change, $size_mib, backend);
            }
        })*
    };
}

changes_while_it_is_read! {
    p1_t21_a_file_that_grows_while_it_is_read_arrives_whole: Grows of 14;
    p1_t21_a_large_file_that_grows_while_it_is_read_arrives_whole: Grows of 40;
    p1_t21_a_file_that_shrinks_while_it_is_read_arrives_whole: Shrinks of 14;
    p1_t21_a_large_file_that_shrinks_while_it_is_read_arrives_whole: Shrinks of 40;
    p1_t21_a_file_that_is_rewritten_while_it_is_read_arrives_whole: RewrittenInPlace of 14;
    p1_t21_a_large_file_that_is_rewritten_while_it_is_read_arrives_whole: RewrittenInPlace of 40;
    p1_t21_a_file_that_is_rewritten_behind_its_time_arrives_whole: RewrittenWithItsTimePutBack of 14;
    p1_t21_a_large_file_that_is_rewritten_behind_its_time_arrives_whole: RewrittenWithItsTimePutBack of 40;
    p1_t21_a_file_that_is_replaced_while_it_is_read_arrives_whole: Replaced of 14;
    p1_t21_a_large_file_that_is_replaced_while_it_is_read_arrives_whole: Replaced of 40;
    p1_t21_a_file_that_vanishes_while_it_is_read_leaves_nothing_torn: Vanishes of 14;
    p1_t21_a_large_file_that_vanishes_while_it_is_read_leaves_nothing_torn: Vanishes of 40;
}

#[test]
fn t21_a_file_that_vanishes_while_it_is_read_is_24_for_the_strict_and_0_for_others() {
    for (arguments, code) in [(&["--strict"][..], 24), (&[], 0)] {
        let stage = Stage::new(FsType::Tmpfs);
        let path = stage.source.join("busy");
        fs::write(&path, Rng::new(7).bytes(14 * MIB)).unwrap();
        let command = Copyd::new("sync").arg("--json").arg(&stage.source).arg(&stage.destination);
        let command = command.args(&["--bwlimit", "24M"]).args(arguments);
        let mut running = command.spawn();
        running.until("bytes are copied", || in_mid_copy(&stage.destination));
        fs::remove_file(&path).unwrap();
        running.wait().expect(code);
        stage.assert_completes(&command);
    }
}

#[test]
fn t21_a_file_that_never_rests_is_hot_and_everything_else_arrives() {
    let stage = Stage::new(FsType::Tmpfs);
    trees::small_files(&stage.source, 600, 3).unwrap();
    let path = stage.source.join("restless");
    fs::write(&path, Rng::new(7).bytes(8 * MIB)).unwrap();
    let command = stage.migrate("64M").args(&["--max-passes", "3"]);
    let enough = AtomicBool::new(false);
    let run = thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            let mut count = 0_u64;
            while !enough.load(Ordering::Relaxed) {
                file.write_all_at(&count.to_le_bytes(), count % 1000 * 8).unwrap();
                count += 1;
                thread::sleep(Duration::from_micros(200));
            }
        });
        let run = command.run();
        enough.store(true, Ordering::Relaxed);
        run
    });
    let run = run.expect(23);
    assert_eq!((run.summary().count("hot"), run.summary().count("failed")), (1, 0), "{run}");
    let events = run.events();
    let named = events.iter().filter(|e| e["event"] == "entry_failed" && e["class"] == "hot");
    let named: Vec<_> = named.inspect(|e| assert_eq!(e["name"], "restless", "{run}")).collect();
    assert!(named.iter().any(|e| e["remedy"].as_str().is_some_and(|r| r.contains("writer is quiet"))), "{run}");
    let others: Vec<_> = stage.differences().into_iter().filter(|d| d.path != b"restless").collect();
    assert!(others.is_empty(), "{}", listed(&others, 40));
    assert!(!stage.destination.join("restless").exists(), "no version of it was ever whole");
    stage.assert_completes(&command);
}

/// Bytes of each small file that is rewritten again and again, all of them the same at a time.
const UNIFORM_BYTES: usize = 64 << 10;

#[test]
fn p1_t21_small_files_that_are_rewritten_all_the_time_never_arrive_as_a_mix() {
    for backend in ["threads", "uring"] {
        let stage = Stage::new(FsType::Tmpfs);
        let names: Vec<_> = (0..100).map(|i| format!("f{i:03}")).collect();
        for name in &names {
            fs::write(stage.source.join(name), vec![0; UNIFORM_BYTES]).unwrap();
        }
        let command = stage.migrate("16M").args(&["--backend", backend, "--max-passes", "4"]);
        let enough = AtomicBool::new(false);
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng::new(31);
                while !enough.load(Ordering::Relaxed) {
                    let byte = u8::try_from(rng.below(256)).unwrap();
                    let name = &names[usize::try_from(rng.below(100)).unwrap()];
                    let file = File::options().write(true).open(stage.source.join(name)).unwrap();
                    file.write_all_at(&vec![byte; UNIFORM_BYTES], 0).unwrap();
                    thread::sleep(Duration::from_micros(300));
                }
            });
            let run = command.run();
            enough.store(true, Ordering::Relaxed);
            run
        });
        assert!(matches!(run.status.code(), Some(0 | 23)), "{run}");
        let mut arrived = 0;
        for name in &names {
            let Ok(found) = fs::read(stage.destination.join(name)) else { continue };
            arrived += 1;
            let uniform = found.len() == UNIFORM_BYTES && found.iter().all(|&b| b == found[0]);
            assert!(uniform, "{name} is a mix of two versions: {run}");
        }
        assert!(arrived > 0, "none rested long enough to be copied, so this showed nothing: {run}");
        stage.assert_completes(&command);
    }
}

// ---------------------------------------------------------------------------------------------
// The run is stopped, killed, asked.

/// A tree that takes some seconds at 8 MiB a second: small files, and a large one.
fn slow_stage(to: FsType) -> Stage {
    let stage = Stage::new(to);
    trees::small_files(&stage.source, 3000, 5).unwrap();
    fs::write(stage.source.join("large"), Rng::new(8).bytes(20 * MIB)).unwrap();
    stage
}

#[test]
fn p1_an_interrupt_in_mid_copy_leaves_nothing_torn_and_the_same_command_resumes() {
    for to in [FsType::Tmpfs, FsType::Ext4] {
        let stage = slow_stage(to);
        let command = stage.migrate("8M");
        let mut running = command.spawn();
        running.until("files are copied", || temporaries(&stage.destination).len() >= 100);
        running.signal(Signal::INT);
        let run = running.wait().expect(20);
        assert_eq!(run.summary().text("outcome"), "cancelled", "{run}");
        assert!(run.words().contains("the same command again resumes"), "{run}");
        // Chunks of the large file may be kept, and then the run says so; nothing else is.
        let kept = temporaries(&stage.destination).len();
        assert!(kept <= 1, "small files are left over: {run}");
        assert_eq!(staging(&stage.destination).is_some(), kept == 1, "an empty staging directory is left over: {run}");
        assert_eq!(run.words().contains("kept for the run that resumes"), kept == 1, "{run}");
        stage.assert_nothing_torn();
        assert!(!stage.differences().is_empty(), "it was not stopped in the middle: {run}");
        stage.assert_completes(&command);
    }
}

#[test]
fn an_interrupt_does_not_call_the_file_hot_that_it_has_left_unfinished() {
    for backend in ["threads", "uring"] {
        let stage = Stage::new(FsType::Tmpfs);
        fs::write(stage.source.join("large"), Rng::new(9).bytes(30 * MIB)).unwrap();
        let command = stage.migrate("8M").arg("--backend").arg(backend);
        let mut running = command.spawn();
        running.until("a large file is half copied", || in_mid_copy(&stage.destination));
        running.signal(Signal::INT);
        let run = running.wait().expect(20);
        assert_eq!((run.summary().count("hot"), run.summary().count("failed")), (0, 0), "{run}");
        assert!(run.events().iter().all(|event| event["event"] != "entry_failed"), "{run}");
        stage.assert_completes(&command);
    }
}

/// Kills a run at a moment, and lets the same command finish.
fn killed(to: FsType, moment: &str, reached: impl Fn(&Path) -> bool) {
    let stage = slow_stage(to);
    let command = stage.migrate("8M");
    let mut running = command.spawn();
    running.until(moment, || reached(&stage.destination));
    running.signal(Signal::KILL);
    let status = running.wait().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it ended by itself: {status}");
    stage.assert_nothing_torn();
    assert!(!stage.differences().is_empty(), "it was not killed in the middle");
    stage.assert_completes(&command);
}

fn has_final_names(destination: &Path) -> bool {
    let entries = fs::read_dir(destination).into_iter().flatten().flatten();
    entries.filter(|e| !e.file_name().as_bytes().starts_with(b".copyd-")).count() > 0
}

#[test]
fn p3_a_kill_before_the_first_file_is_whole_costs_nothing() {
    killed(FsType::Ext4, "the staging directory stands", |at| staging(at).is_some());
}

#[test]
fn p3_a_kill_while_files_grow_costs_nothing() {
    killed(FsType::Ext4, "files grow", |at| temporaries(at).len() >= 200);
}

#[test]
fn p3_a_kill_after_the_first_final_names_costs_nothing() {
    for to in [FsType::Ext4, FsType::Tmpfs] {
        killed(to, "there are final names", has_final_names);
    }
}

#[test]
fn sigusr1_says_in_one_line_where_the_run_stands_and_the_run_goes_on() {
    let stage = Stage::new(FsType::Tmpfs);
    fs::write(stage.source.join("file"), Rng::new(7).bytes(14 * MIB)).unwrap();
    let command = Copyd::migrate_plainly(&stage.source, &stage.destination).args(&["--bwlimit", "14M"]);
    let status_lines = |run: &Run| run.err_text().lines().filter(|l| l.contains("entries")).count();
    let mut running = command.spawn();
    running.until("bytes are copied", || in_mid_copy(&stage.destination));
    running.signal(Signal::USR1);
    let run = running.wait().expect(0);
    assert_eq!(status_lines(&run), 1, "{run}");
    assert_same(&stage.source, &stage.destination);
}

// ---------------------------------------------------------------------------------------------
// Bytes flip before they are read back.

/// Files in each of which the second writer flips one byte.
const FLIPS: usize = SMALL_FLIPS + LARGE_FLIPS;
const SMALL_FLIPS: usize = 990;
const LARGE_FLIPS: usize = 10;
const SMALL_FLIP_BYTES: usize = 4 << 10;
/// Two chunks, which are read back in parallel; the last file has three.
const LARGE_FLIP_BYTES: usize = 17 * MIB;
const LARGEST_FLIP_BYTES: usize = 40 * MIB;
const CHUNK_BYTES: usize = 16 * MIB;
/// Files that keep the batch open meanwhile: with the others they are fewer than fill one.
const SPARES: usize = 20;
/// Age at which a batch is closed whatever it holds.
const BATCH_AGE: Duration = Duration::from_secs(5);
/// Modification times of the files to flip and of the spares, in seconds: a temporary that has it is
/// written to its end.
const OLD_TIME_S: u64 = 1_000_000_000;
const SPARE_TIME_S: u64 = 1_100_000_000;

fn write_dated(path: &Path, bytes: &[u8], seconds: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// Whether a temporary has this time, and so is written to its end.
fn is_dated(path: &Path, seconds: u64) -> bool {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::metadata(path).and_then(|meta| meta.modified()).is_ok_and(|found| found == time)
}

/// Files that lie so deep that they are found, and so copied, after all others.
fn write_spares(source: &Path, bytes_each: usize) {
    let bytes = Rng::new(19).bytes(bytes_each);
    for i in 0..SPARES {
        write_dated(&source.join(format!("later/later/later/later/spare{i:02}")), &bytes, SPARE_TIME_S);
    }
}

/// What [`flip_stage`] writes to flip, in bytes.
const FLIPPED_BYTES: usize = SMALL_FLIPS * SMALL_FLIP_BYTES + (LARGE_FLIPS - 1) * LARGE_FLIP_BYTES + LARGEST_FLIP_BYTES;
const SPARE_BYTES: usize = 4 * MIB;

fn flip_stage() -> Stage {
    let stage = Stage::sized(FsType::Ext4, 1024);
    let mut rng = Rng::new(17);
    for i in 0..SMALL_FLIPS {
        let path = stage.source.join(format!("d{}/f{i:04}", i / 400));
        write_dated(&path, &rng.bytes(SMALL_FLIP_BYTES), OLD_TIME_S);
    }
    for i in 0..LARGE_FLIPS {
        let bytes = if i + 1 == LARGE_FLIPS { LARGEST_FLIP_BYTES } else { LARGE_FLIP_BYTES };
        write_dated(&stage.source.join(format!("large{i}")), &rng.bytes(bytes), OLD_TIME_S);
    }
    write_spares(&stage.source, SPARE_BYTES);
    stage
}

/// Flips one byte of a complete temporary, and puts its time back: only the bytes tell it. In a large
/// file, the chunk is another each time.
fn flip(path: &Path, rng: &mut Rng) -> std::io::Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    let meta = file.metadata()?;
    let (bytes, time) = (meta.len(), meta.modified()?);
    let chunk = CHUNK_BYTES as u64;
    let start = rng.below(bytes.div_ceil(chunk)) * chunk;
    let at = start + rng.below(chunk.min(bytes - start));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at)?;
    file.set_modified(time)?;
    Ok(bytes)
}

/// Runs a migration, and holds it while its batch is open to flip one byte in each of [`FLIPS`]
/// files. Nothing where the machine was too slow for that, and the batch's age closed it before.
fn flipped_run(stage: &Stage, level: &str, backend: &str) -> Option<Run> {
    let mut running = stage.migrate("128M").args(&["--verify", level, "--backend", backend]).spawn();
    let complete = |seconds| {
        let mut found = temporaries(&stage.destination);
        found.retain(|path| is_dated(path, seconds));
        found
    };
    let closed = || ["large0", "d0", "d1", "d2"].iter().any(|name| stage.destination.join(name).exists());
    running.until("all files to flip are copied", || {
        // Looking at each file is dear, and worth it only when all are there.
        thread::sleep(Duration::from_millis(10));
        let all = temporaries(&stage.destination).len() >= FLIPS && complete(OLD_TIME_S).len() == FLIPS;
        all || closed()
    });
    running.signal(Signal::STOP);
    let (in_time, complete_spares) = (running.elapsed() < BATCH_AGE, complete(SPARE_TIME_S).len());
    let complete = complete(OLD_TIME_S);
    if !in_time || closed() || complete.len() != FLIPS || complete_spares == SPARES {
        return None;
    }
    let mut rng = Rng::new(23);
    let flipped: Option<u64> = complete.iter().map(|path| flip(path, &mut rng).ok()).sum();
    assert_eq!(flipped?, FLIPPED_BYTES as u64, "each file is flipped once");
    running.signal(Signal::CONT);
    Some(running.wait())
}

/// As [`flipped_run`], again from the start while the machine is too slow for it.
fn flipped(stage: &Stage, level: &str, backend: &str) -> Run {
    for _ in 0..5 {
        if stage.destination.exists() {
            fs::remove_dir_all(&stage.destination).unwrap();
        }
        if let Some(run) = flipped_run(stage, level, backend) {
            return run;
        }
        eprintln!("too slow: the batch was closed before all bytes were flipped");
    }
    panic!("this machine never copies {FLIPS} files within the age of a batch");
}

#[test]
fn p2_every_byte_that_flips_before_it_is_read_back_is_found() {
    let stage = flip_stage();
    for backend in ["threads", "uring"] {
        let run = flipped(&stage, "readback", backend).expect(0);
        let differences = stage.differences();
        assert!(differences.is_empty(), "complete, and yet:\n{}", listed(&differences, 40));
        let again = run.summary().count("bytes_copied") - (FLIPPED_BYTES + SPARES * SPARE_BYTES) as u64;
        assert_eq!(again, FLIPPED_BYTES as u64, "each flipped file is copied again, once, and no other: {run}");
        assert_eq!(run.summary().count("assumed"), 0, "{run}");
    }
}

#[test]
fn bytes_that_flip_in_a_batch_do_arrive_where_nothing_is_read_back() {
    let stage = flip_stage();
    flipped(&stage, "inline", "threads").expect(0);
    let differences = stage.differences();
    let flips = differences.iter().filter(|d| d.class == Class::Content).count();
    assert_eq!((flips, differences.len()), (FLIPS, FLIPS), "the flips are real:\n{}", listed(&differences, 40));
}

/// Files that flip each time they are written: a large one, and small ones.
const STUBBORN: usize = 40;
const STUBBORN_BYTES: usize = 5000;
/// Small files that fill a batch, so that it is read back long before the run is over.
const FILLERS: usize = 1100;

/// Runs a migration while a second writer flips a byte in every old file each time that it is
/// complete, and says how often it did: of each file's size, which no two share.
fn stubborn_run(stage: &Stage, command: &Copyd) -> (Run, BTreeMap<u64, u32>) {
    let mut running = command.spawn();
    let mut rng = Rng::new(29);
    let mut flipped = BTreeSet::new();
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    while running.runs() {
        for path in temporaries(&stage.destination) {
            let inode = fs::metadata(&path).map(|meta| meta.ino()).ok();
            let known = flipped.contains(&(path.clone(), inode));
            if !known
                && is_dated(&path, OLD_TIME_S)
                && let Ok(bytes) = flip(&path, &mut rng)
            {
                *times.entry(bytes).or_default() += 1;
                flipped.insert((path, inode));
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    (running.wait(), times)
}

#[test]
fn p2_files_that_flip_again_are_found_and_make_it_40() {
    let attempt = || {
        let stage = Stage::sized(FsType::Ext4, 512);
        let mut rng = Rng::new(37);
        for i in 0..STUBBORN {
            let bytes = if i == 0 { LARGE_FLIP_BYTES } else { STUBBORN_BYTES + i };
            write_dated(&stage.source.join(format!("stubborn{i:02}")), &rng.bytes(bytes), OLD_TIME_S);
        }
        trees::small_files(&stage.source, FILLERS, 5).unwrap();
        write_spares(&stage.source, SPARE_BYTES);
        let command = stage.migrate("24M");
        let (run, times) = stubborn_run(&stage, &command);
        // However often: what has its name is whole.
        let wrong: Vec<_> = stage.differences().into_iter().filter(|d| d.class != Class::Missing).collect();
        assert!(wrong.is_empty(), "{}", listed(&wrong, 40));
        (stage, command, run, times)
    };
    let (stage, command, run, times) = (0..5)
        .map(|_| attempt())
        .find(|(.., times)| times.len() == STUBBORN && times.values().all(|&times| times == 2))
        .expect("this machine is never fast enough to flip every file twice");
    let run = run.expect(40);
    assert_eq!(run.summary().count("failed"), times.len() as u64, "{run}");
    let named = run.events().iter().filter(|e| e["event"] == "entry_failed" && e["class"] == "mismatch").count();
    assert_eq!(named, STUBBORN, "{run}");
    let differences = stage.differences();
    assert_eq!(differences.len(), STUBBORN, "{}", listed(&differences, 60));
    stage.assert_completes(&command);
}

// ---------------------------------------------------------------------------------------------
// The kernel refuses io_uring.

#[test]
fn where_io_uring_is_refused_threads_copy_everything_and_one_line_says_so() {
    for backend in ["auto", "uring"] {
        let stage = Stage::new(FsType::Ext4);
        trees::small_files(&stage.source, 600, 9).unwrap();
        let command = Copyd::migrate_plainly(&stage.source, &stage.destination).args(&["--backend", backend]);
        let run = command.ring_refused().run().expect(0);
        let lines = run.words().lines().filter(|l| l.contains("io_uring is refused")).count();
        assert_eq!(lines, 1, "{backend}: {run}");
        assert_same(&stage.source, &stage.destination);
    }
}
