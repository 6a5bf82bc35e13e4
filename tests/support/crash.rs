//! What kills and power cuts are tried on: a tree, a job, a destination, and the looks at them that
//! hold whatever the moment was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Rng;
use super::copyd::{Copyd, Summary};
use super::oracle::{Class, Difference, Overlook, compare, listed};

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
        self.assert_done_holds(None, when)
    }

    /// As [`Self::assert_done_is_equal`], where an earlier run of the job copied another source: what
    /// the journal says of that may have been overtaken since, by the new entry and by no other.
    pub fn assert_done_holds(&self, before: Option<&Before>, when: &str) -> usize {
        let rows = journal_says_done(&self.state);
        for row in &rows {
            let path = &row.path;
            let (ours, theirs) = (self.source.join(path), self.destination.join(path));
            let (meta, there) = (fs::symlink_metadata(&ours), fs::symlink_metadata(&theirs));
            let Some(meta) = meta.as_ref().ok().filter(|meta| row.is_of(meta)) else {
                let Some(before) = before else { panic!("{when}: {path} is done, and not of the source") };
                let old = fs::symlink_metadata(before.tree.join(path));
                assert!(old.is_ok(), "{when}: {path} is done, and of neither source");
                let stays = meta.is_ok_and(|meta| old.is_ok_and(|old| meta.file_type() == old.file_type()));
                assert!(!stays || there.is_ok(), "{when}: {path} was done, and is at the destination no more");
                continue;
            };
            let Ok(there) = there else { panic!("{when}: {path} is done, and not at the destination") };
            assert_eq!(meta.file_type(), there.file_type(), "{when}: {path} is done, and is something else");
            if meta.is_file() {
                let equal = fs::read(&ours).expect("readable") == fs::read(&theirs).expect("readable");
                assert!(equal, "{when}: {path} is done, and differs");
            }
            if !meta.is_dir() {
                let seen = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
                assert_eq!(seen(meta), seen(&there), "{when}: {path} is done, and its metadata differs");
            }
        }
        rows.len()
    }

    /// Every final name is the source's entry, or that of the source before it, or absent; absent only
    /// where one of the two has none of that kind (P1). Where only metadata changed between the two,
    /// it is set in place, one call after another.
    pub fn assert_old_or_new(&self, before: &Before, when: &str) {
        let look = |from: &Path| compare(from, &self.destination, &Overlook::default()).expect("both can be read");
        let (new, old) = (Findings::of(look(&self.source)), Findings::of(look(&before.tree)));
        let directory =
            |path: &[u8]| [&self.source, &before.tree].iter().any(|root| root.join(OsStr::from_bytes(path)).is_dir());
        let neither = |path: &[u8]| {
            let differs = new.differs(path) && old.differs(path);
            let in_place = !before.changed.content(path) && !new.content(path) && !old.content(path);
            differs && !in_place && !path.starts_with(b".copyd-")
        };
        let torn = |path: &[u8]| neither(path) && (!directory(path) || new.content(path) && old.content(path));
        let lost = |path: &[u8]| new.missing(path) && old.missing(path) && !before.changed.exchanged(path);
        let mut found: Vec<_> =
            new.all().chain(old.all()).filter(|d| torn(&d.path) || lost(&d.path)).cloned().collect();
        found.truncate(40);
        assert!(found.is_empty(), "{when}: names that are neither old nor new:\n{}", listed(&found, 40));
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

/// A source as it was when an earlier run of the job copied it.
#[derive(Debug)]
pub struct Before {
    pub tree: PathBuf,
    /// What is different since.
    changed: Findings,
}

impl Before {
    /// Of a copy of the source as it was, and the source as it is.
    pub fn new(tree: PathBuf, source: &Path) -> Self {
        let changed = Findings::of(compare(&tree, source, &Overlook::default()).expect("both can be read"));
        Self { tree, changed }
    }
}

/// The findings of one comparison, by path.
#[derive(Debug)]
struct Findings(BTreeMap<Vec<u8>, Vec<Difference>>);

impl Findings {
    fn of(found: Vec<Difference>) -> Self {
        let mut by_path: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for difference in found {
            by_path.entry(difference.path.clone()).or_default().push(difference);
        }
        Self(by_path)
    }

    fn all(&self) -> impl Iterator<Item = &Difference> {
        self.0.values().flatten()
    }

    fn at(&self, path: &[u8], classes: &[Class]) -> bool {
        self.0.get(path).is_some_and(|found| found.iter().any(|d| classes.contains(&d.class)))
    }

    /// What lies below an entry that is only there, or is of another type, is not looked at: it differs.
    fn below(&self, path: &[u8], classes: &[Class]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        ends.map(|(end, _)| &path[..end]).any(|above| self.at(above, classes))
    }

    /// There is something, and not what should be. Two names of one inode that are two whole files for
    /// a time count for nothing, as in [`Field::assert_nothing_torn`].
    fn differs(&self, path: &[u8]) -> bool {
        let here = self.0.get(path).is_some_and(|found| {
            found.iter().any(|d| !matches!(d.class, Class::Missing | Class::LinkBroken | Class::LinkInvented))
        });
        here || self.below(path, &[Class::Extra, Class::Type])
    }

    /// It differs in more than its metadata.
    fn content(&self, path: &[u8]) -> bool {
        const CONTENT: [Class; 6] =
            [Class::Extra, Class::Type, Class::Content, Class::Size, Class::Target, Class::Device];
        self.at(path, &CONTENT) || self.at(path, &[Class::Missing]) || self.below(path, &[Class::Extra, Class::Type])
    }

    fn missing(&self, path: &[u8]) -> bool {
        self.at(path, &[Class::Missing])
    }

    /// Another type stands there, or nothing, at itself or above it.
    fn exchanged(&self, path: &[u8]) -> bool {
        const OTHER: [Class; 3] = [Class::Type, Class::Missing, Class::Extra];
        self.at(path, &OTHER) || self.below(path, &OTHER)
    }
}

/// What the journal says of an entry that it calls done.
pub struct Done {
    pub path: String,
    inode: i64,
    size: i64,
    mtime_ns: i64,
    mode: u32,
}

impl Done {
    /// Whether it was the source's entry as it is now that was done.
    fn is_of(&self, meta: &fs::Metadata) -> bool {
        let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        let same = self.inode == meta.ino().cast_signed() && self.mtime_ns == mtime_ns && self.mode == meta.mode();
        same && (!meta.is_file() || self.size == meta.size().cast_signed())
    }
}

/// The entries that the catalogs of a state directory call done; none where no job has come so far. A
/// copy is read, because opening a database may already repair it.
pub fn journal_says_done(state: &Path) -> Vec<Done> {
    const DONE: &str = "WITH RECURSIVE directory(id, prefix) AS (SELECT 1, '' UNION ALL \
         SELECT child, prefix || CAST(name AS TEXT) || '/' FROM directory JOIN entry ON dir = id \
         WHERE child IS NOT NULL) \
         SELECT prefix || CAST(name AS TEXT), src_ino, size, src_mtime, mode FROM directory JOIN entry ON dir = id \
         WHERE dst_ino IS NOT NULL";
    let jobs = fs::read_dir(state.join("jobs")).into_iter().flatten().flatten();
    // A job that was made and lost before it did anything leaves its directory.
    let catalogs = jobs.map(|job| job.path().join("catalog.sqlite")).filter(|path| path.exists());
    let mut found = Vec::new();
    for catalog in catalogs {
        let place = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
        let copy = place.path().join("catalog.sqlite");
        fs::copy(&catalog, &copy).expect("the catalog can be read");
        let beside = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
        if beside(&catalog).exists() {
            fs::copy(beside(&catalog), beside(&copy)).expect("its log can be read");
        }
        let connection = rusqlite::Connection::open(&copy).expect("the catalog is a database");
        let mut rows = connection.prepare(DONE).expect("the tables are there");
        let done = rows.query_map([], |row| {
            // Names are text here.
            Ok(Done {
                path: row.get(0)?,
                inode: row.get(1)?,
                size: row.get(2)?,
                mtime_ns: row.get(3)?,
                mode: row.get(4)?,
            })
        });
        found.extend(done.expect("the tables can be read").map(|row| row.expect("columns of their types")));
    }
    found
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
