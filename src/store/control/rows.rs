//! What is kept of entries: those that failed in the last pass, and examples of what the destination can't hold.

use serde::{Deserialize, Serialize};

use crate::error::{Class, Side};
use crate::fidelity::LossClass;

/// An entry that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// In the order in which they came; the marker of a page. 0 in a row that is not stored yet.
    pub n: u64,
    pub pass: u32,
    pub class: Class,
    pub side: Side,
    pub operation: String,
    /// Relative to the root, as the file system gave it.
    pub path: Vec<u8>,
    pub error: Option<String>,
}

/// How many entries of one class failed in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureCount {
    pub pass: u32,
    pub class: Class,
    pub entries: u64,
}

/// An example of what the destination can't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossRow {
    pub class: LossClass,
    pub path: Vec<u8>,
    pub detail: String,
}

/// The word of a class or side, as JSON has it.
pub(super) fn word(value: &impl Serialize) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Err(rusqlite::Error::ToSqlConversionFailure(format!("{other} is no word").into())),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    }
}

/// The value of such a word.
pub(super) fn of_word<T: for<'a> Deserialize<'a>>(column: usize, word: String) -> rusqlite::Result<T> {
    serde_json::from_value(serde_json::Value::String(word)).map_err(|error| unreadable(column, error))
}

/// The error of a column that holds what was never written there.
pub(super) fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
