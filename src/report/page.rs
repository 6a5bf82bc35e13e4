//! The report as one HTML page, for people: to look at, to print, to attach to a change.
//!
//! Everything is in the file: no script, no font, no picture from elsewhere, and a policy in its head that forbids
//! them even if one were to slip in. Every text that is not ours goes through [`shown`]: control bytes become
//! copyd's escapes, and maud escapes what HTML would take for its own.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::{class, label, throughput};
use super::{Against, Cause, CutoverReport, Example, Report, Shortfall, history, words};
use crate::error::ExitCode;
use crate::escape::{escape, escape_lines};
use crate::job::{Outcome, PassFacts, State};
use crate::units::grouped;

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded, sent or run. Styles stand in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = format!("copyd: {} {}", report.job.kind.word(), report.job.id);
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                main {
                    (tiles(report))
                    (shape(report))
                    (passes(&report.passes))
                    (cutover(report))
                    (proof(report))
                    (failures(report))
                    (shortfalls(report))
                    (destination(report))
                    (asked(report))
                    (happened(report))
                }
                footer {
                    "Made by copyd " (shown(&report.copyd)) " at " (words::utc(report.made_ms))
                    ", form " (report.schema) ". All times are UTC."
                }
            }
        }
    };
    body.into_string()
}

/// A text of others, in printable characters.
fn shown(text: &str) -> String {
    escape(text.as_bytes())
}

/// A path from the root, which itself is `.`.
fn path(bytes: &[u8]) -> String {
    if bytes.is_empty() { ".".into() } else { escape(bytes) }
}

fn head(report: &Report) -> Markup {
    let job = &report.job;
    let (mood, word) = mood(report);
    html! {
        header {
            h1 { span.name { (shown(&job.spec.source.export)) } " → " span.name { (shown(&job.spec.destination.export)) } }
            p.soft {
                (capital(job.kind.word())) " job " code { (job.id) } ", project " (shown(&job.project))
                @if let Some(group) = &job.spec.group { ", group " (shown(group)) }
            }
            div class={ "verdict " (mood) } {
                strong { (word) }
                (shown(&report.verdict))
                @if let Some(failure) = &job.failure {
                    @for why in &failure.why { div.soft { "Because: " (shown(why)) } }
                }
            }
        }
    }
}

/// How it went, as a class of the style and a word.
fn mood(report: &Report) -> (&'static str, String) {
    let state = report.job.state.word().replace('_', " ");
    match report.job.outcome {
        Some(end) if end.outcome == Outcome::Completed && end.exit_code == ExitCode::Complete as u8 => ("good", state),
        Some(end) if end.outcome == Outcome::Completed => ("warn", format!("{state}, exit {}", end.exit_code)),
        Some(end) if end.outcome == Outcome::Cancelled => ("warn", state),
        Some(end) => ("bad", format!("{state}, exit {}", end.exit_code)),
        None if matches!(report.job.state, State::OutOfSync | State::Failed) => ("bad", state),
        None => ("", state),
    }
}

fn tiles(report: &Report) -> Markup {
    let (moved, proof) = (&report.moved, &report.proof);
    let lost: u64 = report.lost.iter().map(|class| class.count).sum();
    let failed: u64 = report.failed.iter().map(|cause| cause.count).sum();
    let lasted =
        report.job.started_ms.map(|from| report.job.finished_ms.unwrap_or(report.made_ms).saturating_sub(from));
    let downtime = report.cutover.as_ref().and_then(|cutover| cutover.took_ms);
    html! {
        div.tiles {
            (tile(&grouped(moved.entries), "entries in scope"))
            (tile(&grouped(moved.files_copied), "files copied"))
            (tile(&words::size(moved.bytes_copied), "written"))
            (tile(&grouped(proof.proved), "entries proved"))
            (tile(&grouped(proof.assumed.saturating_sub(proof.proved_before)), "entries assumed"))
            (tile(&grouped(failed), "failed or hot"))
            (tile(&grouped(lost), "losses"))
            (tile(&grouped(moved.deleted), "deleted at the destination"))
            @if let Some(lasted) = lasted { (tile(&words::span(lasted), "from first run to end")) }
            @if let Some(took) = downtime { (tile(&words::span(took), "cutover")) }
        }
    }
}

