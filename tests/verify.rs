//! `copyd verify` against trees with known damage: every single damage is found and named, what is
//! equal is proved, and nothing is written.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;
use support::canary::{Canary, Snapshot};
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, LoopFs, Tmpfs, Volume, volume};
use support::trees::{self, Kinds, make_node, set_xattr};
use support::{Rng, tool};

const NOBODY: u32 = 65_534;

fn verify(source: &Path, destination: &Path) -> Copyd {
    Copyd::new("verify").args(&["--json", "-i"]).arg(source).arg(destination)
}

/// What a run said of entries that are not equal: sign, name, what differs.
fn findings(run: &Run) -> BTreeSet<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let events = run.events().into_iter().filter(|event| event["event"] == "compared" && event["sign"] != "=");
    events.map(|event| (text(&event["sign"]), text(&event["name"]), text(&event["what"]))).collect()
}

fn finding(sign: &str, name: &str, what: &str) -> (String, String, String) {
    (sign.into(), name.into(), what.into())
}

/// A copy made by another program.
fn copy(source: &Path, destination: &Path) {
    let _ = fs::remove_dir_all(destination);
    let from = source.join(".");
    fs::create_dir(destination).unwrap();
    tool("coreutils", "cp", &["-a".as_ref(), from.as_os_str(), destination.as_os_str()]);
}

/// Does something in a directory, whose modification time is as before then.
fn quietly(directory: &Path, act: impl FnOnce()) {
    let before = fs::metadata(directory).unwrap().modified().unwrap();
    act();
    File::open(directory).unwrap().set_modified(before).unwrap();
}

/// Flips one bit, and leaves the modification time as it was.
fn flip(path: &Path, offset: u64, bit: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
    file.set_modified(before).unwrap();
}

/// One of everything that a single damage is done to.
fn specimen(at: &Path) {
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/below"), b"below").unwrap();
    fs::write(at.join("file"), vec![7; 5000]).unwrap();
    fs::write(at.join("linked-a"), b"two names").unwrap();
    fs::hard_link(at.join("linked-a"), at.join("linked-b")).unwrap();
    fs::hard_link(at.join("linked-a"), at.join("linked-c")).unwrap();
    for twin in ["twin-a", "twin-b"] {
        fs::write(at.join(twin), b"twins").unwrap();
        File::open(at.join(twin)).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9)).unwrap();
    }
    symlink("target", at.join("symlink")).unwrap();
    make_node(&at.join("device"), FileType::CharacterDevice, 0o600, rustix::fs::makedev(1, 3)).unwrap();
    make_node(&at.join("fifo"), FileType::Fifo, 0o600, 0).unwrap();
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.write_all_at(&[1; 4096], 1 << 20).unwrap();
    set_xattr(&at.join("file"), "user.kept", b"value").unwrap();
    set_xattr(&at.join("dir"), "system.posix_acl_access", &trees::acl(1000)).unwrap();
}

/// A memory file system with a specimen, whose copy is damaged.
struct Bench {
    _canary: Canary,
    _volume: Box<dyn Volume>,
    source: PathBuf,
    destination: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 256);
        let source = volume.directory("source");
        specimen(&source);
        let canary = Canary::plant(volume.path());
        let destination = volume.path().join("destination");
        copy(&source, &destination);
        Self { _canary: canary, source, destination, _volume: volume }
    }

    /// What a verify finds after a damage, which is healed again.
    fn after(&self, damage: impl FnOnce(&Path)) -> (BTreeSet<(String, String, String)>, Run) {
        copy(&self.source, &self.destination);
        quietly(&self.destination, || damage(&self.destination));
        let run = verify(&self.source, &self.destination).run();
        (findings(&run), run)
    }

    fn finds(&self, expected: &[(&str, &str, &str)], damage: impl FnOnce(&Path)) -> Run {
        let (found, run) = self.after(damage);
        let expected: BTreeSet<_> = expected.iter().map(|(sign, name, what)| finding(sign, name, what)).collect();
        assert_eq!(found, expected, "{run}");
        run.expect(if expected.is_empty() { 0 } else { 40 })
    }
}

