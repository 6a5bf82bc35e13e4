//! `copyd sync` against a pure model (T32): random changes on both sides between runs, and after each run
//! the destination, the exit code and the number of deletions are what `docs/cli.md` promises.
//!
//! A case is one run with the changes before it. Ten of them make a history, which is one job from its
//! first run on; a history that fails is made shorter before it is shown. `COPYD_T32_CASES` and
//! `COPYD_SEED` say how many and from where on; both are printed. A history has the seed that its failure
//! names, so `COPYD_T32_CASES=10` with that one plays it alone.

mod replica;
mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use replica::history::{Job, Outcomes, play};
use support::crash::{number, seed};
use support::mounts::{FsType, volume};

/// Runs of one job.
const RUNS_EACH: u64 = 10;

/// The flags that hold for a history: every combination of them, by the history's own seed.
const fn job(seed: u64) -> Job {
    Job { filtered: seed % 2 == 1, trash: seed % 4 >= 2, inline: seed % 8 >= 4 }
}

#[test]
fn t32_every_run_is_as_a_pure_model_says() {
    let (cases, seed) = (number("COPYD_T32_CASES", 1000), seed());
    let volume = volume(FsType::Tmpfs, 512);
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Outcomes::default()));
    let threads = thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    thread::scope(|scope| {
        for number in 0..threads {
            let place = volume.path().join(number.to_string());
            let (next, outcomes) = (&next, &outcomes);
            scope.spawn(move || {
                loop {
                    let history = next.fetch_add(1, Ordering::Relaxed);
                    let left = cases.saturating_sub(history * RUNS_EACH).min(RUNS_EACH);
                    if left == 0 {
                        return;
                    }
                    let found = play(&place, job(seed + history), seed + history, left);
                    outcomes.lock().expect("a thread that panicked ends the test").add(&found);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("a thread that panicked ends the test");
    eprintln!("T32: COPYD_T32_CASES={cases} COPYD_SEED={seed}: {outcomes:?}");
    assert!(outcomes.runs >= cases, "{outcomes:?}");
    if cases >= 1000 {
        // A model that never comes to an outcome proves nothing of it.
        let ended = |exit| outcomes.by_exit.get(&exit).copied().unwrap_or_default();
        let enough = [0, 23, 25, 43].into_iter().all(|exit| ended(exit) > 0);
        assert!(enough && outcomes.deleted > 0 && outcomes.believed > 0 && outcomes.verified > 0, "{outcomes:?}");
    }
}
