//! What copyd does instead: rsync's flags that it does not have, and what later versions will.
//!
//! Whoever comes from rsync types rsync's flags. A bare "unexpected argument" would leave them
//! guessing whether the thing is missing or simply always on; for most of `-aHAXS` it is on.

/// Verbs and flags of the contract that this version does not have yet.
const LATER_VERBS: [&str; 1] = ["preflight"];
const LATER_FLAGS: [&str; 5] = ["--every", "--watch", "--inplace", "--snapshot", "--report"];

const DEFAULT: &str = "is the default: leave it out";
const CONTENT: &str = "belongs to deciding by content: `copyd verify SRC DST` compares every byte, and what copyd copies \
                       is read back and compared anyway";
const WHOLE: &str = "has no counterpart: copyd publishes a file only when it is whole, and resumes large ones by chunk";
const DELETION: &str = "has no counterpart: --delete removes at the end of a pass, when the source was listed whole";
const BACKUP: &str = "is --trash DURATION, which keeps what is deleted or replaced in .copyd-trash below DST";
const NETWORK: &str = "has no counterpart: copyd copies between mounted directories, it speaks to no other host";
const LINKS: &str = "has no counterpart: symlinks are copied as they are and never followed";
const METADATA: &str = "has no counterpart: owners, modes, times, ACLs and attributes are always kept as they are; \
                        --usermap, --groupmap and --chown change owners, --accept-loss accepts what DST can't hold";
const DECIDE: &str = "has no counterpart: a file whose size and times are equal is left, any other is copied; \
                      use --include/--exclude/--files-from to choose";
const BASIS: &str = "has no counterpart: copyd never takes data from a third tree";
const TUNING: &str = "has no counterpart: copyd chooses its blocks and buffers from a probe; see --jobs and --backend";
const FORMAT: &str = "has no counterpart: --json gives every event as one object a line, -i rsync's eleven characters";
const PROGRESS: &str = "is the default: a progress line on a terminal, one plain line every 30 s elsewhere";
const FILTERS: &str = "has no counterpart: write the rules as --include and --exclude, in order";

/// rsync's options that copyd does not have, and what it does instead.
const RSYNC: &[(&[&str], &str)] = &[
    (
        &[
            "-a",
            "--archive",
            "-r",
            "--recursive",
            "-l",
            "--links",
            "-p",
            "--perms",
            "-t",
            "--times",
            "-g",
            "--group",
            "-o",
            "--owner",
            "-D",
            "--devices",
            "--specials",
            "-H",
            "--hard-links",
            "-A",
            "--acls",
            "-X",
            "--xattrs",
            "-E",
            "--executability",
            "-U",
            "--atimes",
            "--numeric-ids",
            "--super",
            "--inc-recursive",
            "--i-r",
            "--open-noatime",
            "-W",
            "--whole-file",
            "--fsync",
            "--mkpath",
            "--force",
        ],
        DEFAULT,
    ),
    (&["-S", "--sparse"], "is the default: holes stay holes; --provision=thick writes them out"),
    (&["--preallocate"], "is --provision=thick"),
    (&["-c", "--checksum", "--checksum-choice", "--cc", "--checksum-seed"], CONTENT),
    (&["-I", "--ignore-times", "--size-only", "-@", "--modify-window"], CONTENT),
    (
        &[
            "-z",
            "--compress",
            "--compress-choice",
            "--zc",
            "--compress-level",
            "--zl",
            "--compress-threads",
            "--zt",
            "--skip-compress",
        ],
        NETWORK,
    ),
    (
        &[
            "-e",
            "--rsh",
            "--rsync-path",
            "--address",
            "--port",
            "--sockopts",
            "--blocking-io",
            "-4",
            "--ipv4",
            "-6",
            "--ipv6",
        ],
        NETWORK,
    ),
    (&["--contimeout", "--password-file", "--early-input", "--no-motd", "--copy-as", "-M", "--remote-option"], NETWORK),
    (&["--protocol", "-s", "--secluded-args", "--old-args", "--trust-sender", "--iconv", "--daemon"], NETWORK),
    (&["-P"], "is the default: partial work resumes, and a terminal shows the progress line"),
    (&["--progress", "--info", "--outbuf"], PROGRESS),
    (
        &[
            "--partial",
            "--partial-dir",
            "--delay-updates",
            "-T",
            "--temp-dir",
            "--append",
            "--append-verify",
            "--no-whole-file",
            "--no-W",
        ],
        WHOLE,
    ),
    (&["--del", "--delete-before", "--delete-during", "--delete-delay", "--delete-after"], DELETION),
    (&["--delete-excluded", "--ignore-errors", "--delete-missing-args", "--ignore-missing-args"], DELETION),
    (&["--remove-source-files"], "has no counterpart: copyd never writes to the source"),
    (&["-b", "--backup", "--backup-dir", "--suffix"], BACKUP),
    (&["-u", "--update", "--existing", "--ignore-non-existing", "--ignore-existing", "--min-size"], DECIDE),
    (
        &["-m", "--prune-empty-dirs", "-d", "--dirs", "--old-dirs", "--old-d", "-R", "--relative", "--no-implied-dirs"],
        DECIDE,
    ),
    (
        &[
            "-L",
            "--copy-links",
            "--copy-unsafe-links",
            "--safe-links",
            "--insecure-links",
            "--munge-links",
            "-k",
            "--copy-dirlinks",
        ],
        LINKS,
    ),
    (&["-K", "--keep-dirlinks", "--confine-root"], LINKS),
    (&["--copy-devices", "--write-devices", "--drop-D"], METADATA),
    (
        &["-N", "--crtimes"],
        "has no counterpart: no file system lets a birth time be set; copyd says so once as `unsettable`",
    ),
    (&["--chmod", "-O", "--omit-dir-times", "-J", "--omit-link-times", "--fake-super", "--no-OPTION"], METADATA),
    (&["-y", "--fuzzy", "--compare-dest", "--copy-dest", "--link-dest"], BASIS),
    (&["-B", "--block-size", "--max-alloc"], TUNING),
    (&["--write-batch", "--only-write-batch", "--read-batch"], BASIS),
    (&["-C", "--cvs-exclude", "-f", "--filter", "-F"], FILTERS),
    (
        &[
            "--out-format",
            "--log-format",
            "--log-file-format",
            "-8",
            "--8-bit-output",
            "--human-readable",
            "--debug",
            "--stderr",
        ],
        FORMAT,
    ),
    (&["-q", "--quiet"], "has no counterpart: send stdout to /dev/null; failures go to stderr"),
    (&["--list-only"], "is -n: it lists what would be done and writes nothing"),
    (
        &["--stop-after", "--stop-at", "--time-limit"],
        "has no counterpart: use timeout(1), SIGTERM stops at a safe point",
    ),
    (&["--no-inc-recursive", "--no-i-r"], "has no counterpart: the scan runs ahead of the copy by itself"),
];