#[test]
fn verify_finds_each_single_damage_of_content_and_metadata_and_names_it() {
    let bench = Bench::new();
    bench.finds(&[], |_| ());
    bench.finds(&[("*", "file", "content")], |at| flip(&at.join("file"), 4321, 3));
    bench.finds(&[("*", "file", "mode")], |at| {
        fs::set_permissions(at.join("file"), Permissions::from_mode(0o4755)).unwrap();
    });
    bench.finds(&[("*", "file", "owner")], |at| chown(at.join("file"), Some(77), None).unwrap());
    bench.finds(&[("*", "symlink", "group")], |at| lchown(at.join("symlink"), None, Some(77)).unwrap());
    bench.finds(&[("*", "dir", "mode, owner")], |at| {
        chown(at.join("dir"), Some(77), None).unwrap();
        fs::set_permissions(at.join("dir"), Permissions::from_mode(0o700)).unwrap();
        set_xattr(&at.join("dir"), "system.posix_acl_access", &trees::acl(1000)).unwrap();
        fs::set_permissions(at.join("dir"), Permissions::from_mode(0o1755)).unwrap();
        set_xattr(&at.join("dir"), "system.posix_acl_access", &trees::acl(1000)).unwrap();
    });
    bench.finds(&[("*", "file", "mtime")], |at| {
        let file = File::open(at.join("file")).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.set_modified(time + Duration::from_nanos(1)).unwrap();
    });
    bench.finds(&[("*", "file", "xattrs")], |at| set_xattr(&at.join("file"), "user.kept", b"valuf").unwrap());
    bench.finds(&[("*", "fifo", "xattrs")], |at| set_xattr(&at.join("fifo"), "trusted.new", b"").unwrap());
    bench.finds(&[("*", "dir", "acl")], |at| {
        set_xattr(&at.join("dir"), "system.posix_acl_access", &trees::acl(1001)).unwrap();
    });
    bench.finds(&[("*", "file", "flags")], |at| trees::set_flag(&at.join("file"), rustix::fs::IFlags::NODUMP).unwrap());
    bench.finds(&[("*", "file", "content, size, mtime")], |at| fs::write(at.join("file"), b"shorter").unwrap());
    bench.finds(&[], |at| {
        let file = File::options().read(true).write(true).open(at.join("sparse")).unwrap();
        let (before, size) = (file.metadata().unwrap().modified().unwrap(), file.metadata().unwrap().size());
        let mut all = vec![0; usize::try_from(size).unwrap()];
        file.read_exact_at(&mut all, 0).unwrap();
        file.write_all_at(&all, 0).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= size, "the hole is filled");
        file.set_modified(before).unwrap();
    });
}

#[test]
fn verify_finds_each_single_damage_of_the_tree_itself_and_names_it() {
    let bench = Bench::new();
    let remade = |path: &Path, make: &dyn Fn()| {
        let before = fs::symlink_metadata(path).unwrap();
        fs::remove_file(path).unwrap();
        make();
        let time = rustix::fs::Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
    };
    bench.finds(&[("*", "symlink", "target")], |at| {
        remade(&at.join("symlink"), &|| symlink("targes", at.join("symlink")).unwrap());
    });
    bench.finds(&[("*", "device", "device")], |at| {
        let path = at.join("device");
        remade(&path, &|| make_node(&path, FileType::CharacterDevice, 0o600, rustix::fs::makedev(1, 5)).unwrap());
    });
    bench.finds(&[("*", "fifo", "type")], |at| {
        let path = at.join("fifo");
        remade(&path, &|| make_node(&path, FileType::Socket, 0o600, 0).unwrap());
    });
    bench.finds(&[("+", "file", "")], |at| fs::remove_file(at.join("file")).unwrap());
    bench.finds(&[("-", "new", "")], |at| fs::write(at.join("new"), b"").unwrap());
    let run = bench.finds(&[("+", "dir", "")], |at| fs::remove_dir_all(at.join("dir")).unwrap());
    assert_eq!(run.summary().count("missing"), 2, "what is below counts: {run}");
    let run = bench.finds(&[("-", "new", "")], |at| {
        fs::create_dir_all(at.join("new/deep")).unwrap();
        fs::write(at.join("new/deep/file"), b"").unwrap();
    });
    assert_eq!(run.summary().count("extra"), 3, "what is below counts: {run}");
    let run = bench.finds(&[("*", "dir", "type")], |at| {
        fs::remove_dir_all(at.join("dir")).unwrap();
        fs::write(at.join("dir"), b"now a file").unwrap();
    });
    assert_eq!((run.summary().count("differing"), run.summary().count("missing")), (1, 1), "{run}");
}

