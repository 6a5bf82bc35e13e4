//! Every connection that is open: how many, whose, what it is doing and since when.
//!
//! One list and one reaper hold all bounds of time, because no layer above can: hyper does not time
//! what a client leaves unread, nor a connection on which nothing was ever sent.
//!
//! ```text
//! accepted ──TLS──► idle ◄──────────────┐
//!    │                │ first byte      │ the answer's last byte was taken
//!    │ handshake      ▼                 │
//!    │ too slow     head ──complete──► busy ── unread for too long ──► cut
//!    ▼                │ too slow
//!   cut               ▼ cut            idle for too long ──► cut
//! ```
//!
//! When all places are taken, the one who has the most gives one up: its longest idle one, and if it
//! has none but the newcomer is somebody else, its oldest. So a flood of one caller costs that
//! caller, and `/healthz` answers all others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::settings::Bounds;
use crate::observe::{Metrics, ReasonLabels};

/// Between two looks of the reaper: no bound of time is meant to be kept more exactly.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who shares the fate of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    Uid(u32),
    Address(IpAddr),
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
struct Doing {
    /// TLS is not done yet.
    handshake: bool,
    /// Requests whose answer is not wholly taken.
    in_flight: u32,
    /// Since when it shakes hands, is idle, or is busy.
    since: Instant,
    /// When the first byte of a head came that is not complete.
    head: Option<Instant>,
    /// Since when nothing that is to be written was taken.
    unread: Option<Instant>,
    /// HTTP/2 has frames that are no requests, so a byte does not begin a head after the first.
    many: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    whose: Whose,
    doing: Mutex<Doing>,
    cut: Notify,
}

impl Connection {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS is done, or there is none.
    pub fn established(&self) {
        let mut doing = self.doing();
        (doing.handshake, doing.since, doing.head) = (false, Instant::now(), None);
    }

    /// A head is complete. What is given back is held until the answer is taken.
    pub fn begin(self: &Arc<Self>, many: bool) -> InFlight {
        let mut doing = self.doing();
        if doing.in_flight == 0 {
            doing.since = Instant::now();
        }
        (doing.in_flight, doing.head, doing.many) = (doing.in_flight + 1, None, many);
        drop(doing);
        InFlight(Arc::clone(self))
    }

    /// Ends when the connection is to be cut.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    fn came(&self) {
        let mut doing = self.doing();
        if doing.in_flight == 0 && !doing.many {
            doing.head.get_or_insert_with(Instant::now);
        }
    }

    fn taken(&self, taken: bool) {
        let mut doing = self.doing();
        if taken {
            doing.unread = None;
        } else {
            doing.unread.get_or_insert_with(Instant::now);
        }
    }

    /// Which bound it has passed, if any.
    fn passed(&self, bounds: &Bounds, now: Instant) -> Option<&'static str> {
        let doing = *self.doing();
        let over = |since: Instant, bound| now.saturating_duration_since(since) > bound;
        if doing.handshake {
            return over(doing.since, bounds.header_timeout).then_some("handshake");
        }
        if doing.unread.is_some_and(|since| over(since, bounds.reader_timeout)) {
            return Some("slow_reader");
        }
        if doing.head.is_some_and(|since| over(since, bounds.header_timeout)) {
            return Some("header");
        }
        (doing.in_flight == 0 && over(doing.since, bounds.idle_timeout)).then_some("idle")
    }
}

/// A request whose answer is not wholly taken.
#[derive(Debug)]
pub struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut doing = self.0.doing();
        doing.in_flight = doing.in_flight.saturating_sub(1);
        if doing.in_flight == 0 {
            doing.since = Instant::now();
        }
    }
}

/// All connections.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    bounds: Bounds,
    metrics: Arc<Metrics>,
}

impl Connections {
    #[must_use]
    pub fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0), bounds, metrics }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    /// Takes a connection on, if there is a place for it or one can be made.
    pub fn enter(&self, whose: Whose, handshake: bool) -> Option<Arc<Connection>> {
        let mut open = self.open();
        if open.len() >= self.bounds.connections_max {
            let Some(victim) = victim(&open, Some(whose)) else {
                drop(open);
                self.count("full");
                return None;
            };
            self.cut(&mut open, victim, "evicted");
        }
        let now = Instant::now();
        let doing = Doing { handshake, in_flight: 0, since: now, head: None, unread: None, many: false };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection { id, whose, doing: Mutex::new(doing), cut: Notify::new() });
        open.insert(id, Arc::clone(&connection));
        self.show(&open);
        Some(connection)
    }

    /// It has ended.
    pub fn leave(&self, connection: &Connection) {
        let mut open = self.open();
        open.remove(&connection.id);
        self.show(&open);
    }

    /// Makes room where the system gives no more descriptors.
    pub fn relieve(&self) {
        let mut open = self.open();
        if let Some(victim) = victim(&open, None) {
            self.cut(&mut open, victim, "evicted");
        }
    }

    /// Cuts those that have passed a bound of time.
    pub fn reap(&self, now: Instant) {
        let mut open = self.open();
        let late: Vec<_> =
            open.values().filter_map(|c| c.passed(&self.bounds, now).map(|reason| (c.id, reason))).collect();
        for (id, reason) in late {
            self.cut(&mut open, id, reason);
        }
    }

    /// Cuts whatever is left.
    pub fn cut_all(&self) {
        let mut open = self.open();
        for id in open.keys().copied().collect::<Vec<_>>() {
            self.cut(&mut open, id, "shutdown");
        }
    }

    fn cut(&self, open: &mut HashMap<u64, Arc<Connection>>, id: u64, reason: &'static str) {
        if let Some(connection) = open.remove(&id) {
            connection.cut.notify_one();
            self.count(reason);
            self.show(open);
        }
    }

    fn count(&self, reason: &'static str) {
        self.metrics.connections_closed.get_or_create(&ReasonLabels { reason }).inc();
    }

    fn show(&self, open: &HashMap<u64, Arc<Connection>>) {
        self.metrics.connections.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
    }
}

