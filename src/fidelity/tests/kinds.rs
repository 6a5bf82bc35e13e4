//! Every kind of entry with every kind of metadata arrives whole on a file system of the same kind.

use super::image::Image;
use super::*;

const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;

/// Entries with all that each kind can have, the name telling what.
fn furnish(source: &Place) -> Vec<(CString, Kind)> {
    let mut made = Vec::new();
    let mut add = |name: &CStr, kind: Kind, rdev: u64, furnish: &dyn Fn(&Handle<'_>)| {
        let handle = source.make(name, kind, rdev);
        furnish(&handle);
        times(handle.entry(), -1_000_000_001, 500_000_000);
        made.push((name.to_owned(), kind));
    };
    add(c"plain", Kind::File, 0, &|_| ());
    add(c"owned", Kind::File, 0, &|h| {
        owner(h.entry(), 1000, 2000);
        mode(h.entry(), 0o640);
    });
    add(c"set-id", Kind::File, 0, &|h| {
        owner(h.entry(), 1000, 2000);
        mode(h.entry(), 0o6755);
    });
    add(c"capability", Kind::File, 0, &|h| {
        owner(h.entry(), 1000, 2000);
        mode(h.entry(), 0o755);
        h.set(c"security.capability", CAPABILITY);
    });
    add(c"acl", Kind::File, 0, &|h| {
        owner(h.entry(), 1000, 2000);
        h.set(c"system.posix_acl_access", &named_acl());
    });
    add(c"attributes", Kind::File, 0, &|h| {
        h.set(c"trusted.one", b"\x00\xff");
        h.set(c"trusted.empty", b"");
        h.set(c"user.comment", &[b'x'; 2000]);
        mode(h.entry(), 0o400);
    });
    add(c"hints", Kind::File, 0, &|h| h.set_flags(NODUMP | NOATIME));
    add(c"directory", Kind::Directory, 0, &|h| {
        owner(h.entry(), 1, 2);
        mode(h.entry(), 0o3755);
        h.set(c"system.posix_acl_access", &named_acl());
        h.set(c"system.posix_acl_default", &named_acl());
        h.set_flags(NODUMP);
    });
    add(c"symlink", Kind::Symlink, 0, &|h| {
        owner(h.entry(), 3, 4);
        h.set(c"trusted.link", b"of its own");
    });
    for (name, kind, rdev) in [
        (c"fifo", Kind::Fifo, 0),
        (c"socket", Kind::Socket, 0),
        (c"character", Kind::CharDevice, rustix::fs::makedev(1, 3)),
        (c"block", Kind::BlockDevice, rustix::fs::makedev(259, 70_000)),
    ] {
        add(name, kind, rdev, &|h| {
            owner(h.entry(), 5, 6);
            mode(h.entry(), 0o6751);
            h.set(c"trusted.special", b"value");
            h.set(c"system.posix_acl_access", &named_acl());
        });
    }
    made
}

/// Carries everything from one directory to another and compares.
fn assert_carries(source: &Path, destination: &Path) {
    let (source, destination) = (Place::new(source), Place::new(destination));
    for (name, kind) in furnish(&source) {
        let wanted = source.open(&name, kind).capture(&source.traits);
        let (made, losses) = carry(&wanted, &source, &destination, &name);
        assert_equal(&wanted, &made, &source, &destination, &losses);
    }
    assert!(destination.open(c"hints", Kind::File).flags() & (NODUMP | NOATIME) == NODUMP | NOATIME);
    assert_guards_are_carried(&source, &destination);
}

