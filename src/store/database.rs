//! Opening a `SQLite` file of ours, and refusing any other.
//!
//! A database is created beside its place, synced and renamed, so that whatever stands under the
//! final name was whole once. Hence an empty, truncated, foreign or newer file there is never an
//! accident to paper over by creating it again: it is refused, with its name and what to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::Error;
use crate::limits;

/// One step of a database's schema, applied in the same transaction that sets its number.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub to: i32,
    pub sql: &'static str,
}

/// A kind of database: its mark in the file's header, and the steps to its newest schema.
#[derive(Debug)]
pub(super) struct Schema {
    /// `PRAGMA application_id`, which `file(1)` shows too.
    pub application: i32,
    /// In ascending order of `to`, from 1, without gaps; the last is the newest version.
    pub upgrades: &'static [Upgrade],
}

impl Schema {
    pub fn version(&self) -> i32 {
        self.upgrades.last().map_or(0, |upgrade| upgrade.to)
    }
}

/// How safe a commit is against a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Each commit is on stable storage before it returns.
    Full,
    /// Commits survive a kill; a power cut may take back the latest, never a part of one.
    Normal,
}

/// What every database begins with (<https://www.sqlite.org/fileformat2.html>, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) const DAMAGED: &str =
    "is damaged or no database: restore it from a backup, or start anew with another --state-dir";
const EMPTY: &str = "is empty: restore it from a backup, or start anew with another --state-dir";
const FOREIGN: &str = "belongs to another application: move it away and restore copyd's own";
const NEWER: &str = "was written by a newer copyd: run that version, or start anew with another --state-dir";
const MISSING: &str = "is missing: restore it from a backup, or start anew with another --state-dir";

/// The typed error of a failed statement or call on the database at `path`.
pub(super) fn failure(path: &Path, error: rusqlite::Error) -> Error {
    if let Some(source) = exhausted(path, error.sqlite_error_code()) {
        return Error::Resources { what: "no memory or descriptor left for the job's state", source };
    }
    let what = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "can't be written: there is no room",
        Some(ErrorCode::ReadOnly) => "can't be written: it is read-only",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "is held by another program (an open sqlite3 session?): end that, then run the same command again"
        }
        Some(ErrorCode::CannotOpen) => "can't be opened",
        Some(ErrorCode::SystemIoFailure) => "can't be read or written",
        // What `SQLite` itself calls damage; or a statement that doesn't fit the schema, or a value
        // of another type: the file was altered.
        None
        | Some(
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::TypeMismatch
            | ErrorCode::ConstraintViolation
            | ErrorCode::Unknown,
        ) => DAMAGED,
        Some(_) => "can't be used",
    };
    Error::State { path: path.to_owned(), what, source: Some(Box::new(error)) }
}

/// What is short, where that is why `SQLite` failed: it does not tell, so it is tried again.
fn exhausted(path: &Path, code: Option<ErrorCode>) -> Option<io::Error> {
    match code? {
        ErrorCode::OutOfMemory => Some(io::ErrorKind::OutOfMemory.into()),
        ErrorCode::CannotOpen | ErrorCode::SystemIoFailure => {
            // A database has three files.
            let tried: io::Result<Vec<File>> = (0..3).map(|_| File::open(path)).collect();
            tried.err().filter(|e| matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)))
        }
        _ => None,
    }
}

/// The error of a database whose contents contradict themselves; `detail` says where.
pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> Error {
    Error::State { path: path.to_owned(), what: DAMAGED, source: Some(detail.into().into()) }
}

/// The error of a file system call on something in the state directory.
pub(super) fn call_failed(path: &Path, what: &'static str, error: impl Into<io::Error>) -> Error {
    Error::State { path: path.to_owned(), what, source: Some(Box::new(error.into())) }
}

/// Creates the database `path` in its newest schema. Whoever calls holds a lock on the directory.
pub(super) fn create(path: &Path, schema: &Schema) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let staged = PathBuf::from(name);
    // What a creation that was killed left behind was never used.
    for leftover in [&staged, &with_suffix(&staged, "-wal"), &with_suffix(&staged, "-shm")] {
        match std::fs::remove_file(leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(call_failed(leftover, "can't be removed", error)),
        }
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .map_err(|error| call_failed(&staged, "can't be created", error))?;
    fill(&staged, schema).map_err(|error| failure(&staged, error))?;
    file.sync_all().map_err(|error| call_failed(&staged, "can't be synced", error))?;
    std::fs::rename(&staged, path).map_err(|error| call_failed(path, "can't be renamed into place", error))?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

fn fill(path: &Path, schema: &Schema) -> rusqlite::Result<()> {
    let mut connection = Connection::open_with_flags(path, flags(true))?;
    connection.execute_batch(&format!(
        "PRAGMA page_size={}; PRAGMA journal_mode=WAL; PRAGMA application_id={};",
        limits::CATALOG_PAGE_BYTES,
        schema.application
    ))?;
    upgrade(&mut connection, schema, 0)?;
    // Folds the log into the file. Closing would do it too, and keep silent where it can't: the file would be
    // given its name without what the log alone still holds.
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(code, None));
    }
    connection.close().map_err(|(_, error)| error)
}

