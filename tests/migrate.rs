//! Whole migrations, judged by the oracle: every kind of entry, on and between file systems, with
//! both backends; a second run; a run after changes; and what `verify` and `b3sum` say of it.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::canary::{Canary, Snapshot};
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, LoopFs, Volume, volume};
use support::oracle::{Class, Overlook, assert_same, compare, listed};
use support::trees::{self, Kinds};
use support::{escaped, second_opinion, tool};

/// Room for the tree of every kind, twice, on each file system.
const SIZE_MIB: u64 = 768;

/// Panics unless the run says that everything is proved, nothing is lost and nothing is left over.
fn assert_proved(run: &Run, destination: &Path) {
    let summary = run.summary();
    assert_eq!(summary.text("outcome"), "completed", "{run}");
    assert_eq!(summary.count("exit_code"), 0, "{run}");
    assert_eq!(summary.text("verify"), "readback", "{run}");
    for field in ["failed", "hot", "assumed", "deleted"] {
        assert_eq!(summary.count(field), 0, "{field}: {run}");
    }
    for field in ["lost", "degraded"] {
        assert_eq!(summary.classes(field), 0, "{field}: {run}");
    }
    assert_eq!(summary.count("proved"), summary.count("entries"), "every entry is proved: {run}");
    assert_no_temporaries(destination);
}

fn assert_no_temporaries(destination: &Path) {
    for entry in fs::read_dir(destination).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(!name.as_encoded_bytes().starts_with(b".copyd-"), "{} is left over", name.display());
    }
}

/// Migrates one of every kind of entry that both keep, twice.
fn every_kind(from: FsType, to: FsType, backend: &str) {
    let source_volume = volume(from, SIZE_MIB);
    let other_volume = (from != to).then(|| volume(to, SIZE_MIB));
    let destination_volume: &dyn Volume = other_volume.as_deref().unwrap_or(&*source_volume);
    let source = source_volume.directory("source");
    let destination = destination_volume.path().join("destination");
    trees::every_kind(&source, &Kinds::between(&*source_volume, destination_volume));
    let canary = Canary::plant(&destination_volume.directory("beside"));

    let command = Copyd::migrate(&source, &destination).args(&["--backend", backend]);
    let first = command.run().expect(0);
    assert_proved(&first, &destination);
    assert_eq!(first.summary().text("backend"), backend, "{first}");
    assert_same(&source, &destination);
    second_opinion(&source, &destination);

    let before = Snapshot::take(&destination).unwrap();
    let second = command.run().expect(0);
    let summary = second.summary();
    for field in ["files_copied", "bytes_copied", "failed", "deleted"] {
        assert_eq!(summary.count(field), 0, "{field} of the second run: {second}");
    }
    before.assert_unchanged(&destination, "a second run has nothing to do");
    assert_same(&source, &destination);
    canary.assert_untouched();
}

macro_rules! every_kind {
    ($($name:ident: $from:ident to $to:ident by $backend:literal;)*) => {
        $(#[test]
        fn $name() {
            every_kind(FsType::$from, FsType::$to, $backend);
        })*
    };
}

every_kind! {
    p2_t18_every_kind_of_entry_arrives_on_tmpfs_by_the_ring: Tmpfs to Tmpfs by "uring";
    p2_t18_every_kind_of_entry_arrives_on_tmpfs_by_threads: Tmpfs to Tmpfs by "threads";
    p2_t18_every_kind_of_entry_arrives_on_ext4_by_the_ring: Ext4 to Ext4 by "uring";
    p2_t18_every_kind_of_entry_arrives_on_ext4_by_threads: Ext4 to Ext4 by "threads";
    p2_t18_every_kind_of_entry_arrives_on_xfs_by_the_ring: Xfs to Xfs by "uring";
    p2_t18_every_kind_of_entry_arrives_on_xfs_by_threads: Xfs to Xfs by "threads";
    p2_t18_every_kind_of_entry_arrives_on_btrfs_by_the_ring: Btrfs to Btrfs by "uring";
    p2_t18_every_kind_of_entry_arrives_on_btrfs_by_threads: Btrfs to Btrfs by "threads";
    p2_t18_every_kind_of_entry_arrives_from_tmpfs_on_ext4_by_the_ring: Tmpfs to Ext4 by "uring";
    p2_t18_every_kind_of_entry_arrives_from_tmpfs_on_ext4_by_threads: Tmpfs to Ext4 by "threads";
    p2_t18_every_kind_of_entry_arrives_from_ext4_on_xfs_by_the_ring: Ext4 to Xfs by "uring";
    p2_t18_every_kind_of_entry_arrives_from_ext4_on_xfs_by_threads: Ext4 to Xfs by "threads";
    p2_t18_every_kind_of_entry_arrives_from_xfs_on_btrfs_by_the_ring: Xfs to Btrfs by "uring";
    p2_t18_every_kind_of_entry_arrives_from_xfs_on_btrfs_by_threads: Xfs to Btrfs by "threads";
    p2_t18_every_kind_of_entry_arrives_from_btrfs_on_tmpfs_by_the_ring: Btrfs to Tmpfs by "uring";
    p2_t18_every_kind_of_entry_arrives_from_btrfs_on_tmpfs_by_threads: Btrfs to Tmpfs by "threads";
}

