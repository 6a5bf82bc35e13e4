//! Rows come back as they were written, in their order, against a model that sorts whole paths.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The rows of a share as a sorted map, and as a tree of directories that have ids.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<(DirectoryId, Vec<u8>), Row>,
}

impl Model {
    fn put(&mut self, row: Row) {
        self.rows.insert((row.directory, row.name.clone()), row);
    }

    fn remove(&mut self, directory: DirectoryId, name: &[u8]) {
        if let Some(child) = self.rows.remove(&(directory, name.to_vec())).and_then(|row| row.facts.child) {
            for name in self.names(child) {
                self.remove(child, &name);
            }
        }
    }

    fn names(&self, directory: DirectoryId) -> Vec<Vec<u8>> {
        self.rows.keys().filter(|(d, _)| *d == directory).map(|(_, name)| name.clone()).collect()
    }

    /// Every path with its row, sorted by the bytes of the path.
    fn paths(&self) -> BTreeMap<Vec<u8>, Row> {
        let mut paths = BTreeMap::new();
        let mut pending = vec![(Vec::new(), self.rows[&(ROOT_PARENT, Vec::new())].clone())];
        while let Some((path, row)) = pending.pop() {
            if let Some(child) = row.facts.child {
                for name in self.names(child) {
                    let mut below = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend_from_slice(&name);
                    pending.push((below, self.rows[&(child, name)].clone()));
                }
            }
            paths.insert(path, row);
        }
        paths
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Put { directory: usize, name: Vec<u8>, seed: u64, kind: u8 },
    Remove { directory: usize, name: Vec<u8> },
    Flush { durable: bool },
    Reopen,
}

/// Short names over few letters around `/` (0x2f), so that prefixes and order collide often.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'.', b'-', b'0', b'!', 0xff, 0x01]), 1..5)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0..40_usize, name(), any::<u64>(), 0..4_u8)
            .prop_map(|(directory, name, seed, kind)| Operation::Put { directory, name, seed: seed >> 8, kind }),
        2 => (0..40_usize, name()).prop_map(|(directory, name)| Operation::Remove { directory, name }),
        1 => any::<bool>().prop_map(|durable| Operation::Flush { durable }),
        1 => Just(Operation::Reopen),
    ]
}

/// Directories of the model that are reachable, in a fixed order.
fn directories(model: &Model) -> Vec<DirectoryId> {
    model.paths().values().filter_map(|row| row.facts.child).collect()
}

fn put(model: &mut Model, catalog: &Catalog, directory_id: DirectoryId, name: &[u8], seed: u64, kind: u8) -> Batch {
    let old = model.rows.get(&(directory_id, name.to_vec()));
    let old_child = old.and_then(|row| row.facts.child);
    let mut row = file(directory_id, name, seed);
    match kind {
        0 => row = directory(directory_id, name, old_child.unwrap_or_else(|| catalog.next_directory_id())),
        1 => {
            row.facts = Facts { kind: Kind::Symlink, digest: None, ..row.facts };
            row.target = Some(seed.to_le_bytes()[..(seed % 9) as usize].to_vec());
        }
        2 => {
            row.facts = Facts { published: None, nlink: 3, xattr_digest: Some([7; 32]), ..row.facts };
        }
        _ => {}
    }
    let mut batch = Batch::default();
    if old_child.is_some() && row.facts.child.is_none() {
        batch.deletions.push(Deletion { directory: directory_id, name: name.to_vec() });
        model.remove(directory_id, name);
    }
    model.put(row.clone());
    batch.rows.push(row);
    batch
}

/// All names of a directory, three rows at a time.
fn read_in_pages(reader: &CatalogReader, id: DirectoryId) -> Vec<Vec<u8>> {
    let mut rows = DirectoryRows::default();
    let mut paged = reader.paged(id, 3, &mut rows).expect("paged");
    let mut names = Vec::new();
    while let Some(row) = paged.peek().expect("peek") {
        names.push(row.name.to_vec());
        paged.step();
    }
    assert_eq!(paged.is_whole(), names.len() < 3);
    names
}