fn tile(value: &str, what: &str) -> Markup {
    html! { div.tile { b { (value) } span { (what) } } }
}

fn shape(report: &Report) -> Markup {
    let Some(plot) = throughput(&report.throughput, &report.passes) else { return html! {} };
    html! {
        section {
            h2 { "Throughput" }
            (plot)
            p.soft {
                "Content that was copied or found equal, over time. Below: "
                @for (class, word) in
                    [("pass", "passes"), ("cutover", "last pass of a cutover"), ("confirm", "confirmation"), ("verify", "comparison")]
                {
                    span.legend { span class={ "key " (class) } {} (word) } " "
                }
                "A dotted line is time without a run."
            }
        }
    }
}

fn passes(passes: &[PassFacts]) -> Markup {
    html! {
        @if !passes.is_empty() {
            section {
                h2 { "Passes" }
                div.wide.scroll {
                    table {
                        thead {
                            tr {
                                th.n { "#" } th { "Pass" } th { "Began" } th.n { "Took" } th.n { "Entries" } th.n { "Changed" }
                                th.n { "Files" } th.n { "Written" } th.n { "Rate" } th.n { "Deleted" } th.n { "Hot" } th.n { "Failed" }
                            }
                        }
                        tbody { @for pass in passes { (row(pass)) } }
                    }
                }
            }
        }
    }
}

fn row(pass: &PassFacts) -> Markup {
    html! {
        tr {
            td.n { (pass.pass) }
            td { span class={ "key " (class(pass.purpose)) } {} (label(pass)) @if pass.exit_code != 0 { " (exit " (pass.exit_code) ")" } }
            td.t { (words::utc(pass.started_ms).trim_end_matches(" UTC")) }
            td.n { (words::span(pass.elapsed_ms)) }
            td.n { (grouped(pass.entries)) }
            td.n { (grouped(pass.changed_entries)) }
            td.n { (grouped(pass.files_copied)) }
            td.n { (words::size(pass.bytes_copied)) }
            td.n { (words::rate(pass.bytes_copied, pass.elapsed_ms)) }
            td.n { (grouped(pass.deleted)) }
            td.n { @if pass.hot > 0 { b.warn { (grouped(pass.hot)) } } @else { "0" } }
            td.n { @if pass.failed > 0 { b.bad { (grouped(pass.failed)) } } @else { "0" } }
        }
    }
}

fn cutover(report: &Report) -> Markup {
    let Some(cutover) = &report.cutover else {
        return html! {
            @if let Some(forecast) = &report.forecast {
                section {
                    h2 { "Cutover" }
                    p {
                        "Not begun. As of " (words::utc(forecast.as_of_ms)) " it would take " (words::seconds(forecast.median_s))
                        ", nine of ten at most " (words::seconds(forecast.p90_s)) ": about " (words::entries(forecast.changed_entries))
                        " and " (words::size(forecast.changed_bytes)) " will have changed."
                    }
                }
            }
        };
    };
    html! {
        section {
            h2 { "Cutover" }
            dl {
                dt { "Began" } dd { (words::utc(cutover.began_ms)) }
                @if let Some(safe) = cutover.safe_ms { dt { "Clients may switch" } dd { (words::utc(safe)) } }
                @if let Some(took) = cutover.took_ms { dt { "Took" } dd { b { (words::span(took)) } } }
                @if let Some(forecast) = &cutover.forecast {
                    dt { "Forecast" }
                    dd { (words::seconds(forecast.median_s)) " (median), " (words::seconds(forecast.p90_s)) " (nine of ten)" (against(cutover)) }
                }
                @if cutover.attempts > 1 { dt { "Attempts" } dd { (cutover.attempts) } }
            }
            (bars(cutover))
            @if !cutover.went_back.is_empty() {
                h3 { "Went back to ready" }
                ul.names { @for reason in &cutover.went_back { li { (shown(reason)) } } }
            }
            @if !report.still_changing.is_empty() {
                h3 { "Changed after the cutover had begun" }
                (names(report.still_changing.iter().map(|name| shown(name))))
            }
        }
    }
}

