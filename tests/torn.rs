//! T5: the power is cut, and of what the disk had not flushed some writes are there, others are not,
//! and single ones are torn.
//!
//! Destination and state lie in images whose writes and flushes are recorded (`rig/record.rs`): in the
//! same one, or in two, whose common log has one moment for both. A job copies a tree, then copies it
//! again after much of it has changed; from each of the two runs disks are made that a power cut could
//! have left. The file system recovers on each, what stands there is looked at, and the same command
//! goes on. `COPYD_T05_STATES` and `COPYD_SEED` change the number and the moments.

mod rig;
mod support;

use std::fs::{self, File};
use std::iter;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::Rig;
use rig::record::{Cut, Recording};
use support::Rng;
use support::canary::Canary;
use support::crash::{Before, Field, Lacking, mixed_tree, number, seed};
use support::mounts::{FsType, ImageCopy, LoopFs, Tmpfs, Volume};

/// States that are made of one recording, in the long run.
const STATES_PER_RECORDING: u64 = 50;

/// xfs needs 300 MiB, btrfs 109; all are sparse.
const IMAGE_MIB: u64 = 320;

/// What was found in all the states.
#[derive(Debug, Default)]
struct Found {
    states: u64,
    done: usize,
    loose: usize,
    kept: usize,
    /// The file system itself did not come back, which is nothing that copyd can be blamed for.
    refused: Vec<String>,
}

/// A source in memory, the recorded images, and a place for the disks that are made of them. The order
/// of the fields is the order of taking down.
struct Lab {
    disk: LoopFs,
    /// Where the state lies, if not on the same disk.
    state: Option<LoopFs>,
    recording: Recording,
    _rig: Rig,
    source: PathBuf,
    canary: Canary,
    memory: Tmpfs,
    backend: &'static str,
}

impl Lab {
    fn new(kind: FsType, round: u64) -> Self {
        let memory = Tmpfs::new(2048);
        let source = memory.path().join("source");
        mixed_tree(&source, seed() ^ round, 100, [24, 1]);
        let canary = Canary::plant(memory.path());
        let rig = Rig::over(&memory.directory("backing"));
        let recording = Recording::of(&rig);
        let image = |kind, name: &str| {
            let directory = rig.path().join(name);
            fs::create_dir(&directory).expect("a fresh rig");
            LoopFs::in_directory(kind, IMAGE_MIB, &directory)
        };
        let disk = image(kind, "disk");
        let state = (round % 2 == 1).then(|| image(FsType::Ext4, "state"));
        let backend = if matches!(round % 4, 0 | 3) { "uring" } else { "threads" };
        Self { disk, state, recording, _rig: rig, source, canary, memory, backend }
    }

    fn field(&self, disk: &Path, state: Option<&Path>) -> Field {
        Field {
            source: self.source.clone(),
            destination: disk.join("destination"),
            state: state.unwrap_or(disk).join("state"),
            arguments: vec!["--delete", "--backend", self.backend],
        }
    }

    /// Lets the job run to its end, and takes the file systems down. Gives the events of the run.
    fn run(&mut self) -> std::ops::Range<usize> {
        for volume in iter::once(&mut self.disk).chain(&mut self.state) {
            volume.remount();
        }
        if let Some(state) = &self.state {
            // What the journal says is on its disk as early as can be.
            support::tool("mount", "mount", &["-o".as_ref(), "remount,sync".as_ref(), state.path().as_os_str()]);
        }
        let start = self.recording.now();
        let field = self.field(self.disk.path(), self.state.as_ref().map(LoopFs::path));
        field.command().run().expect(0);
        let events = start..self.recording.now();
        for volume in iter::once(&mut self.disk).chain(&mut self.state) {
            volume.unmount();
        }
        events
    }