fn compare(model: &Model, reader: &CatalogReader) {
    let expected: Vec<(Vec<u8>, Row)> = model.paths().into_iter().collect();
    assert_eq!(walk(reader).expect("walk"), expected);
    let mut rows = DirectoryRows::default();
    for id in directories(model) {
        let names = model.names(id);
        reader.directory(id, &mut rows).expect("directory");
        assert_eq!(rows.iter().map(|row| row.name.to_vec()).collect::<Vec<_>>(), names);
        for name in &names {
            let expected = &model.rows[&(id, name.clone())];
            assert_eq!(rows.get(name), Some(expected.borrow()));
            assert_eq!(reader.get(id, name).expect("get").as_ref(), Some(expected));
        }
        assert_eq!(rows.get(b"a/b"), None);
        let mut paged = Vec::new();
        loop {
            reader.page_after(id, paged.last().map(Vec::as_slice), 3, &mut rows).expect("page");
            paged.extend(rows.iter().map(|row| row.name.to_vec()));
            if rows.len() < 3 {
                break;
            }
        }
        assert_eq!(paged, names);
        assert_eq!(read_in_pages(reader, id), names);
        let every_other: Vec<&[u8]> = names.iter().map(Vec::as_slice).step_by(2).collect();
        // Names without a row stand before, between and behind those that have one.
        let asked = every_other.iter().copied().chain([&b"\x01/"[..], b"a/b", b"\xff/"]).collect::<BTreeSet<_>>();
        reader.named(id, asked.iter().copied(), &mut rows).expect("named");
        assert_eq!(rows.iter().map(|row| row.name.to_vec()).collect::<Vec<_>>(), every_other);
        for page_rows in 1..5 {
            let mut held = reader.paged(id, page_rows, &mut rows).expect("paged");
            for name in &asked {
                let expected = model.rows.get(&(id, name.to_vec())).map(Row::borrow);
                assert_eq!(held.find(name).expect("find"), expected);
            }
        }
    }
    let mut names = std::collections::HashMap::new();
    for group in expected.iter().filter_map(|(_, row)| row.facts.link_group()) {
        *names.entry(group).or_insert(0) += 1;
    }
    let shared = names.into_iter().filter(|(_, names)| *names > 1).map(|(group, _)| group).collect();
    assert_eq!(reader.shared_link_groups().expect("groups"), shared);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_writes_and_deletions_reads_back_as_the_model_says(operations in prop::collection::vec(operation(), 1..120)) {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut catalog = new_catalog(scratch.path());
        let mut model = Model::default();
        let mut writer = catalog.writer().expect("writer");
        model.put(root());
        writer.send(rows_batch(vec![root()])).expect("send");
        for operation in operations {
            let known = directories(&model);
            match operation {
                Operation::Put { directory, name, seed, kind } => {
                    let batch = put(&mut model, &catalog, known[directory % known.len()], &name, seed, kind);
                    writer.send(batch).expect("send");
                }
                Operation::Remove { directory, name } => {
                    let directory = known[directory % known.len()];
                    model.remove(directory, &name);
                    let deletions = vec![Deletion { directory, name }];
                    writer.send(Batch { deletions, ..Batch::default() }).expect("send");
                }
                Operation::Flush { durable } => {
                    writer.flush(durable).expect("flush");
                    compare(&model, &catalog.reader().expect("reader"));
                }
                Operation::Reopen => {
                    writer.finish().expect("finish");
                    catalog = open_catalog(scratch.path()).expect("open");
                    writer = catalog.writer().expect("writer");
                }
            }
        }
        writer.finish().expect("finish");
        let catalog = open_catalog(scratch.path()).expect("open");
        catalog.check().expect("check");
        compare(&model, &catalog.reader().expect("reader"));
    }
}