#[test]
fn verify_finds_hard_links_that_were_broken_or_invented() {
    let bench = Bench::new();
    let (found, run) = bench.after(|at| {
        fs::rename(at.join("linked-b"), at.join("old")).unwrap();
        tool("coreutils", "cp", &["-p".as_ref(), at.join("old").as_os_str(), at.join("linked-b").as_os_str()]);
        fs::remove_file(at.join("old")).unwrap();
    });
    run.expect(40);
    let whats: BTreeSet<_> = found.iter().map(|(sign, _, what)| (sign.as_str(), what.as_str())).collect();
    assert_eq!(whats, BTreeSet::from([("*", "links")]), "{found:?}");
    assert!(found.iter().all(|(_, name, _)| name.starts_with("linked-")), "{found:?}");

    let (found, run) = bench.after(|at| {
        fs::remove_file(at.join("twin-b")).unwrap();
        fs::hard_link(at.join("twin-a"), at.join("twin-b")).unwrap();
    });
    run.expect(40);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|(sign, name, what)| sign == "*" && name.starts_with("twin-") && what == "links"));
}

#[test]
fn verify_reads_an_inode_with_many_names_once_and_judges_every_name() {
    let volume = Tmpfs::new(256);
    let source = volume.directory("source");
    fs::write(source.join("name-0"), Rng::new(3).bytes(3 << 20)).unwrap();
    for i in 1..50 {
        fs::hard_link(source.join("name-0"), source.join(format!("name-{i}"))).unwrap();
    }
    let destination = volume.path().join("destination");
    copy(&source, &destination);
    let run = verify(&source, &destination).run().expect(0);
    assert_eq!((run.summary().count("proved"), run.summary().count("bytes_verified")), (51, 3 << 20), "{run}");
    flip(&destination.join("name-7"), 12345, 0);
    let run = verify(&source, &destination).run().expect(40);
    assert_eq!(run.summary().count("differing"), 50, "every name shows the damage: {run}");
}

/// A faithful copy of every kind of entry: equal, proved, with the digests of the migration, and
/// not even an access time has moved.
fn every_kind_is_equal(from: FsType, to: FsType, readback: &str) {
    let source_volume = volume(from, 768);
    let other = (from != to).then(|| volume(to, 768));
    let destination_volume: &dyn Volume = other.as_deref().unwrap_or(&*source_volume);
    let source = source_volume.directory("source");
    let destination = destination_volume.path().join("destination");
    trees::every_kind(&source, &Kinds::between(&*source_volume, destination_volume));
    let copied = Copyd::migrate(&source, &destination).run().expect(0).summary();
    let canary = Canary::plant(&destination_volume.directory("beside"));
    let before = [&source, &destination].map(|root| Snapshot::take(root).unwrap());

    let run = verify(&source, &destination).run().expect(0);
    let summary = run.summary();
    assert_eq!(findings(&run), BTreeSet::new());
    assert_eq!(summary.count("proved"), summary.count("entries"), "{run}");
    assert_eq!(summary.count("entries"), copied.count("entries"), "{run}");
    assert_eq!(summary.text("readback"), readback, "{run}");
    for digest in ["share_digest", "metadata_digest"] {
        assert_eq!(summary.text(digest), copied.text(digest), "{digest}");
    }
    for (before, root) in before.iter().zip([&source, &destination]) {
        let moved = before.changes(root, true).unwrap();
        assert!(moved.is_empty(), "a verify moves nothing:\n  {}", moved.join("\n  "));
    }
    canary.assert_untouched();
    verify(&source, &destination).args(&["--backend=uring", "--jobs=3"]).run().expect(0);
}

