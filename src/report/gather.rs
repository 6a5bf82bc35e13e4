//! From what is known of a job to its report.

use std::collections::BTreeMap;

use super::{
    About, Against, Cause, CutoverReport, Example, Moved, Proof, Report, SCHEMA, Shortfall, Unsettable, words,
};
use crate::error::Class;
use crate::fidelity::LossClass;
use crate::job::{Forecast, Job, Kind, Outcome, State, StoredEvent, What};
use crate::limits::{REPORT_EVENTS, REPORT_EXAMPLES};
use crate::store::control::{FailureCount, FailureRow, LossRow};

/// All that a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub job: &'a Job,
    /// All that are kept, the oldest first.
    pub events: &'a [StoredEvent],
    /// Of the last pass; they may be fewer than failed.
    pub failures: &'a [FailureRow],
    /// How many failed, by class.
    pub failure_counts: &'a [FailureCount],
    pub losses: &'a [LossRow],
}

impl Report {
    /// Makes the report.
    #[must_use]
    pub fn of(sources: Sources<'_>, made_ms: u64) -> Self {
        let Sources { job, events, failures, failure_counts, losses } = sources;
        let totals = &job.totals;
        let shortfalls = |counts: &BTreeMap<LossClass, u64>| {
            counts.iter().map(|(class, count)| shortfall(*class, *count, job, losses)).collect()
        };
        let (history, history_left_out) = history(events);
        Self {
            schema: SCHEMA,
            copyd: env!("CARGO_PKG_VERSION").into(),
            made_ms,
            job: about(job),
            verdict: verdict(job),
            moved: moved(job),
            proof: proof(job),
            lost: shortfalls(&totals.lost),
            degraded: shortfalls(&totals.degraded),
            unsettable: totals
                .unsettable
                .iter()
                .map(|class| Unsettable { class: *class, description: class.description().into() })
                .collect(),
            failed: causes(failure_counts, failures),
            still_changing: job.still_changing.clone(),
            passes: job.passes.clone(),
            cutover: cutover(job, events),
            forecast: job.forecast.clone(),
            throughput: job.throughput.clone(),
            history,
            history_left_out,
        }
    }
}

fn about(job: &Job) -> About {
    let mut spec = job.spec.clone();
    // A report is passed on; this is between the caller and the API.
    spec.private_data.clear();
    About {
        id: job.id,
        project: job.project.clone(),
        kind: job.kind(),
        state: job.state,
        generation: job.generation,
        spec,
        created_ms: job.created_ms,
        started_ms: job.started_ms,
        finished_ms: job.finished_ms,
        switch_safe_ms: job.switch_safe_ms,
        last_consistent_ms: job.last_consistent_ms,
        outcome: job.outcome,
        failure: job.failure.clone(),
    }
}

fn moved(job: &Job) -> Moved {
    let t = &job.totals;
    Moved {
        entries: t.entries,
        files_copied: t.files_copied,
        bytes_copied: t.bytes_copied,
        deleted: t.deleted,
        renamed: t.renamed,
        vanished: t.vanished,
        ignored: t.ignored,
        run_ms: t.run_ms,
        runs: t.runs,
        runs_died: t.runs_died,
        backend: t.backend.clone(),
    }
}

fn proof(job: &Job) -> Proof {
    let t = &job.totals;
    let verify = if job.kind() == Kind::Verify { "full" } else { job.spec.verify.word() };
    Proof {
        verify: verify.into(),
        proved: t.proved,
        assumed: t.assumed,
        proved_before: t.proved_before,
        bytes_verified: t.bytes_verified,
        readback: t.readback.clone(),
        share_digest: t.share_digest.clone(),
        metadata_digest: t.metadata_digest.clone(),
        comparison: job.verification.clone(),
    }
}

/// No more than what the record carries: a job that has not ended has proved nothing as a whole.
fn verdict(job: &Job) -> String {
    if let Some(comparison) = job.verification.as_ref().filter(|comparison| !comparison.equal) {
        return format!(
            "The comparison found differences: {} differ, {} missing at the destination, {} only there, {} could not \
             be compared.",
            words::entries(comparison.differing),
            words::many(comparison.missing, "is", "are"),
            words::many(comparison.extra, "is", "are"),
            words::entries(comparison.failed),
        );
    }
    match (job.state, job.outcome.map(|ending| ending.outcome)) {
        (_, Some(Outcome::Completed)) => completed(job),
        (_, Some(Outcome::Cancelled)) => {
            "Cancelled before its end. What stands at the destination is whole files, and not the whole share.".into()
        }
        (_, Some(Outcome::Failed)) | (State::Failed, None) => match &job.failure {
            Some(failure) => format!("Failed: {}. {}", failure.message, sentence(&failure.remedy)),
            None => "Failed.".into(),
        },
        (State::Ready, None) => "Ready for the cutover. The source may have changed since the last pass.".into(),
        (State::InSync, None) => "The replica is in sync, as of its last consistent time.".into(),
        (State::OutOfSync, None) => "The replica is out of sync.".into(),
        (state, None) => {
            format!("Not ended: {}. What follows is what is known so far.", state.word().replace('_', " "))
        }
    }
}

