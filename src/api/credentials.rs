//! Secrets for the mounts of jobs, by name: written, never read again, and kept in memory only.
//!
//! A restart forgets them, and a control plane puts them again. They are wiped when they are
//! replaced or removed, and no text form of anything here holds one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::backend::Role;
use super::input::{Json, Name, Query, Who};
use super::page::OfProject;
use super::problem::{Kind, Problem};

/// Secrets of one project.
pub const OF_A_PROJECT_MAX: usize = 1000;
/// Characters of a user's name or a secret: more than any server takes.
const CHARACTERS_MAX: usize = 1024;

/// A secret and whose it is.
#[derive(Clone, Debug)]
pub struct Credential {
    pub user: Option<String>,
    pub secret: SecretString,
}

/// All secrets, by project and name.
#[derive(Debug, Default)]
pub struct Credentials {
    kept: Mutex<BTreeMap<(String, String), Arc<Credential>>>,
}

impl Credentials {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Credential>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The secret of that name, for a run that needs it.
    #[must_use]
    pub fn get(&self, project: &str, name: &str) -> Option<Arc<Credential>> {
        self.kept().get(&(project.into(), name.into())).map(Arc::clone)
    }

    /// Keeps it, and says whether there was none before; `None` where the project has too many.
    fn put(&self, project: &str, name: &str, credential: Credential) -> Option<bool> {
        let mut kept = self.kept();
        let key = (project.to_owned(), name.to_owned());
        let new = !kept.contains_key(&key);
        if new && kept.keys().filter(|(of, _)| of == project).count() >= OF_A_PROJECT_MAX {
            return None;
        }
        kept.insert(key, Arc::new(credential));
        Some(new)
    }

    fn remove(&self, project: &str, name: &str) -> bool {
        self.kept().remove(&(project.into(), name.into())).is_some()
    }

    fn names(&self, project: &str) -> Vec<String> {
        self.kept().keys().filter(|(of, _)| of == project).map(|(_, name)| name.clone()).collect()
    }
}

/// A secret to keep.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutCredential {
    /// Whose secret it is, where the server asks for that.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 1024)]
    user: Option<String>,
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String, format = Password, min_length = 1, max_length = 1024, write_only)]
    secret: SecretString,
}

impl std::fmt::Debug for PutCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutCredential").finish_non_exhaustive()
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The names of the secrets of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialNames {
    pub credentials: Vec<String>,
}

/// Keep a secret.
///
/// It can't be read again by anybody, and a restart of the daemon forgets it.
#[utoipa::path(put, path = "/v1/credentials/{name}", tag = "credentials", operation_id = "put_credential",
    params(("name" = String, Path, description = "The secret's name", pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"), OfProject),
    request_body = PutCredential,
    responses((status = 201, description = "Kept"), (status = 204, description = "Kept in place of the one before"),
        (status = 429, description = "The project has too many secrets", body = Problem,
            content_type = "application/problem+json")))]
pub async fn put(
    State(shared): State<Shared>,
    who: Who,
    Name(name): Name,
    mut query: Query,
    body: Json,
) -> Result<Response, Problem> {
    let project = query.project()?;
    query.end()?;
    who.may(Role::Operate, &project)?;
    let parsed: Result<PutCredential, Problem> = body.parse();
    // What the parser says may quote the value, and a field that is not known may be one.
    let put = parsed.map_err(|problem| Problem {
        detail: "the body is not as it should be".into(),
        field: problem.field.filter(|field| ["user", "secret"].contains(&field.as_str())),
        ..problem
    })?;
    for (field, text) in [("secret", Some(put.secret.expose_secret())), ("user", put.user.as_deref())] {
        if text.is_some_and(|text| !(1..=CHARACTERS_MAX).contains(&text.chars().count())) {
            return Err(Problem::invalid(field, format!("it has 1 to {CHARACTERS_MAX} characters")));
        }
    }
    let credential = Credential { user: put.user, secret: put.secret };
    // The request's own copy, if nobody else holds it.
    if let Ok(mut bytes) = body.0.try_into_mut() {
        bytes.as_mut().zeroize();
    }
    match shared.credentials.put(&project, &name, credential) {
        Some(true) => Ok(StatusCode::CREATED.into_response()),
        Some(false) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(Problem::new(
            Kind::TooMany,
            format!("the project has {OF_A_PROJECT_MAX} secrets"),
            "remove those that no job needs any more",
        )),
    }
}

/// The names of the secrets of a project; never a secret.
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials", operation_id = "list_credentials", params(OfProject),
    responses((status = 200, description = "The names", body = CredentialNames)))]
pub async fn list(
    State(shared): State<Shared>,
    who: Who,
    mut query: Query,
) -> Result<axum::Json<CredentialNames>, Problem> {
    let project = query.project()?;
    query.end()?;
    who.may(Role::Operate, &project)?;
    Ok(axum::Json(CredentialNames { credentials: shared.credentials.names(&project) }))
}

/// Forget a secret.
#[utoipa::path(delete, path = "/v1/credentials/{name}", tag = "credentials", operation_id = "delete_credential",
    params(("name" = String, Path, description = "The secret's name", pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"), OfProject),
    responses((status = 204, description = "Forgotten")))]
pub async fn delete(
    State(shared): State<Shared>,
    who: Who,
    Name(name): Name,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    let project = query.project()?;
    query.end()?;
    who.may(Role::Operate, &project)?;
    if shared.credentials.remove(&project, &name) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("secret"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(secret: &str) -> Credential {
        Credential { user: None, secret: SecretString::from(secret) }
    }

    #[test]
    fn secrets_of_different_projects_never_meet() {
        let all = Credentials::default();
        assert_eq!(all.put("a", "x", credential("one")), Some(true));
        assert_eq!(all.put("b", "x", credential("two")), Some(true));
        assert_eq!(all.put("a", "x", credential("three")), Some(false));
        let of = |project| all.get(project, "x").map(|c| c.secret.expose_secret().to_owned());
        assert_eq!((of("a").as_deref(), of("b").as_deref(), of("c")), (Some("three"), Some("two"), None));
        assert_eq!(all.names("a"), ["x"]);
        assert!(all.remove("a", "x") && !all.remove("a", "x"));
    }

    #[test]
    fn no_text_form_holds_a_secret() {
        let all = Credentials::default();
        all.put("a", "x", credential("hunter2"));
        assert!(!format!("{all:?}").contains("hunter2"));
        let put: PutCredential = serde_json::from_str(r#"{"secret":"hunter2"}"#).expect("it is right");
        assert!(!format!("{put:?}").contains("hunter2"));
    }

    #[test]
    fn a_project_has_a_bound() {
        let all = Credentials::default();
        for number in 0..OF_A_PROJECT_MAX {
            assert_eq!(all.put("a", &number.to_string(), credential("s")), Some(true));
        }
        assert_eq!(all.put("a", "one too many", credential("s")), None);
        assert_eq!(all.put("a", "0", credential("s")), Some(false), "an old one can be replaced");
        assert_eq!(all.put("b", "x", credential("s")), Some(true));
    }
}