#[test]
fn the_digests_of_a_run_that_changed_a_few_entries_are_those_of_the_whole_share() {
    let volume = volume(FsType::Tmpfs, 768);
    let (source, destination) = (volume.directory("source"), volume.path().join("destination"));
    trees::every_kind(&source, &Kinds::between(&*volume, &*volume));
    fs::create_dir_all(source.join("later/deep")).unwrap();
    for i in 0..300 {
        fs::write(source.join(format!("later/deep/f{i}")), [b'x'; 100]).unwrap();
    }
    let sync = Copyd::new("sync").args(&["--json", "--delete"]).arg(&source).arg(&destination);
    sync.run().expect(0);
    for round in 0..3 {
        let name = |what: &str| source.join(format!("later/{what}{round}"));
        fs::write(source.join(format!("later/deep/f{round}")), b"changed").unwrap();
        fs::remove_file(source.join(format!("later/deep/f{}", 100 + round))).unwrap();
        fs::create_dir(name("new")).unwrap();
        std::os::unix::fs::symlink("deep/f7", name("new").join("symlink")).unwrap();
        fs::hard_link(source.join("later/deep/f200"), name("link")).unwrap();
        let (changed, verified) =
            (sync.run().expect(0).summary(), verify(&source, &destination).run().expect(0).summary());
        for digest in ["share_digest", "metadata_digest"] {
            assert_eq!(changed.text(digest), verified.text(digest), "{digest} after {round} changes");
        }
    }
}

#[test]
fn verify_proves_every_kind_of_entry_on_tmpfs_and_moves_nothing() {
    every_kind_is_equal(FsType::Tmpfs, FsType::Tmpfs, "memory");
}

#[test]
fn verify_proves_every_kind_of_entry_between_tmpfs_and_ext4_and_moves_nothing() {
    every_kind_is_equal(FsType::Tmpfs, FsType::Ext4, "direct");
}

#[test]
fn verify_proves_every_kind_of_entry_between_xfs_and_btrfs_and_moves_nothing() {
    every_kind_is_equal(FsType::Xfs, FsType::Btrfs, "direct");
}

/// A thousand files of many sizes, one bit of each flipped at the destination by another writer.
fn a_thousand_flips(kind: FsType) {
    let volume = volume(kind, 512);
    let source = volume.directory("source");
    let mut rng = Rng::new(1000);
    let mut sizes = Vec::new();
    for i in 0..1000 {
        let most = if i % 250 == 0 { 36 << 20 } else { 1 << (i % 19) };
        let size = most / 2 + rng.below(most / 2 + 1) + 1;
        let directory = source.join(format!("d{}", i % 13));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{i}")), rng.bytes(usize::try_from(size).unwrap())).unwrap();
        sizes.push(size);
    }
    let destination = volume.path().join("destination");
    copy(&source, &destination);
    verify(&source, &destination).run().expect(0);
    let mut expected = BTreeSet::new();
    for (i, size) in sizes.iter().enumerate() {
        let name = format!("d{}/f{i}", i % 13);
        flip(&destination.join(&name), rng.below(*size), u8::try_from(rng.below(8)).unwrap());
        expected.insert(finding("*", &name, "content"));
    }
    let run = verify(&source, &destination).run().expect(40);
    assert_eq!(findings(&run), expected);
    assert_eq!(run.summary().count("differing"), 1000);
    verify(&source, &destination).arg("--backend=uring").run().expect(40);
}

