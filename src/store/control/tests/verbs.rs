//! Each verb does what it says, once, and leaves nothing where it refuses.

use std::time::Duration;

use super::*;
use crate::error::{Class, Side};
use crate::fidelity::LossClass;
use crate::job::JobPatch;
use crate::limits;

fn key(key: &str, body: u8) -> Idempotency {
    Idempotency { scope: "p".into(), key: key.into(), fingerprint: [body; 32] }
}

#[test]
fn a_job_is_read_as_it_was_stored_also_by_the_next_daemon() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let new = job(1, migrate());
    create(&mut control, &new);
    let started = commit(&mut control, &new, Command::Start);
    assert!(matches!(open(scratch.path()), Err(Error::Guard { .. })), "one daemon at a time");
    drop(control);
    let control = open(scratch.path()).expect("open again");
    let reader = control.reader().expect("reader");
    assert_eq!(reader.job(new.id).expect("job"), Some(started.clone()));
    assert_eq!(reader.unfinished().expect("unfinished"), vec![started]);
    assert_eq!(reader.job(Uuid::nil()).expect("job"), None);
    assert_eq!(ids(&control, &new), [1, 2, 3, 4][..ids(&control, &new).len()]);
}

#[test]
fn a_step_from_another_generation_is_not_stored_nor_are_its_events() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let (one, two) = (job(1, migrate()), job(2, migrate()));
    create(&mut control, &one);
    create(&mut control, &two);
    let late = stepped(&one, Command::Pause);
    let started = commit(&mut control, &one, Command::Start);
    let events = ids(&control, &one);
    assert_eq!(control.commit(&late, one.generation).expect("commit"), Committed::Moved);
    let other = stepped(&two, Command::Pause);
    let both = [(&other, two.generation), (&late, one.generation)];
    assert_eq!(control.commit_all(&both, Some((&key("k", 1), "a"))).expect("commit"), Committed::Moved);
    let reader = control.reader().expect("reader");
    assert_eq!(reader.job(one.id).expect("job"), Some(started));
    assert_eq!(reader.job(two.id).expect("job"), Some(two.clone()), "all or none");
    assert_eq!((ids(&control, &one), ids(&control, &two)), (events, vec![1]));
    assert_eq!(control.keyed(&key("k", 1)).expect("key"), Keyed::New);
    let gone = stepped(&job(3, migrate()), Command::Pause);
    assert_eq!(control.commit(&gone, 1).expect("commit"), Committed::Moved);
}

#[test]
fn the_same_request_is_answered_as_before_and_another_with_its_key_is_refused() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let (one, two) = (job(1, migrate()), job(2, migrate()));
    let first = control.create(&one, &created(&one), Some((&key("k", 1), "one"))).expect("create");
    assert!(matches!(first, Created::Stored(_)));
    drop(control);
    let mut control = open(scratch.path()).expect("open again");
    let again = control.create(&two, &created(&two), Some((&key("k", 1), "two"))).expect("create");
    assert_eq!(again, Created::Replay("one".into()));
    let reused = control.create(&two, &created(&two), Some((&key("k", 2), "two"))).expect("create");
    assert_eq!(reused, Created::KeyReused);
    assert_eq!(control.reader().expect("reader").job(two.id).expect("job"), None);
    let elsewhere = Idempotency { scope: "q".into(), ..key("k", 2) };
    let other = control.create(&two, &created(&two), Some((&elsewhere, "two"))).expect("create");
    assert!(matches!(other, Created::Stored(_)), "another's key is another key");
    let paused = stepped(&one, Command::Pause);
    control.commit_all(&[(&paused, 1)], Some((&key("c", 1), "paused"))).expect("commit");
    assert_eq!(control.keyed(&key("c", 1)).expect("key"), Keyed::Replay("paused".into()));
    assert_eq!(control.keyed(&key("c", 2)).expect("key"), Keyed::Reused);
}

