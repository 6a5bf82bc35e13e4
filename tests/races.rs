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

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, makedev, renameat_with};

use rig::plan::{Call, Fault, Kind};
use rig::stage::{Stage, names};
use support::canary::Canary;
use support::copyd::{Copyd, Run};
use support::crash::{number, seed};
use support::mounts::{FsType, Volume};
use support::oracle::assert_same;
use support::{Rng, tool, trees};

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

// ---------------------------------------------------------------------------------------------
// T12: the destination is swapped before each call that changes it.

/// Calls that change the destination, and those that look a name up or open it on the way there.
const CHANGING: [Kind; 17] = [
    Kind::Lookup,
    Kind::Opendir,
    Kind::Open,
    Kind::Create,
    Kind::Mkdir,
    Kind::Mknod,
    Kind::Symlink,
    Kind::Link,
    Kind::Rename,
    Kind::Unlink,
    Kind::Rmdir,
    Kind::Setattr,
    Kind::Setxattr,
    Kind::Removexattr,
    Kind::Write,
    Kind::Fsync,
    Kind::Fsyncdir,
];

/// What of the destination is swapped, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A directory that stands there.
    Directory(Substitute),
    /// A file that stands there.
    Leaf(Substitute),
    /// The staging directory.
    Staging(Substitute),
}

const TARGETS: [Target; 6] = [
    Target::Directory(Substitute::LinkToDirectory),
    Target::Directory(Substitute::Directory),
    Target::Directory(Substitute::File),
    Target::Leaf(Substitute::LinkToFile),
    Target::Leaf(Substitute::LinkToDirectory),
    Target::Staging(Substitute::LinkToDirectory),
];

#[derive(Clone, Copy, Debug)]
struct Blow {
    kind: Kind,
    nth: u64,
    target: Target,
    backend: &'static str,
}

/// A source that has copyd make every call of [`CHANGING`] at a destination of [`plant_stale`].
fn plant_more(root: &Path) {
    plant(root);
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/inner"), b"inner").unwrap();
    fs::hard_link(root.join("secret"), root.join("dir/second")).unwrap();
    trees::make_node(&root.join("dir/fifo"), FileType::Fifo, 0o640, 0).unwrap();
    fs::write(root.join("dir/same"), b"same").unwrap();
    for name in ["secret", "dir/same", "dir/directory/deeper"] {
        trees::set_xattr(&root.join(name), "user.note", b"wanted").unwrap();
    }
    std::os::unix::fs::chown(root.join("dir/same"), Some(1234), Some(1234)).unwrap();
}

/// An older state of it, with entries that are to go and attributes that are to be removed.
fn plant_stale(root: &Path, source: &Path) {
    fs::create_dir_all(root.join("dir/directory")).unwrap();
    fs::create_dir(root.join("dir/stale-dir")).unwrap();
    for name in ["secret", "dir/secret", "dir/stale", "dir/stale-dir/inner", "stale"] {
        fs::write(root.join(name), b"old").unwrap();
    }
    fs::write(root.join("dir/same"), b"same").unwrap();
    let time = fs::metadata(source.join("dir/same")).unwrap().modified().unwrap();
    fs::File::open(root.join("dir/same")).unwrap().set_modified(time).unwrap();
    trees::set_xattr(&root.join("dir/same"), "user.other", b"to be removed").unwrap();
}

fn t12_stage(stage: &Stage) {
    clear_directory(&stage.source_backing);
    plant_more(&stage.source_backing);
    plant_stale(&stage.destination_backing, &stage.source_backing);
}

/// The n-th calls to attack: all of them up to a number, or so many of each kind by chance.
fn t12_cases(of_each: u64, seed: u64) -> Vec<Blow> {
    let stage = Stage::new();
    t12_stage(&stage);
    let run = stage.command("sync", "threads").arg("--delete").run().expect(0);
    let counts = stage.destination.plan().counts();
    let made = |kind: &Kind| counts.get(kind).copied().unwrap_or(0);
    let missing: Vec<_> = CHANGING.iter().filter(|kind| made(kind) == 0).collect();
    assert!(missing.is_empty(), "never called: {missing:?} {run}");
    let mut rng = Rng::new(seed);
    let mut cases = Vec::new();
    for kind in CHANGING {
        for target in TARGETS {
            let all = made(&kind) <= of_each;
            cases.extend((1..=made(&kind).min(of_each)).map(|n| {
                let nth = if all { n } else { 1 + rng.below(made(&kind)) };
                Blow { kind, nth, target, backend: BACKENDS[usize::try_from(rng.below(2)).unwrap()] }
            }));
        }
    }
    cases
}