#[test]
fn verify_finds_a_thousand_flipped_bits_on_tmpfs() {
    a_thousand_flips(FsType::Tmpfs);
}

#[test]
fn verify_finds_a_thousand_flipped_bits_on_ext4() {
    a_thousand_flips(FsType::Ext4);
}

#[test]
fn verify_finds_bits_that_flipped_below_a_mounted_ext4_under_cached_pages() {
    const SECTOR: usize = 512;
    let source_volume = Tmpfs::new(64);
    let source = source_volume.directory("source");
    let volume = LoopFs::new(FsType::Ext4, 128);
    let mut rng = Rng::new(5);
    for file in 0..40u64 {
        let sectors = 1 + usize::try_from(rng.below(200)).unwrap();
        let mut bytes = rng.bytes(SECTOR * sectors);
        for (number, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            sector[..8].copy_from_slice(b"sector::");
            sector[8..16].copy_from_slice(&file.to_le_bytes());
            sector[16..24].copy_from_slice(&(number as u64).to_le_bytes());
        }
        fs::write(source.join(format!("f{file}")), bytes).unwrap();
    }
    let destination = volume.path().join("destination");
    copy(&source, &destination);
    tool("coreutils", "sync", &["-f".as_ref(), destination.as_os_str()]);
    verify(&source, &destination).run().expect(0);

    let image = File::options().read(true).write(true).open(volume.image()).unwrap();
    let mut sector = [0; SECTOR];
    let mut flipped = BTreeSet::new();
    for at in (0..image.metadata().unwrap().len()).step_by(SECTOR) {
        image.read_exact_at(&mut sector, at).unwrap();
        if sector.starts_with(b"sector::") {
            let file = u64::from_le_bytes(sector[8..16].try_into().unwrap());
            let path = destination.join(format!("f{file}"));
            let number = u64::from_le_bytes(sector[16..24].try_into().unwrap());
            let last = fs::metadata(&path).unwrap().len() / SECTOR as u64 - 1;
            if number == rng.below(last + 1) || number == last {
                // The pages are cached, by whoever read the file last.
                let seen = fs::read(&path).unwrap();
                let place = at + 24 + rng.below(SECTOR as u64 - 24);
                let mut byte = [0];
                image.read_exact_at(&mut byte, place).unwrap();
                image.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
                assert_eq!(fs::read(&path).unwrap(), seen, "the cache hides the flip from everyone");
                flipped.insert(finding("*", &format!("f{file}"), "content"));
            }
        }
    }
    assert_eq!(flipped.len(), 40, "every file was found in the image");
    let run = verify(&source, &destination).run().expect(40);
    assert_eq!(findings(&run), flipped);
    assert_eq!(run.summary().text("readback"), "direct");
}

