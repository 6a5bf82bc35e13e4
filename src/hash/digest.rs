//! A digest and the rule it was made by: what manifests, reports and the store carry.

/// How a digest was made; two digests are comparable only where this is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum DigestKind {
    /// The standard BLAKE3 hash of all bytes: what b3sum prints.
    #[serde(rename = "b3")]
    Blake3,
    /// BLAKE3 over the size and the non-zero blocks, defined at [`crate::hash`].
    #[serde(rename = "b3-nonzero")]
    Blake3Nonzero,
}

impl DigestKind {
    /// The word that manifests and share digests carry.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blake3 => "b3",
            Self::Blake3Nonzero => "b3-nonzero",
        }
    }

    /// The kind of a word; `None` for a word of no kind.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Blake3, Self::Blake3Nonzero].into_iter().find(|kind| kind.word() == word)
    }
}

/// A file's digest: 32 bytes and their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    pub kind: DigestKind,
    pub bytes: [u8; 32],
}

/// A text is no digest in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash is not 64 lower-case hexadecimal digits")]
pub struct HexError;

impl Digest {
    /// The standard digest of bytes that are all in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { kind: DigestKind::Blake3, bytes: blake3::hash(bytes).into() }
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.bytes)
    }

    /// The digest of this kind that `text` spells.
    ///
    /// # Errors
    /// [`HexError`] for anything but 64 lower-case digits; b3sum refuses capitals too.
    pub fn from_hex(kind: DigestKind, text: &[u8]) -> Result<Self, HexError> {
        Ok(Self { kind, bytes: from_hex(text)? })
    }
}

/// 32 bytes as 64 lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

/// The 32 bytes that 64 lower-case hexadecimal digits spell.
pub(super) fn from_hex(text: &[u8]) -> Result<[u8; 32], HexError> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Err(HexError);
    }
    blake3::Hash::from_hex(text).map(Into::into).map_err(|_| HexError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_out_and_comes_in_again() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(Digest::from_hex(DigestKind::Blake3, digest.hex().as_bytes()), Ok(digest));
    }

    #[test]
    fn hex_of_another_form_is_refused() {
        let good = Digest::of(b"abc").hex();
        for bad in [&good[1..], &format!("{good}0"), &good.to_uppercase(), &good.replace('6', "g"), ""] {
            assert_eq!(Digest::from_hex(DigestKind::Blake3, bad.as_bytes()), Err(HexError), "{bad}");
        }
    }

    #[test]
    fn kinds_have_the_words_of_the_contract_in_every_form() {
        for (kind, word) in [(DigestKind::Blake3, "b3"), (DigestKind::Blake3Nonzero, "b3-nonzero")] {
            assert_eq!(kind.word(), word);
            assert_eq!(DigestKind::from_word(word), Some(kind));
            assert_eq!(serde_json::to_string(&kind).ok(), Some(format!("\"{word}\"")));
        }
        assert_eq!(DigestKind::from_word("b4"), None);
    }
}
