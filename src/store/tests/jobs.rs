//! The same command finds its job again, a different one does not, and no two run one job.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::error::Error;

fn identity(path: &str, fs_id: u8, dev: u64, ino: u64) -> RootIdentity {
    RootIdentity { path: path.into(), dev, ino, fs_id: (fs_id != 0).then_some([fs_id; 16]), marker: None }
}

struct Roots {
    source: RootIdentity,
    destination: RootIdentity,
}

fn roots() -> Roots {
    Roots { source: identity("/mnt/source", 7, 0x801, 2), destination: identity("/mnt/destination", 0, 0x811, 64) }
}

fn store(directory: &Path) -> Result<Store, Error> {
    Store::open(&StateDir::open(directory)?)
}

fn find(store: &Store, kind: &str, roots: &Roots, options: &[(&'static str, String)]) -> Result<Opened, Error> {
    store.find_or_create(kind, &roots.source, &roots.destination, options)
}

#[test]
fn the_same_command_finds_its_job_and_what_it_had_noted() {
    let scratch = tempfile::tempdir().expect("scratch");
    let options = [("exclude", "*.tmp".to_owned())];
    let store = store(&scratch.path().join("a/b")).expect("store");
    let mut first = find(&store, "migrate", &roots(), &options).expect("first");
    assert!(!first.resumed && !first.job.guard_passed());
    assert_eq!((first.job.state(), first.job.last_summary()), (JobState::Running, None));
    assert_eq!(first.job.id().get_version_num(), 7);
    first.job.pass_guard().expect("guard");
    first.job.start().expect("start");
    let mut catalog = first.job.catalog().expect("catalog");
    write_rows(&mut catalog, vec![root()]);
    drop(catalog);
    first.job.finish(JobState::Complete, r#"{"copied":1}"#).expect("finish");
    let id = first.job.id();
    drop(first);

    let again = find(&store, "migrate", &roots(), &options).expect("again");
    assert!(again.resumed && again.job.guard_passed());
    assert_eq!((again.job.id(), again.job.state()), (id, JobState::Complete));
    assert_eq!(again.job.last_summary(), Some(r#"{"copied":1}"#));
    assert_eq!(walk(&again.job.catalog().expect("catalog").reader().expect("reader")).expect("walk").len(), 1);
    for path in ["a/b", "a/b/jobs"] {
        let mode = std::fs::metadata(scratch.path().join(path)).expect("stat").mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
}

#[test]
fn kind_and_either_root_make_another_job_and_a_new_path_or_device_number_does_not() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let id = |kind: &str, change: &dyn Fn(&mut Roots)| {
        let mut roots = roots();
        change(&mut roots);
        find(&store, kind, &roots, &[]).expect("job").job.id()
    };
    let first = id("migrate", &|_| {});
    assert_ne!(first, id("sync", &|_| {}));
    assert_ne!(first, id("migrate", &|roots| roots.source.ino += 1));
    assert_ne!(first, id("migrate", &|roots| roots.source.fs_id = Some([8; 16])));
    assert_ne!(first, id("migrate", &|roots| roots.destination.ino += 1));
    assert_ne!(first, id("migrate", &|roots| roots.destination.dev += 1), "all that is known of it is its device");
    assert_ne!(first, id("migrate", &|roots| std::mem::swap(&mut roots.source, &mut roots.destination)));
    assert_eq!(first, id("migrate", &|roots| roots.source.dev += 1));
    assert_eq!(first, id("migrate", &|roots| roots.source.path = "/mnt/elsewhere".into()));
}

#[test]
fn a_marker_names_a_root_that_has_no_other_identity_and_never_weakens_one_that_has() {
    let marked =
        |fs_id, dev, ino, marker| RootIdentity { marker: Some([marker; 32]), ..identity("/s", fs_id, dev, ino) };
    assert_eq!(marked(0, 0x20, 1, 5).key(), marked(0, 0x31, 7, 5).key(), "mounted again");
    assert_ne!(marked(0, 0x20, 1, 5).key(), marked(0, 0x20, 1, 6).key(), "another share");
    assert_ne!(marked(0, 0x20, 1, 5).key(), identity("/s", 0, 0x20, 1).key());
    assert_eq!(marked(7, 0x20, 2, 5).key(), marked(7, 0x31, 2, 5).key());
    assert_ne!(marked(7, 0x20, 2, 5).key(), marked(8, 0x20, 2, 5).key(), "a copy of the marker on another share");
    assert_ne!(marked(7, 0x20, 2, 5).key(), marked(7, 0x20, 3, 5).key(), "a copy of the marker in the same share");
    assert_ne!(marked(7, 0x20, 2, 5).key(), marked(0, 0x20, 2, 5).key());
}

#[test]
fn a_destination_on_another_file_system_is_noticed_and_one_that_was_made_again_is_not() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let Roots { source, .. } = roots();
    let at = |path: &str, fs_id, ino| identity(path, fs_id, 0x900, ino);
    let noticed = |destination: &RootIdentity| store.destination_exchanged(&source, destination).expect("store");
    assert_eq!(noticed(&at("/d", 3, 2)), None, "no job yet");
    let roots = Roots { source: source.clone(), destination: at("/d", 3, 2) };
    let job = find(&store, "sync", &roots, &[]).expect("job").job.id();
    assert_eq!(noticed(&at("/d", 3, 2)), None);
    assert_eq!(noticed(&at("/d", 3, 99)), None, "removed and made again");
    assert_eq!(noticed(&at("/d", 4, 2)), Some(job));
    assert_eq!(noticed(&at("/d", 0, 2)), Some(job), "a file system without an identity");
    assert_eq!(noticed(&at("/elsewhere", 4, 2)), None);
    let other = store.destination_exchanged(&identity("/mnt/source", 8, 1, 1), &at("/d", 4, 2)).expect("store");
    assert_eq!(other, None, "another source's job");
    let roots = Roots { source: source.clone(), destination: at("/d", 4, 2) };
    drop(find(&store, "sync", &roots, &[]).expect("replaced on purpose"));
    assert_eq!(noticed(&at("/d", 4, 2)), None);
    assert_eq!(noticed(&at("/d", 3, 2)), None, "the old one comes back");
}

#[test]
fn options_that_differ_are_refused_each_with_its_old_and_new_value() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let old = [("exclude", "*.tmp".to_owned()), ("chown", "a:b".to_owned()), ("same", "x".to_owned())];
    drop(find(&store, "sync", &roots(), &old).expect("first"));
    let new = [("exclude", "*.bak".to_owned()), ("provision", "thick".to_owned()), ("same", "x".to_owned())];
    let error = find(&store, "sync", &roots(), &new).map(|_| ()).expect_err("other options");
    let expected = "an earlier run of this job had other options: chown: `a:b` → (not set); \
                    exclude: `*.tmp` → `*.bak`; provision: (not set) → `thick`";
    assert!(matches!(error, Error::Guard { .. }));
    assert_eq!(error.to_string(), expected);
    assert!(find(&store, "sync", &roots(), &old).expect("the old options").resumed);
}

#[test]
fn a_job_that_another_process_runs_is_refused_with_that_process() {
    const CHILD: &str = "COPYD_TEST_LOCK_HOLDER";
    if let Some(directory) = handed_over(CHILD) {
        let held = find(&store(&directory).expect("store"), "sync", &roots(), &[]).expect("job");
        println!("\nheld");
        std::thread::sleep(std::time::Duration::from_mins(1));
        return drop(held);
    }
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let name = "store::tests::jobs::a_job_that_another_process_runs_is_refused_with_that_process";
    let mut child = child_of(name, CHILD, scratch.path());
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("stdout")));
    assert!(lines.map_while(Result::ok).any(|line| line == "held"));
    let refused = find(&store, "sync", &roots(), &[]).map(|_| ());
    let other = find(&store, "migrate", &roots(), &[]).map(|opened| opened.resumed);
    child.kill().expect("kill");
    child.wait().expect("wait");
    let error = refused.expect_err("held");
    assert!(matches!(error, Error::Guard { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("in use by process {}", child.id())), "{error}");
    assert!(!other.expect("another job is free"));
    assert!(find(&store, "sync", &roots(), &[]).expect("a dead holder holds nothing").resumed);
}

#[test]
fn the_lock_lives_as_long_as_the_catalog_or_its_users() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let opened = find(&store, "sync", &roots(), &[]).expect("job");
    let mut catalog = opened.job.catalog().expect("catalog");
    drop(opened);
    let writer = catalog.writer().expect("writer");
    drop(catalog);
    assert!(matches!(find(&store, "sync", &roots(), &[]), Err(Error::Guard { .. })));
    writer.finish().expect("finish");
    find(&store, "sync", &roots(), &[]).expect("free");
}

#[test]
fn lost_or_damaged_state_is_refused_and_never_made_anew() {
    let scratch = tempfile::tempdir().expect("scratch");
    let open = || store(scratch.path()).and_then(|store| find(&store, "sync", &roots(), &[]));
    let opened = open().expect("job");
    let directory = opened.job.directory().to_owned();
    let file = directory.join(FILE);
    drop(opened);
    let refused = |what: &str, words: &str| {
        let error = open().and_then(|opened| opened.job.catalog()).map(|_| ()).expect_err(what);
        assert!(matches!(error, Error::State { .. }) && error.to_string().contains(words), "{what}: {error}");
    };
    std::fs::rename(&file, scratch.path().join("saved")).expect("rename");
    refused("no catalog", "catalog.sqlite: is missing");
    std::fs::rename(scratch.path().join("saved"), &file).expect("rename");

    std::fs::rename(&directory, scratch.path().join("saved")).expect("rename");
    refused("no job directory", "is missing");
    std::fs::rename(scratch.path().join("saved"), &directory).expect("rename");

    let jobs = scratch.path().join("jobs.sqlite");
    let whole = std::fs::read(&jobs).expect("read");
    std::fs::rename(&jobs, scratch.path().join("saved")).expect("rename");
    refused("no list", "is missing, but there are jobs");
    std::fs::write(&jobs, b"").expect("write");
    refused("empty list", "jobs.sqlite: is empty");
    std::fs::write(&jobs, &whole[..whole.len() / 2]).expect("write");
    refused("half a list", "is damaged");
    std::fs::copy(&file, &jobs).expect("copy");
    refused("a catalog in its place", "another application");
    std::fs::write(&jobs, &whole).expect("write");
    assert!(open().expect("whole again").resumed);
}

#[test]
fn a_catalog_that_changed_since_it_was_closed_is_checked_whole() {
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let mut opened = find(&store, "sync", &roots(), &[]).expect("job");
    let mut catalog = opened.job.catalog().expect("catalog");
    let mut rows = vec![root()];
    rows.extend((0..500).map(|n| file(1, format!("file-{n:04}").as_bytes(), n)));
    write_rows(&mut catalog, rows);
    drop(catalog);
    opened.job.finish(JobState::Complete, "{}").expect("finish");
    opened.job.catalog().expect("as it was closed");
    // A leaf that claims one row less: nothing but the whole check notices the row that is lost.
    let path = opened.job.directory().join(FILE);
    let mut bytes = std::fs::read(&path).expect("read");
    let leaf =
        (1..bytes.len() / 8192).rev().map(|page| page * 8192).find(|page| bytes[*page] == 0x0a && bytes[page + 4] > 9);
    let leaf = leaf.expect("a leaf of an index");
    bytes[leaf + 4] -= 1;
    std::fs::write(&path, &bytes).expect("write");
    let error = opened.job.catalog().map(|_| ()).expect_err("a lost row");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_state_directory_that_others_can_write_is_refused() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("state");
    StateDir::open(&path).expect("a new one");
    let refused = |words: &str| {
        let error = StateDir::open(&path).map(|_| ()).expect_err(words);
        assert!(matches!(error, Error::State { .. }) && error.to_string().contains(words), "{error}");
    };
    for mode in [0o720, 0o702, 0o777] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        refused("can be written by others");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    StateDir::open(&path).expect("readable by others is no harm");
    std::os::unix::fs::chown(&path, Some(12345), None).expect("chown");
    refused("belongs to another user");
    std::fs::remove_dir(&path).expect("rmdir");
    std::fs::write(&path, b"").expect("write");
    refused("can't be created");
}

#[test]
fn a_root_on_a_file_system_with_a_uuid_keeps_its_identity_under_another_device_number() {
    let (disk, other) = (Disk::new(), Disk::new());
    let of = |disk: &Disk| {
        let root = std::fs::File::open(&disk.mount).expect("open");
        RootIdentity::of(root, &disk.mount).expect("identity")
    };
    let (first, unlike) = (of(&disk), of(&other));
    // The other disk takes the loop device that this one had.
    disk.unmount();
    other.power_on();
    disk.power_on();
    let again = of(&disk);
    assert_ne!(first.dev, again.dev, "the remount did not change the device number");
    assert_eq!((first.fs_id, first.ino), (again.fs_id, again.ino));
    assert_ne!(first.fs_id, unlike.fs_id);
    let scratch = tempfile::tempdir().expect("scratch");
    let store = store(scratch.path()).expect("store");
    let id =
        |source: &RootIdentity| store.find_or_create("sync", source, &roots().destination, &[]).expect("job").job.id();
    assert_eq!(id(&first), id(&again));
    assert_ne!(id(&first), id(&unlike));
}
