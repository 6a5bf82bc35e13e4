//! What a file system can't hold is named by its class, and nothing else of the entry suffers.

use super::image::Image;
use super::*;

/// Carries a file with one attribute of `bytes` from a side that holds it.
fn carry_large(destination: &Image, bytes: usize) -> Losses {
    let image = Image::new("xfs", &[]);
    let source = Place::new(&image.path());
    let file = source.make(c"file", Kind::File, 0);
    let value: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    file.set(c"user.large", &value);
    file.set(c"user.small", b"small");
    let wanted = file.capture(&source.traits);
    assert_eq!(wanted.xattrs.get(b"user.large"), Some(&value[..]));
    let destination = Place::new(&destination.directory("destination"));
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    let names = made.names();
    assert!(names.contains(&"user.small".to_owned()), "{names:?}");
    if losses.is_empty() {
        assert_equal(&wanted, &made, &source, &destination, &losses);
    }
    losses
}

#[test]
fn an_attribute_of_64_kib_arrives_on_xfs_and_is_lost_by_class_on_ext4() {
    let most = crate::limits::XATTR_VALUE_BYTES;
    assert!(carry_large(&Image::new("xfs", &[]), most).is_empty());
    let losses = carry_large(&Image::new("ext4", &[]), most);
    let told: Vec<_> = losses.iter().collect();
    assert_eq!(told, [(LossClass::Xattr, "\"user.large\": No space left on device (os error 28)")]);
}

#[test]
fn an_attribute_as_large_as_a_node_of_btrfs_arrives_and_a_larger_one_is_lost_by_class() {
    let image = Image::new("btrfs", &[]);
    assert!(carry_large(&image, 16_000).is_empty());
    drop(image);
    assert_eq!(classes(&carry_large(&Image::new("btrfs", &[]), 17_000)), [LossClass::Xattr]);
}

#[test]
fn a_full_file_system_is_an_error_and_no_loss() {
    let (source, full) = (Image::tmpfs(), Image::new("ext4", &["-I", "128", "-m", "0"]));
    let source = Place::new(&source.path());
    let file = source.make(c"file", Kind::File, 0);
    file.set(c"user.some", &[b'x'; 2000]);
    let wanted = file.capture(&source.traits);
    let destination = Place::new(&full.path());
    let made = destination.make(c"file", Kind::File, 0);
    fill_up(&full.path().join("ballast"));
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    let error = apply(made.entry(), &wanted, &made.stat(), Times::Set, &rules, &mut Losses::default())
        .expect_err("no room for a block of attributes");
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOSPC));
    let error = error.at(Side::Destination, b"file".to_vec());
    assert_eq!((error.class, error.operation), (crate::error::Class::NoSpace, "set extended attribute"));
}

fn fill_up(path: &Path) {
    let file = File::create(path).expect("create");
    let (mut offset, mut step) = (0, 64 << 20);
    while step > 0 {
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), offset, step) {
            Ok(()) => offset += step,
            Err(_) => step /= 2,
        }
    }
}

#[test]
fn times_of_every_century_arrive_or_are_named_as_what_they_became() {
    // (file system, seconds, nanoseconds, what is lost)
    let btrfs: [(i64, u32); 7] = [
        (-2, 500_000_000),
        (-2_177_452_800, 1),
        (-8_589_934_592, 5),
        (4_294_967_296, 999_999_999),
        (15_032_385_536, 1),
        (16_299_260_425, 7),
        (1 << 40, 0),
    ];
    assert_times("btrfs", &btrfs.map(|(s, n)| (s, n, None)));
    let ext4 = [
        (-2, 500_000_000, None),
        (-2_147_483_648, 0, None),
        (-2_177_452_800, 1, Some(LossClass::Times)),
        (4_294_967_296, 999_999_999, None),
        (15_032_385_534, 1, None),
        (15_032_385_535, 1, Some(LossClass::TimeGrain)),
        (15_032_385_545, 0, Some(LossClass::Times)),
    ];
    assert_times("ext4", &ext4);
    let xfs = [
        (-2, 500_000_000, None),
        (-2_147_483_658, 0, Some(LossClass::Times)),
        (15_032_385_545, 7, None),
        (16_299_260_440, 0, Some(LossClass::Times)),
    ];
    assert_times("xfs", &xfs);
}

