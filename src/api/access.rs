//! Who calls, and what that caller may do.
//!
//! Three ways to be somebody: a process at the other end of the unix socket (its user and groups, as
//! the kernel knows them), a bearer token, a client certificate that TLS has verified. A token that
//! comes along decides alone, and a wrong one is refused whatever else the caller is. Rules are
//! looked at in order, and the first that matches decides.
//!
//! Tokens are kept as SHA-256 and compared in constant time against every known one, so that time
//! tells neither how much of a token was right nor whose it was.

use std::net::IpAddr;
use std::path::Path;

use axum::http::HeaderValue;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use secrecy::zeroize::Zeroizing;
use subtle::ConstantTimeEq;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::backend::{Caller, Projects, Role};
use super::problem::Problem;
use super::settings::AccessRule;
use crate::error::Error;

/// Bytes of a file of tokens: some thousands of them.
const TOKENS_BYTES_MAX: u64 = 1 << 20;
/// Characters of a token, from what can't be guessed to what fits into a header.
const TOKEN_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=1024;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Unix { uid: u32, gid: u32, groups: Vec<u32> },
    Tcp { address: IpAddr, certificate: Option<Certificate> },
}

/// What of a verified client certificate is of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name, if it has exactly one.
    pub common_name: Option<String>,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let common_name = X509Certificate::from_der(der).ok().and_then(|(_, certificate)| {
            let mut names = certificate.subject().iter_common_name();
            let name = names.next()?.as_str().ok()?.to_owned();
            // Of two names it can't be said which the rules mean.
            names.next().is_none().then_some(name)
        });
        Self { common_name, fingerprint: hex(&sha256(der)) }
    }
}

/// Whom a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    Uid(u32),
    Gid(u32),
    Token(String),
    CommonName(String),
    Fingerprint(String),
    TokenOrCommonName(String),
}

#[derive(Clone, Debug)]
struct Rule {
    whom: Whom,
    role: Role,
    projects: Projects,
}

struct Token {
    name: String,
    digest: [u8; 32],
}

/// The rules and the tokens.
pub struct Access {
    rules: Vec<Rule>,
    tokens: Vec<Token>,
    /// The user that the daemon began as; whoever can be that user can read its state anyway.
    own_uid: u32,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("rules", &self.rules).field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the rules and the file of tokens.
    ///
    /// # Errors
    /// A rule or a line can't be understood, or others can read the file.
    pub fn load(rules: &[AccessRule], tokens_file: Option<&Path>) -> Result<Self, Error> {
        let rules = rules
            .iter()
            .map(|rule| Ok(Rule { whom: whom(&rule.name)?, role: rule.role, projects: Projects::of(&rule.projects) }))
            .collect::<Result<_, Error>>()?;
        let tokens = tokens_file.map(read_tokens).transpose()?.unwrap_or_default();
        Ok(Self { rules, tokens, own_uid: rustix::process::geteuid().as_raw() })
    }

    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Who calls.
    ///
    /// # Errors
    /// It can't be told, or no rule names that caller.
    pub fn identify(&self, peer: &Peer, authorization: Option<&HeaderValue>) -> Result<Caller, Problem> {
        if let Some(header) = authorization {
            let token = bearer(header).ok_or_else(|| {
                Problem::unauthenticated("the header Authorization holds no bearer token").of("Authorization")
            })?;
            let name = self
                .token(token)
                .ok_or_else(|| Problem::unauthenticated("the token is not known here").of("Authorization"))?;
            return self.caller(format!("token:{name}"), |whom| match whom {
                Whom::Token(named) | Whom::TokenOrCommonName(named) => named == name,
                _ => false,
            });
        }
        match peer {
            Peer::Unix { uid, gid, groups } => self.process(*uid, *gid, groups),
            Peer::Tcp { certificate: Some(certificate), .. } => self.certificate(certificate),
            Peer::Tcp { certificate: None, .. } => {
                Err(Problem::unauthenticated("neither a token nor a client certificate came with the request"))
            }
        }
    }

    fn process(&self, uid: u32, gid: u32, groups: &[u32]) -> Result<Caller, Problem> {
        let name = format!("uid:{uid}");
        if uid == 0 || uid == self.own_uid {
            return Ok(Caller { name, role: Role::Admin, projects: Projects::All });
        }
        self.caller(name, |whom| match whom {
            Whom::Uid(named) => *named == uid,
            Whom::Gid(named) => *named == gid || groups.contains(named),
            _ => false,
        })
    }

    fn certificate(&self, certificate: &Certificate) -> Result<Caller, Problem> {
        let name = match &certificate.common_name {
            Some(name) => format!("cn:{name}"),
            None => format!("sha256:{}", certificate.fingerprint),
        };
        self.caller(name, |whom| match whom {
            Whom::CommonName(named) | Whom::TokenOrCommonName(named) => certificate.common_name.as_ref() == Some(named),
            Whom::Fingerprint(named) => *named == certificate.fingerprint,
            _ => false,
        })
    }

