//! Requests that may be sent again: the same key with the same request is answered as it was, and does nothing.

use rusqlite::{Connection, OptionalExtension, params};

/// The key under which a caller may send a request again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose key it is: two callers with the same one do not meet.
    pub scope: String,
    pub key: String,
    /// A digest of the request: what it is, and its body.
    pub fingerprint: [u8; 32],
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    New,
    /// It was answered so.
    Replay(String),
    /// It was used for another request.
    Reused,
}

pub(super) fn look_up(connection: &Connection, key: &Idempotency) -> rusqlite::Result<Keyed> {
    let found: Option<(Vec<u8>, String)> = connection
        .prepare_cached("SELECT fingerprint, answer FROM idempotency WHERE scope = ? AND key = ?")?
        .query_row(params![key.scope, key.key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match found {
        None => Keyed::New,
        Some((fingerprint, answer)) if fingerprint == key.fingerprint => Keyed::Replay(answer),
        Some(_) => Keyed::Reused,
    })
}

pub(super) fn keep(connection: &Connection, key: &Idempotency, answer: &str, now_ms: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO idempotency(scope, key, fingerprint, answer, at_ms) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![key.scope, key.key, key.fingerprint, answer, now_ms.cast_signed()])?;
    Ok(())
}
