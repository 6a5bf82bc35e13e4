//! A forecast against cutovers that a simple machine would have had.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;

fn pass(number: u32, started_ms: u64, elapsed_ms: u64, changed: u64, bytes: u64) -> PassFacts {
    PassFacts {
        pass: number,
        started_ms,
        elapsed_ms,
        entries: 1_000_000,
        changed_entries: changed,
        files_copied: changed,
        bytes_copied: bytes,
        ..PassFacts::default()
    }
}

#[test]
fn before_the_first_pass_nothing_is_foretold() {
    assert_eq!(forecast(&[], 15 * MINUTE, false, 1), None);
}

#[test]
fn the_first_pass_alone_is_the_bound_and_says_so() {
    let found = forecast(&[pass(1, 0, 90_500, 1000, 1 << 30)], 15 * MINUTE, false, 5).expect("a forecast");
    assert_eq!((found.basis, found.median_s, found.p90_s), (ForecastBasis::FirstPass, 91, 181));
    assert_eq!((found.changed_entries, found.changed_bytes, found.as_of_ms), (0, 0, 5));
}

#[test]
fn a_quiet_source_costs_two_looks() {
    let passes = [pass(1, 0, 600_000, 1_000_000, 1 << 40), pass(2, 600_000, 20_000, 0, 0)];
    let found = forecast(&passes, 15 * MINUTE, false, 0).expect("a forecast");
    assert_eq!((found.basis, found.median_s, found.p90_s), (ForecastBasis::OnePass, 40, 40));
    let compared = forecast(&passes, 15 * MINUTE, true, 0).expect("a forecast");
    assert_eq!(compared.median_s, 640);
}

#[test]
fn a_pass_that_only_retried_is_no_measure() {
    let mut passes = vec![pass(1, 0, 600_000, 1_000_000, 1 << 40), pass(2, 600_000, 20_000, 0, 0)];
    let without = forecast(&passes, MINUTE, false, 0);
    passes.push(PassFacts { retry_failed: true, ..pass(3, 700_000, 10, 3, 10) });
    assert_eq!(forecast(&passes, MINUTE, false, 0), without);
}

#[test]
fn changes_that_gather_count_by_their_age() {
    // 1 % of the entries change each minute, and all of them took ten minutes.
    let passes = [
        pass(1, 0, 600_000, 1_000_000, 0),
        pass(2, 600_000, 20_000 + 60_000, 100_000, 0),
        pass(3, 600_000 + 10 * MINUTE, 20_000 + 60_000, 100_000, 0),
    ];
    let found = forecast(&passes, 10 * MINUTE, false, 0).expect("a forecast");
    assert_eq!((found.basis, found.changed_entries), (ForecastBasis::Passes, 50_000));
    assert_eq!((found.median_s, found.p90_s), (40 + 30, 40 + 60));
}

proptest! {
    #[test]
    fn the_bound_is_never_below_the_median_nor_below_the_last_pass(
        passes in proptest::collection::vec((0_u64..1 << 45, any::<u64>(), any::<u64>(), any::<u64>()), 0..30),
        every in any::<u64>(), compares: bool,
    ) {
        let passes: Vec<_> =
            passes.iter().zip(1..).map(|((began, took, n, bytes), number)| pass(number, *began, *took, *n, *bytes)).collect();
        match forecast(&passes, every, compares, 7) {
            None => prop_assert!(passes.is_empty()),
            Some(found) => {
                prop_assert!(found.p90_s >= found.median_s);
                prop_assert!(found.p90_s >= seconds(passes.last().expect("one").elapsed_ms));
                prop_assert_eq!(found.basis == ForecastBasis::FirstPass, passes.len() == 1);
            }
        }
    }

    /// A machine that looks and copies at steady rates: the forecast is what it would need.
    #[test]
    fn a_steady_machine_is_foretold_exactly(
        look_ms in 1000_u64..100_000, entries in 1_000_000_u64..10_000_000, per_minute in 0_u64..5_000, every in 1_u64..60,
    ) {
        // A copied entry takes 1 ms beside the look.
        let first_ms = entries;
        let took = |changed: u64| look_ms + changed;
        let mut passes = vec![pass(1, 0, first_ms, entries, 0)];
        let mut began = first_ms;
        for number in 2..8 {
            let changed = per_minute * every;
            let previous: u64 = passes.last().expect("one").started_ms;
            // Changes gather from the start of one pass to the start of the next.
            let changed = if number == 2 { per_minute * (began - previous) / MINUTE } else { changed };
            passes.push(pass(number, began, took(changed), changed, 0));
            began += every * MINUTE;
        }
        let found = forecast(&passes, every * MINUTE, false, 0).expect("a forecast");
        // What was looked at is taken for a tenth of the pass at least.
        let look_ms = look_ms.max(took(per_minute * every) / 10);
        let exact = 2 * look_ms + per_minute * every / 2;
        prop_assert!(found.median_s * 1000 >= exact.saturating_sub(1000) && found.median_s * 1000 <= exact + 2000,
            "{} s for {exact} ms", found.median_s);
        let bound = 2 * look_ms + per_minute * every;
        prop_assert!(found.p90_s * 1000 >= bound.saturating_sub(1000), "{} s for {bound} ms", found.p90_s);
    }
}
