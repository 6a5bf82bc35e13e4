//! A whole API on sockets of its own, and a client for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use copyd::api::{AccessRule, Bounds, Credentials, Front, Settings, TlsFiles, backend::Role};
use copyd::observe::Metrics;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::backend::Daemon;

/// Tokens of the tests by name: `reader` and `writer` in project `a`, `boss` everywhere.
pub const TOKENS: [(&str, &str, Role, &str); 3] = [
    ("reader", "reader-0123456789abcdef", Role::Read, "a"),
    ("writer", "writer-0123456789abcdef", Role::Operate, "a"),
    ("boss", "boss-0123456789abcdef", Role::Admin, "*"),
];

pub struct House {
    pub daemon: Arc<Daemon>,
    pub socket: PathBuf,
    pub tcp: Vec<SocketAddr>,
    pub credentials: Arc<Credentials>,
    pub stop: watch::Sender<bool>,
    pub served: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl House {
    pub fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// With settings as the test wants them; it is given the directory for its files, too.
    pub fn with(change: impl FnOnce(&mut Settings, &std::path::Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let tokens = directory.path().join("tokens");
        let lines: Vec<String> = TOKENS.iter().map(|(name, token, ..)| format!("{name}:{token}\n")).collect();
        std::fs::write(&tokens, lines.concat()).expect("it can be written");
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
        let access = TOKENS.iter().map(|(name, _, role, project)| AccessRule {
            name: (*name).into(),
            role: *role,
            projects: vec![(*project).into()],
        });
        let mut settings = Settings {
            socket: Some(directory.path().join("socket")),
            socket_mode: 0o600,
            listen: Vec::new(),
            tls: None,
            tokens_file: Some(tokens),
            access: access.collect(),
            bounds: Bounds::default(),
        };
        change(&mut settings, directory.path());
        let front = Front::prepare(&settings).expect("the sockets can be bound");
        let daemon = Daemon::new(&directory.path().join("state"));
        let credentials = Arc::new(Credentials::default());
        let (stop, stopped) = watch::channel(false);
        let tcp = front.addresses();
        let served = tokio::spawn({
            let (daemon, credentials) = (Arc::clone(&daemon), Arc::clone(&credentials));
            async move {
                front.serve(daemon, Arc::new(Metrics::new()), credentials, stopped).await.expect("it can be served");
            }
        });
        let socket = settings.socket.expect("it was just set");
        Self { daemon, socket, tcp, credentials, stop, served, _directory: directory }
    }

    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.expect("the daemon listens")
    }

    /// A request over the unix socket.
    pub async fn ask(&self, ask: Ask<'_>) -> Answer {
        Answer::of(send(self.connect().await, ask).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Ask::new("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Ask::new("POST", path).json(body)).await
    }

    /// A new job, and its record.
    pub async fn job(&self, project: &str, labels: &Value) -> Value {
        let answer = self.post("/v1/jobs", &specification(project, labels)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()
    }
}

pub fn specification(project: &str, labels: &Value) -> Value {
    serde_json::json!({
        "kind": "migrate", "source": {"export": "/srv/a"}, "destination": {"export": "/srv/b"},
        "project": project, "labels": labels,
    })
}

/// A request.
#[derive(Clone)]
pub struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, String)>,
    body: Vec<u8>,
}

impl<'a> Ask<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn token(self, name: &str) -> Self {
        let (_, token, ..) = TOKENS.iter().find(|(of, ..)| *of == name).expect("it is one of the tokens");
        self.with("authorization", format!("Bearer {token}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.with("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// Sends it on a connection of its own, and gives the answer's head.
pub async fn send<S>(stream: S, ask: Ask<'_>) -> Response<Incoming>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("the daemon speaks HTTP");
    tokio::spawn(connection);
    let mut request = Request::builder().method(ask.method).uri(ask.path).header("host", "copyd");
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(ask.body))).expect("the test writes requests");
    tokio::time::timeout(Duration::from_secs(20), sender.send_request(request))
        .await
        .expect("the daemon answers in time")
        .expect("the daemon answers")
}

/// An answer, wholly read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the answer is whole").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("the answer is text");
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("it is text"))
    }

    /// Asserts that it is a problem document of that status and kind, and gives the field to blame.
    pub fn problem(&self, status: u16, kind: &str) -> Option<String> {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:copyd:problem:{kind}"), "{json}");
        assert_eq!(json["status"], status);
        for field in ["title", "detail", "remedy", "retry"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing in {json}");
        }
        json["field"].as_str().map(ToOwned::to_owned)
    }
}

/// Certificates of the moment: an authority, a server and a client `manila`.
pub struct Certificates {
    pub files: TlsFiles,
    pub authority: rustls::pki_types::CertificateDer<'static>,
    pub client: (rustls::pki_types::CertificateDer<'static>, Vec<u8>),
}

pub fn certificates(directory: &std::path::Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let key = || KeyPair::generate().expect("a key can be made");
    let named = |names: &[&str], common: &str| {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut parameters = CertificateParams::new(names).expect("the names are right");
        parameters.distinguished_name.push(DnType::CommonName, common);
        parameters
    };
    let authority_key = key();
    let mut authority = named(&[], "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).expect("it can be signed");
    let issuer = Issuer::new(authority, authority_key);
    let (server_key, client_key) = (key(), key());
    let server = named(&["localhost"], "server").signed_by(&server_key, &issuer).expect("it can be signed");
    let client = named(&[], "manila").signed_by(&client_key, &issuer).expect("it can be signed");
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let files = TlsFiles {
        certificate: file("server.pem", server.pem()),
        key: file("server.key", server_key.serialize_pem()),
        client_ca: Some(file("authority.pem", authority_certificate.pem())),
    };
    Certificates {
        files,
        authority: authority_certificate.der().clone(),
        client: (client.der().clone(), client_key.serialize_der()),
    }
}

/// A connection over TLS, with the client's certificate or without.
pub async fn tls(
    address: SocketAddr,
    certificates: &Certificates,
    with_certificate: bool,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificates.authority.clone()).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_root_certificates(roots);
    let config = if with_certificate {
        let (certificate, key) = certificates.client.clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key).expect("it is a key");
        builder.with_client_auth_cert(vec![certificate], key).expect("they belong together")
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("it is a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
