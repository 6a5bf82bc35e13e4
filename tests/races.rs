//! Races: a tenant who changes places of entries under a run, at the source, at the destination and in
//! the staging area. The numbers are those of `docs/reliability.md`.
//!
//! Two kinds of attack. With a rig (`rig/`) the exchange happens exactly at the n-th call that looks a
//! name up or changes one, so each window is hit once and none is left to luck. A live attacker
//! exchanges names as fast as it can on a real file system, so the windows that nobody thought of are
//! hit too. The judge of both is a canary outside the roots: nothing of it may arrive, and nothing of
//! it may move, not even an access time.

mod rig;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, RenameFlags, makedev, renameat_with};

use rig::plan::{Call, Kind};
use rig::stage::{Side, Stage};
use support::canary::Canary;
use support::copyd::{Copyd, Run};
use support::crash::{number, seed};
use support::mounts::{FsType, LoopFs, Tmpfs, Volume};
use support::oracle::assert_same;
use support::{Rng, escaped, trees};

const BACKENDS: [&str; 2] = ["threads", "uring"];

/// Bytes of the file that is swapped most, and of the one that takes its place.
const VICTIM_BYTES: usize = 9000;

// ---------------------------------------------------------------------------------------------
// What takes an entry's place, and how to tell that it was believed.

/// What the attacker puts in an entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Substitute {
    LinkToFile,
    LinkToDirectory,
    Directory,
    File,
    Fifo,
    /// One that reads as zeros without end.
    Device,
}

const SUBSTITUTES: [Substitute; 6] = [
    Substitute::LinkToFile,
    Substitute::LinkToDirectory,
    Substitute::Directory,
    Substitute::File,
    Substitute::Fifo,
    Substitute::Device,
];

impl Substitute {
    fn make(self, at: &Path, canary: &Path) {
        match self {
            Self::LinkToFile => symlink(canary.join("secret"), at).unwrap(),
            Self::LinkToDirectory => symlink(canary, at).unwrap(),
            Self::Directory => {
                fs::create_dir(at).unwrap();
                fs::write(at.join("secret"), b"of the other directory").unwrap();
            }
            Self::File => fs::write(at, Rng::new(12).bytes(VICTIM_BYTES)).unwrap(),
            Self::Fifo => trees::make_node(at, FileType::Fifo, 0o666, 0).unwrap(),
            Self::Device => trees::make_node(at, FileType::CharacterDevice, 0o666, makedev(1, 5)).unwrap(),
        }
    }
}

/// Two names change places at one moment.
fn exchange(a: &Path, b: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

/// A tree whose names are those of the canary, so that whoever follows a link into it finds what it
/// looks for there.
fn plant(root: &Path) {
    let mut rng = Rng::new(11);
    fs::create_dir_all(root.join("dir/directory")).unwrap();
    for name in ["secret", "dir/secret", "dir/directory/deeper"] {
        fs::write(root.join(name), rng.bytes(VICTIM_BYTES)).unwrap();
    }
    symlink("secret", root.join("dir/link")).unwrap();
}

/// Everything below a directory, links not followed.
fn walk(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// What of the canary has arrived below a directory: a name that only it has, or bytes of its files.
fn betrayed(destination: &Path) -> Vec<String> {
    const NAMES: [&str; 1] = ["second-name"];
    const BYTES: [&[u8]; 2] = [b"canary: nobody reads this", b"nor this"];
    let holds = |path: &Path| {
        let regular = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
        let bytes = if regular { fs::read(path).unwrap_or_default() } else { Vec::new() };
        BYTES.iter().any(|marked| bytes.windows(marked.len()).any(|window| window == *marked))
    };
    let named = |path: &Path| path.file_name().is_some_and(|name| NAMES.iter().any(|n| name == *n));
    let found = walk(destination);
    found.iter().filter(|path| named(path) || holds(path)).map(|path| path.display().to_string()).collect()
}

/// Exit codes that a run under attack may end with.
fn judge(run: &Run, canary: &Canary, destination: &Path) -> Result<(), String> {
    let code = run.status.code().ok_or("ended by a signal")?;
    if ![0, 11, 23, 40, 41, 43].contains(&code) {
        return Err(format!("exit code {code}"));
    }
    if run.words().contains("panicked") {
        return Err("panicked".into());
    }
    let betrayed = betrayed(destination);
    if !betrayed.is_empty() {
        return Err(format!("the canary arrived: {betrayed:?}"));
    }
    let touched = canary.changes().map_err(|e| e.to_string())?;
    if touched.is_empty() { Ok(()) } else { Err(format!("the canary: {}", touched.join(", "))) }
}

/// Runs cases on two threads, each with a stage of its own, and panics with all that failed.
fn in_lanes<C: Copy + Send + Sync + std::fmt::Debug + 'static>(
    what: &str,
    cases: Vec<C>,
    attempt: impl Fn(&mut Stage, C) -> Result<(), String> + Copy + Send + 'static,
) {
    println!("{what}: {} cases", cases.len());
    assert!(!cases.is_empty(), "{what}: no case");
    let cases = Arc::new(cases);
    let next = Arc::new(AtomicU64::new(0));
    let lanes = [0, 1].map(|_| {
        let (cases, next) = (Arc::clone(&cases), Arc::clone(&next));
        thread::spawn(move || {
            let mut stage = Stage::new();
            let mut failed = Vec::new();
            while let Some(case) = cases.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                stage.begin_again();
                failed.extend(attempt(&mut stage, *case).err().map(|e| format!("{case:?}: {e}")));
            }
            failed
        })
    });
    let failed: Vec<_> = lanes.into_iter().flat_map(|lane| lane.join().expect("a lane does not panic")).collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

// ---------------------------------------------------------------------------------------------
// T11: the source is swapped at each look at a name.

/// The names that are swapped: a leaf at the root, the parent of others, a leaf below it.
const VICTIMS: [&str; 3] = ["secret", "dir", "dir/secret"];

/// One swap at the source.
#[derive(Clone, Copy, Debug)]
struct Swap {
    victim: &'static str,
    substitute: Substitute,
    /// At which look at the name, from 1.
    nth: u64,
    backend: &'static str,
}

/// Empties a directory that a rig holds open.
fn clear_directory(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.unwrap();
    }
}

