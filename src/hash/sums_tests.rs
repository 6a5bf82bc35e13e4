//! Any cut, any order, any holes: the same digest as from the plain bytes.

use proptest::prelude::*;

use super::super::chunk::{ChunkHasher, chunk_len, is_zero};
use super::super::file::FileHasher;
use super::*;
use crate::limits::{CHUNK_BYTES, ZERO_BLOCK_BYTES, ZERO_BYTES_MAX};

const SMALL: Geometry = Geometry { block_bytes: 1024, chunk_bytes: 4096, zero_bytes_max: 8192 };

/// A run of a file as a copier meets it.
#[derive(Clone, Debug)]
enum Run {
    Hole(u64),
    Zeros(usize),
    Data(usize, u8),
}

fn data(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn plain(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in runs {
        match run {
            Run::Hole(len) => bytes.resize(bytes.len() + usize::try_from(*len).unwrap(), 0),
            Run::Zeros(len) => bytes.resize(bytes.len() + len, 0),
            Run::Data(len, seed) => bytes.extend(data(*len, *seed)),
        }
    }
    bytes
}

/// The definition in the module's head, written down once more from the plain bytes.
fn defined(geometry: Geometry, bytes: &[u8], policy: HolePolicy) -> Digest {
    use blake3::hazmat::HasherExt;
    let block_bytes = usize::try_from(geometry.block_bytes).unwrap();
    let zero_bytes: usize = bytes.chunks(block_bytes).filter(|block| is_zero(block)).map(<[u8]>::len).sum();
    if policy == HolePolicy::Standard || zero_bytes as u64 <= geometry.zero_bytes_max {
        return Digest::of(bytes);
    }
    let mut whole = b"copyd b3-nonzero v1\n".to_vec();
    whole.extend((bytes.len() as u64).to_le_bytes());
    for (index, chunk) in bytes.chunks(usize::try_from(geometry.chunk_bytes).unwrap()).enumerate() {
        let mut group = Vec::new();
        for (block_index, block) in chunk.chunks(block_bytes).enumerate() {
            if !is_zero(block) {
                let offset = index as u64 * geometry.chunk_bytes + block_index as u64 * geometry.block_bytes;
                group.extend(offset.to_le_bytes());
                group.extend(blake3::Hasher::new().set_input_offset(offset).update(block).finalize_non_root());
            }
        }
        if !group.is_empty() {
            whole.extend((index as u64).to_le_bytes());
            whole.extend(blake3::hash(&group).as_bytes());
        }
    }
    Digest { kind: DigestKind::Blake3Nonzero, bytes: blake3::hash(&whole).into() }
}

/// Feeds every chunk from the runs, in pieces of at most `piece` bytes, and collects the sums in an
/// order that `rotate` turns; an even one also has whole hole chunks go in unread.
fn chunked(geometry: Geometry, runs: &[Run], policy: HolePolicy, piece: usize, rotate: u64) -> Digest {
    let bytes = plain(runs);
    let size = bytes.len() as u64;
    let mut holes = Vec::new();
    let mut at = 0;
    for run in runs {
        let len = match run {
            Run::Hole(len) => *len,
            Run::Zeros(len) | Run::Data(len, _) => *len as u64,
        };
        if matches!(run, Run::Hole(_)) {
            holes.push(at..at + len);
        }
        at += len;
    }
    let mut sums = FileSums::with_geometry(geometry, size, policy);
    let chunks = geometry.chunk_count(size);
    for turn in 0..chunks {
        let index = (turn + rotate) % chunks;
        let start = index * geometry.chunk_bytes;
        let end = start + geometry.chunk_len(size, index);
        if holes.iter().any(|hole| hole.start <= start && end <= hole.end) && rotate.is_multiple_of(2) {
            sums.insert_hole_run(index, 1).unwrap();
            continue;
        }
        let mut hasher = ChunkHasher::with_geometry(geometry, size, index, policy).unwrap();
        let mut at = start;
        while at < end {
            let hole = holes.iter().find(|hole| hole.contains(&at));
            let next = holes.iter().map(|hole| hole.start).find(|next| *next > at).unwrap_or(end);
            let stop = hole.map_or(next, |hole| hole.end).min(at + piece as u64).min(end);
            if hole.is_some() {
                hasher.zeros(stop - at);
            } else {
                hasher.update(&bytes[usize::try_from(at).unwrap()..usize::try_from(stop).unwrap()]);
            }
            at = stop;
        }
        sums.insert(index, hasher.finish().unwrap()).unwrap();
    }
    sums.digest(&|| false).unwrap()
}

/// The same file through the sequential hasher, which is told whole runs.
fn sequential(hasher: &mut FileHasher, runs: &[Run], policy: HolePolicy) -> Digest {
    hasher.begin(plain(runs).len() as u64, policy);
    for run in runs {
        match run {
            Run::Hole(len) => hasher.zeros(*len),
            Run::Zeros(len) => hasher.update(&vec![0; *len]),
            Run::Data(len, seed) => hasher.update(&data(*len, *seed)),
        }
    }
    hasher.finish().unwrap()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        0_usize..3000,
        // Around the borders of blocks and chunks.
        (0_usize..14, 0_usize..3).prop_map(|(blocks, off)| (blocks * 1024 + off).saturating_sub(1)),
    ]
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = prop_oneof![
        length().prop_map(|len| Run::Hole(len as u64)),
        length().prop_map(Run::Zeros),
        (length(), any::<u8>()).prop_map(|(len, seed)| Run::Data(len, seed)),
        (1_usize..20, any::<u8>()).prop_map(|(len, seed)| Run::Data(len, seed)),
    ];
    prop::collection::vec(run, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_gives_the_defined_digest(runs in runs(), piece in 1_usize..9000, rotate in 0_u64..9) {
        let bytes = plain(&runs);
        for policy in [HolePolicy::Extents, HolePolicy::Standard] {
            let expected = defined(SMALL, &bytes, policy);
            prop_assert_eq!(chunked(SMALL, &runs, policy, piece, rotate), expected);
            prop_assert_eq!(sequential(&mut FileHasher::with_geometry(SMALL), &runs, policy), expected);
        }
    }

    #[test]
    fn a_hole_and_its_zero_bytes_give_one_digest(runs in runs(), piece in 1_usize..9000) {
        let filled: Vec<Run> = runs.iter().map(|run| match run {
            Run::Hole(len) => Run::Zeros(usize::try_from(*len).unwrap()),
            other => other.clone(),
        }).collect();
        prop_assert_eq!(
            chunked(SMALL, &runs, HolePolicy::Extents, piece, 0),
            chunked(SMALL, &filled, HolePolicy::Extents, 4096, 1)
        );
    }
}

#[test]
fn random_files_reach_both_kinds() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut nonzero = 0;
    for _ in 0..200 {
        let runs = runs().new_tree(&mut runner).unwrap().current();
        nonzero += i32::from(defined(SMALL, &plain(&runs), HolePolicy::Extents).kind == DigestKind::Blake3Nonzero);
    }
    assert!((40..160).contains(&nonzero), "{nonzero} of 200");
}

