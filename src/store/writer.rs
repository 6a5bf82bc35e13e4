//! The one thread that writes a catalog.
//!
//! ```text
//! data threads --batches--> bounded queue --> thread: begin, apply, apply …, commit --> file
//! ```
//!
//! A batch is applied whole or not at all. Batches that wait while one is applied join its
//! transaction, so a slow disk makes transactions larger rather than senders slower. After the first
//! failure nothing more is written, and every call says what it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::types::Null;
use rusqlite::{Connection, Statement, params};

use super::catalog::{Digests, Shared};
use super::fence;
use super::growing::{Growing, GrownChunk, Statements};
use super::row::{self, CELLS, COLUMN_COUNT, COLUMNS, Cells, DirectoryId, Row, STRINGS, Strings};
use crate::error::{EntryError, Error, Side};
use crate::limits;

/// What one data thread has finished. Applied in the order of the fields.
#[derive(Debug, Default)]
pub struct Batch {
    /// Rows of entries that are gone, each with everything below it.
    pub deletions: Vec<Deletion>,
    /// New rows, and rows that take the place of the one with the same directory and name. A
    /// directory must keep its `child`; one that becomes something else is also among `deletions`.
    /// Fastest in the order of (directory, name).
    pub rows: Vec<Row>,
    pub failures: Vec<Failure>,
    /// Inode numbers of temporaries that are no longer there.
    pub withered: Vec<u64>,
    /// Temporaries of large files that begin to have durable chunks.
    pub growing: Vec<Growing>,
    /// Chunks of them. They go by themselves with the row that says the file is published.
    pub grown: Vec<GrownChunk>,
}

/// An entry that is no longer at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub directory: DirectoryId,
    pub name: Vec<u8>,
}

/// A failed entry in the words that an operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Path from the root, bytes.
    pub path: Vec<u8>,
    pub side: Side,
    pub class: &'static str,
    pub operation: &'static str,
    pub error: Option<String>,
    pub remedy: &'static str,
}

impl From<&EntryError> for Failure {
    fn from(error: &EntryError) -> Self {
        Self {
            path: error.path.clone(),
            side: error.side,
            class: error.class.word(),
            operation: error.operation,
            error: error.source.as_ref().map(ToString::to_string),
            remedy: error.class.remedy(),
        }
    }
}

#[derive(Debug)]
enum Message {
    Batch(Batch),
    ForgetFailures,
    /// These paths are no failures any more.
    Settled(Vec<Vec<u8>>),
    Digests(Digests),
    /// Commit what came before, make it durable if asked, then answer.
    Flush {
        durable: bool,
        done: Sender<()>,
    },
}

