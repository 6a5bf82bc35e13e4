//! The daemon's settings: `copyd.toml`, read once at the start by `copyd serve` and by its spawner, each for itself.
//!
//! ```text
//! copyd.toml ─► Config ─┬─► serve    [daemon] [api] [[access]]   how it listens, who may ask
//!                       └─► spawner  [allow]                     what any job may touch at all
//! ```
//!
//! The doc comments of the fields are the comments of the example (`copyd serve --example-config`), so each says
//! what the setting does and why its default is what it is. A key that is not known is refused: a misspelt limit
//! must not vanish. The spawner does not take the lists from `serve`, which it does not trust, but from the file;
//! so whoever may write the file decides what root copies, and as root only root may ([`Config::load`]).

#![allow(
    clippy::doc_link_with_quotes,
    reason = "the docs are the text of the file of settings, whose lists look like links"
)]

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use confique::{Config as _, File, FileFormat};
use serde::{Deserialize, Deserializer};

use crate::api;
use crate::error::Error;

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/copyd/copyd.toml";

/// copyd's daemon. Every setting is shown with its default; a line that is commented out changes nothing.
/// `copyd serve` reads this file once, at its start. Keys that are not known are refused.
#[derive(Clone, Debug, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Config {
    /// Who may do what. Without an entry, root and the daemon's own user may do everything at the unix socket, and
    /// nobody else anything. Each entry names a caller (`token:NAME` as in the tokens file, `cn:NAME` of a client certificate,
    /// `sha256:FINGERPRINT` of one, `uid:N` or `gid:N` of a peer of the socket), a role (`read`,
    /// `operate`, `admin`) and the projects it holds for, where `"*"` is all of them:
    ///
    ///   [[access]]
    ///   name = "gid:1000"
    ///   role = "operate"
    ///   projects = ["default"]
    #[config(default = [])]
    pub access: Vec<Access>,

    #[config(nested)]
    pub daemon: Daemon,

    #[config(nested)]
    pub api: Api,

    #[config(nested)]
    pub allow: Allow,
}

/// The daemon itself.
#[derive(Clone, Debug, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Daemon {
    /// The user that API and store run as once root has started the spawner. Without one they stay root's, but
    /// without any capability. The spawner takes requests from this user and from root alone.
    pub user: Option<String>,

    /// Jobs that run at the same time; the others wait, those of a higher priority in front. Each has its own
    /// threads and keeps its disks or servers busy by itself, so that more of them mostly take from each other.
    #[config(default = 4, validate(*jobs_max >= 1 && *jobs_max <= 1000, "is a number from 1 to 1000"))]
    pub jobs_max: usize,

    /// Days for which the record of a job that has ended, and its events, are kept. A quarter: long enough for who
    /// asks afterwards what was moved and proved.
    #[config(default = 90, validate(*retention_days >= 1, "is at least 1"))]
    pub retention_days: u32,

    /// Events kept of one job; the oldest go first. A replica with a pass every minute fills it in two days, a
    /// migration never.
    #[config(default = 10000, validate(*events_max >= 100, "is at least 100"))]
    pub events_max: u64,
}

/// The job API.
#[derive(Clone, Debug, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Api {
    /// The unix socket that the API is served on. Callers are known by their user and group, so it needs no secret.
    #[config(default = "/run/copyd/copyd.sock")]
    pub socket: PathBuf,

    /// Who may connect to it at all. The group as well, so that an administrator without root can be let in by
    /// `[[access]]`.
    #[config(default = "0660", deserialize_with = octal)]
    pub socket_mode: u32,

    /// Addresses with ports to serve the API on over TLS, as `"192.0.2.1:8473"`. None: a daemon that nobody has
    /// set up for the network is not reachable from it.
    #[config(default = [])]
    pub listen: Vec<SocketAddr>,

    /// The certificate chain that it shows, in PEM. Without one it listens on 127.0.0.1 alone, and to tokens: what is
    /// not encrypted can be read on the way.
    pub tls_certificate: Option<PathBuf>,

    /// Its private key, in PEM.
    pub tls_key: Option<PathBuf>,

    /// Authorities, in PEM, whose client certificates are taken. Callers without one need a token then.
    pub client_ca: Option<PathBuf>,

    /// Bearer tokens, a line each: `name:token`, or `name:sha256:HEX` where the token itself is to stand nowhere. Others
    /// than its owner and group must not read it.
    pub tokens_file: Option<PathBuf>,

    /// Open connections; a further one takes the place of one that is idle. More than the 10,000 watchers that a control plane with
    /// a connection for each job has.
    #[config(default = 12000, validate(*connections_max >= 1, "is at least 1"))]
    pub connections_max: usize,

    /// Bytes of a request's body: 1 MiB holds filters of some ten thousand lines, and is no burden where many send
    /// one at once.
    #[config(default = 1_048_576, validate(*body_bytes_max >= 1024, "is at least 1024"))]
    pub body_bytes_max: usize,

    /// Seconds that a caller has to send a request's header; a slow one must not hold a connection for ever.
    #[config(default = 10, validate(*header_timeout_s >= 1, "is at least 1"))]
    pub header_timeout_s: u64,

    /// Seconds for a request as a whole; streams of events are not bound by it.
    #[config(default = 30, validate(*request_timeout_s >= 1, "is at least 1"))]
    pub request_timeout_s: u64,
}