/// Swaps the target, if it stands by now; whether it did.
fn strike(target: Target, destination: &Path, substitute: &Path) -> bool {
    let victim = match target {
        Target::Directory(_) => Some(destination.join("dir")),
        Target::Leaf(_) => Some(destination.join("secret")),
        Target::Staging(_) => staging(destination),
    };
    victim.is_some_and(|victim| exchange(&victim, substitute).is_ok())
}

/// The staging directory of a run.
fn staging(destination: &Path) -> Option<PathBuf> {
    support::crash::staging(destination)
}

/// Cases in which the target stood, and so was swapped.
static STRUCK: AtomicU64 = AtomicU64::new(0);

fn t12_try(stage: &mut Stage, case: Blow) -> Result<(), String> {
    t12_stage(stage);
    let aside = stage.aside();
    let substitute = aside.path().join("substitute");
    let (Target::Directory(what) | Target::Leaf(what) | Target::Staging(what)) = case.target;
    what.make(&substitute, stage.canary().path());
    let (destination, mut struck) = (stage.destination_backing.clone(), false);
    let mut seen = 0;
    stage.destination.plan().on(move |call| {
        seen += u64::from(call.kind == case.kind);
        // The staging directory may not stand yet: then as soon as it does.
        if call.kind == case.kind && seen >= case.nth && !struck {
            struck = strike(case.target, &destination, &substitute);
            STRUCK.fetch_add(u64::from(struck), Ordering::Relaxed);
        }
        None
    });
    let command = stage.command("sync", case.backend).arg("--delete");
    let run = command.run();
    judge(&run, stage.canary(), &stage.destination_backing).map_err(|e| format!("{e}: {run}"))?;
    stage.completes(&command).map_err(|e| format!("{e}\n{run}"))
}

#[test]
fn t12_a_destination_that_is_swapped_before_any_call_leads_nowhere() {
    let (of_each, seed) = (number("COPYD_T12_CALLS", 1), seed());
    println!("T12: {of_each} calls of each kind, seed {seed}");
    let cases = t12_cases(of_each, seed);
    let count = cases.len() as u64;
    in_lanes("T12", cases, t12_try);
    let struck = STRUCK.load(Ordering::Relaxed);
    println!("T12: {struck} of {count} were swapped in time");
    assert!(struck * 10 >= count * 7, "most attacks came too late: {struck} of {count}");
}

// ---------------------------------------------------------------------------------------------
// T13: the temporary is replaced or changed by the tenant.

/// What happens to a temporary that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tamper {
    RenamedAway,
    LinkInItsPlace,
    OtherFileInItsPlace,
    LinkedElsewhere,
    WrittenWithItsTimePutBack,
    Truncated,
}

const TAMPERS: [Tamper; 6] = [
    Tamper::RenamedAway,
    Tamper::LinkInItsPlace,
    Tamper::OtherFileInItsPlace,
    Tamper::LinkedElsewhere,
    Tamper::WrittenWithItsTimePutBack,
    Tamper::Truncated,
];

impl Tamper {
    /// Carries it out on the temporary at a path.
    fn carry_out(self, temporary: &Path, away: &Path, canary: &Path) {
        let (other, meta) = (Rng::new(13).bytes(VICTIM_BYTES), fs::metadata(temporary).unwrap());
        match self {
            Self::RenamedAway => fs::rename(temporary, away).unwrap(),
            Self::LinkInItsPlace => {
                fs::rename(temporary, away).unwrap();
                symlink(canary.join("secret"), temporary).unwrap();
            }
            Self::OtherFileInItsPlace => {
                fs::rename(temporary, away).unwrap();
                fs::write(temporary, other).unwrap();
            }
            Self::LinkedElsewhere => fs::hard_link(temporary, away).unwrap(),
            Self::WrittenWithItsTimePutBack => fs::write(temporary, other).unwrap(),
            Self::Truncated => fs::File::options().write(true).open(temporary).unwrap().set_len(100).unwrap(),
        }
        if let Ok(file) = fs::File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(temporary) {
            file.set_modified(meta.modified().unwrap()).unwrap();
        }
    }
}