/// The first failure of the thread, kept so that each caller gets it.
type Broken = Mutex<Option<(&'static str, String)>>;

/// Sends rows to the thread that writes. Shared between data threads by reference.
#[derive(Debug)]
pub struct Writer {
    queue: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    broken: Arc<Broken>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>, connection: Connection) -> Result<Self, Error> {
        let (queue, messages) = bounded(limits::CATALOG_QUEUE_BATCHES);
        let broken = Arc::new(Broken::default());
        let thread = std::thread::Builder::new()
            .name("catalog-writer".into())
            .spawn({
                let (broken, shared) = (Arc::clone(&broken), Arc::clone(&shared));
                move || write_all(&shared, connection, &messages, &broken)
            })
            .map_err(|source| Error::Resources { what: "no thread to write the catalog", source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), broken, shared })
    }

    /// Hands over a batch; waits while the queue is full. Returns before it is written.
    ///
    /// # Errors
    /// The failure of an earlier batch.
    pub fn send(&self, batch: Batch) -> Result<(), Error> {
        self.message(Message::Batch(batch))
    }

    /// Empties the list of failures: a pass that starts reports its own.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn forget_failures(&self) -> Result<(), Error> {
        self.message(Message::ForgetFailures)
    }

    /// Takes paths off the list of failures.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn settle_failures(&self, paths: Vec<Vec<u8>>) -> Result<(), Error> {
        self.message(Message::Settled(paths))
    }

    /// Keeps the digests of a completed pass until the next change of a row.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn set_digests(&self, digests: Digests) -> Result<(), Error> {
        self.message(Message::Digests(digests))
    }

    /// Waits until everything that this thread sent before is committed, and with `durable` until a
    /// power cut can't take it back (one fsync of the write-ahead log).
    ///
    /// # Errors
    /// The failure of this or an earlier write.
    pub fn flush(&self, durable: bool) -> Result<(), Error> {
        let (done, answer) = bounded(1);
        self.message(Message::Flush { durable, done })?;
        if answer.recv().is_ok() {
            return Ok(());
        }
        self.check()?;
        Err(Self::ended())
    }

    /// Commits what was sent, makes it durable, folds the log into the file and ends the thread.
    ///
    /// # Errors
    /// The failure of this or an earlier write.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush(true)?;
        self.join();
        self.check()
    }

    fn message(&self, message: Message) -> Result<(), Error> {
        self.check()?;
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(message).is_ok());
        if sent { Ok(()) } else { Err(Self::ended()) }
    }

    fn ended() -> Error {
        Error::Internal { what: "the catalog's writer has ended".into() }
    }

    fn check(&self) -> Result<(), Error> {
        match &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((what, text)) => {
                let source = (!text.is_empty()).then(|| text.clone().into());
                Err(Error::State { path: self.shared.path.clone(), what, source })
            }
        }
    }

    fn join(&mut self) {
        self.queue = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            self.broken
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(("can't be written", "the writer's thread panicked".into()));
        }
    }
}

impl Drop for Writer {
    /// What was sent is still committed; whoever wants to know whether it worked calls
    /// [`Writer::finish`].
    fn drop(&mut self) {
        self.join();
    }
}

/// Why the thread writes no more.
enum Failed {
    /// The job belongs to a later run.
    Taken,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// The thread: one transaction after another until all senders are gone.
fn write_all(shared: &Shared, connection: Connection, messages: &Receiver<Message>, broken: &Broken) {
    let mut waiting: Option<Sender<()>> = None;
    let mut result = Applier::new(&connection, shared).map_err(Failed::from).and_then(|mut applier| {
        while let Ok(first) = messages.recv() {
            applier.transaction(first, messages, &mut waiting)?;
            // Whoever asked for the flush may have given up: then nobody needs the answer.
            waiting.take().map(|done| done.send(()));
        }
        Ok(())
    });
    if result.is_ok() {
        result = connection.close().map_err(|(_, error)| error.into());
    }
    if let Err(failed) = result {
        let failure = match failed {
            Failed::Taken => (fence::TAKEN, String::new()),
            Failed::Database(error) => match shared.failure(error) {
                Error::State { what, source, .. } => (what, source.map(|s| s.to_string()).unwrap_or_default()),
                other => ("can't be written", other.to_string()),
            },
        };
        *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        // The failure stands before anyone who waits for an answer or for room is woken, and
        // whatever is still sent is dropped unwritten.
        drop(waiting);
        messages.iter().for_each(drop);
    }
}

/// The connection with its prepared statements and what their parameters hold.
struct Applier<'c> {
    connection: &'c Connection,
    shared: &'c Shared,
    insert: Statement<'c>,
    /// What the insert's number parameters hold, null at first; `SQLite` keeps them from one execution to the next,
    /// and most columns repeat the row before, so only the difference is bound.
    directory: Option<DirectoryId>,
    bound: Cells,
    /// Which of the insert's byte strings beside the name hold null.
    strings_null: [bool; STRINGS],
    child: Statement<'c>,
    children: Statement<'c>,
    delete: Statement<'c>,
    delete_all: Statement<'c>,
    fail: Statement<'c>,
    epoch: Statement<'c>,
    growing: Statements<'c>,
    /// The digests in the file still hold.
    digests_hold: bool,
    /// Highest directory id in the transaction's rows, and the highest that `meta` covers.
    highest_child: DirectoryId,
    covered_child: DirectoryId,
}

