//! The throughput of a job as an inline SVG: one area over time, and below it which pass that was.
//!
//! A job that refreshes every quarter of an hour rests most of the time, so time without a run is drawn as a narrow
//! break and not to scale. Geometry first ([`Axis`], pure), then marks. Colours are classes of the page's style.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::words;
use crate::job::{PassFacts, Purpose, Series, Span};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const HEIGHT: f64 = 170.0;
/// Where the passes are drawn, below the plot.
const BAND: f64 = 14.0;
/// A break in time, at most; with many of them each is narrower.
const BREAK: f64 = 16.0;
/// Of the width, at most for all breaks together.
const BREAKS_SHARE: f64 = 0.3;

/// Where a time lies. Blocks of time with runs, in order, with a break between each two.
#[derive(Debug)]
struct Axis {
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    from_ms: u64,
    until_ms: u64,
    x: f64,
    width: f64,
}

impl Axis {
    /// Over everything that was moved; none where nothing was.
    fn over(spans: &[Span]) -> Option<Self> {
        let busy = sum(spans.iter().map(|span| span.length_ms));
        // A pause that would take more of the width than a break does is one.
        let pause = busy / 50;
        let mut blocks: Vec<Block> = Vec::new();
        for span in spans {
            match blocks.last_mut() {
                Some(block) if span.from_ms.saturating_sub(block.until_ms) <= pause => {
                    block.until_ms = block.until_ms.max(span.until_ms());
                }
                _ => blocks.push(Block { from_ms: span.from_ms, until_ms: span.until_ms(), x: 0.0, width: 0.0 }),
            }
        }
        let total = sum(blocks.iter().map(|block| block.until_ms - block.from_ms));
        if total == 0 {
            return None;
        }
        let (room, breaks) = (WIDTH - LEFT - RIGHT, real(blocks.len() as u64 - 1));
        let each = if breaks > 0.0 { (room * BREAKS_SHARE / breaks).min(BREAK) } else { 0.0 };
        let mut x = LEFT;
        for block in &mut blocks {
            block.x = x;
            block.width = (room - each * breaks) * real(block.until_ms - block.from_ms) / real(total);
            x += block.width + each;
        }
        Some(Self { blocks })
    }

    /// A time in a break lies at its beginning.
    fn x(&self, at_ms: u64) -> f64 {
        let mut x = LEFT;
        for block in self.blocks.iter().take_while(|block| block.from_ms <= at_ms) {
            let inside = real(at_ms.min(block.until_ms) - block.from_ms);
            x = block.x + block.width * inside / real((block.until_ms - block.from_ms).max(1));
        }
        x
    }
}

/// The plot; nothing where nothing was moved.
pub fn throughput(series: &Series, passes: &[PassFacts]) -> Option<Markup> {
    let spans = series.spans();
    let axis = Axis::over(spans)?;
    let peak = spans.iter().map(Span::bytes_per_s).max()?;
    let top = ceiling(peak);
    let y = |rate: u64| TOP + HEIGHT * (1.0 - real(rate) / real(top));
    let (first, last) = (spans.first()?, spans.last()?);
    let moved = sum(spans.iter().map(|span| span.bytes));
    let busy = sum(spans.iter().map(|span| span.length_ms));
    let told = format!(
        "Throughput over time: {} in {}, {} on average, at most {}/s.",
        words::size(moved),
        words::span(busy),
        words::rate(moved, busy),
        words::size(peak)
    );
    let foot = TOP + HEIGHT;
    let full = foot + BAND + 26.0;
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {full}")) role="img" aria-label=(told) {
            title { (told) }
            @for rate in [top, top / 2, 0] {
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(point(y(rate))) y2=(point(y(rate))) {}
                text class="tick" x=(LEFT - 8.0) y=(point(y(rate) + 4.0)) text-anchor="end" {
                    (words::size(rate)) "/s"
                }
            }
            @for block in &axis.blocks {
                (area(&axis, block, spans, &y))
            }
            @for pair in axis.blocks.windows(2) {
                (pause(&pair[0], &pair[1]))
            }
            @for pass in passes {
                (band(&axis, pass, foot + 4.0))
            }
            text class="tick" x=(LEFT) y=(point(full - 4.0)) { (words::utc(first.from_ms)) }
            text class="tick" x=(WIDTH - RIGHT) y=(point(full - 4.0)) text-anchor="end" { (words::utc(last.until_ms())) }
        }
    })
}

/// One block's spans as a stepped area.
fn area(axis: &Axis, block: &Block, spans: &[Span], y: &impl Fn(u64) -> f64) -> Markup {
    let foot = point(TOP + HEIGHT);
    // Writing to a `String` can't fail.
    let mut path = format!("M{} {foot}", point(block.x));
    let mut end = block.from_ms;
    let inside = spans.iter().filter(|span| (block.from_ms..block.until_ms).contains(&span.from_ms));
    for span in inside {
        if span.from_ms > end {
            let _ = write!(path, "V{foot}H{}", point(axis.x(span.from_ms)));
        }
        end = span.until_ms();
        // So that a short span is not lost between two pixels.
        let right = axis.x(end).max(axis.x(span.from_ms) + 0.5);
        let _ = write!(path, "V{}H{}", point(y(span.bytes_per_s())), point(right));
    }
    let _ = write!(path, "V{foot}Z");
    html! { path class="area" d=(path) {} }
}

