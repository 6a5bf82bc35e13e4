//! A migration as the tests know it: four passes, a cutover that went back once, failures, losses, hostile names.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Report, Sources};
use crate::error::{Class, Side};
use crate::fidelity::LossClass;
use crate::job::{
    CommandName, Ending, Event, Forecast, ForecastBasis, Job, JobSpec, Kind, Outcome, PassFacts, Purpose, Span, State,
    StoredEvent, Verification, What,
};
use crate::store::control::{FailureCount, FailureRow, LossRow};

/// When it was made: 2026-11-25 16:30:16 UTC.
pub const BEGAN: u64 = 1_795_624_216_000;

/// What a report is made from, with an owner.
#[derive(Debug)]
pub struct Sample {
    pub job: Job,
    pub events: Vec<StoredEvent>,
    pub failures: Vec<FailureRow>,
    pub counts: Vec<FailureCount>,
    pub losses: Vec<LossRow>,
}

impl Sample {
    pub fn report(&self) -> Report {
        let sources = Sources {
            job: &self.job,
            events: &self.events,
            failures: &self.failures,
            failure_counts: &self.counts,
            losses: &self.losses,
        };
        Report::of(sources, BEGAN + 9_000_000)
    }
}

/// A migration that completed, but for what failed. `name` is what a tenant called an entry.
pub fn migration(name: &[u8]) -> Sample {
    let text = String::from_utf8_lossy(name).into_owned();
    let mut job = Job::new(Uuid::from_u128(0x0190_a6f0_0000_7000_8000_0000_0000_0001), spec(&text), BEGAN);
    (job.state, job.pass, job.generation) = (State::Completed, 4, 19);
    (job.waiting, job.started_ms, job.finished_ms) = (None, Some(BEGAN + 2000), Some(BEGAN + 8_050_000));
    job.switch_safe_ms = Some(BEGAN + 8_049_000);
    job.outcome = Some(Ending { outcome: Outcome::Completed, exit_code: 23 });
    job.still_changing = vec![text.clone()];
    job.passes = passes();
    job.forecast = Some(forecast(BEGAN + 7_900_000));
    job.verification = Some(Verification {
        verified_ms: BEGAN + 8_048_000,
        equal: true,
        entries: 411_175,
        differing: 0,
        missing: 0,
        extra: 0,
        failed: 0,
        share_digest: None,
        metadata_digest: None,
    });
    totals(&mut job);
    for at in 0..600 {
        job.keep_span(Span {
            from_ms: BEGAN + 2000 + at * 3000,
            length_ms: 3000,
            bytes: 9_000_000 + (at * 7919 % 600) * 250_000,
            entries: 20,
        });
    }
    for (from_ms, length_ms, bytes) in
        [(3_000_000, 40_000, 900 << 20), (7_000_000, 22_000, 300 << 20), (8_000_000, 31_000, 400 << 20)]
    {
        job.keep_span(Span { from_ms: BEGAN + from_ms, length_ms, bytes, entries: 40 });
    }
    let failed = |n, class, operation: &str, error: &str| FailureRow {
        n,
        pass: 4,
        class,
        side: Side::Source,
        operation: operation.into(),
        path: name.to_vec(),
        error: Some(error.into()),
    };
    Sample {
        events: events(&text),
        failures: vec![
            failed(1, Class::Permission, "open", "Permission denied (os error 13)"),
            failed(2, Class::Hot, "read", "changed while it was read"),
        ],
        counts: vec![
            FailureCount { pass: 3, class: Class::Io, entries: 9 },
            FailureCount { pass: 4, class: Class::Hot, entries: 1 },
            FailureCount { pass: 4, class: Class::Permission, entries: 1204 },
        ],
        losses: vec![LossRow { class: LossClass::Owner, path: name.to_vec(), detail: text }],
        job,
    }
}

