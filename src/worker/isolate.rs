//! What a worker gives up before it does anything (`copyd worker --isolated`): everything that no run ever needs.
//!
//! The engine confines itself once its roots are open ([`crate::pass::confine`]). Before that it has opened them,
//! and read a state; and what is confined by Landlock still sees the names of everything else. So a worker that
//! somebody starts for others begins with this, while it has one thread:
//!
//! | measure | takes away |
//! |---|---|
//! | descriptors, environment, groups, keyring | what whoever started it had, and left open or lying about |
//! | mount namespace with [`sys::show_only`] | every name but those of the job; writing at the source, even metadata |
//! | network, IPC and UTS namespace | every address, even those of this machine; or all but those of the job's network |
//! | capabilities, also the bounding set | all beyond the engine's most ([`capabilities_max`]) |
//! | seccomp | the calls that the engine never makes ([`sys::bar_calls`]), io_uring not yet |
//!
//! No PID namespace: it would hold children only, and the supervisor is to know the process that does the work.
//! No cgroup namespace: it would hide the group's share of the processors, by which threads are counted. No user
//! namespace: owners are copied as numbers, and all of them.
//!
//! Where there is no right to something the worker goes on without it and names it (`missing` of the event
//! `confined`), but for a network that the job asked for: there it would reach what it must not.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::spec::{Kind, Specification};
use crate::error::{Error, Side};
use crate::escape::escape;
use crate::pass::capabilities_max;
use crate::store::StateDir;
use crate::sys::{self, Access, Namespace, Place};

/// What stays in the environment: how much is logged.
const VARIABLES: [&str; 2] = ["RUST_LOG", "RUST_BACKTRACE"];

/// How far it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolated {
    /// The namespaces that are its own, as `/proc/PID/ns` names them.
    pub namespaces: Vec<&'static str>,
    /// What could not be given up, each with its reason.
    pub missing: Vec<String>,
}

impl Isolated {
    fn note(&mut self, what: &str, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            self.missing.push(format!("{what}: {error}"));
        }
        result.is_ok()
    }

    fn leave(&mut self, namespace: Namespace) -> bool {
        let word = namespace.word();
        let left = self.note(&format!("a namespace of its own ({word})"), sys::leave(namespace));
        if left {
            self.namespaces.push(word);
        }
        left
    }
}

/// Takes the variables of whoever started this process away, and the descriptors that it left open. Comes first of
/// all, before a descriptor is this process's own.
pub fn forget_the_caller() -> Isolated {
    let mut isolated = Isolated::default();
    isolated.note("descriptors of the caller", sys::close_inherited());
    sys::clear_environment(&VARIABLES);
    isolated
}

/// Isolates this process for that work, for good. It has one thread.
///
/// # Errors
/// [`Error::Usage`] for relative paths, [`Error::Guard`] for a network namespace that can't be entered and for a
/// place behind a symlink below what is allowed, [`Error::Root`] and [`Error::State`] for a place that can't be opened.
pub fn isolate(isolated: &mut Isolated, specification: &Specification, network: Option<&OsStr>) -> Result<(), Error> {
    let places = places(specification)?;
    // Files in the /proc of a process that nobody may look into belong to root.
    let reads_own = rustix::process::geteuid().is_root() || has(DAC_READ_SEARCH);
    for (what, error) in sys::harden(reads_own) {
        isolated.note(what, Err(error));
    }
    if !reads_own {
        isolated.missing.push("no reads by the same user: it could not see its own threads then".into());
    }
    // Whoever has no right to leave his groups may need what they give.
    if has(SETGID) {
        isolated.note("no groups", sys::leave_groups());
    }
    match network {
        Some(name) => enter_network(name, isolated)?,
        None => drop(isolated.leave(Namespace::Network)),
    }
    isolated.leave(Namespace::Ipc);
    isolated.leave(Namespace::Uts);
    if isolated.leave(Namespace::Mount) {
        narrow_view(&places, specification, isolated)?;
    }
    drop_rights(isolated);
    Ok(())
}