#[test]
fn one_hasher_serves_file_after_file_of_any_sort() {
    let mut hasher = FileHasher::with_geometry(SMALL);
    for runs in [
        vec![Run::Data(10, 1)],
        vec![Run::Hole(50_000)],
        vec![],
        vec![Run::Data(9000, 2), Run::Hole(40_000), Run::Data(7, 3)],
        vec![Run::Data(5000, 4)],
    ] {
        let expected = defined(SMALL, &plain(&runs), HolePolicy::Extents);
        assert_eq!(sequential(&mut hasher, &runs, HolePolicy::Extents), expected, "{runs:?}");
    }
    hasher.begin(5, HolePolicy::Extents);
    hasher.update(b"abc");
    assert_eq!(hasher.finish(), Err(SumsError::Length { expected: 5, fed: 3 }));
    hasher.begin(20_000, HolePolicy::Extents);
    hasher.zeros(20_001);
    assert_eq!(hasher.finish(), Err(SumsError::Length { expected: 20_000, fed: 20_001 }));
}

/// The digest of the runs with the cut that copyd ships, chunks hashed on two threads.
fn real(size: u64, blocks: &[(u64, &[u8])], policy: HolePolicy) -> Digest {
    let sums = std::sync::Mutex::new(FileSums::new(size, policy));
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let chunk = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Ok(mut hasher) = ChunkHasher::new(size, chunk, policy) else { return };
                    let (start, mut at) = (chunk * CHUNK_BYTES, chunk * CHUNK_BYTES);
                    let end = start + chunk_len(size, chunk);
                    for (offset, bytes) in blocks {
                        let (from, to) = ((*offset).max(at), (offset + bytes.len() as u64).min(end));
                        if from < to {
                            hasher.zeros(from - at);
                            hasher.update(
                                &bytes[usize::try_from(from - offset).unwrap()..usize::try_from(to - offset).unwrap()],
                            );
                            at = to;
                        }
                    }
                    hasher.zeros(end - at);
                    sums.lock().unwrap().insert(chunk, hasher.finish().unwrap()).unwrap();
                }
            });
        }
    });
    sums.into_inner().unwrap().digest(&|| false).unwrap()
}