/// A memory file system with a source of small files, and where its copy goes.
struct Small {
    /// Looks for the last time before its volume goes: fields are dropped in their order.
    _canary: Canary,
    volume: Box<dyn Volume>,
    source: PathBuf,
    destination: PathBuf,
}

impl Small {
    fn new(files: usize) -> Self {
        let volume = volume(FsType::Tmpfs, 512);
        let source = volume.directory("source");
        trees::small_files(&source, files, 11).unwrap();
        let canary = Canary::plant(volume.path());
        Self { _canary: canary, source, destination: volume.path().join("destination"), volume }
    }

    fn migrate(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination)
    }
}

#[test]
fn the_tree_arrives_with_every_level_of_verification() {
    for level in ["none", "inline", "readback", "full"] {
        let small = Small::new(600);
        let run = small.migrate().args(&["--verify", level]).run().expect(0);
        assert_same(&small.source, &small.destination);
        let summary = run.summary();
        assert_eq!(summary.text("verify"), level);
        let proves = level == "readback" || level == "full";
        assert_eq!(summary.count("assumed") == 0, proves, "{level}: {run}");
        assert_eq!(summary.count("files_copied"), 600, "{level}: {run}");
    }
}

#[test]
fn a_run_after_changes_follows_them_and_no_more() {
    let small = Small::new(1000);
    let command = small.migrate();
    command.run().expect(0);

    let at = |name: &str| small.source.join(name);
    fs::write(at("d00000/f0000001"), b"rewritten").unwrap();
    fs::remove_file(at("d00000/f0000002")).unwrap();
    fs::rename(at("d00000/f0000003"), at("d00001/moved")).unwrap();
    fs::write(at("new"), b"new").unwrap();
    fs::remove_file(at("d00000/f0000004")).unwrap();
    fs::create_dir(at("d00000/f0000004")).unwrap();
    fs::remove_file(at("d00000/f0000005")).unwrap();
    symlink("elsewhere", at("d00000/f0000005")).unwrap();
    fs::set_permissions(at("d00000/f0000006"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::hard_link(at("d00000/f0000007"), at("second-name")).unwrap();
    let untouched = fs::metadata(small.destination.join("d00001/f0000700")).unwrap();

    let run = command.run().expect(0);
    assert_same(&small.source, &small.destination);
    second_opinion(&small.source, &small.destination);
    let copied = run.summary().count("files_copied");
    assert!((2..=4).contains(&copied), "two or three files changed, {copied} were copied: {run}");
    let still = fs::metadata(small.destination.join("d00001/f0000700")).unwrap();
    let seen = |meta: &fs::Metadata| (meta.ino(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(seen(&untouched), seen(&still), "what did not change is not touched");
    assert_no_temporaries(&small.destination);
}

#[test]
fn damage_at_the_destination_is_repaired_where_size_or_time_tell_it() {
    let small = Small::new(300);
    let command = small.migrate();
    command.run().expect(0);
    let at = |name: &str| small.destination.join(name);
    fs::write(at("d00000/f0000001"), b"someone else wrote here").unwrap();
    fs::remove_file(at("d00000/f0000002")).unwrap();
    std::os::unix::fs::chown(at("d00000/f0000003"), Some(7), Some(7)).unwrap();
    trees::set_xattr(&at("d00000/f0000004"), "user.foreign", b"x").unwrap();
    fs::hard_link(at("d00000/f0000005"), at("d00000/linked")).unwrap();
    fs::remove_file(at("d00000/f0000006")).unwrap();
    fs::rename(at("d00000/linked"), at("d00000/f0000006")).unwrap();
    command.run().expect(0);
    assert_same(&small.source, &small.destination);
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_happen() {
    let small = Small::new(50);
    fs::create_dir(&small.destination).unwrap();
    let run = Copyd::migrate_plainly(&small.source, &small.destination).args(&["-n", "-i"]).run().expect(0);
    assert_eq!(fs::read_dir(&small.destination).unwrap().count(), 0, "{run}");
    let files = |run: &Run| run.out_text().lines().filter(|l| l.starts_with(">f+++++++++")).count();
    assert_eq!(files(&run), 50, "{run}");

    // The same where the destination does not even exist, beside the source.
    fs::remove_dir(&small.destination).unwrap();
    let run = Copyd::migrate_plainly(&small.source, &small.destination).args(&["-n", "-i"]).run().expect(0);
    assert_eq!((files(&run), small.destination.exists()), (50, false), "{run}");

    Copyd::migrate_plainly(&small.source, &small.destination).run().expect(0);
    let before = Snapshot::take(&small.destination).unwrap();
    fs::remove_file(small.source.join("d00000/f0000003")).unwrap();
    let run = Copyd::migrate_plainly(&small.source, &small.destination).args(&["-n", "-i", "--delete"]).run().expect(0);
    assert!(run.out_text().contains("*deleting"), "{run}");
    before.assert_unchanged(&small.destination, "a dry run writes nothing");
}

#[test]
fn foreign_entries_go_with_delete_and_stay_with_keep_extra() {
    for (flag, stays) in [("--delete", false), ("--keep-extra", true)] {
        let small = Small::new(20);
        fs::create_dir_all(small.destination.join("foreign/below")).unwrap();
        fs::write(small.destination.join("foreign/below/file"), b"theirs").unwrap();
        let run = small.migrate().arg(flag).run().expect(0);
        assert_eq!(small.destination.join("foreign/below/file").exists(), stays, "{flag}: {run}");
        let found = compare(&small.source, &small.destination, &Overlook::default()).unwrap();
        let others: Vec<_> = found.into_iter().filter(|d| !(stays && d.class == Class::Extra)).collect();
        assert!(others.is_empty(), "{flag}:\n{}", listed(&others, 40));
        assert_eq!(run.summary().count("deleted"), if stays { 0 } else { 3 }, "{flag}: {run}");
    }
}

#[test]
fn sync_makes_a_replica_in_one_pass() {
    let small = Small::new(400);
    let command = Copyd::new("sync").arg("--json").arg(&small.source).arg(&small.destination);
    let run = command.run().expect(0);
    assert_eq!(run.summary().count("passes"), 1, "{run}");
    assert_same(&small.source, &small.destination);
    fs::remove_file(small.source.join("d00000/f0000009")).unwrap();
    command.run().expect(0);
    assert_same(&small.source, &small.destination);
}

/// The same job after its file systems were taken down, and came back as other devices.
fn is_known_after_a_remount(kind: FsType) {
    let mut volumes = [LoopFs::new(kind, 320), LoopFs::new(kind, 320)];
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let roots = |volumes: &[LoopFs; 2]| (volumes[0].path().join("source"), volumes[1].path().join("destination"));
    trees::small_files(&volumes[0].directory("source"), 50, 11).unwrap();
    for resumed in [false, true] {
        let (source, destination) = roots(&volumes);
        let run = Copyd::migrate(&source, &destination).state_dir(state.path()).run().expect(0);
        assert_eq!(run.started()["resumed"], resumed, "{}: {run}", kind.word());
        assert_eq!(run.summary().count("files_copied"), if resumed { 0 } else { 50 }, "{}: {run}", kind.word());
        assert_same(&source, &destination);
        volumes.iter_mut().for_each(LoopFs::remount_elsewhere);
    }
    let (source, _) = roots(&volumes);
    let fresh = Copyd::migrate(&source, &volumes[1].directory("fresh")).state_dir(state.path()).run().expect(0);
    assert_eq!(fresh.started()["resumed"], false, "another directory is another job: {fresh}");
}

#[test]
fn a_job_is_known_after_a_remount_under_another_device_number_on_xfs() {
    is_known_after_a_remount(FsType::Xfs);
}

#[test]
fn a_job_is_known_after_a_remount_under_another_device_number_on_ext4_and_btrfs() {
    is_known_after_a_remount(FsType::Ext4);
    is_known_after_a_remount(FsType::Btrfs);
}

#[test]
fn two_subvolumes_of_one_btrfs_are_two_jobs() {
    let volume = volume(FsType::Btrfs, 320);
    let state = tempfile::tempdir_in("/tmp").unwrap();
    for (name, other) in [("a", "b"), ("b", "a")] {
        let source = volume.path().join(name);
        tool("btrfs-progs", "btrfs", &["subvolume".as_ref(), "create".as_ref(), source.as_os_str()]);
        fs::write(source.join(name), name).unwrap();
        let destination = volume.directory(&format!("of-{name}"));
        let run = Copyd::migrate(&source, &destination).state_dir(state.path()).run().expect(0);
        assert_eq!(run.started()["resumed"], false, "{run}");
        assert!(!destination.join(other).exists(), "{run}");
        // The same destination for another source is not the same job either.
        if name == "b" {
            let run = Copyd::migrate(&volume.path().join("a"), &destination).state_dir(state.path()).run().expect(43);
            assert_eq!(run.started()["resumed"], false, "{run}");
        }
    }
}

#[test]
fn verify_agrees_with_the_judge() {
    let small = Small::new(100);
    small.migrate().run().expect(0);
    let verify = || Copyd::new("verify").arg("--json").arg(&small.source).arg(&small.destination).run();
    let before = Snapshot::take(&small.destination).unwrap();
    verify().expect(0);
    before.assert_unchanged(&small.destination, "verify writes nothing");

    // One bit, with the modification time put back: size and time don't tell it.
    let path = small.destination.join("d00000/f0000050");
    let (meta, bytes) = (fs::metadata(&path).unwrap(), fs::read(&path).unwrap());
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[0] ^ 1], 0).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    let found = compare(&small.source, &small.destination, &Overlook::default()).unwrap();
    assert_eq!(found.iter().map(|d| d.class).collect::<Vec<_>>(), [Class::Content], "{}", listed(&found, 9));
    let run = verify().expect(40);
    assert!(run.out_text().contains("f0000050"), "{run}");
}

#[test]
fn two_copies_have_one_digest_and_another_share_has_another() {
    let small = Small::new(200);
    let first = small.migrate().run().expect(0).summary();
    let again = Copyd::migrate(&small.source, &small.volume.path().join("second")).run().expect(0).summary();
    for field in ["share_digest", "metadata_digest"] {
        assert_eq!(first.text(field), again.text(field));
        let hex = |digest: &str| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(hex(first.text(field)), "{field} is {}", first.text(field));
    }
    fs::write(small.source.join("one-more"), b"x").unwrap();
    let third = Copyd::migrate(&small.source, &small.volume.path().join("third")).run().expect(0).summary();
    assert_ne!(first.text("share_digest"), third.text("share_digest"));
}

#[test]
fn b3sum_checks_the_manifest() {
    let small = Small::new(300);
    fs::write(small.source.join("back\\slash and\nnewline"), b"escaped").unwrap();
    let manifest = small.volume.path().join("manifest");
    small.migrate().arg("--manifest").arg(&manifest).run().expect(0);
    let output = Command::new("b3sum").arg("--check").arg(&manifest).current_dir(&small.destination).output();
    let output = output.expect("b3sum is missing: cargo install --locked b3sum");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 301, "every file is in it");
    let escapes = fs::read(&manifest).unwrap();
    let line = escapes.split(|&b| b == b'\n').find(|l| l.starts_with(b"\\")).map(escaped);
    assert!(line.is_some_and(|l| l.contains("newline")), "the name is escaped as b3sum does");

    Copyd::new("verify").arg("--manifest").arg(&manifest).arg(&small.destination).run().expect(0);
    fs::write(small.destination.join("d00000/f0000001"), b"other").unwrap();
    Copyd::new("verify").arg("--manifest").arg(&manifest).arg(&small.destination).run().expect(40);
}
