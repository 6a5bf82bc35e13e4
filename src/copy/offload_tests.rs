//! Copies by the server, on file systems of this machine: the calls are the same, only slower.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::error::Class;

const LEAST: u64 = *limits::OFFLOAD_PIECE_BYTES.start();

fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn make(directory: &Path, name: &str) -> OwnedFd {
    let path = directory.join(name);
    File::options().read(true).write(true).create_new(true).open(path).unwrap().into()
}

/// A file of so many bytes without two equal blocks.
fn source(directory: &Path, bytes: u64) -> OwnedFd {
    let fd = make(directory, "source");
    write(&fd, 0, bytes);
    fd
}

fn write(fd: &OwnedFd, at: u64, bytes: u64) {
    let words: Vec<u8> =
        (0..bytes.div_ceil(8)).flat_map(|i| (i + at).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    file(fd).write_all_at(&words[..usize::try_from(bytes).unwrap()], at).unwrap();
}

fn file(fd: &OwnedFd) -> File {
    fd.try_clone().unwrap().into()
}

fn content(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size(fd)).unwrap()];
    file(fd).read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn size(fd: &OwnedFd) -> u64 {
    file(fd).metadata().unwrap().len()
}

/// Copies `size` bytes; the answer, and the bytes of each piece.
fn copy(
    server: &ServerCopy,
    source: &OwnedFd,
    target: &OwnedFd,
    size: u64,
    holes: Holes,
) -> (Result<bool, MoveError>, Vec<u64>) {
    copy_until(server, &Ends { source, target, size, holes }, u64::MAX)
}

/// As [`copy`], stopped once so many bytes were moved.
fn copy_until(server: &ServerCopy, ends: &Ends<'_>, stop_at: u64) -> (Result<bool, MoveError>, Vec<u64>) {
    let (pieces, moved_bytes) = (std::cell::RefCell::default(), Cell::new(0));
    let moved = |bytes| {
        moved_bytes.set(moved_bytes.get() + bytes);
        Vec::push(&mut *pieces.borrow_mut(), bytes);
    };
    let halted = || moved_bytes.get() >= stop_at;
    let pace = Pace::unlimited();
    let outcome = server.copy(ends, &Between { pace: &pace, halted: &halted, moved: &moved });
    (outcome, pieces.into_inner())
}

#[test]
fn a_file_system_without_clones_says_so_once_and_for_all() {
    let dir = memory();
    let (a, b) = (make(dir.path(), "a"), make(dir.path(), "b"));
    assert_eq!(clone(&a, &b), Cloned::Never);
}

#[test]
fn a_file_is_copied_piece_by_piece_and_its_content_is_equal() {
    let (dir, server) = (memory(), ServerCopy::new(true));
    let bytes = 5 * LEAST + 4097;
    let (source, target) = (source(dir.path(), bytes), make(dir.path(), "target"));
    let (outcome, pieces) = copy(&server, &source, &target, bytes, Holes::None);
    assert!(outcome.unwrap());
    assert!(content(&source) == content(&target), "the content differs");
    assert!(pieces.len() >= 3, "the pieces grow from the least, at most to the double: {pieces:?}");
    assert_eq!(pieces.iter().sum::<u64>(), bytes);
    assert!(server.offered(bytes), "what worked is offered again");
}

#[test]
fn holes_are_neither_copied_nor_filled_and_the_one_at_the_end_counts_to_the_size() {
    let (dir, server) = (memory(), ServerCopy::new(true));
    let source = make(dir.path(), "source");
    write(&source, 3 << 20, 1 << 20);
    write(&source, 9 << 20, 8192);
    rustix::fs::ftruncate(&source, 20 << 20).unwrap();
    let target = make(dir.path(), "target");
    let (outcome, pieces) = copy(&server, &source, &target, 20 << 20, Holes::Extents);
    assert!(outcome.unwrap());
    assert_eq!(pieces, [1 << 20, 8192]);
    assert_eq!(size(&target), 20 << 20);
    assert!(content(&source) == content(&target), "the content differs");
    let blocks = |fd| file(fd).metadata().unwrap().blocks();
    assert!(blocks(&target) <= blocks(&source), "{} {}", blocks(&target), blocks(&source));
}

#[test]
fn a_source_that_has_shrunk_is_hot_and_no_endless_loop() {
    let (dir, server) = (memory(), ServerCopy::new(true));
    let (source, target) = (source(dir.path(), 2 << 20), make(dir.path(), "target"));
    let (outcome, _) = copy(&server, &source, &target, 3 << 20, Holes::None);
    assert_eq!(outcome.unwrap_err().class, Class::Hot);
}

#[test]
fn a_refusal_at_the_first_piece_leaves_the_target_empty_and_is_remembered() {
    let (dir, other, server) = (memory(), Ext4::new(), ServerCopy::new(true));
    let (source, target) = (source(dir.path(), 2 << 20), make(&other.path(), "target"));
    for _ in 0..2 {
        let (outcome, pieces) = copy(&server, &source, &target, 2 << 20, Holes::None);
        assert!(!outcome.unwrap(), "EXDEV: not copied, and no failure");
        assert_eq!((pieces.len(), size(&target)), (0, 0));
        assert!(!server.offered(2 << 20));
    }
}

