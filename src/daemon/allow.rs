//! What jobs may touch: the allow-lists as pure functions over words.
//!
//! The same lists are asked twice: by the API, which refuses early, and by the spawner, whose answer holds. Nothing
//! here looks at a file system. Whoever looked would touch a tenant's tree, could hang there, and would see
//! something else than the worker sees a moment later. So a path is judged by its words alone: absolute, without
//! `..`, and component by component at or below one of the roots. That a symlink on the way leads elsewhere is the
//! worker's business: it is given the root beside the path ([`Granted::within`]), and opens the one beneath the
//! other without following any.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::config;

/// The lists, checked once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    roots: Vec<PathBuf>,
    namespaces: Vec<String>,
    projects: Vec<String>,
}

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub project: &'a str,
    /// Directories of this machine, of either side.
    pub paths: &'a [&'a Path],
    pub namespaces: &'a [&'a str],
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The roots that its paths lie in, each once.
    pub within: Vec<PathBuf>,
}

/// Why it is refused: in words, with what an administrator can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotAllowed {
    pub what: String,
    pub remedy: String,
}

impl Allowed {
    /// Checks the lists of the settings.
    ///
    /// # Errors
    /// What is wrong with an entry.
    pub fn new(lists: &config::Allow) -> Result<Self, String> {
        for root in &lists.local_roots {
            if !is_plain(root) {
                return Err(format!("allow.local_roots: {} is not an absolute path without \"..\"", root.display()));
            }
        }
        for name in &lists.network_namespaces {
            if !is_name(name) {
                return Err(format!("allow.network_namespaces: {name:?} is no name in /run/netns"));
            }
        }
        let roots = lists.local_roots.iter().map(|root| root.components().collect()).collect();
        Ok(Self { roots, namespaces: lists.network_namespaces.clone(), projects: lists.projects.clone() })
    }

    /// Judges what is asked for.
    ///
    /// # Errors
    /// The first thing that is not allowed.
    pub fn judge(&self, asked: Asked<'_>) -> Result<Granted, NotAllowed> {
        self.project(asked.project)?;
        for namespace in asked.namespaces {
            self.namespace(namespace)?;
        }
        let within: BTreeSet<&Path> = asked.paths.iter().map(|path| self.root_of(path)).collect::<Result<_, _>>()?;
        Ok(Granted { within: within.into_iter().map(Path::to_owned).collect() })
    }

    /// The root that a path lies in; of several, the innermost.
    fn root_of(&self, path: &Path) -> Result<&Path, NotAllowed> {
        if !is_plain(path) {
            return Err(NotAllowed {
                what: format!("{} is not an absolute path without \"..\"", shown(path)),
                remedy: "write the path from / on, as it is".into(),
            });
        }
        let above = self.roots.iter().filter(|root| path.starts_with(root));
        above.max_by_key(|root| root.components().count()).map(PathBuf::as_path).ok_or_else(|| NotAllowed {
            what: format!("{} lies in none of the directories that jobs may use", shown(path)),
            remedy: "name a directory above it under [allow] local_roots in copyd.toml, and restart copyd".into(),
        })
    }

    fn namespace(&self, name: &str) -> Result<(), NotAllowed> {
        if is_name(name) && self.namespaces.iter().any(|allowed| allowed == name) {
            return Ok(());
        }
        Err(NotAllowed {
            what: format!("the network namespace {name:?} is none that jobs may use"),
            remedy: "name it under [allow] network_namespaces in copyd.toml, and restart copyd".into(),
        })
    }

    fn project(&self, name: &str) -> Result<(), NotAllowed> {
        if self.projects.iter().any(|allowed| allowed == "*" || allowed == name) {
            return Ok(());
        }
        Err(NotAllowed {
            what: format!("the project {name:?} is none that jobs may belong to"),
            remedy: "name it under [allow] projects in copyd.toml, and restart copyd".into(),
        })
    }
}