/// The connection to give up: of whoever has the most.
fn victim(open: &HashMap<u64, Arc<Connection>>, newcomer: Option<Whose>) -> Option<u64> {
    let mut counts: HashMap<Whose, usize> = HashMap::new();
    for connection in open.values() {
        *counts.entry(connection.whose).or_default() += 1;
    }
    let (heaviest, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let of_heaviest = open.values().filter(|c| c.whose == heaviest).map(|c| (c.id, *c.doing()));
    let (idle, busy): (Vec<_>, Vec<_>) = of_heaviest.partition(|(_, doing)| doing.in_flight == 0);
    let oldest = |of: Vec<(u64, Doing)>| of.into_iter().min_by_key(|(_, doing)| doing.since).map(|(id, _)| id);
    oldest(idle).or_else(|| if newcomer == Some(heaviest) { None } else { oldest(busy) })
}

/// A stream that tells its [`Connection`] what comes and what is taken.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    pub const fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn taken<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.connection.taken(poll.is_ready());
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.connection.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.taken(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.taken(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connections(max: usize) -> Connections {
        let bounds = Bounds { connections_max: max, ..Bounds::default() };
        Connections::new(bounds, Arc::new(Metrics::new()))
    }

    fn is_cut(connection: &Connection) -> bool {
        use futures_util::FutureExt;
        connection.cut().now_or_never().is_some()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_longest_idle_of_the_heaviest() {
        let all = connections(3);
        let first = all.enter(Whose::Uid(1), false).expect("there is room");
        let second = all.enter(Whose::Uid(1), false).expect("there is room");
        let other = all.enter(Whose::Uid(2), false).expect("there is room");
        assert!(all.enter(Whose::Uid(3), false).is_some());
        assert!(is_cut(&first) && !is_cut(&second) && !is_cut(&other));
        assert_eq!(all.open().len(), 3);
    }

    #[test]
    fn a_flood_of_requests_costs_the_one_who_floods() {
        let all = connections(3);
        let busy: Vec<_> = (0..3).filter_map(|_| all.enter(Whose::Uid(1), false)).collect();
        let held: Vec<_> = busy.iter().map(|c| c.begin(false)).collect();
        assert!(all.enter(Whose::Uid(1), false).is_none(), "its own requests are not cut for its next");
        assert!(all.enter(Whose::Uid(2), false).is_some(), "but for somebody else's");
        assert_eq!(busy.iter().filter(|c| is_cut(c)).count(), 1);
        drop(held);
    }

    #[test]
    fn each_bound_of_time_is_kept() {
        let bounds = Bounds::default();
        let passed = |connection: &Connection, seconds| {
            connection.passed(&bounds, Instant::now() + Duration::from_secs(seconds))
        };
        let all = connections(9);
        let connection = all.enter(Whose::Uid(1), true).expect("there is room");
        assert_eq!((passed(&connection, 9), passed(&connection, 11)), (None, Some("handshake")));
        connection.established();
        assert_eq!((passed(&connection, 299), passed(&connection, 301)), (None, Some("idle")));
        connection.came();
        assert_eq!((passed(&connection, 9), passed(&connection, 11)), (None, Some("header")));
        let request = connection.begin(false);
        assert_eq!(passed(&connection, 9999), None, "a request has bounds of its own");
        connection.taken(false);
        assert_eq!((passed(&connection, 29), passed(&connection, 31)), (None, Some("slow_reader")));
        connection.taken(true);
        assert_eq!(passed(&connection, 31), None);
        drop(request);
        assert_eq!((passed(&connection, 299), passed(&connection, 301)), (None, Some("idle")));
    }

    #[test]
    fn the_reaper_cuts_who_is_late_and_no_other() {
        let all = connections(9);
        let late = all.enter(Whose::Uid(1), true).expect("there is room");
        let fine = all.enter(Whose::Uid(1), false).expect("there is room");
        all.reap(Instant::now() + Duration::from_mins(1));
        assert!(is_cut(&late) && !is_cut(&fine));
        assert_eq!(all.open().len(), 1);
        all.leave(&fine);
        assert!(all.is_empty());
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_and_never_at_another_s_cost(comers in proptest::collection::vec(0..4_u32, 1..60)) {
            let all = connections(8);
            let mut held = Vec::new();
            for uid in comers {
                if let Some(connection) = all.enter(Whose::Uid(uid), false)
                    && uid % 2 == 0
                {
                    held.push(connection.begin(false));
                }
                prop_assert!(all.open().len() <= 8);
            }
            // Whoever has fewer than its share was never the heaviest, so it can always come.
            for uid in 10..13 {
                prop_assert!(all.enter(Whose::Uid(uid), false).is_some());
            }
        }
    }
}
