//! Without root: what may be set is set, what may not is named, and nobody gains a right by it.

use std::os::unix::fs::PermissionsExt;

use rustix::fs::{Gid, Uid};

use super::image::Image;
use super::*;

const NOBODY: u32 = 65534;
/// A group that the process is a member of besides its own.
const MEMBER: u32 = 4242;

/// Runs a check in a thread that is `NOBODY`, member of `MEMBER`, without any capability: Linux
/// keeps credentials for each thread.
fn as_nobody(check: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = || {
            rustix::thread::set_thread_groups(&[Gid::from_raw(MEMBER)]).expect("set groups");
            let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_res_gid(gid, gid, gid).expect("set gid");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("set uid");
            assert!(!sys::sees_trusted());
            check();
        };
        scope.spawn(run).join().expect("the check holds");
    });
}

/// A source furnished by root and a destination that belongs to nobody.
fn places() -> (Image, Place, std::path::PathBuf) {
    let image = Image::tmpfs();
    std::fs::set_permissions(image.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let source = Place::new(&image.directory("source"));
    let destination = image.directory("destination");
    std::os::unix::fs::chown(&destination, Some(NOBODY), Some(NOBODY)).expect("chown");
    (image, source, destination)
}

#[test]
fn owners_that_can_not_be_set_are_lost_and_take_their_set_id_bits_with_them() {
    let (_image, source, to) = places();
    let original = source.make(c"file", Kind::File, 0);
    owner(original.entry(), 0, 0);
    mode(original.entry(), 0o6755);
    times(original.entry(), -2, 500_000_000);
    let wanted = original.capture(&source.traits);
    as_nobody(|| {
        let destination = Place::new(&to);
        let (made, losses) = carry(&wanted, &source, &destination, c"file");
        assert_eq!(classes(&losses), [LossClass::Owner, LossClass::Group, LossClass::Mode]);
        let got = made.stat();
        assert_eq!((got.uid, got.mode, got.mtime), (NOBODY, 0o755, wanted.stat.mtime));
    });
}

#[test]
fn the_group_is_set_where_the_process_is_a_member_and_its_set_id_bit_stays() {
    let (_image, source, to) = places();
    let original = source.make(c"file", Kind::File, 0);
    owner(original.entry(), 7, MEMBER);
    mode(original.entry(), 0o6755);
    let wanted = original.capture(&source.traits);
    as_nobody(|| {
        let destination = Place::new(&to);
        let (made, losses) = carry(&wanted, &source, &destination, c"file");
        assert_eq!(classes(&losses), [LossClass::Owner, LossClass::Mode]);
        assert_eq!((made.stat().uid, made.stat().gid, made.stat().mode), (NOBODY, MEMBER, 0o2755));
    });
}

#[test]
fn capabilities_and_trusted_attributes_are_lost_by_class_and_the_others_stay_on_a_read_only_file() {
    let (_image, source, to) = places();
    let original = source.make(c"file", Kind::File, 0);
    owner(original.entry(), NOBODY, NOBODY);
    original.set(c"security.capability", CAPABILITY);
    original.set(c"trusted.x", b"1");
    original.set(c"user.y", b"2");
    original.set(c"system.posix_acl_access", &named_acl());
    mode(original.entry(), 0o474);
    let wanted = original.capture(&source.traits);
    as_nobody(|| {
        let destination = Place::new(&to);
        let (made, losses) = carry(&wanted, &source, &destination, c"file");
        assert_eq!(classes(&losses), [LossClass::Capability, LossClass::Xattr]);
        assert_eq!(made.names(), ["system.posix_acl_access", "user.y"]);
        assert_eq!(made.stat().mode, wanted.stat.mode, "lent for a moment and given back");
        let have = made.capture(&destination.traits);
        assert_eq!(have.xattrs.get(b"system.posix_acl_access"), wanted.xattrs.get(b"system.posix_acl_access"));
    });
}

#[test]
fn guards_and_special_files_owners_are_named_when_root_s_rights_are_missing() {
    let (_image, source, to) = places();
    let original = source.make(c"append", Kind::File, 0);
    owner(original.entry(), NOBODY, NOBODY);
    original.set_flags(0x20);
    let guarded = original.capture(&source.traits);
    let fifo = source.make(c"fifo", Kind::Fifo, 0);
    owner(fifo.entry(), 0, 0);
    mode(fifo.entry(), 0o4640);
    let fifo = fifo.capture(&source.traits);
    as_nobody(|| {
        let destination = Place::new(&to);
        let (_, losses) = carry(&guarded, &source, &destination, c"append");
        assert_eq!(classes(&losses), [LossClass::Flags]);
        let (made, losses) = carry(&fifo, &source, &destination, c"fifo");
        assert_eq!(classes(&losses), [LossClass::Owner, LossClass::Group, LossClass::Mode]);
        assert_eq!(made.stat().mode, 0o640);
    });
    lift(original.entry(), &guarded).expect("lift");
}

#[test]
fn a_source_tells_whether_trusted_attributes_may_be_hidden_from_this_process() {
    let (_image, source, _) = places();
    assert!(source.traits.sees_trusted);
    let file = source.make(c"file", Kind::File, 0);
    file.set(c"trusted.x", b"1");
    mode(file.entry(), 0o644);
    as_nobody(|| {
        let traits = SideTraits::probe(source.fd()).expect("probe");
        assert!(!traits.sees_trusted);
        assert!(file.capture(&traits).xattrs.is_empty());
    });
}