impl<'c> Applier<'c> {
    fn new(connection: &'c Connection, shared: &'c Shared) -> rusqlite::Result<Self> {
        let places = vec!["?"; COLUMN_COUNT].join(",");
        Ok(Self {
            connection,
            shared,
            insert: connection.prepare(&format!("REPLACE INTO entry({COLUMNS}) VALUES ({places})"))?,
            directory: None,
            bound: [None; CELLS],
            strings_null: [true; STRINGS],
            child: connection.prepare("SELECT child FROM entry WHERE dir = ? AND name = ?")?,
            children: connection.prepare("SELECT child FROM entry WHERE dir = ? AND child IS NOT NULL")?,
            delete: connection.prepare("DELETE FROM entry WHERE dir = ? AND name = ?")?,
            delete_all: connection.prepare("DELETE FROM entry WHERE dir = ?")?,
            fail: connection.prepare(
                "REPLACE INTO failure(path, side, class, operation, error, remedy) VALUES (?, ?, ?, ?, ?, ?)",
            )?,
            epoch: connection.prepare("SELECT value FROM meta WHERE key = 'epoch'")?,
            growing: Statements::new(connection)?,
            digests_hold: true,
            highest_child: 0,
            covered_child: 0,
        })
    }

    /// Applies `first` and what waits behind it, up to a flush or the size of a transaction.
    /// Leaves in `waiting` whoever waits for it.
    fn transaction(
        &mut self,
        first: Message,
        messages: &Receiver<Message>,
        waiting: &mut Option<Sender<()>>,
    ) -> Result<(), Failed> {
        // Not even begun where the job was taken away: a kill must not catch it with the database locked.
        if !self.shared.owner.holds() {
            return Err(Failed::Taken);
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        // In the same transaction as the rows: of two that believe they own the job, one commits.
        let epoch: i64 = self.epoch.query_row([], |row| row.get(0))?;
        if epoch.cast_unsigned() != self.shared.owner.epoch {
            self.connection.execute_batch("ROLLBACK")?;
            return Err(Failed::Taken);
        }
        let mut rows = 0;
        let mut make_durable = false;
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Batch(batch) => {
                    rows += batch.rows.len() + batch.deletions.len() + batch.failures.len() + batch.grown.len();
                    self.apply(&batch)?;
                }
                Message::ForgetFailures => self.connection.execute_batch("DELETE FROM failure")?,
                Message::Settled(paths) => {
                    let mut settle = self.connection.prepare("DELETE FROM failure WHERE path = ?")?;
                    for path in paths {
                        settle.execute([path])?;
                    }
                }
                Message::Digests(digests) => {
                    self.connection.execute(
                        "REPLACE INTO digests(one, share, metadata) VALUES (1, ?, ?)",
                        params![digests.share, digests.metadata],
                    )?;
                    self.digests_hold = true;
                }
                Message::Flush { durable, done } => {
                    *waiting = Some(done);
                    make_durable = durable;
                    break;
                }
            }
            if rows < limits::CATALOG_TRANSACTION_ROWS {
                next = messages.try_recv().ok();
            }
        }
        self.commit()?;
        if make_durable {
            self.make_durable()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        if self.highest_child > self.covered_child {
            self.connection.execute(
                "UPDATE meta SET value = max(value, ?) WHERE key = 'next_directory'",
                [self.highest_child.saturating_add(1).cast_signed()],
            )?;
            self.covered_child = self.highest_child;
        }
        self.connection.execute_batch("COMMIT")
    }

