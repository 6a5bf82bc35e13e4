//! Events as they happen (server-sent events): first what is on record, then what is published, without a gap and
//! nothing twice.
//!
//! ```text
//! subscribe ──► read the record after the last id ──► page, page, … ──► nothing more
//!                    ▲                                                      │
//!                    │ a number is missing, or the subscriber was too slow  ▼
//!                    └───────────────────────────────────────────── what is published: the next number is sent,
//!                                                                   a known one is dropped
//! ```
//!
//! The subscription comes before the first read, so what is stored in between is in one of the two, and the numbers
//! say which are in both. Each stream is one task that fills a small channel: a client that does not read stops its
//! own task, misses progress, and reads the rest from the record later.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::backend::{News, Published};
use super::input::Who;
use super::page::number;
use super::problem::{Kind, Problem};
use super::{Shared, unreadable};
use crate::job::StoredEvent;

/// Events that are read from the record at once.
const PAGE: usize = 200;
/// Pieces that wait for a client: less than a second of a busy job.
const WAITING_MAX: usize = 16;
/// What a client waits before it connects again.
const RETRY_MS: u32 = 2000;

/// How many streams are open, and whose.
#[derive(Debug, Default)]
pub struct Streams {
    open: Mutex<(usize, HashMap<String, usize>)>,
}

/// A place among the streams.
struct Place {
    shared: Shared,
    caller: String,
}

impl Place {
    fn take(shared: &Shared, caller: &str) -> Result<Self, Problem> {
        let mut open = shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of) = &mut *open;
        let own = of.get(caller).copied().unwrap_or_default();
        if *all >= shared.bounds.streams_max || own >= shared.bounds.streams_of_a_caller_max {
            return Err(Problem::new(
                Kind::TooMany,
                format!("{all} streams of events are open, {own} of them the caller's"),
                "close one, or ask for pages of events",
            ));
        }
        *all += 1;
        of.insert(caller.into(), own + 1);
        shared.metrics.streams.set(i64::try_from(*all).unwrap_or(i64::MAX));
        drop(open);
        Ok(Self { shared: shared.clone(), caller: caller.into() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of) = &mut *open;
        *all = all.saturating_sub(1);
        if let Some(own) = of.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                of.remove(&self.caller);
            }
        }
        self.shared.metrics.streams.set(i64::try_from(*all).unwrap_or(i64::MAX));
    }
}

/// Whether the caller wants a stream: it says so by name, not by `*/*`.
pub fn wanted(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',').any(|range| {
            let essence = range.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("text/event-stream")
        })
    })
}

/// `Last-Event-ID`.
///
/// # Errors
/// It is no number.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(HeaderName::from_static("last-event-id")).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let found = value.to_str().ok().and_then(number).filter(|_| values.next().is_none());
    found.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID", "it is a number of at most 18 digits"))
}

