//! T31: the state is full, damaged, gone, or an old copy, and copyd never takes for done what is not
//! equal.
//!
//! Each time somebody has changed one file's bytes at the destination behind copyd's back, with size
//! and time put back: a run that believed a damaged state would leave it wrong. A run may refuse, with
//! the file's name and what to do, or make everything equal; nothing in between.

mod support;

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use support::Rng;
use support::canary::Snapshot;
use support::copyd::{Copyd, Run};
use support::crash::{catalog, number, seed};
use support::mounts::{FsType, Tmpfs, Volume, volume};
use support::oracle::{Overlook, assert_same, compare, listed};
use support::tool;

/// Exit code of a state or root that can't be used.
const REFUSED: i32 = 11;
const FILES: u64 = 300;

/// A small share, its copy and the state, all in memory.
struct Share {
    source: PathBuf,
    destination: PathBuf,
    state: PathBuf,
    aside: PathBuf,
    volume: Box<dyn Volume>,
}

impl Share {
    fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 256);
        let source = volume.directory("source");
        let mut rng = Rng::new(31);
        for d in 0..3 {
            fs::create_dir(source.join(format!("d{d}"))).unwrap();
        }
        for i in 0..FILES {
            let len = usize::try_from(1 + rng.below(9000)).unwrap();
            fs::write(file(&source, i), rng.bytes(len)).unwrap();
        }
        let at = |name: &str| volume.path().join(name);
        Self { source, destination: at("destination"), state: at("state"), aside: at("aside"), volume }
    }

    fn migrate(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).state_dir(&self.state)
    }

    /// A copy of the state as it is now, to come back to.
    fn set_aside(&self) {
        copy_tree(&self.state, &self.aside);
    }

    fn bring_back(&self) {
        fs::remove_dir_all(&self.state).unwrap();
        copy_tree(&self.aside, &self.state);
    }

    fn catalog(&self) -> PathBuf {
        catalog(&self.state).expect("there is one job")
    }

    /// Runs once more over a damaged state: either it refuses and says why, or all is equal after.
    /// True where it refused.
    fn refuses_or_repairs(&self, when: &str) -> bool {
        let before = Snapshot::take(&self.destination).unwrap();
        let run = self.migrate().run();
        if run.status.code() == Some(REFUSED) {
            before.assert_unchanged(&self.destination, when);
            self.assert_clear(&run, when);
            return true;
        }
        let run = run.expect(0);
        let found = compare(&self.source, &self.destination, &Overlook::default()).unwrap();
        assert!(found.is_empty(), "{when}: called complete: {run}\n{}", listed(&found, 20));
        false
    }

    /// The words of a refusal: which file, and what to do.
    fn assert_clear(&self, run: &Run, when: &str) {
        let words = run.words();
        let names = words.contains("sqlite") || words.contains(&self.state.display().to_string().to_lowercase());
        let remedy = words.contains("--state-dir");
        assert!(names && remedy, "{when}: neither file nor remedy is named: {run}");
        assert!(!words.contains("panicked"), "{when}: {run}");
    }
}

fn file(root: &Path, i: u64) -> PathBuf {
    root.join(format!("d{}/file{i:04}", i % 3))
}

fn copy_tree(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    tool("coreutils", "cp", &[Path::new("-a"), from, to]);
}

/// Changes one byte, and puts the times back that can be put back.
fn tamper(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let meta = file.metadata().unwrap();
    let at = meta.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    let times = FileTimes::new().set_modified(meta.modified().unwrap()).set_accessed(meta.accessed().unwrap());
    file.set_times(times).unwrap();
}

fn flip(path: &Path, rng: &mut Rng) -> u64 {
    let mut bytes = fs::read(path).unwrap();
    let at = rng.below(bytes.len() as u64);
    bytes[usize::try_from(at).unwrap()] ^= 1 << rng.below(8);
    fs::write(path, bytes).unwrap();
    at
}