    /// A commit at FULL syncs the log, and with it every commit before. `SQLite` does it on its own
    /// descriptor, so an error of the disk can't go to someone else.
    fn make_durable(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(
            "PRAGMA synchronous=FULL; UPDATE meta SET value = value + 1 WHERE key = 'durable'; \
             PRAGMA synchronous=NORMAL;",
        )
    }

    fn apply(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        if self.digests_hold && !(batch.rows.is_empty() && batch.deletions.is_empty()) {
            self.connection.execute_batch("DELETE FROM digests")?;
            self.digests_hold = false;
        }
        for deletion in &batch.deletions {
            self.delete_subtree(deletion)?;
        }
        for row in &batch.rows {
            self.insert(row)?;
        }
        for ino in &batch.withered {
            self.growing.forget(*ino)?;
        }
        for growing in &batch.growing {
            self.growing.announce(growing, self.shared.source_dev)?;
        }
        for chunk in &batch.grown {
            self.growing.chunk(chunk, self.shared.source_dev)?;
        }
        for failure in &batch.failures {
            let side = match failure.side {
                Side::Source => "source",
                Side::Destination => "destination",
            };
            let f = failure;
            self.fail.execute(params![f.path, side, f.class, f.operation, f.error, f.remedy])?;
        }
        Ok(())
    }

    fn insert(&mut self, row: &Row) -> rusqlite::Result<()> {
        let facts = &row.facts;
        if let Some(child) = facts.child {
            self.highest_child = self.highest_child.max(child);
        }
        if let Some(published) = facts.published.filter(|_| facts.source.size > limits::CHUNK_BYTES) {
            self.growing.forget(published.ino)?;
        }
        let (cells, extra) = row::encode(facts, self.shared.source_dev);
        let digest = facts.digest.map(|digest| {
            let mut bytes = [digest.kind; 33];
            bytes[1..].copy_from_slice(&digest.bytes);
            bytes
        });
        let strings = Strings {
            name: &row.name,
            digest: digest.as_ref().map(<[u8; 33]>::as_slice),
            target: row.target.as_deref(),
            xattr_digest: facts.xattr_digest.as_ref().map(<[u8; 32]>::as_slice),
            extra: extra.bytes(),
        };
        if self.directory != Some(row.directory) {
            self.insert.raw_bind_parameter(1, row.directory.cast_signed())?;
            self.directory = Some(row.directory);
        }
        self.insert.raw_bind_parameter(2, row.name.as_slice())?;
        for (i, (cell, bound)) in cells.iter().zip(&mut self.bound).enumerate() {
            if bound != cell {
                self.insert.raw_bind_parameter(i + 3, cell)?;
                *bound = *cell;
            }
        }
        for (i, (string, is_null)) in strings.beside_name().iter().zip(&mut self.strings_null).enumerate() {
            match string {
                Some(bytes) => self.insert.raw_bind_parameter(i + CELLS + 3, *bytes)?,
                None if *is_null => {}
                None => self.insert.raw_bind_parameter(i + CELLS + 3, Null)?,
            }
            *is_null = string.is_none();
        }
        self.insert.raw_bind_parameter(COLUMN_COUNT, row::check(row.directory, &cells, &strings))?;
        self.insert.raw_execute()?;
        Ok(())
    }

    fn delete_subtree(&mut self, deletion: &Deletion) -> rusqlite::Result<()> {
        let key = params![deletion.directory.cast_signed(), deletion.name];
        let mut pending: Vec<i64> = Vec::new();
        let mut found = self.child.query(key)?;
        if let Some(row) = found.next()? {
            pending.extend(row.get::<_, Option<i64>>(0)?);
        }
        drop(found);
        self.delete.execute(key)?;
        while let Some(directory) = pending.pop() {
            let mut found = self.children.query([directory])?;
            while let Some(row) = found.next()? {
                pending.push(row.get(0)?);
            }
            drop(found);
            self.delete_all.execute([directory])?;
        }
        Ok(())
    }
}
