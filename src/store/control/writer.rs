//! The one writer of the daemon's file. Each verb is one transaction, on stable storage when it returns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::keys::{self, Idempotency, Keyed};
use super::reader::{Reader, Readers};
use super::rows::{FailureRow, LossRow, word};
use super::{FILE, SCHEMA};
use crate::error::Error;
use crate::job::{Event, Job, RECORD_SCHEMA, StoredEvent, Transition};
use crate::limits;
use crate::store::database::{self, Check, Sync};
use crate::store::lock::Lock;
use crate::store::state::StateDir;

/// The daemon's file, open for writing. One at a time over all processes.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    connection: Connection,
    readers: Readers,
    /// Events that a job keeps; older ones go.
    events_max: u64,
    _lock: Lock,
}

/// What came of a new job.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    Stored(Vec<StoredEvent>),
    /// The same request came before, and was answered so.
    Replay(String),
    /// The key came before with another request.
    KeyReused,
    /// The group that it names is not there.
    UnknownGroup,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    Stored(Vec<StoredEvent>),
    /// Nothing was written: a record has another generation than the one that the step began with, or is gone.
    Moved,
}

/// What came of deleting a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    Done,
    Unknown,
    /// It has not ended.
    NotFinal,
}

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Jobs after their end, with all that belongs to them; `None` for ever.
    pub jobs: Option<Duration>,
    /// Keys of requests that may be sent again.
    pub keys: Duration,
}

/// What has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub jobs: Vec<Uuid>,
    pub keys: u64,
}

impl Control {
    /// Opens the file in the daemon's directory, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Guard`] when another daemon has it open; [`Error::State`] when it is damaged, foreign, newer, or
    /// can't be written.
    pub fn open(directory: &StateDir, events_max: u64) -> Result<Self, Error> {
        let directory = directory.path();
        let lock = Lock::take(&directory.join("lock"), "the daemon's state", limits::CONTROL_LOCK_PATIENCE)?;
        let path = directory.join(FILE);
        if is_new(&path)? {
            database::create(&path, &SCHEMA)?;
        }
        let connection = database::open(&path, &SCHEMA, Sync::Full)?;
        database::check(&path, &connection, Check::Quick)?;
        connection.set_prepared_statement_cache_capacity(limits::CONTROL_STATEMENTS);
        let readers = Readers::new(&path);
        Ok(Self { path, connection, readers, events_max: events_max.max(1), _lock: lock })
    }

    /// Where readers come from.
    #[must_use]
    pub fn readers(&self) -> Readers {
        self.readers.clone()
    }

    /// A reader.
    ///
    /// # Errors
    /// As [`Readers::open`].
    pub fn reader(&self) -> Result<Reader, Error> {
        self.readers.open()
    }

    /// What is known of a request's key, before the request is looked at.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read.
    pub fn keyed(&self, key: &Idempotency) -> Result<Keyed, Error> {
        keys::look_up(&self.connection, key).map_err(|error| database::failure(&self.path, error))
    }

    /// Takes a job on. With a key the answer is kept, and given to whoever sends the same request again.
    ///
    /// # Errors
    /// [`Error::State`] when it can't be written, as of all of these.
    pub fn create(&mut self, job: &Job, events: &[Event], key: Option<(&Idempotency, &str)>) -> Result<Created, Error> {
        let events_max = self.events_max;
        self.write(|transaction| {
            if let Some((key, _)) = key {
                match keys::look_up(transaction, key)? {
                    Keyed::New => {}
                    Keyed::Replay(answer) => return Ok(Created::Replay(answer)),
                    Keyed::Reused => return Ok(Created::KeyReused),
                }
            }
            if let Some(group) = &job.spec.group {
                let known = transaction
                    .prepare_cached("SELECT 1 FROM consistency_group WHERE project = ? AND name = ?")?
                    .exists([&job.project, group])?;
                if !known {
                    return Ok(Created::UnknownGroup);
                }
            }
            insert(transaction, job)?;
            let stored = append(transaction, job.id, events, events_max)?.unwrap_or_default();
            if let Some((key, answer)) = key {
                keys::keep(transaction, key, answer, job.created_ms)?;
            }
            Ok(Created::Stored(stored))
        })
    }

