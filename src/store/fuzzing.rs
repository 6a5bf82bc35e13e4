//! The state directory's part of [`crate::fuzzing`].
//!
//! Check sums keep chance damage from the decoders, and would keep a fuzzer from them too: so rows
//! come to the decoder as they are, and a record of a large file gets its right sum where it asks.

use std::cell::OnceCell;

use rusqlite::Connection;

use super::catalog::SCHEMA;
use super::growing;
use super::identity;
use super::row::{self, CELLS, STRINGS, Strings};

/// Takes values from the front of an input; what is not there any more is zero or empty.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> i64 {
        let mut word = [0; 8];
        let given = self.bytes(8);
        word[..given.len()].copy_from_slice(given);
        i64::from_le_bytes(word)
    }

    /// A string with its length before it; an odd one is null.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.byte();
        let bytes = self.bytes(usize::from(length / 2));
        length.is_multiple_of(2).then_some(bytes)
    }
}

/// A row of a catalog: thirteen numbers, some of them null, then its strings.
pub(crate) fn row(data: &[u8]) {
    let mut source = Source(data);
    let cells: [Option<i64>; CELLS] = std::array::from_fn(|_| {
        let (tag, number) = (source.byte(), source.number());
        (tag != 0).then_some(if tag < 128 { i64::from(tag) + number % 16 } else { number })
    });
    let name = source.string().unwrap_or_default();
    let beside: [Option<&[u8]>; STRINGS] = std::array::from_fn(|_| source.string());
    let [digest, target, xattr_digest, extra] = beside;
    let strings = Strings { name, digest, target, xattr_digest, extra };
    let sum = row::check(1, &cells, &strings);
    assert_ne!(sum, row::check(2, &cells, &strings), "a row belongs to one directory");
    let Some(facts) = row::decode(&cells, &strings, 7) else { return };
    let (written, extra) = row::encode(&facts, 7);
    let again = Strings { extra: extra.bytes(), ..strings };
    assert_eq!(row::decode(&written, &again, 7), Some(facts), "a row that was written is the row that is read");
}

thread_local! {
    /// A catalog in memory, emptied before each input.
    static CATALOG: OnceCell<Connection> = const { OnceCell::new() };
}

/// A record of a large file with its chunks.
pub(crate) fn growing(data: &[u8]) {
    CATALOG.with(|cell| {
        let connection = cell.get_or_init(|| {
            let connection = Connection::open_in_memory().expect("memory takes a database");
            for upgrade in SCHEMA.upgrades {
                connection.execute_batch(upgrade.sql).expect("the schema is well");
            }
            connection
        });
        let mut source = Source(data);
        fill(connection, &mut source).expect("the tables take any value");
        for grown in growing::read(connection, 7).unwrap_or_default() {
            assert!(grown.chunks.len() <= 3, "there are no more chunks than were written");
        }
    });
}

fn fill(connection: &Connection, source: &mut Source<'_>) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM growing; DELETE FROM chunk")?;
    let honest = source.byte().is_multiple_of(2);
    let (ino, directory) = (source.number(), source.number());
    let (temporary, name) = (source.string().unwrap_or_default(), source.string().unwrap_or_default());
    let s: [i64; 7] = std::array::from_fn(|_| source.number());
    let sum = |chunk, given| if honest { growing::sum(&s, chunk) } else { given };
    connection.prepare_cached("INSERT INTO growing VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
        rusqlite::params![ino, temporary, directory, name, s[0], s[1], s[2], s[3], s[4], s[5], s[6], sum(None, 1)],
    )?;
    for _ in 0..source.byte() % 4 {
        let (index, value) = (source.number(), source.string().unwrap_or_default());
        let sum = sum(Some((index.cast_unsigned(), value)), source.number());
        connection
            .prepare_cached("REPLACE INTO chunk VALUES (?, ?, ?, ?)")?
            .execute(rusqlite::params![ino, index, value, sum])?;
    }
    Ok(())
}

/// The kernel's list of mounts, then its list of NFS volumes.
pub(crate) fn mounts(data: &[u8]) {
    let mut source = Source(data);
    let (mount, dev) = (source.byte(), u64::from(source.byte()));
    let middle = source.0.windows(2).position(|pair| pair == b"\n\n").unwrap_or(source.0.len());
    let (mounts, volumes) = source.0.split_at(middle);
    let found = identity::from_mount(mounts, volumes, u64::from(mount), dev);
    assert_eq!(found, identity::from_mount(mounts, volumes, u64::from(mount), dev));
}