fn completed(job: &Job) -> String {
    let t = &job.totals;
    let mut text = match job.kind() {
        Kind::Verify => format!("Both sides were compared and are equal: {}.", words::entries(t.entries)),
        _ => format!("Completed: {} at the destination", words::entries(t.entries)),
    };
    if job.kind() != Kind::Verify {
        // The last pass leaves alone what earlier ones had done, and what they proved may have decayed since.
        let rest = t.assumed.saturating_sub(t.proved_before);
        let how = match (t.assumed, t.proved_before, rest) {
            (0, ..) => ", every one of them proved in the last pass.".to_owned(),
            (_, _, 0) => ", every one of them proved: in the last pass, or by an earlier one and by size and times as \
                          that left them."
                .to_owned(),
            (_, 0, _) if t.proved == 0 => {
                ", taken as equal by size and times; none was proved by its content.".to_owned()
            }
            (.., rest) => {
                format!(", of which {} are not proved but taken as equal by size and times.", words::entries(rest))
            }
        };
        text.push_str(&how);
    }
    let short = [(t.failed, "failed"), (t.hot, "changed whenever read"), (t.lost.values().sum(), "losses")];
    let named: Vec<String> =
        short.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", crate::units::grouped(*n))).collect();
    if !named.is_empty() {
        text.push_str(" Not all is there as it was: ");
        text.push_str(&named.join(", "));
        text.push('.');
    }
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

fn shortfall(class: LossClass, count: u64, job: &Job, losses: &[LossRow]) -> Shortfall {
    let examples = losses.iter().filter(|loss| loss.class == class).take(REPORT_EXAMPLES);
    Shortfall {
        class,
        count,
        accepted: job.spec.accept_loss.contains(&class),
        description: class.description().into(),
        remedy: class.remedy().into(),
        examples: examples.map(|loss| Example::of(&loss.path, None, loss.detail.clone())).collect(),
    }
}

/// Groups what failed. The counts are whole where the list of failures, which is bounded, is not.
fn causes(counted: &[FailureCount], failures: &[FailureRow]) -> Vec<Cause> {
    // While a pass goes on, those of the one before are there too.
    let latest = counted.iter().map(|count| count.pass).max();
    let mut counts: BTreeMap<Class, u64> = BTreeMap::new();
    for count in counted.iter().filter(|count| Some(count.pass) == latest) {
        counts.insert(count.class, count.entries);
    }
    let mut causes: Vec<Cause> = counts
        .into_iter()
        .map(|(class, count)| Cause {
            class,
            count,
            remedy: class.remedy().into(),
            examples: failures
                .iter()
                .filter(|entry| entry.class == class && Some(entry.pass) == latest)
                .take(REPORT_EXAMPLES)
                .map(|entry| Example::of(&entry.path, Some(entry.side), detail(entry)))
                .collect(),
        })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

fn detail(entry: &FailureRow) -> String {
    match &entry.error {
        Some(error) => format!("{}: {error}", entry.operation),
        None => entry.operation.clone(),
    }
}

fn history(events: &[StoredEvent]) -> (Vec<StoredEvent>, u64) {
    let left_out = events.len().saturating_sub(REPORT_EVENTS);
    // How it began is worth more than the middle.
    let (head, tail) = (REPORT_EVENTS / 10, REPORT_EVENTS - REPORT_EVENTS / 10);
    let kept = if left_out == 0 { events.to_vec() } else { [&events[..head], &events[events.len() - tail..]].concat() };
    (kept, left_out as u64)
}

fn cutover(job: &Job, events: &[StoredEvent]) -> Option<CutoverReport> {
    let (mut attempts, mut began_ms, mut went_back) = (0, None, Vec::new());
    let (mut latest, mut forecast): (Option<&Forecast>, Option<&Forecast>) = (None, None);
    for event in events {
        match &event.event.what {
            What::Forecast(new) => latest = Some(new),
            What::StateChanged { to: State::Cutover, from, .. } if *from != State::Paused => {
                (attempts, began_ms, forecast) = (attempts + 1, Some(event.event.at_ms), latest);
            }
            What::StateChanged { from: State::Cutover | State::Verifying, to: State::Ready, reason } => {
                went_back.push(reason.clone().unwrap_or_else(|| "no reason was given".into()));
            }
            _ => {}
        }
    }
    let began_ms = began_ms.or_else(|| job.cutover.map(|facts| facts.since_ms))?;
    let safe_ms = job.switch_safe_ms.filter(|safe| *safe >= began_ms);
    let took_ms = safe_ms.map(|safe| safe - began_ms);
    let against = |took: u64, forecast: &Forecast| match took.div_ceil(1000) {
        took if took <= forecast.median_s => Against::WithinMedian,
        took if took <= forecast.p90_s => Against::WithinP90,
        _ => Against::Longer,
    };
    let surplus = went_back.len().saturating_sub(REPORT_EXAMPLES);
    went_back.drain(..surplus);
    Some(CutoverReport {
        began_ms,
        safe_ms,
        took_ms,
        attempts: attempts.max(1),
        went_back,
        forecast: forecast.cloned(),
        against_forecast: took_ms.zip(forecast).map(|(took, forecast)| against(took, forecast)),
    })
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