    /// Stores a step of a job that had this generation before it.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn commit(&mut self, step: &Transition, expected_generation: u64) -> Result<Committed, Error> {
        self.commit_all(&[(step, expected_generation)], None)
    }

    /// Stores steps of several jobs together, all or none, and the answer to the request that caused them.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn commit_all(
        &mut self,
        steps: &[(&Transition, u64)],
        key: Option<(&Idempotency, &str)>,
    ) -> Result<Committed, Error> {
        let events_max = self.events_max;
        let stored = self.write_or_roll_back(|transaction| {
            let mut stored = Vec::new();
            for (step, expected) in steps {
                if step.changed && !update(transaction, &step.job, *expected)? {
                    return Ok(None);
                }
                match append(transaction, step.job.id, &step.events, events_max)? {
                    Some(events) => stored.extend(events),
                    None => return Ok(None),
                }
            }
            if let (Some((key, answer)), Some((step, _))) = (key, steps.first()) {
                keys::keep(transaction, key, answer, step.job.updated_ms)?;
            }
            Ok(Some(stored))
        })?;
        Ok(stored.map_or(Committed::Moved, Committed::Stored))
    }

    /// Stores events that go with no step. None where the job has gone.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn append(&mut self, id: Uuid, events: &[Event]) -> Result<Vec<StoredEvent>, Error> {
        let events_max = self.events_max;
        self.write(|transaction| append(transaction, id, events, events_max)).map(Option::unwrap_or_default)
    }

    /// Stores entries that failed in a pass. Beyond [`limits::FAILURES_KEPT`] they are counted only.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn record_failures(&mut self, id: Uuid, pass: u32, failures: &[FailureRow]) -> Result<(), Error> {
        self.write(|transaction| {
            let Some(job) = sequence(transaction, id)? else { return Ok(()) };
            let (mut last, kept): (i64, i64) = transaction
                .prepare_cached(
                    "SELECT COALESCE(MAX(n), 0), COUNT(*) FILTER (WHERE pass = ?2) FROM failure WHERE job = ?1",
                )?
                .query_row(params![job, pass], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let room = limits::FAILURES_KEPT.saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
            for (at, failure) in failures.iter().enumerate() {
                let class = word(&failure.class)?;
                transaction
                    .prepare_cached(
                        "INSERT INTO failure_count(job, pass, class, n) VALUES (?, ?, ?, 1) \
                         ON CONFLICT DO UPDATE SET n = n + 1",
                    )?
                    .execute(params![job, pass, class])?;
                if at >= room {
                    continue;
                }
                last += 1;
                transaction
                    .prepare_cached(
                        "INSERT INTO failure(job, n, pass, class, side, operation, path, error) \
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        job,
                        last,
                        pass,
                        class,
                        word(&failure.side)?,
                        failure.operation,
                        failure.path,
                        failure.error
                    ])?;
            }
            Ok(())
        })
    }

    /// A pass has ended: what failed in earlier ones is no news any more.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn end_pass(&mut self, id: Uuid, pass: u32) -> Result<(), Error> {
        self.write(|transaction| {
            let Some(job) = sequence(transaction, id)? else { return Ok(()) };
            for table in ["failure", "failure_count"] {
                transaction
                    .prepare_cached(&format!("DELETE FROM {table} WHERE job = ? AND pass < ?"))?
                    .execute(params![job, pass])?;
            }
            Ok(())
        })
    }

    /// Stores examples of what the destination can't hold, [`limits::LOSS_EXAMPLES`] of each class.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn record_losses(&mut self, id: Uuid, pass: u32, losses: &[LossRow]) -> Result<(), Error> {
        self.write(|transaction| {
            let Some(job) = sequence(transaction, id)? else { return Ok(()) };
            for loss in losses {
                let class = word(&loss.class)?;
                transaction
                    .prepare_cached(
                        "INSERT INTO loss(job, class, path, detail, pass) SELECT ?1, ?2, ?3, ?4, ?5 \
                         WHERE (SELECT COUNT(*) FROM loss WHERE job = ?1 AND class = ?2) < ?6 \
                         ON CONFLICT DO UPDATE SET detail = excluded.detail, pass = excluded.pass",
                    )?
                    .execute(params![job, class, loss.path, loss.detail, pass, limits::LOSS_EXAMPLES.cast_signed()])?;
            }
            Ok(())
        })
    }

    /// Deletes a job that has ended, with all that belongs to it.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn delete(&mut self, id: Uuid) -> Result<Deleted, Error> {
        self.write(|transaction| {
            let found: Option<(i64, bool)> = transaction
                .prepare_cached("SELECT seq, finished_ms IS NOT NULL FROM job WHERE id = ?")?
                .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                None => Ok(Deleted::Unknown),
                Some((_, false)) => Ok(Deleted::NotFinal),
                Some((job, true)) => {
                    purge(transaction, job, id)?;
                    Ok(Deleted::Done)
                }
            }
        })
    }

    /// Deletes what was kept long enough, some at a time: where [`limits::SWEEP_JOBS`] have gone there may be more.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn sweep(&mut self, retention: Retention, now_ms: u64) -> Result<Swept, Error> {
        let before =
            |age: Duration| now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).cast_signed();
        self.write(|transaction| {
            let mut swept = Swept::default();
            if let Some(age) = retention.jobs {
                let found: Vec<(i64, String)> = transaction
                    .prepare_cached(SWEPT)?
                    .query_map(params![before(age), limits::SWEEP_JOBS], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?;
                for (job, id) in found {
                    let id = Uuid::parse_str(&id).map_err(|error| super::rows::unreadable(1, error))?;
                    purge(transaction, job, id)?;
                    swept.jobs.push(id);
                }
            }
            let keys = transaction
                .prepare_cached("DELETE FROM idempotency WHERE at_ms < ?")?
                .execute([before(retention.keys)])?;
            swept.keys = keys as u64;
            Ok(swept)
        })
    }

    /// Many jobs at once, without events.
    #[cfg(test)]
    pub(super) fn insert_all(&mut self, jobs: &[Job]) -> Result<(), Error> {
        self.write(|transaction| jobs.iter().try_for_each(|job| insert(transaction, job)))
    }

    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        self.write_or_roll_back(|transaction| change(transaction).map(Some)).and_then(|done| {
            done.ok_or_else(|| Error::Internal { what: "a change to the daemon's state came to nothing".into() })
        })
    }

    /// A transaction that leaves nothing where the change answers `None`.
    fn write_or_roll_back<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Option<T>, Error> {
        let written =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
                match change(&transaction)? {
                    Some(done) => transaction.commit().map(|()| Some(done)),
                    None => transaction.rollback().map(|()| None),
                }
            });
        written.map_err(|error| database::failure(&self.path, error))
    }
}

