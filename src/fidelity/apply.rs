//! Setting metadata at the destination, in the order that keeps each step from undoing another.
//!
//! Owner first, because `chown` clears set-id bits and capabilities; then the mode; then the other
//! attributes and at last the ACLs; flags and project; times at the end, because everything before
//! moves them on one server or another. Only what differs is set: on a plain new file that is
//! owner, mode and times.

use super::loss::{LossClass, Losses};
use super::xattrs::{self, Step};
use super::{EntryOpError, Metadata, Rules, Xattrs, acl, flags, is_refusal};
use crate::sys::{self, Answer, EntryRef, Kind, Stat};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const OWNER_WRITE: u32 = 0o200;

/// Whether times are set with the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Set,
    /// The caller sets them later with [`set_times`]: a directory's, after its children.
    Later,
}

/// Sets on a new, empty file what has no effect once it holds data (copy on write, compression,
/// extent size). For an entry without such flags this makes no call.
///
/// # Errors
/// What says that the destination is in trouble.
pub fn prepare(
    entry: EntryRef<'_>,
    wanted: &Metadata,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    if wanted.stat.kind != Kind::File {
        return Ok(());
    }
    flags::apply_new(entry, Kind::File, &wanted.flags, flags::Stage::BeforeData, rules, losses)
}

/// Gives a new entry, which has inherited nothing, the source's metadata. `fresh` is its `stat`
/// as made: what is right already is not set again.
///
/// An entry that may have inherited an ACL or flags from its directory is for [`capture`] and
/// [`adjust`] instead.
///
/// [`capture`]: super::capture
///
/// # Errors
/// What says that the destination is in trouble; what it refuses is a loss.
pub fn apply(
    entry: EntryRef<'_>,
    wanted: &Metadata,
    fresh: &Stat,
    times: Times,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    let nothing = Xattrs::default();
    Setter { entry, wanted, rules, losses, mode_now: fresh.mode }.owner_mode_xattrs(fresh, &nothing)?;
    let kind = wanted.stat.kind;
    flags::apply_new(entry, kind, &wanted.flags, flags::Stage::WithMetadata, rules, losses)?;
    match times {
        Times::Set => set_times(entry, wanted, losses),
        Times::Later => Ok(()),
    }
}

/// Makes the metadata of an entry that stood at the destination before, or may have inherited
/// some, as the source's: sets what differs, removes what the source does not have. Immutable and
/// append-only are lifted first; [`apply_after_publish`] sets them again where the source has them.
///
/// # Errors
/// As [`apply`].
pub fn adjust(
    entry: EntryRef<'_>,
    wanted: &Metadata,
    have: &Metadata,
    times: Times,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    let kind = wanted.stat.kind;
    lift(entry, have)?;
    Setter { entry, wanted, rules, losses, mode_now: have.stat.mode }.owner_mode_xattrs(&have.stat, &have.xattrs)?;
    if flags::differ(&wanted.flags, &have.flags, kind, rules) {
        flags::apply(entry, kind, &wanted.flags, flags::Stage::WithMetadata, rules, losses)?;
    }
    if times == Times::Later || rules.destination.same_time(wanted.stat.mtime, have.stat.mtime) {
        return Ok(());
    }
    set_times(entry, wanted, losses)
}

/// Takes immutable and append-only from an entry of the destination, so that it can be changed,
/// replaced or removed. Without such flags this makes no call.
///
/// # Errors
/// `EPERM` without the right (`CAP_LINUX_IMMUTABLE`), and what says that the destination is in
/// trouble.
pub fn lift(entry: EntryRef<'_>, have: &Metadata) -> Result<(), EntryOpError> {
    flags::lift(entry, have.stat.kind, &have.flags)
}

/// Sets what forbids further changes: immutable and append-only. After the rename, for directories
/// after their children and their times. For an entry without such flags this makes no call.
///
/// # Errors
/// As [`apply`].
pub fn apply_after_publish(
    entry: EntryRef<'_>,
    wanted: &Metadata,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    flags::apply_new(entry, wanted.stat.kind, &wanted.flags, flags::Stage::AfterPublish, rules, losses)
}

/// Sets access and modification time. What the destination clamps in silence is found by
/// [`check_stat`](super::check_stat).
///
/// # Errors
/// As [`apply`].
pub fn set_times(entry: EntryRef<'_>, wanted: &Metadata, losses: &mut Losses) -> Result<(), EntryOpError> {
    match sys::set_times(entry, wanted.stat.atime, wanted.stat.mtime) {
        Err(e) if is_refusal(&e) => {
            losses.add(LossClass::Times, || e.to_string());
            Ok(())
        }
        other => other.map_err(|e| EntryOpError::new("set times", e)),
    }
}