/// Whether a call looks for the name of a victim in its directory.
fn looks_for(call: &Call<'_>, directory: u64, name: &[u8]) -> bool {
    call.kind == Kind::Lookup && call.inode == directory && call.name == name
}

/// The inode of a victim's directory as the rig shows it, and its own name.
fn place_of(root: &Path, victim: &str) -> (u64, Vec<u8>) {
    match victim.rsplit_once('/') {
        None => (1, victim.into()),
        Some((parent, name)) => (fs::metadata(root.join(parent)).unwrap().ino(), name.into()),
    }
}

/// How often each victim's name is looked up in a run that nobody disturbs.
fn t11_lookups(backend: &str) -> Vec<(&'static str, u64)> {
    let stage = Stage::new();
    plant(&stage.source_backing);
    let count = |victim: &'static str| {
        let (directory, name) = place_of(&stage.source_backing, victim);
        let seen = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&seen);
        stage.source.plan().on(move |call| {
            counted.fetch_add(u64::from(looks_for(call, directory, &name)), Ordering::Relaxed);
            None
        });
        (victim, seen)
    };
    let counts = VICTIMS.map(count);
    let run = stage.command("migrate", backend).run().expect(0);
    let counts = counts.map(|(victim, seen)| (victim, seen.load(Ordering::Relaxed)));
    assert!(counts.iter().all(|(_, seen)| *seen >= 2), "each name is looked up more than once: {counts:?} {run}");
    counts.to_vec()
}

fn t11_cases() -> Vec<Swap> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        for (victim, lookups) in t11_lookups(backend) {
            for substitute in SUBSTITUTES {
                cases.extend((1..=lookups).map(|nth| Swap { victim, substitute, nth, backend }));
            }
        }
    }
    cases
}

fn t11_try(stage: &mut Stage, case: Swap) -> Result<(), String> {
    clear_directory(&stage.source_backing);
    plant(&stage.source_backing);
    let aside = stage.aside();
    let (victim, substitute) = (stage.source_backing.join(case.victim), aside.path().join("substitute"));
    case.substitute.make(&substitute, stage.canary().path());
    let (directory, name) = place_of(&stage.source_backing, case.victim);
    let original = fs::read(&victim).ok();
    let mut seen = 0;
    let (from, to) = (victim.clone(), substitute.clone());
    stage.source.plan().on(move |call| {
        if looks_for(call, directory, &name) {
            seen += 1;
            if seen == case.nth {
                exchange(&from, &to).expect("both stand");
            }
        }
        None
    });
    let command = stage.command("migrate", case.backend).arg("--delete");
    let run = command.run();
    // A FIFO would never end, nor would a device.
    let swapped = (case.substitute == Substitute::File).then(|| fs::read(&victim).ok()).flatten();
    judge(&run, stage.canary(), &stage.destination_backing).map_err(|e| format!("{e}: {run}"))?;
    let arrived = stage.destination_backing.join(case.victim);
    if fs::symlink_metadata(&arrived).is_ok_and(|meta| meta.is_file()) {
        let arrived = fs::read(&arrived).ok();
        if arrived != original && arrived != swapped {
            return Err(format!("neither the one file nor the other stands at the destination: {run}"));
        }
    }
    stage.completes(&command).map_err(|e| format!("{e}\n{run}"))
}

#[test]
fn t11_a_source_that_is_swapped_at_any_look_leads_nowhere() {
    in_lanes("T11", t11_cases(), t11_try);
}
