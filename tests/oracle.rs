//! Proves that the judge can fail: a faithful copy has no difference, and each kind of damage, one
//! at a time, is found and nothing else is. On memory and on ext4; the copies are made by cp and
//! rsync, so nothing here depends on the engine.

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, makedev};
use support::canary::{Canary, Snapshot};
use support::cursor::Cursor;
use support::mounts::{FsType, volume};
use support::oracle::{Class, Overlook, assert_same, compare, listed};
use support::trees::{self, Kinds, acl, make_node, set_flag, set_project, set_xattr};
use support::{second_opinion, tool};

/// A small tree with one of everything that the damages below need.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("directory/deeper")).unwrap();
    fs::write(root.join("directory/file"), vec![b'x'; 100_000]).unwrap();
    fs::write(root.join("directory/deeper/other"), b"other").unwrap();
    fs::write(root.join("directory/twin-1"), b"twin").unwrap();
    fs::hard_link(root.join("directory/twin-1"), root.join("directory/twin-2")).unwrap();
    fs::write(root.join("directory/apart-1"), b"same").unwrap();
    fs::write(root.join("directory/apart-2"), b"same").unwrap();
    copy_mtime(&root.join("directory/apart-1"), &root.join("directory/apart-2"));
    symlink("target", root.join("symlink")).unwrap();
    make_node(&root.join("device"), FileType::CharacterDevice, 0o600, makedev(240, 1)).unwrap();
    make_node(&root.join("fifo"), FileType::Fifo, 0o600, 0).unwrap();
    make_node(&root.join("fifo-1"), FileType::Fifo, 0o600, 0).unwrap();
    fs::hard_link(root.join("fifo-1"), root.join("fifo-2")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"data", 4 << 20).unwrap();
    for path in ["directory/file", "directory/deeper"] {
        set_xattr(&root.join(path), "user.name", b"value").unwrap();
        set_xattr(&root.join(path), "system.posix_acl_access", &acl(5)).unwrap();
    }
    for path in ["symlink", "fifo"] {
        set_xattr(&root.join(path), "trusted.name", b"value").unwrap();
    }
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn copy_mtime(from: &Path, to: &Path) {
    let meta = fs::symlink_metadata(from).unwrap();
    set_mtime(to, meta.mtime(), meta.mtime_nsec());
}

/// Does something and puts the path's modification time back, so that it is not a second damage.
fn keeping_mtime(path: &Path, act: impl FnOnce()) {
    let meta = fs::symlink_metadata(path).unwrap();
    act();
    set_mtime(path, meta.mtime(), meta.mtime_nsec());
}

fn flip_a_bit(path: &Path, offset: u64) {
    keeping_mtime(path, || {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    });
}

fn found_in(a: &Path, b: &Path) -> Vec<(Class, String)> {
    let found = compare(a, b, &Overlook::default()).unwrap();
    found.iter().map(|d| (d.class, String::from_utf8_lossy(&d.path).into_owned())).collect()
}

/// On each file system: plants, copies, asserts that the copy is the same, damages it, and asserts
/// that exactly the expected is found.
fn damaged_on(kinds: &[FsType], damage: impl Fn(&Path), expected: &[(Class, &str)]) {
    for &kind in kinds {
        let volume = volume(kind, if kind == FsType::Xfs { 320 } else { 64 });
        let (a, b) = (volume.directory("a"), volume.path().join("b"));
        plant(&a);
        tool("coreutils", "cp", &[&"-a".as_ref(), &a.as_os_str(), &b.as_os_str()]);
        assert_same(&a, &b);
        damage(&b);
        let found = found_in(&a, &b);
        let expected: Vec<_> = expected.iter().map(|(class, path)| (*class, (*path).to_owned())).collect();
        assert_eq!(found, expected, "on {}", kind.word());
        let back: Vec<_> = found_in(&b, &a).into_iter().map(|(_, path)| path).collect();
        let paths: Vec<_> = expected.into_iter().map(|(_, path)| path).collect();
        if paths != ["sparse"] {
            assert_eq!(back, paths, "the same is found with the sides exchanged, on {}", kind.word());
        }
    }
}

fn damaged(damage: impl Fn(&Path), expected: &[(Class, &str)]) {
    damaged_on(&[FsType::Tmpfs, FsType::Ext4], damage, expected);
}

fn a_faithful_copy_is_the_same(kind: FsType, program: &str, options: &[&str]) {
    let volume = volume(kind, 512);
    let (a, b) = (volume.directory("a"), volume.directory("b"));
    trees::every_kind(&a, &Kinds::common());
    let (from, to) = (format!("{}/.", a.display()), format!("{}/", b.display()));
    tool(program, program, &[options, &[&from, &to]].concat());
    assert_same(&a, &b);
    second_opinion(&a, &b);
}