    /// What was recorded is all that changed the disk: with every write of it, it is the same.
    fn assert_recorded_whole(&self) {
        let at = self.memory.path().join("whole");
        let file = File::create_new(&at).and_then(|file| file.set_len(IMAGE_MIB << 20).map(|()| file));
        let cut = Cut { point: self.recording.now(), kept_of_8: 8, torn_of_8: 0, sector: 512, whole: None };
        self.recording.rebuild(&self.disk.image(), &cut, &file.expect("a fresh name"), &mut Rng::new(0));
        // Past the rig, and past all caches of it.
        let backing = self.memory.path().join("backing/disk/image");
        let same = Command::new("cmp").arg("--silent").args([&backing, &at]).status();
        assert!(same.is_ok_and(|status| status.success()), "the recording lacks what changed {}", backing.display());
        fs::remove_file(at).expect("it is ours");
    }

    /// Makes one disk that a cut could have left, and its file system comes back on it.
    fn rebuilt(&self, volume: &LoopFs, name: &str, cut: &Cut, found: &mut Found, rng: &mut Rng) -> Option<ImageCopy> {
        let at = self.memory.path().join(name);
        let file = File::create_new(&at).expect("a fresh name");
        file.set_len(IMAGE_MIB << 20).expect("a sparse file");
        let (loose, kept) = self.recording.rebuild(&volume.image(), cut, &file, rng);
        found.loose += loose;
        found.kept += kept;
        let mounted = volume.try_copy(at);
        mounted.map_err(|refused| found.refused.push(format!("{cut:?}: {refused}"))).ok()
    }

    /// Cuts the power so many times among those events, and looks what is left.
    fn cut(
        &self,
        events: &std::ops::Range<usize>,
        states: u64,
        before: Option<&Before>,
        found: &mut Found,
        rng: &mut Rng,
    ) {
        for _ in 0..states {
            let cut = Cut {
                point: self.recording.point(&self.disk.image(), events.clone(), rng),
                kept_of_8: [0, 2, 4, 6, 7, 8][usize::try_from(rng.below(6)).expect("small")],
                torn_of_8: rng.below(3),
                sector: [512, 4096][usize::try_from(rng.below(2)).expect("small")],
                whole: superblock(self.disk.kind()),
            };
            found.states += 1;
            let when = format!(
                "seed {}, state {}, {cut:?} of {events:?}, {}, {}",
                seed(),
                found.states,
                self.backend,
                if self.state.is_some() { "state elsewhere" } else { "state on the same disk" }
            );
            let Some(disk) = self.rebuilt(&self.disk, "cut-disk", &cut, found, rng) else { continue };
            // And all of it is kept, every second time.
            let kept_of_8 = if rng.below(2) == 0 { 8 } else { cut.kept_of_8 };
            let its_cut = Cut { kept_of_8, whole: superblock(FsType::Ext4), ..cut };
            let state = self.state.as_ref().map(|volume| self.rebuilt(volume, "cut-state", &its_cut, found, rng));
            if matches!(state, Some(None)) {
                continue;
            }
            let state = state.flatten();
            let field = self.field(disk.path(), state.as_ref().map(ImageCopy::path));
            found.done += field.assert_done_holds(before, &when);
            let lacking = match before {
                None => field.assert_nothing_torn(&when),
                Some(before) => {
                    field.assert_old_or_new(before, &when);
                    // How much is to be done is another test's question.
                    Lacking { files: u64::MAX / 2, entries: usize::MAX }
                }
            };
            field.assert_resumes(lacking, &when);
        }
    }
}

/// The block with the superblock of a file system that counts on having it whole: ext4 and btrfs keep
/// 1 and 4 KiB under one check sum there, and write them in place. That of xfs is one sector.
const fn superblock(kind: FsType) -> Option<u64> {
    match kind {
        FsType::Ext4 => Some(0),
        FsType::Btrfs => Some(64 << 10),
        _ => None,
    }
}

