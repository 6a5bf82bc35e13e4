//! The test house: judges, trees, file systems and a way to run the binary.
//!
//! Nothing here uses the library under test. An engine that is judged by its own walker, its own
//! idea of an xattr or its own hash would pass with the same mistake on both sides, so this module
//! stands on std and rustix alone. The parts:
//!
//! - [`oracle`]: do two trees hold the same share; [`second_opinion`] asks another program.
//! - [`canary`]: what must not move beside the roots, and snapshots of what a run may not touch.
//! - [`trees`]: trees to migrate, the same on every run.
//! - [`mounts`]: file systems of one's own, gone with the process that made them.
//! - [`copyd`]: the binary, with a limit on its time.
//! - [`crash`]: a job to be killed, and what has to hold at any moment.
//! - [`cursor`]: moving through a tree of any depth with one descriptor.
//! - [`isolated`]: a worker in namespaces of its own, to be looked at from outside.
//! - [`daemon`]: a daemon with its place, and [`link`]: a spawner without one.
//! - [`service`]: the daemon as a client in another language meets it.
//! - [`raw`]: the few system calls that no safe crate offers.

#![allow(dead_code, reason = "each test binary compiles this module and uses its own part of it")]

pub mod canary;
pub mod copyd;
pub mod crash;
pub mod cursor;
pub mod daemon;
pub mod isolated;
pub mod link;
pub mod mounts;
pub mod oracle;
pub mod raw;
pub mod service;
pub mod trees;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

/// Numbers that look random and are the same for the same seed (splitmix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// A name for a person's eyes: long ones keep their end, which tells more than the beginning.
pub fn escaped(path: &[u8]) -> String {
    const SHOWN: usize = 160;
    let cut = path.len().saturating_sub(SHOWN);
    let mark = if cut > 0 { "…" } else { "" };
    format!("\"{mark}{}\"", path[cut..].escape_ascii())
}

/// Runs a tool and returns what it said; a test without its tool fails with the package's name,
/// because a test that skips in silence proves nothing.
pub fn tool<S: AsRef<OsStr>>(package: &str, program: &str, arguments: &[S]) -> Output {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            panic!("{program} is missing: install the package {package}")
        }
        Err(e) => panic!("{program} can't be run: {e}"),
    };
    let shown: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    assert!(
        output.status.success(),
        "{program} {} ended with {}: {}",
        shown.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    output
}

/// Asks another program, written by someone else in another language, whether two trees are the
/// same. It is not part of the package; where it is absent, this says so once.
pub fn second_opinion(a: &Path, b: &Path) {
    static SAID: Once = Once::new();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/oracle/treecmp.py");
    if !script.exists() {
        SAID.call_once(|| eprintln!("no second opinion: {} is not here", script.display()));
        return;
    }
    let output = match Command::new("python3").arg(&script).arg(a).arg(b).output() {
        Ok(output) => output,
        Err(e) => panic!("python3 can't be run: {e}; install the package python3"),
    };
    assert!(
        output.status.success(),
        "the second opinion finds differences between {} and {}:\n{}{}",
        a.display(),
        b.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
