//! Which jobs a state directory knows, and how a command finds its own again.
//!
//! ```text
//! <state>/lock                      held while a job is looked up or created
//! <state>/jobs.sqlite               a row for each job; every commit durable
//! <state>/jobs/<id>/lock            held by the copyd that runs the job, with its process id; a fence
//!                                   (fence.rs) puts another file there
//! <state>/jobs/<id>/catalog.sqlite  the entries of its share
//! ```
//!
//! A job's row is inserted after its directory and catalog are durable. So a row without its catalog
//! is a loss that is refused, and a directory without a row is what a kill in between left: empty
//! and never used.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::catalog::{self, Catalog, Owner};
use super::database::{self, Check, Schema, Sync, Upgrade, call_failed};
use super::fence;
use super::identity::{self, RootIdentity};
use super::lock::Lock;
use super::reader::CatalogReader;
use super::state::StateDir;
use crate::error::Error;
use crate::limits;

/// `cpyj`, the mark of a list of jobs.
const SCHEMA: Schema = Schema {
    application: 0x6370_796a,
    upgrades: &[Upgrade { to: 1, sql: include_str!("jobs-1.sql") }, Upgrade { to: 2, sql: include_str!("jobs-2.sql") }],
};

/// The options that would change a job's result, by name.
type OptionTexts = BTreeMap<String, String>;

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It runs, or its last run did not end in completion: the same command goes on.
    Running,
    /// Its last run was complete.
    Complete,
    /// Its last run was asked to end before its time, and did or was ended: the same command goes on.
    Cancelled,
}

