//! What copyd refuses, and how: the exit code of the contract, a sentence that names the path and
//! the remedy, and not a byte moved at the destination.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use support::canary::{Canary, Snapshot};
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Tmpfs, Volume, volume};
use support::oracle::assert_same;
use support::tool;

/// A user with no rights anywhere.
const NOBODY: u32 = 65_534;

struct Stage {
    /// Looks for the last time before its volume goes: fields are dropped in their order.
    _canary: Canary,
    volume: Box<dyn Volume>,
    source: PathBuf,
    destination: PathBuf,
}

impl Stage {
    /// A source of ten files in two directories, and an empty destination.
    fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 256);
        let (source, destination) = (volume.directory("source"), volume.directory("destination"));
        fill(&source);
        let canary = Canary::plant(volume.path());
        Self { _canary: canary, volume, source, destination }
    }

    fn migrate(&self) -> Copyd {
        Copyd::migrate_plainly(&self.source, &self.destination)
    }
}

fn fill(source: &Path) {
    for directory in ["one", "two"] {
        fs::create_dir(source.join(directory)).unwrap();
        for i in 0..5 {
            fs::write(source.join(directory).join(format!("file-{i}")), format!("{directory} {i}\n")).unwrap();
        }
    }
}

/// Asserts the code and words of a refusal, and that nothing below `untouched` moved.
fn refused(command: &Copyd, code: i32, words: &[&str], untouched: &Path) -> Run {
    let before = untouched.is_dir().then(|| Snapshot::take(untouched).unwrap());
    let run = command.run().expect(code);
    assert_said(&run, words);
    match before {
        Some(before) => before.assert_unchanged(untouched, "a refused run moves nothing"),
        None => assert!(!untouched.is_dir(), "{} was made: {run}", untouched.display()),
    }
    run
}

fn assert_said(run: &Run, words: &[&str]) {
    let said = run.words();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "it does not say {word:?}: {run}");
    }
    assert!(!said.contains("panicked"), "not a sentence for people: {run}");
}

#[test]
fn a_source_that_is_missing_is_refused() {
    let stage = Stage::new();
    let source = stage.volume.path().join("absent");
    let command = Copyd::migrate_plainly(&source, &stage.destination);
    refused(&command, 11, &["source", "absent"], &stage.destination);
}

#[test]
fn a_source_that_is_a_file_is_refused() {
    let stage = Stage::new();
    let command = Copyd::migrate_plainly(&stage.source.join("one/file-0"), &stage.destination);
    refused(&command, 11, &["source", "file-0", "directory"], &stage.destination);
}

#[test]
fn a_source_that_this_user_may_not_read_is_refused() {
    let stage = Stage::new();
    fs::set_permissions(&stage.source, Permissions::from_mode(0o700)).unwrap();
    chown(&stage.destination, Some(NOBODY), Some(NOBODY)).unwrap();
    refused(&stage.migrate().user(NOBODY), 11, &["source", "permission"], &stage.destination);
}

