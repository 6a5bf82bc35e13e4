//! How long a cutover would take, from what the passes measured.
//!
//! A pass costs a look at every entry, and the copying of what has changed. The first pass says what copying
//! costs: all of it took so long, so a share of the entries or of the bytes, whichever is larger, takes that share
//! of the time. What a later pass took beyond that was the looking. How much had changed since the pass before
//! says how fast changes gather.
//!
//! A cutover is a pass and its confirmation: two looks, and the copying of what gathered since the last pass,
//! which is between nothing and a whole interval of the schedule old. Each measured pass gives one estimate; the
//! median takes half an interval, and the 90th percentile a whole one. Where everything is compared once more
//! (`verify: full`), both sides are read, which takes about as long as the first pass.

use super::input::Purpose;
use super::record::{Forecast, ForecastBasis, PassFacts};
use crate::limits::FORECAST_PASSES;

/// What one pass after the first says.
#[derive(Clone, Copy, Debug)]
struct Sample {
    look_ms: u64,
    /// What had changed, over a time.
    entries: u64,
    bytes: u64,
    over_ms: u64,
}

/// A forecast, `every_ms` being the time between two refreshes. `None` before the first pass has ended.
#[must_use]
pub fn forecast(passes: &[PassFacts], every_ms: u64, compares: bool, now_ms: u64) -> Option<Forecast> {
    let passes: Vec<&PassFacts> =
        passes.iter().filter(|pass| pass.purpose != Purpose::Verify && !pass.retry_failed).collect();
    let (first, last) = (*passes.first()?, *passes.last()?);
    let compare_ms = if compares { first.elapsed_ms } else { 0 };
    let samples: Vec<Sample> =
        passes.windows(2).rev().take(FORECAST_PASSES).map(|pair| sample(first, pair[0], pair[1])).collect();
    if samples.is_empty() {
        return Some(Forecast {
            as_of_ms: now_ms,
            median_s: seconds(first.elapsed_ms.saturating_add(compare_ms)),
            p90_s: seconds(first.elapsed_ms.saturating_mul(2).saturating_add(compare_ms)),
            changed_entries: 0,
            changed_bytes: 0,
            basis: ForecastBasis::FirstPass,
        });
    }
    let at = |age_ms: u64, per_cent: usize| {
        let estimates = samples.iter().map(|sample| sample.cutover_ms(first, age_ms)).collect();
        percentile(estimates, per_cent).saturating_add(compare_ms)
    };
    let half = every_ms / 2;
    let median_ms = at(half, 50);
    // The last pass is what is known best: who looks at its duration should not find it above the bound.
    let p90_ms = at(every_ms, 90).max(last.elapsed_ms).max(median_ms);
    let gathered = |of: fn(&Sample) -> u64| {
        percentile(samples.iter().map(|sample| scaled(of(sample), half, sample.over_ms)).collect(), 50)
    };
    Some(Forecast {
        as_of_ms: now_ms,
        median_s: seconds(median_ms),
        p90_s: seconds(p90_ms),
        changed_entries: gathered(|sample| sample.entries),
        changed_bytes: gathered(|sample| sample.bytes),
        basis: if samples.len() == 1 { ForecastBasis::OnePass } else { ForecastBasis::Passes },
    })
}

/// What copying so much takes, by the first pass.
fn copy_ms(first: &PassFacts, entries: u64, bytes: u64) -> u64 {
    let by_entries = scaled(first.elapsed_ms, entries, first.changed_entries);
    let by_bytes = scaled(first.elapsed_ms, bytes, first.bytes_copied);
    by_entries.max(by_bytes)
}

fn sample(first: &PassFacts, before: &PassFacts, pass: &PassFacts) -> Sample {
    let copied_ms = copy_ms(first, pass.changed_entries, pass.bytes_copied);
    Sample {
        // A pass that was faster than the first one's rate would have it has still looked at everything.
        look_ms: pass.elapsed_ms.saturating_sub(copied_ms).max(pass.elapsed_ms / 10),
        entries: pass.changed_entries,
        bytes: pass.bytes_copied,
        over_ms: pass.started_ms.saturating_sub(before.started_ms).max(1),
    }
}

impl Sample {
    fn cutover_ms(&self, first: &PassFacts, age_ms: u64) -> u64 {
        let (entries, bytes) = (scaled(self.entries, age_ms, self.over_ms), scaled(self.bytes, age_ms, self.over_ms));
        self.look_ms.saturating_mul(2).saturating_add(copy_ms(first, entries, bytes))
    }
}

/// `value` × `part` / `whole`, rounded; nothing of nothing.
fn scaled(value: u64, part: u64, whole: u64) -> u64 {
    let Some(whole) = std::num::NonZeroU128::new(u128::from(whole)) else { return 0 };
    let product = u128::from(value) * u128::from(part);
    u64::try_from((product + whole.get() / 2) / whole).unwrap_or(u64::MAX)
}

/// The nearest rank; 0 of nothing.
fn percentile(mut values: Vec<u64>, per_cent: usize) -> u64 {
    values.sort_unstable();
    let rank = (values.len() * per_cent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0)
}

/// Rounded up: what takes a moment does not take nothing.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