fn spec(text: &str) -> JobSpec {
    let mut spec = JobSpec::new(Kind::Migrate, "/srv/shares/alpha", "/srv/new/alpha");
    spec.labels.insert("ticket".into(), text.into());
    spec.private_data.insert("secret".into(), "between us".into());
    spec.accept_loss = vec![LossClass::Owner];
    spec
}

fn totals(job: &mut Job) {
    let t = &mut job.totals;
    (t.entries, t.files_copied, t.bytes_copied, t.bytes_verified) = (412_380, 398_112, 71_331_439_861, 71_300_000_000);
    (t.proved, t.assumed, t.deleted, t.renamed) = (398_120, 13_055, 71, 3);
    (t.failed, t.hot, t.vanished, t.ignored) = (1204, 1, 2, 1);
    (t.run_ms, t.runs, t.runs_died) = (1_900_000, 6, 1);
    t.lost = BTreeMap::from([(LossClass::Owner, 812)]);
    t.degraded = BTreeMap::from([(LossClass::TimeGrain, 412_380)]);
    t.unsettable = vec![LossClass::BirthTime];
    t.share_digest = Some("5f1c".repeat(16));
    (t.backend, t.readback) = (Some("uring".into()), Some("direct".into()));
}

fn passes() -> Vec<PassFacts> {
    let pass = |pass, purpose, started, elapsed_ms, changed_entries, bytes_copied, failed| PassFacts {
        pass,
        purpose,
        retry_failed: false,
        started_ms: BEGAN + started,
        elapsed_ms,
        entries: 412_380,
        changed_entries,
        files_copied: changed_entries,
        bytes_copied,
        bytes_verified: bytes_copied,
        deleted: 0,
        hot: u64::from(failed > 0),
        failed,
        exit_code: if failed > 0 { 23 } else { 0 },
    };
    vec![
        pass(1, Purpose::Pass, 2000, 1_800_000, 398_000, 70_000_000_000, 1204),
        pass(2, Purpose::Pass, 3_000_000, 40_000, 90, 900 << 20, 1204),
        pass(3, Purpose::CutoverPass, 7_000_000, 22_000, 12, 300 << 20, 1204),
        pass(4, Purpose::Confirm, 8_000_000, 31_000, 0, 0, 1204),
    ]
}

fn forecast(as_of_ms: u64) -> Forecast {
    Forecast {
        as_of_ms,
        median_s: 42,
        p90_s: 75,
        changed_entries: 12,
        changed_bytes: 300 << 20,
        basis: ForecastBasis::Passes,
    }
}

fn events(text: &str) -> Vec<StoredEvent> {
    let changed = |from, to, reason: Option<&str>| What::StateChanged { from, to, reason: reason.map(Into::into) };
    let happened = [
        (0, What::Created { kind: Kind::Migrate }),
        (2000, changed(State::Queued, State::Mounting, None)),
        (1_802_000, What::PassEnded(passes().remove(0))),
        (1_802_001, What::Loss { class: LossClass::Owner, name: text.into(), detail: text.into() }),
        (6_900_000, What::Forecast(forecast(BEGAN + 6_900_000))),
        (7_000_000, What::Command { command: CommandName::Cutover }),
        (7_000_000, changed(State::Ready, State::Cutover, None)),
        (7_050_000, What::SourceChanges { names: vec![text.into()], entries: 3 }),
        (7_050_000, changed(State::Cutover, State::Ready, Some("the source still changes"))),
        (7_900_000, What::Forecast(forecast(BEGAN + 7_900_000))),
        (7_990_000, changed(State::Ready, State::Cutover, None)),
        (8_049_000, What::SwitchSafe),
        (8_049_000, changed(State::Cutover, State::Verifying, None)),
        (8_050_000, changed(State::Verifying, State::Completed, None)),
    ];
    let stored = |(at, (after, what)): (usize, (u64, What))| StoredEvent {
        id: at as u64 + 1,
        job: Uuid::from_u128(0x0190_a6f0_0000_7000_8000_0000_0000_0001),
        event: Event { at_ms: BEGAN + after, what },
    };
    happened.into_iter().enumerate().map(stored).collect()
}
