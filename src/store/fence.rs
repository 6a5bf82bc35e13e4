//! Taking a job away from a run that can't be asked any more (promises P5 and P7).
//!
//! A worker that hangs in a call may come back at any time. So before the job is given to another, its
//! epoch is raised: in the list of jobs, and in the catalog, where every transaction of a writer compares
//! it. The lock's file is put in place anew first, because the kernel gives a lock back only when its
//! holder is gone, and a holder that hangs never goes.
//!
//! ```text
//! fence:   lock file anew ─► job: epoch + 1, cancelled ─► catalog: epoch + 1
//! writer:  is the lock's file in place? ─► begin ─► is the epoch mine? ─► rows ─► commit
//! ```
//!
//! After the last step nothing that the old worker sends is committed; after the first its writer does
//! not even begin, so that a kill can't catch it while it holds the database.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::catalog;
use super::database::{self, Sync};
use super::jobs::{CATALOG, Store};
use super::lock::Lock;
use crate::error::Error;

/// What another run's owner gets to hear.
pub(super) const TAKEN: &str = "another run has taken the job over since: nothing more is written";

/// Makes the catalog the run's own. A catalog that was claimed by a later run is refused.
pub(super) fn claim(connection: &Connection, path: &Path, epoch: u64) -> Result<(), Error> {
    let failure = |error| database::failure(path, error);
    let found = epoch_of(connection).map_err(failure)?;
    if found == epoch {
        return Ok(());
    }
    if found > epoch {
        return Err(Error::State { path: path.to_owned(), what: TAKEN, source: None });
    }
    connection
        .execute("UPDATE meta SET value = ?1 WHERE key = 'epoch' AND value < ?1", [epoch.cast_signed()])
        .map_err(failure)?;
    Ok(())
}

/// The epoch that a catalog has.
pub(super) fn epoch_of(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).map(i64::cast_unsigned)
}

impl Store {
    /// Takes a job away from the run that owns it at `epoch`, and records that it was cancelled. False
    /// where a later run owns it already, and nothing was done.
    ///
    /// # Errors
    /// [`Error::State`] when the state can't be written, [`Error::Guard`] when the list of jobs stays locked.
    pub fn fence(state: &Path, id: Uuid, epoch: u64) -> Result<bool, Error> {
        let store = Self::at(state);
        let _guard = store.lock()?;
        let jobs = store.connect()?;
        let failure = |error| database::failure(&store.jobs_path(), error);
        let id_text = id.to_string();
        let found: Option<i64> = jobs
            .query_row("SELECT epoch FROM job WHERE id = ?", [&id_text], |row| row.get(0))
            .optional()
            .map_err(failure)?;
        if found.map(i64::cast_unsigned) != Some(epoch) {
            return Ok(false);
        }
        let directory = store.job_directory(id);
        Lock::replace(&directory.join("lock"))?;
        jobs.execute(
            "UPDATE job SET state = 'cancelled', epoch = epoch + 1, finished_ms = ?2 WHERE id = ?1",
            params![id_text, super::jobs::now_ms()],
        )
        .map_err(failure)?;
        let path = directory.join(CATALOG);
        let connection = database::open(&path, &catalog::SCHEMA, Sync::Normal)?;
        claim(&connection, &path, epoch.saturating_add(1))?;
        Ok(true)
    }
}
