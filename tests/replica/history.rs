//! Changes and runs in turn, on two directories in memory, each run held to its prediction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::predict::{Extras, Flags, Memory, Prediction, in_scope, predict};
use super::steps::{Imagination, Side, Step, make};
use super::tree::{self, Content, Entry, Tree};
use crate::support::copyd::{Copyd, Run};
use crate::support::escaped;

/// Tries to leave a step out of a history that failed, before it is shown.
const SHORTER_TRIES: usize = 300;

/// What holds for all runs of a history.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub filtered: bool,
    pub trash: bool,
    pub inline: bool,
}

/// What runs came to, so that a test can say what it has tried.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    pub runs: u64,
    pub by_exit: BTreeMap<i32, u64>,
    pub deleted: u64,
    pub dry: u64,
    pub believed: u64,
    pub verified: u64,
}

impl Outcomes {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.deleted += other.deleted;
        self.dry += other.dry;
        self.believed += other.believed;
        self.verified += other.verified;
        for (exit, count) in &other.by_exit {
            *self.by_exit.entry(*exit).or_default() += count;
        }
    }
}

/// Two trees, a job's state, and what the model believes of it.
struct Stage {
    job: Job,
    place: PathBuf,
    source: PathBuf,
    destination: PathBuf,
    memory: Memory,
    /// A run ended in its middle: what it recorded is not known until one with `--delete` has ended well.
    uncertain: bool,
    ended: bool,
    outcomes: Outcomes,
}

/// Plays `runs` runs with changes between them, which are made up from `seed`.
///
/// # Panics
/// Where a run is not as predicted, with the shortest history that was found to show it.
pub fn play(place: &Path, job: Job, seed: u64, runs: u64) -> Outcomes {
    let mut stage = Stage::new(place, job);
    let mut imagination = Imagination::new(seed);
    let mut steps = Vec::new();
    while !stage.ended {
        let (source, destination) = stage.trees();
        let step = match stage.outcomes.runs {
            done if done + 1 >= runs => Step::End,
            done => imagination.next(&source, &destination, done == 0),
        };
        steps.push(step.clone());
        if let Err(first) = stage.take(&step) {
            let (steps, why) = shorter(place, job, steps, first);
            panic!("seed {seed}, {job:?}: {why}\nafter {} steps:\n{}", steps.len(), shown(&steps));
        }
    }
    std::mem::take(&mut stage.outcomes)
}

/// Leaves out one step after another, as long as the rest still fails.
fn shorter(place: &Path, job: Job, mut steps: Vec<Step>, mut why: String) -> (Vec<Step>, String) {
    let mut tries = SHORTER_TRIES;
    let mut at = steps.len();
    while at > 0 && tries > 0 {
        (at, tries) = (at - 1, tries - 1);
        let mut fewer = steps.clone();
        fewer.remove(at);
        if let Some((failed_at, reason)) = fails(place, job, &fewer) {
            fewer.truncate(failed_at + 1);
            at = at.min(fewer.len());
            (steps, why) = (fewer, reason);
        }
    }
    (steps, why)
}

/// Plays given steps from the start: where they fail, and why.
fn fails(place: &Path, job: Job, steps: &[Step]) -> Option<(usize, String)> {
    let mut stage = Stage::new(place, job);
    steps.iter().enumerate().find_map(|(at, step)| stage.take(step).err().map(|why| (at, why)))
}

fn shown(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |mut text, step| {
        writeln!(text, "  {step:?}").expect("a String takes all");
        text
    })
}

impl Stage {
    fn new(place: &Path, job: Job) -> Self {
        let _ = fs::remove_dir_all(place);
        let [source, destination] = ["source", "destination"].map(|name| place.join(name));
        for directory in [&source, &destination] {
            fs::create_dir_all(directory).expect("memory takes a directory");
        }
        Self {
            job,
            place: place.to_owned(),
            source,
            destination,
            memory: Memory::default(),
            uncertain: false,
            ended: false,
            outcomes: Outcomes::default(),
        }
    }