#[test]
fn a_copy_by_cp_is_the_same_on_tmpfs() {
    a_faithful_copy_is_the_same(FsType::Tmpfs, "cp", &["-a"]);
}

#[test]
fn a_copy_by_cp_is_the_same_on_ext4() {
    a_faithful_copy_is_the_same(FsType::Ext4, "cp", &["-a"]);
}

#[test]
fn a_copy_by_rsync_is_the_same_on_tmpfs() {
    a_faithful_copy_is_the_same(FsType::Tmpfs, "rsync", &["-aHAXS"]);
}

#[test]
fn a_copy_by_rsync_is_the_same_on_ext4() {
    a_faithful_copy_is_the_same(FsType::Ext4, "rsync", &["-aHAXS"]);
}

#[test]
fn a_flipped_bit_is_found() {
    damaged(|b| flip_a_bit(&b.join("directory/file"), 77_777), &[(Class::Content, "directory/file")]);
}

#[test]
fn a_flipped_bit_behind_a_hole_is_found() {
    damaged(|b| flip_a_bit(&b.join("sparse"), (4 << 20) + 2), &[(Class::Content, "sparse")]);
}

#[test]
fn data_in_a_hole_is_found() {
    damaged(
        |b| {
            let path = b.join("sparse");
            let file = File::options().write(true).open(&path).unwrap();
            keeping_mtime(&path, || file.write_all_at(b"!", 1 << 20).unwrap());
        },
        &[(Class::Content, "sparse")],
    );
}

#[test]
fn a_missing_last_byte_is_found() {
    damaged(
        |b| {
            let path = b.join("directory/file");
            keeping_mtime(&path, || File::options().write(true).open(&path).unwrap().set_len(99_999).unwrap());
        },
        &[(Class::Size, "directory/file")],
    );
}

#[test]
fn one_mode_bit_is_found() {
    damaged(
        |b| fs::set_permissions(b.join("directory/apart-1"), Permissions::from_mode(0o645)).unwrap(),
        &[(Class::Mode, "directory/apart-1")],
    );
    damaged(
        |b| fs::set_permissions(b.join("directory"), Permissions::from_mode(0o1755)).unwrap(),
        &[(Class::Mode, "directory")],
    );
    damaged(|b| fs::set_permissions(b, Permissions::from_mode(0o700)).unwrap(), &[(Class::Mode, "")]);
}

#[test]
fn a_nanosecond_is_found_on_every_kind() {
    for path in ["directory/file", "directory/deeper", "symlink", "fifo", "device", ""] {
        damaged(
            |b| {
                let meta = fs::symlink_metadata(b.join(path)).unwrap();
                set_mtime(&b.join(path), meta.mtime(), (meta.mtime_nsec() + 1) % 1_000_000_000);
            },
            &[(Class::Mtime, path)],
        );
    }
}

#[test]
fn another_owner_or_group_is_found_on_every_kind() {
    for path in ["directory/file", "directory/deeper", "symlink", "fifo", "device"] {
        damaged(|b| lchown(b.join(path), Some(7), None).unwrap(), &[(Class::Owner, path)]);
        damaged(|b| lchown(b.join(path), None, Some(7)).unwrap(), &[(Class::Owner, path)]);
    }
}

#[test]
fn a_missing_an_added_and_a_changed_xattr_are_found_on_every_kind() {
    let cases = [
        ("directory/file", "user.name"),
        ("directory/deeper", "user.name"),
        ("symlink", "trusted.name"),
        ("fifo", "trusted.name"),
    ];
    for (path, name) in cases {
        let expected = [(Class::Xattr, path)];
        damaged(|b| rustix::fs::lremovexattr(b.join(path), name).unwrap(), &expected);
        damaged(|b| set_xattr(&b.join(path), name, b"valuf").unwrap(), &expected);
        damaged(|b| set_xattr(&b.join(path), "trusted.another", b"").unwrap(), &expected);
    }
}

#[test]
fn a_changed_acl_is_found() {
    for path in ["directory/file", "directory/deeper"] {
        damaged(|b| set_xattr(&b.join(path), "system.posix_acl_access", &acl(6)).unwrap(), &[(Class::Acl, path)]);
    }
    damaged(
        |b| set_xattr(&b.join("directory/deeper"), "system.posix_acl_default", &acl(6)).unwrap(),
        &[(Class::Acl, "directory/deeper")],
    );
}

#[test]
fn an_extra_entry_is_found() {
    damaged(
        |b| keeping_mtime(&b.join("directory"), || fs::write(b.join("directory/extra"), b"").unwrap()),
        &[(Class::Extra, "directory/extra")],
    );
    damaged(|b| keeping_mtime(b, || fs::create_dir_all(b.join("zzz/below")).unwrap()), &[(Class::Extra, "zzz")]);
}

