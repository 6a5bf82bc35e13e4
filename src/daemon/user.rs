//! The user that the daemon's API side runs as.

use std::ffi::CString;

use crate::error::Error;
use crate::sys;

/// A user of the system's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub id: u32,
    /// The primary group.
    pub group: u32,
}

/// Looks a user up.
///
/// # Errors
/// [`Error::Usage`] where there is none of that name, or the database can't be read.
pub fn user_of(name: &str) -> Result<User, Error> {
    let unknown = |why: String| Error::Usage {
        what: format!("daemon.user {name:?}: {why}"),
        remedy: "make the user (systemd-sysusers does, where the package's file is installed), or leave it out",
    };
    let coded = CString::new(name).map_err(|e| unknown(e.to_string()))?;
    match sys::user_ids(&coded) {
        Ok(Some((id, group))) => Ok(User { id, group }),
        Ok(None) => Err(unknown("there is no such user".into())),
        Err(error) => Err(unknown(error.to_string())),
    }
}

impl User {
    /// Becomes this user for good. To be called before there is a second thread.
    ///
    /// # Errors
    /// [`Error::Resources`] where the process may not.
    pub fn become_it(self) -> Result<(), Error> {
        sys::become_user(self.id, self.group)
            .map_err(|source| Error::Resources { what: "can't become the daemon's user", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_else_is_made_up() {
        assert_eq!(user_of("root").expect("there is root"), User { id: 0, group: 0 });
        for name in ["", "no-such-user-of-copyd", "a\0b"] {
            assert!(user_of(name).is_err(), "{name:?}");
        }
    }
}