#[test]
fn the_shipped_cut_gives_the_standard_hash_around_its_borders() {
    let bytes = data(usize::try_from(3 * CHUNK_BYTES + 2).unwrap(), 7);
    let mib = ZERO_BLOCK_BYTES;
    let sizes = [0, 1, mib - 1, mib, mib + 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES];
    for size in sizes.into_iter().chain([2 * CHUNK_BYTES + 1, 3 * CHUNK_BYTES - mib, 3 * CHUNK_BYTES + 1]) {
        let bytes = &bytes[..usize::try_from(size).unwrap()];
        for policy in [HolePolicy::Extents, HolePolicy::Standard] {
            assert_eq!(real(size, &[(0, bytes)], policy), Digest::of(bytes), "{size}");
        }
    }
}

#[test]
fn a_gibibyte_of_zeros_has_its_standard_hash_and_one_byte_more_has_not() {
    let zeros = |size| Digest { kind: DigestKind::Blake3, bytes: hash_of_zeros(size) };
    assert_eq!(real(ZERO_BYTES_MAX, &[], HolePolicy::Extents), zeros(ZERO_BYTES_MAX));
    let more = ZERO_BYTES_MAX + 1;
    assert_eq!(real(more, &[], HolePolicy::Standard), zeros(more));
    let nonzero = real(more, &[], HolePolicy::Extents);
    let expected = blake3::hash(&[b"copyd b3-nonzero v1\n".as_slice(), &more.to_le_bytes()].concat());
    assert_eq!(nonzero, Digest { kind: DigestKind::Blake3Nonzero, bytes: expected.into() });
}

#[test]
fn a_large_file_with_just_few_enough_zeros_has_its_standard_hash() {
    // A mixed chunk, a dense one, and a byte in the partial last block; 1024 blocks are zero.
    let size = ZERO_BYTES_MAX + CHUNK_BYTES + 3 * ZERO_BLOCK_BYTES + 5;
    let (mixed, dense) = (data(2_500_000, 1), data(usize::try_from(CHUNK_BYTES).unwrap(), 2));
    let blocks: [(u64, &[u8]); 3] = [(5 * ZERO_BLOCK_BYTES, &mixed), (20 * CHUNK_BYTES, &dense), (size - 1, &[1])];
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    for (offset, bytes) in blocks {
        hash_zeros(&mut hasher, offset - at);
        hasher.update(bytes);
        at = offset + bytes.len() as u64;
    }
    let standard = Digest { kind: DigestKind::Blake3, bytes: hasher.finalize().into() };
    assert_eq!(real(size, &blocks, HolePolicy::Extents), standard);
    let fewer = real(size, &blocks[..2], HolePolicy::Extents);
    assert_eq!(fewer.kind, DigestKind::Blake3Nonzero, "the partial last block counts as a block");
}

#[test]
fn the_largest_hole_is_one_element_and_no_work() {
    let size = i64::MAX.cast_unsigned();
    let chunks = super::super::chunk_count(size);
    assert_eq!(chunks, 1 << 39);
    let mut sums = FileSums::new(size, HolePolicy::Extents);
    let middle = 12_345_678_901;
    let mut hasher = ChunkHasher::new(size, middle, HolePolicy::Extents).unwrap();
    hasher.zeros(CHUNK_BYTES - 1);
    hasher.update(b"x");
    sums.insert_hole_run(middle + 1, chunks - middle - 1).unwrap();
    sums.insert(middle, hasher.finish().unwrap()).unwrap();
    sums.insert_hole_run(0, middle).unwrap();
    let digest = sums.digest(&|| false).unwrap();
    assert_eq!(digest.kind, DigestKind::Blake3Nonzero);
    assert_eq!(sums.zero_runs.len() + sums.sums.len(), 3);

    let mut sequential = FileHasher::new();
    sequential.begin(size, HolePolicy::Extents);
    sequential.zeros((middle + 1) * CHUNK_BYTES - 1);
    sequential.update(b"x");
    sequential.zeros(size - (middle + 1) * CHUNK_BYTES);
    assert_eq!(sequential.finish(), Ok(digest));
}

#[test]
fn runs_of_holes_join_in_any_order() {
    let mut sums = FileSums::new(100 * CHUNK_BYTES, HolePolicy::Extents);
    for chunk in (0..50).map(|half| half * 2).chain((0..50).rev().map(|half| half * 2 + 1)) {
        sums.insert_hole_run(chunk, 1).unwrap();
    }
    assert_eq!(sums.zero_runs, BTreeMap::from([(0, 100)]));
}

