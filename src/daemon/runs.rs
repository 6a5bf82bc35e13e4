//! Runs of jobs: from what a job plans to a worker's specification, and from what a worker says to what its job
//! is told.
//!
//! ```text
//! job's spec, plan ──► specification()      the worker's form
//! worker's events  ──► Ears::hear()  ──► Heard   inputs for the job, events to be kept, rows for the lists, progress
//! ```
//!
//! A worker may say millions of things; a job's record stays small. What names one entry goes into bounded lists
//! ([`FailureRow`], [`LossRow`]), and the events say it once for each class. All of it is decided here, without a
//! clock and without a store, so that the manager only has to write down what comes out.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::backend::Progress;
use crate::error::Class;
use crate::fidelity::LossClass;
use crate::job::{self, Invalid, Job, Meter, Purpose, RunInput, RunPlan, RunSummary, Span, What};
use crate::limits::{CHANGED_NAMES_KEPT, FAILURES_BUFFERED, NOTES_KEPT, STALL_SHOWN_AFTER_S};
use crate::pass;
use crate::store::control::{FailureRow, LossRow};
use crate::worker::{Filters, Ids, Kind, LastWord, Limits, Line, Report, Specification, Standing, escape};

/// What the worker is asked for a job's next run.
///
/// # Errors
/// A side that is no path. It was checked when the job was made.
pub fn specification(job: &Job, plan: &RunPlan) -> Result<Specification, Invalid> {
    let spec = &job.spec;
    let (source, destination) = (spec.source.path("source")?, spec.destination.path("destination")?);
    let kind = match (plan.purpose, spec.kind) {
        (Purpose::Verify, _) | (_, job::Kind::Verify) => Kind::Verify,
        (_, job::Kind::Migrate) => Kind::Migrate,
        (_, job::Kind::Replicate | job::Kind::Restore) => Kind::Sync,
    };
    let line = |text: &String| Line::from(text.as_bytes());
    let mut made = Specification::new(kind, Some(&source), &destination);
    made.filters = Filters {
        rules: spec.filters.rules.iter().map(line).collect(),
        files_from: spec.filters.files_from.as_ref().map(|list| list.iter().map(line).collect()),
    };
    made.one_file_system = spec.one_file_system;
    made.id_map = Ids { users: spec.id_map.users.clone(), groups: spec.id_map.groups.clone() };
    made.backend = match spec.backend {
        job::BackendChoice::Auto => pass::BackendChoice::Auto,
        job::BackendChoice::Uring => pass::BackendChoice::Uring,
        job::BackendChoice::Threads => pass::BackendChoice::Threads,
    };
    made.limits.bytes_per_s = spec.limits.bytes_per_s;
    made.limits.directory_entries = spec.limits.directory_entries;
    made.accept_loss.clone_from(&spec.accept_loss);
    if kind != Kind::Verify {
        copies(job, plan, &mut made);
    }
    Ok(made)
}

/// What only a copy has a use for.
fn copies(job: &Job, plan: &RunPlan, made: &mut Specification) {
    let spec = &job.spec;
    made.verify = match spec.verify {
        job::VerifyLevel::None => pass::VerifyLevel::None,
        job::VerifyLevel::Inline => pass::VerifyLevel::Inline,
        job::VerifyLevel::Readback => pass::VerifyLevel::Readback,
        job::VerifyLevel::Full => pass::VerifyLevel::Full,
    };
    made.provisioning = match spec.provisioning {
        job::Provision::Thin => pass::Provision::Thin,
        job::Provision::Thick => pass::Provision::Thick,
    };
    made.items = plan.items;
    made.retry_failed = plan.retry_failed;
    // A run that looks at what failed deletes nothing, and is refused with the flag.
    made.delete = spec.deletes() && !plan.retry_failed;
    made.keep_extra = spec.keep_extra;
    made.allow_empty_source = spec.allow_empty_source;
    made.max_delete = spec.max_delete.filter(|_| !plan.retry_failed);
    made.trash.clone_from(&spec.trash);
    // The job counts the passes: each is a run of its own, so that it can be stopped, timed and told apart.
    made.max_passes = Some(1);
    made.strict = spec.strict;
    made.limits = Limits {
        file_bytes: spec.limits.file_bytes,
        file_allocated_bytes: spec.limits.file_allocated_bytes,
        ..made.limits
    };
}