    fn trees(&self) -> (Tree, Tree) {
        let read = |root: &Path| tree::read(root).expect("the tree can be read");
        (read(&self.source), read(&self.destination))
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Change(Side::Source, change) => make(change, &self.source, &self.destination),
            Step::Change(Side::Destination, change) => make(change, &self.destination, &self.source),
            Step::Run(flags) => return self.run(*flags),
            Step::End => return self.ends_equal(),
        }
        Ok(())
    }

    fn command(&self, verb: &str) -> Copyd {
        let mut command =
            Copyd::new(verb).arg("--json").arg(&self.source).arg(&self.destination).args(&["--jobs", "2"]);
        if self.job.filtered {
            command = command.arg("--exclude=*.x");
        }
        command.state_dir(&self.place.join("state"))
    }

    fn sync(&self, flags: Flags) -> Run {
        let mut command = self.command("sync");
        match flags.extras {
            Extras::Guard => {}
            Extras::Keep => command = command.arg("--keep-extra"),
            Extras::Delete => command = command.arg("--delete"),
        }
        if let Some(most) = flags.max_delete {
            command = command.arg(format!("--max-delete={most}"));
        }
        for (asked, flag) in [
            (flags.allow_empty, "--allow-empty-source"),
            (flags.dry_run, "--dry-run"),
            (self.job.trash, "--trash=30d"),
            (self.job.inline, "--verify=inline"),
        ] {
            if asked {
                command = command.arg(flag);
            }
        }
        command.run()
    }

    fn run(&mut self, flags: Flags) -> Result<(), String> {
        let flags = Flags { extras: if self.uncertain { Extras::Delete } else { flags.extras }, ..flags };
        let (source, before) = self.trees();
        let predicted = predict(&source, &before, &self.memory, flags, self.job.filtered);
        let run = self.sync(flags);
        let (source_after, after) = self.trees();
        let mut wrong = Wrong(String::new());
        if source_after != source {
            wrong.say("the source was changed", b"");
        }
        let ended = run.status.code();
        if ended != Some(predicted.exit) {
            wrong.say(&format!("exit code {ended:?}, predicted {}", predicted.exit), b"");
        } else if run.summary().count("deleted") != predicted.deleted {
            let deleted = run.summary().count("deleted");
            wrong.say(&format!("{deleted} deleted, predicted {}", predicted.deleted), b"");
        }
        if flags.dry_run || predicted.refused_at_once {
            wrong.unless_untouched(&before, &after);
        } else if predicted.exit == 43 {
            wrong.unless_between(&source, &before, &after, &predicted);
        } else {
            wrong.unless_as_predicted(&source, &before, &after, &predicted);
        }
        if !wrong.0.is_empty() {
            return Err(format!("{flags:?}:\n{}{run}", wrong.0));
        }
        self.outcomes.runs += 1;
        self.outcomes.dry += u64::from(flags.dry_run);
        *self.outcomes.by_exit.entry(predicted.exit).or_default() += 1;
        if !flags.dry_run && !predicted.refused_at_once {
            self.remember(flags, predicted, &source, (&before, &after));
        }
        Ok(())
    }

    fn remember(&mut self, flags: Flags, predicted: Prediction, source: &Tree, (before, after): (&Tree, &Tree)) {
        self.memory.begun = true;
        self.memory.cut_off = predicted.exit == 43;
        self.outcomes.deleted += predicted.deleted;
        if predicted.exit == 43 {
            self.uncertain |= !same_but_times(before, after);
            return;
        }
        let inode = |path: &Vec<u8>| source.get(path).map(|entry| entry.inode);
        let inodes: BTreeSet<_> = predicted.believed.iter().filter_map(inode).collect();
        let shares = |path: &&Vec<u8>| inode(path).is_some_and(|inode| inodes.contains(&inode));
        self.memory.believed = predicted.synced.iter().filter(shares).cloned().collect();
        let other = |path: &&Vec<u8>| source.get(*path).map(|e| &e.content) != after.get(*path).map(|e| &e.content);
        self.outcomes.believed += self.memory.believed.iter().filter(other).count() as u64;
        self.memory.made = predicted.made;
        self.uncertain &= flags.extras != Extras::Delete || predicted.exit != 0;
    }

    /// After all, one run makes the destination equal, and a comparison by content agrees.
    fn ends_equal(&mut self) -> Result<(), String> {
        let flags = Flags { extras: Extras::Delete, max_delete: None, allow_empty: true, dry_run: false };
        self.run(flags)?;
        self.ended = true;
        let (source, destination) = self.trees();
        let contents = |tree: &Tree| -> Vec<_> {
            let seen = tree.iter().filter(|(path, _)| in_scope(self.job.filtered, path));
            seen.map(|(path, entry)| (path.clone(), entry.content.clone())).collect()
        };
        // What is kept for the filters' sake, or was believed, is a difference that verify names.
        if contents(&source) != contents(&destination) {
            return Ok(());
        }
        let digests = |run: &Run| ["share_digest", "metadata_digest"].map(|field| run.summary().0[field].clone());
        let (synced, verified) = (self.sync(flags), self.command("verify").run());
        if verified.status.code() != Some(0) {
            return Err(format!("verify finds differences: {verified}"));
        }
        if digests(&synced)[0].is_string() && digests(&synced) != digests(&verified) {
            return Err(format!("verify and sync have other digests:\n{synced}\n{verified}"));
        }
        self.outcomes.verified += 1;
        Ok(())
    }
}

