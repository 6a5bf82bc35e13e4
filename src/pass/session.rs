//! A job from the command line: its roots, its state, its passes, its last word.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::copy::probe::{self, Backend};
use crate::copy::range::Pace;
use crate::error::{Error, ExitCode, Side};
use crate::fidelity::{LossClass, LossLog, Severity, SideTraits};
use crate::limits;
use crate::store::{Batch, Catalog, Job, JobState, ROOT_DIRECTORY, StateDir, Store, Writer};
use crate::sys::{self, Kind};
use crate::tree::listing::Names;
use crate::tree::node::{Handles, Node};

use super::batch::Durability;
use super::confine::{Confinement, confine};
use super::directory::{Directory, Standing, Work};
use super::journal::Journal;
use super::records::Records;
use super::report::{Event, Observer, Opened, Progress, Stop, Summary};
use super::retry::Retry;
use super::setup::{RootPlace, Roots, foreign};
use super::staging::Staging;
use super::state::{Parts, Run, Tally, Watcher};
use super::trash::{self, Trash};
use super::{BackendChoice, Extras, JobKind, Options, digests, recognise};

/// A job that is ready to run.
struct Session<'a> {
    options: &'a Options,
    observer: &'a dyn Observer,
    progress: &'a Progress,
    stop: &'a Arc<Stop>,
    roots: Roots,
    /// The destination does not exist, and a dry run does not make it.
    absent: bool,
    job: Job,
    /// An earlier run made the job.
    resumed: bool,
    /// The source root is the destination of another job.
    source_has_trash: bool,
    /// A dry run's own state, removed at its end.
    scratch: Option<Scratch>,
    /// Cores that this process may use, as was found before it was confined: the group's share of them
    /// is told by a file.
    cores: usize,
    started: Instant,
}

/// A state directory that is gone with the run.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Who moves the blocks, with how many threads, and why.
struct Engine {
    backend: Backend,
    workers: usize,
    reason: String,
}

/// Carries out a `migrate` or `sync`.
pub fn run(
    options: &Options,
    observer: &dyn Observer,
    progress: &Progress,
    stop: &Arc<Stop>,
) -> Result<Summary, Error> {
    let started = Instant::now();
    raise_descriptor_limit();
    let (roots, absent) = Roots::open(
        RootPlace { path: &options.source, within: &options.within },
        RootPlace { path: &options.destination, within: &options.within },
        !options.dry_run,
        progress,
    )?;
    let OpenedJob { job, resumed, source_has_trash, scratch } =
        open_job(options, &roots, progress).inspect_err(|_| roots.unmake())?;
    let cores = super::batch::cores();
    let mut session = Session {
        options,
        observer,
        progress,
        stop,
        roots,
        absent,
        job,
        resumed,
        source_has_trash,
        scratch,
        cores,
        started,
    };
    observer.event(&Event::Started {
        job: session.job.id(),
        epoch: session.job.epoch(),
        kind: options.kind.word(),
        resumed,
        source: &options.source,
        destination: &options.destination,
    });
    observer.opened(&Opened { source: Some(&session.roots.source), destination: &session.roots.destination })?;
    progress.open_root(None);
    session.guard()?;
    session.carry()
}

/// Deep trees hold a descriptor a level and a side: as many as the hard limit allows.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Files that this process may have open.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many of them the data threads may take together: the rest is for directories.
const fn for_workers(descriptors: usize) -> usize {
    (descriptors / 4 * 3).saturating_sub(limits::DESCRIPTORS_OF_A_RUN)
}

/// A job as a run finds or makes it.
struct OpenedJob {
    job: Job,
    resumed: bool,
    source_has_trash: bool,
    scratch: Option<Scratch>,
}