impl JobState {
    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A job with its lock: nobody else runs it as long as this, or its catalog, lives.
#[derive(Debug)]
pub struct Job {
    id: Uuid,
    directory: PathBuf,
    jobs_path: PathBuf,
    jobs: Connection,
    source_dev: u64,
    epoch: u64,
    state: JobState,
    guard_passed: bool,
    summary: Option<String>,
    catalog_stamp: Option<String>,
    lock: Arc<Lock>,
}

/// What [`Store::find_or_create`] found.
#[derive(Debug)]
pub struct Opened {
    pub job: Job,
    /// An earlier run of the same command made the job.
    pub resumed: bool,
}

/// The jobs of one state directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the list of jobs, and creates it in a state directory that has none.
    ///
    /// # Errors
    /// [`Error::State`] when it can't be read, is damaged or newer than this copyd, or is missing
    /// while there are jobs.
    pub fn open(state: &StateDir) -> Result<Self, Error> {
        let store = Self { directory: state.path().to_owned() };
        let _guard = store.lock()?;
        let jobs = store.directory.join("jobs");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&jobs)
            .map_err(|error| call_failed(&jobs, "can't be created", error))?;
        let path = store.jobs_path();
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries =
                    std::fs::read_dir(&jobs).map_err(|error| call_failed(&jobs, "can't be listed", error))?;
                if entries.next().is_some() {
                    let what = "is missing, but there are jobs: restore it from a backup, or start anew with another --state-dir";
                    return Err(Error::State { path, what, source: Some(Box::new(error)) });
                }
                database::create(&path, &SCHEMA)?;
            }
            // Whether it can be used is looked at where it is opened.
            _ => drop(store.connect()?),
        }
        Ok(store)
    }

    /// The job of this kind between these two roots, if an earlier run made it, locked for this
    /// process: for a dry run, which makes none and may ask with other options.
    ///
    /// # Errors
    /// As [`Store::find_or_create`].
    pub fn find(&self, kind: &str, source: &RootIdentity, destination: &RootIdentity) -> Result<Option<Job>, Error> {
        patiently(|| {
            let _guard = self.lock()?;
            let jobs = self.connect()?;
            let found = find(&jobs, kind, source, destination);
            let Some(found) = found.map_err(|error| database::failure(&self.jobs_path(), error))? else {
                return Ok(Ok(None));
            };
            let lock = self.lock_job(found.id)?;
            Ok(lock.map(|lock| Some(self.job(found, lock, jobs, source))))
        })
    }

    /// The catalog of a job for reading alone, which another process may be writing; none where there is no
    /// such job. Devices are told relative to the source's as of the last run.
    ///
    /// # Errors
    /// [`Error::State`] when the state can't be used.
    pub fn look(&self, id: Uuid) -> Result<Option<CatalogReader>, Error> {
        let dev: Option<i64> = {
            let _guard = self.lock()?;
            let jobs = self.connect()?;
            let found = jobs.query_row("SELECT source_dev FROM job WHERE id = ?", [id.to_string()], |row| row.get(0));
            found.optional().map_err(|error| database::failure(&self.jobs_path(), error))?
        };
        let path = self.job_directory(id).join(CATALOG);
        dev.map(|dev| CatalogReader::at(&path, dev.cast_unsigned())).transpose()
    }

    /// Whether a job has this root as its destination.
    ///
    /// # Errors
    /// As [`Store::find_or_create`].
    pub fn is_destination(&self, root: &RootIdentity) -> Result<bool, Error> {
        let _guard = self.lock()?;
        self.connect()?
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM job WHERE destination_key = ?)",
                // A marker is the source's alone.
                [root.unmarked_key()],
                |row| row.get(0),
            )
            .map_err(|error| database::failure(&self.jobs_path(), error))
    }

    /// A job whose source was at this path and is another one than lies there now, while no job knows
    /// the pair of roots as it is: most likely what was to be mounted there is not (promise P4).
    ///
    /// # Errors
    /// As [`Store::find_or_create`].
    pub fn exchanged(&self, source: &RootIdentity, destination: &RootIdentity) -> Result<Option<Uuid>, Error> {
        let _guard = self.lock()?;
        let found: Option<String> = self
            .connect()?
            .query_row(
                "SELECT id FROM job WHERE source_path = ?1 AND destination_key = ?2 AND NOT EXISTS \
                 (SELECT 1 FROM job WHERE source_key IN (?3, ?4) AND destination_key = ?2) LIMIT 1",
                // A share that is to have a marker from now on is the one that it was without.
                params![source.path.as_os_str().as_bytes(), destination.key(), source.key(), source.unmarked_key()],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| database::failure(&self.jobs_path(), error))?;
        Ok(found.and_then(|id| Uuid::parse_str(&id).ok()))
    }

    /// A job with this source whose destination was at this path and on another file system than lies
    /// there now, while no job knows the pair of roots as it is: most likely what was to be mounted there
    /// is not. A directory that was removed and made again on the same file system is no such case.
    ///
    /// # Errors
    /// As [`Store::find_or_create`].
    pub fn destination_exchanged(
        &self,
        source: &RootIdentity,
        destination: &RootIdentity,
    ) -> Result<Option<Uuid>, Error> {
        let _guard = self.lock()?;
        let jobs = self.connect()?;
        let found = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
            let mut known = jobs.prepare(
                "SELECT id, destination_key FROM job WHERE destination_path = ?1 AND source_key = ?2 ORDER BY id DESC",
            )?;
            let path = destination.path.as_os_str().as_bytes();
            known.query_map(params![path, source.key()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let known = found().map_err(|error| database::failure(&self.jobs_path(), error))?;
        if known.iter().any(|(_, key)| identity::same_file_system(key, &destination.key())) {
            return Ok(None);
        }
        Ok(known.first().and_then(|(id, _)| Uuid::parse_str(id).ok()))
    }

    /// The job of this kind (`migrate`, `sync`) between these two roots, locked for this process.
    /// `options` are those that would change the result, each with its canonical text; they must be
    /// what they were at the first run.
    ///
    /// # Errors
    /// [`Error::Guard`] when another process runs the job, or when options differ from those it was
    /// made with; [`Error::State`] when the state can't be used.
    pub fn find_or_create(
        &self,
        kind: &str,
        source: &RootIdentity,
        destination: &RootIdentity,
        options: &[(&'static str, String)],
    ) -> Result<Opened, Error> {
        let options: OptionTexts = options.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        patiently(|| self.attempt(kind, source, destination, &options))
    }

    fn attempt(
        &self,
        kind: &str,
        source: &RootIdentity,
        destination: &RootIdentity,
        options: &OptionTexts,
    ) -> Result<Result<Opened, Error>, Error> {
        let _guard = self.lock()?;
        let jobs = self.connect()?;
        let failure = |error| database::failure(&self.jobs_path(), error);
        let found = find(&jobs, kind, source, destination).map_err(failure)?;
        let resumed = found.is_some();
        let (mut found, lock) = if let Some(found) = found {
            let lock = match self.lock_job(found.id)? {
                Ok(lock) => lock,
                Err(held) => return Ok(Err(held)),
            };
            self.compare(&found.options, options)?;
            (found, lock)
        } else {
            let id = Uuid::now_v7();
            let lock = self.create(id)?;
            insert(&jobs, id, kind, source, destination, options).map_err(failure)?;
            (Found::new(id), lock)
        };
        // One more epoch: what an earlier run may still send is none of the job's any more.
        found.epoch = found.epoch.saturating_add(1);
        jobs.execute(
            "UPDATE job SET source_path = ?2, source_dev = ?3, destination_path = ?4, destination_dev = ?5, copyd = ?6, \
             epoch = ?7 WHERE id = ?1",
            params![
                found.id.to_string(),
                source.path.as_os_str().as_bytes(),
                source.dev.cast_signed(),
                destination.path.as_os_str().as_bytes(),
                destination.dev.cast_signed(),
                env!("CARGO_PKG_VERSION"),
                found.epoch.cast_signed(),
            ],
        )
        .map_err(failure)?;
        let job = self.job(found, lock, jobs, source);
        Ok(Ok(Opened { job, resumed }))
    }

    fn job(&self, found: Found, lock: Lock, jobs: Connection, source: &RootIdentity) -> Job {
        Job {
            id: found.id,
            directory: self.job_directory(found.id),
            jobs_path: self.jobs_path(),
            jobs,
            source_dev: source.dev,
            epoch: found.epoch,
            state: found.state,
            guard_passed: found.guard_passed,
            summary: found.summary,
            catalog_stamp: found.catalog_stamp,
            lock: Arc::new(lock),
        }
    }

    /// The jobs of a state directory that a run of this machine has opened already.
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub(super) fn jobs_path(&self) -> PathBuf {
        self.directory.join("jobs.sqlite")
    }

    pub(super) fn job_directory(&self, id: Uuid) -> PathBuf {
        self.directory.join("jobs").join(id.to_string())
    }

    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let patience = Duration::from_millis(limits::DATABASE_BUSY_MS);
        Lock::take(&self.directory.join("lock"), "the state directory", patience)
    }

    /// The inner error is that of a job which another process runs.
    fn lock_job(&self, id: Uuid) -> Result<Result<Lock, Error>, Error> {
        let directory = self.job_directory(id);
        if !directory.is_dir() {
            let what = "is missing: restore it from a backup, or start anew with another --state-dir";
            return Err(Error::State { path: directory, what, source: None });
        }
        Lock::try_take(&directory.join("lock"), &format!("job {id}"))
    }

    pub(super) fn connect(&self) -> Result<Connection, Error> {
        let path = self.jobs_path();
        let connection = database::open(&path, &SCHEMA, Sync::Full)?;
        // The list is small: looking at all of it costs nothing.
        database::check(&path, &connection, Check::Whole)?;
        Ok(connection)
    }

    /// Makes a new job's directory and catalog, durable before its row is.
    fn create(&self, id: Uuid) -> Result<Lock, Error> {
        let directory = self.job_directory(id);
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| call_failed(&directory, "can't be created", error))?;
        let lock = self.lock_job(id)??;
        database::create(&directory.join(CATALOG), &catalog::SCHEMA)?;
        database::sync_directory(&self.directory.join("jobs"))?;
        database::sync_directory(&self.directory)?;
        Ok(lock)
    }

    fn compare(&self, stored: &str, now: &OptionTexts) -> Result<(), Error> {
        let stored: OptionTexts = serde_json::from_str(stored)
            .map_err(|error| database::damaged(&self.jobs_path(), format!("options of a job: {error}")))?;
        let mut names: Vec<&String> = stored.keys().chain(now.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let text = |options: &OptionTexts, name: &String| {
            options.get(name).map_or("(not set)".to_owned(), |text| format!("`{text}`"))
        };
        let differences: Vec<String> = names
            .into_iter()
            .filter(|name| stored.get(*name) != now.get(*name))
            .map(|name| format!("{name}: {} → {}", text(&stored, name), text(now, name)))
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Guard {
            what: format!("an earlier run of this job had other options: {}", differences.join("; ")),
            remedy: "run it with the options of the earlier run, or start a job of its own with another --state-dir",
        })
    }
}

pub(super) const CATALOG: &str = "catalog.sqlite";

/// The columns of a job's row that a run goes on from.
struct Found {
    id: Uuid,
    options: String,
    epoch: u64,
    state: JobState,
    guard_passed: bool,
    summary: Option<String>,
    catalog_stamp: Option<String>,
}

impl Found {
    fn new(id: Uuid) -> Self {
        let options = String::new();
        let state = JobState::Running;
        Self { id, options, epoch: 0, state, guard_passed: false, summary: None, catalog_stamp: None }
    }
}

/// Tries again for some seconds while another process runs the job: a worker whose supervisor is gone ends
/// by itself within that time. The list of jobs is free in between.
fn patiently<T>(mut attempt: impl FnMut() -> Result<Result<T, Error>, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match attempt()? {
            Ok(value) => return Ok(value),
            Err(held) if begun.elapsed() >= limits::JOB_LOCK_PATIENCE => return Err(held),
            Err(_) => std::thread::sleep(limits::JOB_LOCK_RETRY),
        }
    }
}

