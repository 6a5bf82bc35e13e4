//! How fast a job moved, for as long as it ran, in a bounded list: what the plot of its report is drawn from.
//!
//! A run says twice a second where it stands, for days. What is kept are at most [`SPANS_KEPT`] spans of time with
//! what was moved in each. When there are more, the two neighbours that cover the least time together become one:
//! a short pass keeps its shape beside a long one, the sum of all bytes stays exact, and the time between passes
//! stays empty as long as there is room for the gap.
//!
//! Pure: times are arguments. A span is written as `[from_ms, length_ms, bytes, entries]`, since a job's record is
//! written whole with each transition.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::SPANS_KEPT;

/// What was moved in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Span {
    /// Milliseconds since 1970.
    pub from_ms: u64,
    pub length_ms: u64,
    /// Content bytes that were done with: copied, or found equal.
    pub bytes: u64,
    pub entries: u64,
}

impl From<[u64; 4]> for Span {
    fn from([from_ms, length_ms, bytes, entries]: [u64; 4]) -> Self {
        Self { from_ms, length_ms, bytes, entries }
    }
}

impl From<Span> for [u64; 4] {
    fn from(span: Span) -> Self {
        [span.from_ms, span.length_ms, span.bytes, span.entries]
    }
}

impl Span {
    /// The time after its last moment.
    #[must_use]
    pub const fn until_ms(&self) -> u64 {
        self.from_ms.saturating_add(self.length_ms)
    }

    /// Bytes a second; nothing for no time.
    #[must_use]
    pub fn bytes_per_s(&self) -> u64 {
        let per_s = u128::from(self.bytes) * 1000 / u128::from(self.length_ms.max(1));
        u64::try_from(per_s).unwrap_or(u64::MAX)
    }

    fn joined(self, later: Self) -> Self {
        Self {
            from_ms: self.from_ms,
            length_ms: later.until_ms().saturating_sub(self.from_ms),
            bytes: self.bytes.saturating_add(later.bytes),
            entries: self.entries.saturating_add(later.entries),
        }
    }
}

/// The spans, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Vec<[u64; 4]>)]
pub struct Series(Vec<Span>);

/// Turns what a run says of itself, counters that only grow, into spans. One for each run; not stored.
#[derive(Clone, Debug)]
pub struct Meter {
    at_ms: u64,
    bytes: u64,
    entries: u64,
}

impl Meter {
    /// A run that begins.
    #[must_use]
    pub const fn starting(now_ms: u64) -> Self {
        Self { at_ms: now_ms, bytes: 0, entries: 0 }
    }

    /// Takes the counters of the run as they stand now, and gives what was moved since the last time. A clock that
    /// was set back, and a counter that did not grow, give nothing.
    pub fn read(&mut self, now_ms: u64, bytes_done: u64, entries_done: u64) -> Option<Span> {
        let span = Span {
            from_ms: self.at_ms,
            length_ms: now_ms.checked_sub(self.at_ms).filter(|length| *length > 0)?,
            bytes: bytes_done.saturating_sub(self.bytes),
            entries: entries_done.saturating_sub(self.entries),
        };
        *self = Self { at_ms: now_ms, bytes: bytes_done, entries: entries_done };
        Some(span)
    }
}

impl Series {
    /// Whether nothing was moved yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans, the oldest first.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.0
    }

    /// Adds a span that begins no earlier than the last one ends; one that does, after a clock was set back, is
    /// moved behind it.
    pub fn push(&mut self, span: Span) {
        let from_ms = self.0.last().map_or(span.from_ms, |last| span.from_ms.max(last.until_ms()));
        self.0.push(Span { from_ms, ..span });
        if self.0.len() > SPANS_KEPT {
            self.join_the_shortest();
        }
    }

    fn join_the_shortest(&mut self) {
        let together = |pair: &[Span]| pair[0].joined(pair[1]).length_ms;
        let shortest = self.0.windows(2).enumerate().min_by_key(|(_, pair)| together(pair)).map(|(at, _)| at);
        if let Some(at) = shortest {
            self.0[at] = self.0[at].joined(self.0[at + 1]);
            self.0.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(from_ms: u64, length_ms: u64, bytes: u64) -> Span {
        Span { from_ms, length_ms, bytes, entries: 1 }
    }

    #[test]
    fn the_gap_between_two_passes_outlives_a_long_pass() {
        let mut series = Series::default();
        for at in 0..1000 {
            series.push(span(at * 500, 500, 10));
        }
        for at in 0..1000 {
            series.push(span(10_000_000 + at * 500, 500, 10));
        }
        let gap = series.0.windows(2).any(|pair| pair[0].until_ms() <= 500_000 && pair[1].from_ms >= 10_000_000);
        assert!(gap, "{:?}", series.0);
    }

    #[test]
    fn a_span_is_four_numbers() {
        let text = serde_json::to_string(&span(7, 500, 9)).unwrap();
        assert_eq!(text, "[7,500,9,1]");
        assert_eq!(serde_json::from_str::<Span>(&text).unwrap(), span(7, 500, 9));
    }

    #[test]
    fn counters_become_what_was_moved_between_two_looks_at_them() {
        let mut meter = Meter::starting(1000);
        assert_eq!(meter.read(1500, 100, 2), Some(Span { from_ms: 1000, length_ms: 500, bytes: 100, entries: 2 }));
        assert_eq!(meter.read(1500, 150, 3), None);
        assert_eq!(meter.read(900, 150, 3), None, "a clock that was set back");
        assert_eq!(meter.read(2000, 150, 3), Some(Span { from_ms: 1500, length_ms: 500, bytes: 50, entries: 1 }));
        assert_eq!(meter.read(2500, 20, 3).unwrap().bytes, 0, "another pass begins its counters anew");
        assert_eq!(meter.read(3000, 30, 3).unwrap().bytes, 10);
    }

    proptest! {
        #[test]
        fn the_list_is_bounded_in_order_and_loses_no_byte(
            parts in proptest::collection::vec((0_u64..100_000, 1_u64..5000, 0_u64..1_000_000), 0..500)
        ) {
            let mut series = Series::default();
            let (mut now, mut bytes) = (0, 0);
            for (idle, length, moved) in parts {
                series.push(span(now + idle, length, moved));
                now += idle + length;
                bytes += moved;
            }
            prop_assert!(series.0.len() <= SPANS_KEPT);
            prop_assert!(series.0.windows(2).all(|pair| pair[0].until_ms() <= pair[1].from_ms));
            prop_assert_eq!(series.0.iter().map(|span| span.bytes).sum::<u64>(), bytes);
            prop_assert_eq!(series.0.last().map_or(0, Span::until_ms), now);
        }
    }
}