fn open_job(options: &Options, roots: &Roots, progress: &Progress) -> Result<OpenedJob, Error> {
    let (source, destination) = recognise::identities(options, roots, progress)?;
    let texts = super::options::canonical(options);
    let path = StateDir::resolve(options.state_dir.as_deref())?;
    if options.dry_run {
        if path.exists() {
            let store = Store::open(&StateDir::open(&path)?)?;
            if let Some(job) = store.find(options.kind.word(), &source, &destination)? {
                let source_has_trash = store.is_destination(&source)?;
                return Ok(OpenedJob { job, resumed: true, source_has_trash, scratch: None });
            }
            recognise::refuse_exchanged(options, &store, roots, (&source, &destination))?;
        }
        let scratch = Scratch(std::env::temp_dir().join(format!("copyd-dry-run-{}", uuid::Uuid::now_v7())));
        let store = Store::open(&StateDir::open(&scratch.0)?)?;
        let opened = store.find_or_create(options.kind.word(), &source, &destination, &texts)?;
        return Ok(OpenedJob { job: opened.job, resumed: false, source_has_trash: false, scratch: Some(scratch) });
    }
    roots.refuse_state_inside(&path)?;
    let store = Store::open(&StateDir::open(&path)?)?;
    recognise::refuse_exchanged(options, &store, roots, (&source, &destination))?;
    if options.retry_failed && store.find(options.kind.word(), &source, &destination)?.is_none() {
        return Err(Error::Guard {
            what: "no earlier run of this job is known, so nothing failed in one".into(),
            remedy: "check both paths and --state-dir, or leave out --retry-failed",
        });
    }
    let opened = store.find_or_create(options.kind.word(), &source, &destination, &texts)?;
    let source_has_trash = store.is_destination(&source)?;
    Ok(OpenedJob { job: opened.job, resumed: opened.resumed, source_has_trash, scratch: None })
}