/// Opens a stream of what comes after that event.
pub fn open(shared: &Shared, who: &Who, job: Uuid, after: u64) -> Result<Response, Problem> {
    let place = Place::take(shared, &who.0.name)?;
    let news = shared.backend.subscribe();
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let feed = Feed { shared: shared.clone(), job, after, sender, _place: place };
    tokio::spawn(feed.run(news));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would hold events back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Why a stream ends.
struct End;

/// The task of one stream.
struct Feed {
    shared: Shared,
    job: Uuid,
    /// The last event that was sent.
    after: u64,
    sender: mpsc::Sender<Bytes>,
    _place: Place,
}

impl Feed {
    async fn run(mut self, news: broadcast::Receiver<Arc<Published>>) {
        let mut stop = self.shared.stop.clone();
        let heartbeat = self.shared.bounds.heartbeat;
        let client = self.sender.clone();
        tokio::select! {
            // Whichever it is, the client connects again, or does not want to.
            _ = self.feed(news, heartbeat) => {}
            () = client.closed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn feed(&mut self, mut news: broadcast::Receiver<Arc<Published>>, heartbeat: Duration) -> Result<(), End> {
        self.send(format!("retry: {RETRY_MS}\n\n")).await?;
        self.catch_up().await?;
        if let Some(progress) = self.shared.backend.live(self.job) {
            self.live("progress", &progress)?;
        }
        loop {
            match tokio::time::timeout(heartbeat, news.recv()).await {
                Ok(Ok(published)) if published.job == self.job => self.hear(&published.what).await?,
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(_))) => self.catch_up().await?,
                Ok(Err(RecvError::Closed)) => return Err(End),
                Err(_) => self.send(": alive\n\n".into()).await?,
            }
        }
    }

    async fn hear(&mut self, news: &News) -> Result<(), End> {
        match news {
            News::Event(event) if event.id <= self.after => Ok(()),
            News::Event(event) if event.id == self.after + 1 => self.event(event).await,
            News::Event(_) => self.catch_up().await,
            News::Progress(progress) => self.live("progress", progress),
            News::Deleted => Err(End),
        }
    }

    /// Sends what is on record and was not sent.
    async fn catch_up(&mut self) -> Result<(), End> {
        loop {
            let (job, after) = (self.job, self.after);
            let read = self
                .shared
                .read(move |reader| {
                    let events = reader.events(job, after, PAGE).map_err(|error| unreadable(&error))?;
                    // Without events it may be that there is no such job any more.
                    let gone = events.is_empty() && reader.job(job).map_err(|error| unreadable(&error))?.is_none();
                    Ok((events, gone))
                })
                .await;
            let (events, gone) = read.map_err(|_| End)?;
            if gone {
                return Err(End);
            }
            for event in &events {
                self.event(event).await?;
            }
            if events.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn event(&mut self, event: &StoredEvent) -> Result<(), End> {
        let text = piece(Some(event.id), event.event.what.word(), event).ok_or(End)?;
        self.send(text).await?;
        self.after = event.id;
        Ok(())
    }

    /// What is worth something only now: dropped where the client does not keep up.
    fn live(&self, kind: &str, value: &impl Serialize) -> Result<(), End> {
        let text = piece(None, kind, value).ok_or(End)?;
        match self.sender.try_send(text.into()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End),
        }
    }

    async fn send(&self, text: String) -> Result<(), End> {
        self.sender.send(text.into()).await.map_err(|_| End)
    }
}

/// One event. JSON has no line end of its own, so the data is one line.
fn piece(id: Option<u64>, kind: &str, value: &impl Serialize) -> Option<String> {
    let data = serde_json::to_string(value).ok()?;
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        writeln!(text, "id: {id}").ok()?;
    }
    write!(text, "event: {kind}\ndata: {data}\n\n").ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, text: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), text.parse().expect("the test writes headers"))])
    }

    #[test]
    fn a_stream_is_asked_for_by_name() {
        assert!(wanted(&headers("accept", "text/event-stream")));
        assert!(wanted(&headers("accept", "application/json;q=0.5, Text/Event-Stream; q=1")));
        assert!(!wanted(&headers("accept", "*/*")) && !wanted(&headers("accept", "text/*")));
        assert!(!wanted(&HeaderMap::new()));
    }

    #[test]
    fn an_id_is_a_number() {
        assert_eq!(last_event_id(&headers("last-event-id", "12")).ok(), Some(Some(12)));
        assert_eq!(last_event_id(&HeaderMap::new()).ok(), Some(None));
        for wrong in ["", "x", "-1", "1.5"] {
            assert!(last_event_id(&headers("last-event-id", wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_with_line_ends_stays_one_line_of_data() {
        let text = piece(Some(3), "note", &"a\nid: 9\r\n\nb").expect("it can be written");
        assert_eq!(text, "id: 3\nevent: note\ndata: \"a\\nid: 9\\r\\n\\nb\"\n\n");
    }
}
