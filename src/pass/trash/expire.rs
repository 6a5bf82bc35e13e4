//! What was kept long enough goes, the oldest first and so much at a time.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::AtFlags;

use crate::error::{Error, Side};
use crate::limits;
use crate::sys;

use super::super::remove;
use super::super::setup::open_one;
use super::NAME;
use super::name::Stamp;
use super::record::{self, Line};
use super::restore::set_mtime;
use super::store::{Store, trash_error};

/// What an expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Generations that are gone whole.
    pub generations: u64,
    /// Entries that are gone, directories of the trash itself included.
    pub entries: u64,
    /// There was more to do than one run does.
    pub more: bool,
}

/// Removes generations older than `age`, at most [`limits::TRASH_EXPIRY_ENTRIES`] entries. Without an
/// age each generation's own counts, as its run was asked.
///
/// # Errors
/// Whatever opening or removing says; what went before stays gone.
pub fn expire(root: &OwnedFd, age: Option<Duration>, stopped: &dyn Fn() -> bool) -> io::Result<Expired> {
    let Some(store) = Store::open(root)? else { return Ok(Expired::default()) };
    let now_ms = Stamp::now_ms();
    let mut done = Expired::default();
    for stamp in store.generations()?.into_iter().rev() {
        let Some(age) = age.or_else(|| own_age(&store, &stamp)) else { continue };
        if !stamp.older_than(age, now_ms) {
            continue;
        }
        let name = CString::new(stamp.to_string())?;
        let mut go_on = || {
            let more = done.entries < limits::TRASH_EXPIRY_ENTRIES && !stopped();
            done.entries += u64::from(more);
            more
        };
        match remove::tree_while(store.directory().as_fd(), &name, &mut |_| {}, &mut go_on) {
            Ok(_) => done.generations += 1,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                done.more = true;
                break;
            }
            Err(e) => return Err(e),
        }
    }
    tidy(root, &store)?;
    Ok(done)
}

/// For how long the run that made a generation was asked to keep it.
fn own_age(store: &Store, stamp: &Stamp) -> Option<Duration> {
    let generation = store.generation(stamp).ok()?;
    record::lines(&generation).find_map(|line| match line {
        Line::Header { keep_s, .. } => Some(Duration::from_secs(keep_s)),
        _ => None,
    })
}

/// Removes the trash itself where nothing is left in it; the root keeps its times.
///
/// # Errors
/// Whatever removing says, but that something is left.
pub fn tidy(root: &OwnedFd, store: &Store) -> io::Result<()> {
    if !store.generations()?.is_empty() {
        return Ok(());
    }
    let mtime = sys::stat_fd(root)?.mtime;
    match rustix::fs::unlinkat(root, NAME, AtFlags::REMOVEDIR) {
        Ok(()) => set_mtime(root, mtime),
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// `copyd trash expire DST`.
///
/// # Errors
/// [`Error::Root`] and [`Error::Guard`] for a destination or a trash that can't be used.
pub fn expire_command(destination: &Path, age: Option<Duration>) -> Result<Expired, Error> {
    let root = open_one(destination, Side::Destination)?;
    let mut all = Expired::default();
    loop {
        let done = expire(&root, age, &|| false).map_err(|e| trash_error(destination, e))?;
        all.generations += done.generations;
        all.entries += done.entries;
        if !done.more {
            return Ok(all);
        }
    }
}