fn same_but_times(before: &Tree, after: &Tree) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((a_path, a), (b_path, b))| a_path == b_path && alike(a, b))
}

/// Equal, but for the time of a directory, which every entry made in it moves.
fn alike(a: &Entry, b: &Entry) -> bool {
    let timeless = |entry: &Entry| {
        let mut metadata = entry.metadata.clone();
        if entry.content.is_directory() {
            metadata.mtime = (0, 0);
        }
        metadata
    };
    a.content == b.content && timeless(a) == timeless(b)
}

/// What is not as predicted, a line each.
struct Wrong(String);

impl Wrong {
    fn say(&mut self, what: &str, path: &[u8]) {
        writeln!(self.0, "  {}: {what}", escaped(path)).expect("a String takes all");
    }

    fn unless_untouched(&mut self, before: &Tree, after: &Tree) {
        for path in before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)) {
            self.say("it changed, and nothing was to change", path);
        }
    }

    /// After a run that was refused in its middle: everything is the old entry or the new one.
    fn unless_between(&mut self, source: &Tree, before: &Tree, after: &Tree, predicted: &Prediction) {
        for (path, old) in before {
            let Some(new) = after.get(path) else {
                self.say("it is gone, and nothing was to be deleted", path);
                continue;
            };
            if !alike(old, new) && !is_new(source, path, new, predicted) {
                self.say("it is neither as it was nor as at the source", path);
            }
        }
        for (path, new) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
            if !is_new(source, path, new, predicted) {
                self.say("it came from nowhere", path);
            }
        }
    }

    fn unless_as_predicted(&mut self, source: &Tree, before: &Tree, after: &Tree, predicted: &Prediction) {
        for path in after.keys() {
            if !predicted.synced.contains(path) && !before.contains_key(path) {
                self.say("it came from nowhere", path);
            }
        }
        for (path, old) in before.iter().filter(|(path, _)| !predicted.synced.contains(*path)) {
            match after.get(path) {
                None if !predicted.removed.contains(path) => self.say("it is gone, and was to stay", path),
                Some(_) if predicted.removed.contains(path) => self.say("it is there, and was to go", path),
                Some(new) if new.inode != old.inode => self.say("it is another inode, and was to stay", path),
                Some(new) if !alike(old, new) => self.say("it changed, and was to stay", path),
                Some(new) if new.metadata != old.metadata && !predicted.thinned.contains(path) => {
                    self.say("its time changed, and nothing in it", path);
                }
                _ => {}
            }
        }
        for path in &predicted.synced {
            let (Some(wanted), Some(found)) = (source.get(path), after.get(path)) else {
                self.say("it is missing", path);
                continue;
            };
            let believed = predicted.believed.iter().filter(|other| source[*other].inode == wanted.inode);
            if found.content != wanted.content && !believed.into_iter().any(|p| before[p].content == found.content) {
                let shown = |content: &Content| format!("{content:?}").chars().take(60).collect::<String>();
                self.say(&format!("it is {}, not {}", shown(&found.content), shown(&wanted.content)), path);
            }
            if found.metadata != wanted.metadata {
                self.say(&format!("its metadata is {:?}, not {:?}", found.metadata, wanted.metadata), path);
            }
        }
        self.unless_linked_alike(source, after, predicted);
    }

    fn unless_linked_alike(&mut self, source: &Tree, after: &Tree, predicted: &Prediction) {
        let (mut there, mut back) = (BTreeMap::new(), BTreeMap::new());
        for path in &predicted.synced {
            let (Some(wanted), Some(found)) = (source.get(path), after.get(path)) else { continue };
            let same = *there.entry(wanted.inode).or_insert(found.inode) == found.inode
                && *back.entry(found.inode).or_insert(wanted.inode) == wanted.inode;
            if !same {
                self.say("its links are not those of the source", path);
            }
        }
    }
}

/// Whether an entry is as a run makes it; the metadata of directories come last.
fn is_new(source: &Tree, path: &[u8], found: &Entry, predicted: &Prediction) -> bool {
    predicted.synced.contains(path)
        && source.get(path).is_some_and(|wanted| {
            wanted.content == found.content && (wanted.content.is_directory() || wanted.metadata == found.metadata)
        })
}