    fn caller(&self, name: String, matches: impl Fn(&Whom) -> bool) -> Result<Caller, Problem> {
        match self.rules.iter().find(|rule| matches(&rule.whom)) {
            Some(rule) => Ok(Caller { name, role: rule.role, projects: rule.projects.clone() }),
            None => Err(Problem::unauthenticated(&format!("no access rule names {name}"))),
        }
    }

    fn token(&self, presented: &str) -> Option<&str> {
        let digest = sha256(presented.as_bytes());
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(token.name.as_str());
            }
        }
        found
    }
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn whom(name: &str) -> Result<Whom, Error> {
    let wrong = |what: &str| Error::Usage {
        what: format!("access rule {name:?}: {what}"),
        remedy: "write uid:N, gid:N, token:NAME, cn:NAME, sha256:HEX, or a name",
    };
    match name.split_once(':') {
        Some(("uid", number)) => number.parse().map(Whom::Uid).map_err(|_| wrong("is no number of a user")),
        Some(("gid", number)) => number.parse().map(Whom::Gid).map_err(|_| wrong("is no number of a group")),
        Some(("token", name)) if !name.is_empty() => Ok(Whom::Token(name.into())),
        Some(("cn", name)) if !name.is_empty() => Ok(Whom::CommonName(name.into())),
        Some(("sha256", text)) => {
            unhex(text).map(|digest| Whom::Fingerprint(hex(&digest))).ok_or_else(|| wrong("is no SHA-256"))
        }
        Some(_) => Err(wrong("is of no known kind")),
        None if name.is_empty() => Err(wrong("names nobody")),
        None => {
            Ok(unhex(name)
                .map_or_else(|| Whom::TokenOrCommonName(name.into()), |digest| Whom::Fingerprint(hex(&digest))))
        }
    }
}

