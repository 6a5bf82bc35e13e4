//! T1 and T2: copyd is killed at random moments, and the same command goes on.
//!
//! `COPYD_T01_KILLS` and `COPYD_T02_ROUNDS` make them as long as one likes, `COPYD_LARGE_MIB` the
//! largest file as large, `COPYD_SEED` draws other moments; each test prints what it ran with.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::Rng;
use support::canary::Canary;
use support::crash::{Field, mixed_tree, number, seed};
use support::mounts::{FsType, Volume, volume};

/// Most kills of one job before it may finish.
const KILLS_PER_JOB: u64 = 8;

/// A tree in memory and a file system to copy it to, with a canary beside the destination.
struct Range {
    source: PathBuf,
    state: PathBuf,
    canary: Canary,
    volumes: [Box<dyn Volume>; 2],
}

impl Range {
    fn new(to: FsType, seed: u64) -> Self {
        let volumes = [volume(FsType::Tmpfs, 512), volume(to, 640)];
        let source = volumes[0].path().join("source");
        let large = usize::try_from(number("COPYD_LARGE_MIB", 40)).expect("it fits in memory");
        mixed_tree(&source, seed, 150, [24, large]);
        let canary = Canary::plant(volumes[1].path());
        Self { source, state: volumes[0].path().join("state"), canary, volumes }
    }

    fn field(&self) -> Field {
        let destination = self.volumes[1].path().join("destination");
        Field { source: self.source.clone(), destination, state: self.state.clone(), arguments: Vec::new() }
    }

    /// How long a run takes that nobody disturbs.
    fn undisturbed(&self) -> Duration {
        let field = self.field();
        // The first one also loads the program.
        let runs = [0, 1].map(|_| {
            let started = Instant::now();
            field.command().run().expect(0);
            let elapsed = started.elapsed();
            field.clear();
            elapsed
        });
        runs[0].min(runs[1])
    }
}

/// A moment before `most`.
fn moment(rng: &mut Rng, most: Duration) -> Duration {
    let most = u64::try_from(most.as_micros()).expect("a run ends").max(1);
    Duration::from_micros(rng.below(most))
}

/// Kills at random moments until there were so many, each job several times, and lets each finish.
fn killed_at_random(to: FsType, kills: u64) {
    let mut rng = Rng::new(seed());
    let range = Range::new(to, seed());
    let whole = range.undisturbed();
    let (mut done, mut jobs, mut ended, mut most_copied) = (0, 0, 0, 0);
    while done < kills {
        let field = range.field();
        let planned = 1 + rng.below(KILLS_PER_JOB);
        let mut lacking = None;
        for kill in 0..planned {
            // What is left to do shrinks with each run.
            let most = whole * 3 / u32::try_from(kill + 3).expect("few");
            let killed = field.kill_after(moment(&mut rng, most));
            let when = format!("seed {}, job {jobs}, kill {kill}", seed());
            lacking = Some(field.assert_nothing_torn(&when));
            done += u64::from(killed);
            ended += u64::from(!killed);
            if !killed {
                break;
            }
        }
        let when = format!("seed {}, job {jobs}, the end", seed());
        let summary = field.assert_resumes(lacking.expect("each job is killed"), &when);
        most_copied = most_copied.max(summary.count("files_copied"));
        field.clear();
        jobs += 1;
    }
    range.canary.assert_untouched();
    println!("T1 {}: {done} kills of {jobs} jobs ({ended} ended before), run {whole:.0?}, seed {}", to.word(), seed());
}

#[test]
fn t01_a_job_killed_at_random_moments_in_memory_goes_on() {
    killed_at_random(FsType::Tmpfs, number("COPYD_T01_KILLS", 200) / 2);
}

#[test]
fn t01_a_job_killed_at_random_moments_on_ext4_goes_on() {
    killed_at_random(FsType::Ext4, number("COPYD_T01_KILLS", 200) / 2);
}

/// Runs that are killed while they recover from a kill, one after another.
const RECOVERIES: usize = 5;

#[test]
fn t02_a_job_killed_five_times_while_it_recovers_on_ext4_goes_on() {
    let rounds = number("COPYD_T02_ROUNDS", 20);
    let mut rng = Rng::new(seed() ^ 2);
    let range = Range::new(FsType::Ext4, seed());
    let whole = range.undisturbed();
    let mut kills = 0;
    for round in 0..rounds {
        let field = range.field();
        // In the middle of the work, so that there is something to recover.
        let first = whole / 4 + moment(&mut rng, whole / 2);
        kills += u64::from(field.kill_after(first));
        for depth in 0..RECOVERIES {
            // Recovery is at the beginning: opening the state, cleaning up, the first looks.
            kills += u64::from(field.kill_after(moment(&mut rng, whole / 5)));
            if depth + 1 < RECOVERIES {
                continue;
            }
            let when = format!("seed {}, round {round}", seed());
            let lacking = field.assert_nothing_torn(&when);
            field.assert_resumes(lacking, &when);
        }
        field.clear();
    }
    range.canary.assert_untouched();
    assert!(kills >= rounds * 4, "only {kills} kills hit");
    println!("T2 ext4: {rounds} rounds, {kills} kills, run {whole:.0?}, seed {}", seed());
}

#[test]
fn a_job_that_is_killed_before_it_has_begun_leaves_nothing() {
    let range = Range::new(FsType::Tmpfs, 1);
    let field = range.field();
    field.kill_after(Duration::ZERO);
    let left = fs::read_dir(&field.destination).map_or(0, Iterator::count);
    assert!(left <= 1, "{left} entries after no time at all");
    let lacking = field.assert_nothing_torn("at once");
    field.assert_resumes(lacking, "at once");
}