/// Changes much of a tree: contents, names, types, links, metadata alone.
fn change(root: &Path, rng: &mut Rng) {
    let at = |name: String| root.join(name);
    for i in 0..30 {
        let len = usize::try_from(rng.below(20_000)).expect("small");
        fs::write(at(format!("small0/f{i:03}")), rng.bytes(len)).expect("there is room");
        fs::write(at(format!("small5/new{i:03}")), rng.bytes(len)).expect("there is room");
        fs::remove_file(at(format!("at-root{i:03}"))).expect("it is there");
    }
    fs::create_dir(root.join("moved")).expect("a fresh name");
    for i in 30..60 {
        fs::rename(at(format!("at-root{i:03}")), at(format!("moved/m{i:03}"))).expect("it is there");
        fs::set_permissions(at(format!("at-root{:03}", i + 100)), fs::Permissions::from_mode(0o640)).expect("ours");
    }
    fs::rename(root.join("small3"), root.join("renamed3")).expect("it is there");
    fs::remove_dir_all(root.join("small4")).expect("it is there");
    fs::write(root.join("small4"), rng.bytes(5000)).expect("there is room");
    fs::remove_file(root.join("at-root200")).expect("it is there");
    fs::create_dir(root.join("at-root200")).expect("a fresh name");
    fs::write(root.join("at-root200/inner"), rng.bytes(5000)).expect("there is room");
    for i in 0..5 {
        let (link, again) = (at(format!("link{i}")), at(format!("small2/again{i}")));
        fs::remove_file(&link).expect("it is there");
        symlink("small1/f001", &link).expect("a fresh name");
        fs::remove_file(&again).expect("it is there");
        fs::write(&again, rng.bytes(300)).expect("there is room");
        fs::hard_link(at(format!("small6/f{i:03}")), at(format!("small7/again{i}"))).expect("hard link");
    }
    // More than one chunk, where one was.
    fs::write(root.join("second"), rng.bytes((17 << 20) + 5)).expect("there is room");
    fs::set_permissions(root.join("large/first"), fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// A copy of the tree with all its metadata and links.
fn kept_aside(source: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(source).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "cp -a fails");
}

/// Half of the states are of the first run of a job, half of one over what the first has made.
fn power_is_cut(kind: FsType, states: u64) {
    let mut rng = Rng::new(seed() ^ 5);
    let mut found = Found::default();
    let recordings = (states / STATES_PER_RECORDING).max(2);
    for round in 0..recordings {
        let mut lab = Lab::new(kind, round);
        let ours = states * (round + 1) / recordings - states * round / recordings;
        let events = lab.run();
        lab.assert_recorded_whole();
        lab.cut(&events, ours / 2, None, &mut found, &mut rng);
        let aside = lab.memory.path().join("before");
        kept_aside(&lab.source, &aside);
        change(&lab.source, &mut rng);
        let before = Before::new(aside, &lab.source);
        let events = lab.run();
        lab.cut(&events, ours - ours / 2, Some(&before), &mut found, &mut rng);
        lab.canary.assert_untouched();
    }
    let Found { states, done, loose, kept, refused } = found;
    assert!(refused.is_empty(), "{} of {states} file systems did not come back: {refused:#?}", refused.len());
    println!(
        "T5 {}: {states} states of {recordings} recordings, {kept} of {loose} unflushed writes kept, {done} entries \
         called done, seed {}",
        kind.word(),
        seed()
    );
}

#[test]
fn t05_any_part_of_what_ext4_had_not_flushed_costs_nothing_that_was_done() {
    let states = number("COPYD_T05_STATES", 20);
    power_is_cut(FsType::Ext4, states - states / 3 * 2);
}

#[test]
fn t05_any_part_of_what_xfs_had_not_flushed_costs_nothing_that_was_done() {
    power_is_cut(FsType::Xfs, number("COPYD_T05_STATES", 20) / 3);
}

#[test]
fn t05_any_part_of_what_btrfs_had_not_flushed_costs_nothing_that_was_done() {
    power_is_cut(FsType::Btrfs, number("COPYD_T05_STATES", 20) / 3);
}
