//! Consistency groups: that they are there. Who belongs to one stands in the jobs.

use rusqlite::{OptionalExtension, params};

use super::writer::Control;
use crate::error::Error;
use crate::job::Group;

/// Version of a group's record.
const RECORD_SCHEMA: u32 = 1;

/// What came of making a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMade {
    Made,
    /// There is one of this name already.
    Exists(Group),
}

/// What came of deleting a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupDeleted {
    Done,
    Unknown,
    /// It has members, in whatever state.
    HasMembers(u64),
}

impl Control {
    /// Makes a group.
    ///
    /// # Errors
    /// [`Error::State`] when it can't be written.
    pub fn create_group(&mut self, group: &Group) -> Result<GroupMade, Error> {
        self.write(|transaction| {
            let found: Option<String> = transaction
                .prepare_cached("SELECT record FROM consistency_group WHERE project = ? AND name = ?")?
                .query_row([&group.project, &group.name], |row| row.get(0))
                .optional()?;
            if let Some(record) = found {
                let group = serde_json::from_str(&record).map_err(|error| super::rows::unreadable(0, error))?;
                return Ok(GroupMade::Exists(group));
            }
            let record =
                serde_json::to_string(group).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            transaction
                .prepare_cached(
                    "INSERT INTO consistency_group(project, name, created_ms, schema, record) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![group.project, group.name, group.created_ms.cast_signed(), RECORD_SCHEMA, record])?;
            Ok(GroupMade::Made)
        })
    }

    /// Deletes a group that has no members any more.
    ///
    /// # Errors
    /// [`Error::State`] when it can't be written.
    pub fn delete_group(&mut self, project: &str, name: &str) -> Result<GroupDeleted, Error> {
        self.write(|transaction| {
            let members: i64 = transaction
                .prepare_cached(
                    "SELECT COUNT(*) FROM job INDEXED BY job_group WHERE project = ? AND consistency_group = ?",
                )?
                .query_row([project, name], |row| row.get(0))?;
            if members > 0 {
                return Ok(GroupDeleted::HasMembers(members.cast_unsigned()));
            }
            let gone = transaction
                .prepare_cached("DELETE FROM consistency_group WHERE project = ? AND name = ?")?
                .execute([project, name])?;
            Ok(if gone == 0 { GroupDeleted::Unknown } else { GroupDeleted::Done })
        })
    }
}
