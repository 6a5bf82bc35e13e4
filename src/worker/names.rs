//! Names are bytes, JSON is text: a name that is UTF-8 is `name`, any other `name_b64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A pair of optional fields that hold one name.
macro_rules! in_two_forms {
    ($(#[$doc:meta])* $type:ident, $text:ident, $coded:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $type {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            $text: Option<String>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            $coded: Option<String>,
        }

        impl From<&[u8]> for $type {
            fn from(bytes: &[u8]) -> Self {
                let ($text, $coded) = text_or_base64(bytes);
                Self { $text, $coded }
            }
        }

        impl $type {
            /// The bytes; none where the line has no such name, or one that is damaged.
            #[must_use]
            pub fn bytes(&self) -> Vec<u8> {
                bytes(self.$text.as_deref(), self.$coded.as_deref()).ok().flatten().unwrap_or_default()
            }
        }
    };
}

in_two_forms!(
    /// A path from the root.
    Name, name, name_b64
);
in_two_forms!(
    /// The path of the source's root.
    SourceName, source, source_b64
);
in_two_forms!(
    /// The path of the destination's root.
    DestinationName, destination, destination_b64
);

/// The two forms of a name, of which one is there.
#[must_use]
pub fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// The name in the two forms, if there is one.
///
/// # Errors
/// What is wrong, in words: both are there, or the second is no base64.
pub fn bytes(text: Option<&str>, coded: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    match (text, coded) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(coded)) => STANDARD.decode(coded).map(Some).map_err(|e| format!("no standard base64: {e}")),
        (Some(_), Some(_)) => Err("a name stands there both as text and as base64".into()),
    }
}
