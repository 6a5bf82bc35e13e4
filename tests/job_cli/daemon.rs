//! A daemon that answers from a script, over a unix socket or TLS, and remembers what it was asked.
//!
//! It speaks as much HTTP/1.1 as one request a connection takes. Each connection is a thread, and ends after its
//! answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: String,
    /// Those that came before it.
    pub earlier: Vec<Self>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub enum Reply {
    Whole {
        status: u16,
        kind: String,
        body: String,
    },
    /// Events, and then the connection breaks in the middle of the stream.
    Stream(String),
    /// The connection ends without an answer.
    Hang,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    pub fn problem(status: u16, body: &Value) -> Self {
        Self::text(status, "application/problem+json", &body.to_string())
    }

    pub fn text(status: u16, kind: &str, body: &str) -> Self {
        Self::Whole { status, kind: kind.into(), body: body.into() }
    }
}

/// What answers: the request, and how many came before it.
type Script = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

pub struct Daemon {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _directory: Option<TempDir>,
}

/// Files by which one side is known.
pub struct Identity {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Daemon {
    /// On a unix socket.
    pub fn answering(script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a socket");
        let path = directory.path().join("copyd.sock");
        let listener = UnixListener::bind(&path).expect("a socket can be bound");
        let (asked, script): (_, Arc<Script>) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(script));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &heard, &*script));
            }
        });
        Self { url: format!("unix:{}", path.display()), asked, _directory: Some(directory) }
    }

    /// On this machine's own address, with certificates of an authority of its own: the daemon, who belongs to it,
    /// and who belongs to another one.
    pub fn with_tls(
        directory: &Path,
        script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> (Self, Identity, Identity) {
        let (own, other) = (identity(&directory.join("own")), identity(&directory.join("other")));
        let configuration = Arc::new(configuration(&own));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("https://{}", listener.local_addr().expect("it is bound"));
        let (asked, script): (_, Arc<Script>) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(script));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
                let session = ServerConnection::new(Arc::clone(&configuration)).expect("the configuration is good");
                std::thread::spawn(move || serve(StreamOwned::new(session, stream), &heard, &*script));
            }
        });
        (Self { url, asked, _directory: None }, own, other)
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

fn lock(asked: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request and its answer. Who breaks off is not answered.
fn serve(stream: impl Read + Write, heard: &Mutex<Vec<Asked>>, script: &Script) {
    let mut stream = BufReader::new(stream);
    let Some(mut asked) = read(&mut stream) else { return };
    let n = {
        let mut heard = lock(heard);
        heard.push(asked.clone());
        asked.earlier.clone_from(&heard);
        heard.len() - 1
    };
    let answer = match script(&asked, n) {
        Reply::Whole { status, kind, body } => format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Reply::Stream(text) => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n",
            text.len()
        ),
        Reply::Hang => return,
    };
    let stream = stream.get_mut();
    let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut asked = Asked { method: words.next()?.into(), path: words.next()?.into(), ..Asked::default() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.into()));
    }
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

/// An authority, and a certificate of it that serves both sides.
fn identity(directory: &Path) -> Identity {
    std::fs::create_dir_all(directory).expect("there is room for certificates");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address is a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("there is room for certificates");
        path
    };
    Identity {
        authority: file("ca.pem", &authority.pem()),
        certificate: file("certificate.pem", &certificate.pem()),
        key: file("key.pem", &key.serialize_pem()),
    }
}

fn configuration(own: &Identity) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&own.authority).expect("it was written") {
        roots.add(certificate.expect("it was written")).expect("it is an authority");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let chain =
        CertificateDer::pem_file_iter(&own.certificate).expect("it was written").map(|c| c.expect("it was written"));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_client_cert_verifier(verifier.expect("there is an authority"))
        .with_single_cert(chain.collect(), PrivateKeyDer::from_pem_file(&own.key).expect("it was written"))
        .expect("they belong together")
}
