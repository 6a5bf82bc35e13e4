//! Whether both roots are the shares that they were when the job was made.
//!
//! A mount that is missing leaves its mount point, a directory like any other. In the source's place
//! all that the destination has would be one too many (promise P4); in the destination's place a whole
//! share would be written to the disk below, and the replica that people count on would age unseen.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Side};
use crate::limits;
use crate::store::{RootIdentity, Store};
use crate::sys::{self, Kind, ReadMode};
use crate::tree::listing::Names;

use super::setup::Roots;
use super::{Extras, Options, Progress};

/// The identities of both roots, the source's with its marker where one is asked for.
///
/// # Errors
/// [`Error::Root`] for a root that can't be identified, [`Error::Guard`] for a marker that is not there.
pub fn identities(
    options: &Options,
    roots: &Roots,
    progress: &Progress,
) -> Result<(RootIdentity, RootIdentity), Error> {
    progress.open_root(Some(Side::Source));
    let mut source = identity(Side::Source, &roots.source, &options.source)?;
    if let Some(name) = &options.source_marker {
        source.marker = Some(marker(&roots.source, name).map_err(|e| no_marker(options, &e))?);
    }
    progress.open_root(Some(Side::Destination));
    Ok((source, identity(Side::Destination, &roots.destination, &options.destination)?))
}

fn identity(side: Side, fd: &Arc<OwnedFd>, path: &Path) -> Result<RootIdentity, Error> {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // `/a/` and `/a` are one path.
    let full = full.components().collect::<std::path::PathBuf>();
    RootIdentity::of(fd, &full).map_err(|e| Error::Root {
        side,
        path: path.to_owned(),
        what: "can't be identified",
        remedy: "check that the file system behind it answers (stat -f)",
        source: Some(e),
    })
}

/// The digest of the marker's content.
fn marker(root: &OwnedFd, name: &std::ffi::CStr) -> io::Result<[u8; 32]> {
    let fd = sys::open_read(root.as_fd(), name, ReadMode::Cached)?;
    let stat = sys::stat_fd(&fd)?;
    if stat.kind != Kind::File || stat.size == 0 || stat.size > limits::MARKER_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of 1 to 4096 bytes"));
    }
    let mut content = Vec::new();
    std::fs::File::from(fd).take(limits::MARKER_BYTES).read_to_end(&mut content)?;
    Ok(*blake3::hash(&content).as_bytes())
}

fn no_marker(options: &Options, e: &io::Error) -> Error {
    let name = options.source_marker.as_deref().unwrap_or_default().to_bytes();
    let (source, name) = (options.source.display(), name.escape_ascii());
    Error::Guard {
        what: format!("the source {source} does not have the marker {name}: {e}; nothing was changed"),
        remedy: "check that the share is mounted; a share that is to have a marker gets the file once, with a content that no other has (uuidgen)",
    }
}

/// Refuses roots that are others than when a job between these paths was made.
///
/// # Errors
/// [`Error::Guard`], with what to do where it was meant.
pub fn refuse_exchanged(
    options: &Options,
    store: &Store,
    roots: &Roots,
    (source, destination): (&RootIdentity, &RootIdentity),
) -> Result<(), Error> {
    // Where extras stay anyway, another source endangers nothing.
    if options.extras != Extras::Keep
        && let Some(job) = store.exchanged(source, destination)?
    {
        return Err(Error::Guard {
            what: format!(
                "the source {} is another share than when job {job} was made; nothing was changed",
                options.source.display()
            ),
            remedy: "check that it is mounted, and that --source-marker is as it was; if it was replaced on purpose, start a job of its own with another --state-dir",
        });
    }
    if options.new_destination || (options.extras == Extras::Keep && !is_bare(roots, options)) {
        return Ok(());
    }
    let Some(job) = store.destination_exchanged(source, destination)? else { return Ok(()) };
    Err(Error::Guard {
        what: format!(
            "the destination {} lies on another file system than when job {job} was made; nothing was changed",
            options.destination.display()
        ),
        remedy: "check that it is mounted; if it was replaced on purpose, say so once with --new-destination",
    })
}

/// Whether nothing stands at the destination, as below a mount that is missing.
fn is_bare(roots: &Roots, options: &Options) -> bool {
    // A dry run has the parent's descriptor where it is missing.
    if !options.destination.exists() {
        return true;
    }
    Names::read(&roots.destination, options.bounds.directory_entries)
        .is_ok_and(|names| names.iter().all(|(name, _)| name == c"lost+found"))
}