/// What is known of the owner after it was set, or was not.
#[derive(Clone, Copy)]
struct Ownership {
    /// `chown` has changed something, and cleared set-id bits and capabilities with it.
    changed: bool,
    uid_right: bool,
    gid_right: bool,
}

/// One entry while its owner, mode and attributes are set.
struct Setter<'a, 'l> {
    entry: EntryRef<'a>,
    wanted: &'a Metadata,
    rules: &'a Rules<'a>,
    losses: &'l mut Losses,
    /// The mode that the entry has by now.
    mode_now: u32,
}

impl Setter<'_, '_> {
    fn owner_mode_xattrs(&mut self, have: &Stat, have_xattrs: &Xattrs) -> Result<(), EntryOpError> {
        let ownership = self.owner(have)?;
        let wanted_xattrs = &self.wanted.xattrs;
        if wanted_xattrs.is_empty() && have_xattrs.is_empty() {
            return self.mode(have, ownership, None);
        }
        let mut steps = xattrs::steps(wanted_xattrs, have_xattrs, self.rules.id_map);
        if ownership.changed {
            let capability = |xattr: &&super::Xattr| xattrs::class_of(&xattr.name) == LossClass::Capability;
            let present = |x: &super::Xattr| steps.iter().any(|step| matches!(step, Step::Set(s) if s.name == x.name));
            // `chown` took it away, however equal it was.
            let cleared = wanted_xattrs.iter().find(capability).filter(|xattr| !present(xattr));
            steps.extend(cleared.map(Step::Set));
        }
        let pending = steps.iter().find_map(|step| match step {
            Step::Set(xattr) if xattr.name.to_bytes() == acl::ACCESS => Some(&*xattr.value),
            _ => None,
        });
        self.mode(have, ownership, pending)?;
        self.xattrs(&steps)
    }

    /// Sets the owner, or what of it may be set.
    fn owner(&mut self, have: &Stat) -> Result<Ownership, EntryOpError> {
        let (source, id_map) = (&self.wanted.stat, self.rules.id_map);
        let (uid, gid) = (id_map.uid(source.uid), id_map.gid(source.gid));
        if (uid, gid) != (source.uid, source.gid) {
            let from = (source.uid, source.gid);
            self.losses.add(LossClass::OwnerMapped, || format!("{}:{} became {uid}:{gid}", from.0, from.1));
        }
        let change = ((uid != have.uid).then_some(uid), (gid != have.gid).then_some(gid));
        if change == (None, None) {
            return Ok(Ownership { changed: false, uid_right: true, gid_right: true });
        }
        let Some(error) = self.try_owner(change.0, change.1)? else {
            return Ok(Ownership { changed: true, uid_right: true, gid_right: true });
        };
        // Without the right to give files away, a member of the group may still set the group; and
        // one of the two may be an id that the destination does not know.
        let (uid_error, gid_error) = match change {
            (Some(_), Some(_)) => (self.try_owner(change.0, None)?, self.try_owner(None, change.1)?),
            (Some(_), None) => (Some(error), None),
            (None, _) => (None, Some(error)),
        };
        let changed = (change.0.is_some() && uid_error.is_none()) || (change.1.is_some() && gid_error.is_none());
        let ownership = Ownership { changed, uid_right: uid_error.is_none(), gid_right: gid_error.is_none() };
        if let Some(e) = uid_error {
            self.losses.add(LossClass::Owner, || format!("uid {uid} stays {}: {e}", have.uid));
        }
        if let Some(e) = gid_error {
            self.losses.add(LossClass::Group, || format!("gid {gid} stays {}: {e}", have.gid));
        }
        Ok(ownership)
    }

    /// One attempt; the error where it is refused.
    fn try_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<Option<std::io::Error>, EntryOpError> {
        match sys::set_owner(self.entry, uid, gid) {
            Ok(()) => Ok(None),
            Err(e) if is_refusal(&e) => Ok(Some(e)),
            Err(e) => Err(EntryOpError::new("set owner", e)),
        }
    }

    /// Sets the mode, narrowed while an access ACL (`pending`) is still to come.
    fn mode(&mut self, have: &Stat, ownership: Ownership, pending: Option<&[u8]>) -> Result<(), EntryOpError> {
        let kind = self.wanted.stat.kind;
        if kind == Kind::Symlink {
            return Ok(());
        }
        let mode = self.allowed_mode(ownership)?;
        // A directory keeps its bits when its owner changes; what has none to keep is as before.
        let cleared = ownership.changed && kind != Kind::Directory && mode & (SET_UID | SET_GID) != 0;
        if mode == have.mode && !cleared {
            return Ok(());
        }
        self.set_mode(pending.map_or(mode, |value| acl::narrowed_mode(value, mode)))
    }

