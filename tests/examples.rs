//! What docs/examples shows works as it is shown: a program in another language that drives a worker.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::mounts::{self, FsType};
use support::oracle::assert_same;
use support::trees::{self, Kinds};

fn example(arguments: &[&str], places: [&Path; 3]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/worker.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--copyd", env!("CARGO_BIN_EXE_copyd")]).args(arguments).args(places);
    command.output().expect("python3 is there: install the package python3")
}

#[test]
fn the_python_example_copies_cancels_resumes_and_compares() {
    let room = mounts::volume(FsType::Ext4, 256);
    let [source, destination, state] = ["source", "destination", "state"].map(|name| room.path().join(name));
    fs::create_dir(&source).unwrap();
    trees::every_kind(&source, &Kinds::common());
    fs::write(source.join("large"), vec![9; 24 << 20]).unwrap();
    let places = [source.as_path(), &destination, &state];
    let said = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };

    let slow = ["--isolated", "--rate", "4000000", "--cancel-at", "1", "migrate"];
    let cancelled = example(&slow, places);
    assert_eq!(cancelled.status.code(), Some(20), "{}", said(&cancelled));
    assert!(said(&cancelled).contains("cancelled: "), "{}", said(&cancelled));

    let resumed = example(&["--isolated", "migrate"], places);
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_same(&source, &destination);

    let compared = example(&["verify"], places);
    assert_eq!(compared.status.code(), Some(0), "{}", said(&compared));

    let missing = example(&["sync"], [&room.path().join("nowhere"), &destination, &state]);
    assert_eq!(missing.status.code(), Some(11), "{}", said(&missing));
    assert!(said(&missing).contains("check the path"), "the remedy is shown: {}", said(&missing));
}
