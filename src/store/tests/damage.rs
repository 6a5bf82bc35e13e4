//! A file that is not a whole catalog of ours is refused with its name; no row that was altered is
//! ever believed.

use super::*;
use crate::error::Error;

/// A closed catalog of a few pages and what it holds.
fn sample(directory_path: &Path) -> Vec<(Vec<u8>, Row)> {
    let mut catalog = new_catalog(directory_path);
    let mut rows = vec![root()];
    for d in 0..6_u64 {
        rows.push(directory(1, format!("d{d}").as_bytes(), d + 2));
        rows.extend((0..60).map(|n| file(d + 2, format!("file-{n:04}").as_bytes(), d * 60 + n)));
    }
    write_rows(&mut catalog, rows);
    walk(&catalog.reader().expect("reader")).expect("walk")
}

fn refused(directory: &Path, words: &str) {
    let before = std::fs::read(directory.join(FILE)).ok();
    let error = open_catalog(directory).map(|_| ()).expect_err(words);
    let text = error.to_string();
    assert!(matches!(&error, Error::State { path, .. } if path.ends_with(FILE)), "{error:?}");
    assert!(text.contains(words) && text.contains(FILE), "{text}");
    assert_eq!(std::fs::read(directory.join(FILE)).ok(), before, "the refused file was touched");
}

#[test]
fn a_missing_empty_or_truncated_catalog_is_refused_and_left_alone() {
    let scratch = tempfile::tempdir().expect("scratch");
    sample(scratch.path());
    let path = scratch.path().join(FILE);
    let whole = std::fs::read(&path).expect("read");
    for length in [1, 50, 99, 100, 512, 4096, 8192, 8193, whole.len() / 2, whole.len() - 8192] {
        std::fs::write(&path, &whole[..length]).expect("write");
        refused(scratch.path(), "is damaged");
    }
    std::fs::write(&path, b"").expect("write");
    refused(scratch.path(), "is empty");
    std::fs::remove_file(&path).expect("remove");
    refused(scratch.path(), "is missing");
    std::fs::create_dir(&path).expect("mkdir");
    let error = open_catalog(scratch.path()).map(|_| ()).expect_err("a directory");
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_catalog_of_a_newer_copyd_or_of_another_application_is_refused() {
    let scratch = tempfile::tempdir().expect("scratch");
    sample(scratch.path());
    let set = |pragma: &str, value: i32| {
        let connection = rusqlite::Connection::open(scratch.path().join(FILE)).expect("open");
        connection.pragma_update(None, pragma, value).expect("pragma");
    };
    set("user_version", SCHEMA.version() + 1);
    refused(scratch.path(), "newer copyd");
    set("user_version", 0);
    refused(scratch.path(), "is damaged");
    set("user_version", SCHEMA.version());
    set("application_id", 0);
    refused(scratch.path(), "another application");
    set("application_id", SCHEMA.application);
    open_catalog(scratch.path()).expect("whole again");
    std::fs::write(scratch.path().join(FILE), vec![b'x'; 20_000]).expect("write");
    refused(scratch.path(), "no database");
}

#[test]
fn no_flipped_byte_anywhere_in_the_file_changes_a_row_unnoticed() {
    let scratch = tempfile::tempdir().expect("scratch");
    let expected = sample(scratch.path());
    let path = scratch.path().join(FILE);
    let whole = std::fs::read(&path).expect("read");
    let (mut noticed, mut harmless) = (0, 0);
    // A step that shares no factor with the page size meets every kind of place in a page.
    for offset in (0..whole.len()).step_by(131) {
        let mut flipped = whole.clone();
        flipped[offset] ^= 1 << (offset % 8);
        std::fs::write(&path, &flipped).expect("write");
        let _ = std::fs::remove_file(path.with_file_name("catalog.sqlite-wal"));
        let _ = std::fs::remove_file(path.with_file_name("catalog.sqlite-shm"));
        let outcome = open_catalog(scratch.path()).and_then(|catalog| {
            // What a job does with a catalog that was not closed in order.
            catalog.check()?;
            walk(&catalog.reader()?)
        });
        match outcome {
            Ok(found) => {
                assert!(found == expected, "byte {offset} changed a row unnoticed");
                harmless += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::State { .. }), "byte {offset}: {error:?}");
                noticed += 1;
            }
        }
    }
    // Pages that were split are half empty, so many flips hit nothing; a check that slept would
    // notice next to none.
    assert!(noticed > harmless / 2, "{noticed} noticed, {harmless} in unused places");
}

#[test]
fn a_row_that_a_hand_has_edited_is_refused_with_its_directory() {
    let scratch = tempfile::tempdir().expect("scratch");
    sample(scratch.path());
    let edits = [
        "UPDATE entry SET size = size + 1 WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET proof = 0 WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET name = x'7a7a' WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET dst_ino = NULL WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET digest = zeroblob(33) WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET digest = x'01' WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET target = x'' WHERE dir = 2 AND name = x'66696c652d30303037'",
        "UPDATE entry SET mode = 99 WHERE dir = 2 AND name = x'66696c652d30303037'",
    ];
    let path = scratch.path().join(FILE);
    let whole = std::fs::read(&path).expect("read");
    for edit in edits {
        std::fs::write(&path, &whole).expect("write");
        let changed = rusqlite::Connection::open(&path).and_then(|hand| hand.execute(edit, [])).expect("edit");
        assert_eq!(changed, 1);
        let reader = open_catalog(scratch.path()).and_then(|catalog| catalog.reader()).expect("open");
        let error = reader.directory(2, &mut DirectoryRows::default()).expect_err(edit);
        let Error::State { source: Some(source), .. } = &error else { panic!("{edit}: {error:?}") };
        assert!(source.to_string().contains("directory 2"), "{source}");
        reader.directory(3, &mut DirectoryRows::default()).expect("other directories are whole");
    }
}