/// Immutable and append-only come last, forbid changes, and are lifted for the next pass.
fn assert_guards_are_carried(source: &Place, destination: &Place) {
    for (name, flag) in [(c"immutable", IMMUTABLE), (c"append", APPEND)] {
        let original = source.make(name, Kind::File, 0);
        original.set_flags(flag);
        let wanted = original.capture(&source.traits);
        let (made, losses) = carry(&wanted, source, destination, name);
        assert_equal(&wanted, &made, source, destination, &losses);
        assert_eq!(made.flags() & (IMMUTABLE | APPEND), flag);
        assert!(sys::set_mode(made.entry(), 0o644).is_err(), "it is guarded");

        let mut changed = wanted.clone();
        changed.stat.mode = 0o644;
        let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
        let have = made.capture(&destination.traits);
        let mut losses = Losses::default();
        adjust(made.entry(), &changed, &have, Times::Set, &rules, &mut losses).expect("adjust");
        apply_after_publish(made.entry(), &changed, &rules, &mut losses).expect("guard again");
        assert_equal(&changed, &made, source, destination, &losses);
        for handle in [&original, &made] {
            lift(handle.entry(), &handle.capture(&source.traits)).expect("lift");
        }
        remove(source, name);
        remove(destination, name);
    }
}

#[test]
fn every_kind_arrives_whole_on_tmpfs() {
    let image = Image::tmpfs();
    assert_carries(&image.directory("source"), &image.directory("destination"));
}

#[test]
fn every_kind_arrives_whole_on_ext4() {
    let image = Image::new("ext4", &[]);
    assert_carries(&image.directory("source"), &image.directory("destination"));
}

#[test]
fn every_kind_arrives_whole_on_xfs() {
    let image = Image::new("xfs", &[]);
    assert_carries(&image.directory("source"), &image.directory("destination"));
}

#[test]
fn every_kind_arrives_whole_on_btrfs() {
    let image = Image::new("btrfs", &[]);
    assert_carries(&image.directory("source"), &image.directory("destination"));
}

#[test]
fn every_kind_arrives_whole_from_xfs_on_ext4() {
    let (xfs, ext4) = (Image::new("xfs", &[]), Image::new("ext4", &[]));
    assert_carries(&xfs.directory("source"), &ext4.directory("destination"));
}

#[test]
fn acls_are_captured_once_and_not_as_xfs_shows_them_to_root_again() {
    let xfs = Image::new("xfs", &[]);
    let source = Place::new(&xfs.path());
    let file = source.make(c"file", Kind::File, 0);
    file.set(c"system.posix_acl_access", &named_acl());
    assert!(file.names().contains(&"trusted.SGI_ACL_FILE".to_owned()), "xfs shows root its own form");
    let captured = file.capture(&source.traits);
    assert_eq!(captured.xattrs.iter().map(|x| x.name.as_c_str()).collect::<Vec<_>>(), [c"system.posix_acl_access"]);
    assert_eq!(captured.xattrs.get(b"system.posix_acl_access"), Some(&named_acl()[..]));
}

#[test]
fn what_stands_at_the_destination_is_adjusted_and_loses_what_the_source_does_not_have() {
    for image in [Image::tmpfs(), Image::new("ext4", &[])] {
        let (source, destination) =
            (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
        // What is there inherits an ACL, and carries more than it should.
        destination_default_acl(&destination);
        for (name, kind) in furnish(&source) {
            let wanted = source.open(&name, kind).capture(&source.traits);
            let there = destination.make(&name, kind, wanted.stat.rdev);
            owner(there.entry(), 77, 78);
            if kind == Kind::File {
                there.set(c"security.capability", CAPABILITY);
                there.set_flags(IMMUTABLE | NOATIME);
            }
            there_foreign(&there);
            let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
            let mut losses = Losses::default();
            for _ in 0..2 {
                let have = there.capture(&destination.traits);
                adjust(there.entry(), &wanted, &have, Times::Set, &rules, &mut losses).expect("adjust");
            }
            // The second adjustment found nothing to do: the access time is the first one's.
            assert_equal(&wanted, &there, &source, &destination, &losses);
        }
    }
}

fn destination_default_acl(destination: &Place) {
    let root = EntryRef::Fd(destination.fd());
    assert!(sys::set_xattr(root, c"system.posix_acl_default", &named_acl()).expect("set").is_done());
}

/// A foreign attribute where the kind takes one and no flag forbids it.
fn there_foreign(there: &Handle<'_>) {
    match sys::set_xattr(there.entry(), c"trusted.foreign", b"x") {
        Ok(answer) => assert!(answer.is_done()),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPERM), "only the immutable refuse"),
    }
}

