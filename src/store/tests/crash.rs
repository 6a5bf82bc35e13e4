//! A writer that is killed loses nothing that a flush has acknowledged, and no batch in part.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use super::*;

const CHILD: &str = "COPYD_TEST_KILLED_WRITER";
const BATCH_ROWS: u64 = 200;

/// Batch `n`: a directory of its own with a fixed number of files.
fn batch(n: u64) -> Batch {
    let id = n + 2;
    let mut rows: Vec<Row> =
        (0..BATCH_ROWS - 1).map(|i| file(id, format!("file-{i:06}").as_bytes(), n * BATCH_ROWS + i)).collect();
    rows.insert(0, directory(ROOT_DIRECTORY, format!("dir-{n:08}").as_bytes(), id));
    rows_batch(rows)
}

/// Writes batches until it is killed, and says after each flush how many are safe.
fn write_until_killed(directory: &Path) {
    let mut catalog = open_catalog(directory).expect("open");
    let writer = catalog.writer().expect("writer");
    for n in 0.. {
        writer.send(batch(n)).expect("send");
        // Batches between flushes go on in the writer's thread while the kill comes.
        if n % 3 == 0 {
            writer.flush(n % 6 == 0).expect("flush");
            println!("\nsafe {n}");
            std::io::stdout().flush().expect("stdout");
        }
    }
}

#[test]
fn a_killed_writer_leaves_every_acknowledged_batch_and_no_part_of_one() {
    if let Some(directory) = handed_over(CHILD) {
        return write_until_killed(&directory);
    }
    let name = "store::tests::crash::a_killed_writer_leaves_every_acknowledged_batch_and_no_part_of_one";
    for round in 0..5 {
        let scratch = tempfile::tempdir().expect("scratch");
        write_rows(&mut new_catalog(scratch.path()), vec![root()]);
        let mut child = child_of(name, CHILD, scratch.path());
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let safe = |line: std::io::Result<String>| line.ok()?.strip_prefix("safe ")?.parse::<u64>().ok();
        // The clock runs from the second flush on: a slow machine takes its time for the first ones.
        let mut last = lines.by_ref().filter_map(safe).find(|n| *n > 0).expect("a second flush");
        let id = child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(40 + 23 * round));
            let pid = rustix::process::Pid::from_raw(id.cast_signed()).expect("pid");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        });
        last = lines.filter_map(safe).last().unwrap_or(last);
        killer.join().expect("killer");
        assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));

        let catalog = open_catalog(scratch.path()).expect("open after the kill");
        catalog.check().expect("quick_check");
        let connection = rusqlite::Connection::open(catalog.path()).expect("open");
        let verdict: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("check");
        assert_eq!(verdict, "ok");
        let reader = catalog.reader().expect("reader");
        let found = walk(&reader).expect("walk");
        let batches = (found.len() as u64 - 1) / BATCH_ROWS;
        assert!(batches > last, "{batches} batches, {last} was acknowledged");
        assert_eq!(found.len() as u64 - 1, batches * BATCH_ROWS, "a batch is there in part");
        assert!(catalog.next_directory_id() >= batches + 2);
        let mut expected: Vec<Row> = (0..batches).flat_map(|n| batch(n).rows).collect();
        expected.sort_by(|a, b| (a.directory, &a.name).cmp(&(b.directory, &b.name)));
        let mut found: Vec<Row> = found.into_iter().skip(1).map(|(_, row)| row).collect();
        found.sort_by(|a, b| (a.directory, &a.name).cmp(&(b.directory, &b.name)));
        assert!(found == expected, "a row differs from what was sent");
    }
}

#[test]
fn a_durable_flush_survives_a_power_cut() {
    let disk = Disk::new();
    let mut catalog = new_catalog(&disk.mount);
    let writer = catalog.writer().expect("writer");
    let mut first = batch(0);
    first.rows.push(root());
    writer.send(first).expect("send");
    writer.flush(true).expect("flush");
    disk.cut_power();
    // Nothing more reaches the disk: neither the writer's last words nor those of the connection.
    drop(writer);
    drop(catalog);
    disk.power_on();
    let catalog = open_catalog(&disk.mount).expect("open after the cut");
    catalog.check().expect("quick_check");
    assert_eq!(walk(&catalog.reader().expect("reader")).expect("walk").len() as u64, BATCH_ROWS + 1);
}

#[test]
fn a_new_job_survives_a_power_cut_the_moment_it_is_handed_out() {
    let disk = Disk::new();
    let state = StateDir::open(&disk.mount.join("state")).expect("state");
    let roots = RootIdentity { path: "/s".into(), dev: 1, ino: 2, fs_id: Some([3; 16]), marker: None };
    let open = || Store::open(&state).and_then(|store| store.find_or_create("sync", &roots, &roots, &[]));
    let mut first = open().expect("first");
    first.job.pass_guard().expect("guard");
    let id = first.job.id();
    disk.cut_power();
    drop(first);
    drop(state);
    disk.power_on();
    let state = StateDir::open(&disk.mount.join("state")).expect("state");
    let store = Store::open(&state).expect("store");
    let again = store.find_or_create("sync", &roots, &roots, &[]).expect("again");
    assert!(again.resumed && again.job.guard_passed());
    assert_eq!(again.job.id(), id);
    again.job.catalog().expect("catalog");
}

#[test]
fn a_log_that_ends_anywhere_gives_back_whole_batches_in_their_order() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    for n in 0..12 {
        let mut batch = batch(n);
        if n == 0 {
            batch.rows.push(root());
        }
        writer.send(batch).expect("send");
        writer.flush(false).expect("flush");
    }
    let image = |name: &str| std::fs::read(scratch.path().join(name)).expect("image");
    let (file, log) = (image(FILE), image("catalog.sqlite-wal"));
    let mut counts = std::collections::BTreeSet::new();
    for cut in (0..=40).map(|step| log.len() * step / 40) {
        let cut_short = tempfile::tempdir().expect("scratch");
        std::fs::write(cut_short.path().join(FILE), &file).expect("write");
        std::fs::write(cut_short.path().join("catalog.sqlite-wal"), &log[..cut]).expect("write");
        let catalog = open_catalog(cut_short.path()).expect("open");
        catalog.check().expect("quick_check");
        let found = walk(&catalog.reader().expect("reader")).expect("walk").len() as u64;
        assert!(found == 0 || found % BATCH_ROWS == 1, "{found} rows are no whole batches");
        counts.insert(found);
    }
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&(12 * BATCH_ROWS + 1))));
    assert!(counts.len() > 10, "the cuts fell between batches: {counts:?}");
}