fn against(cutover: &CutoverReport) -> Markup {
    match cutover.against_forecast {
        Some(Against::WithinMedian) => html! { ": " b.good { "it kept to the median" } },
        Some(Against::WithinP90) => html! { ": " b.good { "it kept to what nine of ten do" } },
        Some(Against::Longer) => html! { ": " b.warn { "it took longer" } },
        None => html! {},
    }
}

/// What came as a bar, and what was forecast as marks on it.
fn bars(cutover: &CutoverReport) -> Markup {
    let (Some(took), Some(forecast)) = (cutover.took_ms, &cutover.forecast) else { return html! {} };
    let (median, p90) = (forecast.median_s.saturating_mul(1000), forecast.p90_s.saturating_mul(1000));
    let longest = took.max(p90).max(1);
    let x = |ms: u64| u128::from(ms) * 880 / u128::from(longest) + 8;
    html! {
        svg viewBox="0 0 900 52" role="img" aria-label=(format!("Took {}, forecast {}", words::span(took), words::span(median))) {
            rect class="cutover" x="8" y="8" height="16" rx="2" width=((x(took) - 8).max(1)) {}
            @for (at, word, y) in [(median, "median", 38), (p90, "nine of ten", 50)] {
                line class="mark" x1=(x(at)) x2=(x(at)) y1="4" y2="28" {}
                text class="tick" x=(x(at)) y=(y) text-anchor=(if x(at) > 800 { "end" } else { "start" }) { (word) " " (words::span(at)) }
            }
        }
    }
}

fn proof(report: &Report) -> Markup {
    let proof = &report.proof;
    let readback = match proof.readback.as_deref() {
        Some("direct") => "read back with direct I/O, past the page cache",
        Some("evicted") => "read back after the page cache had dropped what was written",
        Some("memory") => {
            "the destination is a memory file system: nothing lies past the cache, so this proves no disk"
        }
        Some("none") => "nothing was read back",
        _ => "not known",
    };
    html! {
        section {
            h2 { "Proof" }
            dl {
                dt { "Proved in the last pass" }
                dd { (words::entries(proof.proved)) ": read from an unchanged source, durable, and equal when read back; " (words::size_in_full(proof.bytes_verified)) }
                dt { "Proved before it" }
                dd { (words::entries(proof.proved_before)) ": proved by an earlier run of the job, and by size and times on both sides as it left them" }
                dt { "Assumed" }
                dd { (words::entries(proof.assumed.saturating_sub(proof.proved_before))) ": taken as equal by size and times, or copied without read-back" }
                dt { "Level asked" } dd { (shown(&proof.verify)) }
                dt { "Read-back" } dd { (readback) }
                @if let Some(c) = &proof.comparison {
                    dt { "Both sides compared" }
                    dd {
                        (words::utc(c.verified_ms)) ": " (words::entries(c.entries)) ", "
                        @if c.equal { b.good { "equal" } } @else {
                            b.bad { (grouped(c.differing)) " differ, " (grouped(c.missing)) " missing, " (grouped(c.extra)) " extra, " (grouped(c.failed)) " not compared" }
                        }
                    }
                }
                dt { "Share digest" } dd { (digest(proof.share_digest.as_deref())) }
                dt { "Metadata digest" } dd { (digest(proof.metadata_digest.as_deref())) }
            }
            p.soft { "Two shares with equal digests hold the same names, types and contents; the second one is over owners, modes, times and attributes." }
        }
    }
}

fn digest(hex: Option<&str>) -> Markup {
    html! {
        @if let Some(hex) = hex { code { (shown(hex)) } } @else { span.soft { "none: not every entry is known whole" } }
    }
}