#[test]
fn the_events_of_a_job_are_numbered_without_a_gap_and_the_oldest_go() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = Control::open(&StateDir::open(scratch.path()).expect("state"), 10).expect("open");
    let (one, two) = (job(1, migrate()), job(2, migrate()));
    create(&mut control, &one);
    create(&mut control, &two);
    for n in 0..20 {
        let stored = control.append(one.id, &[note("a"), note("b")]).expect("append");
        assert_eq!(stored.iter().map(|event| event.id).collect::<Vec<_>>(), [2 * n + 2, 2 * n + 3]);
    }
    assert_eq!(ids(&control, &one), (32..=41).collect::<Vec<_>>());
    assert_eq!(ids(&control, &two), [1]);
    assert_eq!(control.append(Uuid::nil(), &[note("c")]).expect("append"), vec![], "nobody's");
    let reader = control.reader().expect("reader");
    let page = reader.events(one.id, 35, 3).expect("events");
    assert_eq!(page.iter().map(|event| event.id).collect::<Vec<_>>(), [36, 37, 38]);
    assert_eq!(page[0].event, note("a"));
}

#[test]
fn readers_see_no_gap_while_the_writer_goes_on() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let one = job(1, migrate());
    create(&mut control, &one);
    let readers = control.readers();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = || {
            let mut last = 0;
            loop {
                let over = done.load(std::sync::atomic::Ordering::Acquire);
                let page = readers.open().expect("reader").events(one.id, last, 7).expect("events");
                for event in &page {
                    assert_eq!(event.id, last + 1, "a gap");
                    last = event.id;
                }
                if over && page.is_empty() {
                    return last;
                }
            }
        };
        let watchers: Vec<_> = (0..3).map(|_| scope.spawn(watch)).collect();
        for n in 0..100 {
            control.append(one.id, &vec![note("x"); 1 + n % 3]).expect("append");
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        for watcher in watchers {
            assert_eq!(watcher.join().expect("watcher"), 1 + 199);
        }
    });
}

#[test]
fn only_what_failed_in_the_last_pass_is_kept_and_the_rest_of_too_many_is_counted() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let one = job(1, migrate());
    create(&mut control, &one);
    let row = |n: usize, class| FailureRow {
        n: 0,
        pass: 1,
        class,
        side: Side::Source,
        operation: "open".into(),
        path: vec![b'x', 0xff, u8::try_from(n % 256).expect("a byte")],
        error: n.is_multiple_of(2).then(|| "denied".into()),
    };
    let many: Vec<FailureRow> = (0..limits::FAILURES_KEPT + 5).map(|n| row(n, Class::Permission)).collect();
    control.record_failures(one.id, 1, &many[..9000]).expect("failures");
    control.record_failures(one.id, 1, &many[9000..]).expect("failures");
    let reader = control.reader().expect("reader");
    let counts = reader.failure_counts(one.id).expect("counts");
    assert_eq!(counts, [FailureCount { pass: 1, class: Class::Permission, entries: many.len() as u64 }]);
    let page = reader.failures(one.id, 0, 6000).expect("failures");
    let rest = reader.failures(one.id, page.next.expect("more").parse().expect("a number"), 6000).expect("failures");
    assert_eq!((page.items.len(), rest.items.len(), rest.next), (6000, 4000, None));
    assert_eq!((&page.items[0].path, page.items[0].n), (&many[0].path, 1));
    control.record_failures(one.id, 2, &[row(0, Class::Io)]).expect("failures");
    control.end_pass(one.id, 2).expect("end");
    let left = reader.failures(one.id, 0, 10).expect("failures").items;
    assert_eq!(left.iter().map(|row| (row.pass, row.class)).collect::<Vec<_>>(), [(2, Class::Io)]);
    assert_eq!(reader.failure_counts(one.id).expect("counts").len(), 1);
}

