//! What proving costs: hashing files small and large, chunks and their merge, zeros, the share.

mod common;

use std::hint::black_box;
use std::time::Duration;

use common::Rng;
use copyd::copy::range::all_zero;
use copyd::hash::{ChunkHasher, Digest, FileHasher, HolePolicy, ShareContent, ShareDigest, ShareEntry, is_zero, merge};
use copyd::limits::{BLOCK_BYTES, CHUNK_BYTES, ZERO_BYTES_MAX};
use copyd::sys::Time;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Feeds `size` bytes of `data`, again and again from its start, block by block as the copy does.
fn feed(size: u64, data: &[u8], mut update: impl FnMut(&[u8])) {
    let mut left = size;
    while left > 0 {
        for block in data.chunks(BLOCK_BYTES) {
            let step = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            update(&block[..step]);
            left -= step as u64;
        }
    }
}

/// One file after the other on one thread, the hasher used again: per byte, and per file.
fn files(c: &mut Criterion) {
    let data = Rng::new(1).bytes(1 << 22);
    let mut hasher = FileHasher::new();
    let mut group = c.benchmark_group("hash/file");
    for size in [0, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 64 << 20] {
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: size });
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                hasher.begin(size, HolePolicy::Extents);
                feed(size, &data, |bytes| hasher.update(bytes));
                hasher.finish().expect("all bytes came")
            });
        });
    }
    group.finish();
}

/// One chunk of a file that the hole rule can't apply to, and of one where each block is looked at.
fn chunks(c: &mut Criterion) {
    let data = Rng::new(2).bytes(1 << 22);
    let zeros = vec![0; 1 << 22];
    let (plain, tracked) = (ZERO_BYTES_MAX, ZERO_BYTES_MAX * 2);
    let mut group = c.benchmark_group("hash/chunk");
    group.throughput(Throughput::Bytes(CHUNK_BYTES));
    for (name, size, content) in
        [("plain", plain, &data), ("tracked", tracked, &data), ("tracked-zeros", tracked, &zeros)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut hasher = ChunkHasher::new(size, 1, HolePolicy::Extents).expect("the file has the chunk");
                feed(CHUNK_BYTES, content, |bytes| hasher.update(bytes));
                hasher.finish().expect("all bytes came")
            });
        });
    }
    group.finish();
}

/// From the sums of all chunks to the file's digest.
fn merges(c: &mut Criterion) {
    let data = Rng::new(3).bytes(1 << 22);
    let mut group = c.benchmark_group("hash/merge");
    for count in [4_u64, 60] {
        let size = count * CHUNK_BYTES;
        let sum = |chunk| {
            let mut hasher = ChunkHasher::new(size, chunk, HolePolicy::Extents).expect("the file has the chunk");
            feed(CHUNK_BYTES, &data, |bytes| hasher.update(bytes));
            hasher.finish().expect("all bytes came")
        };
        let sums: Vec<_> = (0..count).map(sum).collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("chunks", count), |b| {
            b.iter(|| merge(size, black_box(&sums), HolePolicy::Extents).expect("all chunks came"));
        });
    }
    group.finish();
}

/// Both tests for zeros on a block that has nothing else, their worst case.
fn zeros(c: &mut Criterion) {
    let block = vec![0; BLOCK_BYTES];
    let mut group = c.benchmark_group("hash/zeros");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    group.bench_function("hash::is_zero", |b| b.iter(|| is_zero(black_box(&block))));
    group.bench_function("range::all_zero", |b| b.iter(|| all_zero(black_box(&block))));
    group.finish();
}

/// A share's digests, entry by entry.
fn share(c: &mut Criterion) {
    let paths: Vec<Vec<u8>> = (0..10_000).map(|i| format!("d/e{:03}/file{i:07}", i / 30).into_bytes()).collect();
    let digest = Digest::of(b"content");
    let mut group = c.benchmark_group("hash/share");
    group.throughput(Throughput::Elements(paths.len() as u64));
    group.bench_function("push", |b| {
        b.iter_batched(
            ShareDigest::new,
            |mut share| {
                for path in &paths {
                    let entry = ShareEntry {
                        path,
                        content: ShareContent::File(digest),
                        mode: 0o644,
                        uid: 1000,
                        gid: 1000,
                        mtime: Time { seconds: 1_700_000_000, nanoseconds: 1 },
                        xattrs: None,
                        link_group: b"",
                    };
                    share.push(&entry).expect("the paths are in order");
                }
                share.finish()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion(20, Duration::from_secs(1));
    targets = files, chunks, merges, zeros, share
}
criterion_main!(benches);