/// What jobs may touch, whoever asks. The spawner, which alone has the right to, holds every job to these lists, so
/// they stand even where the API is taken over. The command line (`copyd migrate`, `copyd sync`) is not concerned: it
/// runs with its caller's own rights.
#[derive(Clone, Debug, Default, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Allow {
    /// Directories that sources and destinations may lie in or be. None by default: what the daemon may read and
    /// overwrite as root is for the administrator to say.
    #[config(default = [])]
    pub local_roots: Vec<PathBuf>,

    /// Networks that shares may be mounted from, as `"192.0.2.0/24"`. Shares are not mounted by this version, so
    /// there is nothing to allow.
    #[config(default = [])]
    pub networks: Vec<String>,

    /// Network namespaces, by their name in `/run/netns`, that a job may ask to run in.
    #[config(default = [])]
    pub network_namespaces: Vec<String>,

    /// Projects that jobs may belong to; `"*"` is any.
    #[config(default = ["*"])]
    pub projects: Vec<String>,
}

/// One caller's rights.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    pub name: String,
    pub role: Role,
    #[serde(default = "every_project")]
    pub projects: Vec<String>,
}

/// What a caller may do; each may what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Read,
    Operate,
    Admin,
}

fn every_project() -> Vec<String> {
    vec!["*".into()]
}

/// A mode as people write one: digits of base eight, in a string or as TOML's `0o660`.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u32),
        Digits(String),
    }
    let mode = match Written::deserialize(deserializer)? {
        Written::Number(mode) => Some(mode),
        Written::Digits(digits) => u32::from_str_radix(&digits, 8).ok(),
    };
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| serde::de::Error::custom("a mode is three or four octal digits, as in \"0660\""))
}

impl Config {
    /// Reads the settings: of the file that was named, else of [`DEFAULT_FILE`] if it exists, else the defaults.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that can't be read, holds what is not known or makes no sense, or, for root,
    /// that others can write.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        check_owner(path, named.is_some())?;
        let file = File::with_format(path, FileFormat::Toml);
        let file = if named.is_some() { file.required() } else { file };
        let from_file: <Self as confique::Config>::Layer = file.load().map_err(|e| refused(path, &e))?;
        Self::from_layers(from_file).map_err(|e| refused(path, &e)).and_then(|config| config.checked(path))
    }

    fn from_layers(layer: <Self as confique::Config>::Layer) -> Result<Self, confique::Error> {
        use confique::Layer as _;
        Self::from_layer(layer.with_fallback(<Self as confique::Config>::Layer::default_values()))
    }

    /// The file with every setting, its default and its reason.
    #[must_use]
    pub fn example() -> String {
        confique::toml::template::<Self>(confique::toml::FormatOptions::default())
    }

    /// What one setting alone can't say.
    fn checked(self, path: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Err(unusable(path, &what));
        let api = &self.api;
        if api.tls_certificate.is_some() != api.tls_key.is_some() {
            return wrong("api.tls_certificate and api.tls_key go together".into());
        }
        if !api.socket.is_absolute() {
            return wrong("api.socket is an absolute path".into());
        }
        super::allow::Allowed::new(&self.allow).map_err(|what| unusable(path, &what))?;
        Ok(self)
    }
}

impl Api {
    /// As the API takes it.
    #[must_use]
    pub fn settings(&self, access: &[Access]) -> api::Settings {
        let bounds = api::Bounds {
            connections_max: self.connections_max,
            body_bytes_max: self.body_bytes_max,
            header_timeout: Duration::from_secs(self.header_timeout_s),
            request_timeout: Duration::from_secs(self.request_timeout_s),
            ..api::Bounds::default()
        };
        let rule = |access: &Access| api::AccessRule {
            name: access.name.clone(),
            role: access.role.into(),
            projects: access.projects.clone(),
        };
        let files = self.tls_certificate.clone().zip(self.tls_key.clone());
        let client_ca = self.client_ca.clone();
        api::Settings {
            socket: Some(self.socket.clone()),
            socket_mode: self.socket_mode,
            listen: self.listen.clone(),
            tls: files.map(|(certificate, key)| api::TlsFiles { certificate, key, client_ca }),
            tokens_file: self.tokens_file.clone(),
            access: access.iter().map(rule).collect(),
            bounds,
        }
    }
}

impl From<Role> for api::backend::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Read => Self::Read,
            Role::Operate => Self::Operate,
            Role::Admin => Self::Admin,
        }
    }
}

/// Whoever can write this file decides what root reads and overwrites.
fn check_owner(path: &Path, must_exist: bool) -> Result<(), Error> {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        // Whoever named it hears of it when it is read.
        Err(_) if !must_exist => return Ok(()),
        Err(error) => return Err(refused(path, &error)),
    };
    let own = rustix::process::geteuid().as_raw();
    if found.mode() & 0o022 != 0 || (found.uid() != 0 && found.uid() != own) {
        return Err(Error::Usage {
            what: format!("settings {}: others than its owner, or than root, can write it", path.display()),
            remedy: "chown root and chmod go-w: whoever writes the file decides what the daemon may touch",
        });
    }
    Ok(())
}

fn refused(path: &Path, error: &dyn std::error::Error) -> Error {
    let mut what = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        what = format!("{what}: {error}");
        cause = error.source();
    }
    unusable(path, what.trim_end())
}

fn unusable(path: &Path, what: &str) -> Error {
    Error::Usage {
        what: format!("settings {}: {what}", path.display()),
        remedy: "`copyd serve --example-config` prints every setting with its default and its reason",
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