#[test]
fn a_failure_in_the_middle_empties_the_target_and_the_next_file_is_tried_again() {
    use rustix::fs::{MemfdFlags, SealFlags};
    let server = ServerCopy::new(true);
    let memory = || rustix::fs::memfd_create(c"copy", MemfdFlags::ALLOW_SEALING).unwrap();
    let (source, sealed, target) = (memory(), memory(), memory());
    write(&source, 0, 3 * LEAST);
    // The kernel lets nothing be written past the first piece.
    rustix::fs::ftruncate(&sealed, LEAST).unwrap();
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::GROW).unwrap();
    let (outcome, pieces) = copy(&server, &source, &sealed, 3 * LEAST, Holes::None);
    assert!(!outcome.unwrap());
    assert_eq!((pieces, size(&sealed)), (vec![LEAST], 0));
    assert!(copy(&server, &source, &target, 3 * LEAST, Holes::None).0.unwrap());
    assert!(content(&source) == content(&target), "the content differs");
}

#[test]
fn a_run_that_is_to_stop_waits_for_one_piece_at_most() {
    let (dir, server) = (memory(), ServerCopy::new(true));
    let (source, target) = (source(dir.path(), 6 * LEAST), make(dir.path(), "target"));
    let ends = Ends { source: &source, target: &target, size: 6 * LEAST, holes: Holes::None };
    let (outcome, pieces) = copy_until(&server, &ends, 1);
    assert!(!outcome.unwrap());
    assert_eq!((pieces, size(&target)), (vec![LEAST], 0));
}

#[test]
fn the_rate_limit_holds_for_what_the_server_moves() {
    let (dir, server) = (memory(), ServerCopy::new(true));
    let (source, target) = (source(dir.path(), 6 << 20), make(dir.path(), "target"));
    let pace = Pace::new(&crate::throttle::Throttle::new(Some(8 << 20)), || false);
    let begun = Instant::now();
    let ends = Ends { source: &source, target: &target, size: 6 << 20, holes: Holes::None };
    assert!(server.copy(&ends, &Between { pace: &pace, halted: &|| false, moved: &|_| {} }).unwrap());
    // 6 MiB at 8 MiB/s, less the burst of at least 1 MiB that an idle throttle has saved.
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_moves_the_bytes_itself_is_found_out_at_the_first_piece() {
    let (disk, server) = (Ext4::new(), ServerCopy::new(true));
    let bytes = 2 * LEAST;
    let (source, target) = (source(&disk.path(), bytes), make(&disk.path(), "target"));
    let (outcome, pieces) = copy(&server, &source, &target, bytes, Holes::None);
    assert!(!outcome.unwrap());
    assert_eq!((pieces.len(), size(&target)), (0, 0));
    assert!(!server.offered(bytes));
}

#[test]
fn small_files_and_local_pairs_and_untold_holes_are_left_alone() {
    assert!(!ServerCopy::new(true).offered(limits::OFFLOAD_BYTES_MIN - 1));
    assert!(!ServerCopy::new(false).offered(u64::MAX));
    let (dir, server) = (memory(), ServerCopy::new(true));
    let (source, target) = (source(dir.path(), 2 << 20), make(dir.path(), "target"));
    let (outcome, pieces) = copy(&server, &source, &target, 2 << 20, Holes::Zeros);
    assert!(!outcome.unwrap());
    assert_eq!((pieces.len(), size(&target)), (0, 0));
}

#[test]
fn pieces_grow_on_a_fast_server_and_shrink_on_a_slow_one_within_their_bounds() {
    let most = *limits::OFFLOAD_PIECE_BYTES.end();
    let second = Duration::from_secs(1);
    assert_eq!(next_piece(LEAST, LEAST, Duration::ZERO), 2 * LEAST);
    assert_eq!(next_piece(most, most, Duration::ZERO), most);
    assert_eq!(next_piece(most, most, 4 * second), most / 4);
    assert_eq!(next_piece(most, most, 1000 * second), LEAST);
    assert_eq!(next_piece(most, 10 << 20, second), 8 << 20, "a multiple of the least");
    assert_eq!(next_piece(u64::MAX, u64::MAX, Duration::ZERO), most, "nothing overflows");
    assert_eq!(next_piece(most, 1, Duration::MAX), LEAST);
}

/// A mounted ext4, which has no clones and whose pages are accounted; gone with the value.
struct Ext4(tempfile::TempDir);

impl Ext4 {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        let image = this.0.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(this.path()).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop", "-t", "ext4"]).arg(&image).arg(this.path()));
        this
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("root")
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // A test's descriptors may be closed after this: the mount goes with the last of them.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