pub(super) const SWEPT: &str = "SELECT seq, id FROM job INDEXED BY job_finished \
     WHERE finished_ms IS NOT NULL AND finished_ms < ? ORDER BY finished_ms LIMIT ?";

/// A file that was there once and has gone is no new one: its log would still be there.
fn is_new(path: &Path) -> Result<bool, Error> {
    let there = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(database::call_failed(path, "can't be examined", error)),
    };
    Ok(!there(path)? && !there(&database::with_suffix(path, "-wal"))?)
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// When it ended, of a job that has; one that is compared once more after its end, or whose last run has yet to
/// go, has not.
fn finished_ms(job: &Job) -> Option<i64> {
    (job.state.is_final() && job.run.is_none()).then(|| job.finished_ms.unwrap_or(job.updated_ms).cast_signed())
}

fn insert(transaction: &Transaction<'_>, job: &Job) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO job(id, project, kind, state, consistency_group, priority, generation, created_ms, \
             updated_ms, finished_ms, last_event, schema, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        )?
        .execute(params![
            job.id.to_string(),
            job.project,
            job.kind().word(),
            job.state.word(),
            job.spec.group,
            job.spec.priority,
            job.generation.cast_signed(),
            job.created_ms.cast_signed(),
            job.updated_ms.cast_signed(),
            finished_ms(job),
            RECORD_SCHEMA,
            json(job)?,
        ])?;
    label(transaction, job)
}