fn failures(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Failed, or changed whenever read" }
            @if report.failed.is_empty() { p { "Nothing." } }
            @for cause in &report.failed { (one_cause(cause)) }
        }
    }
}

fn one_cause(cause: &Cause) -> Markup {
    let more = cause.count.saturating_sub(cause.examples.len() as u64);
    html! {
        div.cause {
            h3 { (cause.class.word().replace('_', " ")) ": " (words::entries(cause.count)) }
            p { "What to do: " (shown(&cause.remedy)) "." }
            (examples(&cause.examples, more))
        }
    }
}

fn shortfalls(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Lost or degraded" }
            @if report.lost.is_empty() && report.degraded.is_empty() { p { "Nothing: the destination holds all that the source has." } }
            @for class in &report.lost { (one_shortfall(class, "lost")) }
            @for class in &report.degraded { (one_shortfall(class, "kept, but coarser or mapped")) }
            @if !report.unsettable.is_empty() {
                h3 { "No file system lets these be set" }
                ul.names { @for class in &report.unsettable { li { b { (class.class.word().replace('_', " ")) } ": " (shown(&class.description)) } } }
            }
        }
    }
}

fn one_shortfall(class: &Shortfall, how: &str) -> Markup {
    let more = class.count.saturating_sub(class.examples.len() as u64);
    html! {
        div.cause {
            h3 {
                (class.class.word().replace('_', " ")) ", " (how) ": " (grouped(class.count))
                @if class.accepted { " (accepted)" }
            }
            p { (shown(&class.description)) }
            p { "What to do: " (shown(&class.remedy)) }
            (examples(&class.examples, more))
        }
    }
}

fn examples(list: &[Example], more: u64) -> Markup {
    html! {
        @if !list.is_empty() {
            ul.names {
                @for example in list {
                    li {
                        span.name { (path(&example.path())) }
                        span.soft {
                            @if let Some(side) = example.side { " (" (side) ")" }
                            @if !example.detail.is_empty() { " " (shown(&example.detail)) }
                        }
                    }
                }
                @if more > 0 { li.soft { "and " (grouped(more)) " more" } }
            }
        }
    }
}

fn names(list: impl Iterator<Item = String>) -> Markup {
    html! { ul.names { @for name in list { li { span.name { (name) } } } } }
}

fn destination(report: &Report) -> Markup {
    let moved = &report.moved;
    html! {
        section {
            h2 { "At the destination" }
            dl {
                dt { "Written" } dd { (words::many(moved.files_copied, "file", "files")) ", " (words::size_in_full(moved.bytes_copied)) }
                dt { "Deleted" } dd { (words::entries(moved.deleted)) }
                dt { "Renamed" } dd { (words::entries(moved.renamed)) }
                dt { "Vanished while read" } dd { (words::entries(moved.vanished)) }
                dt { "Ignored" } dd { (words::entries(moved.ignored)) }
                dt { "Runs" }
                dd {
                    (grouped(u64::from(moved.runs))) ", " (words::span(moved.run_ms)) " all together"
                    @if moved.runs_died > 0 { "; " b.warn { (moved.runs_died) " died and went on" } }
                }
                @if let Some(backend) = &moved.backend { dt { "Blocks moved by" } dd { (shown(backend)) } }
            }
        }
    }
}

fn asked(report: &Report) -> Markup {
    let spec = serde_json::to_string_pretty(&report.job.spec).unwrap_or_default();
    html! { section { h2 { "What was asked" } pre { code { (escape_lines(&spec)) } } } }
}

fn happened(report: &Report) -> Markup {
    html! {
        section {
            h2 { "What happened" }
            @if report.history_left_out > 0 {
                p.soft { (grouped(report.history_left_out)) " events of the middle are left out." }
            }
            div.scroll {
                table {
                    thead { tr { th { "Time" } th { "Event" } } }
                    tbody {
                        @for event in &report.history {
                            tr { td.t { (words::utc(event.event.at_ms).trim_end_matches(" UTC")) } td { (shown(&history::sentence(&event.event.what))) } }
                        }
                    }
                }
            }
        }
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