#[test]
fn a_missing_entry_is_found() {
    damaged(
        |b| keeping_mtime(&b.join("directory"), || fs::remove_file(b.join("directory/file")).unwrap()),
        &[(Class::Missing, "directory/file")],
    );
    damaged(|b| keeping_mtime(b, || fs::remove_file(b.join("symlink")).unwrap()), &[(Class::Missing, "symlink")]);
    damaged(
        |b| keeping_mtime(b, || fs::remove_dir_all(b.join("directory")).unwrap()),
        &[(Class::Missing, "directory")],
    );
}

#[test]
fn an_entry_of_another_type_is_found() {
    damaged(
        |b| {
            keeping_mtime(b, || {
                fs::remove_file(b.join("fifo")).unwrap();
                fs::create_dir(b.join("fifo")).unwrap();
            });
        },
        &[(Class::Type, "fifo")],
    );
}

/// Replaces `second` by an inode of its own that is otherwise the same.
fn unlink_from_group(directory: &Path, first: &str, second: &str) {
    keeping_mtime(directory, || {
        fs::remove_file(directory.join(second)).unwrap();
        let (from, to) = (directory.join(first), directory.join(second));
        tool("coreutils", "cp", &["-a".as_ref(), from.as_os_str(), to.as_os_str()]);
    });
}

#[test]
fn a_broken_hard_link_is_found_on_files_and_fifos() {
    damaged(
        |b| unlink_from_group(&b.join("directory"), "twin-1", "twin-2"),
        &[(Class::LinkBroken, "directory/twin-2")],
    );
    damaged(|b| unlink_from_group(b, "fifo-1", "fifo-2"), &[(Class::LinkBroken, "fifo-2")]);
}

#[test]
fn an_invented_hard_link_is_found() {
    damaged(
        |b| {
            let directory = b.join("directory");
            keeping_mtime(&directory, || {
                fs::remove_file(directory.join("apart-2")).unwrap();
                fs::hard_link(directory.join("apart-1"), directory.join("apart-2")).unwrap();
            });
        },
        &[(Class::LinkInvented, "directory/apart-2")],
    );
}

#[test]
fn a_filled_hole_is_found() {
    damaged(
        |b| {
            let path = b.join("sparse");
            keeping_mtime(&path, || {
                let bytes = fs::read(&path).unwrap();
                File::options().write(true).open(&path).unwrap().write_all_at(&bytes, 0).unwrap();
            });
        },
        &[(Class::Holes, "sparse")],
    );
}

#[test]
fn another_device_number_is_found() {
    for (major, minor) in [(240, 2), (241, 1)] {
        damaged(
            |b| {
                let path = b.join("device");
                let (twin, meta) = (b.join("twin"), fs::symlink_metadata(&path).unwrap());
                keeping_mtime(b, || {
                    make_node(&twin, FileType::CharacterDevice, 0o600, makedev(major, minor)).unwrap();
                    fs::rename(&twin, &path).unwrap();
                });
                set_mtime(&path, meta.mtime(), meta.mtime_nsec());
            },
            &[(Class::Device, "device")],
        );
    }
}

#[test]
fn another_link_target_is_found() {
    damaged(
        |b| {
            let path = b.join("symlink");
            let meta = fs::symlink_metadata(&path).unwrap();
            keeping_mtime(b, || {
                fs::remove_file(&path).unwrap();
                symlink("targes", &path).unwrap();
            });
            set_xattr(&path, "trusted.name", b"value").unwrap();
            set_mtime(&path, meta.mtime(), meta.mtime_nsec());
        },
        &[(Class::Target, "symlink")],
    );
}

#[test]
fn changed_inode_flags_are_found() {
    for flag in [IFlags::NODUMP, IFlags::NOATIME, IFlags::APPEND, IFlags::IMMUTABLE] {
        for path in ["directory/file", "directory/deeper"] {
            damaged(|b| set_flag(&b.join(path), flag).unwrap(), &[(Class::Flags, path)]);
        }
    }
}

#[test]
fn a_changed_project_id_is_found() {
    for path in ["directory/file", "directory/deeper"] {
        damaged_on(&[FsType::Xfs], |b| set_project(&b.join(path), 77, 0).unwrap(), &[(Class::Project, path)]);
    }
}

#[test]
fn what_is_to_be_overlooked_is_overlooked_and_nothing_else() {
    let volume = volume(FsType::Tmpfs, 64);
    let (a, b) = (volume.directory("a"), volume.path().join("b"));
    plant(&a);
    tool("coreutils", "cp", &["-a".as_ref(), a.as_os_str(), b.as_os_str()]);
    fs::create_dir(b.join("lost+found")).unwrap();
    fs::create_dir(b.join("directory/lost+found")).unwrap();
    lchown(b.join("fifo"), Some(7), None).unwrap();
    let overlook = Overlook { root_names: vec![b"lost+found".to_vec()], classes: vec![Class::Owner, Class::Mtime] };
    let found = compare(&a, &b, &overlook).unwrap();
    assert_eq!(found.len(), 1, "{}", listed(&found, 9));
    assert_eq!((found[0].class, found[0].path.as_slice()), (Class::Extra, &b"directory/lost+found"[..]));
}