#[test]
fn the_callers_mistakes_are_named() {
    let size = ZERO_BYTES_MAX + 10 * CHUNK_BYTES;
    let sum = |size, chunk, policy| {
        let mut hasher = ChunkHasher::new(size, chunk, policy).unwrap();
        hasher.update(&vec![1; usize::try_from(chunk_len(size, chunk)).unwrap()]);
        hasher.finish().unwrap()
    };
    let mut sums = FileSums::new(size, HolePolicy::Extents);
    sums.insert(3, sum(size, 3, HolePolicy::Extents)).unwrap();
    sums.insert_hole_run(5, 10).unwrap();
    let good = sum(size, 4, HolePolicy::Extents);
    assert_eq!(sums.insert(3, good.clone()), Err(SumsError::Twice { chunk: 3 }));
    assert_eq!(sums.insert(14, good.clone()), Err(SumsError::Twice { chunk: 14 }));
    assert_eq!(sums.insert_hole_run(14, 2), Err(SumsError::Twice { chunk: 14 }));
    assert_eq!(sums.insert_hole_run(4, 2), Err(SumsError::Twice { chunk: 5 }));
    assert_eq!(sums.insert_hole_run(2, 2), Err(SumsError::Twice { chunk: 3 }));
    assert_eq!(sums.insert(74, good), Err(SumsError::Outside { chunk: 74 }));
    assert_eq!(sums.insert_hole_run(70, u64::MAX), Err(SumsError::Outside { chunk: 74 }));
    let (untracked, only) = (sum(size, 4, HolePolicy::Standard), sum(9, 0, HolePolicy::Extents));
    assert_eq!(sums.insert(4, untracked), Err(SumsError::Foreign { chunk: 4 }));
    assert_eq!(sums.insert(0, only), Err(SumsError::Foreign { chunk: 0 }));
    assert_eq!(sums.digest(&|| false), Err(SumsError::Missing { chunk: 0 }));
    sums.insert_hole_run(0, 3).unwrap();
    assert_eq!(sums.digest(&|| false), Err(SumsError::Missing { chunk: 4 }));
}

#[test]
fn a_stop_is_heard_while_zeros_are_hashed() {
    let mut sums = FileSums::new(i64::MAX.cast_unsigned(), HolePolicy::Standard);
    sums.insert_hole_run(0, 1 << 39).unwrap();
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert_eq!(sums.digest(&stop), Err(SumsError::Stopped));
    assert_eq!(asked.get(), 3);
}

#[test]
fn values_that_no_longer_matter_are_dropped() {
    // Every chunk has one zero block: after 1024 of them only 32 bytes a chunk are kept.
    let size = 1100 * CHUNK_BYTES;
    let mut sums = FileSums::new(size, HolePolicy::Extents);
    let mut all = Vec::new();
    for chunk in 0..1100 {
        let sum = ChunkSum(Sum::Mixed { nonzero: 0xfffe, values: vec![[1; 32]; 15].into() });
        all.push(sum.clone());
        sums.insert(chunk, sum).unwrap();
    }
    let mixed = sums.sums.values().filter(|sum| matches!(sum, Sum::Mixed { .. })).count();
    assert_eq!(mixed, 1024);
    let digest = sums.digest(&|| false).unwrap();
    assert_eq!(digest.kind, DigestKind::Blake3Nonzero);
    let mut backwards = FileSums::new(size, HolePolicy::Extents);
    for (chunk, sum) in (0..1100).rev().map(|chunk| (chunk, all.pop().unwrap())) {
        backwards.insert(chunk, sum).unwrap();
    }
    assert_eq!(backwards.digest(&|| false), Ok(digest), "what is dropped depends on the order, the digest does not");
}

#[test]
fn merging_a_slice_is_merging_its_chunks() {
    let bytes = data(usize::try_from(2 * CHUNK_BYTES + 77).unwrap(), 9);
    let sums: Vec<ChunkSum> = (0..)
        .zip(bytes.chunks(usize::try_from(CHUNK_BYTES).unwrap()))
        .map(|(chunk, part)| {
            let mut hasher = ChunkHasher::new(bytes.len() as u64, chunk, HolePolicy::Extents).unwrap();
            hasher.update(part);
            hasher.finish().unwrap()
        })
        .collect();
    assert_eq!(merge(bytes.len() as u64, &sums, HolePolicy::Extents), Ok(Digest::of(&bytes)));
    let missing = Err(SumsError::Missing { chunk: 2 });
    assert_eq!(merge(bytes.len() as u64, &sums[..2], HolePolicy::Extents), missing);
}
