//! The share's digests and its manifest, from every entry in the order of paths.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::hash::manifest::{self, ManifestEntry};
use crate::hash::{ShareContent, ShareDigest, ShareEntry};
use crate::store::{Catalog, Digests, RowRef, Writer};
use crate::sys::Kind;
use crate::tree::links::Inode;

use super::records::{Record, Records};
use super::{Options, Progress, row};

/// Lower-case hex of the share's and of its metadata's digest.
pub type Hex = (Option<String>, Option<String>);

/// Takes entries in ascending order of raw path bytes.
#[derive(Debug)]
pub struct Collector {
    /// Inodes with two or more names in the share.
    shared: HashSet<Inode>,
    /// The first path of each, which is its smallest.
    names: HashMap<Inode, Vec<u8>>,
    /// Gone as soon as one entry's digest is not known.
    share: Option<ShareDigest>,
    manifest: Option<manifest::Writer>,
}

impl Collector {
    /// Writes the manifest that is asked for beside.
    ///
    /// # Errors
    /// [`Error::Output`] when the manifest can't be written.
    pub fn new(shared: HashSet<Inode>, manifest: Option<&Path>) -> Result<Self, Error> {
        let manifest = manifest.map(manifest::Writer::create).transpose()?;
        Ok(Self { shared, names: HashMap::new(), share: Some(ShareDigest::new()), manifest })
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`Error::Internal`] for entries out of order, [`Error::Output`] for the manifest.
    pub fn take(&mut self, path: &[u8], record: &Record<'_>) -> Result<(), Error> {
        let inode = record.inode.filter(|inode| self.shared.contains(inode));
        let group = inode.map(|inode| &**self.names.entry(inode).or_insert_with(|| path.to_vec()));
        match (share_entry(path, record, group), &mut self.share) {
            (Some(entry), Some(share)) => {
                share.push(&entry).map_err(|e| Error::Internal { what: e.to_string() })?;
            }
            _ => self.share = None,
        }
        match &mut self.manifest {
            Some(manifest) => manifest.push(&manifest_entry(path, record, group)),
            None => Ok(()),
        }
    }

    /// Publishes the manifest and gives the digests.
    ///
    /// # Errors
    /// [`Error::Output`] for the manifest.
    pub fn finish(self) -> Result<Hex, Error> {
        self.manifest.map_or(Ok(()), manifest::Writer::finish)?;
        let Some(share) = self.share else { return Ok((None, None)) };
        let found = share.finish();
        Ok((Some(found.share), Some(found.metadata)))
    }
}

/// The digests of a job's share: from what the run itself has recorded where that is all there is
/// (it is in memory, and the catalog would have to be read through), else from the catalog, or as
/// the catalog remembers them where nothing has changed.
///
/// # Errors
/// [`Error::State`] when the catalog can't be read, [`Error::Output`] for the manifest.
pub fn of_job(
    (catalog, writer): (&Catalog, &Writer),
    records: Option<Records>,
    options: &Options,
    changed: bool,
    progress: &Progress,
) -> Result<Hex, Error> {
    let manifest = options.manifest.as_deref();
    let spare = records.as_ref().is_none_or(Records::is_spare);
    if spare {
        // The catalog is asked: what was sent to it has to be there.
        writer.flush(false)?;
    }
    if !changed
        && manifest.is_none()
        && let Some(known) = catalog.digests()?
    {
        let hex = |bytes: [u8; 32]| blake3::Hash::from_bytes(bytes).to_hex().to_string();
        return Ok((Some(hex(known.share)), Some(hex(known.metadata))));
    }
    let whole = match &records {
        Some(records) if spare => records.entries() == Some(catalog.reader()?.entries()?),
        _ => true,
    };
    let found = if let Some(records) = records.filter(|_| whole) {
        let mut collector = Collector::new(records.shared_inodes(), manifest)?;
        records.for_each(&mut |path, record| {
            progress.beat.fetch_add(1, Ordering::Relaxed);
            collector.take(path, record)
        })?;
        collector.finish()?
    } else {
        let reader = catalog.reader()?;
        let shared = reader.shared_link_groups()?.into_iter().map(|group| (group.dev, group.ino)).collect();
        let mut collector = Collector::new(shared, manifest)?;
        reader.for_each_sorted_by_path(&mut |path, row| {
            progress.beat.fetch_add(1, Ordering::Relaxed);
            collector.take(path, &record(&row))
        })?;
        collector.finish()?
    };
    let bytes = |hex: &Option<String>| hex.as_ref().and_then(|hex| blake3::Hash::from_hex(hex).ok());
    if let (Some(share), Some(metadata)) = (bytes(&found.0), bytes(&found.1)) {
        writer.set_digests(Digests { share: share.into(), metadata: metadata.into() })?;
    }
    Ok(found)
}

/// A catalog's row as the digests see it.
#[must_use]
pub fn record<'a>(row: &RowRef<'a>) -> Record<'a> {
    let facts = row.facts;
    Record {
        kind: facts.kind,
        mode: facts.mode,
        uid: facts.uid,
        gid: facts.gid,
        mtime: facts.source.mtime,
        size: facts.source.size,
        rdev: facts.rdev,
        inode: facts.link_group().map(|group| (group.dev, group.ino)),
        digest: facts.digest.and_then(row::digest),
        xattrs: facts.xattr_digest,
        target: row.target,
    }
}

/// `None` for a file whose digest is not known.
fn share_entry<'a>(path: &'a [u8], record: &Record<'a>, group: Option<&'a [u8]>) -> Option<ShareEntry<'a>> {
    let content = match record.kind {
        Kind::File => ShareContent::File(record.digest?),
        Kind::Directory => ShareContent::Directory,
        Kind::Symlink => ShareContent::Symlink(record.target.unwrap_or_default()),
        Kind::Fifo => ShareContent::Fifo,
        Kind::Socket => ShareContent::Socket,
        Kind::CharDevice => ShareContent::CharDevice(record.rdev),
        Kind::BlockDevice => ShareContent::BlockDevice(record.rdev),
    };
    Some(ShareEntry {
        path,
        content,
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        mtime: record.mtime,
        xattrs: record.xattrs,
        link_group: group.unwrap_or_default(),
    })
}

fn manifest_entry(path: &[u8], record: &Record<'_>, group: Option<&[u8]>) -> ManifestEntry {
    ManifestEntry {
        path: path.to_vec(),
        kind: record.kind,
        digest: record.digest,
        target: record.target.map(<[u8]>::to_vec),
        rdev: record.kind.is_device().then_some(record.rdev),
        size: (record.kind == Kind::File).then_some(record.size),
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        mtime: record.mtime,
        xattrs: record.xattrs,
        link_group: group.map(<[u8]>::to_vec),
    }
}
