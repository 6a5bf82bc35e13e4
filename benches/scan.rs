//! What looking at a tree costs: names, statx, descriptors; one thread, nothing decided.

mod common;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::Scratch;
use copyd::error::Side;
use copyd::sys::{self, Kind};
use copyd::tree::listing::{self, Names};
use copyd::tree::node::{Handles, Node};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MOST: u64 = copyd::limits::DIRECTORY_ENTRIES_MAX;

/// Names, and thirty to a directory: some seven hundred directories.
const FILES: usize = 20_000;

fn root(at: &Path) -> Arc<Node<()>> {
    let fd = Arc::new(sys::open_root(at).expect("the tree stands"));
    Node::root(Handles::new(512), fd, None, ())
}

/// Visits a whole tree depth first, as the scan of a pass does; entries found, the root included.
fn walk(at: &Path, mut look: impl FnMut(&OwnedFd, &CStr) -> io::Result<bool>) -> io::Result<u64> {
    let mut waiting = vec![root(at)];
    let mut entries = 1;
    while let Some(node) = waiting.pop() {
        let fd = node.open(Side::Source)?;
        listing::pages::<io::Error>(&fd, MOST, |page| {
            for entry in page.drain(..) {
                entries += 1;
                if look(&fd, &entry.name)? {
                    waiting.push(node.child(entry.name, ()));
                }
            }
            Ok(())
        })?;
        node.close();
    }
    Ok(entries)
}

fn trees(c: &mut Criterion) {
    let scratch = Scratch::new();
    let made = common::tree(scratch.path(), FILES, 16);
    let mut group = c.benchmark_group("scan/tree");
    group.throughput(Throughput::Elements(made.entries));
    group.bench_function("list-and-statx", |b| {
        b.iter(|| {
            let look = |fd: &OwnedFd, name: &CStr| Ok(sys::stat_at(fd.as_fd(), name)?.kind == Kind::Directory);
            let entries = walk(scratch.path(), look).expect("nobody changes the tree");
            assert_eq!(entries, made.entries);
        });
    });
    // What is left is statx: directories are known by their names here.
    group.bench_function("list", |b| {
        b.iter(|| {
            let look = |_: &OwnedFd, name: &CStr| Ok(!name.to_bytes().starts_with(b"file"));
            let entries = walk(scratch.path(), look).expect("nobody changes the tree");
            assert_eq!(entries, made.entries);
        });
    });
    group.finish();
}

/// One directory with everything in it: listing it, and knowing the names of the other side.
fn flat(c: &mut Criterion) {
    let scratch = Scratch::new();
    for i in 0..FILES {
        std::fs::File::create_new(scratch.path().join(format!("file{i:07}"))).expect("the name is free");
    }
    let fd = sys::open_root(scratch.path()).expect("the directory stands");
    let mut group = c.benchmark_group("scan/flat");
    group.throughput(Throughput::Elements(FILES as u64));
    group.bench_function("list-and-statx", |b| {
        b.iter(|| {
            listing::pages::<io::Error>(&fd, MOST, |page| {
                page.iter().try_for_each(|entry| sys::stat_at(fd.as_fd(), &entry.name).map(|_| ()))
            })
            .expect("nobody changes the directory");
        });
    });
    group.bench_function("names-read", |b| b.iter(|| Names::read(&fd, MOST).expect("nobody changes the directory")));
    group.bench_function("names-read-and-see", |b| {
        b.iter(|| {
            let mut names = Names::read(&fd, MOST).expect("nobody changes the directory");
            listing::pages::<io::Error>(&fd, MOST, |page| {
                assert!(page.iter().all(|entry| names.see(&entry.name)));
                Ok(())
            })
            .expect("nobody changes the directory");
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion(20, Duration::from_secs(2));
    targets = trees, flat
}
criterion_main!(benches);
