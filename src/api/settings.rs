//! What an operator decides about the API: where it listens, who may call, how much at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::backend::Role;

/// Where to listen, whom to trust, and the bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The unix socket; `None` for none.
    pub socket: Option<PathBuf>,
    /// Permission bits of the socket.
    pub socket_mode: u32,
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// Needed for every TCP address that is not loopback.
    pub tls: Option<TlsFiles>,
    /// Lines of `name:token` or `name:sha256:HEX`.
    pub tokens_file: Option<PathBuf>,
    pub access: Vec<AccessRule>,
    pub bounds: Bounds,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose client certificates are believed; without it nobody is asked for one.
    pub client_ca: Option<PathBuf>,
}

/// One `[[access]]`: whom, what, where. The first that matches a caller decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// `uid:N`, `gid:N`, `token:NAME`, `cn:NAME`, `sha256:HEX`, or a plain name, which is a token's or a
    /// certificate's subject.
    pub name: String,
    pub role: Role,
    /// `*` for all.
    pub projects: Vec<String>,
}

/// How much at once, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once. When they are all there, a new one takes the place of one that is idle.
    pub connections_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// From a connection's or a request's first byte to the end of the request's head.
    pub header_timeout: Duration,
    /// From a request's head to the answer's head.
    pub request_timeout: Duration,
    /// For how long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// For how long a client may leave an answer unread.
    pub reader_timeout: Duration,
    /// Between two signs of life of a stream of events.
    pub heartbeat: Duration,
    /// Streams of events at once, and of one caller.
    pub streams_max: usize,
    pub streams_of_a_caller_max: usize,
    /// Requests at once that read the store or the body: more wait for their turn.
    pub reads_at_once_max: usize,
    /// From the signal to stop until the last connection is cut.
    pub shutdown: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 12_000,
            body_bytes_max: 1 << 20,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(5),
            reader_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            streams_max: 4096,
            streams_of_a_caller_max: 2048,
            reads_at_once_max: 32,
            shutdown: Duration::from_secs(5),
        }
    }
}

impl Bounds {
    /// For a request's body alone, so that what is slow is known as the body.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        self.request_timeout * 2 / 3
    }
}
