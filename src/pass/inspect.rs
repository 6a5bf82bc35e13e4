//! What a job's catalog knows of one entry, or of all: the answer to "what happened to this file?".
//!
//! Reads the state alone, and opens no root: the share may be gone, or hang, and the answer stays the same.
//! The job may run meanwhile; its lock is not taken, and what it has committed is what is seen.

use std::path::PathBuf;

use uuid::Uuid;

use super::{Event, Observer, Stop, Summary};
use crate::error::Error;
use crate::store::{CatalogReader, ROOT_DIRECTORY, ROOT_PARENT, Row, RowRef, StateDir, Store};

/// What is asked of a job's catalog.
#[derive(Clone, Debug)]
pub struct InspectOptions {
    pub job: Uuid,
    /// The entry, from the root, empty for the root itself; `None` for all.
    pub path: Option<Vec<u8>>,
    pub state_dir: Option<PathBuf>,
}

/// What is known of one entry.
#[derive(Debug)]
pub struct Known<'a> {
    /// From the root.
    pub path: &'a [u8],
    /// None where the catalog has no such entry.
    pub row: Option<RowRef<'a>>,
    /// Classes of what failed with it in the last run.
    pub failures: &'a [String],
}

/// Sends an [`Event::Entry`] for each entry that was asked for, in the order of paths.
///
/// # Errors
/// [`Error::State`] when the state can't be read, [`Error::Usage`] for a job that it does not know, and
/// [`Error::Cancelled`] at a stop.
pub fn inspect(options: &InspectOptions, observer: &dyn Observer, stop: &Stop) -> Result<Summary, Error> {
    let path = StateDir::resolve(options.state_dir.as_deref())?;
    let store = Store::open(&StateDir::open(&path)?)?;
    let reader = store.look(options.job)?.ok_or_else(|| Error::Usage {
        what: format!("no job {} has its state in {}", options.job, path.display()),
        remedy: "name the job by the id that its `started` event gave, and the state directory that it ran with",
    })?;
    let entries = match &options.path {
        Some(path) => one(&reader, path, observer).map(|()| 1),
        None => all(&reader, observer, stop),
    }?;
    Ok(Summary { job: options.job, entries, ..Summary::of("inspect") })
}

fn one(reader: &CatalogReader, path: &[u8], observer: &dyn Observer) -> Result<(), Error> {
    // What belongs together is read from one state.
    let _snapshot = reader.snapshot()?;
    let row = find(reader, path)?;
    let failures = reader.failures_of(path)?;
    observer.event(&Event::Entry(&Known { path, row: row.as_ref().map(Row::borrow), failures: &failures }));
    Ok(())
}

/// The row at the end of a path; none where a component on the way is unknown, as in a first run that has not
/// come to the end of the directory.
fn find(reader: &CatalogReader, path: &[u8]) -> Result<Option<Row>, Error> {
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    if names.peek().is_none() {
        return reader.get(ROOT_PARENT, b"");
    }
    let (mut directory, mut found) = (Some(ROOT_DIRECTORY), None);
    for name in names {
        let Some(inside) = directory else { return Ok(None) };
        found = reader.get(inside, name)?;
        directory = found.as_ref().and_then(|row| row.facts.child);
    }
    Ok(found)
}

fn all(reader: &CatalogReader, observer: &dyn Observer, stop: &Stop) -> Result<u64, Error> {
    let failed = reader.failures()?;
    let mut count = 0;
    reader.for_each_sorted_by_path(&mut |path, row| {
        if stop.requested() {
            return Err(Error::Cancelled { what: "the reading of the catalog was stopped".into() });
        }
        let of_path = failed.partition_point(|(other, _)| other.as_slice() < path);
        let failures = failed[of_path..].iter().take_while(|(other, _)| other == path);
        let failures: Vec<String> = failures.map(|(_, class)| class.clone()).collect();
        observer.event(&Event::Entry(&Known { path, row: Some(row), failures: &failures }));
        count += 1;
        Ok(())
    })?;
    Ok(count)
}
