//! Where the daemon listens, and how this side says who it is.
//!
//! A secret never stands among the words of a command: the token is in a file that is named, and a private
//! key is one. Over TCP without TLS a token goes to this machine's own addresses only.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::SecretString;

use super::args::ConnectArgs;
use crate::error::Error;
use crate::limits::{API_PORT, TOKEN_BYTES_MAX};
use crate::worker::{escape, escape_path};

/// Where a daemon listens that was started as its unit does.
pub const DEFAULT_URL: &str = "unix:/run/copyd/copyd.sock";

/// Where distributions keep the certificates that they trust, for a `--url` of https without `--ca`.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: bool },
}

/// All that a connection needs.
pub struct Endpoint {
    pub place: Place,
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub token: Option<SecretString>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("place", &self.place).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", escape_path(path)),
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                let host = escape(host.as_bytes());
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

impl Place {
    /// Reads a `--url`.
    ///
    /// # Errors
    /// [`Error::Usage`] for what names no place.
    pub fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("unix://").or_else(|| url.strip_prefix("unix:")) {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(wrong(url, "a socket's path is absolute"))
            };
        }
        if url.starts_with('/') {
            return Ok(Self::Unix(url.into()));
        }
        let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong(url, "it begins with unix:, https:// or http://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => {
                (host, Some(port.strip_prefix(':').ok_or_else(|| wrong(url, "a port follows a colon"))?))
            }
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(fits) {
            return Err(wrong(url, "it names no host, or has more than host and port"));
        }
        let port =
            port.map_or(Ok(API_PORT), |port| port.parse().map_err(|_| wrong(url, "the port is no number to 65535")))?;
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }

    /// Whether what is sent can be read on its way.
    fn in_the_open(&self) -> bool {
        match self {
            Self::Tcp { host, tls: false, .. } => {
                host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            _ => false,
        }
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".into(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

impl Endpoint {
    /// From flags, and from the environment where a flag is missing.
    ///
    /// # Errors
    /// [`Error::Usage`] for words that can't be used, for files that can't be read, and for a token that would
    /// travel in the open.
    pub fn of(args: &ConnectArgs) -> Result<Self, Error> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = args.url.clone().or_else(|| set("COPYD_URL")).unwrap_or_else(|| DEFAULT_URL.into());
        let place = Place::parse(&url)?;
        let token_file = args.token_file.clone().or_else(|| set("COPYD_TOKEN_FILE").map(PathBuf::from));
        let token = token_file.as_deref().map(token).transpose()?;
        if token.is_some() && place.in_the_open() {
            return Err(Error::Usage {
                what: format!("the token would travel to {place} for everybody to read"),
                remedy: "use https://, or the unix socket",
            });
        }
        if args.certificate.is_some() != args.key.is_some() {
            return Err(Error::Usage {
                what: "--certificate and --key belong together".into(),
                remedy: "name both files, or neither",
            });
        }
        let tls = match &place {
            Place::Tcp { host, tls: true, .. } => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong(&url, "the host is no name"))?;
                Some((Arc::new(configuration(args)?), name))
            }
            _ if args.ca.is_some() || args.certificate.is_some() => {
                return Err(Error::Usage {
                    what: format!("--ca, --certificate and --key are of TLS, which {place} does not speak"),
                    remedy: "name the daemon with --url https://HOST:PORT",
                });
            }
            _ => None,
        };
        Ok(Self { place, tls, token })
    }
}

