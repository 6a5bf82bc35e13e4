//! The data threads of a pass, and its phases.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::copy::blocks::{BlockIo, Threads, Uring};
use crate::copy::probe::Backend;
use crate::error::{EntryError, Error, Side};
use crate::fidelity::{self, Losses, MetadataDifferences, Times};
use crate::store::{Batch, Facts, Proof, ROOT_PARENT, RowRef};
use crate::sys::{self, EntryRef, Kind, Stat};
use crate::tree::node::lock;
use crate::tree::plan::{Action, Change};

use super::VerifyLevel;
use super::again::planned;
use super::directory::{Directory, Standing};
use super::journal::Kept;
use super::known::Known;
use super::queue::Next;
use super::records;
use super::report::Event;
use super::row;
use super::scan::Scanner;
use super::state::{Phase, Run, Task, lane};

impl Run<'_> {
    /// Carries the pass out on its workers, from the root's scan to the last row.
    ///
    /// # Errors
    /// What ended the run before its time.
    pub fn carry(&self, root: &Arc<Directory>, backend: Backend) -> Result<(), Error> {
        root.payload.hold(1);
        self.queue.push(lane::SCAN, Task::Scan(Arc::clone(root)));
        std::thread::scope(|scope| {
            for worker in 0..self.workers {
                let spawned = std::thread::Builder::new()
                    .name(format!("data-{worker}"))
                    .spawn_scoped(scope, move || self.work(worker, backend, root));
                if let Err(e) = spawned {
                    self.worker_missed(e);
                }
            }
        });
        self.lock_lifted();
        self.take_fatal().map_or(Ok(()), Err)
    }

    fn work(&self, worker: usize, backend: Backend, root: &Arc<Directory>) {
        if let Err(e) = self.work_inner(worker, backend, root) {
            self.end(e);
            self.queue.close();
        }
    }

    /// One data thread less. The others do its work; only without any the run can't go on.
    fn worker_missed(&self, source: io::Error) {
        let missed = self.workers_missed.fetch_add(1, Ordering::Relaxed) + 1;
        if missed == 1 {
            self.note(
                "the machine gives fewer threads, or less memory for them, than planned: the others do their work",
            );
        }
        if missed == self.workers {
            self.end(Error::Resources { what: "no thread, or no memory for one, to move data", source });
            self.queue.close();
        }
    }

    fn work_inner(&self, worker: usize, backend: Backend, root: &Arc<Directory>) -> Result<(), Error> {
        let mut io = match open_backend(backend) {
            Ok((io, None)) => io,
            Ok((io, Some(error))) => {
                tracing::warn!(%error, "no ring for a data thread");
                if !self.ring_missed.swap(true, Ordering::Relaxed) {
                    self.note("io_uring gave out: plain calls serve where a data thread got no ring");
                }
                io
            }
            Err(e) => {
                self.worker_missed(e);
                return Ok(());
            }
        };
        let reader = self.catalog.reader()?;
        let mut known = Known::default();
        loop {
            if self.halted() {
                self.give_up_waiting();
            }
            match self.queue.next() {
                Next::Closed => return Ok(()),
                Next::Task(Task::Scan(node)) => {
                    let mut scanner = Scanner { reader: &reader, known: &mut known, io: io.as_mut(), worker };
                    self.scan(&node, &mut scanner);
                    drop(node);
                    self.queue.finished();
                }
                Next::Task(task) => {
                    self.carry_out(task, io.as_mut(), worker);
                    self.queue.finished();
                }
                Next::Idle => {
                    if !self.advance(root) {
                        self.queue.close();
                    }
                    self.queue.finished();
                }
            }
        }
    }

    /// A stop was asked for: what waits is for the next run.
    fn give_up_waiting(&self) {
        for task in self.queue.clear_from(lane::BIG) {
            if let Task::Big(file) = task {
                self.set_aside(&file);
            }
        }
    }

    /// One task that is not a scan.
    pub fn carry_out(&self, task: Task, io: &mut dyn BlockIo, worker: usize) {
        let result = match task {
            Task::Publish(staged) => self.publish(staged, io),
            Task::Big(file) => self.work_on(&file, io),
            Task::Copy(items) => self.copy(items, io, worker),
            Task::HashAgain(suspects) => {
                self.hash_again(suspects, io);
                Ok(())
            }
            Task::Link(group) => {
                if self.still_ours() {
                    self.relink(*group, worker);
                }
                Ok(())
            }
            Task::Scan(node) => {
                // Scans are taken from the queue by the worker's own loop only.
                self.queue.push(lane::SCAN, Task::Scan(node));
                Ok(())
            }
        };
        if let Err(e) = result {
            self.end(Error::Internal { what: format!("the I/O backend failed: {e}") });
        }
    }

    /// Nothing runs and nothing waits: whether there is more to do.
    fn advance(&self, root: &Arc<Directory>) -> bool {
        if self.commit_open() {
            return true;
        }
        let mut phase = lock(&self.phase);
        if self.halted() && *phase < Phase::Finish {
            *phase = Phase::Finish;
        }
        if *phase < Phase::Finish {
            let waiting = self.links.take_waiting();
            if !waiting.is_empty() {
                for group in waiting {
                    self.queue.push(lane::COPY, Task::Link(Box::new(group)));
                }
                return true;
            }
        }
        match *phase {
            Phase::Copy => {
                self.progress.scan_complete.store(true, std::sync::atomic::Ordering::Relaxed);
                *phase = Phase::After;
                drop(phase);
                if self.still_ours() {
                    self.delete_extras();
                }
                true
            }
            Phase::After => {
                *phase = Phase::Finish;
                true
            }
            Phase::Finish => {
                *phase = Phase::Over;
                drop(phase);
                self.finish(root);
                true
            }
            Phase::Over => false,
        }
    }

    /// The staging directory goes, but for what a stop keeps of large files; the root gets its metadata,
    /// and everything is made durable.
    fn finish(&self, root: &Arc<Directory>) {
        if !self.still_ours() {
            // The staging directory belongs to the run that has the job now.
            return;
        }
        let kept = if self.stopped() { self.keep_grown() } else { Kept::default() };
        self.wither_left();
        if self.staging.in_use() {
            root.payload.touch();
            match self.staging.remove_but(&kept.names) {
                Ok(true) => self.event(&Event::Note(&kept.sentence(self.staging.name()))),
                Ok(false) => {}
                Err(e) => {
                    let path = self.staging.name().to_bytes().to_vec();
                    self.fail_entry(EntryError::io(Side::Destination, "remove the staging directory", path, e));
                }
            }
        }
        self.lifted_from(root, self.staging.take_lifted());
        if let Some(trash) = self.trash.as_ref().filter(|trash| trash.in_use()) {
            root.payload.touch();
            self.lifted_from(root, trash.take_lifted());
        }
        self.release(root, 1);
        self.lock_lifted();
        if !self.options.dry_run {
            // Twice only where the first one failed: its rows are then left for the next run.
            self.flush_and_record();
        }
    }

    /// `count` entries of a directory are settled; the last one finishes it, and so on upwards.
    pub fn release(&self, node: &Arc<Directory>, count: u64) {
        let mut at = Arc::clone(node);
        let mut count = count;
        while at.payload.release(count) {
            self.finish_directory(&at);
            at.close();
            let Some(parent) = at.parent().map(Arc::clone) else { return };
            at = parent;
            count = 1;
        }
    }

    /// Everything in a directory is settled: its own metadata, times last.
    fn finish_directory(&self, node: &Arc<Directory>) {
        let work = &node.payload;
        if self.halted() && !node.is_root() && work.wanted.get().is_none() && work.lifted().none() {
            return;
        }
        match self.finish_directory_inner(node) {
            Ok(()) => {}
            Err((operation, e)) => {
                self.remember_made(node);
                // Where the source lost it before it was listed, its scan has said so.
                if work.wanted.get().is_some() || e.kind() != io::ErrorKind::NotFound {
                    self.fail_entry(EntryError::io(Side::Destination, operation, node.path(), e));
                }
            }
        }
    }

    /// A directory that this run has made and could not finish is the job's own all the same: without
    /// its row the next pass would take it for somebody else's.
    fn remember_made(&self, node: &Arc<Directory>) {
        let (work, Some(parent)) = (&node.payload, node.parent()) else { return };
        if work.standing != Standing::Fresh {
            return;
        }
        let facts = Facts { child: Some(work.id), ..Facts::new(Kind::Directory) };
        let rows = vec![row::row_in(parent.payload.id, node.name(), facts, None)];
        if let Err(e) = self.writer.send(Batch { rows, ..Batch::default() }) {
            self.end(e);
        }
    }

    fn finish_directory_inner(&self, node: &Arc<Directory>) -> Result<(), (&'static str, io::Error)> {
        let work = &node.payload;
        self.progress.entries_done.add(1);
        if work.standing == Standing::Absent || self.options.dry_run {
            self.tally.assumed.add(1);
            return Ok(());
        }
        let fd = node.open(Side::Destination).map_err(|e| ("open the directory", e))?;
        let now = sys::stat_fd(&fd).map_err(|e| ("stat", e))?;
        let as_remembered = work.known.as_ref().is_some_and(|row| {
            !row.lost && row.published == Some(super::decide::published(&now)) && work.wanted.get().is_none()
        });
        if as_remembered && !work.touched() && work.lifted().none() {
            self.count_kept(work.known.as_ref().map_or(Proof::Assumed, |row| row.proof));
            self.keep_remembered(node);
            return Ok(());
        }
        self.settle_directory(node, &fd, &now)
    }
}