impl Session<'_> {
    /// The first run of a job looks at what stands at the destination before it touches anything.
    fn guard(&mut self) -> Result<(), Error> {
        if self.job.guard_passed() || self.absent {
            return Ok(());
        }
        if self.options.extras == Extras::Guard {
            let names = Names::read(&self.roots.destination, self.options.bounds.directory_entries)
                .map_err(|e| self.root_error(Side::Destination, e))?;
            for (name, _) in names.iter() {
                let is_directory =
                    sys::stat_at(self.roots.destination.as_fd(), name).is_ok_and(|stat| stat.kind == Kind::Directory);
                let out_of_scope =
                    self.options.filter.decide(name.to_bytes(), is_directory) == crate::tree::filter::Verdict::Skip;
                if name != c"lost+found" && name != super::trash::NAME && !out_of_scope {
                    return Err(foreign(&self.options.destination, name.to_bytes()));
                }
            }
        }
        if self.options.dry_run { Ok(()) } else { self.job.pass_guard() }
    }

    fn root_error(&self, side: Side, e: std::io::Error) -> Error {
        let path = if side == Side::Source { &self.options.source } else { &self.options.destination };
        Error::Root {
            side,
            path: path.clone(),
            what: "can't be read",
            remedy: "check permissions, and that the file system behind it answers (ls, dmesg)",
            source: Some(e),
        }
    }

    /// Gives up what the run does not need: all that it needs is open, or known by its place.
    fn confine(&self) -> Result<(), Error> {
        if !self.options.confine {
            return Ok(());
        }
        let writes = !self.options.dry_run;
        let (source, destination) = (self.roots.source.as_fd(), self.roots.destination.as_fd());
        let threads = self.options.backend == BackendChoice::Threads
            || self.options.backend == BackendChoice::Auto && self.roots.durability == Durability::Memory;
        let scratch = self.scratch.as_ref().map(|scratch| scratch.0.clone());
        let state = scratch.clone().map_or_else(|| StateDir::resolve(self.options.state_dir.as_deref()), Ok)?;
        let confined = confine(&Confinement {
            read: if writes { vec![source] } else { vec![source, destination] },
            written: writes.then_some(destination),
            state: Some(state),
            outputs: self.options.manifest.iter().cloned().collect(),
            emptied: scratch.and_then(|scratch| scratch.parent().map(std::path::Path::to_owned)),
            ring: !threads,
            in_memory: self.roots.in_memory,
        });
        self.observer.event(&Event::Confined(&confined));
        Ok(())
    }

    fn carry(&mut self) -> Result<Summary, Error> {
        // One pass comes by every entry, so the catalog need not be read again for the digests.
        let records = if self.resumed { Records::beside_catalog() } else { Records::prepared() };
        let mut records = (!self.options.dry_run).then_some(records);
        self.confine()?;
        let mut catalog = self.job.catalog()?;
        let catalog_complete = self.job.state() == JobState::Complete;
        if !self.options.dry_run {
            self.job.start()?;
        }
        let writer = catalog.writer()?;
        let retry =
            self.options.retry_failed.then(|| Retry::load(&catalog.reader()?, &self.roots.source)).transpose()?;
        if retry.is_none() && !self.options.dry_run {
            writer.forget_failures()?;
        }
        let observer = self.observer;
        let losses = LossLog::new(move |class, path, detail| observer.event(&Event::Loss { class, path, detail }));
        let tally = Tally::default();
        let outcome =
            self.passes(&catalog, &writer, catalog_complete, &losses, &tally, (records.as_ref(), retry.as_ref()));
        let (engine, passes, over_limit, changed) = match outcome {
            Ok(outcome) => outcome,
            Err(e) => {
                // What was done stays recorded, for the run that resumes.
                let _ = writer.finish();
                return Err(e);
            }
        };
        if passes > 1 {
            records = None;
        }
        let mut summary = self.summary(&engine, passes, over_limit, &losses, &tally);
        // A retry says nothing of what an interrupted run did not come to.
        let listed = retry.is_none() || catalog_complete;
        let whole = listed
            && summary.failed == 0
            && summary.hot == 0
            && summary.exit != ExitCode::Stopped
            && !self.options.dry_run;
        if whole {
            let found = digests::of_job((&catalog, &writer), records, self.options, changed, self.progress)?;
            (summary.share_digest, summary.metadata_digest) = found;
        }
        if let Some(retry) = retry.filter(|_| summary.exit != ExitCode::Stopped) {
            writer.settle_failures(retry.settled())?;
        }
        writer.finish()?;
        if !self.options.dry_run {
            let state = match summary.exit {
                ExitCode::Stopped => JobState::Cancelled,
                _ if listed => JobState::Complete,
                _ => JobState::Running,
            };
            self.job.finish(state, &format!("{{\"backend\":\"{}\"}}", engine.backend.word()))?;
        }
        self.expire_trash();
        summary.elapsed = self.started.elapsed();
        drop(self.scratch.take());
        Ok(summary)
    }

    /// What earlier runs kept for longer than this one is asked to goes. A failure is for the log: the
    /// next run tries again.
    fn expire_trash(&self) {
        let Some(age) = self.options.trash.filter(|_| !self.options.dry_run && !self.stop.requested()) else { return };
        match trash::expire(&self.roots.destination, Some(age), &|| self.stop.requested()) {
            Ok(done) if done.entries > 0 => {
                tracing::info!(generations = done.generations, entries = done.entries, more = done.more, "expired");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the trash could not be looked through for what is to expire");
                self.observer.event(&Event::Note("what the trash has kept long enough could not be removed"));
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of one pass's outcome, taken apart at once")]
    fn passes(
        &self,
        catalog: &Catalog,
        writer: &Writer,
        mut catalog_complete: bool,
        losses: &LossLog<'_>,
        tally: &Tally,
        (records, retry): (Option<&Records>, Option<&Retry>),
    ) -> Result<(Engine, u32, Option<(u64, u64)>, bool), Error> {
        let mut engine = None;
        let mut changed = false;
        let most = if self.options.kind == JobKind::Migrate { self.options.max_passes.max(1) } else { 1 };
        let mut pass = 1;
        loop {
            let run = self.prepare(
                catalog,
                writer,
                catalog_complete,
                losses,
                tally,
                &mut engine,
                (records.filter(|_| pass == 1), retry),
            )?;
            self.progress.pass.add(1);
            retry.inspect(|retry| retry.start_pass());
            self.progress.scan_complete.store(false, Ordering::Relaxed);
            self.observer.event(&Event::PassStarted { pass });
            let before = (self.progress.files_copied.get(), tally.hot.get(), self.progress.failed.get());
            let backend = engine.as_ref().map_or(Backend::Threads, |e| e.backend);
            let root = self.root(&run);
            run.progress.entries_scanned.add(1);
            tally.entries.add(1);
            run.carry(&root, backend)?;
            changed |= run.changed.load(Ordering::Relaxed);
            run.name_missing();
            self.observer.event(&Event::PassEnded {
                pass,
                copied: self.progress.files_copied.get() - before.0,
                hot: tally.hot.get() - before.1,
                failed: self.progress.failed.get() - before.2,
            });
            let moved = run.source_moved.load(Ordering::Relaxed);
            let over_limit = *crate::tree::node::lock(&run.over_limit);
            if !moved || pass >= most || self.stop.requested() || self.options.dry_run {
                let engine = engine.unwrap_or(Engine { backend, workers: 1, reason: String::new() });
                return Ok((engine, pass, over_limit, changed));
            }
            // What was hot, or failed, is looked at again: only the last pass's word counts.
            tally.start_again(self.progress);
            writer.flush(false)?;
            catalog_complete = true;
            pass += 1;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a pass is made of comes from as many owners")]
    fn prepare<'r>(
        &'r self,
        catalog: &'r Catalog,
        writer: &'r Writer,
        catalog_complete: bool,
        losses: &'r LossLog<'r>,
        tally: &'r Tally,
        engine: &mut Option<Engine>,
        (records, retry): (Option<&'r Records>, Option<&'r Retry>),
    ) -> Result<Run<'r>, Error> {
        let lanes = self.workers();
        let (staging, journal) = self.left_behind(catalog, writer, lanes)?;
        let source_traits =
            SideTraits::probe(self.roots.source.as_fd()).map_err(|e| self.root_error(Side::Source, e))?;
        let mut destination_traits =
            SideTraits::probe(self.roots.destination.as_fd()).map_err(|e| self.root_error(Side::Destination, e))?;
        if engine.is_none() {
            let probing = !catalog_complete && !self.options.dry_run;
            let chosen = self.choose(&staging, probing)?;
            self.observer.event(&Event::Backend {
                backend: chosen.backend.word(),
                readback: self.roots.read_back.word(),
                jobs: chosen.workers,
                reason: &chosen.reason,
            });
            *engine = Some(chosen);
        }
        if !catalog_complete && !self.options.dry_run {
            self.learn(&staging, &mut destination_traits).map_err(|e| self.root_error(Side::Destination, e))?;
        }
        let stop = Arc::clone(self.stop);
        let pace = Pace::new(&self.options.throttle, move || stop.requested()).counting(&self.progress.beat);
        let trash = self.options.trash.filter(|_| !self.options.dry_run).map(|keep| {
            Trash::new(Arc::clone(&self.roots.destination), self.job.id(), keep, destination_traits.clone())
        });
        Ok(Run::new(Parts {
            options: self.options,
            roots: &self.roots,
            progress: self.progress,
            stop: self.stop,
            observer: Watcher(self.observer),
            catalog,
            writer,
            catalog_complete,
            doubtful: self.resumed && !catalog.closed_in_order() && self.made_it_all(),
            workers: lanes,
            staging,
            trash,
            source_has_trash: self.source_has_trash,
            journal,
            losses,
            pace: Arc::new(pace),
            source_traits,
            destination_traits,
            tally,
            records,
            retry,
        }))
    }

    /// The staging directory, with what a killed run left of large files and this one can go on from.
    fn left_behind(&self, catalog: &Catalog, writer: &Writer, lanes: usize) -> Result<(Staging, Journal), Error> {
        let clean = !self.options.dry_run;
        let left = if clean { catalog.grown()? } else { Vec::new() };
        let names: Vec<_> = left.iter().map(|grown| grown.growing.temporary.clone()).collect();
        let staging = Staging::new(Arc::clone(&self.roots.destination), self.job.id(), lanes, clean, &names)
            .map_err(|e| self.root_error(Side::Destination, e))?;
        let (left, withered): (Vec<_>, Vec<_>) = left.into_iter().partition(|grown| staging.holds(&grown.growing));
        if !withered.is_empty() {
            let withered = withered.iter().map(|grown| grown.growing.ino).collect();
            writer.send(Batch { withered, ..Batch::default() })?;
        }
        Ok((staging, Journal::new(left)))
    }

    /// Whether what stands at the destination is the job's own work: it began with nothing there, or an
    /// earlier run has come to its end and seen all of it.
    fn made_it_all(&self) -> bool {
        self.options.extras == Extras::Guard || self.job.last_summary().is_some()
    }

    /// What a new file at the destination has by itself, and how fine its times are.
    fn learn(&self, staging: &Staging, traits: &mut SideTraits) -> std::io::Result<()> {
        let temporary = staging.temporary(0)?;
        let file =
            sys::create(temporary.directory.as_fd(), &temporary.name, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        let learned = traits.learn_from_new_file(file.as_fd());
        temporary.discard();
        learned
    }

    fn workers(&self) -> usize {
        let wanted = self.roots.durability.workers(self.options.jobs, self.cores);
        let most = for_workers(descriptors()) / limits::DESCRIPTORS_OF_A_WORKER;
        wanted.min(most.max(1))
    }

    /// Why a ring in each data thread would need more open files than there may be.
    fn rings_too_many(&self) -> Option<String> {
        let each = limits::DESCRIPTORS_OF_A_WORKER + 2 * limits::RING_SLOTS;
        let (limit, needed) = (descriptors(), self.workers() * each);
        (for_workers(limit) < needed).then(|| {
            format!(
                "io_uring would hold {needed} files open, and the limit is {limit} (ulimit -n): plain threads serve"
            )
        })
    }

    fn choose(&self, staging: &Staging, probing: bool) -> Result<Engine, Error> {
        let workers = self.workers();
        let engine = |backend, reason: String| Engine { backend, workers, reason };
        let last = self.job.last_summary().map(|text| text.contains("\"uring\""));
        Ok(match self.options.backend {
            BackendChoice::Threads => engine(Backend::Threads, "as asked".into()),
            _ if self.rings_too_many().is_some() => engine(Backend::Threads, self.rings_too_many().unwrap_or_default()),
            BackendChoice::Uring => match probe::refused() {
                None => engine(Backend::Uring, "as asked".into()),
                Some(reason) => engine(Backend::Threads, reason),
            },
            BackendChoice::Auto if self.roots.durability == Durability::Memory => {
                engine(Backend::Threads, "a memory file system: nothing to wait for".into())
            }
            BackendChoice::Auto if probing => {
                let directory = staging.temporary(0).map_err(|e| self.root_error(Side::Destination, e))?.directory;
                let found = probe::probe(&directory, workers).map_err(|e| self.root_error(Side::Destination, e))?;
                engine(found.backend, found.reason)
            }
            BackendChoice::Auto if last == Some(true) => match probe::refused() {
                None => engine(Backend::Uring, "as the first run's probe found".into()),
                Some(reason) => engine(Backend::Threads, reason),
            },
            BackendChoice::Auto => engine(Backend::Threads, "as the first run's probe found, or none".into()),
        })
    }

    fn root(&self, run: &Run<'_>) -> Arc<Directory> {
        // The rest is for files in flight; and a pair of directories takes two.
        let limit = descriptors();
        let workers = limits::DESCRIPTORS_OF_A_RUN + self.workers() * limits::DESCRIPTORS_OF_A_WORKER;
        let limit = (limit / 2).min(limit.saturating_sub(workers) / 2).max(limits::DIRECTORIES_OPEN_MIN);
        let known = run.catalog.reader().and_then(|reader| reader.get(crate::store::ROOT_PARENT, b"")).ok().flatten();
        let standing = if self.absent { Standing::Absent } else { Standing::Existing };
        let known = known.map(|row| Box::new(row.facts));
        let work = Work::new(ROOT_DIRECTORY, standing, known, false);
        let destination = (!self.absent).then(|| Arc::clone(&self.roots.destination));
        Node::root(Handles::new(limit), Arc::clone(&self.roots.source), destination, work)
    }

    fn summary(
        &self,
        engine: &Engine,
        passes: u32,
        over_limit: Option<(u64, u64)>,
        losses: &LossLog<'_>,
        tally: &Tally,
    ) -> Summary {
        let progress = self.progress;
        let mut holding = vec![ExitCode::Complete];
        let mut hold = |holds: bool, code| holding.extend(holds.then_some(code));
        hold(self.stop.requested(), ExitCode::Stopped);
        hold(over_limit.is_some(), ExitCode::DeletionLimit);
        hold(tally.mismatched.get() > 0, ExitCode::Mismatch);
        hold(progress.failed.get() + tally.hot.get() > 0, ExitCode::SomeFailed);
        hold(losses.refused(&self.options.accept_loss), ExitCode::LossRefused);
        hold(self.options.strict && tally.vanished.get() > 0, ExitCode::Vanished);
        Summary {
            job: self.job.id(),
            kind: self.options.kind.word(),
            dry_run: self.options.dry_run,
            exit: ExitCode::first(&holding),
            verify: self.options.verify.word(),
            passes,
            entries: tally.entries.get(),
            files_copied: progress.files_copied.get(),
            files_unchanged: progress.files_unchanged.get(),
            directories_created: tally.directories_created.get(),
            links_made: tally.links_made.get(),
            metadata_updated: tally.metadata_updated.get(),
            bytes_copied: progress.bytes_copied.get(),
            bytes_verified: progress.bytes_verified.get(),
            proved: tally.proved.get(),
            assumed: tally.assumed.get(),
            proved_before: tally.proved_before.get(),
            deleted: progress.deleted.get(),
            renamed: 0,
            hot: tally.hot.get(),
            failed: progress.failed.get(),
            vanished: tally.vanished.get(),
            ignored: tally.ignored.get(),
            over_limit,
            lost: losses.counts(Severity::Lost),
            degraded: losses.counts(Severity::Degraded),
            unsettable: LossClass::ALWAYS.to_vec(),
            differing: 0,
            missing: 0,
            extra: 0,
            share_digest: None,
            metadata_digest: None,
            backend: engine.backend.word(),
            readback: self.roots.read_back.word(),
            elapsed: self.started.elapsed(),
        }
    }
}
