//! The directory that holds the state of command-line jobs.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::database::call_failed;
use crate::error::Error;

/// A state directory that only this user and root can write.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Where the state lies: `explicit` (`--state-dir`), else the first of `$STATE_DIRECTORY` (which
    /// systemd sets, see systemd.exec(5)), else as root `/var/lib/copyd`, else `copyd` below
    /// `$XDG_STATE_HOME` or `~/.local/state`. Nothing is created.
    ///
    /// # Errors
    /// [`Error::Usage`] when nothing names a place.
    pub fn resolve(explicit: Option<&Path>) -> Result<PathBuf, Error> {
        resolve_from(explicit, &|name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    /// Opens the directory, and creates it with its parents (mode 0700) where it is missing.
    ///
    /// # Errors
    /// [`Error::State`] when it can't be created or opened, or when someone else could write there:
    /// who can write the state can make copyd delete.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| call_failed(path, "can't be resolved", error))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| call_failed(&path, "can't be created", error))?;
        let metadata = std::fs::metadata(&path).map_err(|error| call_failed(&path, "can't be examined", error))?;
        let refuse = |what| Err(Error::State { path: path.clone(), what, source: None });
        if !metadata.is_dir() {
            return refuse("is not a directory");
        }
        if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
            return refuse("belongs to another user: give it to this one (chown), or name another with --state-dir");
        }
        if metadata.mode() & 0o022 != 0 {
            return refuse("can be written by others: close it to them (chmod go-w), or name another with --state-dir");
        }
        Ok(Self { path })
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn resolve_from(
    explicit: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    is_root: bool,
) -> Result<PathBuf, Error> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    // The XDG base directory specification and systemd alike: only absolute paths count.
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let systemd = variable("STATE_DIRECTORY").and_then(|list| {
        let first = list.as_bytes().split(|byte| *byte == b':').next()?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(first))).filter(|path| path.is_absolute())
    });
    if let Some(path) = systemd {
        return Ok(path);
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/copyd"));
    }
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("copyd")).ok_or_else(|| Error::Usage {
        what: "there is no place for the state: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set".into(),
        remedy: "name one with --state-dir",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn resolved(explicit: Option<&str>, variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(OsString::from);
        resolve_from(explicit.map(Path::new), &variable, is_root).ok()
    }

    #[test]
    fn the_state_directory_is_the_first_place_that_is_named() {
        let all = [("STATE_DIRECTORY", "/s/one:/s/two"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(resolved(Some("here"), &all, true), path("here"));
        assert_eq!(resolved(None, &all, true), path("/s/one"));
        assert_eq!(resolved(None, &all[1..], true), path("/var/lib/copyd"));
        assert_eq!(resolved(None, &all[1..], false), path("/x/copyd"));
        assert_eq!(resolved(None, &all[2..], false), path("/h/.local/state/copyd"));
        assert_eq!(
            resolved(None, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], false),
            path("/h/.local/state/copyd")
        );
        assert_eq!(resolved(None, &[("STATE_DIRECTORY", "")], false), None);
    }
}