#[test]
fn extreme_values_of_every_field_come_back_unchanged() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let far = |seconds| Time { seconds, nanoseconds: 999_999_999 };
    let extreme = |dev: u64, n: u64, time: Time, small: u32| Facts {
        kind: Kind::BlockDevice,
        child: None,
        source: Fingerprint { dev, ino: n, size: n, mtime: time, ctime: time },
        nlink: small,
        mode: small & 0o7777,
        uid: small,
        gid: small,
        rdev: n,
        published: Some(Published { ino: n, mtime: time, ctime: time }),
        digest: Some(ContentDigest { kind: u8::MAX, bytes: [0; 32] }),
        xattr_digest: Some([0xff; 32]),
        proof: Proof::Assumed,
        lost: small > 1,
    };
    let rows: Vec<Row> = [
        extreme(u64::MAX, u64::MAX, far(i64::MAX), u32::MAX),
        extreme(0, 0, far(i64::MIN), 0),
        extreme(SOURCE_DEV, 1 << 63, far(9_223_372_036), 1),
        // The last and first nanoseconds that fit 64 bits, and a file system's nonsense.
        extreme(SOURCE_DEV, 1, Time { seconds: 9_223_372_036, nanoseconds: 854_775_807 }, 1),
        extreme(SOURCE_DEV, 1, Time { seconds: -9_223_372_037, nanoseconds: 145_224_192 }, 1),
        extreme(SOURCE_DEV, 1, Time { seconds: -1, nanoseconds: 1 }, 1),
        extreme(SOURCE_DEV, 1, Time { seconds: 5, nanoseconds: u32::MAX }, 1),
        Facts::new(Kind::Fifo),
        Facts { kind: Kind::Symlink, ..Facts::new(Kind::Symlink) },
    ]
    .into_iter()
    .zip(0_u8..)
    .map(|(facts, n)| {
        let target = (facts.kind == Kind::Symlink).then(|| vec![0xfe; 4095]);
        Row { directory: ROOT_DIRECTORY, name: vec![n + 1; 255], facts, target }
    })
    .collect();
    write_rows(&mut catalog, rows.clone());
    let mut found = DirectoryRows::default();
    catalog.reader().expect("reader").directory(ROOT_DIRECTORY, &mut found).expect("directory");
    assert_eq!(found.iter().map(|row| row.to_owned()).collect::<Vec<_>>(), rows);
}

#[test]
fn a_name_may_hold_every_byte_that_the_kernel_allows() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let mut names: Vec<Vec<u8>> = (1..=255_u8).filter(|byte| *byte != b'/').map(|byte| vec![byte]).collect();
    names.extend((1..=255_u8).filter(|byte| *byte != b'/').map(|byte| vec![b'x', byte, b'\'']));
    let mut rows: Vec<Row> = names.iter().zip(0..).map(|(name, n)| file(ROOT_DIRECTORY, name, n)).collect();
    rows.push(root());
    write_rows(&mut catalog, rows);
    names.sort_unstable();
    let reader = catalog.reader().expect("reader");
    let walked: Vec<Vec<u8>> = walk(&reader).expect("walk").into_iter().skip(1).map(|(path, _)| path).collect();
    assert_eq!(walked, names);
    for name in &names {
        assert_eq!(reader.get(ROOT_DIRECTORY, name).expect("get").map(|row| row.name).as_ref(), Some(name));
    }
}

#[test]
fn five_thousand_levels_are_walked_without_recursion() {
    const LEVELS: u64 = 5000;
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let mut rows = vec![root()];
    for level in 1..=LEVELS {
        rows.push(directory(level, b"d", level + 1));
        // Siblings on both sides of the directory's own subtree in the order of paths.
        rows.push(file(level, b"d-", level));
        rows.push(file(level, b"e", level));
    }
    write_rows(&mut catalog, rows);
    let mut before = Vec::new();
    let mut count = 0;
    let reader = catalog.reader().expect("reader");
    let work = |path: &[u8], _: RowRef<'_>| {
        assert!(count == 0 || before.as_slice() < path, "the order broke at entry {count}");
        before.clear();
        before.extend_from_slice(path);
        count += 1;
        Ok(())
    };
    let mut work = work;
    std::thread::scope(|scope| {
        // A recursion of this depth would not fit.
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let walk = small.spawn_scoped(scope, move || reader.for_each_sorted_by_path(&mut work)).expect("thread");
        walk.join().expect("join").expect("walk");
    });
    assert_eq!(count, LEVELS * 3 + 1);
}

