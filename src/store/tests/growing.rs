//! Large files under way: what is written is found again, what was altered is not, and a catalog of the
//! first schema gets the tables.

use super::*;
use crate::limits;
use crate::store::database::{self, Schema};

fn growing(n: u64) -> Growing {
    let source = Fingerprint { size: limits::CHUNK_BYTES * 9, ..file(2, b"large", n).facts.source };
    Growing {
        ino: 5000 + n,
        temporary: format!("{n:016x}").into_bytes(),
        directory: 2,
        name: b"large".to_vec(),
        source,
    }
}

fn chunk(of: &Growing, index: u64) -> GrownChunk {
    let value = *blake3::hash(&[of.ino.to_le_bytes(), index.to_le_bytes()].concat()).as_bytes();
    GrownChunk { ino: of.ino, source: of.source, index, value }
}

fn journal(catalog: &mut Catalog, files: &[Growing], chunks: u64) {
    let grown = files.iter().flat_map(|growing| (0..chunks).map(move |index| chunk(growing, index))).collect();
    let writer = catalog.writer().expect("writer");
    writer.send(Batch { growing: files.to_vec(), grown, ..Batch::default() }).expect("send");
    writer.finish().expect("finish");
}

fn counts(catalog: &Catalog) -> Vec<(u64, usize)> {
    let grown = catalog.grown().expect("read");
    grown.iter().map(|grown| (grown.growing.ino, grown.chunks.len())).collect()
}

#[test]
fn what_is_durable_of_a_large_file_is_found_again_under_another_device_number() {
    let scratch = tempfile::tempdir().expect("scratch");
    let files = [growing(1), growing(2)];
    journal(&mut new_catalog(scratch.path()), &files, 3);
    let moved = Catalog::open(&scratch.path().join(FILE), SOURCE_DEV + 7, super::super::catalog::Owner::default())
        .expect("open");
    let found = moved.grown().expect("read");
    assert_eq!(found.len(), 2);
    for (found, of) in found.iter().zip(&files) {
        let source = Fingerprint { dev: of.source.dev + 7, ..of.source };
        assert_eq!(found.growing, Growing { source, ..of.clone() });
        let expected: Vec<_> = (0..3).map(|index| (index, chunk(of, index).value)).collect();
        assert_eq!(found.chunks.clone().into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_journal_of_a_file_goes_with_its_row_with_its_temporary_and_with_the_next_of_its_inode() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut catalog = new_catalog(scratch.path());
    journal(&mut catalog, &[growing(1), growing(2), growing(3)], 4);
    let mut published = file(2, b"large", 1);
    published.facts.source.size = limits::CHUNK_BYTES + 1;
    let writer = catalog.writer().expect("writer");
    // Another name of a small file is no reason to look.
    writer
        .send(Batch { rows: vec![published, file(2, b"small", 3)], withered: vec![5002], ..Batch::default() })
        .expect("send");
    writer.flush(false).expect("flush");
    assert_eq!(counts(&catalog), [(5003, 4)]);
    writer.send(Batch { growing: vec![growing(3)], ..Batch::default() }).expect("send");
    writer.finish().expect("finish");
    assert_eq!(counts(&catalog), [(5003, 0)]);
}

#[test]
fn an_altered_record_of_a_large_file_is_as_good_as_none() {
    let edits: [(&str, &[(u64, usize)]); 7] = [
        ("UPDATE growing SET size = size + 1", &[]),
        ("UPDATE growing SET src_ctime_ns = -1", &[]),
        ("UPDATE growing SET version = 9", &[]),
        ("UPDATE chunk SET value = zeroblob(32) WHERE chunk = 1", &[(5001, 2)]),
        ("UPDATE chunk SET value = zeroblob(31) WHERE chunk = 1", &[(5001, 2)]),
        ("UPDATE chunk SET chunk = 7 WHERE chunk = 1", &[(5001, 2)]),
        ("UPDATE chunk SET dst_ino = 1", &[(5001, 0)]),
    ];
    for (edit, left) in edits {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut catalog = new_catalog(scratch.path());
        journal(&mut catalog, &[growing(1)], 3);
        let hand = rusqlite::Connection::open(catalog.path()).expect("open");
        assert!(hand.execute(edit, []).expect("edit") > 0, "{edit}");
        assert_eq!(counts(&catalog), left, "{edit}");
    }
}

#[test]
fn a_catalog_of_the_first_schema_is_brought_up_to_date_with_its_rows() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join(FILE);
    let first = Schema { application: SCHEMA.application, upgrades: &SCHEMA.upgrades[..1] };
    database::create(&path, &first).expect("create");
    let hand = rusqlite::Connection::open(&path).expect("open");
    hand.execute_batch("UPDATE meta SET value = 77 WHERE key = 'next_directory'").expect("edit");
    drop(hand);
    let mut catalog = open_catalog(scratch.path()).expect("open");
    assert_eq!(catalog.next_directory_id(), 77);
    write_rows(&mut catalog, vec![root()]);
    journal(&mut catalog, &[growing(1)], 2);
    let again = open_catalog(scratch.path()).expect("open again");
    again.check().expect("check");
    assert_eq!(counts(&again), [(5001, 2)]);
    assert_eq!(walk(&again.reader().expect("reader")).expect("walk").len(), 1);
}