#[test]
fn a_second_adjustment_changes_nothing_at_all() {
    let image = Image::tmpfs();
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    for (name, kind) in furnish(&source) {
        let wanted = source.open(&name, kind).capture(&source.traits);
        let (made, _) = carry(&wanted, &source, &destination, &name);
        let before = made.stat();
        std::thread::sleep(std::time::Duration::from_millis(15));
        let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
        let have = made.capture(&destination.traits);
        adjust(made.entry(), &wanted, &have, Times::Set, &rules, &mut Losses::default()).expect("adjust");
        assert_eq!(made.stat().ctime, before.ctime, "{name:?}");
    }
}

#[test]
fn set_id_bits_and_capabilities_survive_a_change_of_owner_in_place() {
    let image = Image::new("ext4", &[]);
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    let original = source.make(c"file", Kind::File, 0);
    owner(original.entry(), 1000, 2000);
    mode(original.entry(), 0o6755);
    original.set(c"security.capability", CAPABILITY);
    let wanted = original.capture(&source.traits);
    // Equal in everything but the owner, so that only what the chown takes away has to come back.
    let there = destination.make(c"file", Kind::File, 0);
    mode(there.entry(), 0o6755);
    there.set(c"security.capability", CAPABILITY);
    let have = there.capture(&destination.traits);
    assert!(have.xattrs == wanted.xattrs && have.stat.mode == wanted.stat.mode);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    let mut losses = Losses::default();
    adjust(there.entry(), &wanted, &have, Times::Set, &rules, &mut losses).expect("adjust");
    assert_equal(&wanted, &there, &source, &destination, &losses);
}

#[test]
fn mapped_owners_reach_the_inode_and_its_acl_and_count_once() {
    let image = Image::tmpfs();
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    let original = source.make(c"file", Kind::File, 0);
    owner(original.entry(), 5, 6);
    original.set(c"system.posix_acl_access", &named_acl());
    let wanted = original.capture(&source.traits);
    let map = IdMap::parse(Some("5:50,6:4"), Some("*:60"), None).expect("a map");
    let (made, losses) = carry_mapped(&wanted, &source, &destination, c"file", &map);
    assert_eq!(classes(&losses), [LossClass::OwnerMapped]);
    assert_eq!((made.stat().uid, made.stat().gid), (50, 60));
    let have = made.capture(&destination.traits);
    let no_id = u32::MAX;
    let mapped =
        acl::tests::acl(&[(1, 6, no_id), (2, 4, 4), (2, 7, 50), (4, 0, no_id), (16, 7, no_id), (32, 4, no_id)]);
    assert_eq!(have.xattrs.get(b"system.posix_acl_access"), Some(&mapped[..]));
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &map };
    assert!(difference(&wanted, &have, &rules).none());
}

#[test]
fn looking_by_name_finds_what_looking_by_descriptor_finds() {
    for image in [Image::tmpfs(), Image::new("xfs", &[])] {
        let source = Place::new(&image.directory("source"));
        assert!(source.traits.reads_by_name, "this test needs Linux 6.17");
        for (name, kind) in furnish(&source) {
            let by_fd = source.open(&name, kind).capture(&source.traits);
            let entry = EntryRef::At(source.fd(), &name);
            let mut losses = Losses::default();
            let by_name = capture(entry, &by_fd.stat, &source.traits, &mut losses).expect("capture");
            assert_eq!((by_name.xattrs, by_name.flags.bits), (by_fd.xattrs, by_fd.flags.bits), "{name:?}");
        }
    }
}

#[test]
fn nocow_is_set_before_the_data_on_btrfs_and_holds() {
    const NO_COW: u32 = 0x0080_0000;
    let image = Image::new("btrfs", &[]);
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    let original = source.make(c"file", Kind::File, 0);
    original.set_flags(NO_COW);
    let wanted = original.capture(&source.traits);
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    assert_equal(&wanted, &made, &source, &destination, &losses);
    assert_eq!(made.flags() & NO_COW, NO_COW);
}

