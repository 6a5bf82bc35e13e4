//! What kills and power cuts are tried on: a tree, a job, a destination, and the looks at them that
//! hold whatever the moment was.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Rng;
use super::copyd::{Copyd, Summary};
use super::oracle::{Class, Overlook, compare, listed};

const MIB: usize = 1 << 20;
/// Files of one batch: the most that a crash may make copyd do again.
const BATCH_FILES: u64 = 1024;

/// A number from the environment, for longer runs than the gate's.
pub fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The seed of a test's random moments.
pub fn seed() -> u64 {
    number("COPYD_SEED", 20_261_122)
}

/// Small files, so many in each of eight directories and 300 at the root, middle ones, two large ones
/// of so many MiB, links and a hole.
pub fn mixed_tree(root: &Path, seed: u64, per_directory: u64, large_mib: [usize; 2]) {
    let mut rng = Rng::new(seed);
    fs::create_dir_all(root).expect("a place for the tree");
    for d in 0..8 {
        let directory = root.join(format!("small{d}"));
        fs::create_dir(&directory).expect("a fresh tree");
        for i in 0..per_directory {
            let len = usize::try_from(rng.below(12_000)).expect("small");
            fs::write(directory.join(format!("f{i:03}")), rng.bytes(len)).expect("there is room");
        }
    }
    for i in 0..300 {
        fs::write(root.join(format!("at-root{i:03}")), rng.bytes(700)).expect("there is room");
    }
    fs::create_dir(root.join("middle")).expect("a fresh tree");
    for i in 0..12 {
        let len = usize::try_from(65_536 + rng.below(2 << 20)).expect("small");
        fs::write(root.join(format!("middle/m{i:02}")), rng.bytes(len)).expect("there is room");
    }
    fs::create_dir(root.join("large")).expect("a fresh tree");
    fs::write(root.join("large/first"), rng.bytes(large_mib[0] * MIB + 77)).expect("there is room");
    fs::write(root.join("second"), rng.bytes(large_mib[1] * MIB)).expect("there is room");
    let sparse = fs::File::create(root.join("large/sparse")).expect("a fresh tree");
    sparse.set_len(20 << 20).expect("no room is needed");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &rng.bytes(MIB), 17 << 20).expect("there is room");
    for i in 0..10 {
        symlink("small0/f000", root.join(format!("link{i}"))).expect("a fresh tree");
        fs::hard_link(root.join(format!("small1/f{i:03}")), root.join(format!("small2/again{i}"))).expect("hard link");
    }
}

/// One job between a source and a destination of its own.
#[derive(Debug)]
pub struct Field {
    pub source: PathBuf,
    pub destination: PathBuf,
    pub state: PathBuf,
    pub arguments: Vec<&'static str>,
}

/// What the destination lacks.
#[derive(Clone, Copy, Debug)]
pub struct Lacking {
    pub files: u64,
    pub entries: usize,
}