/// Of `capabilities(7)`, as bits.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SETGID: u64 = 1 << 6;
const SETPCAP: u64 = 1 << 8;

fn has(capability: u64) -> bool {
    sys::effective_capabilities() & capability != 0
}

fn enter_network(name: &OsStr, isolated: &mut Isolated) -> Result<(), Error> {
    let entered = sys::network_named(name).and_then(|namespace| sys::enter_network(&namespace));
    entered.map_err(|error| Error::Guard {
        what: format!("the network namespace {} can't be entered: {error}", escape(name.as_encoded_bytes())),
        remedy: "make it first (ip netns add), or name another; entering one takes root's rights",
    })?;
    isolated.namespaces.push(Namespace::Network.word());
    Ok(())
}

fn narrow_view(places: &[Place], specification: &Specification, isolated: &mut Isolated) -> Result<(), Error> {
    if places.iter().any(|place| place.path == Path::new("/")) {
        isolated.missing.push("a view of the job's places alone: / itself is one".into());
        return Ok(());
    }
    match sys::show_only(places, specification.dry_run) {
        Ok(()) => Ok(()),
        // Before Linux 5.12. Nothing has been changed so far.
        Err((_, error)) if error.raw_os_error() == Some(libc::ENOSYS) => {
            isolated.note("a view of the job's places alone", Err(error));
            Ok(())
        }
        Err((path, error)) => Err(refusal(specification, path, error)),
    }
}

/// Why a place can't be brought into view.
fn refusal(specification: &Specification, path: PathBuf, error: io::Error) -> Error {
    let end = |side: Option<&super::spec::End>| side.and_then(|end| end.path("").ok());
    let what = "can't be taken into the view of the worker";
    if error.raw_os_error() == Some(libc::ELOOP) {
        return Error::Guard {
            what: format!("a symlink lies on the way to {}", super::escape_path(&path)),
            remedy: "name it by the path that the symlink leads to",
        };
    }
    let remedy = "check that the file system behind it answers (ls, dmesg)";
    let side = if end(specification.source.as_ref()).as_ref() == Some(&path) {
        Side::Source
    } else if end(Some(&specification.destination)).is_some_and(|end| end.starts_with(&path)) {
        Side::Destination
    } else {
        return Error::State { path, what, source: Some(Box::new(error)) };
    };
    Error::Root { side, path, what, remedy, source: Some(error) }
}

/// Drops capabilities beyond the engine's most, and the calls that it never makes. The right to drop from the
/// bounding set stays until the engine confines itself, which drops more from it.
fn drop_rights(isolated: &mut Isolated) {
    let refused = sys::narrow_every_thread(sys::Narrowing { keep: capabilities_max() | SETPCAP, ruleset: None });
    if refused != sys::Refused::default() {
        isolated.missing.push("capabilities: refused".into());
    }
    isolated.note("seccomp", sys::bar_calls(true));
}