#[test]
fn verify_against_a_manifest_proves_every_kind_of_entry_and_finds_what_was_changed() {
    let volume = Tmpfs::new(768);
    let source = volume.directory("source");
    trees::every_kind(&source, &Kinds::common());
    let sparse = File::create(source.join("mostly-zeros")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    sparse.write_all_at(b"not zero", 2 << 30).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"not-utf8-\xff\n")), b"named in bytes").unwrap();
    let (destination, manifest) = (volume.path().join("destination"), volume.path().join("manifest"));
    Copyd::migrate(&source, &destination).run().expect(0);
    verify(&source, &destination).arg("--manifest").arg(&manifest).run().expect(0);
    let lines = fs::read_to_string(volume.path().join("manifest.jsonl")).unwrap();
    assert!(lines.contains("b3-nonzero") && lines.contains("path_b64"), "both kinds of lines are there");

    let against = || Copyd::new("verify").args(&["--json", "-i", "--manifest"]).arg(&manifest).arg(&destination);
    let before = Snapshot::take(&destination).unwrap();
    let run = against().run().expect(0);
    assert_eq!((run.summary().count("entries"), run.summary().count("proved")), {
        let lines = lines.lines().count() as u64;
        (lines, lines)
    });
    assert!(before.changes(&destination, true).unwrap().is_empty(), "nothing moves");

    let flip_at = |name: &str, offset| flip(&destination.join(name), offset, 1);
    flip_at("mostly-zeros", (2 << 30) + 3);
    flip_at("sizes/20971520", 17 << 20);
    flip_at("sizes/4097", 4096);
    quietly(&destination.join("sizes"), || {
        fs::remove_file(destination.join("sizes/1")).unwrap();
        fs::create_dir(destination.join("sizes/extra")).unwrap();
        fs::write(destination.join("sizes/extra/below"), b"").unwrap();
        fs::set_permissions(destination.join("sizes/4095"), Permissions::from_mode(0o600)).unwrap();
        set_xattr(&destination.join("sizes/4096"), "user.foreign", b"x").unwrap();
    });
    quietly(&destination, || {
        fs::remove_file(destination.join(OsStr::from_bytes(b"not-utf8-\xff\n"))).unwrap();
    });
    let run = against().run().expect(40);
    let expected = [
        ("*", "mostly-zeros", "content"),
        ("*", "sizes/20971520", "content"),
        ("*", "sizes/4095", "mode"),
        ("*", "sizes/4096", "xattrs"),
        ("*", "sizes/4097", "content"),
        ("+", "", ""),
        ("+", "sizes/1", ""),
        ("-", "sizes/extra", ""),
    ];
    assert_eq!(findings(&run), expected.iter().map(|(sign, name, what)| finding(sign, name, what)).collect());
    assert_eq!(run.summary().count("extra"), 2, "what is below counts: {run}");
}

#[test]
fn verify_against_a_manifest_finds_broken_and_invented_links_targets_and_types() {
    let bench = Bench::new();
    let manifest = bench.source.with_file_name("manifest");
    verify(&bench.source, &bench.destination).arg("--manifest").arg(&manifest).run().expect(0);
    let at = &bench.destination;
    quietly(at, || {
        fs::remove_file(at.join("linked-c")).unwrap();
        let copied =
            [OsStr::new("-p"), at.join("linked-a").as_os_str(), at.join("linked-c").as_os_str()].map(OsStr::to_owned);
        tool("coreutils", "cp", &copied);
        fs::remove_file(at.join("twin-b")).unwrap();
        fs::hard_link(at.join("twin-a"), at.join("twin-b")).unwrap();
        fs::remove_file(at.join("fifo")).unwrap();
        fs::create_dir(at.join("fifo")).unwrap();
        fs::rename(at.join("dir"), at.join("other")).unwrap();
        symlink("other", at.join("dir")).unwrap();
    });
    let run = Copyd::new("verify").args(&["--json", "-i", "--manifest"]).arg(&manifest).arg(at).run().expect(40);
    let found = findings(&run);
    for expected in [("*", "dir", "type"), ("+", "dir/below", ""), ("*", "fifo", "type"), ("-", "other", "")] {
        let (sign, name, what) = expected;
        assert!(found.contains(&finding(sign, name, what)), "{expected:?} in {found:?}");
    }
    let links: Vec<_> = found.iter().filter(|(_, _, what)| what == "links").collect();
    assert_eq!((links.len(), found.len()), (2, 6), "{found:?}");
}

