//! Connections and streams: who is let in, who is cut, and that no event is lost or sent twice.

use std::time::{Duration, Instant};

use copyd::api::Bounds;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::house::{Answer, Ask, House, certificates, send, tls};

/// Reads a stream of events, piece by piece.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn open(house: &House, path: &str, last: Option<u64>) -> Self {
        let mut ask = Ask::new("GET", path).with("accept", "text/event-stream");
        if let Some(last) = last {
            ask = ask.with("Last-Event-ID", last.to_string());
        }
        let response: Response<Incoming> = send(house.connect().await, ask).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await.expect("it goes on");
            let data = frame?.expect("it is whole").into_data().expect("there are no trailers");
            self.text.push_str(std::str::from_utf8(&data).expect("it is text"));
        }
    }

    /// The next event: id, type, data.
    async fn next(&mut self) -> Option<(Option<u64>, String, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
            if let Some(data) = field("data:") {
                let id = field("id:").map(|id| id.parse().expect("it is a number"));
                let kind = field("event:").expect("each has a type").to_owned();
                return Some((id, kind, serde_json::from_str(data).expect("it is JSON")));
            }
        }
    }
}

async fn job(house: &House) -> (uuid::Uuid, String) {
    let job = house.job("default", &json!({})).await;
    let id = job["id"].as_str().expect("it has one");
    (id.parse().expect("it is one"), format!("/v1/jobs/{id}/events"))
}

