//! Paths of the API, with what callers name in them percent-encoded (RFC 3986).

use std::fmt::Write as _;

use uuid::Uuid;

/// `/v1/jobs/{id}`, and `/{what}` behind it where there is one.
pub fn of_job(job: Uuid, what: &str) -> String {
    if what.is_empty() { format!("/v1/jobs/{job}") } else { format!("/v1/jobs/{job}/{what}") }
}

/// `/v1/groups/{name}?project=…`, and `/{what}` behind the name where there is one.
pub fn of_group(name: &str, what: &str, project: &str) -> String {
    let slash = if what.is_empty() { "" } else { "/" };
    Query::on(format!("/v1/groups/{}{slash}{what}", encoded(name.as_bytes()))).with("project", Some(project)).path()
}

/// A path that grows a query.
#[derive(Clone, Debug)]
pub struct Query {
    path: String,
    parts: usize,
}

impl Query {
    pub fn on(path: impl Into<String>) -> Self {
        Self { path: path.into(), parts: 0 }
    }

    /// Adds `name=value`, if there is a value.
    #[must_use]
    pub fn with(self, name: &str, value: Option<&str>) -> Self {
        self.with_bytes(name, value.map(str::as_bytes))
    }

    /// As [`Self::with`], for a value that need be no text.
    #[must_use]
    pub fn with_bytes(mut self, name: &str, value: Option<&[u8]>) -> Self {
        if let Some(value) = value {
            self.path.push(if self.parts == 0 { '?' } else { '&' });
            self.path.push_str(name);
            self.path.push('=');
            self.path.push_str(&encoded(value));
            self.parts += 1;
        }
        self
    }

    pub fn path(self) -> String {
        self.path
    }
}

/// Everything but unreserved characters becomes `%XX`.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_values_can_hold_anything() {
        assert_eq!(of_group("a/b ?#", "cutover", "ü"), "/v1/groups/a%2Fb%20%3F%23/cutover?project=%C3%BC");
        let query = Query::on("/v1/jobs").with("state", None).with("label", Some("a=b")).with("limit", Some("5"));
        assert_eq!(query.path(), "/v1/jobs?label=a%3Db&limit=5");
    }

    proptest! {
        #[test]
        fn every_value_comes_back_byte_for_byte(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = encoded(&value);
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"/?#&=+".contains(&b)));
            let mut back = Vec::new();
            let mut rest = text.as_bytes();
            while let Some((&byte, tail)) = rest.split_first() {
                if byte == b'%' {
                    back.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                    rest = &tail[2..];
                } else {
                    back.push(byte);
                    rest = tail;
                }
            }
            prop_assert_eq!(back, value);
        }
    }
}