fn assert_times(kind: &str, cases: &[(i64, u32, Option<LossClass>)]) {
    let (from, to) = (Image::tmpfs(), Image::new(kind, &[]));
    let (source, destination) = (Place::new(&from.path()), Place::new(&to.path()));
    for (seconds, nanoseconds, lost) in cases {
        let original = source.make(c"file", Kind::File, 0);
        times(original.entry(), *seconds, *nanoseconds);
        let wanted = original.capture(&source.traits);
        assert_eq!(wanted.stat.mtime, Time { seconds: *seconds, nanoseconds: *nanoseconds });
        let (made, losses) = carry(&wanted, &source, &destination, c"file");
        assert_eq!(classes(&losses), lost.iter().copied().collect::<Vec<_>>(), "{kind} {seconds}");
        if lost.is_none() {
            assert_eq!(made.stat().mtime, wanted.stat.mtime);
        }
        remove(&source, c"file");
        remove(&destination, c"file");
    }
}

#[test]
fn the_grain_of_times_is_measured_on_a_new_file_and_rounding_is_then_no_difference() {
    let (from, to) = (Image::tmpfs(), Image::new("ext4", &["-I", "128"]));
    let (source, mut destination) = (Place::new(&from.path()), Place::new(&to.path()));
    let probe = destination.make(c"probe", Kind::File, 0);
    let fd = probe.own.as_ref().expect("a file").as_fd();
    let mut traits = destination.traits.clone();
    traits.learn_from_new_file(fd).expect("learn");
    drop(probe);
    assert_eq!((traits.time_grain_ns, source.traits.time_grain_ns), (1_000_000_000, 1));
    destination.traits = traits;
    let original = source.make(c"file", Kind::File, 0);
    times(original.entry(), 1_700_000_000, 123_456_789);
    let wanted = original.capture(&source.traits);
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    assert_eq!(classes(&losses), [LossClass::TimeGrain]);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    assert!(difference(&wanted, &made.capture(&destination.traits), &rules).none());
    let mut fine = Place::new(&from.path()).traits;
    fine.learn_from_new_file(original.own.as_ref().expect("a file").as_fd()).expect("learn");
    assert_eq!(fine.time_grain_ns, 1);
}

#[test]
fn signatures_of_inodes_are_not_carried_and_said_to_be_unsettable() {
    let image = Image::tmpfs();
    let source = Place::new(&image.path());
    let file = source.make(c"file", Kind::File, 0);
    file.set(c"security.ima", &[1, 2, 3]);
    let mut losses = Losses::default();
    let captured = capture(file.entry(), &file.stat(), &source.traits, &mut losses).expect("capture");
    assert!(captured.xattrs.is_empty());
    assert_eq!(classes(&losses), [LossClass::Integrity]);
}

#[test]
fn more_attributes_than_memory_should_hold_are_cut_off_by_class() {
    let image = Image::new("xfs", &[]);
    let source = Place::new(&image.path());
    let file = source.make(c"file", Kind::File, 0);
    let value = vec![b'x'; crate::limits::XATTR_VALUE_BYTES];
    for number in 0..80 {
        file.set(&CString::new(format!("trusted.{number:03}")).expect("a name"), &value);
    }
    let mut losses = Losses::default();
    let captured = capture(file.entry(), &file.stat(), &source.traits, &mut losses).expect("capture");
    assert_eq!(classes(&losses), [LossClass::Xattr]);
    let bytes: usize = captured.xattrs.iter().map(|x| x.name.count_bytes() + x.value.len()).sum();
    assert!(bytes <= crate::limits::XATTR_TOTAL_BYTES && bytes > crate::limits::XATTR_TOTAL_BYTES / 2);
}

/// A destination that answers no attributes and no flags, as a poor file system does.
fn poor(place: &mut Place) {
    place.traits = SideTraits::default();
}