#[test]
fn verify_against_a_list_of_sums_compares_content_only_and_names_other_files() {
    let volume = Tmpfs::new(64);
    let source = volume.directory("source");
    trees::small_files(&source, 100, 4).unwrap();
    let sums = source.join("SUMS");
    let list = Path::new("/bin/sh");
    let script = format!("cd '{}' && find . -type f ! -name SUMS -exec b3sum {{}} + > SUMS", source.display());
    tool("b3sum (cargo install --locked b3sum)", &list.to_string_lossy(), &["-c", &script]);
    let against = || Copyd::new("verify").args(&["--json", "-i", "--manifest"]).arg(&sums).arg(&source);
    fs::create_dir(source.join("empty")).unwrap();
    symlink("empty", source.join("link")).unwrap();
    let run = against().run().expect(0);
    assert_eq!(run.summary().count("proved"), 100, "{run}");
    fs::write(source.join("empty/new"), b"").unwrap();
    let changed = fs::read_dir(source.join("d00000"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.metadata().unwrap().len() > 9);
    fs::write(changed.as_ref().unwrap(), b"changed").unwrap();
    let run = against().run().expect(40);
    let name = changed.unwrap().strip_prefix(&source).unwrap().to_string_lossy().into_owned();
    assert_eq!(findings(&run), BTreeSet::from([finding("*", &name, "content"), finding("-", "empty/new", "")]));
}

#[test]
fn verify_names_the_line_of_a_manifest_that_is_bad_and_never_overwrites_one() {
    let bench = Bench::new();
    let manifest = bench.source.with_file_name("manifest");
    fs::write(&manifest, "no such line\n").unwrap();
    let run = Copyd::new("verify").arg("--manifest").arg(&manifest).arg(&bench.destination).run().expect(1);
    assert!(run.err_text().contains("manifest:1: "), "{run}");
    verify(&bench.source, &bench.destination).arg("--manifest").arg(&manifest).run().expect(1);
    assert_eq!(fs::read(&manifest).unwrap(), b"no such line\n");
    let absent = bench.source.with_file_name("absent");
    Copyd::new("verify").arg("--manifest").arg(&absent).arg(&bench.destination).run().expect(11);
}

#[test]
fn verify_refuses_roots_that_are_missing_files_unreadable_or_one_another() {
    let bench = Bench::new();
    let (source, destination) = (&bench.source, &bench.destination);
    let absent = source.with_file_name("absent");
    verify(&absent, destination).run().expect(11);
    verify(source, &absent).run().expect(11);
    assert!(!absent.exists(), "a verify makes nothing");
    verify(source, &destination.join("file")).run().expect(11);
    verify(source, source).run().expect(43);
    verify(source, &source.join("dir")).run().expect(43);
    fs::set_permissions(source, Permissions::from_mode(0o700)).unwrap();
    verify(source, destination).user(NOBODY).run().expect(11);
}

#[test]
fn verify_names_what_it_could_not_read_and_compares_the_rest() {
    let bench = Bench::new();
    for root in [&bench.source, &bench.destination] {
        quietly(root, || fs::set_permissions(root.join("file"), Permissions::from_mode(0o600)).unwrap());
    }
    let run = verify(&bench.source, &bench.destination).user(NOBODY).run().expect(23);
    let unreadable = [finding("!", "dir", "permission: open the directory"), finding("!", "file", "permission: open")];
    assert_eq!(findings(&run), BTreeSet::from(unreadable), "{run}");
    assert_eq!(run.summary().count("failed"), 2);
    assert!(run.summary().0["share_digest"].is_null(), "no digest of what was not read");
    flip(&bench.destination.join("twin-a"), 0, 0);
    verify(&bench.source, &bench.destination).user(NOBODY).run().expect(40);
}

#[test]
fn verify_leaves_alone_what_is_copyds_own_filtered_or_the_file_systems() {
    let bench = Bench::new();
    let at = &bench.destination;
    quietly(at, || {
        for name in [".copyd-trash", ".copyd-0190b3c4-7d5e-7c3a-9f00-123456789abc", "lost+found", "skipped"] {
            fs::create_dir(at.join(name)).unwrap();
            fs::write(at.join(name).join("inside"), b"").unwrap();
        }
    });
    let excluding = || verify(&bench.source, at).arg("--exclude=skipped").arg("--exclude=/twin-*");
    let run = excluding().run().expect(0);
    let compared =
        |event: &serde_json::Value| event["event"] == "compared" && event["name"].to_string().contains("twin");
    assert!(!run.events().iter().any(compared), "{run}");
    flip(&at.join("twin-a"), 0, 0);
    excluding().run().expect(0);
    let run = verify(&bench.source, at).run().expect(40);
    assert_eq!(findings(&run), BTreeSet::from([finding("*", "twin-a", "content"), finding("-", "skipped", "")]));
}

#[test]
fn verify_counts_a_mount_inside_a_tree_as_failed() {
    let bench = Bench::new();
    let point = bench.source.join("dir");
    tool("mount", "mount", &["-t".as_ref(), "tmpfs".as_ref(), "inside".as_ref(), point.as_os_str()]);
    let run = verify(&bench.source, &bench.destination).run();
    tool("mount", "umount", &[point.as_os_str()]);
    let run = run.expect(23);
    assert_eq!(findings(&run), BTreeSet::from([finding("!", "dir", "mountpoint: descend")]), "{run}");
}

#[test]
fn verify_does_not_count_what_was_accepted_as_lost_but_reports_it() {
    let bench = Bench::new();
    let at = &bench.destination;
    chown(at.join("file"), Some(77), None).unwrap();
    quietly(at, || fs::remove_file(at.join("device")).unwrap());
    let run = verify(&bench.source, at).run().expect(40);
    assert_eq!(run.summary().count("differing") + run.summary().count("missing"), 2, "{run}");
    let run = verify(&bench.source, at).arg("--accept-loss=owner,device").run().expect(0);
    assert_eq!(run.summary().classes("lost"), 2, "{run}");
    verify(&bench.source, at).arg("--accept-loss=owner").run().expect(40);
    verify(&bench.source, at).arg("--accept-loss=device,group").run().expect(40);
    let mapped = verify(&bench.source, at).arg("--accept-loss=device").arg("--usermap=0:77").run().expect(40);
    let found = findings(&mapped);
    assert!(!found.iter().any(|(_, name, _)| name == "file"), "the mapped owner is the right one: {found:?}");
}

#[test]
fn verify_says_hot_of_a_file_that_changes_while_it_is_read() {
    let volume = Tmpfs::new(512);
    let source = volume.directory("source");
    fs::write(source.join("busy"), vec![1; 100 << 20]).unwrap();
    fs::write(source.join("calm"), b"calm").unwrap();
    let destination = volume.path().join("destination");
    copy(&source, &destination);
    let over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (over, file) = (Arc::clone(&over), File::options().write(true).open(source.join("busy")).unwrap());
        move || {
            while !over.load(Ordering::Relaxed) {
                file.write_all_at(&[1], 7).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let run = verify(&source, &destination).run();
    over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let run = run.expect(23);
    assert_eq!(findings(&run), BTreeSet::from([finding("!", "busy", "hot: read it unchanged")]), "{run}");
    assert_eq!((run.summary().count("hot"), run.summary().count("failed")), (1, 0), "{run}");
}

#[test]
fn verify_walks_trees_deeper_than_any_path_and_directories_wider_than_a_page() {
    let volume = Tmpfs::new(256);
    let source = volume.directory("source");
    trees::deep(&source, 600, 100).unwrap();
    fs::create_dir(source.join("wide")).unwrap();
    trees::wide(&source.join("wide"), 5000).unwrap();
    let (destination, manifest) = (volume.path().join("destination"), volume.path().join("manifest"));
    let copied = Copyd::migrate(&source, &destination).run().expect(0).summary();
    let run = verify(&source, &destination).arg("--manifest").arg(&manifest).run().expect(0);
    assert_eq!(run.summary().count("proved"), copied.count("entries"));
    assert_eq!(run.summary().text("metadata_digest"), copied.text("metadata_digest"));
    Copyd::new("verify").arg("--manifest").arg(&manifest).arg(&destination).run().expect(0);
    fs::remove_file(destination.join("wide/00004321")).unwrap();
    let run = verify(&source, &destination).run().expect(40);
    assert!(findings(&run).contains(&finding("+", "wide/00004321", "")), "{run}");
}
