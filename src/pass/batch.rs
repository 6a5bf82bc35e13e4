//! Batches: one flush of the file system makes a thousand files durable.
//!
//! ```text
//!  copied ──▶ open batch ──full──▶ flush ──▶ read back, rename ──▶ renamed ──next flush──▶ catalog
//! ```
//! A flush makes the data of its batch durable and, with it, the renames of the batch before; only
//! then do those go to the catalog as done. An error of a flush spoils everything that it covered:
//! the kernel marks the pages clean, so asking again would prove nothing. The temporaries are thrown
//! away and the files copied again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::error::{Error, Side};
use crate::limits;
use crate::store::{Batch, Row, RowRef};
use crate::sys::{self, Kind};
use crate::tree::node::lock;

use super::digests;
use super::directory::Directory;
use super::publish::Staged;
use super::records::{self, Records};
use super::state::{Run, Task, lane};

/// How a file system makes things durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// There is nothing past memory: tmpfs.
    Memory,
    /// `syncfs` reaches stable storage, and reports what failed since the descriptor was opened.
    FileSystem,
    /// `syncfs` may not reach the server: every file and every directory is flushed by itself.
    EachFile,
}

/// Cores that this process may use. Asked before it is confined: a group's share of them is told by a file.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

impl Durability {
    /// Data threads, unless so many were asked for: one a core where nothing waits, more where flushes and
    /// reads do.
    #[must_use]
    pub fn workers(self, asked: Option<usize>, cores: usize) -> usize {
        asked.unwrap_or(match self {
            Self::Memory => cores,
            Self::FileSystem => cores * limits::DISK_THREADS_PER_CORE,
            Self::EachFile => cores * limits::SERVER_THREADS_PER_CORE,
        })
    }
}

/// A row that waits for the flush which makes its rename durable.
#[derive(Debug)]
pub struct Renamed {
    pub row: Row,
    /// The directory that holds the entry, to be flushed where each is flushed by itself.
    pub node: Option<Arc<Directory>>,
}

#[derive(Debug, Default)]
struct Open {
    staged: Vec<Box<Staged>>,
    bytes: u64,
    since: Option<Instant>,
}

/// The open batch, and what waits for the next flush.
#[derive(Debug)]
pub struct Batches {
    pub durability: Durability,
    open: Mutex<Open>,
    renamed: Mutex<Vec<Renamed>>,
    /// One flush at a time, on one descriptor that was opened before the first write: so each
    /// reports every error since the one before.
    flush: Mutex<Arc<OwnedFd>>,
}

impl Batches {
    #[must_use]
    pub fn new(durability: Durability, root: Arc<OwnedFd>) -> Self {
        Self { durability, open: Mutex::default(), renamed: Mutex::default(), flush: Mutex::new(root) }
    }

    /// Adds a copied file; gives the batch out when it is full.
    fn add(&self, staged: Box<Staged>) -> Option<Vec<Box<Staged>>> {
        let mut open = lock(&self.open);
        open.bytes += staged.item.stat.size;
        open.staged.push(staged);
        let since = *open.since.get_or_insert_with(Instant::now);
        let full = open.staged.len() >= limits::BATCH_FILES
            || open.bytes >= limits::BATCH_BYTES
            || since.elapsed() >= limits::BATCH_AGE;
        full.then(|| std::mem::take(&mut *open).staged)
    }

    fn take(&self) -> Option<Vec<Box<Staged>>> {
        let open = std::mem::take(&mut *lock(&self.open));
        (!open.staged.is_empty()).then_some(open.staged)
    }
}