/// At which call on the temporary it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// When it is flushed, before it is read back.
    Flush,
    /// When it is opened to be read back.
    Open,
    /// When it is looked at for the last time, read back already.
    LastLook,
}

/// Where the temporary grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// In the private staging directory.
    Staging,
    /// Beside its target, in a directory of the tenant's, because a rename across a border is refused.
    Beside,
}

#[derive(Clone, Copy, Debug)]
struct Attack {
    tamper: Tamper,
    moment: Moment,
    growth: Growth,
    always: bool,
    backend: &'static str,
}

fn t13_cases() -> Vec<Attack> {
    let mut cases = Vec::new();
    for tamper in TAMPERS {
        for moment in [Moment::Flush, Moment::Open, Moment::LastLook] {
            for growth in [Growth::Staging, Growth::Beside] {
                let backend = BACKENDS[cases.len() / 2 % 2];
                cases.extend([false, true].map(|always| Attack { tamper, moment, growth, always, backend }));
            }
        }
    }
    cases
}

/// The temporary of the victim: the one file of its size in a reserved place.
fn temporary(destination: &Path) -> Option<PathBuf> {
    let reserved =
        |path: &Path| path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".copyd-"));
    let size = VICTIM_BYTES as u64;
    let victim = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
    walk(destination).into_iter().find(|path| reserved(path) && victim(path))
}

fn t13_attack(stage: &Stage, case: Attack, aside: &Path) {
    let (destination, canary) = (stage.destination_backing.clone(), stage.canary().path().to_owned());
    let (aside, mut done) = (aside.to_owned(), false);
    let mut refused = case.growth == Growth::Staging;
    // Of the inode that was written last: opens and lookups after its flush.
    let (mut inode, mut last_read) = (0, 0);
    stage.destination.plan().on(move |call| {
        if call.kind == Kind::Rename && call.name == b"victim" && !refused {
            refused = true;
            return Some(Fault::Fails(rustix::io::Errno::XDEV));
        }
        if !refused || (done && !case.always) {
            return None;
        }
        let temporary = temporary(&destination)?;
        let here = fs::symlink_metadata(&temporary).ok()?.ino();
        match call.kind {
            Kind::Fsync if call.inode == here => inode = here,
            Kind::Read if call.inode == here => last_read = here,
            _ => {}
        }
        let now = match case.moment {
            Moment::Flush => call.kind == Kind::Fsync && call.inode == here,
            Moment::Open => call.kind == Kind::Open && call.inode == here && inode == here,
            Moment::LastLook => {
                let named = temporary.file_name().is_some_and(|name| name.as_encoded_bytes() == call.name);
                call.kind == Kind::Lookup && named && last_read == here
            }
        };
        if now {
            let number = TAMPERED.fetch_add(1, Ordering::Relaxed);
            case.tamper.carry_out(&temporary, &aside.join(number.to_string()), &canary);
            (done, last_read) = (true, 0);
        }
        None
    });
}

static TAMPERED: AtomicU64 = AtomicU64::new(0);

fn t13_try(stage: &mut Stage, case: Attack) -> Result<(), String> {
    clear_directory(&stage.source_backing);
    fs::write(stage.source_backing.join("victim"), Rng::new(11).bytes(VICTIM_BYTES)).unwrap();
    fs::write(stage.source_backing.join("other"), b"other").unwrap();
    let aside = stage.aside();
    t13_attack(stage, case, aside.path());
    let command = stage.command("migrate", case.backend);
    let run = command.run();
    judge(&run, stage.canary(), &stage.destination_backing).map_err(|e| format!("{e}: {run}"))?;
    // Nothing is followed: a link that stands there is a wrong entry.
    let path = stage.destination_backing.join("victim");
    let arrived = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()).then(|| fs::read(&path).unwrap());
    let equal = arrived == fs::read(stage.source_backing.join("victim")).ok();
    let named = names(&run.events(), "entry_failed").contains(&b"victim".to_vec());
    let code = run.status.code();
    if !(equal && code == Some(0) || named && matches!(code, Some(23 | 40))) {
        return Err(format!("wrong and not named: equal {equal}, named {named}: {run}"));
    }
    // The root and the other file are proved in any case.
    if run.summary().count("proved") != 2 + u64::from(equal) {
        return Err(format!("called proved: {run}"));
    }
    stage.completes(&command).map_err(|e| format!("{e}\n{run}"))
}