/// What follows from one line of a worker.
#[derive(Debug, Default)]
pub struct Heard {
    /// For the job, in order.
    pub inputs: Vec<RunInput>,
    /// To be kept beside them.
    pub events: Vec<What>,
    pub progress: Option<Progress>,
    /// There are rows that should not wait any longer.
    pub flush: bool,
}

/// Listens to one run.
#[derive(Debug)]
pub struct Ears {
    verifies: bool,
    progress: Progress,
    /// From the run's first word on: what it moved since it was last asked.
    meter: Option<Meter>,
    stall: Option<u64>,
    losses_told: BTreeSet<LossClass>,
    notes: usize,
    failed: BTreeMap<Class, u64>,
    changed: Vec<String>,
    pub failures: Vec<FailureRow>,
    pub losses: Vec<LossRow>,
}

impl Ears {
    #[must_use]
    pub fn new(purpose: Purpose) -> Self {
        Self {
            verifies: purpose == Purpose::Verify,
            progress: Progress::default(),
            meter: None,
            stall: None,
            losses_told: BTreeSet::new(),
            notes: 0,
            failed: BTreeMap::new(),
            changed: Vec::new(),
            failures: Vec::new(),
            losses: Vec::new(),
        }
    }

    /// Hears a line. `pass` is the job's, with which rows are kept.
    pub fn hear(&mut self, report: Report<'static>, pass: u32) -> Heard {
        let mut heard = Heard::default();
        match report {
            Report::Started { job, resumed, .. } => {
                let engine_job = uuid::Uuid::parse_str(&job).ok().filter(|job| !job.is_nil());
                heard.inputs.push(RunInput::Started { engine_job, resumed });
            }
            Report::Backend { backend, readback, .. } => {
                heard.inputs.push(RunInput::Backend { backend: backend.into_owned(), readback: readback.into_owned() });
            }
            Report::PassStarted { .. } => heard.inputs.push(RunInput::PassStarted),
            Report::Progress(standing) => self.stands(standing, &mut heard),
            Report::Stall(stall) => {
                if self.stall.is_none() && stall.seconds >= STALL_SHOWN_AFTER_S {
                    heard.events.push(What::Stall {
                        side: stall.side,
                        operation: stall.operation,
                        seconds: stall.seconds,
                    });
                }
                if stall.seconds >= STALL_SHOWN_AFTER_S {
                    self.stall = Some(stall.seconds);
                }
            }
            Report::EntryFailed { name, class, side, operation, error, .. } => {
                *self.failed.entry(class).or_default() += 1;
                let path = name.bytes();
                if class == Class::Hot {
                    self.changed(&path);
                }
                self.failures.push(FailureRow {
                    n: 0,
                    pass,
                    class,
                    side,
                    operation: operation.into_owned(),
                    path,
                    error,
                });
                heard.flush = self.failures.len() >= FAILURES_BUFFERED;
            }
            Report::Item { name, action, .. } if action != "keep" => self.changed(&name.bytes()),
            Report::Deleted { name, .. } => self.changed(&name.bytes()),
            Report::Loss { name, class, detail } => {
                if self.losses_told.insert(class) {
                    let name = escape(&name.bytes());
                    heard.events.push(What::Loss { class, name, detail: detail.clone().into_owned() });
                }
                self.losses.push(LossRow { class, path: name.bytes(), detail: detail.into_owned() });
                heard.flush = self.losses.len() >= FAILURES_BUFFERED;
            }
            Report::Note { text } => heard.events.extend(self.note(&text)),
            Report::Summary(word) => {
                heard.events.extend(self.failed.iter().map(|(class, count)| What::EntryFailed {
                    class: *class,
                    count: *count,
                    remedy: class.remedy().into(),
                }));
                heard.inputs.push(RunInput::Summary(Box::new(self.summary(&word))));
            }
            Report::Confined(_)
            | Report::Item { .. }
            | Report::Compared { .. }
            | Report::Entry(_)
            | Report::Ignored { .. }
            | Report::PassEnded { .. }
            | Report::UnknownCommand { .. } => {}
        }
        heard
    }