#[test]
fn depth_and_path_length_do_not_matter() {
    const LEVELS: usize = 5000;
    let volume = volume(FsType::Tmpfs, 512);
    let (a, b) = (volume.directory("a"), volume.directory("b"));
    trees::deep(&a, LEVELS, 40).unwrap();
    trees::deep(&b, LEVELS, 40).unwrap();
    let overlook = Overlook { classes: vec![Class::Mtime], ..Overlook::default() };
    assert_eq!(compare(&a, &b, &overlook).unwrap().len(), 0, "made alike");

    let mut cursor = Cursor::open(&b).unwrap();
    for _ in 0..LEVELS {
        let names = cursor.names().unwrap();
        let down = names.iter().find(|n| n.as_bytes() != b"leaf").expect("every level has the next");
        cursor.enter(down).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let leaf = rustix::fs::openat(cursor.fd(), "leaf", flags, Mode::empty()).unwrap();
    File::from(leaf).write_all_at(b"!!", 50).unwrap();
    let found = compare(&a, &b, &overlook).unwrap();
    assert_eq!(found.len(), 1, "{}", listed(&found, 9));
    assert_eq!(found[0].class, Class::Content);
    assert_eq!(found[0].path.len(), LEVELS * 41 + "leaf".len());
}

#[test]
fn the_trees_are_the_same_on_every_run() {
    let volume = volume(FsType::Tmpfs, 512);
    let (a, b) = (volume.directory("a"), volume.directory("b"));
    trees::every_kind(&a, &Kinds::between(&*volume, &*volume));
    trees::every_kind(&b, &Kinds::between(&*volume, &*volume));
    assert_same(&a, &b);
    let (a, b) = (volume.directory("small-a"), volume.directory("small-b"));
    trees::small_files(&a, 1200, 5).unwrap();
    trees::small_files(&b, 1200, 5).unwrap();
    let overlook = Overlook { classes: vec![Class::Mtime], ..Overlook::default() };
    assert_eq!(compare(&a, &b, &overlook).unwrap().len(), 0);
    let other = volume.directory("small-c");
    trees::small_files(&other, 1200, 6).unwrap();
    assert!(!compare(&a, &other, &overlook).unwrap().is_empty(), "another seed is another tree");
}

#[test]
fn every_file_system_holds_the_tree_with_all_that_it_keeps() {
    for kind in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let volume = volume(kind, 512);
        let root = volume.directory("a");
        trees::every_kind(&root, &Kinds::between(&*volume, &*volume));
        assert_same(&root, &root);
    }
}

#[test]
fn a_canary_notices_reading_writing_and_every_change() {
    type Act = (&'static str, fn(&Path));
    let volume = volume(FsType::Tmpfs, 64);
    let acts: [Act; 7] = [
        ("atime", |c| drop(fs::read(c.join("secret")).unwrap())),
        ("atime", |c| assert_eq!(fs::read_dir(c.join("directory")).unwrap().count(), 1)),
        ("bytes", |c| flip_a_bit(&c.join("secret"), 3)),
        ("mode", |c| fs::set_permissions(c.join("directory"), Permissions::from_mode(0o711)).unwrap()),
        ("ctime", |c| lchown(c.join("link"), None, Some(0)).unwrap()),
        ("appeared", |c| fs::write(c.join("new"), b"").unwrap()),
        ("gone", |c| fs::remove_file(c.join("link")).unwrap()),
    ];
    for (i, (word, act)) in acts.iter().enumerate() {
        let canary = Canary::plant(&volume.directory(&format!("{i}")));
        canary.assert_untouched();
        std::thread::sleep(std::time::Duration::from_millis(12)); // past the grain of ctime
        act(canary.path());
        let changes = canary.changes().unwrap().join("\n");
        assert!(changes.contains(word), "{word} is not in: {changes}");
        std::mem::forget(canary); // it would rightly panic
    }
}

#[test]
fn a_snapshot_notices_a_replaced_file() {
    let volume = volume(FsType::Tmpfs, 64);
    let root = volume.directory("a");
    plant(&root);
    let before = Snapshot::take(&root).unwrap();
    before.assert_unchanged(&root, "nothing was done");
    keeping_mtime(&root.join("directory"), || unlink_from_group(&root.join("directory"), "apart-1", "apart-2"));
    let changes = before.changes(&root, false).unwrap().join("\n");
    assert!(changes.contains("apart-2\": inode"), "{changes}");
}