#[test]
fn t13_a_temporary_that_the_tenant_replaces_or_changes_is_never_believed() {
    let cases = t13_cases();
    let count = cases.len() as u64;
    in_lanes("T13", cases, t13_try);
    let tampered = TAMPERED.load(Ordering::Relaxed);
    println!("T13: tampered with {tampered} times");
    assert!(tampered >= count, "each case tampers at least once: {tampered} of {count}");
}

// ---------------------------------------------------------------------------------------------
// Live attackers: T11 at the source, T12 at the destination.

/// Exchanges that one run of copyd counts at most, so that a faster attacker makes no shorter test.
const ROUNDS_A_RUN: u64 = 500;
/// Longest pause between two exchanges, in microseconds: the shortest is none.
const PAUSE_US_MAX: u64 = 100;

/// A file system under attack, where every read moves an access time.
struct Field {
    source: PathBuf,
    destination: PathBuf,
    aside: PathBuf,
    state: PathBuf,
    canary: Canary,
    _volume: Box<dyn Volume>,
}

impl Field {
    fn new(kind: FsType) -> Self {
        let volume = support::mounts::volume(kind, 128);
        tool("mount", "mount", &[OsStr::new("-o"), OsStr::new("remount,strictatime"), volume.path().as_os_str()]);
        let [source, destination, aside, state, beside] =
            ["source", "destination", "aside", "state", "beside"].map(|name| volume.directory(name));
        let canary = Canary::plant(&beside);
        Self { source, destination, aside, state, canary, _volume: volume }
    }

    fn command(&self, verb: &str) -> Copyd {
        let command = Copyd::new(verb).arg("--json").arg(&self.source).arg(&self.destination);
        let command = command.args(&["--delete", "--jobs", "2", "--timeout", "20"]);
        let command = if verb == "migrate" { command.args(&["--max-passes", "2"]) } else { command };
        command.state_dir(&self.state).timeout(Duration::from_mins(1))
    }

    /// Runs again and again while an attacker works, until so many of its rounds fell into runs. Every
    /// few runs the destination is new.
    fn fight(&self, rounds: u64, seed: u64, attack: impl Fn(&mut Rng) -> bool + Sync) {
        let (enough, done) = (AtomicBool::new(false), AtomicU64::new(0));
        // Held by the attacker for an exchange, and by the judge, before whose eyes nothing moves.
        let turn = Mutex::new(());
        let (mut counted, mut runs) = (0, 0_u64);
        thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                let mut rng = Rng::new(seed);
                while !enough.load(Ordering::Relaxed) {
                    let mine = turn.lock();
                    done.fetch_add(u64::from(attack(&mut rng)), Ordering::Relaxed);
                    drop(mine);
                    let (pause, since) = (Duration::from_micros(rng.below(PAUSE_US_MAX)), Instant::now());
                    while since.elapsed() < pause {
                        thread::yield_now();
                    }
                }
            });
            let _stop = Stop(&enough);
            while counted < rounds {
                assert!(!attacker.is_finished(), "the attacker gave up");
                if runs.is_multiple_of(8) {
                    let _peace = turn.lock();
                    clear_directory(&self.destination);
                    clear_directory(&self.state);
                }
                let before = done.load(Ordering::Relaxed);
                let run = self.command(["migrate", "sync"][usize::try_from(runs / 8 % 2).unwrap()]).run();
                counted += (done.load(Ordering::Relaxed) - before).min(ROUNDS_A_RUN);
                runs += 1;
                let _peace = turn.lock();
                assert_eq!(judge(&run, &self.canary, &self.destination), Ok(()), "{run}");
            }
        });
        println!("{counted} rounds in {runs} runs, seed {seed}");
    }
}