#[test]
fn of_each_class_of_loss_some_examples_are_kept() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let one = job(1, migrate());
    create(&mut control, &one);
    let loss = |n: u64, class| LossRow { class, path: n.to_string().into_bytes(), detail: "d".into() };
    let many: Vec<LossRow> = (0..50).map(|n| loss(n, LossClass::Acl)).chain([loss(1, LossClass::Hole)]).collect();
    for _ in 0..2 {
        control.record_losses(one.id, 1, &many).expect("losses");
    }
    let kept = control.reader().expect("reader").losses(one.id).expect("losses");
    let of = |class| kept.iter().filter(|row| row.class == class).count() as u64;
    assert_eq!((of(LossClass::Acl), of(LossClass::Hole)), (limits::LOSS_EXAMPLES, 1));
}

#[test]
fn only_a_job_that_has_ended_is_deleted_with_all_that_is_its_own() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let mut spec = migrate();
    spec.labels.insert("a".into(), "b".into());
    let (one, two) = (job(1, spec.clone()), job(2, spec));
    create(&mut control, &one);
    create(&mut control, &two);
    assert_eq!(control.delete(one.id).expect("delete"), Deleted::NotFinal);
    let started = commit(&mut control, &one, Command::Start);
    let stopping = commit(&mut control, &started, Command::Cancel);
    assert_eq!((stopping.state, control.delete(one.id).expect("delete")), (State::Cancelling, Deleted::NotFinal));
    let cancelled = commit(&mut control, &stopping, Command::Restarted);
    assert_eq!(cancelled.state, State::Cancelled);
    assert_eq!(control.reader().expect("reader").unfinished().expect("unfinished"), vec![two.clone()]);
    assert_eq!(control.delete(one.id).expect("delete"), Deleted::Done);
    assert_eq!(control.delete(one.id).expect("delete"), Deleted::Unknown);
    assert_eq!((ids(&control, &one), ids(&control, &two)), (vec![], vec![1]));
    let labels: i64 = control
        .reader()
        .expect("reader")
        .connection()
        .query_row("SELECT COUNT(*) FROM label", [], |row| row.get(0))
        .expect("count");
    assert_eq!(labels, 1);
}

#[test]
fn a_sweep_takes_only_jobs_that_ended_long_ago_and_old_keys() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let jobs: Vec<Job> = (1..=4).map(|n| job(n, migrate())).collect();
    for (job, name) in jobs.iter().zip(["a", "b", "c", "d"]) {
        control.create(job, &created(job), Some((&key(name, 1), ""))).expect("create");
    }
    for job in &jobs[..2] {
        commit(&mut control, job, Command::Cancel);
    }
    let running = commit(&mut control, &jobs[2], Command::Start);
    let day = Duration::from_hours(24);
    // The first was cancelled a millisecond after it was made, the second a second later.
    let now_ms = jobs[0].created_ms + 1 + 1 + 24 * 3_600_000;
    let none = control.sweep(Retention { jobs: None, keys: day * 2 }, now_ms * 2).expect("sweep").jobs;
    assert_eq!(none, Vec::<Uuid>::new(), "kept for ever");
    let swept = control.sweep(Retention { jobs: Some(day), keys: day * 2 }, now_ms).expect("sweep");
    assert_eq!((swept.jobs, swept.keys), (vec![jobs[0].id], 0));
    let swept = control.sweep(Retention { jobs: Some(day), keys: day }, now_ms * 2).expect("sweep");
    assert_eq!(swept.jobs, [jobs[1].id]);
    let reader = control.reader().expect("reader");
    assert_eq!(reader.unfinished().expect("unfinished"), vec![running, jobs[3].clone()]);
    assert_eq!(control.keyed(&key("a", 1)).expect("key"), Keyed::New);
}