#[test]
fn a_row_whose_directory_lies_below_itself_ends_the_walk_with_an_error() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    write_rows(&mut catalog, vec![root(), directory(1, b"a", 2), directory(2, b"b", 2)]);
    let reader = catalog.reader().expect("reader");
    let error = reader.for_each_sorted_by_path(&mut |_, _| Ok(())).expect_err("a circle");
    assert!(matches!(error, crate::error::Error::State { .. }), "{error}");
}

#[test]
fn an_error_of_the_visitor_ends_the_walk_and_the_reader_goes_on() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    write_rows(&mut catalog, vec![root(), file(1, b"a", 1), file(1, b"b", 2)]);
    let reader = catalog.reader().expect("reader");
    let mut seen = 0;
    let stopped = reader.for_each_sorted_by_path(&mut |_, _| {
        seen += 1;
        if seen == 2 { Err(crate::error::Error::Timeout { what: "seven".into() }) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(crate::error::Error::Timeout { .. })));
    assert_eq!((seen, walk(&reader).expect("walk").len()), (2, 3));
}

#[test]
fn directory_ids_go_on_above_every_id_that_was_committed() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    assert_eq!((catalog.next_directory_id(), catalog.next_directory_id()), (2, 3));
    write_rows(&mut catalog, vec![root(), directory(1, b"a", 3)]);
    let mut catalog = open_catalog(scratch.path()).expect("open");
    assert_eq!(catalog.next_directory_id(), 4);
    let writer = catalog.writer().expect("writer");
    let gone = Deletion { directory: 1, name: b"a".to_vec() };
    writer.send(Batch { deletions: vec![gone], ..Batch::default() }).expect("send");
    writer.finish().expect("finish");
    assert_eq!(
        open_catalog(scratch.path()).expect("open").next_directory_id(),
        4,
        "an id of a deleted row is not used again"
    );
}

#[test]
fn rows_stay_equal_when_a_remount_gives_the_source_another_device_number() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let mut inside = file(1, b"inside", 1);
    inside.facts.nlink = 2;
    let mut subvolume = inside.clone();
    subvolume.name = b"subvolume".to_vec();
    subvolume.facts.source.dev = SOURCE_DEV + 5;
    write_rows(&mut catalog, vec![root(), inside, subvolume]);
    let remounted = Catalog::open(&scratch.path().join(FILE), SOURCE_DEV + 5, super::super::catalog::Owner::default())
        .expect("open");
    let reader = remounted.reader().expect("reader");
    let dev = |name: &[u8]| reader.get(1, name).expect("get").map(|row| row.facts.source.dev);
    assert_eq!(dev(b"inside"), Some(SOURCE_DEV + 5));
    assert_eq!(dev(b"subvolume"), Some(SOURCE_DEV + 10), "never taken for the root's own device");
    assert_eq!(reader.shared_link_groups().expect("groups").len(), 0, "two groups of one name each");
}

#[test]
fn digests_hold_until_a_row_changes_and_no_longer() {
    let scratch = tempfile::tempdir().expect("scratch");
    let digests = Digests { share: [1; 32], metadata: [2; 32] };
    let mut catalog = new_catalog(scratch.path());
    assert_eq!(catalog.digests().expect("digests"), None);
    let writer = catalog.writer().expect("writer");
    writer.send(rows_batch(vec![root()])).expect("send");
    writer.set_digests(digests).expect("digests");
    writer.finish().expect("finish");

    let mut catalog = open_catalog(scratch.path()).expect("open");
    assert_eq!(catalog.digests().expect("digests"), Some(digests));
    let writer = catalog.writer().expect("writer");
    writer.forget_failures().expect("forget");
    writer.send(Batch::default()).expect("send");
    writer.flush(true).expect("flush");
    assert_eq!(catalog.digests().expect("digests"), Some(digests), "a pass that changed nothing keeps them");
    writer.send(rows_batch(vec![file(1, b"new", 1)])).expect("send");
    writer.flush(false).expect("flush");
    assert_eq!(catalog.digests().expect("digests"), None);
    writer.set_digests(digests).expect("digests");
    let gone = Deletion { directory: 1, name: b"new".to_vec() };
    writer.send(Batch { deletions: vec![gone], ..Batch::default() }).expect("send");
    writer.finish().expect("finish");
    assert_eq!(catalog.digests().expect("digests"), None);
}