impl Run<'_> {
    /// A directory whose row in the catalog stands.
    fn keep_remembered(&self, node: &Arc<Directory>) {
        let Some(facts) = node.payload.known.as_deref() else { return };
        let parent = node.parent();
        let directory = parent.map_or(ROOT_PARENT, |parent| parent.payload.id);
        let mut batch = records::Batch::default();
        let row = RowRef { directory, name: node.name().to_bytes(), facts, target: None };
        self.push_unchanged(&mut batch, &parent.map_or_else(Vec::new, |parent| parent.path()), &row);
        self.keep_unchanged(&mut batch);
    }

    fn settle_directory(
        &self,
        node: &Arc<Directory>,
        fd: &OwnedFd,
        now: &Stat,
    ) -> Result<(), (&'static str, io::Error)> {
        let work = &node.payload;
        let source = EntryRef::Fd(fd.as_fd());
        let mut losses = Losses::default();
        // Read now where it is as remembered but for its times, which the entries published in it
        // have moved.
        let wanted = self.wanted_of(node, &mut losses).map_err(|e| (e.operation, e.source))?;
        let have = fidelity::capture(source, now, &self.destination_traits, &mut Losses::default())
            .map_err(|e| (e.operation, e.source))?;
        let differences = fidelity::difference(&wanted, &have, &self.rules());
        let own = MetadataDifferences { mtime: differences.mtime && !work.touched(), ..differences };
        if work.standing == Standing::Existing && !own.none() {
            self.tally.metadata_updated.add(1);
            self.show_change(&Change {
                path: node.path(),
                kind: Kind::Directory,
                action: Action::Adjust,
                differences: planned(own),
            });
        }
        if !differences.none() {
            self.changed.store(true, Ordering::Relaxed);
            fidelity::adjust(source, &wanted, &have, Times::Set, &self.rules(), &mut losses)
                .and_then(|()| fidelity::apply_after_publish(source, &wanted, &self.rules(), &mut losses))
                .map_err(|e| (e.operation, e.source))?;
        }
        fidelity::lock_again(source, Kind::Directory, work.lifted().unknown_to(&wanted.flags))
            .map_err(|e| (e.operation, e.source))?;
        work.locked();
        let then = sys::stat_fd(fd).map_err(|e| ("stat", e))?;
        fidelity::check_stat(&wanted, &then, &self.rules(), &mut losses);
        if !losses.is_empty() {
            self.losses.record(&node.path(), &losses);
        }
        // Its metadata was read from both sides, or set and read again.
        let read = self.options.verify >= VerifyLevel::Readback;
        let proof = if read { Proof::Proved } else { Proof::Assumed };
        self.count_proof(proof);
        let mut facts = row::facts(&wanted, &then, None, proof, &losses);
        facts.lost |= work.lost.load(Ordering::Relaxed);
        facts.child = Some(work.id);
        let parent = node.parent().map_or(ROOT_PARENT, |parent| parent.payload.id);
        self.renamed(row::row_in(parent, node.name(), facts, None), Some(Arc::clone(node)));
        Ok(())
    }
}

/// The backend of one worker. Where a ring is refused, because memory or descriptors for the first ones
/// are not enough for all, plain calls serve, and the refusal is given too.
///
/// # Errors
/// `ENOMEM`.
pub fn open_backend(backend: Backend) -> io::Result<(Box<dyn BlockIo>, Option<io::Error>)> {
    let refused = match backend {
        Backend::Threads => None,
        Backend::Uring => match Uring::new() {
            Ok(ring) => return Ok((Box::new(ring), None)),
            Err(e) => Some(e),
        },
    };
    Ok((Box::new(Threads::new()?), refused))
}
