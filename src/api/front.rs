//! The sockets: bound before the daemon gives its rights up, served until it is told to stop.
//!
//! [`Front::prepare`] opens everything that takes rights or can be refused (sockets, certificates,
//! tokens), so that a mistake in the settings is an error at the start and not at the first request.
//! [`Front::serve`] accepts, and gives each connection a task with hyper's own loop, because unix
//! sockets, client certificates and bounds for each connection are beyond what axum's loop offers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::access::{Access, Certificate, Peer};
use super::backend::Backend;
use super::connections::{Connection, Connections, InFlight, LOOK_EVERY, Watched, Whose};
use super::credentials::Credentials;
use super::settings::{Bounds, Settings, TlsFiles};
use crate::error::Error;
use crate::observe::Metrics;

/// Bytes of a request's head, and of what hyper reads ahead.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Requests at once on one connection of HTTP/2.
const STREAMS_OF_A_CONNECTION_MAX: u32 = 32;
/// Descriptors for all that is no connection: the store, the link to the spawner, the log.
const DESCRIPTORS_KEPT: u64 = 512;
/// Connections that the kernel holds until they are accepted. With the library's 128 a burst is not heard, and each
/// of its clients tries again after a second.
const BACKLOG: i32 = 4096;
/// Between two tries where the system has no descriptor left.
const BREATH: Duration = Duration::from_millis(20);

/// Sockets that are bound, and what is needed to know who comes.
#[derive(Debug)]
pub struct Front {
    unix: Vec<std::os::unix::net::UnixListener>,
    tcp: Vec<(std::net::TcpListener, Option<Arc<ServerConfig>>)>,
    /// For ports that somebody else has opened.
    tls: Option<Arc<ServerConfig>>,
    access: Access,
    bounds: Bounds,
    /// To be removed at the end.
    socket: Option<PathBuf>,
}

impl Front {
    /// Binds the sockets and reads the certificates and tokens.
    ///
    /// # Errors
    /// One of them can't be used, or TCP would be open to everybody.
    pub fn prepare(settings: &Settings) -> Result<Self, Error> {
        let access = Access::load(&settings.access, settings.tokens_file.as_deref())?;
        let tls = settings.tls.as_ref().map(|files| tls(files, access.has_tokens())).transpose()?.map(Arc::new);
        let mut tcp = Vec::new();
        for address in &settings.listen {
            permitted(*address, tls.is_some(), access.has_tokens())?;
            tcp.push((bind_tcp(*address)?, tls.clone()));
        }
        let mut unix = Vec::new();
        if let Some(path) = &settings.socket {
            unix.push(bind_unix(path, settings.socket_mode)?);
        }
        let bounds = Bounds { connections_max: places(settings.bounds.connections_max), ..settings.bounds };
        Ok(Self { unix, tcp, tls, access, bounds, socket: settings.socket.clone() })
    }

    /// Serves a socket that somebody else has bound, too.
    #[must_use]
    pub fn with_socket(mut self, listener: std::os::unix::net::UnixListener) -> Self {
        self.unix.push(listener);
        self
    }

    /// Serves a port that somebody else has opened, too.
    ///
    /// # Errors
    /// It is none, or would be open to everybody.
    pub fn with_port(mut self, listener: std::net::TcpListener) -> Result<Self, Error> {
        let address = listener
            .local_addr()
            .map_err(|source| Error::Resources { what: "what was handed over is no port", source })?;
        permitted(address, self.tls.is_some(), self.access.has_tokens())?;
        self.tcp.push((listener, self.tls.clone()));
        Ok(self)
    }

