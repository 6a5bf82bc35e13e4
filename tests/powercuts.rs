//! T3 and T4: the power is cut at random moments, the file system comes back, and the same command
//! goes on.
//!
//! T3 shuts the file system down below the running copyd, which drops what was not synced; the state
//! lies on the same file system, or on one that stays. T4 takes reflink snapshots of an image that
//! holds destination and state: each is the state of the disk at some moment between two writes.
//! `COPYD_T03_CUTS`, `COPYD_T04_CUTS` and `COPYD_SEED` change the number and the moments.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::Rng;
use support::canary::Canary;
use support::crash::{Field, mixed_tree, number, seed};
use support::mounts::{FsType, ImageCopy, LoopFs, Tmpfs, Volume};

/// A source in memory, with a canary beside it.
struct Origin {
    source: PathBuf,
    canary: Canary,
    memory: Tmpfs,
    /// Slow enough that several flushes come to pass, each with moments before and after it.
    rate: &'static str,
}

impl Origin {
    fn new(per_directory: u64, large_mib: [usize; 2], rate: &'static str) -> Self {
        let memory = Tmpfs::new(256);
        let source = memory.path().join("source");
        mixed_tree(&source, seed(), per_directory, large_mib);
        let canary = Canary::plant(memory.path());
        Self { source, canary, memory, rate }
    }

    fn field(&self, disk: &Path, state: &Path, round: u64) -> Field {
        let destination = disk.join(format!("destination{round}"));
        Field {
            source: self.source.clone(),
            destination,
            state: state.join(format!("state{round}")),
            arguments: vec!["--bwlimit", self.rate],
        }
    }

