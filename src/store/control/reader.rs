//! Looking at the daemon's jobs: each reader has a connection of its own and sees whole transactions only.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use uuid::Uuid;

use super::list::{JobFilter, Marker, Page, Query, Sort};
use super::rows::{FailureCount, FailureRow, LossRow, of_word, unreadable};
use crate::error::Error;
use crate::job::{Event, Group, Job, StoredEvent};
use crate::limits;
use crate::store::database;

/// Where readers come from. Cheap to clone, and shared by all threads.
#[derive(Clone, Debug)]
pub struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: Arc::new(path.to_owned()), idle: Arc::default() }
    }

    /// A reader of the file as it stands.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be opened.
    pub fn open(&self) -> Result<Reader, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => database::open_reader(&self.path)?,
        };
        Ok(Reader { connection: Some(connection), of: self.clone() })
    }
}

/// A view of the daemon's jobs. Its calls wait for the disk: not for threads that serve sockets.
#[derive(Debug)]
pub struct Reader {
    /// There until it is dropped.
    connection: Option<Connection>,
    of: Readers,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut idle = self.of.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < limits::CONTROL_READERS_IDLE {
            idle.extend(self.connection.take());
        }
    }
}

impl Reader {
    /// One job.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be read, as of all of these.
    pub fn job(&self, id: Uuid) -> Result<Option<Job>, Error> {
        self.read(|connection| job(connection, id))
    }