    /// Where it listens on TCP; of use where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop` says true, and then for at most the bound that the settings give.
    ///
    /// # Errors
    /// A socket can't be used at all.
    pub async fn serve(
        self,
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
        credentials: Arc<Credentials>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let connections = Arc::new(Connections::new(self.bounds, Arc::clone(&metrics)));
        let shared = super::Shared::new(backend, metrics, credentials, self.access, self.bounds, stop.clone());
        let house = House { router: super::router(shared), connections: Arc::clone(&connections), stop: stop.clone() };
        let unusable = |source| Error::Resources { what: "cannot listen", source };
        let mut listening = JoinSet::new();
        for listener in self.unix {
            listener.set_nonblocking(true).map_err(unusable)?;
            let listener = UnixListener::from_std(listener).map_err(unusable)?;
            listening.spawn(accept_unix(listener, house.clone()));
        }
        for (listener, tls) in self.tcp {
            listener.set_nonblocking(true).map_err(unusable)?;
            let listener = TcpListener::from_std(listener).map_err(unusable)?;
            listening.spawn(accept_tcp(listener, tls.map(TlsAcceptor::from), house.clone()));
        }
        let reaper = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    connections.reap(Instant::now());
                }
            }
        });
        // An error means that whoever could say stop has gone.
        let _ = stop.wait_for(|stop| *stop).await;
        listening.shutdown().await;
        if let Some(path) = &self.socket {
            // The next daemon replaces it anyway; a caller is refused sooner without it.
            let _ = std::fs::remove_file(path);
        }
        let last = Instant::now() + self.bounds.shutdown;
        while !connections.is_empty() && Instant::now() < last {
            tokio::time::sleep(BREATH).await;
        }
        reaper.abort();
        connections.cut_all();
        Ok(())
    }
}

/// What each connection is given.
#[derive(Clone)]
struct House {
    router: Router,
    connections: Arc<Connections>,
    stop: watch::Receiver<bool>,
}

async fn accept_unix(listener: UnixListener, house: House) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                exhausted(&house, &error).await;
                continue;
            }
        };
        // A peer that is gone by now has no credentials, and needs no answer.
        let Ok(peer) = unix_peer(&stream) else { continue };
        let Peer::Unix { uid, .. } = peer else { continue };
        if let Some(connection) = house.connections.enter(Whose::Uid(uid), false) {
            let house = house.clone();
            tokio::spawn(async move {
                let work = http(Watched::new(stream, Arc::clone(&connection)), peer, &connection, &house);
                until_cut(work, &connection, &house).await;
            });
        }
    }
}

async fn accept_tcp(listener: TcpListener, tls: Option<TlsAcceptor>, house: House) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                exhausted(&house, &error).await;
                continue;
            }
        };
        // Only delays answers where it fails.
        let _ = stream.set_nodelay(true);
        let address = address.ip().to_canonical();
        if let Some(connection) = house.connections.enter(Whose::Address(address), tls.is_some()) {
            let (house, tls) = (house.clone(), tls.clone());
            tokio::spawn(async move {
                let stream = Watched::new(stream, Arc::clone(&connection));
                let work = async {
                    let Some(tls) = tls else {
                        return http(stream, Peer::Tcp { address, certificate: None }, &connection, &house).await;
                    };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    connection.established();
                    let chain = stream.get_ref().1.peer_certificates();
                    let certificate = chain.and_then(|chain| chain.first()).map(|der| Certificate::of(der));
                    http(stream, Peer::Tcp { address, certificate }, &connection, &house).await;
                };
                until_cut(work, &connection, &house).await;
            });
        }
    }
}

/// No descriptor or memory for another connection: one that is idle makes room.
async fn exhausted(house: &House, error: &io::Error) {
    // A connection that ended before it was accepted is nothing to us.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "a connection could not be accepted");
        house.connections.relieve();
        tokio::time::sleep(BREATH).await;
    }
}

fn unix_peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let groups = crate::sys::peer_groups(stream.as_fd())?;
    Ok(Peer::Unix { uid: credentials.uid(), gid: credentials.gid(), groups })
}

async fn until_cut(work: impl Future<Output = ()>, connection: &Connection, house: &House) {
    tokio::select! {
        () = work => {}
        () = connection.cut() => {}
    }
    house.connections.leave(connection);
}