    /// How long a run takes that nobody disturbs.
    fn undisturbed(&self, disk: &Path) -> Duration {
        let field = self.field(disk, self.memory.path(), u64::MAX);
        let started = Instant::now();
        field.command().run().expect(0);
        let elapsed = started.elapsed();
        field.clear();
        elapsed
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a run ends").max(1)
}

/// Cuts the power at random moments of as many jobs, and lets each finish.
fn power_is_cut(kind: FsType, cuts: u64) {
    let origin = Origin::new(400, [17, 34], "128M");
    let mut disk = LoopFs::new(kind, 400);
    let mut rng = Rng::new(seed() ^ 3);
    let whole = origin.undisturbed(disk.path());
    let (mut done, mut early) = (0, 0);
    for round in 0..cuts {
        let stays = round % 2 == 0;
        let state = if stays { origin.memory.path().to_owned() } else { disk.path().to_owned() };
        let field = origin.field(disk.path(), &state, round);
        let mut running = field.command().spawn();
        thread::sleep(Duration::from_micros(rng.below(micros(whole))));
        early += u64::from(!running.runs());
        disk.cut_power();
        // It may see the errors and end by itself, or may not live to see them.
        if rng.below(2) == 0 {
            thread::sleep(Duration::from_millis(rng.below(100)));
        }
        if running.runs() {
            running.signal(Signal::KILL);
        }
        drop(running.wait());
        disk.remount();
        let state = if stays { origin.memory.path().to_owned() } else { disk.path().to_owned() };
        let field = origin.field(disk.path(), &state, round);
        let when = format!("seed {}, cut {round}", seed());
        done += field.assert_done_is_equal(&when);
        let lacking = field.assert_nothing_torn(&when);
        field.assert_resumes(lacking, &when);
        field.clear();
        // Else the next cut gives back what is cleared here, and the disk fills up.
        File::open(disk.path()).and_then(|root| Ok(rustix::fs::syncfs(root)?)).expect("it is mounted");
    }
    origin.canary.assert_untouched();
    println!(
        "T3 {}: {cuts} cuts ({early} after the end), {done} entries called done, run {whole:.0?}, seed {}",
        kind.word(),
        seed()
    );
}

#[test]
fn t03_a_power_cut_at_a_random_moment_on_ext4_costs_nothing_that_was_done() {
    power_is_cut(FsType::Ext4, number("COPYD_T03_CUTS", 20) / 2);
}

#[test]
fn t03_a_power_cut_at_a_random_moment_on_xfs_costs_nothing_that_was_done() {
    power_is_cut(FsType::Xfs, number("COPYD_T03_CUTS", 20) / 2);
}

/// Snapshots of the disk in one run.
const SNAPSHOTS_PER_RUN: u64 = 10;

/// Clones the image as it is now: a state between two writes, because the clone holds the file's lock.
fn snapshot(image: &Path, to: &Path) {
    let (from, to) = (File::open(image).expect("the image"), File::create_new(to).expect("a fresh name"));
    rustix::fs::ioctl_ficlone(&to, &from).expect("xfs clones");
}

/// One run on an image in `host`, and so many snapshots of it at random moments of a run that takes as
/// long as the last one.
fn snapshots_of_a_run(
    origin: &Origin,
    host: &Path,
    run: u64,
    whole: &mut Duration,
    moments: u64,
    rng: &mut Rng,
) -> Vec<PathBuf> {
    let image = host.join(format!("image{run}"));
    File::create_new(&image).and_then(|file| file.set_len(160 << 20)).expect("a sparse image");
    support::tool("e2fsprogs", "mkfs.ext4", &["-q", "-F", &image.to_string_lossy()]);
    let disk = ImageCopy::mount(FsType::Ext4, image.clone());
    let mut moments: Vec<_> = (0..moments).map(|_| Duration::from_micros(rng.below(micros(*whole)))).collect();
    moments.sort();
    let running = origin.field(disk.path(), disk.path(), 0).command().spawn();
    let started = Instant::now();
    let mut snapshots = Vec::new();
    for moment in moments {
        thread::sleep(moment.saturating_sub(started.elapsed()));
        let at = host.join(format!("snapshot{run}-{}", snapshots.len()));
        snapshot(&image, &at);
        snapshots.push(at);
    }
    running.wait().expect(0);
    *whole = started.elapsed();
    snapshots
}

/// Lets each snapshot come back, and the run go on. Gives the number of entries called done.
fn judge(origin: &Origin, snapshots: &[PathBuf]) -> usize {
    let mut done = 0;
    for at in snapshots {
        let when = format!("seed {}, {}", seed(), at.display());
        let disk = ImageCopy::mount(FsType::Ext4, at.clone());
        let field = origin.field(disk.path(), disk.path(), 0);
        done += field.assert_done_is_equal(&when);
        let lacking = field.assert_nothing_torn(&when);
        field.assert_resumes(lacking, &when);
    }
    done
}

#[test]
fn t04_every_state_of_the_disk_on_ext4_in_xfs_is_one_that_a_run_goes_on_from() {
    let cuts = number("COPYD_T04_CUTS", 50);
    // Small, because each snapshot is read through three times.
    let origin = Origin::new(200, [17, 1], "32M");
    let host = LoopFs::new(FsType::Xfs, 1200);
    let mut rng = Rng::new(seed() ^ 4);
    let mut whole = origin.undisturbed(host.path());
    let (mut done, mut taken, mut run) = (0, 0, 0);
    while taken < cuts {
        let moments = SNAPSHOTS_PER_RUN.min(cuts - taken);
        let snapshots = snapshots_of_a_run(&origin, host.path(), run, &mut whole, moments, &mut rng);
        taken += snapshots.len() as u64;
        // Threads that are started from here see the same mounts.
        let (first, second) = snapshots.split_at(snapshots.len() / 2);
        done += thread::scope(|scope| {
            let other = scope.spawn(|| judge(&origin, second));
            judge(&origin, first) + other.join().expect("its half of the snapshots is as good")
        });
        run += 1;
    }
    origin.canary.assert_untouched();
    assert!(fs::read_dir(host.path()).is_ok_and(|mut left| left.next().is_none()), "an image is left over");
    println!("T4 ext4 in xfs: {taken} snapshots of {run} runs, {done} entries called done, seed {}", seed());
}