    /// Something that a person should know; beyond some of a run they say nothing new.
    pub fn note(&mut self, text: &str) -> Option<What> {
        self.notes += 1;
        (self.notes <= NOTES_KEPT).then(|| What::Note { text: text.into() })
    }

    /// What was moved since the last time, as its last word on where it stands has it. The first word begins it.
    pub fn moved_until(&mut self, now_ms: u64) -> Option<Span> {
        let Progress { bytes_done, entries_done, .. } = self.progress;
        let Some(meter) = &mut self.meter else {
            self.meter = Some(Meter::starting(now_ms));
            return None;
        };
        meter.read(now_ms, bytes_done, entries_done)
    }

    /// Whether it has copied or proved something that a later run need not do again.
    #[must_use]
    pub const fn moved(&self) -> bool {
        let Progress { bytes_copied, bytes_verified, files_copied, files_unchanged, deleted, .. } = self.progress;
        // A comparison begins anew, however far it came.
        !self.verifies && (bytes_copied | bytes_verified | files_copied | files_unchanged | deleted) > 0
    }

    fn stands(&mut self, standing: Standing, heard: &mut Heard) {
        if standing.still_s == 0
            && let Some(seconds) = self.stall.take()
        {
            heard.events.push(What::StallOver { seconds });
        }
        self.progress = progress(standing);
        heard.progress = Some(self.progress.clone());
        heard.flush = !self.failures.is_empty() || !self.losses.is_empty();
    }

    fn changed(&mut self, path: &[u8]) {
        if self.changed.len() < CHANGED_NAMES_KEPT {
            self.changed.push(escape(path));
        }
    }

    fn summary(&mut self, word: &LastWord) -> RunSummary {
        let error = word.error.as_ref().map(|failure| job::RunError {
            class: failure.class.clone(),
            message: failure.message.clone(),
            why: failure.why.clone(),
            remedy: failure.remedy.clone(),
        });
        RunSummary {
            exit_code: word.exit_code,
            entries: word.entries,
            files_copied: word.files_copied,
            files_unchanged: word.files_unchanged,
            directories_created: word.directories_created,
            links_made: word.links_made,
            metadata_updated: word.metadata_updated,
            bytes_copied: word.bytes_copied,
            bytes_verified: word.bytes_verified,
            proved: word.proved,
            assumed: word.assumed,
            proved_before: word.proved_before,
            deleted: word.deleted,
            renamed: word.renamed,
            hot: word.hot,
            failed: word.failed,
            vanished: word.vanished,
            ignored: word.ignored,
            lost: word.lost.clone(),
            degraded: word.degraded.clone(),
            unsettable: word.unsettable.clone(),
            differing: word.differing,
            missing: word.missing,
            extra: word.extra,
            share_digest: word.share_digest.clone(),
            metadata_digest: word.metadata_digest.clone(),
            backend: word.backend.clone(),
            readback: word.readback.clone(),
            elapsed_s: word.elapsed_s,
            error,
            changed_names: std::mem::take(&mut self.changed),
        }
    }
}

fn progress(standing: Standing) -> Progress {
    Progress {
        pass: standing.pass,
        phase: standing.phase,
        percent: standing.percent,
        entries_scanned: standing.entries_scanned,
        entries_done: standing.entries_done,
        scan_complete: standing.scan_complete,
        bytes_planned: standing.bytes_planned,
        bytes_done: standing.bytes_done,
        bytes_copied: standing.bytes_copied,
        bytes_verified: standing.bytes_verified,
        files_copied: standing.files_copied,
        files_unchanged: standing.files_unchanged,
        deleted: standing.deleted,
        failed: standing.failed,
        bytes_per_s: standing.bytes_per_s,
        left_s: standing.left_s,
        elapsed_s: standing.elapsed_s,
        still_s: standing.still_s,
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
