//! P5 and T33: of two runs that both believe they own a job, one commits, and the other nothing.

use super::*;
use crate::error::Error;

fn identity(path: &str, ino: u64) -> RootIdentity {
    RootIdentity { path: path.into(), dev: SOURCE_DEV, ino, fs_id: None, marker: None }
}

fn open(state: &Path) -> Result<Opened, Error> {
    let store = Store::open(&StateDir::open(state)?)?;
    store.find_or_create("migrate", &identity("/source", 2), &identity("/destination", 64), &[])
}

fn state_of(state: &Path) -> (String, i64) {
    let jobs = rusqlite::Connection::open(state.join("jobs.sqlite")).expect("the list is a database");
    jobs.query_row("SELECT state, epoch FROM jobs", [], |row| Ok((row.get(0)?, row.get(1)?))).expect("one job")
}

fn rows_of(opened: &Opened) -> usize {
    walk(&opened.job.catalog().expect("catalog").reader().expect("reader")).expect("walk").len()
}

#[test]
fn t33_a_writer_that_was_fenced_commits_nothing_and_the_next_owner_does() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut stale = open(scratch.path()).expect("the first owner");
    stale.job.start().expect("start");
    let mut catalog = stale.job.catalog().expect("catalog");
    let writer = catalog.writer().expect("writer");
    writer.send(rows_batch(vec![root()])).expect("send");
    writer.flush(true).expect("it is still the owner");
    assert!(catalog.is_owned());

    assert!(Store::fence(scratch.path(), stale.job.id(), stale.job.epoch()).expect("fence"));
    assert_eq!(state_of(scratch.path()), ("cancelled".into(), 2));
    assert!(!catalog.is_owned());
    // The next owner does not wait for the lock that the first one still holds.
    let mut next = open(scratch.path()).expect("the next owner");
    assert_eq!((next.resumed, next.job.epoch()), (true, 3));
    next.job.start().expect("start");
    let mut own = next.job.catalog().expect("catalog");
    let theirs = own.writer().expect("writer");

    // Both write at the same time, as after a SIGCONT.
    let _ = writer.send(rows_batch(vec![file(ROOT_DIRECTORY, b"stale", 1)]));
    theirs.send(rows_batch(vec![file(ROOT_DIRECTORY, b"next", 2)])).expect("send");
    let refused = writer.flush(true).expect_err("a stale epoch commits nothing").to_string();
    assert!(refused.contains("another run has taken the job over"), "{refused}");
    assert!(writer.finish().is_err());
    theirs.finish().expect("the owner commits");
    for attempt in [stale.job.pass_guard(), stale.job.finish(JobState::Complete, "{}")] {
        assert!(attempt.expect_err("nor does its row change").to_string().contains("another run"));
    }
    drop(own);
    let names: Vec<_> = walk(&next.job.catalog().expect("catalog").reader().expect("reader")).expect("walk");
    let names: Vec<_> = names.into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [b"".to_vec(), b"next".to_vec()]);
    next.job.finish(JobState::Complete, "{}").expect("finish");
    assert_eq!(state_of(scratch.path()), ("complete".into(), 3));
}

#[test]
fn t33_the_epoch_alone_keeps_a_stale_writer_out_where_the_lock_tells_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    writer.send(rows_batch(vec![root()])).expect("send");
    writer.flush(false).expect("it owns the catalog");
    let other = rusqlite::Connection::open(scratch.path().join(FILE)).expect("a database");
    other.execute("UPDATE meta SET value = 9 WHERE key = 'epoch'", []).expect("the row is there");
    let _ = writer.send(rows_batch(vec![file(ROOT_DIRECTORY, b"stale", 1)]));
    assert!(writer.flush(false).is_err());
    let rows: i64 = other.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).expect("count");
    assert_eq!(rows, 1);
    assert!(open_catalog(scratch.path()).is_err(), "an owner of an older epoch is refused at once");
}

#[test]
fn a_fence_that_comes_too_late_does_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let first = open(scratch.path()).expect("the first owner");
    let (id, epoch) = (first.job.id(), first.job.epoch());
    drop(first);
    let next = open(scratch.path()).expect("the next owner");
    assert!(!Store::fence(scratch.path(), id, epoch).expect("it looks"));
    assert!(!Store::fence(scratch.path(), uuid::Uuid::now_v7(), epoch).expect("it looks"));
    assert_eq!(state_of(scratch.path()), ("running".into(), 2));
    assert_eq!(rows_of(&next), 0);
    assert!(next.job.catalog().expect("catalog").is_owned());
}

#[test]
fn a_list_of_jobs_from_before_epochs_goes_on() {
    let scratch = tempfile::tempdir().expect("scratch");
    let id = open(scratch.path()).expect("a job").job.id();
    let path = scratch.path().join("jobs.sqlite");
    let old = rusqlite::Connection::open(&path).expect("a database");
    let (sql, now) = (include_str!("../jobs-1.sql"), "now");
    old.execute_batch(&format!(
        "ALTER TABLE job RENAME TO {now}; DROP VIEW jobs; {sql} INSERT INTO job SELECT id, kind, source_key, \
         destination_key, source_path, source_dev, source_ino, destination_path, destination_dev, destination_ino, \
         options, state, guard_passed, created_ms, started_ms, finished_ms, summary, catalog_stamp, copyd FROM {now}; \
         DROP TABLE {now}; PRAGMA user_version = 1;"
    ))
    .expect("as it was");
    drop(old);
    let again = open(scratch.path()).expect("the old list is taken up");
    assert_eq!((again.job.id(), again.resumed, again.job.epoch()), (id, true, 1));
    assert_eq!(rows_of(&again), 0);
}