impl Run<'_> {
    /// A file is whole in its temporary: it joins the open batch, or is published at once where
    /// nothing has to be flushed.
    pub fn stage(&self, staged: Box<Staged>) {
        if let Some(batch) = self.batches.add(staged) {
            self.commit(batch);
        }
    }

    /// Commits the open batch; whether there was one.
    pub fn commit_open(&self) -> bool {
        self.batches.take().map(|batch| self.commit(batch)).is_some()
    }

    fn commit(&self, mut batch: Vec<Box<Staged>>) {
        if self.flush_and_record() {
            while !batch.is_empty() {
                let rest = batch.split_off(batch.len().min(limits::PUBLISH_FILES));
                self.queue.push(lane::PUBLISH, Task::Publish(std::mem::replace(&mut batch, rest)));
            }
        } else {
            for staged in batch {
                staged.temporary.discard();
                self.retry(staged.item, "flush");
            }
        }
    }

    /// One flush; then everything renamed before it is done, and goes to the catalog. False when
    /// the flush failed, so that nothing it covered can be believed.
    pub fn flush_and_record(&self) -> bool {
        let descriptor = lock(&self.batches.flush);
        let renamed = std::mem::take(&mut *lock(&self.batches.renamed));
        let flushed = match self.batches.durability {
            Durability::Memory => Ok(()),
            Durability::FileSystem => sys::sync_file_system(&**descriptor),
            Durability::EachFile => flush_directories(&renamed),
        };
        drop(descriptor);
        match flushed {
            Ok(()) => {
                self.record(renamed);
                true
            }
            Err(e) => {
                // Their content was durable before, but their names are in doubt: they stay out of
                // the catalog, so the next run looks at them again.
                self.flush_failed(e, renamed.len());
                false
            }
        }
    }

    fn record(&self, renamed: Vec<Renamed>) {
        if renamed.is_empty() {
            return;
        }
        if let Some(records) = self.records
            && let Err(e) = keep_records(records, &renamed)
        {
            self.end(e);
        }
        let rows = renamed.into_iter().map(|renamed| renamed.row).collect();
        if let Err(e) = self.writer.send(Batch { rows, ..Batch::default() }) {
            self.end(e);
        }
    }

    fn flush_failed(&self, error: std::io::Error, names: usize) {
        tracing::error!(%error, names, "flush of the destination failed");
        if self.flush_failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= limits::FLUSH_FAILURES {
            self.end(Error::Root {
                side: Side::Destination,
                path: self.options.destination.clone(),
                what: "it fails to write back what it accepted",
                remedy: "check the disk or server (dmesg), then run the same command again",
                source: Some(error),
            });
        }
    }

    /// A row whose rename is done and waits for the next flush.
    pub fn renamed(&self, row: Row, node: Option<Arc<Directory>>) {
        let mut renamed = lock(&self.batches.renamed);
        renamed.push(Renamed { row, node });
        if self.batches.durability == Durability::Memory && renamed.len() >= limits::BATCH_FILES {
            let rows = std::mem::take(&mut *renamed);
            drop(renamed);
            self.record(rows);
        }
    }
}

impl Run<'_> {
    /// Keeps what the digests need of entries whose rows stand in the catalog as they are.
    pub fn keep_unchanged(&self, batch: &mut records::Batch) {
        if let Some(records) = self.records
            && let Err(e) = records.add(batch)
        {
            self.end(e);
        }
    }

    /// Adds to the batch the entry at `directory` / `name`.
    pub fn push_unchanged(&self, batch: &mut records::Batch, directory: &[u8], row: &RowRef<'_>) {
        let Some(records) = self.records else { return };
        let record = digests::record(row);
        if let Some(inode) = record.inode {
            records.name(inode);
        }
        batch.push(directory, row.name, &record);
    }
}

/// Keeps what the digests need of each entry. A row without a directory is that of an entry that was
/// recorded before.
fn keep_records(records: &Records, renamed: &[Renamed]) -> Result<(), Error> {
    let mut batch = records::Batch::default();
    let mut last: Option<(*const Directory, Vec<u8>)> = None;
    for Renamed { row, node } in renamed {
        let Some(node) = node else { continue };
        // A directory's row names itself; everything else stands in its directory.
        let own = row.facts.kind == Kind::Directory;
        let directory = if own { node.parent().unwrap_or(node) } else { node };
        if last.as_ref().is_none_or(|(at, _)| *at != Arc::as_ptr(directory)) {
            last = Some((Arc::as_ptr(directory), directory.path()));
        }
        let path = last.as_ref().map_or(&[][..], |(_, path)| path);
        let record = digests::record(&row.borrow());
        if let Some(inode) = record.inode {
            records.name(inode);
        }
        batch.push(path, &row.name, &record);
    }
    records.add(&mut batch)
}

/// `fsync` of each directory in which something was renamed.
fn flush_directories(renamed: &[Renamed]) -> std::io::Result<()> {
    let mut directories: HashMap<*const Directory, &Arc<Directory>> = HashMap::new();
    for node in renamed.iter().filter_map(|r| r.node.as_ref()) {
        // A directory's own name stands in its parent.
        for directory in [Some(node), node.parent()].into_iter().flatten() {
            directories.insert(Arc::as_ptr(directory), directory);
        }
    }
    for node in directories.into_values() {
        rustix::fs::fsync(&*node.open(Side::Destination)?)?;
    }
    Ok(())
}