    /// The source's mode without the set-id bits that would lend the rights of somebody else.
    ///
    /// Servers exist that ignore `chown` in silence: a set-id bit is given only to an entry whose
    /// owner was seen to be right.
    fn allowed_mode(&mut self, ownership: Ownership) -> Result<u32, EntryOpError> {
        let source = &self.wanted.stat;
        let mode = source.mode;
        if source.kind == Kind::Directory || mode & (SET_UID | SET_GID) == 0 {
            return Ok(mode);
        }
        let (mut uid_right, mut gid_right) = (ownership.uid_right, ownership.gid_right);
        if ownership.changed {
            let got = self.entry.stat().map_err(|e| EntryOpError::new("check owner", e))?;
            uid_right &= got.uid == self.rules.id_map.uid(source.uid);
            gid_right &= got.gid == self.rules.id_map.gid(source.gid);
        }
        let withheld = if uid_right { 0 } else { SET_UID } | if gid_right { 0 } else { SET_GID };
        if mode & withheld != 0 {
            self.losses.add(LossClass::Mode, || "set-id bits withheld: the owner could not be set".to_owned());
        }
        Ok(mode & !withheld)
    }

    fn set_mode(&mut self, mode: u32) -> Result<(), EntryOpError> {
        match sys::set_mode(self.entry, mode) {
            Ok(()) => {
                self.mode_now = mode;
                Ok(())
            }
            Err(e) if is_refusal(&e) => {
                let now = self.mode_now;
                self.losses.add(LossClass::Mode, || format!("{mode:04o} stays {now:04o}: {e}"));
                Ok(())
            }
            Err(e) => Err(EntryOpError::new("set mode", e)),
        }
    }

    /// Carries out the steps: other attributes first, ACLs last, because only they change the mode.
    fn xattrs(&mut self, steps: &[Step<'_>]) -> Result<(), EntryOpError> {
        let mode = self.mode_now;
        for step in steps.iter().filter(|step| !step.is_acl()) {
            self.step_writable(step)?;
        }
        if self.mode_now != mode {
            self.set_mode(mode)?;
        }
        for step in steps.iter().filter(|step| step.is_acl()) {
            let refused = self.step(step)?;
            if let (Step::Set(xattr), Some(error)) = (step, refused) {
                self.lose(&xattr.name, &error);
                self.narrow(xattr)?;
            }
        }
        Ok(())
    }

    /// One step. Without root's rights, `user.*` needs the permission to write, which a read-only
    /// file's mode takes from its own owner (`xattr(7)`): it is lent for the moment.
    fn step_writable(&mut self, step: &Step<'_>) -> Result<(), EntryOpError> {
        let mut refused = self.step(step)?;
        let lacking = self.mode_now & OWNER_WRITE == 0 && self.wanted.stat.kind != Kind::Symlink;
        if lacking && refused.as_ref().is_some_and(|e| e.raw_os_error() == Some(libc::EACCES)) {
            self.set_mode(self.mode_now | OWNER_WRITE)?;
            refused = self.step(step)?;
        }
        if let Some(error) = refused {
            self.lose(step.name(), &error);
        }
        Ok(())
    }

    /// One attempt; the error where it is refused.
    fn step(&self, step: &Step<'_>) -> Result<Option<std::io::Error>, EntryOpError> {
        let (operation, result) = match step {
            Step::Set(xattr) if self.rules.destination.xattrs => {
                let value = xattr.mapped(self.rules.id_map);
                ("set extended attribute", sys::set_xattr(self.entry, &xattr.name, &value))
            }
            Step::Set(_) => ("set extended attribute", Ok(Answer::Unsupported)),
            Step::Remove(name) => ("remove extended attribute", sys::remove_xattr(self.entry, name)),
        };
        match result {
            Ok(Answer::Done(())) => Ok(None),
            Ok(Answer::Unsupported) => Ok(Some(std::io::Error::from_raw_os_error(libc::EOPNOTSUPP))),
            Err(e) if xattrs::is_no_place(self.entry, &e) => Ok(Some(e)),
            Err(e) => Err(EntryOpError::new(operation, e)),
        }
    }

    fn lose(&mut self, name: &std::ffi::CStr, error: &std::io::Error) {
        xattrs::lose(self.losses, name, error);
    }

    /// After an access ACL was refused: the group may have no more than the ACL gave it.
    fn narrow(&mut self, xattr: &super::Xattr) -> Result<(), EntryOpError> {
        let narrowed = acl::narrowed_mode(&xattr.value, self.mode_now);
        if xattr.name.to_bytes() == acl::ACCESS && narrowed != self.mode_now {
            return self.set_mode(narrowed);
        }
        Ok(())
    }
}
