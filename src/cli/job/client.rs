//! A small HTTP client: one connection a request, bounded in time and size.
//!
//! ```text
//! verb ─► Client::call ──► connect (unix, TCP, TLS) ──► HTTP/1.1 ──► whole answer, or Trouble
//!     └─► Client::follow ─────────────────────────────────────────► Stream of server-sent events
//! ```
//!
//! A verb makes a handful of requests, so a connection kept open would save nothing. Each request names the
//! version of the API that this copyd was built for: a daemon that does not have it refuses (406), and never
//! answers in a form that is half understood.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Place};
use super::sse;
use super::trouble::{Problem, Trouble};
use crate::error::Error;
use crate::limits::{API_ANSWER_BYTES_MAX, API_ANSWER_WITHIN, API_CONNECT_WITHIN, SSE_SILENCE_MAX};

/// The version of the API that the requests and types here are of.
const VERSION: &str = "copyd 1.0";

/// A request, in words.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub method: Method,
    /// With its query.
    pub path: &'a str,
    pub body: Option<String>,
    /// Only if the job's generation is this one.
    pub if_match: Option<u64>,
    /// The same key again gives the same answer, and does nothing twice.
    pub idempotency_key: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, if_match: None, idempotency_key: None }
    }

    pub fn post(path: &'a str) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }
}

/// A daemon to talk to.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    runtime: Runtime,
}

impl Client {
    /// # Errors
    /// [`Trouble::Own`] where the machine gives no descriptors for it.
    pub fn new(endpoint: Endpoint) -> Result<Self, Trouble> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::Resources { what: "no descriptors for connections", source })?;
        Ok(Self { endpoint, runtime })
    }

    /// Makes a request, and gives the body of its answer.
    ///
    /// # Errors
    /// [`Trouble`]; a status that is none of success is a problem.
    pub fn call(&self, ask: &Ask<'_>) -> Result<String, Trouble> {
        self.runtime.block_on(self.answer(ask))
    }

    /// Runs what needs a stream.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// As [`Self::call`], within [`Self::run`].
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn answer(&self, ask: &Ask<'_>) -> Result<String, Trouble> {
        let within = async {
            let response = self.send(ask, "application/json").await?;
            let status = response.status();
            let body = self.body(response).await?;
            if status.is_success() { Ok(body) } else { Err(problem(status, &body)) }
        };
        timeout(API_ANSWER_WITHIN, within).await.map_err(|_| self.silent(API_ANSWER_WITHIN))?
    }

    /// Opens a stream of events that come after the one with the id `after`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn follow(&self, path: &str, after: Option<&str>) -> Result<Stream<'_>, Trouble> {
        let within = async {
            let mut request = self.request(&Ask::get(path), "text/event-stream")?;
            if let Some(id) = after.and_then(|id| HeaderValue::from_str(id).ok()) {
                request.headers_mut().insert("last-event-id", id);
            }
            let response = self.exchange(request).await?;
            let status = response.status();
            if !status.is_success() {
                let body = self.body(response).await?;
                return Err(problem(status, &body));
            }
            if !says(&response, "text/event-stream") {
                return Err(self.no_answer("did not answer with a stream of events", None));
            }
            Ok(Stream { client: self, body: response.into_body(), parser: sse::Parser::default() })
        };
        timeout(API_ANSWER_WITHIN, within).await.map_err(|_| self.silent(API_ANSWER_WITHIN))?
    }

    async fn send(&self, ask: &Ask<'_>, accept: &'static str) -> Result<Response<Incoming>, Trouble> {
        self.exchange(self.request(ask, accept)?).await
    }

    fn request(&self, ask: &Ask<'_>, accept: &'static str) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.path)
            .header(HOST, self.endpoint.place.authority())
            .header(ACCEPT, accept)
            .header("openstack-api-version", VERSION)
            .header("user-agent", concat!("copyd/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.endpoint.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(defect)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if ask.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(generation) = ask.if_match {
            request = request.header(IF_MATCH, format!("\"{generation}\""));
        }
        if let Some(key) = ask.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::new(Bytes::from(ask.body.clone().unwrap_or_default()))).map_err(defect)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Trouble> {
        let connection = timeout(API_CONNECT_WITHIN, self.connect()).await;
        let connection = connection.map_err(|_| self.unreachable(io::ErrorKind::TimedOut.into()))??;
        let broken = |error: hyper::Error| self.no_answer("ended the connection without an answer", Some(error.into()));
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
        // Drives the connection for as long as the body is read. What goes wrong in it, the body says too.
        drop(tokio::spawn(driver));
        sender.send_request(request).await.map_err(broken)
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        match &self.endpoint.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|source| self.unreachable(source))?;
                Ok(Connection::Unix(stream))
            }
            Place::Tcp { host, port, .. } => {
                let stream =
                    TcpStream::connect((host.as_str(), *port)).await.map_err(|source| self.unreachable(source))?;
                let Some((configuration, name)) = &self.endpoint.tls else { return Ok(Connection::Tcp(stream)) };
                let connector = tokio_rustls::TlsConnector::from(configuration.clone());
                let tls = connector.connect(name.clone(), stream).await;
                let tls = tls.map_err(|source| Trouble::Tls { at: self.endpoint.place.to_string(), source })?;
                Ok(Connection::Tls(Box::new(tls)))
            }
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<String, Trouble> {
        let limited = http_body_util::Limited::new(response.into_body(), API_ANSWER_BYTES_MAX);
        let broken = |error| self.no_answer("broke off in the middle of its answer, or sent too much", Some(error));
        let bytes = limited.collect().await.map_err(broken)?.to_bytes();
        String::from_utf8(bytes.into())
            .map_err(|error| self.no_answer("answered with what is no text", Some(error.into())))
    }

    fn unreachable(&self, source: io::Error) -> Trouble {
        Trouble::Unreachable { at: self.endpoint.place.to_string(), source }
    }

    fn silent(&self, time: Duration) -> Trouble {
        self.no_answer(&format!("gave no answer within {} s", time.as_secs()), None)
    }

    /// What it said is not what was asked for.
    pub fn no_answer(&self, what: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> Trouble {
        Trouble::NoAnswer { at: self.endpoint.place.to_string(), what: what.into(), source }
    }
}