fn pause(before: &Block, after: &Block) -> Markup {
    let x = point(f64::midpoint(before.x + before.width, after.x));
    let length = words::span(after.from_ms.saturating_sub(before.until_ms));
    html! {
        line class="pause" x1=(x) x2=(x) y1=(point(TOP)) y2=(point(TOP + HEIGHT + BAND)) {
            title { (length) " without a run" }
        }
    }
}

fn band(axis: &Axis, pass: &PassFacts, top: f64) -> Markup {
    let (from, until) = (axis.x(pass.started_ms), axis.x(pass.started_ms.saturating_add(pass.elapsed_ms)));
    let width = (until - from).max(1.0);
    let what = format!("{}: {}", label(pass), words::span(pass.elapsed_ms));
    html! {
        rect class={ "band " (class(pass.purpose)) } x=(point(from)) y=(point(top)) width=(point(width)) height=(point(BAND - 4.0)) rx="1.5" {
            title { (what) }
        }
    }
}

/// What a pass was, for people.
pub fn label(pass: &PassFacts) -> String {
    let again = if pass.retry_failed { ", what had failed" } else { "" };
    let what = match pass.purpose {
        Purpose::Pass if pass.pass == 1 => "first pass",
        Purpose::Pass => "pass",
        Purpose::CutoverPass => "last pass of the cutover",
        Purpose::Confirm => "confirmation",
        Purpose::Verify => "comparison",
    };
    format!("{what}{again}")
}

/// The class that its colour is of.
pub const fn class(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Pass => "pass",
        Purpose::CutoverPass => "cutover",
        Purpose::Confirm => "confirm",
        Purpose::Verify => "verify",
    }
}

/// A report may come from another machine, and its numbers need not make sense.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// The next round number of bytes: 1, 2, 4, …, 512 of a unit of 1024.
const fn ceiling(bytes: u64) -> u64 {
    let least = if bytes < 2 { 2 } else { bytes };
    match least.checked_next_power_of_two() {
        Some(round) => round,
        None => u64::MAX,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pixel is far coarser")]
const fn real(n: u64) -> f64 {
    n as f64
}

/// A coordinate with one decimal: a page is read by people, and written by the thousand.
fn point(at: f64) -> String {
    let text = format!("{at:.1}");
    text.strip_suffix(".0").map(ToOwned::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(spans: &[(u64, u64, u64)]) -> Series {
        let mut series = Series::default();
        for (from_ms, length_ms, bytes) in spans {
            series.push(Span { from_ms: *from_ms, length_ms: *length_ms, bytes: *bytes, entries: 0 });
        }
        series
    }

    #[test]
    fn nothing_moved_draws_nothing() {
        assert!(throughput(&Series::default(), &[]).is_none());
    }

    #[test]
    fn a_long_pause_is_a_break_and_a_short_one_is_drawn_to_scale() {
        let spans = series(&[(0, 10_000, 1), (10_100, 10_000, 1), (9_000_000, 10_000, 1)]);
        let axis = Axis::over(spans.spans()).unwrap();
        assert_eq!(axis.blocks.len(), 2);
        let text = throughput(&spans, &[]).unwrap().into_string();
        assert!(text.contains("2 h 29 min without a run"), "{text}");
    }

    #[test]
    fn the_scale_is_a_round_number_that_holds_the_peak() {
        for (bytes, top) in [(0, 2), (1000, 1024), (1025, 2048), (u64::MAX, u64::MAX)] {
            assert_eq!(ceiling(bytes), top);
        }
    }

    #[test]
    fn spans_that_make_no_sense_are_drawn_all_the_same() {
        let series: Series =
            serde_json::from_str("[[9,5,1,1],[1,2,3,4],[18446744073709551615,18446744073709551615,1,1]]").unwrap();
        assert!(
            throughput(&series, &[PassFacts { started_ms: u64::MAX, elapsed_ms: u64::MAX, ..PassFacts::default() }])
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn every_time_lies_within_the_plot_and_later_ones_further_right(
            parts in proptest::collection::vec((0_u64..10_000_000, 1_u64..100_000, any::<u64>()), 1..130),
            times in proptest::collection::vec(0_u64..2_000_000_000, 2..20),
        ) {
            let (mut now, mut spans) = (0, Vec::new());
            for (idle, length, bytes) in parts {
                spans.push((now + idle, length, bytes));
                now += idle + length;
            }
            let series = series(&spans);
            let axis = Axis::over(series.spans()).unwrap();
            let mut times = times;
            times.sort_unstable();
            let xs: Vec<f64> = times.iter().map(|at| axis.x(*at)).collect();
            prop_assert!(xs.iter().all(|x| (LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(x)), "{xs:?}");
            prop_assert!(xs.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6), "{xs:?}");
            let text = throughput(&series, &[]).unwrap().into_string();
            prop_assert!(!text.contains("NaN") && !text.contains("inf"));
        }
    }
}