    /// The jobs that have not ended, in the order in which they were made.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn unfinished(&self) -> Result<Vec<Job>, Error> {
        self.read(|connection| connection.prepare_cached(UNFINISHED)?.query_map([], |row| record(row, 0))?.collect())
    }

    /// A page of jobs.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn jobs(
        &self,
        filter: &JobFilter,
        sort: Sort,
        limit: usize,
        marker: Option<Marker>,
    ) -> Result<Page<Job>, Error> {
        self.snapshot(|connection| {
            let query = Query::new(filter, sort, limit.saturating_add(1), marker);
            let mut statement = connection.prepare_cached(&query.sql)?;
            let ids: Vec<String> =
                statement.query_map(params_from_iter(query.values), |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut by_id = connection.prepare_cached(BY_ID)?;
            let items: Vec<Job> = ids
                .iter()
                .take(limit)
                .map(|id| by_id.query_row([id], |row| record(row, 0)))
                .collect::<Result<_, _>>()?;
            let more = ids.len() > limit;
            let next = items.last().filter(|_| more).map(|last| Marker::after(last, sort.key).to_string());
            Ok(Page { items, next })
        })
    }

    /// How many jobs are in each state, by project and kind.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn counts(&self) -> Result<Vec<StateCount>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT kind, state, COUNT(*) FROM job INDEXED BY job_list GROUP BY kind, state")?
                .query_map([], |row| {
                    Ok(StateCount {
                        kind: of_word(0, row.get(0)?)?,
                        state: of_word(1, row.get(1)?)?,
                        jobs: row.get::<_, i64>(2)?.cast_unsigned(),
                    })
                })?
                .collect()
        })
    }

    /// Events of a job after that one, in order.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn events(&self, id: Uuid, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT event.id, event.at_ms, event.data FROM job CROSS JOIN event ON event.job = job.seq \
                     WHERE job.id = ? AND event.id > ? ORDER BY event.id LIMIT ?",
                )?
                .query_map(params![id.to_string(), signed(after), rows(limit)], |row| {
                    let what = serde_json::from_str(row.get_ref(2)?.as_str()?).map_err(|e| unreadable(2, e))?;
                    let event = Event { at_ms: row.get::<_, i64>(1)?.cast_unsigned(), what };
                    Ok(StoredEvent { id: row.get::<_, i64>(0)?.cast_unsigned(), job: id, event })
                })?
                .collect()
        })
    }

    /// Entries that failed, after that one. Those of the last pass, and while a pass goes on its own too.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn failures(&self, id: Uuid, after: u64, limit: usize) -> Result<Page<FailureRow>, Error> {
        self.read(|connection| {
            let mut items: Vec<FailureRow> = connection
                .prepare_cached(
                    "SELECT n, pass, class, side, operation, path, error FROM job CROSS JOIN failure \
                     ON failure.job = job.seq WHERE job.id = ? AND n > ? ORDER BY n LIMIT ?",
                )?
                .query_map(params![id.to_string(), signed(after), rows(limit).saturating_add(1)], |row| {
                    Ok(FailureRow {
                        n: row.get::<_, i64>(0)?.cast_unsigned(),
                        pass: row.get(1)?,
                        class: of_word(2, row.get(2)?)?,
                        side: of_word(3, row.get(3)?)?,
                        operation: row.get(4)?,
                        path: row.get(5)?,
                        error: row.get(6)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = items.last().filter(|_| more).map(|last| last.n.to_string());
            Ok(Page { items, next })
        })
    }

    /// How many entries failed, by pass and class, also where there were too many to keep their names.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn failure_counts(&self, id: Uuid) -> Result<Vec<FailureCount>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT pass, class, n FROM job CROSS JOIN failure_count ON failure_count.job = job.seq \
                     WHERE job.id = ? ORDER BY pass, class",
                )?
                .query_map([id.to_string()], |row| {
                    let entries = row.get::<_, i64>(2)?.cast_unsigned();
                    Ok(FailureCount { pass: row.get(0)?, class: of_word(1, row.get(1)?)?, entries })
                })?
                .collect()
        })
    }

    /// Examples of what the destination can't hold, by class and path.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn losses(&self, id: Uuid) -> Result<Vec<LossRow>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT class, path, detail FROM job CROSS JOIN loss ON loss.job = job.seq \
                     WHERE job.id = ? ORDER BY class, path",
                )?
                .query_map([id.to_string()], |row| {
                    Ok(LossRow { class: of_word(0, row.get(0)?)?, path: row.get(1)?, detail: row.get(2)? })
                })?
                .collect()
        })
    }

    /// A consistency group.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn group(&self, project: &str, name: &str) -> Result<Option<Group>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT record FROM consistency_group WHERE project = ? AND name = ?")?
                .query_row([project, name], group_record)
                .optional()
        })
    }

    /// The groups of these projects, or of all, by project and name.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn groups(&self, projects: Option<&[String]>) -> Result<Vec<Group>, Error> {
        self.read(|connection| {
            let all: Vec<Group> = connection
                .prepare_cached("SELECT record FROM consistency_group ORDER BY project, name")?
                .query_map([], group_record)?
                .collect::<Result<_, _>>()?;
            Ok(all.into_iter().filter(|g| projects.is_none_or(|some| some.contains(&g.project))).collect())
        })
    }

    /// The members of a group, in the order in which they were made.
    ///
    /// # Errors
    /// As [`Reader::job`].
    pub fn members(&self, project: &str, name: &str) -> Result<Vec<Job>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT schema, record FROM job INDEXED BY job_group \
                     WHERE project = ? AND consistency_group = ? ORDER BY id",
                )?
                .query_map([project, name], |row| record(row, 0))?
                .collect()
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let failure = |error| database::failure(&self.of.path, error);
        match &self.connection {
            Some(connection) => look(connection).map_err(failure),
            None => Err(Error::Internal { what: "a reader was used after its end".into() }),
        }
    }

    /// As `read`, with all statements at the same state of the file.
    fn snapshot<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let found = look(&transaction)?;
            transaction.finish()?;
            Ok(found)
        })
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("there until it is dropped")
    }
}

/// How many jobs of one kind are in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount {
    pub kind: crate::job::Kind,
    pub state: crate::job::State,
    pub jobs: u64,
}

pub(super) const BY_ID: &str = "SELECT schema, record FROM job WHERE id = ?";
pub(super) const UNFINISHED: &str =
    "SELECT schema, record FROM job INDEXED BY job_unfinished WHERE finished_ms IS NULL ORDER BY id";

pub(super) fn job(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<Job>> {
    connection.prepare_cached(BY_ID)?.query_row([id.to_string()], |row| record(row, 0)).optional()
}

/// The record in the two columns from that one on: the number of its form, and its text.
pub(super) fn record(row: &Row<'_>, column: usize) -> rusqlite::Result<Job> {
    let text = row.get_ref(column + 1)?.as_str()?;
    Job::from_record(row.get(column)?, text).map_err(|error| unreadable(column + 1, error))
}

fn group_record(row: &Row<'_>) -> rusqlite::Result<Group> {
    serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| unreadable(0, error))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
