//! What finding nothing to do costs: a second run, the filter's word on a path, the catalog's rows.

mod common;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use common::Scratch;
use copyd::store::{
    Batch, CatalogReader, ContentDigest, DirectoryRows, Facts, Fingerprint, Proof, Published, ROOT_DIRECTORY,
    ROOT_PARENT, RootIdentity, Row, StateDir, Store,
};
use copyd::sys::{self, Kind, Time};
use copyd::tree::filter::Filter;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const FILES: usize = 10_000;

/// A second run over a tree in which nothing has changed.
fn second_run(c: &mut Criterion) {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    let made = common::tree(&source, FILES, 1 << 10);
    let (destination, state) = (scratch.directory("destination"), scratch.directory("state"));
    let options = common::options(&source, &destination, &state);
    assert_eq!(common::run(&options).files_copied, FILES as u64);
    let mut group = c.benchmark_group("plan/second-run");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(made.entries));
    group.bench_function("unchanged", |b| {
        b.iter(|| assert_eq!(common::run(&options).files_unchanged, FILES as u64));
    });
    group.finish();
}

/// Rules as people write them: caches and leavings by name, some places by path, one exception.
fn rules() -> Filter {
    let exclude: [&[u8]; 7] =
        [b"*.tmp", b"*~", b".cache/", b"node_modules/", b"/var/tmp/**", b"__pycache__", b"/home/*/Trash/"];
    let mut builder = Filter::builder().include(b"keep.tmp").expect("a pattern of rsync");
    for pattern in exclude {
        builder = builder.exclude(pattern).expect("a pattern of rsync");
    }
    builder.build()
}

fn filter(c: &mut Criterion) {
    let paths: Vec<(Vec<u8>, bool)> = (0..10_000)
        .map(|i| match i % 10 {
            0 => (format!("home/user{}/project{}", i % 7, i % 100).into_bytes(), true),
            1 => (format!("home/user{}/project{}/{i}.tmp", i % 7, i % 100).into_bytes(), false),
            _ => (format!("home/user{}/project{}/source/file{i:07}.rs", i % 7, i % 100).into_bytes(), false),
        })
        .collect();
    let mut group = c.benchmark_group("plan/filter");
    group.throughput(Throughput::Elements(paths.len() as u64));
    for (name, filter) in [("eight-rules", rules()), ("no-rules", Filter::default())] {
        group.bench_function(name, |b| {
            b.iter(|| {
                for (path, is_directory) in &paths {
                    black_box(filter.decide(path, *is_directory));
                }
            });
        });
    }
    group.finish();
}

/// A row as a proved file has it.
fn row(directory: u64, number: u64) -> Row {
    let time = Time { seconds: 1_700_000_000, nanoseconds: 1 };
    let facts = Facts {
        source: Fingerprint { dev: 1, ino: number, size: 4096, mtime: time, ctime: time },
        mode: 0o644,
        published: Some(Published { ino: number, mtime: time, ctime: time }),
        digest: Some(ContentDigest { kind: 0, bytes: [7; 32] }),
        proof: Proof::Proved,
        ..Facts::new(Kind::File)
    };
    Row { directory, name: format!("file{number:07}").into_bytes(), facts, target: None }
}

/// A catalog whose root holds one directory for each count, with that many files.
fn catalog(state: &Path, counts: &[u64]) -> CatalogReader {
    let identity = |path: &Path| {
        let fd = sys::open_root(path).expect("the directory stands");
        RootIdentity::of(&fd, path).expect("a directory has an identity")
    };
    let store = Store::open(&StateDir::open(state).expect("the directory stands")).expect("the state is new");
    let (source, destination) = (identity(Path::new("/")), identity(state));
    let opened = store.find_or_create("migrate", &source, &destination, &[]).expect("the state is new");
    let mut catalog = opened.job.catalog().expect("the state is new");
    let writer = catalog.writer().expect("there is a thread");
    let directory = |directory, name: &str, child| Row {
        directory,
        name: name.into(),
        facts: Facts { child: Some(child), ..Facts::new(Kind::Directory) },
        target: None,
    };
    let mut rows = vec![directory(ROOT_PARENT, "", ROOT_DIRECTORY)];
    for (child, count) in (ROOT_DIRECTORY + 1..).zip(counts) {
        rows.push(directory(ROOT_DIRECTORY, &format!("of-{count}"), child));
        rows.extend((0..*count).map(|number| row(child, number)));
    }
    writer.send(Batch { rows, ..Batch::default() }).expect("there is room");
    writer.finish().expect("there is room");
    catalog.reader().expect("the catalog stands")
}

fn rows(c: &mut Criterion) {
    let scratch = Scratch::new();
    let counts = [30, 10_000];
    let reader = catalog(&scratch.directory("state"), &counts);
    let mut rows = DirectoryRows::default();
    let mut group = c.benchmark_group("plan/catalog");
    for (directory, count) in (ROOT_DIRECTORY + 1..).zip(counts) {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("directory", count), |b| {
            b.iter(|| {
                reader.directory(directory, &mut rows).expect("the catalog is whole");
                assert_eq!(rows.len() as u64, count);
            });
        });
        group.throughput(Throughput::Elements(1));
        let name = format!("file{:07}", count / 2);
        group.bench_function(BenchmarkId::new("one-of", count), |b| {
            b.iter(|| reader.get(directory, name.as_bytes()).expect("the catalog is whole").expect("the row is there"));
        });
    }
    group.throughput(Throughput::Elements(counts.iter().sum::<u64>() + 3));
    group.bench_function("sorted-by-path", |b| {
        b.iter(|| {
            let mut seen = 0_u64;
            let visited = reader.for_each_sorted_by_path(&mut |_, _| {
                seen += 1;
                Ok(())
            });
            visited.expect("the catalog is whole");
            seen
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion(10, Duration::from_secs(2));
    targets = second_run, filter, rows
}
criterion_main!(benches);