/// Absolute, and without a step up: then its words say where it lies, apart from symlinks.
fn is_plain(path: &Path) -> bool {
    let no_nul = !path.as_os_str().as_encoded_bytes().contains(&0);
    path.is_absolute() && no_nul && path.components().all(|part| !matches!(part, Component::ParentDir))
}

/// A name in a directory.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

fn shown(path: &Path) -> String {
    crate::worker::escape_path(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(roots: &[&str]) -> Allowed {
        let lists = config::Allow {
            local_roots: roots.iter().map(PathBuf::from).collect(),
            network_namespaces: vec!["tenant-a".into()],
            projects: vec!["default".into()],
            ..Default::default()
        };
        Allowed::new(&lists).expect("good lists")
    }

    fn root(lists: &Allowed, path: &str) -> Option<String> {
        lists.root_of(Path::new(path)).ok().map(|root| root.display().to_string())
    }

    #[test]
    fn without_roots_no_path_is_allowed() {
        let nothing = allowed(&[]);
        for path in ["/", "/srv", "/srv/a", ""] {
            assert_eq!(root(&nothing, path), None, "{path}");
        }
    }

    #[test]
    fn a_path_is_compared_by_whole_components() {
        let lists = allowed(&["/srv/shares", "/srv/shares/inner/"]);
        for (path, expected) in [
            ("/srv/shares", Some("/srv/shares")),
            ("/srv/shares/a/b", Some("/srv/shares")),
            ("/srv//shares/./a", Some("/srv/shares")),
            ("/srv/shares/inner/x", Some("/srv/shares/inner")),
            ("/srv/shares/innermost", Some("/srv/shares")),
            ("/srv/sharesecret", None),
            ("/srv", None),
            ("/srv/shares/../other", None),
            ("/srv/shares/..", None),
            ("srv/shares/a", None),
            ("", None),
            ("/srv/shares/a\0", None),
        ] {
            assert_eq!(root(&lists, path).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn every_part_of_a_request_must_be_allowed() {
        let lists = allowed(&["/srv/a", "/srv/b"]);
        let (a, b, c) = (Path::new("/srv/a/1"), Path::new("/srv/b/1"), Path::new("/srv/c"));
        let ask =
            |project: &str, paths: &[&Path], namespaces: &[&str]| lists.judge(Asked { project, paths, namespaces });
        let granted = ask("default", &[a, b, a], &["tenant-a"]).expect("all of it is allowed");
        assert_eq!(granted.within, [PathBuf::from("/srv/a"), PathBuf::from("/srv/b")]);
        for refused in [
            ask("default", &[a, c], &[]),
            ask("default", &[a], &["tenant-b"]),
            ask("default", &[a], &["../netns/tenant-a"]),
            ask("other", &[a], &[]),
            ask("*", &[a], &[]),
        ] {
            let refused = refused.expect_err("refused");
            assert!(!refused.what.is_empty() && !refused.remedy.is_empty());
        }
    }

    proptest! {
        /// Whatever is written, what is granted lies at or below the root by the plain reading of its words:
        /// the root's components are the first ones, and no step leads up.
        #[test]
        fn what_is_granted_lies_below_its_root(
            path in "(/|\\.|\\.\\.|a|b|ab|a/b|//|\\x00|é|\n){0,12}",
            roots in proptest::collection::vec("(/a|/b|/ab|/a/b|/){1,2}", 0..3),
        ) {
            let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
            let lists = allowed(&roots);
            let words = |text: &str| -> Vec<String> {
                text.split('/').filter(|word| !word.is_empty() && *word != ".").map(str::to_owned).collect()
            };
            let below = |root: &str| words(&path).starts_with(&words(root));
            let plain = path.starts_with('/') && !path.contains('\0') && !words(&path).contains(&"..".to_owned());
            let expected = plain && roots.iter().any(|root| below(root));
            match root(&lists, &path) {
                Some(root) => prop_assert!(expected && below(&root), "{path:?} {root:?}"),
                None => prop_assert!(!expected, "{path:?} {roots:?}"),
            }
        }
    }
}