fn configuration(args: &ConnectArgs) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let bundle = match &args.ca {
        Some(file) => file.clone(),
        None => SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|file| file.is_file()).ok_or(Error::Usage {
            what: "this machine has no bundle of trusted certificates".into(),
            remedy: "name who signed the daemon's certificate with --ca FILE",
        })?,
    };
    for certificate in certificates("--ca", &bundle)? {
        let added = roots.add(certificate);
        // One that the library does not take is of no harm in a system's bundle, but is what --ca is about.
        if let (Err(error), true) = (added, args.ca.is_some()) {
            return Err(unusable("--ca", &bundle, &error));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Internal { what: format!("TLS versions: {error}") })?
        .with_root_certificates(roots);
    match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("--certificate", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("--key", key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| unusable("--key", key, &error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(flag, file, &error))?;
    if found.is_empty() {
        return Err(unusable(flag, file, &io::Error::other("it holds no certificate")));
    }
    Ok(found)
}

/// The token in a file: one line, and no byte that a header can't carry.
fn token(file: &Path) -> Result<SecretString, Error> {
    let text = read_bounded(file).map_err(|error| unusable("--token-file", file, &error))?;
    let token = text.trim_end_matches(['\n', '\r']);
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable("--token-file", file, &io::Error::other("it holds no token: one line of visible ASCII")));
    }
    Ok(SecretString::from(token))
}

fn read_bounded(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn unusable(flag: &str, file: &Path, why: &dyn std::error::Error) -> Error {
    Error::Usage {
        what: format!("{flag}: {}: {}", escape_path(file), escape(why.to_string().as_bytes())),
        remedy: "check the file, who may read it, and that it is PEM where certificates and keys are meant",
    }
}

fn wrong(url: &str, why: &str) -> Error {
    Error::Usage {
        what: format!("--url: {} names no daemon: {why}", escape(url.as_bytes())),
        remedy: "write unix:/run/copyd/copyd.sock, https://HOST:PORT, or http://127.0.0.1:PORT",
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Place {
        Place::Tcp { host: host.into(), port, tls }
    }

    #[test]
    fn urls_name_a_socket_or_a_host_with_its_port() {
        for (url, place) in [
            ("unix:/run/x.sock", Place::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", Place::Unix("/run/x.sock".into())),
            ("/run/x.sock", Place::Unix("/run/x.sock".into())),
            ("https://storage-1.example:8443", tcp("storage-1.example", 8443, true)),
            ("https://storage-1.example/", tcp("storage-1.example", API_PORT, true)),
            ("http://127.0.0.1:80", tcp("127.0.0.1", 80, false)),
            ("https://[fd00::5]:1", tcp("fd00::5", 1, true)),
            ("https://[::1]", tcp("::1", API_PORT, true)),
        ] {
            assert_eq!(Place::parse(url).unwrap(), place, "{url}");
            assert_eq!(Place::parse(&place.to_string()).unwrap(), place, "what is shown can be given back");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_the_forms_that_do() {
        for url in [
            "",
            "unix:x",
            "ftp://h",
            "https://",
            "https://h:x",
            "https://h:70000",
            "https://u@h",
            "https://h/v1",
            "https://[::1]x",
            "h:1",
        ] {
            let error = Place::parse(url).unwrap_err();
            assert!(error.remedy().contains("unix:/run/copyd/copyd.sock"), "{url}");
        }
    }

    #[test]
    fn only_plain_tcp_to_another_machine_is_in_the_open() {
        for (url, open) in [
            ("unix:/x", false),
            ("https://h", false),
            ("http://127.0.0.1", false),
            ("http://[::1]", false),
            ("http://localhost", false),
            ("http://h", true),
            ("http://10.0.0.5", true),
        ] {
            assert_eq!(Place::parse(url).unwrap().in_the_open(), open, "{url}");
        }
    }

    #[test]
    fn a_token_is_one_line_and_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "s3cret\n").unwrap();
        let args = ConnectArgs { token_file: Some(file.clone()), url: Some("unix:/x".into()), ..Default::default() };
        let endpoint = Endpoint::of(&args).unwrap();
        assert_eq!(endpoint.token.as_ref().unwrap().expose_secret(), "s3cret");
        assert!(!format!("{endpoint:?}").contains("s3cret"));
        let open = ConnectArgs { url: Some("http://10.0.0.5".into()), ..args };
        assert!(Endpoint::of(&open).unwrap_err().to_string().contains("for everybody to read"));
        for wrong in ["", "\n", "a b", "a\nb\n", "a\x1b"] {
            fs::write(&file, wrong).unwrap();
            assert!(token(&file).unwrap_err().to_string().contains("holds no token"), "{wrong:?}");
        }
    }
}
