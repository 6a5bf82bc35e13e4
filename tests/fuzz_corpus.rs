//! The examples of the fuzz targets, in every run of the gate: each file below `fuzz/seeds` through the
//! function that its target runs. What once made a parser panic becomes one of these files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use copyd::fuzzing::TARGETS;

/// Room that the examples may take in a checkout.
const BYTES_MAX: u64 = 200 << 10;
/// Fewer examples say little about a parser.
const EXAMPLES_MIN: usize = 5;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("the directory is checked in");
    entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8")).collect()
}

#[test]
fn fuzz_corpus_every_example_is_parsed_without_a_panic() {
    let mut bytes_total = 0;
    for (target, parse) in TARGETS {
        let directory = fuzz().join("seeds").join(target);
        let examples = names_in(&directory);
        assert!(examples.len() >= EXAMPLES_MIN, "{target} has only {} examples", examples.len());
        for example in examples {
            let data = fs::read(directory.join(&example)).expect("an example is a file");
            bytes_total += data.len() as u64;
            // Named before it runs, so that a panic says which one it was.
            eprintln!("{target}/{example}");
            parse(&data);
        }
    }
    assert!(bytes_total <= BYTES_MAX, "{bytes_total} bytes of examples: keep those that say something");
}

#[test]
fn fuzz_corpus_every_parser_has_its_target_and_its_examples() {
    let parsers: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&fuzz().join("seeds")), parsers);
    let sources: BTreeSet<_> = parsers.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names_in(&fuzz().join("fuzz_targets")), sources);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("the targets are a package");
    for name in parsers {
        let source = fs::read_to_string(fuzz().join("fuzz_targets").join(format!("{name}.rs"))).expect("it is there");
        assert!(source.contains(&format!("copyd::fuzzing::{name}(data)")), "{name}.rs runs another parser");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

/// A wrong parser would be noticed: the checks behind a target are no empty calls.
#[test]
fn fuzz_corpus_examples_reach_both_what_is_taken_and_what_is_refused() {
    use copyd::tree::filter::{Filter, Sense};
    use copyd::units::{parse_duration, parse_size};

    let units = fuzz().join("seeds/units");
    let texts: Vec<_> = names_in(&units).iter().map(|name| fs::read_to_string(units.join(name)).unwrap()).collect();
    let taken = texts.iter().filter(|text| parse_size(text).is_ok() || parse_duration(text).is_ok()).count();
    assert!(taken >= 8 && taken + 4 <= texts.len(), "{taken} of {} are values", texts.len());
    let filters = fuzz().join("seeds/filter");
    let read = |name: &String| fs::read(filters.join(name)).unwrap();
    let rules: Vec<_> = names_in(&filters).iter().map(read).collect();
    let good = rules.iter().filter(|text| {
        text[..]
            .split(|byte| *byte == 1)
            .next()
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
            .all(|line| Filter::builder().add(Sense::Exclude, line).is_ok())
    });
    let good = good.count();
    assert!(good >= 6 && good + 2 <= rules.len(), "{good} of {} have good rules", rules.len());
}