/// Where the work takes place.
fn places(specification: &Specification) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    let inspects = specification.kind == Kind::Inspect;
    let writes = !inspects && specification.kind != Kind::Verify && !specification.dry_run;
    let access = |writes| if writes { Access::Write } else { Access::Read };
    let allowed = specification.allowed()?;
    if let Some(source) = &specification.source {
        places.extend(place(source.path("source")?, Access::Read, &allowed));
    }
    if !inspects {
        let path = specification.destination.path("destination")?;
        let parent = path.parent().map(Path::to_owned);
        let destination = place(path, access(writes), &allowed);
        // One that is missing is made, so its parent has to be there.
        let missing = |place: &Place| place.hold().is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT));
        places.extend(match (destination, parent) {
            (Some(wanted), Some(parent)) if missing(&wanted) => place(parent, wanted.access, &allowed),
            (destination, _) => destination,
        });
    }
    if writes || inspects {
        let state = StateDir::resolve(specification.state_path()?.as_deref())?;
        let inside = places.iter().any(|place| state.starts_with(&place.path));
        if writes && state.is_absolute() && !inside {
            // Where it lies inside a root the engine refuses it, and nothing is made there.
            StateDir::open(&state)?;
        }
        places.push(Place::trusted(&state, Access::Write));
    }
    if let Some(manifest) = specification.manifest_path()? {
        let written = specification.kind != Kind::Verify || specification.source.is_some();
        places.push(Place::trusted(manifest.parent().unwrap_or(Path::new("")), access(written)));
    }
    let plain = |path: &Path| path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    match places.iter().find(|place| !plain(&place.path)) {
        Some(place) => Err(Error::Usage {
            what: format!("the path {} is not absolute, or has a `..` in it", super::escape_path(&place.path)),
            remedy: "an isolated worker has no working directory: name the place from / on",
        }),
        None => Ok(places),
    }
}

/// A root, of which only the beginning that is allowed is to be trusted; none where it lies outside of what is
/// allowed, which the engine refuses. Without a list the caller's own rights are the bound.
fn place(path: PathBuf, access: Access, allowed: &[PathBuf]) -> Option<Place> {
    if allowed.is_empty() {
        return Some(Place::trusted(&path, access));
    }
    let holders = allowed.iter().filter(|holder| path.starts_with(holder));
    let trusted = holders.max_by_key(|holder| holder.components().count())?.clone();
    Some(Place { path, access, trusted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(specification: &Specification) -> Result<Vec<(PathBuf, Access)>, Error> {
        places(specification).map(|places| places.into_iter().map(|place| (place.path, place.access)).collect())
    }

    #[test]
    fn a_job_sees_its_roots_its_state_and_the_place_of_its_manifest() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        std::fs::create_dir(at("parent")).unwrap();
        let state = at("state");
        let copy = Specification::new(Kind::Sync, Some(&at("source")), &at("parent/destination"))
            .with_state_dir(Some(&state))
            .with_manifest(Some(&at("lists/manifest")));
        let wanted = [
            (at("source"), Access::Read),
            (at("parent"), Access::Write),
            (state.clone(), Access::Write),
            (at("lists"), Access::Write),
        ];
        assert_eq!(paths(&copy).unwrap(), wanted);
        assert!(state.is_dir(), "it was made");
        std::fs::create_dir(at("parent/destination")).unwrap();
        assert_eq!(paths(&copy).unwrap()[1], (at("parent/destination"), Access::Write), "it stands");
        let check = Specification::new(Kind::Verify, None, &at("parent")).with_manifest(Some(&at("lists/manifest")));
        assert_eq!(paths(&check).unwrap(), [(at("parent"), Access::Read), (at("lists"), Access::Read)]);
    }

    #[test]
    fn a_relative_path_is_refused_and_no_state_is_made_inside_a_root() {
        let relative = Specification::new(Kind::Verify, Some(Path::new("source")), Path::new("/destination"));
        assert!(matches!(paths(&relative), Err(Error::Usage { .. })));
        let room = tempfile::tempdir().unwrap();
        let state = room.path().join("state");
        let inside =
            Specification::new(Kind::Sync, Some(room.path()), Path::new("/destination")).with_state_dir(Some(&state));
        paths(&inside).unwrap();
        assert!(!state.exists());
    }

    #[test]
    fn of_a_list_of_allowed_directories_the_longest_that_holds_a_root_is_trusted_and_others_are_not_in_view() {
        let allowed = ["/srv", "/srv/a"].map(PathBuf::from);
        let trusted = |path: &str| place(path.into(), Access::Read, &allowed).map(|place| place.trusted);
        assert_eq!(trusted("/srv/a/b"), Some("/srv/a".into()));
        assert_eq!(trusted("/srv/ab"), Some("/srv".into()));
        assert_eq!(trusted("/srvs"), None);
    }
}
