//! The manifest's part of [`crate::fuzzing`].

use super::Item;
use super::line;

/// Lines as they come: what begins with a brace is read as an entry, all else as a sum.
pub(crate) fn lines(data: &[u8]) {
    for text in data.split_inclusive(|byte| *byte == b'\n') {
        let read = if text.starts_with(b"{") { Item::of_entry(text) } else { Item::of_sum(text) };
        match read {
            Err(reason) => drop(reason.to_string()),
            Ok(Item::Entry(entry)) => {
                assert!(line::check_path(&entry.path).is_ok(), "{:?} stays in its root", entry.path);
                let written = serde_json::to_vec(&entry).expect("what was read can be written");
                let again = Item::of_entry(&written).expect("what was written can be read");
                assert_eq!(again, Item::Entry(entry));
            }
            Ok(Item::Sum { path, digest }) => {
                assert!(line::check_path(&path).is_ok(), "{path:?} stays in its root");
                let mut written = Vec::new();
                if line::write(&path, &digest, &mut written) {
                    let again = Item::of_sum(&written).expect("what was written can be read");
                    assert_eq!(again, Item::Sum { path, digest });
                }
            }
        }
    }
}
