//! Large files that are under way: which chunks of them are durable in which temporary.
//!
//! The rows say what a source's chunk hashes to and where its copy lies. A run that resumes hashes the
//! copy again before it takes it, so what has to be believed is only that the values are those of this
//! very source: hence each row's check sum covers the source's fingerprint. A row that is not as it was
//! written costs the copy of a chunk, and nothing else.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row as SqlRow, Statement, params};

use super::row::{DirectoryId, Fingerprint};
use crate::sys::Time;

/// Version of the records that this copyd writes, and the only one that it reads.
const VERSION: i64 = 1;

/// A temporary that grows, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growing {
    /// The temporary's inode number.
    pub ino: u64,
    /// The temporary's name in the staging directory.
    pub temporary: Vec<u8>,
    /// Where the entry belongs; for who reads the table, because a directory that has no row of its own
    /// yet gets another id in the next run.
    pub directory: DirectoryId,
    pub name: Vec<u8>,
    /// The source when its copy began.
    pub source: Fingerprint,
}

/// A chunk whose bytes are durable in the temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrownChunk {
    /// The temporary's inode number.
    pub ino: u64,
    pub source: Fingerprint,
    /// Counted from 0.
    pub index: u64,
    /// What [`ChunkSum::value`](crate::hash::ChunkSum::value) says of the source's bytes.
    pub value: [u8; 32],
}

/// What an earlier run has left of a large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    pub growing: Growing,
    /// The values of its durable chunks, by index.
    pub chunks: BTreeMap<u64, [u8; 32]>,
}

/// The columns of a fingerprint, the device counted from the root's.
fn columns(source: &Fingerprint, root_dev: u64) -> [i64; 7] {
    [
        source.dev.wrapping_sub(root_dev).cast_signed(),
        source.ino.cast_signed(),
        source.size.cast_signed(),
        source.mtime.seconds,
        i64::from(source.mtime.nanoseconds),
        source.ctime.seconds,
        i64::from(source.ctime.nanoseconds),
    ]
}

pub(super) fn sum(source: &[i64; 7], chunk: Option<(u64, &[u8])>) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for number in source {
        hasher.update(&number.to_le_bytes());
    }
    if let Some((index, value)) = chunk {
        hasher.update(&index.to_le_bytes()).update(value);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(first)
}

/// The writer's statements for these rows.
pub(super) struct Statements<'c> {
    announce: Statement<'c>,
    chunk: Statement<'c>,
    forget: Statement<'c>,
    forget_chunks: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            announce: connection.prepare("INSERT INTO growing VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?,
            chunk: connection.prepare("REPLACE INTO chunk VALUES (?, ?, ?, ?)")?,
            forget: connection.prepare("DELETE FROM growing WHERE dst_ino = ?")?,
            forget_chunks: connection.prepare("DELETE FROM chunk WHERE dst_ino = ?")?,
        })
    }

    /// A temporary that has no durable chunk yet. What an earlier one of this inode number had goes.
    pub fn announce(&mut self, growing: &Growing, root_dev: u64) -> rusqlite::Result<()> {
        self.forget(growing.ino)?;
        let s = columns(&growing.source, root_dev);
        let (ino, directory) = (growing.ino.cast_signed(), growing.directory.cast_signed());
        let g = growing;
        self.announce.execute(params![
            ino,
            VERSION,
            g.temporary,
            directory,
            g.name,
            s[0],
            s[1],
            s[2],
            s[3],
            s[4],
            s[5],
            s[6],
            sum(&s, None)
        ])?;
        Ok(())
    }

    pub fn chunk(&mut self, chunk: &GrownChunk, root_dev: u64) -> rusqlite::Result<()> {
        let sum = sum(&columns(&chunk.source, root_dev), Some((chunk.index, &chunk.value)));
        self.chunk.execute(params![chunk.ino.cast_signed(), chunk.index.cast_signed(), chunk.value, sum])?;
        Ok(())
    }

    pub fn forget(&mut self, ino: u64) -> rusqlite::Result<()> {
        self.forget.execute([ino.cast_signed()])?;
        self.forget_chunks.execute([ino.cast_signed()])?;
        Ok(())
    }
}

/// Every temporary with its chunks; rows that are not as they were written are left out.
pub(super) fn read(connection: &Connection, root_dev: u64) -> rusqlite::Result<Vec<Grown>> {
    let mut growing = connection.prepare(
        "SELECT dst_ino, temporary, dir, name, src_dev, src_ino, size, src_mtime_s, src_mtime_ns, \
         src_ctime_s, src_ctime_ns, sum FROM growing WHERE version = ?",
    )?;
    let mut chunks = connection.prepare("SELECT chunk, value, sum FROM chunk WHERE dst_ino = ? ORDER BY chunk")?;
    let mut found = Vec::new();
    let mut rows = growing.query([VERSION])?;
    while let Some(row) = rows.next()? {
        let Some((growing, source)) = growing_of(row, root_dev)? else { continue };
        let mut grown = Grown { growing, chunks: BTreeMap::new() };
        let mut rows = chunks.query([grown.growing.ino.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let (index, value) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get_ref(1)?.as_blob()?);
            if let Ok(bytes) = <[u8; 32]>::try_from(value)
                && row.get::<_, i64>(2)? == sum(&source, Some((index, value)))
            {
                grown.chunks.insert(index, bytes);
            }
        }
        found.push(grown);
    }
    Ok(found)
}

fn growing_of(row: &SqlRow<'_>, root_dev: u64) -> rusqlite::Result<Option<(Growing, [i64; 7])>> {
    let mut source = [0; 7];
    for (i, column) in source.iter_mut().enumerate() {
        *column = row.get::<_, i64>(4 + i)?;
    }
    let time = |seconds, nanoseconds: i64| Some(Time { seconds, nanoseconds: u32::try_from(nanoseconds).ok()? });
    let (Some(mtime), Some(ctime)) = (time(source[3], source[4]), time(source[5], source[6])) else {
        return Ok(None);
    };
    if row.get::<_, i64>(11)? != sum(&source, None) {
        return Ok(None);
    }
    let fingerprint = Fingerprint {
        dev: source[0].cast_unsigned().wrapping_add(root_dev),
        ino: source[1].cast_unsigned(),
        size: source[2].cast_unsigned(),
        mtime,
        ctime,
    };
    let growing = Growing {
        ino: row.get::<_, i64>(0)?.cast_unsigned(),
        temporary: row.get(1)?,
        directory: row.get::<_, i64>(2)?.cast_unsigned(),
        name: row.get(3)?,
        source: fingerprint,
    };
    Ok(Some((growing, source)))
}