/// Tells the attacker to stop, also when the test panics.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn directory(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn t11_live(kind: FsType, rounds: u64) {
    let field = Field::new(kind);
    plant(&field.source);
    for i in 0..40 {
        fs::write(field.source.join(format!("dir/filler{i:02}")), Rng::new(i).bytes(3000)).unwrap();
        fs::create_dir(field.source.join(format!("d{i:02}"))).unwrap();
    }
    let (root, inner, aside) =
        (directory(&field.source), directory(&field.source.join("dir")), directory(&field.aside));
    // By held directories: a path would lead the attacker itself into the canary.
    let pairs = [
        (&root, "dir", Substitute::LinkToDirectory),
        (&root, "secret", Substitute::LinkToFile),
        (&root, "d07", Substitute::LinkToDirectory),
        (&inner, "secret", Substitute::Fifo),
        (&inner, "directory", Substitute::LinkToDirectory),
        (&inner, "filler20", Substitute::Directory),
        (&inner, "filler30", Substitute::File),
        (&inner, "filler39", Substitute::Device),
    ];
    for (number, (_, _, substitute)) in pairs.iter().enumerate() {
        substitute.make(&field.aside.join(number.to_string()), field.canary.path());
    }
    let swap = |number: usize| {
        let (directory, name, _) = pairs[number];
        renameat_with(directory, name, &aside, number.to_string(), RenameFlags::EXCHANGE).expect("both stand");
    };
    let swapped: [AtomicBool; 8] = Default::default();
    field.fight(rounds, seed(), |rng| {
        let number = usize::try_from(rng.below(8)).unwrap();
        swap(number);
        swapped[number].fetch_not(Ordering::Relaxed);
        true
    });
    // At peace it is one tree again.
    (0..pairs.len()).filter(|n| swapped[*n].load(Ordering::Relaxed)).for_each(swap);
    field.command("migrate").run().expect(0);
    assert_same(&field.source, &field.destination);
}

fn t12_live(kind: FsType, rounds: u64) {
    let field = Field::new(kind);
    plant_more(&field.source);
    for i in 0..40 {
        fs::write(field.source.join(format!("dir/filler{i:02}")), Rng::new(i).bytes(3000)).unwrap();
    }
    let (root, aside) = (directory(&field.destination), directory(&field.aside));
    let place = field.aside.join("place");
    field.fight(rounds, seed(), |rng| {
        // What came out of the tree before goes; something else is ready to take a place in it.
        let _ = fs::remove_file(&place).or_else(|_| fs::remove_dir_all(&place));
        let what = [Substitute::LinkToDirectory, Substitute::LinkToFile, Substitute::Directory, Substitute::File];
        if fs::symlink_metadata(&place).is_err() {
            what[usize::try_from(rng.below(4)).unwrap()].make(&place, field.canary.path());
        }
        let names = ["dir", "secret", "new", "dir/secret", "dir/directory", "staging"];
        match names[usize::try_from(rng.below(6)).unwrap()] {
            "staging" => staging(&field.destination).is_some_and(|found| exchange(&found, &place).is_ok()),
            name => match name.split_once('/') {
                None => renameat_with(&root, name, &aside, "place", RenameFlags::EXCHANGE).is_ok(),
                Some((parent, name)) => {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&root, parent, flags, Mode::empty())
                        .and_then(|parent| renameat_with(&parent, name, &aside, "place", RenameFlags::EXCHANGE))
                        .is_ok()
                }
            },
        }
    });
    field.command("migrate").run().expect(0);
    assert_same(&field.source, &field.destination);
}

fn live(what: &str, merge: u64, fight: impl Fn(FsType, u64)) {
    let rounds = number(&format!("COPYD_{what}_ROUNDS"), merge);
    println!("{what}: {rounds} exchanges while a run goes on, at most {ROUNDS_A_RUN} counted of each run");
    for kind in [FsType::Tmpfs, FsType::Ext4] {
        fight(kind, rounds / 2);
    }
}

#[test]
fn t11_a_live_attacker_at_the_source_has_nothing_read_outside() {
    live("T11", 20_000, t11_live);
}

#[test]
fn t12_a_live_attacker_at_the_destination_has_nothing_written_outside() {
    live("T12", 2000, t12_live);
}