#[tokio::test]
async fn a_stream_begins_after_the_last_event_and_goes_on() {
    let house = House::new();
    let (id, path) = job(&house).await;
    house.daemon.note(id, "two");
    house.daemon.note(id, "three");
    let mut events = Events::open(&house, &path, Some(1)).await;
    let (first, kind, data) = events.next().await.expect("there are two");
    assert_eq!((first, kind.as_str(), &data["text"], &data["id"]), (Some(2), "note", &json!("two"), &json!(2)));
    assert_eq!(events.next().await.expect("there is another").0, Some(3));
    house.daemon.progress(id, 42);
    let (none, kind, data) = events.next().await.expect("it is live");
    assert_eq!((none, kind.as_str(), &data["percent"]), (None, "progress", &json!(42)));
    house.daemon.note(id, "four");
    assert_eq!(events.next().await.expect("it is live").0, Some(4));
    let mut whole = Events::open(&house, &path, None).await;
    assert_eq!(whole.next().await.map(|(id, kind, _)| (id, kind)), Some((Some(1), "created".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_or_sent_twice_however_fast_they_come() {
    const EVENTS: u64 = 600;
    let house = House::new();
    let (id, path) = job(&house).await;
    let daemon = std::sync::Arc::clone(&house.daemon);
    // More at once than subscribers are kept for, so that every stream falls behind.
    let writer = std::thread::spawn(move || {
        for number in 1..EVENTS {
            daemon.note(id, &number.to_string());
        }
    });
    let mut last = 0;
    while last < EVENTS {
        let mut events = Events::open(&house, &path, Some(last)).await;
        // Each stream is given up after some, and the next one goes on where it was.
        for _ in 0..90 {
            if last == EVENTS {
                break;
            }
            let (found, ..) = events.next().await.expect("there are more");
            assert_eq!(found, Some(last + 1));
            last += 1;
        }
    }
    writer.join().expect("it has written all");
}

#[tokio::test]
async fn a_silent_stream_gives_signs_of_life_and_ends_with_its_job() {
    let house = House::with(|settings, _| settings.bounds.heartbeat = Duration::from_millis(50));
    let (id, path) = job(&house).await;
    let mut events = Events::open(&house, &path, Some(1)).await;
    assert_eq!(events.block().await.as_deref(), Some("retry: 2000"));
    assert_eq!(events.block().await.as_deref(), Some(": alive"));
    let of_job = format!("/v1/jobs/{id}");
    assert_eq!(house.ask(Ask::new("POST", &format!("{of_job}/cancel"))).await.status, 202);
    assert_eq!(house.ask(Ask::new("DELETE", &of_job)).await.status, 204);
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let house = House::with(|settings, _| settings.bounds.streams_of_a_caller_max = 1);
    let (_, path) = job(&house).await;
    let mut first = Events::open(&house, &path, None).await;
    assert!(first.next().await.is_some());
    let ask = || Ask::new("GET", &path).with("accept", "text/event-stream");
    house.ask(ask()).await.problem(429, "too_many");
    drop(first);
    let began = Instant::now();
    while send(house.connect().await, ask()).await.status() != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn stopping_ends_streams_and_idle_connections_in_time() {
    let house = House::new();
    let (_, path) = job(&house).await;
    let mut events = Events::open(&house, &path, None).await;
    let mut idle = house.connect().await;
    assert!(events.next().await.is_some());
    let began = Instant::now();
    house.stop.send(true).expect("it is served");
    while events.next().await.is_some() {}
    house.served.await.expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let mut byte = [0];
    assert_eq!(idle.read(&mut byte).await.unwrap_or(0), 0, "the connection is closed");
    assert!(!house.socket.exists());
}

#[tokio::test]
async fn a_head_or_a_body_that_does_not_come_is_not_waited_for() {
    let house = House::with(|settings, _| {
        settings.bounds.header_timeout = Duration::from_millis(300);
        settings.bounds.request_timeout = Duration::from_millis(900);
    });
    let mut head = house.connect().await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.expect("it is open");
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), head.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "a head that does not end is waited for");

    let mut body = house.connect().await;
    let request = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    body.write_all(request).await.expect("it is open");
    let mut text = vec![0; 12];
    let read = tokio::time::timeout(Duration::from_secs(10), body.read_exact(&mut text)).await;
    read.expect("it is answered in time").expect("it is answered");
    assert_eq!(text, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_flood_of_connections_leaves_others_answered() {
    let house = House::with(|settings, _| {
        settings.bounds = Bounds { connections_max: 20, ..settings.bounds };
    });
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(house.connect().await);
    }
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(house.get("/healthz").await.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    // The last of them was kept for as long as there was room.
    let mut last = idle.pop().expect("there are a hundred");
    last.write_all(b"GET /").await.expect("it can be written to, or was cut");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut() {
    let house = House::with(|settings, _| settings.bounds.reader_timeout = Duration::from_millis(300));
    let mut slow = house.connect().await;
    // So many answers that no socket takes them all.
    let asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    let (mut read, mut write) = slow.split();
    let _ = tokio::time::timeout(Duration::from_secs(3), write.write_all(&asked)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut all = Vec::new();
    // Cut with an error or an end: not all two hundred answers come.
    let _ = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut all)).await.expect("it was cut");
    let answers = all.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
    assert!(answers < 200, "{answers}");
}

#[tokio::test]
async fn a_client_certificate_is_who_its_subject_names() {
    let mut made = None;
    let house = House::with(|settings, directory| {
        let certificates = certificates(directory);
        settings.listen = vec!["127.0.0.1:0".parse().expect("it is an address")];
        settings.tls = Some(certificates.files.clone());
        settings.access.push(copyd::api::AccessRule {
            name: "cn:manila".into(),
            role: copyd::api::backend::Role::Operate,
            projects: vec!["a".into()],
        });
        made = Some(certificates);
    });
    let certificates = made.expect("they were just made");
    let ask = |ask: Ask<'static>, certificate: bool| {
        let (address, certificates) = (house.tcp[0], &certificates);
        async move {
            let stream = tls(address, certificates, certificate).await.expect("the daemon speaks TLS");
            Answer::of(send(stream, ask).await).await
        }
    };
    assert_eq!(ask(Ask::new("GET", "/v1/jobs"), true).await.status, 200);
    ask(Ask::new("GET", "/v1/jobs?project=b"), true).await.problem(403, "forbidden");
    ask(Ask::new("GET", "/v1/jobs"), false).await.problem(401, "unauthenticated");
    assert_eq!(ask(Ask::new("GET", "/v1/jobs").token("reader"), false).await.status, 200);
    assert_eq!(ask(Ask::new("GET", "/healthz"), false).await.status, 200);
}

#[tokio::test]
async fn tokens_alone_do_on_loopback() {
    let house = House::with(|settings, _| settings.listen = vec!["127.0.0.1:0".parse().expect("it is one")]);
    let ask = |ask: Ask<'static>| async {
        let stream = tokio::net::TcpStream::connect(house.tcp[0]).await.expect("the daemon listens");
        Answer::of(send(stream, ask).await).await
    };
    assert_eq!(ask(Ask::new("GET", "/v1/jobs").token("reader")).await.status, 200);
    ask(Ask::new("GET", "/v1/jobs")).await.problem(401, "unauthenticated");
    ask(Ask::new("GET", "/metrics")).await.problem(401, "unauthenticated");
    assert_eq!(ask(Ask::new("GET", "/readyz")).await.status, 200);
}