#[test]
fn a_group_is_made_before_its_members_and_goes_after_them() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let member = job(1, JobSpec { group: Some("g".into()), project: "p".into(), ..migrate() });
    assert_eq!(control.create(&member, &[], None).expect("create"), Created::UnknownGroup);
    let group = Group { name: "g".into(), project: "p".into(), created_ms: NOW_MS };
    assert_eq!(control.create_group(&group).expect("group"), GroupMade::Made);
    assert_eq!(control.create_group(&group).expect("group"), GroupMade::Exists(group.clone()));
    create(&mut control, &member);
    let reader = control.reader().expect("reader");
    assert_eq!(reader.members("p", "g").expect("members"), vec![member.clone()]);
    assert_eq!(reader.members("q", "g").expect("members"), vec![]);
    assert_eq!(reader.group("p", "g").expect("group"), Some(group.clone()));
    assert_eq!(reader.group("q", "g").expect("group"), None, "another project's group is not seen");
    assert_eq!(reader.groups(Some(&["p".into()])).expect("groups"), vec![group]);
    assert_eq!(reader.groups(Some(&[])).expect("groups"), vec![]);
    assert_eq!(control.delete_group("p", "g").expect("delete"), GroupDeleted::HasMembers(1));
    commit(&mut control, &member, Command::Cancel);
    control.delete(member.id).expect("delete");
    assert_eq!(control.delete_group("p", "g").expect("delete"), GroupDeleted::Done);
    assert_eq!(control.delete_group("p", "g").expect("delete"), GroupDeleted::Unknown);
}

#[test]
fn labels_and_priority_by_which_a_job_is_found_change_with_it() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let mut spec = migrate();
    spec.labels.insert("a".into(), "1".into());
    let one = job(1, spec);
    create(&mut control, &one);
    let patch = br#"{"labels":{"a":null,"b":"2"},"priority":80}"#;
    commit(&mut control, &one, Command::Patch(JobPatch::parse(patch).expect("a change")));
    let found = |name: &str, value: &str| {
        let filter = JobFilter { labels: vec![(name.into(), value.into())], ..JobFilter::default() };
        control.reader().expect("reader").jobs(&filter, Sort::default(), 9, None).expect("jobs").items.len()
    };
    assert_eq!((found("a", "1"), found("b", "2"), found("b", "1")), (0, 1, 0));
}

#[test]
fn a_file_that_is_empty_foreign_newer_or_half_gone_is_refused_by_name() {
    let scratch = tempfile::tempdir().expect("scratch");
    drop(open(scratch.path()).expect("open"));
    let path = scratch.path().join(FILE);
    let whole = std::fs::read(&path).expect("read");
    let refused = |what: &str| {
        let error = open(scratch.path()).expect_err(what).to_string();
        assert!(error.contains("daemon.sqlite"), "{what}: {error}");
    };
    std::fs::write(&path, b"").expect("write");
    refused("empty");
    std::fs::write(&path, vec![7; 9000]).expect("write");
    refused("no database");
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&path, &newer).expect("write");
    refused("newer");
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(&1_u32.to_be_bytes());
    std::fs::write(&path, &foreign).expect("write");
    refused("foreign");
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(scratch.path().join("daemon.sqlite-wal"), b"x").expect("write");
    refused("its log alone is there");
    std::fs::remove_file(scratch.path().join("daemon.sqlite-wal")).expect("remove");
    std::fs::write(&path, &whole).expect("write");
    open(scratch.path()).expect("whole again");
}

#[test]
fn a_record_of_a_newer_form_is_refused_and_not_read_in_part() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let one = job(1, migrate());
    create(&mut control, &one);
    control.write(|transaction| transaction.execute("UPDATE job SET schema = 99", [])).expect("update");
    let error = control.reader().expect("reader").job(one.id).expect_err("newer");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("this copyd knows up to"), "{error}: {source}");
}

#[test]
fn an_operator_finds_everything_with_sqlite3() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    create(&mut control, &job(1, migrate()));
    let reader = control.reader().expect("reader");
    for view in ["jobs", "job_events", "failed_entries", "losses"] {
        let mut statement = reader.connection().prepare(&format!("SELECT * FROM {view}")).expect(view);
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect(view).count();
        assert_eq!(rows, usize::from(view.starts_with("job")), "{view}");
    }
}
