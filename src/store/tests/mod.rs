//! What the store promises, on real files. Each file below takes one side of it.

mod catalog;
mod crash;
mod damage;
mod fence;
mod growing;
mod jobs;
mod memory;
mod speed;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::catalog::SCHEMA;
use super::row::{COLUMN_COUNT, COLUMNS};
use super::*;
use crate::sys::{Kind, Time};

const SOURCE_DEV: u64 = 0x801;
const FILE: &str = "catalog.sqlite";

/// A new catalog, without a job around it.
fn new_catalog(directory: &Path) -> Catalog {
    super::database::create(&directory.join(FILE), &SCHEMA).expect("create");
    open_catalog(directory).expect("open")
}

fn open_catalog(directory: &Path) -> Result<Catalog, crate::error::Error> {
    Catalog::open(&directory.join(FILE), SOURCE_DEV, super::catalog::Owner::default())
}

/// A published file with every field set to something that depends on `seed`.
fn file(directory: DirectoryId, name: &[u8], seed: u64) -> Row {
    let time =
        |n: u64| Time { seconds: 1_700_000_000 + (n % 100_000).cast_signed(), nanoseconds: (n % 999_999_937) as u32 };
    let mut facts = Facts::new(Kind::File);
    facts.source = Fingerprint {
        dev: SOURCE_DEV,
        ino: 1000 + seed,
        size: seed * 37 % 100_000,
        mtime: time(seed),
        ctime: time(seed + 1),
    };
    facts.mode = 0o644;
    (facts.uid, facts.gid) = (1000, 1000);
    facts.published = Some(Published { ino: 5000 + seed, mtime: time(seed), ctime: time(seed + 2) });
    facts.digest = Some(ContentDigest { kind: 1, bytes: *blake3::hash(&seed.to_le_bytes()).as_bytes() });
    facts.proof = Proof::Proved;
    Row { directory, name: name.to_vec(), facts, target: None }
}

fn directory(parent: DirectoryId, name: &[u8], child: DirectoryId) -> Row {
    let mut row = file(parent, name, child);
    row.facts = Facts { kind: Kind::Directory, child: Some(child), digest: None, nlink: 2, ..row.facts };
    row
}

fn root() -> Row {
    directory(ROOT_PARENT, b"", ROOT_DIRECTORY)
}

fn rows_batch(rows: Vec<Row>) -> Batch {
    Batch { rows, ..Batch::default() }
}

fn write_rows(catalog: &mut Catalog, rows: Vec<Row>) {
    let writer = catalog.writer().expect("writer");
    writer.send(rows_batch(rows)).expect("send");
    writer.finish().expect("finish");
}

/// Every entry in path order, owned.
fn walk(reader: &CatalogReader) -> Result<Vec<(Vec<u8>, Row)>, crate::error::Error> {
    let mut found = Vec::new();
    reader.for_each_sorted_by_path(&mut |path, row| {
        found.push((path.to_vec(), row.to_owned()));
        Ok(())
    })?;
    Ok(found)
}

/// Runs the test `name` of this binary again, as a child that finds `directory` in `variable`.
pub(in crate::store) fn child_of(name: &str, variable: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(variable, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("child")
}

/// The directory a parent handed over, in a child.
pub(in crate::store) fn handed_over(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// A small ext4 on a loop device that can lose its power: the ioctl behind `xfs_io -c shutdown`
/// stops every write, and what was not synced is gone.
struct Disk {
    scratch: tempfile::TempDir,
    mount: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let mount = scratch.path().join("mount");
        std::fs::create_dir(&mount).expect("mount point");
        let disk = Self { scratch, mount };
        let image = disk.image();
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("image");
        run("mkfs.ext4", &["-q".as_ref(), image.as_ref()]);
        disk.power_on();
        disk
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    fn cut_power(&self) {
        run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.mount.as_ref()]);
    }

    fn power_on(&self) {
        self.unmount();
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image().as_ref(), self.mount.as_ref()]);
    }

    /// Unmounts what is mounted; nothing is, the first time.
    fn unmount(&self) {
        let _ = Command::new("umount").arg(&self.mount).stderr(Stdio::null()).status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let status = Command::new(program).args(arguments).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