/// Speaks HTTP until the client goes, or the daemon does.
async fn http<S>(stream: S, peer: Peer, connection: &Arc<Connection>, house: &House)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        let in_flight = connection.begin(request.version() == Version::HTTP_2);
        request.extensions_mut().insert(peer.clone());
        let answer = house.router.clone().oneshot(request.map(Body::new));
        async move {
            let answer: Result<Response<Body>, Infallible> = answer.await;
            answer.map(|response| response.map(|body| Held { body, _in_flight: in_flight }))
        }
    });
    let builder = builder();
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut stop = house.stop.clone();
    tokio::select! {
        // How a connection ended is the client's affair.
        _ = serving.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The reaper holds the time of a head; hyper's own would also end connections that are idle.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_OF_A_CONNECTION_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buf_size(HEAD_BYTES_MAX as usize)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A body that says when it was wholly taken, or given up.
struct Held {
    body: Body,
    _in_flight: InFlight,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Refuses what would let everybody in.
fn permitted(address: SocketAddr, tls: bool, tokens: bool) -> Result<(), Error> {
    let refused = |why: &str, remedy| Err(Error::Usage { what: format!("{address}: {why}"), remedy });
    if tls {
        return Ok(());
    }
    if !address.ip().to_canonical().is_loopback() {
        return refused(
            "others can read what is not encrypted",
            "set tls_certificate and tls_key, or listen on 127.0.0.1",
        );
    }
    if !tokens {
        return refused("nobody could prove who they are", "set tokens_file, or use the unix socket");
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let failed = |source| Error::Output { path: address.to_string().into(), what: "cannot listen on", source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed(error.into()))?;
    Ok(listener)
}

/// Binds under another name and renames, so that the socket never stands there with other permissions,
/// and takes the place of one that a daemon left behind.
fn bind_unix(path: &Path, mode: u32) -> Result<std::os::unix::net::UnixListener, Error> {
    let failed = |source| Error::Output { path: path.into(), what: "cannot listen on", source };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(Error::Usage {
                what: format!("{}: a daemon answers there already", path.display()),
                remedy: "stop it first, or name another socket",
            });
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(error) => return Err(failed(error)),
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is in the way")));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    // Of a process that had this number and died between the two steps.
    let _ = std::fs::remove_file(&new);
    let listener = std::os::unix::net::UnixListener::bind(&new).map_err(failed)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed(error.into()))?;
    std::fs::rename(&new, path).map_err(failed)?;
    Ok(listener)
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

/// With client certificates where an authority for them is named; without one at hand, a token does.
fn tls(files: &TlsFiles, tokens: bool) -> Result<ServerConfig, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |error: rustls::pki_types::pem::Error| Error::Output {
            path,
            what: "cannot read the certificate or key in",
            source: io::Error::other(error),
        }
    };
    let wrong = |error: &dyn std::fmt::Display| Error::Usage {
        what: format!("TLS: {error}"),
        remedy: "check that the certificate, its key and the client authority are PEM files that belong together",
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        let read = CertificateDer::pem_file_iter(path).map_err(unreadable(path))?;
        read.collect::<Result<_, _>>().map_err(unreadable(path))
    };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for root in certificates(path)? {
                roots.add(root).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if tokens { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Raises the limit of descriptors as far as it goes, and gives how many connections fit below it.
fn places(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    let Some(descriptors) = current else { return wanted };
    let fit = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(descriptors / 2);
    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
    if fit < wanted {
        tracing::warn!(fit, wanted, "the limit of open files leaves fewer connections than asked for");
    }
    wanted.min(fit).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn tcp_is_never_open_to_everybody() {
        let address = |text: &str| text.parse().expect("the test writes addresses");
        for (text, tls, tokens, expected) in [
            ("127.0.0.1:1", false, true, true),
            ("[::1]:1", false, true, true),
            ("[::ffff:127.0.0.1]:1", false, true, true),
            ("127.0.0.1:1", false, false, false),
            ("0.0.0.0:1", false, true, false),
            ("192.0.2.1:1", false, true, false),
            ("[::]:1", false, true, false),
            ("0.0.0.0:1", true, false, true),
        ] {
            assert_eq!(permitted(address(text), tls, tokens).is_ok(), expected, "{text} {tls} {tokens}");
        }
    }

    #[test]
    fn the_socket_has_its_permissions_and_replaces_a_dead_one_only() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("s");
        let first = bind_unix(&path, 0o600).expect("it can be bound");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        assert!(bind_unix(&path, 0o600).is_err(), "a daemon answers there");
        drop(first);
        assert!(bind_unix(&path, 0o660).is_ok(), "a dead one is replaced");
        assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 1);

        let file = directory.path().join("f");
        std::fs::write(&file, "data").expect("it can be written");
        assert!(bind_unix(&file, 0o600).is_err(), "a file is not replaced");
        assert_eq!(std::fs::read(&file).expect("it is there"), b"data");
    }
}