#[test]
fn t31_a_state_with_flipped_bytes_is_refused_or_the_destination_made_equal() {
    let flips = number("COPYD_T31_FLIPS", 60);
    let share = Share::new();
    share.migrate().run().expect(0);
    share.set_aside();
    let mut rng = Rng::new(seed() ^ 31);
    let mut refused = 0;
    for round in 0..flips {
        let victim = if round % 4 == 3 { share.state.join("jobs.sqlite") } else { share.catalog() };
        let at = flip(&victim, &mut rng);
        tamper(&file(&share.destination, rng.below(FILES)));
        let when = format!("seed {}, flip {round} at byte {at} of {}", seed(), victim.display());
        refused += u64::from(share.refuses_or_repairs(&when));
        // The state as it was, which knows nothing of the repair.
        share.bring_back();
        assert!(!share.refuses_or_repairs(&format!("{when}, restored")));
        share.set_aside();
    }
    println!("T31: {flips} flips, {refused} refused, seed {}", seed());
    assert!(refused > flips / 8, "only {refused} of {flips} were noticed");
}

#[test]
fn t31_a_truncated_or_missing_state_file_is_refused_and_the_destination_left_alone() {
    let share = Share::new();
    share.migrate().run().expect(0);
    share.set_aside();
    tamper(&file(&share.destination, 7));
    let names = [share.catalog(), share.state.join("jobs.sqlite")];
    for name in &names {
        let whole = fs::read(name).unwrap();
        for length in [Some(0), Some(1), Some(100), Some(whole.len() / 2), Some(whole.len() - 1), None] {
            match length {
                Some(length) => fs::write(name, &whole[..length]).unwrap(),
                None => fs::remove_file(name).unwrap(),
            }
            let when = format!("{} cut to {length:?}", name.display());
            assert!(share.refuses_or_repairs(&when), "{when}: it ran");
            share.bring_back();
        }
    }
    fs::remove_dir_all(names[0].parent().unwrap()).unwrap();
    assert!(share.refuses_or_repairs("without the job's directory"), "it ran");
    share.bring_back();
    assert!(!share.refuses_or_repairs("restored"));
}

#[test]
fn t31_a_state_that_is_gone_makes_the_destination_foreign_and_its_files_assumed() {
    let share = Share::new();
    share.migrate().run().expect(0);
    tamper(&file(&share.destination, 7));
    fs::remove_dir_all(&share.state).unwrap();
    share.migrate().run().expect(43);
    // Who tells it to go on hears that nothing was proved, and verify finds the file.
    let run = share.migrate().arg("--keep-extra").run().expect(0);
    let summary = run.summary();
    assert_eq!(summary.count("files_copied"), 0, "{run}");
    // Directories, whose metadata was read from both sides.
    assert_eq!(summary.count("proved"), 4, "{run}");
    assert!(summary.count("assumed") >= FILES, "{run}");
    Copyd::new("verify").arg(&share.source).arg(&share.destination).run().expect(40);
}

#[test]
fn t31_an_old_copy_of_the_catalog_or_of_the_whole_state_makes_nothing_wrong_unchanged() {
    for whole in [false, true] {
        let share = Share::new();
        share.migrate().run().expect(0);
        share.set_aside();
        let old = catalog(&share.aside).unwrap();
        // Files that the old catalog has never seen, and some that it knows otherwise.
        for i in FILES..FILES + 20 {
            fs::write(file(&share.source, i), Rng::new(i).bytes(3000)).unwrap();
        }
        for i in 0..20 {
            fs::write(file(&share.source, i), Rng::new(1000 + i).bytes(2000)).unwrap();
        }
        share.migrate().run().expect(0);
        if whole {
            share.bring_back();
        } else {
            let bytes = fs::read(&old).unwrap();
            fs::write(share.catalog(), bytes).unwrap();
        }
        for i in [3, 50, FILES + 3] {
            tamper(&file(&share.destination, i));
        }
        let when = format!("an old copy of {}", if whole { "the state" } else { "the catalog" });
        // What it does not know looks like somebody else's; who says that it may stay has it hashed.
        let run = share.migrate().run().expect(43);
        assert!(run.words().contains("--keep-extra"), "{when}: {run}");
        share.migrate().arg("--keep-extra").run().expect(0);
        assert_same(&share.source, &share.destination);
    }
}

