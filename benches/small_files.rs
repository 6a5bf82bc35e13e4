//! A first copy of many small files, from the opening of the job to its last row: files a second.

mod common;

use std::time::Duration;

use common::Scratch;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const FILES: usize = 5_000;
/// Largest file; the average is half of it.
const BYTES_MAX: usize = 8 << 10;

fn first_copy(c: &mut Criterion) {
    let scratch = Scratch::new();
    let made = common::tree(scratch.path(), FILES, BYTES_MAX);
    let mut group = c.benchmark_group("small_files/first-copy");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(made.entries));
    for (name, backend, verify) in common::ways() {
        group.bench_function(name, |b| {
            b.iter_custom(|count| common::first_copies(count, scratch.path(), backend, verify));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion(10, Duration::from_secs(3));
    targets = first_copy
}
criterion_main!(benches);