fn upgrade(connection: &mut Connection, schema: &Schema, from: i32) -> rusqlite::Result<()> {
    for step in schema.upgrades.iter().filter(|step| step.to > from) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(step.sql)?;
        transaction.pragma_update(None, "user_version", step.to)?;
        transaction.commit()?;
    }
    Ok(())
}

/// `path` with `suffix` after its name, as `SQLite` names what stands beside a database.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| call_failed(path, "can't be synced", error))
}

// SQLite's own mutexes are off: each connection belongs to one thread at a time.
fn flags(write: bool) -> OpenFlags {
    let access = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Opens an existing database, checks that it is ours and whole in outline, and brings its schema
/// up to date.
///
/// # Errors
/// [`Error::State`] for a file that is missing, empty, cut short, damaged, foreign or newer.
pub(super) fn open(path: &Path, schema: &Schema, sync: Sync) -> Result<Connection, Error> {
    let refuse = |what| Error::State { path: path.to_owned(), what, source: None };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(call_failed(path, MISSING, error)),
        Err(error) => return Err(call_failed(path, "can't be examined", error)),
        Ok(metadata) if !metadata.is_file() => return Err(refuse("is not a regular file")),
        Ok(metadata) if metadata.len() == 0 => return Err(refuse(EMPTY)),
        Ok(_) => {}
    }
    // `SQLite` takes a file of less than a page for a database that is yet to be filled.
    let mut header = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(call_failed(path, "can't be read", error));
        }
        _ if &header != MAGIC => return Err(damaged(path, "it does not begin as a database does")),
        _ => {}
    }
    let mut connection = connect(path, true)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(|error| failure(path, error))?;
    let version = number("user_version").map_err(|error| failure(path, error))?;
    if application != schema.application {
        return Err(refuse(FOREIGN));
    }
    if version > schema.version() {
        let detail = format!("its schema is {version}, this copyd knows up to {}", schema.version());
        return Err(Error::State { path: path.to_owned(), what: NEWER, source: Some(detail.into()) });
    }
    if version < 1 {
        return Err(damaged(path, format!("its schema number is {version}")));
    }
    let level = if sync == Sync::Full { "FULL" } else { "NORMAL" };
    let set_up = connection
        .execute_batch(&format!(
            "PRAGMA synchronous={level}; PRAGMA wal_autocheckpoint={}; PRAGMA journal_size_limit={};",
            limits::CATALOG_CHECKPOINT_PAGES,
            limits::CATALOG_JOURNAL_BYTES,
        ))
        .and_then(|()| upgrade(&mut connection, schema, version));
    set_up.map_err(|error| failure(path, error))?;
    Ok(connection)
}

/// One more connection to a database that [`open`] has accepted, for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    connect(path, false)
}

fn connect(path: &Path, write: bool) -> Result<Connection, Error> {
    let cache = if write { limits::CATALOG_WRITER_CACHE_KIB } else { limits::CATALOG_READER_CACHE_KIB };
    Connection::open_with_flags(path, flags(write))
        .and_then(|connection| {
            // A plan never depends on bound values, so a prepared statement is never planned again.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            connection.busy_timeout(Duration::from_millis(limits::DATABASE_BUSY_MS))?;
            // A file that someone altered must not run functions (trusted_schema) nor lead outside
            // its pages (cell_size_check); mapped files turn an I/O error into SIGBUS.
            connection.execute_batch(&format!(
                "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; \
                 PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{cache};"
            ))?;
            Ok(connection)
        })
        .map_err(|error| failure(path, error))
}

/// How much of a database is compared with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Every page, each within itself.
    Quick,
    /// The order of keys, and indexes against their tables, too.
    Whole,
}

/// Reads every page and refuses the file where its structures contradict each other.
pub(super) fn check(path: &Path, connection: &Connection, check: Check) -> Result<(), Error> {
    let pragma = if check == Check::Quick { "quick_check" } else { "integrity_check" };
    let verdict: String =
        connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|error| failure(path, error))?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(path, verdict)) }
}