#[test]
fn failures_and_the_tree_show_in_the_views_of_the_sqlite3_shell() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    let failed = crate::error::EntryError::io(
        crate::error::Side::Source,
        "open",
        b"a/\xffb".to_vec(),
        std::io::Error::from_raw_os_error(libc::EACCES),
    );
    let hot = crate::error::EntryError {
        class: crate::error::Class::Hot,
        side: crate::error::Side::Source,
        operation: "read",
        path: b"log".to_vec(),
        source: None,
    };
    let failures = vec![Failure::from(&failed), Failure::from(&hot), Failure::from(&hot)];
    let rows = vec![root(), directory(1, b"a", 2), file(2, b"c", 7)];
    writer.send(Batch { rows, failures, ..Batch::default() }).expect("send");
    writer.flush(false).expect("flush");
    let ask = |sql: &str| {
        let answer = Command::new("sqlite3").arg("-readonly").arg(catalog.path()).arg(sql).output().expect("sqlite3");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        answer.stdout
    };
    let expected = b"a/\xffb|source|permission|open|Permission denied (os error 13)\n";
    assert_eq!(ask("SELECT path, side, class, operation, error FROM failed"), expected);
    assert_eq!(ask("SELECT path, operation FROM hot"), b"log|read\n");
    assert_eq!(ask("SELECT path, size, mode, state FROM tree ORDER BY path"), b"a|74|644|proved\na/c|259|644|proved\n");
    writer.forget_failures().expect("forget");
    writer.flush(false).expect("flush");
    assert_eq!(ask("SELECT count(*) FROM failed UNION ALL SELECT count(*) FROM hot"), b"0\n0\n");
}

#[test]
fn a_snapshot_shows_one_state_until_it_is_dropped() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    let reader = catalog.reader().expect("reader");
    writer.send(rows_batch(vec![root(), file(1, b"a", 1)])).expect("send");
    writer.flush(false).expect("flush");
    let held = reader.snapshot().expect("snapshot");
    assert_eq!(walk(&reader).expect("walk").len(), 2);
    writer.send(rows_batch(vec![file(1, b"b", 2)])).expect("send");
    writer.flush(true).expect("a reader never stops the writer");
    assert_eq!(walk(&reader).expect("walk").len(), 2);
    assert!(reader.get(1, b"b").expect("get").is_none());
    drop(held);
    assert_eq!(walk(&reader).expect("walk").len(), 3);
}

#[test]
fn an_error_of_the_writer_reaches_every_later_call() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    let writer = catalog.writer().expect("writer");
    writer.flush(false).expect("flush");
    let other = rusqlite::Connection::open(catalog.path()).expect("other");
    other.execute_batch("DROP TABLE failure; DROP TABLE entry").expect("drop");
    // The send may still be taken; the flush behind it has to know.
    let sent = writer.send(rows_batch(vec![root()]));
    assert!(sent.is_ok());
    for attempt in 0..3 {
        let error = writer.flush(false).expect_err("the table has gone");
        assert!(error.to_string().contains(FILE), "{attempt}: {error}");
        assert!(writer.send(rows_batch(vec![root()])).is_err());
    }
    assert!(matches!(writer.finish(), Err(crate::error::Error::State { .. })));
}

#[test]
fn every_column_is_read_where_it_was_written() {
    assert_eq!(COLUMNS.split(',').count(), COLUMN_COUNT);
}