#[test]
fn t31_a_log_that_a_kill_left_and_that_was_damaged_then_makes_nothing_wrong_unchanged() {
    let mut rng = Rng::new(seed() ^ 32);
    for (round, damage) in ["none", "flipped", "cut", "gone", "old"].into_iter().cycle().take(15).enumerate() {
        let share = Share::new();
        let mut running = share.migrate().args(&["--bwlimit", "1M"]).spawn();
        running.until("some files are done", || {
            fs::read_dir(share.destination.join("d1")).is_ok_and(|found| found.count() > 20)
                || running_names(&share) > 1
        });
        std::thread::sleep(Duration::from_millis(rng.below(200)));
        running.signal(Signal::KILL);
        drop(running.wait());
        let log = share.catalog().with_file_name("catalog.sqlite-wal");
        if log.exists() {
            let whole = fs::read(&log).unwrap();
            match damage {
                "flipped" if !whole.is_empty() => drop(flip(&log, &mut rng)),
                "cut" => fs::write(&log, &whole[..whole.len() / 2]).unwrap(),
                "gone" => fs::remove_file(&log).unwrap(),
                "old" => fs::write(&log, &whole[..whole.len().min(8232)]).unwrap(),
                _ => {}
            }
        }
        if let Some(done) = (0..FILES).map(|i| file(&share.destination, i)).find(|path| path.exists()) {
            tamper(&done);
        }
        let when = format!("seed {}, round {round}, log {damage}", seed());
        share.refuses_or_repairs(&when);
    }
}

/// Names at the destination's root, staging left out.
fn running_names(share: &Share) -> usize {
    let names = fs::read_dir(&share.destination).into_iter().flatten().flatten();
    names.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn t31_a_state_directory_that_is_full_ends_the_run_and_with_room_it_goes_on() {
    let share = Share::new();
    for i in 0..4000 {
        fs::write(share.source.join(format!("more{i:06}")), b"x").unwrap();
    }
    let small = Tmpfs::new(1);
    let state = small.path().join("state");
    let filler = small.path().join("filler");
    let command = Copyd::migrate(&share.source, &share.destination).state_dir(&state);
    for filled_kib in [1024, 980, 900, 800, 500, 0] {
        // Less than a page is left for the rest.
        let _ = fs::remove_file(&filler);
        for step in 0..filled_kib / 4 {
            let file = File::options().append(true).create(true).open(&filler).unwrap();
            if std::io::Write::write_all(&mut &file, &[0; 4096]).is_err() {
                assert!(step > 0, "nothing could be filled");
                break;
            }
        }
        let run = command.run();
        assert_eq!(run.status.code(), Some(REFUSED), "{filled_kib} KiB filled: {run}");
        let words = run.words();
        assert!(words.contains("room") || words.contains("no space left"), "{filled_kib} KiB filled: {run}");
        assert!(words.contains("state") && !words.contains("panicked"), "{filled_kib} KiB filled: {run}");
    }
    let found = if share.destination.exists() {
        compare(&share.source, &share.destination, &Overlook::default()).unwrap()
    } else {
        Vec::new()
    };
    let torn = found.iter().filter(|d| d.class == support::oracle::Class::Content).count();
    assert_eq!(torn, 0, "{}", listed(&found, 20));
    tool("mount", "mount", &["-o", "remount,size=64m", &small.path().to_string_lossy()]);
    command.run().expect(0);
    assert_same(&share.source, &share.destination);
    drop(share.volume);
}
