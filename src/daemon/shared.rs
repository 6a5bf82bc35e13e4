//! What the manager lets others look at without asking it: the last progress, the workers, whether all is well.
//!
//! Written by the manager alone, read by the API's threads. Nothing here is needed to go on after a restart.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crossbeam_channel::Sender;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::allow::Allowed;
use super::manager::Ask;
use crate::api::backend::{News, Progress, Published, Readiness, WorkerInfo};
use crate::limits::NEWS_KEPT;
use crate::observe::Metrics;
use crate::store::control::Readers;

/// Shared by the manager and the API's threads.
#[derive(Debug)]
pub struct Shared {
    pub asks: Sender<Ask>,
    pub readers: Readers,
    pub allowed: Allowed,
    pub metrics: Arc<Metrics>,
    news: broadcast::Sender<Arc<Published>>,
    live: RwLock<HashMap<Uuid, Progress>>,
    workers: RwLock<HashMap<Uuid, WorkerInfo>>,
    readiness: RwLock<Readiness>,
}

impl Shared {
    #[must_use]
    pub fn new(asks: Sender<Ask>, readers: Readers, allowed: Allowed, metrics: Arc<Metrics>) -> Self {
        let (news, _) = broadcast::channel(NEWS_KEPT);
        let readiness = Readiness { store: Ok(()), spawner: Ok(()), running: 0, queued: 0 };
        Self {
            asks,
            readers,
            allowed,
            metrics,
            news,
            live: RwLock::default(),
            workers: RwLock::default(),
            readiness: RwLock::new(readiness),
        }
    }

    /// Everything that is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.news.subscribe()
    }

    pub(super) fn publish(&self, job: Uuid, what: News) {
        // Nobody may be listening.
        let _ = self.news.send(Arc::new(Published { job, what }));
    }

    #[must_use]
    pub fn live(&self, job: Uuid) -> Option<Progress> {
        read(&self.live).get(&job).cloned()
    }

    pub(super) fn stands(&self, job: Uuid, progress: Progress) {
        write(&self.live).insert(job, progress.clone());
        self.publish(job, News::Progress(progress));
    }

    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let mut workers: Vec<_> = read(&self.workers).values().cloned().collect();
        workers.sort_unstable_by_key(|worker| (worker.started_ms, worker.job));
        workers
    }

    pub(super) fn begins(&self, run: Uuid, worker: WorkerInfo) {
        let mut workers = write(&self.workers);
        workers.insert(run, worker);
        self.metrics.workers.set(i64::try_from(workers.len()).unwrap_or(i64::MAX));
    }

    pub(super) fn heard(&self, run: Uuid, now_ms: u64) {
        if let Some(worker) = write(&self.workers).get_mut(&run) {
            worker.heard_ms = now_ms;
        }
    }

    pub(super) fn ends(&self, run: Uuid, job: Option<Uuid>) {
        let mut workers = write(&self.workers);
        workers.remove(&run);
        self.metrics.workers.set(i64::try_from(workers.len()).unwrap_or(i64::MAX));
        drop(workers);
        if let Some(job) = job {
            write(&self.live).remove(&job);
        }
    }

    #[must_use]
    pub fn readiness(&self) -> Readiness {
        read(&self.readiness).clone()
    }

    pub(super) fn set_readiness(&self, change: impl FnOnce(&mut Readiness)) {
        change(&mut write(&self.readiness));
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