#[test]
fn without_acls_the_group_gets_only_what_the_acl_gave_it_and_the_class_is_told() {
    let image = Image::tmpfs();
    let (source, mut destination) =
        (Place::new(&image.directory("source")), Place::new(&image.directory("destination")));
    poor(&mut destination);
    let original = source.make(c"file", Kind::File, 0);
    mode(original.entry(), 0o600);
    original.set(c"system.posix_acl_access", &named_acl());
    original.set(c"trusted.x", b"y");
    let wanted = original.capture(&source.traits);
    assert_eq!(wanted.stat.mode, 0o674);
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    assert_eq!(classes(&losses), [LossClass::Xattr, LossClass::Acl]);
    assert_eq!(made.stat().mode, 0o604);
    // What stands there with the wide mode is narrowed too.
    mode(made.entry(), 0o674);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    let have = made.capture(&destination.traits);
    let mut losses = Losses::default();
    adjust(made.entry(), &wanted, &have, Times::Set, &rules, &mut losses).expect("adjust");
    assert_eq!((made.stat().mode, losses.contains(LossClass::Acl)), (0o604, true));
}

#[test]
fn flags_that_a_file_system_does_not_know_are_lost_one_by_one() {
    const NODUMP_SYNC_IMMUTABLE: u32 = 0x40 | 0x8 | 0x10;
    let (from, to) = (Image::new("xfs", &[]), Image::tmpfs());
    let (source, destination) = (Place::new(&from.path()), Place::new(&to.path()));
    let original = source.make(c"file", Kind::File, 0);
    let fd = original.own.as_ref().expect("a file").as_fd();
    let sys::Answer::Done(mut extended) = sys::get_extended_flags(fd).expect("read") else { panic!("xfs tells") };
    extended.project = 5;
    assert!(sys::set_extended_flags(fd, &extended).expect("set").is_done());
    original.set_flags(NODUMP_SYNC_IMMUTABLE);
    let wanted = original.capture(&source.traits);
    let (made, losses) = carry(&wanted, &source, &destination, c"file");
    // tmpfs knows nodump and immutable, but neither sync nor projects.
    assert_eq!(classes(&losses), [LossClass::Project, LossClass::InodeFlags]);
    assert_eq!(made.flags() & NODUMP_SYNC_IMMUTABLE, 0x40 | 0x10);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    assert!(difference(&wanted, &made.capture(&destination.traits), &rules).flags, "the next run tells it again");
    let mut found = Losses::default();
    check(made.entry(), &wanted, &rules, &mut found).expect("check");
    assert_eq!(classes(&found), [LossClass::InodeFlags, LossClass::Project]);
    for handle in [&original, &made] {
        lift(handle.entry(), &handle.capture(&source.traits)).expect("lift");
    }
}

#[test]
fn a_side_that_answers_no_flags_loses_the_guards_by_class() {
    let (from, to) = (Image::tmpfs(), Image::tmpfs());
    let (source, mut destination) = (Place::new(&from.path()), Place::new(&to.path()));
    let original = source.make(c"file", Kind::File, 0);
    original.set_flags(0x20);
    let wanted = original.capture(&source.traits);
    poor(&mut destination);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    // procfs stands for a file system whose descriptors refuse the ioctls.
    let nowhere = File::open("/proc/self/status").expect("open");
    let mut losses = Losses::default();
    apply_after_publish(EntryRef::Fd(nowhere.as_fd()), &wanted, &rules, &mut losses).expect("apply");
    assert_eq!(classes(&losses), [LossClass::Flags]);
    lift(original.entry(), &wanted).expect("lift");
}

#[test]
fn a_casefolded_directory_is_a_loss_where_names_mean_what_they_are() {
    const CASEFOLD: u32 = 0x4000_0000;
    let (from, to) = (Image::tmpfs(), Image::new("ext4", &[]));
    let (source, destination) = (Place::new(&from.path()), Place::new(&to.path()));
    let mut wanted = source.make(c"folded", Kind::Directory, 0).capture(&source.traits);
    // As a kernel with CONFIG_UNICODE tells it; this one can't be relied on to have it.
    wanted.flags.bits |= CASEFOLD;
    let (_made, losses) = carry(&wanted, &source, &destination, c"folded");
    let told: Vec<_> = losses.iter().collect();
    assert_eq!(told, [(LossClass::Flags, "casefold: only the file system itself gives it")]);
}
