//! One large file: a whole run over it, and the copy alone on one thread with each backend.

mod common;

use rustix::fs::Mode;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Scratch;
use copyd::copy::big::{BigFile, Claim, Ends};
use copyd::copy::blocks::{BlockIo, Threads, Uring};
use copyd::copy::drive::drive;
use copyd::copy::range::{Digester, Holes, Pace, RangeMove};
use copyd::error::Side;
use copyd::hash::{FileHasher, HolePolicy};
use copyd::sys::{self, ReadMode};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const FILE_BYTES: u64 = 512 << 20;

/// From the opening of the job to its last row, all workers.
fn first_copy(c: &mut Criterion) {
    let scratch = Scratch::new();
    common::file(&scratch.path().join("large"), FILE_BYTES);
    let mut group = c.benchmark_group("large_file/first-copy");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(FILE_BYTES));
    for (name, backend, verify) in common::ways() {
        group.bench_function(name, |b| {
            b.iter_custom(|count| common::first_copies(count, scratch.path(), backend, verify));
        });
    }
    group.finish();
}

/// One machine from the first byte to the last: a block is in flight at a time.
fn one_range(from: &Arc<OwnedFd>, to: OwnedFd, io: &mut dyn BlockIo) {
    let mut hasher = Box::new(FileHasher::new());
    hasher.begin(FILE_BYTES, HolePolicy::Extents);
    let (to, pace) = (Arc::new(to), Arc::new(Pace::unlimited()));
    let digester = Digester::Whole(hasher);
    let mut machine =
        Some(RangeMove::copy(Arc::clone(from), to, 0..FILE_BYTES, Holes::None, digester, Arc::clone(&pace)));
    drive(
        io,
        || machine.take(),
        |machine, outcome| {
            outcome.expect("the file is moved");
            let Digester::Whole(mut hasher) = machine.digester else { return };
            hasher.finish().expect("all bytes came");
        },
    )
    .expect("the backend works");
}

/// One machine a chunk, as many in flight as the backend has slots.
fn in_chunks(from: &Arc<OwnedFd>, to: OwnedFd, io: &mut dyn BlockIo) {
    let ends = Ends {
        from: Arc::clone(from),
        side: Side::Source,
        to: Some(Arc::new(to)),
        size: FILE_BYTES,
        holes: Holes::None,
        hash: Some(HolePolicy::Extents),
    };
    let file = BigFile::new((), ends, Arc::new(Pace::unlimited()));
    let supply = || if let Claim::Chunk(chunk) = file.claim() { Some(*chunk) } else { None };
    drive(io, supply, |chunk, outcome| {
        file.settle(chunk, outcome);
    })
    .expect("the backend works");
    file.outcome(&|| false).expect("every chunk is moved");
}

/// How one file is moved on one thread: from, to, by which backend.
type Way = fn(&Arc<OwnedFd>, OwnedFd, &mut dyn BlockIo);

/// The copy's own machines, without scan, staging, metadata and catalog.
fn copy(c: &mut Criterion) {
    let scratch = Scratch::new();
    common::file(&scratch.path().join("large"), FILE_BYTES);
    let directory = sys::open_root(scratch.path()).expect("the directory stands");
    let from = sys::open_read(directory.as_fd(), c"large", ReadMode::Cached).expect("the file stands");
    let from = Arc::new(from);
    let name = CString::from(c"copy");
    let mut group = c.benchmark_group("large_file/copy");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(FILE_BYTES));
    let mut threads = Threads::new().expect("there is memory");
    // Where io_uring is refused there is nothing to compare with.
    let mut uring = Uring::new().inspect_err(|e| eprintln!("io_uring is refused here, not measured: {e}")).ok();
    for (way, carry) in [("one-range", one_range as Way), ("in-chunks", in_chunks as Way)] {
        let backends: [(&str, Option<&mut dyn BlockIo>); 2] =
            [("threads", Some(&mut threads)), ("uring", uring.as_mut().map(|io| io as &mut dyn BlockIo))];
        for (backend, io) in backends {
            let Some(io) = io else { continue };
            group.bench_function(format!("{way}/{backend}"), |b| {
                b.iter_custom(|count| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..count {
                        let to =
                            sys::create(directory.as_fd(), &name, Mode::RUSR | Mode::WUSR).expect("the name is free");
                        let started = Instant::now();
                        carry(&from, to, io);
                        spent += started.elapsed();
                        rustix::fs::unlinkat(&directory, &*name, rustix::fs::AtFlags::empty()).expect("it was made");
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion(10, Duration::from_secs(4));
    targets = first_copy, copy
}
criterion_main!(benches);
