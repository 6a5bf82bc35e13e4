//! What the benches share: a place in memory, trees that are the same on every run, the engine
//! with nobody listening.
//!
//! Everything lies on `/dev/shm` where that exists, so that a disk's moods are not measured; the
//! place is removed when [`Scratch`] goes.

#![allow(dead_code, reason = "each bench compiles this module and uses its own part of it")]

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use copyd::copy::probe;
use copyd::error::ExitCode;
use copyd::fidelity::IdMap;
use copyd::pass::{
    self, BackendChoice, Bounds, Event, Extras, JobKind, Observer, Options, Progress, Provision, Stop, Summary,
    VerifyLevel,
};
use copyd::tree::filter::Filter;
use criterion::Criterion;

/// Files in a directory of [`tree`]: what a share of many small files has on average.
const FILES_PER_DIRECTORY: usize = 30;

/// The ways to move and to prove that the benches compare: name, backend, level.
const WAYS: [(&str, BackendChoice, VerifyLevel); 4] = [
    ("threads-inline", BackendChoice::Threads, VerifyLevel::Inline),
    ("threads-readback", BackendChoice::Threads, VerifyLevel::Readback),
    ("uring-inline", BackendChoice::Uring, VerifyLevel::Inline),
    ("uring-readback", BackendChoice::Uring, VerifyLevel::Readback),
];

/// The ways that work here: where io_uring is refused, threads would stand in for it unseen.
pub fn ways() -> impl Iterator<Item = (&'static str, BackendChoice, VerifyLevel)> {
    let refused = probe::refused();
    if let Some(reason) = &refused {
        eprintln!("{reason}; not measured");
    }
    WAYS.into_iter().filter(move |(_, backend, _)| refused.is_none() || *backend != BackendChoice::Uring)
}

/// How criterion measures: `samples` of a bench within about `measured`, after a warm-up of a quarter
/// of it. Fewer resamples than by default and no plots, which took longer than what they told of.
pub fn criterion(samples: usize, measured: Duration) -> Criterion {
    Criterion::default()
        .sample_size(samples)
        .warm_up_time(measured / 4)
        .measurement_time(measured)
        .nresamples(10_000)
        .without_plots()
}

/// Numbers that look random and are the same on every run (splitmix64, Steele et al. 2014).
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `len` bytes without a pattern.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// A directory of one's own, in memory where there is any, gone when dropped.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let made = tempfile::Builder::new().prefix("copyd-bench-").tempdir_in(place);
        Self(made.expect("there is room for a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A subdirectory that is made now.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).expect("the name is free");
        path
    }
}

/// What [`tree`] made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Everything, the root included.
    pub entries: u64,
    pub bytes: u64,
}

/// Fills `root` with `files` files of 1 to `bytes_max` bytes, thirty to a directory, three levels
/// deep. The same arguments make the same tree.
pub fn tree(root: &Path, files: usize, bytes_max: usize) -> Made {
    let mut rng = Rng::new(20_261_122);
    let pool = rng.bytes(bytes_max * 2);
    let mut made = Made { entries: 1, bytes: 0 };
    let mut directory = root.to_owned();
    for i in 0..files {
        let number = i / FILES_PER_DIRECTORY;
        if i % FILES_PER_DIRECTORY == 0 {
            directory = root.join(format!("d{}/e{}", number % 10, number / 10));
            made.entries += 1 + u64::from(number < 10);
            DirBuilder::new().recursive(true).create(&directory).expect("a directory can be made");
        }
        let size = below(&mut rng, bytes_max) + 1;
        let start = below(&mut rng, bytes_max);
        let mut file = File::create_new(directory.join(format!("file{i:07}"))).expect("the name is free");
        file.write_all(&pool[start..start + size]).expect("there is room");
        made.entries += 1;
        made.bytes += size as u64;
    }
    made
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.next() % bound as u64).expect("less than a usize")
}

/// A file of `len` bytes without holes.
pub fn file(path: &Path, len: u64) {
    let block = Rng::new(len).bytes(1 << 20);
    let mut file = File::create_new(path).expect("the name is free");
    let mut left = len;
    while left > 0 {
        let step = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        file.write_all(&block[..step]).expect("there is room");
        left -= step as u64;
    }
}

/// Listens to nothing.
#[derive(Debug)]
struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// A `migrate` as the command line has it without flags, but with its own state.
pub fn options(source: &Path, destination: &Path, state_dir: &Path) -> Options {
    Options {
        kind: JobKind::Migrate,
        source: source.to_owned(),
        destination: destination.to_owned(),
        verify: VerifyLevel::Readback,
        dry_run: false,
        items: false,
        extras: Extras::Guard,
        allow_empty_source: false,
        source_marker: None,
        new_destination: false,
        max_delete: None,
        trash: None,
        max_passes: 10,
        retry_failed: false,
        filter: Filter::default(),
        one_file_system: false,
        bounds: Bounds::default(),
        id_map: IdMap::IDENTITY,
        backend: BackendChoice::Auto,
        provision: Provision::Thin,
        jobs: None,
        within: Vec::new(),
        throttle: copyd::throttle::Throttle::new(None),
        accept_loss: Vec::new(),
        state_dir: Some(state_dir.to_owned()),
        strict: false,
        manifest: None,
        manifest_holes: false,
        // A bench runs many times in one process.
        confine: false,
    }
}

/// Carries a run out, which must succeed.
pub fn run(options: &Options) -> Summary {
    let summary = pass::run(options, &Silent, &Progress::default(), &Arc::new(Stop::default()));
    let summary = summary.expect("the run comes to its end");
    assert_eq!(summary.exit, ExitCode::Complete, "a bench measures runs that succeed");
    summary
}

/// The time of `count` first copies of `source`, each into a fresh destination with fresh state.
/// Neither making those nor removing them is timed.
pub fn first_copies(count: u64, source: &Path, backend: BackendChoice, verify: VerifyLevel) -> Duration {
    (0..count)
        .map(|_| {
            let scratch = Scratch::new();
            let (destination, state) = (scratch.directory("destination"), scratch.directory("state"));
            let options = Options { backend, verify, ..options(source, &destination, &state) };
            let started = Instant::now();
            run(&options);
            started.elapsed()
        })
        .sum()
}