fn find(
    jobs: &Connection,
    kind: &str,
    source: &RootIdentity,
    destination: &RootIdentity,
) -> rusqlite::Result<Option<Found>> {
    jobs.query_row(
        "SELECT id, options, state, guard_passed, summary, catalog_stamp, epoch FROM job \
         WHERE kind = ? AND source_key = ? AND destination_key = ?",
        params![kind, source.key(), destination.key()],
        |row| {
            let id: String = row.get(0)?;
            let id = Uuid::parse_str(&id).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
            })?;
            let state = match row.get_ref(2)?.as_str()? {
                "complete" => JobState::Complete,
                "cancelled" => JobState::Cancelled,
                _ => JobState::Running,
            };
            Ok(Found {
                id,
                options: row.get(1)?,
                epoch: row.get::<_, i64>(6)?.cast_unsigned(),
                state,
                guard_passed: row.get(3)?,
                summary: row.get(4)?,
                catalog_stamp: row.get(5)?,
            })
        },
    )
    .optional()
}

fn insert(
    jobs: &Connection,
    id: Uuid,
    kind: &str,
    source: &RootIdentity,
    destination: &RootIdentity,
    options: &OptionTexts,
) -> rusqlite::Result<()> {
    let options = serde_json::Value::from_iter(options.clone()).to_string();
    jobs.execute(
        "INSERT INTO job(id, kind, source_key, destination_key, source_path, source_dev, source_ino, \
         destination_path, destination_dev, destination_ino, options, state, guard_passed, created_ms, copyd) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', 0, ?, ?)",
        params![
            id.to_string(),
            kind,
            source.key(),
            destination.key(),
            source.path.as_os_str().as_bytes(),
            source.dev.cast_signed(),
            source.ino.cast_signed(),
            destination.path.as_os_str().as_bytes(),
            destination.dev.cast_signed(),
            destination.ino.cast_signed(),
            options,
            now_ms(),
            env!("CARGO_PKG_VERSION"),
        ],
    )?;
    Ok(())
}