fn update(transaction: &Transaction<'_>, job: &Job, expected: u64) -> rusqlite::Result<bool> {
    let changed = transaction
        .prepare_cached(
            "UPDATE job SET state = ?3, priority = ?4, generation = ?5, updated_ms = ?6, finished_ms = ?7, \
             schema = ?8, record = ?9 WHERE id = ?1 AND generation = ?2",
        )?
        .execute(params![
            job.id.to_string(),
            expected.cast_signed(),
            job.state.word(),
            job.spec.priority,
            job.generation.cast_signed(),
            job.updated_ms.cast_signed(),
            finished_ms(job),
            RECORD_SCHEMA,
            json(job)?,
        ])?;
    if changed == 0 {
        return Ok(false);
    }
    label(transaction, job)?;
    Ok(true)
}

/// Makes the labels by which a job is found those of its specification.
fn label(transaction: &Transaction<'_>, job: &Job) -> rusqlite::Result<()> {
    let id = job.id.to_string();
    let stored: Vec<(String, String)> = transaction
        .prepare_cached("SELECT key, value FROM label WHERE job = ? ORDER BY key")?
        .query_map([&id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    if stored.iter().map(|(key, value)| (key, value)).eq(&job.spec.labels) {
        return Ok(());
    }
    transaction.prepare_cached("DELETE FROM label WHERE job = ?")?.execute([&id])?;
    for (key, value) in &job.spec.labels {
        transaction
            .prepare_cached("INSERT INTO label(key, value, job) VALUES (?, ?, ?)")?
            .execute(params![key, value, id])?;
    }
    Ok(())
}

fn sequence(transaction: &Transaction<'_>, id: Uuid) -> rusqlite::Result<Option<i64>> {
    transaction
        .prepare_cached("SELECT seq FROM job WHERE id = ?")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()
}

/// Numbers events and stores them; `None` where the job is gone.
fn append(
    transaction: &Transaction<'_>,
    id: Uuid,
    events: &[Event],
    events_max: u64,
) -> rusqlite::Result<Option<Vec<StoredEvent>>> {
    let found: Option<(i64, i64)> = transaction
        .prepare_cached("SELECT seq, last_event FROM job WHERE id = ?")?
        .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((job, mut last)) = found else { return Ok(None) };
    if events.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let mut stored = Vec::with_capacity(events.len());
    for event in events {
        last += 1;
        transaction
            .prepare_cached("INSERT INTO event(job, id, at_ms, type, data) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![job, last, event.at_ms.cast_signed(), event.what.word(), json(&event.what)?])?;
        stored.push(StoredEvent { id: last.cast_unsigned(), job: id, event: event.clone() });
    }
    transaction.prepare_cached("UPDATE job SET last_event = ? WHERE seq = ?")?.execute([last, job])?;
    let oldest = last.saturating_sub(i64::try_from(events_max).unwrap_or(i64::MAX));
    if oldest > 0 {
        transaction.prepare_cached("DELETE FROM event WHERE job = ? AND id <= ?")?.execute([job, oldest])?;
    }
    Ok(Some(stored))
}

fn purge(transaction: &Transaction<'_>, job: i64, id: Uuid) -> rusqlite::Result<()> {
    for table in ["event", "failure", "failure_count", "loss"] {
        transaction.prepare_cached(&format!("DELETE FROM {table} WHERE job = ?"))?.execute([job])?;
    }
    transaction.prepare_cached("DELETE FROM label WHERE job = ?")?.execute([id.to_string()])?;
    transaction.prepare_cached("DELETE FROM job WHERE seq = ?")?.execute([job])?;
    Ok(())
}
