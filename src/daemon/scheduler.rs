//! Who runs next: pure, with the time as an argument.
//!
//! A job says by its own rules when it would start a run (windows, schedules and waits after a failure are decided
//! in `job`); here those that would are put in order. A cutover comes before everything, because clients wait for
//! it. Then the priority decides, and waiting adds to it: one step for each [`AGE_STEP_MS`], so that no stream of
//! newer jobs, whatever their priority, keeps an old one from its turn for ever. Among equals, who waits longest.

use uuid::Uuid;

use crate::limits::AGE_STEP_MS;

/// A job that would start a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub job: Uuid,
    /// Its clients are held up.
    pub cutover: bool,
    pub priority: u8,
    /// Since when it waits for a place.
    pub since_ms: u64,
}

impl Candidate {
    /// The greatest comes first.
    fn rank(&self, now_ms: u64) -> (bool, u64, std::cmp::Reverse<(u64, Uuid)>) {
        let steps = now_ms.saturating_sub(self.since_ms) / AGE_STEP_MS;
        (self.cutover, u64::from(self.priority).saturating_add(steps), std::cmp::Reverse((self.since_ms, self.job)))
    }
}

/// The jobs that get the free places, the first one first.
#[must_use]
pub fn choose(candidates: impl IntoIterator<Item = Candidate>, places: usize, now_ms: u64) -> Vec<Uuid> {
    if places == 0 {
        return Vec::new();
    }
    let mut ranked: Vec<_> = candidates.into_iter().map(|one| (one.rank(now_ms), one.job)).collect();
    let places = places.min(ranked.len());
    if places > 0 && places < ranked.len() {
        // Ten thousand may wait for four places: only those are put in order.
        ranked.select_nth_unstable_by(places - 1, |a, b| b.cmp(a));
    }
    ranked.truncate(places);
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, job)| job).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(n: u128, priority: u8, since_ms: u64) -> Candidate {
        Candidate { job: Uuid::from_u128(n), cutover: false, priority, since_ms }
    }

    fn ids(of: &[u128]) -> Vec<Uuid> {
        of.iter().copied().map(Uuid::from_u128).collect()
    }

    #[test]
    fn priority_decides_then_age_and_a_cutover_comes_before_all() {
        let all = [waits(1, 50, 10), waits(2, 90, 20), waits(3, 50, 5), waits(4, 0, 1)];
        assert_eq!(choose(all, 3, 100), ids(&[2, 3, 1]));
        let holds_up = Candidate { cutover: true, ..waits(5, 0, 99) };
        assert_eq!(choose(all.into_iter().chain([holds_up]), 2, 100), ids(&[5, 2]));
        assert!(choose(all, 0, 100).is_empty() && choose([], 4, 100).is_empty());
    }

    #[test]
    fn a_job_of_the_lowest_priority_gets_its_turn_although_newer_ones_of_the_highest_keep_coming() {
        let old = waits(1, 0, 0);
        let turn = (0..1000).map(|n| n * AGE_STEP_MS).find(|now| {
            let newcomers = (2..50).map(|n| waits(n, 100, now.saturating_sub(AGE_STEP_MS / 2)));
            choose(newcomers.chain([old]), 1, *now) == ids(&[1])
        });
        assert!(turn.is_some_and(|at| at <= 101 * AGE_STEP_MS), "{turn:?}");
    }

    proptest! {
        #[test]
        fn the_places_go_to_the_first_of_the_whole_order(
            waiting in proptest::collection::vec((0u8..=100, 0u64..200 * AGE_STEP_MS, any::<bool>()), 0..40),
            places in 0usize..50,
            now in 0u64..300 * AGE_STEP_MS,
        ) {
            let all: Vec<_> = waiting.iter().enumerate().map(|(n, (priority, since_ms, cutover))| Candidate {
                job: Uuid::from_u128(n as u128), cutover: *cutover, priority: *priority, since_ms: *since_ms,
            }).collect();
            let mut sorted = all.clone();
            sorted.sort_by_key(|one| std::cmp::Reverse(one.rank(now)));
            let expected: Vec<_> = sorted.iter().take(places).map(|one| one.job).collect();
            prop_assert_eq!(choose(all, places, now), expected);
        }
    }
}
