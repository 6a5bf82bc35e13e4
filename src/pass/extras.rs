//! What only the destination has: which of it goes, and which of it is nobody's business.
//!
//! With `--delete` all of it goes. Without, only what an earlier run of the job put there, entry by
//! entry: a directory that the source no longer has may by now hold files of somebody else, and those
//! stay. So the tree below such a directory is held against the catalog before anything is planned.
//! A directory that is the job's own throughout goes as a whole; of any other its own parts go
//! (`--keep-extra`), or the run ends before the first deletion (43). What the filters leave out stays
//! in any case, and with it the directories above it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{EntryError, Error, Side};
use crate::limits;
use crate::store::{CatalogReader, DirectoryId, DirectoryRows, Facts};
use crate::sys::{self, Kind};
use crate::tree::filter::Verdict as Scope;
use crate::tree::listing::Names;

use super::Extras;
use super::directory::{Directory, Standing, Work};
use super::setup::foreign;
use super::state::Run;

/// What becomes of an extra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes, with everything below it.
    Remove,
    /// It stays for what others put into it, and is the job's own no longer.
    Forget,
}

/// An entry that only the destination has.
#[derive(Debug)]
pub struct Extra {
    /// The directory of the pass that is not finished before this is settled.
    pub node: Arc<Directory>,
    /// The directory that holds it, where that lies below `node` and the source does not have it.
    pub within: Option<Arc<Directory>>,
    pub name: CString,
    pub fate: Fate,
}

impl Extra {
    /// The directory that holds it.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        self.within.as_ref().unwrap_or(&self.node)
    }
}

/// One directory on the way through a tree that the source does not have.
struct Level {
    directory: Arc<Directory>,
    /// Entries that may go, if what is below them may.
    left: Vec<Left>,
    /// Something in it stays.
    mixed: bool,
    /// What of it goes.
    own: Vec<Extra>,
}

/// One of its entries. There can be millions.
struct Left {
    name: CString,
    kind: Kind,
    /// Under which its own entries stand in the catalog, where it is a directory that has any.
    id: DirectoryId,
}

/// What may go of a tree that the source does not have.
enum Own {
    /// All of it, as one.
    Whole,
    /// These parts, which may be none: something in it stays.
    Parts(Vec<Extra>),
}

/// Why the walk ended early.
enum Broken {
    Run(Error),
    Listing(Vec<u8>, io::Error),
}