pub(super) fn now_ms() -> i64 {
    // A clock before 1970 is no reason to refuse a copy.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Changes whenever anything writes the file, or puts another in its place.
fn stamp(path: &Path) -> io::Result<String> {
    let m = std::fs::symlink_metadata(path)?;
    Ok(format!("{} {} {}.{:09} {}.{:09}", m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

impl Job {
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Where its files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Which of the runs that ever owned it this is; what an earlier one sends is not committed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How far it had come when it was opened or last changed.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.state
    }

    /// Whether an earlier run has found the destination empty, or was told what to do with what
    /// stood there.
    #[must_use]
    pub fn guard_passed(&self) -> bool {
        self.guard_passed
    }

    /// The summary of the last run that ended by itself, as JSON.
    #[must_use]
    pub fn last_summary(&self) -> Option<&str> {
        self.summary.as_deref()
    }

    /// Opens the job's catalog. A file that was not closed in order, or changed since, is checked
    /// whole first, by [`Catalog::check`].
    ///
    /// # Errors
    /// [`Error::State`] when the catalog is missing, damaged, foreign or newer.
    pub fn catalog(&self) -> Result<Catalog, Error> {
        let path = self.directory.join(CATALOG);
        let closed_in_order = self.catalog_stamp.is_some() && stamp(&path).ok() == self.catalog_stamp;
        let owner = Owner { epoch: self.epoch, lock: Some(Arc::clone(&self.lock)) };
        let mut catalog = Catalog::open(&path, self.source_dev, owner)?;
        if closed_in_order {
            catalog.mark_closed_in_order();
        } else {
            catalog.check()?;
        }
        Ok(catalog)
    }

    /// Notes, durably, that the destination's own entries were accepted.
    ///
    /// # Errors
    /// [`Error::State`] when the row can't be written.
    pub fn pass_guard(&mut self) -> Result<(), Error> {
        self.update("guard_passed = 1", params![self.id.to_string()])?;
        self.guard_passed = true;
        Ok(())
    }

    /// Notes, durably, that a run begins.
    ///
    /// # Errors
    /// As [`Job::pass_guard`].
    pub fn start(&mut self) -> Result<(), Error> {
        self.update("state = 'running', started_ms = ?2", params![self.id.to_string(), now_ms()])?;
        self.state = JobState::Running;
        Ok(())
    }

    /// Notes, durably, how a run ended. The catalog's writer and readers are closed by then, so that
    /// the next run can trust the file as it stands.
    ///
    /// # Errors
    /// As [`Job::pass_guard`].
    pub fn finish(&mut self, state: JobState, summary_json: &str) -> Result<(), Error> {
        let path = self.directory.join(CATALOG);
        let stamp = stamp(&path).map_err(|error| call_failed(&path, "can't be examined", error))?;
        self.update(
            "state = ?2, finished_ms = ?3, summary = ?4, catalog_stamp = ?5",
            params![self.id.to_string(), state.word(), now_ms(), summary_json, stamp],
        )?;
        (self.state, self.summary, self.catalog_stamp) = (state, Some(summary_json.to_owned()), Some(stamp));
        Ok(())
    }

    fn update(&self, assignments: &str, params: impl rusqlite::Params) -> Result<(), Error> {
        let changed = self
            .jobs
            .execute(
                &format!("UPDATE job SET {assignments} WHERE id = ?1 AND epoch = {}", self.epoch.cast_signed()),
                params,
            )
            .map_err(|error| database::failure(&self.jobs_path, error))?;
        if changed == 1 {
            return Ok(());
        }
        if !self.lock.is_in_place() {
            return Err(Error::State { path: self.jobs_path.clone(), what: fence::TAKEN, source: None });
        }
        Err(database::damaged(&self.jobs_path, format!("the row of job {} has gone", self.id)))
    }
}