/// What to say about one flag (`-z`, `--link-dest`; a value after `=` is ignored).
pub fn flag(written: &str) -> Option<String> {
    let name = written.split('=').next().unwrap_or(written);
    if LATER_FLAGS.contains(&name) {
        return Some(format!("{name} is not available in this version of copyd"));
    }
    let exact = RSYNC.iter().find(|(flags, _)| flags.contains(&name));
    if let Some((_, hint)) = exact {
        return Some(format!("rsync's {name} {hint}"));
    }
    name.strip_prefix("--no-").map(|_| format!("rsync's {name} {METADATA}"))
}

/// The letters of a cluster like `-avzP` that copyd does not have, each with what to say about it.
pub fn cluster(token: &str, own: &str) -> Vec<String> {
    let letters = token.strip_prefix('-').unwrap_or(token);
    letters
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '@')
        .filter(|letter| !own.contains(*letter))
        .filter_map(|letter| flag(&format!("-{letter}")))
        .collect()
}

/// What to say about a verb that the parser does not know.
pub fn verb(written: &str) -> Option<String> {
    if LATER_VERBS.contains(&written) {
        return Some(format!("`copyd {written}` is not available in this version of copyd"));
    }
    matches!(written.as_bytes().first(), Some(b'/' | b'.')).then(|| "a verb comes first: copyd migrate SRC DST".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_of_a_later_version_is_said_to_be_one_and_not_taken_for_rsyncs() {
        for name in LATER_FLAGS {
            assert!(flag(name).unwrap().contains("not available in this version"), "{name}");
        }
        assert!(flag("--every=5m").unwrap().contains("not available"));
    }

    #[test]
    fn every_letter_of_an_rsync_cluster_is_explained_once() {
        let hints = cluster("-avHAXSz", "nvixhV0");
        assert_eq!(hints.len(), 6, "{hints:?}");
        assert!(hints[0].contains("-a is the default"));
        assert!(hints[5].contains("-z has no counterpart"));
    }

    #[test]
    fn no_flag_of_rsync_stands_in_the_table_twice() {
        let mut all: Vec<&str> = RSYNC.iter().flat_map(|(flags, _)| flags.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_flag_that_nobody_knows_gets_no_hint() {
        assert_eq!(flag("--frobnicate"), None);
        assert_eq!(verb("frobnicate"), None);
    }
}