fn read_tokens(path: &Path) -> Result<Vec<Token>, Error> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let unreadable = |source| Error::Output { path: path.into(), what: "cannot read the tokens in", source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & 0o007 != 0 {
        return Err(Error::Usage {
            what: format!("everybody can read the tokens in {}", path.display()),
            remedy: "chmod o-rwx the file, and make new tokens",
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(TOKENS_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    parse_tokens(&text).map_err(|(line, what)| Error::Usage {
        what: format!("{} line {line}: {what}", path.display()),
        remedy: "write one `name:token` or `name:sha256:HEX` a line; a token has 16 to 1024 printable characters",
    })
}

/// The tokens, or the line that can't be understood and why. Never a line's own text.
fn parse_tokens(text: &str) -> Result<Vec<Token>, (usize, &'static str)> {
    let mut tokens: Vec<Token> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, secret) = line.split_once(':').ok_or((number, "there is no `:`"))?;
        let digest = match secret.strip_prefix("sha256:") {
            Some(digest) => unhex(digest).ok_or((number, "the digest is no SHA-256 in hexadecimal"))?,
            None if !TOKEN_CHARACTERS.contains(&secret.len()) => {
                return Err((number, "the token is too short or long"));
            }
            None if !secret.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err((number, "the token has characters that a header can't hold"));
            }
            None => sha256(secret.as_bytes()),
        };
        if name.is_empty() || tokens.iter().any(|token| token.name == name) {
            return Err((number, "the name is empty, or stands twice"));
        }
        tokens.push(Token { name: name.into(), digest });
    }
    Ok(tokens)
}

/// By the library that TLS has in the process anyway.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(bytes))
        .and_then(|output| <[u8; 32]>::try_from(output.as_ref()).ok());
    // The suite's name says both that it is one of TLS 1.3 and which hash it has.
    hash.unwrap_or_else(|| unreachable!("TLS13_AES_128_GCM_SHA256 hashes with SHA-256"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A String takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Thirty-two bytes in hexadecimal of either case, with or without colons between.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "correct-horse-battery";

    fn rule(name: &str, role: Role, projects: &[&str]) -> AccessRule {
        AccessRule { name: name.into(), role, projects: projects.iter().map(ToString::to_string).collect() }
    }

    fn access(rules: &[AccessRule], tokens: &str) -> Access {
        let mut access = Access::load(rules, None).expect("the rules are right");
        access.tokens = parse_tokens(tokens).expect("the tokens are right");
        access.own_uid = 990;
        access
    }

    fn unix(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer::Unix { uid, gid, groups: groups.to_vec() }
    }

    fn tcp(certificate: Option<Certificate>) -> Peer {
        Peer::Tcp { address: IpAddr::from([127, 0, 0, 1]), certificate }
    }

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("the test writes headers")
    }

    #[test]
    fn a_process_is_known_by_its_user_or_any_of_its_groups() {
        let rules = [rule("uid:1000", Role::Read, &["a"]), rule("gid:50", Role::Operate, &["*"])];
        let access = access(&rules, "");
        let role = |peer: &Peer| access.identify(peer, None).map(|c| c.role).map_err(|p| p.status);
        assert_eq!(role(&unix(0, 0, &[])), Ok(Role::Admin));
        assert_eq!(role(&unix(990, 990, &[])), Ok(Role::Admin));
        assert_eq!(role(&unix(1000, 50, &[])), Ok(Role::Read), "the first rule decides");
        assert_eq!(role(&unix(1001, 50, &[])), Ok(Role::Operate));
        assert_eq!(role(&unix(1001, 1, &[2, 50])), Ok(Role::Operate));
        assert_eq!(role(&unix(1001, 1, &[2])), Err(401));
    }

    #[test]
    fn a_token_that_comes_along_decides_alone() {
        let rules = [rule("backup", Role::Read, &["a"])];
        let access = access(&rules, &format!("backup:{SECRET}\nunnamed:{SECRET}2\n"));
        let by = |peer: &Peer, text: &str| {
            access.identify(peer, Some(&header(text))).map(|c| (c.name, c.role)).map_err(|p| p.status)
        };
        let known = Ok(("token:backup".to_owned(), Role::Read));
        assert_eq!(by(&tcp(None), &format!("Bearer {SECRET}")), known);
        assert_eq!(by(&tcp(None), &format!("bearer {SECRET}")), known);
        assert_eq!(by(&unix(0, 0, &[]), &format!("Bearer {SECRET}")), known);
        assert_eq!(by(&unix(0, 0, &[]), "Bearer wrong"), Err(401));
        assert_eq!(by(&unix(0, 0, &[]), "Basic YTpi"), Err(401));
        assert_eq!(by(&tcp(None), &format!("Bearer {SECRET}2")), Err(401), "no rule names it");
        assert_eq!(access.identify(&tcp(None), None).map_err(|p| p.status), Err(401));
    }

    #[test]
    fn a_hashed_token_is_as_good() {
        let hashed = hex(&sha256(SECRET.as_bytes()));
        let access = access(&[rule("token:x", Role::Admin, &["*"])], &format!("# comment\n\nx:sha256:{hashed}\n"));
        assert!(access.identify(&tcp(None), Some(&header(&format!("Bearer {SECRET}")))).is_ok());
        assert!(access.identify(&tcp(None), Some(&header(&format!("Bearer {hashed}")))).is_err());
    }

    #[test]
    fn a_certificate_is_known_by_its_subject_or_fingerprint() {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no name is wrong");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "manila");
        let made = parameters.self_signed(&key).expect("it can be signed");
        let certificate = Certificate::of(made.der());
        assert_eq!(certificate.common_name.as_deref(), Some("manila"));

        let by = |name: &str| {
            let access = access(&[rule(name, Role::Operate, &["*"])], "");
            access.identify(&tcp(Some(certificate.clone())), None).is_ok()
        };
        assert!(by("manila") && by("cn:manila") && !by("token:manila") && !by("nova"));
        let fingerprint = certificate.fingerprint.clone();
        assert!(by(&fingerprint) && by(&format!("sha256:{}", fingerprint.to_uppercase())));
        assert!(!by(&format!("sha256:{}", "0".repeat(64))));
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        assert_eq!(Certificate::of(b"nonsense").common_name, None);
    }

    #[test]
    fn rules_and_lines_that_can_not_be_understood_are_refused() {
        for name in ["", "uid:x", "uid:-1", "gid:", "token:", "cn:", "sha256:00", "user:root"] {
            assert!(whom(name).is_err(), "{name:?}");
        }
        for line in ["plain", "a:short", ":0123456789abcdef", "a:sha256:12", "a:0123456789 abcdef"] {
            let found = parse_tokens(&format!("# first\n{line}")).map(|_| ());
            assert_eq!(found.map_err(|(line, _)| line), Err(2), "{line:?}");
        }
        assert!(parse_tokens("a:0123456789abcdef\na:0123456789abcdeg").is_err(), "a name stands twice");
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        std::fs::write(file.path(), "a:0123456789abcdef\n").expect("it can be written");
        let load = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).expect("the mode can be set");
            Access::load(&[], Some(file.path())).map(|access| access.tokens.len())
        };
        assert_eq!(load(0o640).ok(), Some(1));
        assert!(load(0o644).is_err());
    }

    #[test]
    fn sha256_is_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&sha256(b"")), empty);
        assert_eq!(unhex(empty), Some(sha256(b"")));
    }

    proptest! {
        #[test]
        fn no_line_of_tokens_panics(text in "\\PC{0,80}") {
            let _ = parse_tokens(&text);
            let _ = whom(&text);
        }
    }
}