/// The events of one connection.
#[derive(Debug)]
pub struct Stream<'a> {
    client: &'a Client,
    body: Incoming,
    parser: sse::Parser,
}

impl Stream<'_> {
    /// The next events; none at the stream's end. A daemon sends a sign of life more often than the wait lasts.
    ///
    /// # Errors
    /// [`Trouble::NoAnswer`] where the connection is broken, or silent.
    pub async fn next(&mut self) -> Result<Option<Vec<sse::Event>>, Trouble> {
        loop {
            let frame = timeout(SSE_SILENCE_MAX, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| self.client.silent(SSE_SILENCE_MAX))? else { return Ok(None) };
            let broken =
                |error: hyper::Error| self.client.no_answer("broke off the stream of events", Some(error.into()));
            let Ok(bytes) = frame.map_err(broken)?.into_data() else { continue };
            let events = self.parser.feed(&bytes);
            let events = events.map_err(|error| self.client.no_answer("sent what is no event", Some(error.into())))?;
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }
}

fn says(response: &Response<Incoming>, kind: &str) -> bool {
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    header.is_some_and(|header| header.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind))
}

fn problem(status: StatusCode, body: &str) -> Trouble {
    Trouble::Problem(Box::new(Problem::of(status.as_u16(), body)))
}

fn defect(error: impl Into<hyper::http::Error>) -> Trouble {
    Error::Internal { what: format!("a request that is none: {}", error.into()) }.into()
}

/// The three ways to a daemon, as one.
enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Does the same with whichever way it is.
macro_rules! whichever {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Unix($stream) => $call,
            Connection::Tcp($stream) => $call,
            Connection::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        whichever!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        whichever!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