#[test]
fn project_ids_of_the_tenant_are_kept_and_the_share_s_own_is_the_destination_s() {
    let (old, new) = (Image::new("xfs", &[]), Image::new("xfs", &[]));
    let (from, to) = (old.directory("share"), new.directory("share"));
    set_project(&from, 7);
    set_project(&to, 42);
    let (source, destination) = (Place::new(&from), Place::new(&to));
    assert_eq!((source.traits.default_project, destination.traits.default_project), (7, 42));
    for (name, kind) in [(c"file", Kind::File), (c"directory", Kind::Directory)] {
        let wanted = source.make(name, kind, 0).capture(&source.traits);
        assert_eq!(wanted.flags.project, 7, "inherited at the source");
        let (made, losses) = carry(&wanted, &source, &destination, name);
        assert_equal(&wanted, &made, &source, &destination, &losses);
        assert_eq!(made.capture(&destination.traits).flags.project, 42, "inherited at the destination");
    }
    for (name, kind) in [(c"tenant's file", Kind::File), (c"tenant's directory", Kind::Directory)] {
        let original = source.make(name, kind, 0);
        set_project(&from.join(name.to_str().expect("text")), 9);
        let wanted = original.capture(&source.traits);
        let (made, losses) = carry(&wanted, &source, &destination, name);
        assert_equal(&wanted, &made, &source, &destination, &losses);
        assert_eq!(made.capture(&destination.traits).flags.project, 9);
    }
}

/// Gives a project id, which a directory hands on.
fn set_project(path: &Path, project: u32) {
    const PROJECT_INHERIT: u32 = 0x200;
    let file = File::open(path).expect("open");
    let sys::Answer::Done(mut flags) = sys::get_extended_flags(file.as_fd()).expect("read") else {
        panic!("no project ids here")
    };
    flags.project = project;
    if path.is_dir() {
        flags.flags |= PROJECT_INHERIT;
    }
    assert!(sys::set_extended_flags(file.as_fd(), &flags).expect("set").is_done());
}

#[test]
fn the_project_of_a_symlink_is_carried_by_name_on_xfs() {
    let image = Image::new("xfs", &[]);
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    let original = source.make(c"link", Kind::Symlink, 0);
    let sys::Answer::Done(mut flags) = sys::get_extended_flags_at(source.fd(), c"link").expect("read") else {
        panic!("this test needs Linux 6.17")
    };
    flags.project = 9;
    assert!(sys::set_extended_flags_at(source.fd(), c"link", &flags).expect("set").is_done());
    let wanted = original.capture(&source.traits);
    assert_eq!(wanted.flags.project, 9);
    let (made, losses) = carry(&wanted, &source, &destination, c"link");
    assert_equal(&wanted, &made, &source, &destination, &losses);
    assert_eq!(made.capture(&destination.traits).flags.project, 9);
}

#[test]
fn an_extent_size_hint_is_set_before_the_data_on_xfs() {
    const EXTSIZE: u32 = 0x800;
    let image = Image::new("xfs", &[]);
    let (source, destination) = (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    let original = source.make(c"file", Kind::File, 0);
    let fd = original.own.as_ref().expect("a file").as_fd();
    let sys::Answer::Done(mut flags) = sys::get_extended_flags(fd).expect("read") else { panic!("xfs tells") };
    (flags.flags, flags.extent_size) = (flags.flags | EXTSIZE, 1 << 20);
    assert!(sys::set_extended_flags(fd, &flags).expect("set").is_done());
    let wanted = original.capture(&source.traits);
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    assert_equal(&wanted, &made, &source, &destination, &losses);
    let have = made.capture(&destination.traits).flags;
    assert_eq!((have.extended & EXTSIZE, have.extent_size), (EXTSIZE, 1 << 20));
}
