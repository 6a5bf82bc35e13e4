//! File systems to test on: a directory of tmpfs, or an image mounted by a loop device.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, gone with the value.
pub struct Image {
    room: tempfile::TempDir,
    mounted: bool,
}

impl Image {
    pub fn tmpfs() -> Self {
        Self { room: tempfile::tempdir_in("/dev/shm").expect("a directory of tmpfs"), mounted: false }
    }

    /// Makes and mounts an image of 400 MiB (sparse), which is more than the least of xfs.
    pub fn new(kind: &str, options: &[&str]) -> Self {
        let room = tempfile::tempdir().expect("a temporary directory");
        let file = room.path().join("image");
        std::fs::File::create(&file).and_then(|file| file.set_len(400 << 20)).expect("an image");
        std::fs::create_dir(room.path().join("root")).expect("mount point");
        // Blocks as large disks have them: ext4 would take small ones for a small image.
        let blocks: &[&str] = if kind == "ext4" { &["-b", "4096"] } else { &[] };
        run(Command::new(format!("mkfs.{kind}")).arg("-q").args(blocks).args(options).arg(&file));
        run(Command::new("mount").args(["-o", "loop", "-t", kind]).arg(&file).arg(room.path().join("root")));
        Self { room, mounted: true }
    }

    pub fn path(&self) -> PathBuf {
        if self.mounted { self.room.path().join("root") } else { self.room.path().to_owned() }
    }

    /// A new directory in it.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.path());
        }
    }
}

fn unmount(path: &Path) {
    let done = Command::new("umount").arg(path).status().is_ok_and(|status| status.success());
    if !done {
        // A failed test may still hold descriptors: the mount goes with the last of them.
        let lazy = Command::new("umount").arg("--lazy").arg(path).status();
        assert!(lazy.is_ok_and(|status| status.success()), "{} stays mounted", path.display());
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