impl Field {
    pub fn command(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).state_dir(&self.state).args(&self.arguments)
    }

    /// Kills a run after so long; false where it ended before, which then must have been complete.
    pub fn kill_after(&self, delay: Duration) -> bool {
        let running = self.command().spawn();
        thread::sleep(delay);
        running.signal(Signal::KILL);
        let run = running.wait();
        if run.status.signal() == Some(9) {
            return true;
        }
        run.expect(0);
        false
    }

    /// Every final name is the source's entry, or absent (P1); of a directory only its last touch may
    /// be missing.
    pub fn assert_nothing_torn(&self, when: &str) -> Lacking {
        if !self.destination.exists() {
            return Lacking { files: u64::MAX - BATCH_FILES, entries: usize::MAX };
        }
        let found = compare(&self.source, &self.destination, &Overlook::default()).expect("both sides can be read");
        let path = |bytes: &[u8]| self.source.join(OsStr::from_bytes(bytes));
        let (mut missing, mut torn) = (Vec::new(), Vec::new());
        for difference in found {
            let staging = difference.class == Class::Extra && difference.path.starts_with(b".copyd-");
            if difference.class == Class::Missing {
                missing.push(difference);
            } else if difference.class == Class::LinkBroken {
                // Both names are whole. A name is joined to its group again when the group's first
                // name, which went with the staging directory, is there once more.
            } else if !staging && !path(&difference.path).is_dir() {
                torn.push(difference);
            }
        }
        assert!(torn.is_empty(), "{when}: torn names at the destination:\n{}", listed(&torn, 20));
        Lacking { files: missing.iter().map(|d| files_below(&path(&d.path))).sum(), entries: missing.len() }
    }

    /// The same command once more, undisturbed: everything is equal then, nothing is left over, and no
    /// more than one batch was done twice.
    pub fn assert_resumes(&self, lacking: Lacking, when: &str) -> Summary {
        let run = self.command().run().expect(0);
        let found = compare(&self.source, &self.destination, &Overlook::default()).expect("both sides can be read");
        assert!(found.is_empty(), "{when}: {run}\n{}", listed(&found, 20));
        assert!(staging(&self.destination).is_none(), "{when}: the staging directory is left over: {run}");
        let summary = run.summary();
        let copied = summary.count("files_copied");
        assert!(copied <= lacking.files + BATCH_FILES, "{when}: {copied} copied, {} missing: {run}", lacking.files);
        summary
    }

    /// Every entry that the journal calls done stands at the destination and is equal (P3). Gives their
    /// number.
    pub fn assert_done_is_equal(&self, when: &str) -> usize {
        let mut done = 0;
        for path in journal_says_done(&self.state) {
            let (ours, theirs) = (self.source.join(&path), self.destination.join(&path));
            let Ok(meta) = fs::symlink_metadata(&ours) else { panic!("{when}: {path} is not of the source") };
            let there = fs::symlink_metadata(&theirs);
            assert!(there.is_ok(), "{when}: {path} is done, and not at the destination");
            if meta.is_file() {
                let equal = fs::read(&ours).expect("readable") == fs::read(&theirs).expect("readable");
                assert!(equal, "{when}: {path} is done, and differs");
            }
            done += 1;
        }
        done
    }

    /// Removes the job and what it copied.
    pub fn clear(&self) {
        for directory in [&self.destination, &self.state] {
            if directory.exists() {
                fs::remove_dir_all(directory).expect("it is ours");
            }
        }
    }
}

/// Paths of the entries that the job's catalog calls done; none where no job has come so far.
pub fn journal_says_done(state: &Path) -> Vec<String> {
    let Some(catalog) = catalog(state) else { return Vec::new() };
    let connection = rusqlite::Connection::open(&catalog).expect("the catalog is a database");
    let mut rows = connection.prepare("SELECT path FROM tree WHERE state <> 'pending'").expect("the view is there");
    let paths = rows.query_map([], |row| row.get::<_, String>(0)).expect("the view can be read");
    paths.map(|path| path.expect("names are text here")).filter(|path| !path.is_empty()).collect()
}

/// The catalog of the only job in a state directory.
pub fn catalog(state: &Path) -> Option<PathBuf> {
    let mut jobs = fs::read_dir(state.join("jobs")).ok()?.flatten();
    jobs.next().map(|job| job.path().join("catalog.sqlite")).filter(|path| path.exists())
}

/// Regular files at or below a path, each hard-linked one once a name.
fn files_below(path: &Path) -> u64 {
    let meta = fs::symlink_metadata(path).expect("the source is at rest");
    if !meta.is_dir() {
        return u64::from(meta.is_file());
    }
    fs::read_dir(path).expect("the source is at rest").map(|entry| files_below(&entry.expect("an entry").path())).sum()
}

/// The staging directory of a run that goes on, or was killed.
pub fn staging(destination: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(destination).ok()?.flatten();
    entries.find(|e| e.file_name().as_bytes().starts_with(b".copyd-")).map(|e| e.path())
}