#[test]
fn p4_a_directory_that_this_user_may_not_read_fails_by_name_and_bars_all_deletion() {
    let stage = Stage::new();
    chown(&stage.destination, Some(NOBODY), Some(NOBODY)).unwrap();
    let command = stage.migrate().arg("--delete").user(NOBODY).args(&["--chown", "65534:65534"]);
    command.run().expect(0);
    fs::set_permissions(stage.source.join("two"), Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(stage.source.join("one/file-0")).unwrap();
    let run = command.run().expect(23);
    assert_said(&run, &["two", "permission"]);
    assert!(stage.destination.join("one/file-0").exists(), "nothing is deleted from doubt: {run}");
    assert!(stage.destination.join("two/file-4").exists(), "nothing is deleted from doubt: {run}");
}

#[test]
fn a_destination_whose_parent_is_missing_is_refused() {
    let stage = Stage::new();
    let destination = stage.volume.path().join("absent/destination");
    let command = Copyd::migrate_plainly(&stage.source, &destination);
    refused(&command, 11, &["destination", "absent"], &destination);
}

#[test]
fn a_destination_that_is_a_file_is_refused() {
    let stage = Stage::new();
    let destination = stage.volume.path().join("file");
    fs::write(&destination, b"theirs").unwrap();
    let command = Copyd::migrate_plainly(&stage.source, &destination);
    refused(&command, 11, &["destination", "directory"], &destination);
    assert_eq!(fs::read(&destination).unwrap(), b"theirs");
}

#[test]
fn a_destination_that_is_read_only_is_refused() {
    let stage = Stage::new();
    let other = Tmpfs::new(16);
    let destination = other.directory("destination");
    let point = other.path().to_string_lossy();
    tool("mount", "mount", &["-o", "remount,ro", point.as_ref()]);
    let command = Copyd::migrate_plainly(&stage.source, &destination);
    refused(&command, 11, &["destination", "read-only"], &destination);
}

#[test]
fn p1_a_full_destination_holds_only_whole_files_and_resumes_when_there_is_room() {
    let stage = Stage::new();
    for i in 0..24 {
        fs::write(stage.source.join(format!("large-{i}")), vec![i; 1 << 20]).unwrap();
    }
    let other = Tmpfs::new(12);
    let destination = other.path().join("destination");
    let command = Copyd::migrate_plainly(&stage.source, &destination);
    let run = command.run();
    assert!([Some(11), Some(23)].contains(&run.status.code()), "{run}");
    assert_said(&run, &["room"]);
    let entries: Vec<_> = fs::read_dir(&destination).into_iter().flatten().map(Result::unwrap).collect();
    for entry in entries.iter().filter(|e| e.path().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        assert_eq!(bytes, fs::read(stage.source.join(entry.file_name())).unwrap(), "{}", entry.path().display());
    }
    let point = other.path().to_string_lossy();
    tool("mount", "mount", &["-o", "remount,size=64m", point.as_ref()]);
    command.run().expect(0);
    assert_same(&stage.source, &destination);
}

#[test]
fn p6_roots_inside_each_other_are_refused() {
    let stage = Stage::new();
    let inside = stage.source.join("one/destination");
    let command = Copyd::migrate_plainly(&stage.source, &inside);
    refused(&command, 43, &["inside"], &inside);
    let command = Copyd::migrate_plainly(&stage.source.join("one"), &stage.source);
    refused(&command, 43, &["inside"], &stage.source);
}

#[test]
fn p6_the_same_directory_twice_is_refused_whatever_it_is_called() {
    let stage = Stage::new();
    let (link, bound) = (stage.volume.path().join("link"), stage.volume.directory("bound"));
    symlink(&stage.source, &link).unwrap();
    tool("mount", "mount", &["--bind".as_ref(), stage.source.as_os_str(), bound.as_os_str()]);
    let dotted = stage.volume.path().join("destination/../source");
    for other in [&stage.source, &link, &bound, &dotted] {
        let command = Copyd::migrate_plainly(&stage.source, other);
        refused(&command, 43, &["same"], &stage.source);
    }
    tool("mount", "umount", &[&bound]);
}

#[test]
fn p4_a_destination_with_foreign_entries_is_refused_and_the_ways_out_are_named() {
    let stage = Stage::new();
    fs::write(stage.destination.join("theirs"), b"theirs").unwrap();
    refused(&stage.migrate(), 43, &["--delete", "--keep-extra"], &stage.destination);
    let sync = Copyd::new("sync").arg(&stage.source).arg(&stage.destination);
    refused(&sync, 43, &["--delete", "--keep-extra"], &stage.destination);
}

#[test]
fn a_state_directory_inside_a_root_is_refused() {
    let stage = Stage::new();
    for root in [&stage.source, &stage.destination] {
        let inside = root.join("state");
        fs::create_dir(&inside).unwrap();
        refused(&stage.migrate().state_dir(&inside), 43, &["state"], root);
        refused(&stage.migrate().state_dir(&inside.join("deeper")), 43, &["state"], root);
        fs::remove_dir(&inside).unwrap();
    }
}

#[test]
fn an_unknown_flag_gets_a_hint_and_the_code_of_wrong_usage() {
    let stage = Stage::new();
    let hints = [("-a", "default"), ("--checksum", "verify"), ("--delet", "--delete"), ("--nonsense", "--nonsense")];
    for (flag, hint) in hints {
        refused(&stage.migrate().arg(flag), 1, &[flag, hint], &stage.destination);
    }
    let codes = [&["frobnicate"][..], &["migrate", "/only-one"], &["migrate", "/a", "/b", "--verify", "perhaps"], &[]];
    for arguments in codes {
        let (verb, rest) = arguments.split_first().unwrap_or((&"--no-such-thing", &[]));
        let run = Copyd::new(verb).args(rest).run().expect(1);
        assert!(!run.stderr.is_empty(), "{run}");
    }
}

#[test]
fn p4_more_deletions_than_the_limit_are_refused_before_the_first() {
    let stage = Stage::new();
    let command = |limit: &str| stage.migrate().args(&["--max-delete", limit]).state_dir(&stage.state());
    command("100").run().expect(0);
    for i in 0..5 {
        fs::remove_file(stage.source.join(format!("two/file-{i}"))).unwrap();
    }
    assert_said(&command("4").run().expect(25), &["5", "--max-delete"]);
    assert_eq!(fs::read_dir(stage.destination.join("two")).unwrap().count(), 5, "nothing was deleted");
    command("5").run().expect(0);
    assert_same(&stage.source, &stage.destination);
}

#[test]
fn p4_an_empty_source_deletes_nothing_unless_it_is_allowed() {
    for flags in [&["--delete"][..], &[]] {
        let stage = Stage::new();
        let command = || stage.migrate().args(flags).state_dir(&stage.state());
        command().run().expect(0);
        for directory in ["one", "two"] {
            fs::remove_dir_all(stage.source.join(directory)).unwrap();
        }
        refused(&command(), 43, &["empty", "--allow-empty-source"], &stage.destination);
        command().arg("--allow-empty-source").run().expect(0);
        assert_same(&stage.source, &stage.destination);
    }
}

#[test]
fn a_refusal_is_an_event_for_programs_too() {
    let stage = Stage::new();
    fs::write(stage.destination.join("theirs"), b"theirs").unwrap();
    let run = Copyd::migrate(&stage.source, &stage.destination).run().expect(43);
    let summary = run.summary();
    assert_eq!((summary.text("outcome"), summary.count("exit_code")), ("refused", 43), "{run}");
}

impl Stage {
    /// A state directory that several commands of a test share.
    fn state(&self) -> PathBuf {
        let path = self.volume.path().join("state");
        fs::create_dir_all(&path).unwrap();
        path
    }
}
