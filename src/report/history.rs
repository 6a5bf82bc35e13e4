//! What happened to a job, event by event, in sentences. `copyd job watch` prints the same ones.
//!
//! A name that a tenant chose may stand in one; whoever prints it escapes it.

use super::words;
use crate::job::{Forecast, PassFacts, Purpose, What};
use crate::units::grouped;

/// One event in one sentence without its full stop.
#[must_use]
pub fn sentence(what: &What) -> String {
    match what {
        What::Created { kind } => format!("taken on: {}", kind.word()),
        What::Command { command } => format!("told: {}", command.word().replace('_', " ")),
        What::StateChanged { from, to, reason } => {
            let why = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} → {}{why}", from.word(), to.word())
        }
        What::RunStarted { number, purpose } => format!("run {number} asked for: {}", purpose_words(*purpose)),
        What::Backend { backend, readback } => format!("blocks are moved by {backend}, read-back {readback}"),
        What::PassEnded(facts) => pass(facts),
        What::RunEnded { number, forced: Some(forced), .. } => format!("run {number} ended by force: {}", forced.what),
        What::RunEnded { number, exit_code, .. } => match exit_code {
            Some(code) => format!("run {number} ended with {code}"),
            None => format!("run {number} died"),
        },
        What::RetryPlanned { attempt, at_most, not_before_ms } => {
            format!("attempt {attempt} of {at_most} not before {}", words::utc(*not_before_ms))
        }
        What::Stall { side, operation, seconds } => {
            let call = operation.as_deref().map(|call| format!(" ({call})")).unwrap_or_default();
            match side {
                Some(side) => format!("no answer from {side} for {}{call}", words::seconds(*seconds)),
                None => format!("nothing has moved for {}{call}", words::seconds(*seconds)),
            }
        }
        What::StallOver { seconds } => format!("it moves again, after {}", words::seconds(*seconds)),
        What::Loss { class, name, detail } => {
            let how = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
            format!("can't be kept: {}: {name}{how}", class.word())
        }
        What::EntryFailed { class, count, remedy } => {
            format!("{} failed, {}: {remedy}", words::entries(*count), class.word())
        }
        What::Note { text } => text.clone(),
        What::Forecast(new) => forecast(new),
        What::SourceChanges { names, entries } => {
            let more = entries.saturating_sub(names.len() as u64);
            let rest = if more > 0 { format!(" and {} more", grouped(more)) } else { String::new() };
            format!("the source still changes: {}{rest}", names.join(", "))
        }
        What::Verified(found) if found.equal => format!("compared: {} are equal", words::entries(found.entries)),
        What::Verified(found) => format!(
            "compared: {} differ, {} missing, {} extra, {} could not be compared",
            grouped(found.differing),
            grouped(found.missing),
            grouped(found.extra),
            grouped(found.failed)
        ),
        What::SwitchSafe => "clients may use the destination from now on".into(),
        What::RpoExceeded { lag_s, rpo_s } => {
            format!("the replica is {} behind, {} are allowed", words::seconds(*lag_s), words::seconds(*rpo_s))
        }
        What::Failed(failure) => format!("failed: {}: {}", failure.message, failure.remedy),
        What::LimitsChanged { patch } => {
            format!("changed: {}", serde_json::to_string(patch).unwrap_or_default())
        }
        What::Restarted => "the daemon was started again, and goes on with the job".into(),
    }
}

fn pass(facts: &PassFacts) -> String {
    format!(
        "pass {} ended ({}): {} changed of {}, {} written in {}, {} deleted, {} hot, {} failed",
        facts.pass,
        purpose_words(facts.purpose),
        grouped(facts.changed_entries),
        words::entries(facts.entries),
        words::size(facts.bytes_copied),
        words::span(facts.elapsed_ms),
        grouped(facts.deleted),
        grouped(facts.hot),
        grouped(facts.failed)
    )
}

/// What a cutover would take, in one sentence.
#[must_use]
pub fn forecast(forecast: &Forecast) -> String {
    format!(
        "a cutover would take {}, nine of ten at most {}",
        words::seconds(forecast.median_s),
        words::seconds(forecast.p90_s)
    )
}

const fn purpose_words(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Pass => "copy what has changed",
        Purpose::CutoverPass => "the last pass of the cutover",
        Purpose::Confirm => "confirm that nothing changes any more",
        Purpose::Verify => "compare both sides",
    }
}