impl Run<'_> {
    /// Puts an entry that the source does not have on the list, or those parts of it that may go.
    ///
    /// # Errors
    /// [`Error::Guard`] at an entry of somebody else, [`Error::State`] for the catalog.
    pub fn extra(
        &self,
        node: &Arc<Directory>,
        name: &CStr,
        known: Option<Facts>,
        reader: &CatalogReader,
        extras: &mut Vec<Extra>,
    ) -> Result<(), Error> {
        let whole = || Extra { node: Arc::clone(node), within: None, name: name.to_owned(), fate: Fate::Remove };
        let everything = self.options.extras == Extras::Delete;
        if everything && self.options.filter.is_empty() {
            extras.push(whole());
            return Ok(());
        }
        let known = if everything {
            Some(Facts { kind: Kind::Directory, ..known.unwrap_or(Facts::new(Kind::Directory)) })
        } else {
            known
        };
        let Some(known) = known else { return Ok(()) };
        if known.kind != Kind::Directory {
            return self.extra_leaf(node, name, whole(), extras);
        }
        match self.own_parts(node, name, &known, reader)? {
            Some(Own::Whole) => extras.push(whole()),
            Some(Own::Parts(parts)) => extras.extend(parts),
            None => {}
        }
        Ok(())
    }

    /// The same for an entry that the job made as something else than a directory. A directory that
    /// stands there by now is somebody else's, with all that is in it.
    fn extra_leaf(
        &self,
        node: &Arc<Directory>,
        name: &CStr,
        extra: Extra,
        extras: &mut Vec<Extra>,
    ) -> Result<(), Error> {
        let stands = node.open(Side::Destination).and_then(|fd| sys::stat_at(fd.as_fd(), name));
        match stands {
            Ok(stat) if stat.kind != Kind::Directory => extras.push(extra),
            Ok(_) if self.options.extras == Extras::Guard => {
                return Err(foreign(&self.options.destination, &node.path_of(name)));
            }
            Ok(_) => extras.push(Extra { fate: Fate::Forget, ..extra }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => extras.push(Extra { fate: Fate::Forget, ..extra }),
            Err(e) => {
                self.listing_failed.store(true, Ordering::Relaxed);
                let operation = "look at what is to be deleted";
                self.fail_entry(EntryError::io(Side::Destination, operation, node.path_of(name), e));
            }
        }
        Ok(())
    }

    /// Whether a directory may go as a whole that stands where the source has something else.
    ///
    /// # Errors
    /// As [`Run::extra`].
    pub fn own_tree(
        &self,
        node: &Arc<Directory>,
        name: &CStr,
        known: Option<Facts>,
        reader: &CatalogReader,
    ) -> Result<bool, Error> {
        if self.options.extras == Extras::Delete && self.options.filter.is_empty() {
            return Ok(true);
        }
        let known = if self.options.extras == Extras::Delete { Some(Facts::new(Kind::Directory)) } else { known };
        let Some(known) = known.filter(|row| row.kind == Kind::Directory) else {
            return match self.options.extras {
                Extras::Guard => Err(foreign(&self.options.destination, &node.path_of(name))),
                _ => Ok(false),
            };
        };
        Ok(matches!(self.own_parts(node, name, &known, reader)?, Some(Own::Whole)))
    }

    /// What of the tree at `name` may go. `None` where it could not be looked at, which is reported and
    /// bars all deletion.
    fn own_parts(
        &self,
        node: &Arc<Directory>,
        name: &CStr,
        known: &Facts,
        reader: &CatalogReader,
    ) -> Result<Option<Own>, Error> {
        match self.walk_own(node, name, known.child.unwrap_or_default(), reader) {
            Ok(own) => Ok(Some(own)),
            Err(Broken::Run(e)) => Err(e),
            Err(Broken::Listing(path, e)) => {
                self.listing_failed.store(true, Ordering::Relaxed);
                self.fail_entry(EntryError::io(Side::Destination, "list what is to be deleted", path, e));
                Ok(None)
            }
        }
    }

    fn walk_own(
        &self,
        node: &Arc<Directory>,
        name: &CStr,
        id: DirectoryId,
        reader: &CatalogReader,
    ) -> Result<Own, Broken> {
        let top = self.own_level(node, name.to_owned(), id, reader)?;
        let mut levels: Vec<Level> = top.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            if let Some(Left { name, kind, id }) = level.left.pop() {
                let below = if kind == Kind::Directory {
                    self.own_level(&level.directory, name.clone(), id, reader)?
                } else {
                    None
                };
                match below {
                    Some(below) => levels.push(below),
                    None => level.own.push(within(node, &level.directory, name, Fate::Remove)),
                }
                continue;
            }
            let Some(done) = levels.pop() else { break };
            done.directory.close();
            let Some(above) = levels.last_mut() else {
                let forget = Extra { within: None, ..within(node, node, name.to_owned(), Fate::Forget) };
                // Where the filters keep something in it, it stays the job's own.
                let forget = (self.options.extras != Extras::Guard).then_some(forget);
                return Ok(if done.mixed {
                    Own::Parts(done.own.into_iter().chain(forget).collect())
                } else {
                    Own::Whole
                });
            };
            let name = done.directory.name().to_owned();
            if done.mixed {
                above.mixed = true;
                above.own.extend(done.own);
            } else {
                above.own.push(within(node, &above.directory, name, Fate::Remove));
            }
        }
        Ok(Own::Whole)
    }

    /// Reads a directory on both sides of the question; nothing where it is no directory by now.
    fn own_level(
        &self,
        parent: &Arc<Directory>,
        name: CString,
        id: DirectoryId,
        reader: &CatalogReader,
    ) -> Result<Option<Level>, Broken> {
        let path = || parent.path_of(&name);
        let at = |e| Broken::Listing(path(), e);
        let stat = parent.open(Side::Destination).and_then(|fd| sys::stat_at(fd.as_fd(), &name)).map_err(at)?;
        if stat.kind != Kind::Directory {
            return Ok(None);
        }
        let directory = parent.child(name.clone(), Work::new(id, Standing::Existing, None, false));
        let fd = directory.open(Side::Destination).map_err(at)?;
        let names = Names::read(&fd, self.options.bounds.directory_entries).map_err(at)?;
        let mut page = DirectoryRows::default();
        let mut rows = reader.paged(id, limits::DIRECTORY_ROWS, &mut page).map_err(Broken::Run)?;
        let mut level = Level { directory, left: Vec::new(), mixed: false, own: Vec::new() };
        for (name, _) in names.iter() {
            let path = level.directory.path_of(name);
            let kind = sys::stat_at(fd.as_fd(), name).map_err(|e| Broken::Listing(path.clone(), e))?.kind;
            let row = rows.find(name.to_bytes()).map_err(Broken::Run)?.map(|row| (row.facts.kind, row.facts.child));
            let in_scope = self.options.filter.decide(&path, kind == Kind::Directory) == Scope::Keep;
            let own = match self.options.extras {
                _ if !in_scope => None,
                Extras::Delete => Some((kind, row.and_then(|(_, child)| child))),
                // A directory in the place of a file that the job made is somebody else's.
                _ => row.filter(|(made, _)| *made == Kind::Directory || kind != Kind::Directory),
            };
            match own {
                Some((kind, child)) => {
                    level.left.push(Left { name: name.to_owned(), kind, id: child.unwrap_or_default() });
                }
                None if self.options.extras == Extras::Guard && in_scope => {
                    return Err(Broken::Run(foreign(&self.options.destination, &path)));
                }
                None => level.mixed = true,
            }
        }
        Ok(Some(level))
    }
}

fn within(node: &Arc<Directory>, directory: &Arc<Directory>, name: CString, fate: Fate) -> Extra {
    Extra { node: Arc::clone(node), within: Some(Arc::clone(directory)), name, fate }
}
