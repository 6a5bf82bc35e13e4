//! A specification comes back as it went, and says the same to the engine.

use proptest::prelude::*;

use super::*;

fn unlimited() -> Throttle {
    Throttle::new(None)
}

fn minimal(kind: &str) -> String {
    format!(r#"{{"schema":1,"kind":"{kind}","source":{{"export":"/a"}},"destination":{{"export":"/b"}}}}"#)
}

fn refusal(text: &str) -> String {
    match Specification::parse(text).and_then(|found| found.work(&unlimited()).map(drop)) {
        Err(Error::Usage { what, .. }) => what,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_least_specification_asks_what_the_command_line_asks_by_default() {
    let Work::Copy(options) = Specification::parse(&minimal("migrate")).unwrap().work(&unlimited()).unwrap() else {
        panic!("a migrate copies")
    };
    assert_eq!((options.kind, options.max_passes, options.verify), (JobKind::Migrate, 10, VerifyLevel::Readback));
    assert_eq!(
        (options.extras, options.backend, options.provision),
        (Extras::Guard, BackendChoice::Auto, Provision::Thin)
    );
    assert_eq!(options.source, PathBuf::from("/a"));
    let Work::Copy(options) = Specification::parse(&minimal("sync")).unwrap().work(&unlimited()).unwrap() else {
        panic!("so does a sync")
    };
    assert_eq!(options.max_passes, 1);
    assert!(matches!(Specification::parse(&minimal("verify")).unwrap().work(&unlimited()).unwrap(), Work::Compare(_)));
}

#[test]
fn a_misspelt_guard_an_unknown_value_and_a_field_without_use_are_refused_by_name() {
    let with = |kind: &str, field: &str| minimal(kind).replacen('{', &format!("{{{field},"), 1);
    for (text, named) in [
        (with("sync", r#""max_deletes":3"#), "max_deletes"),
        (with("sync", r#""verify":"most""#), "most"),
        (with("sync", r#""limits":{"bytes_per_second":3}"#), "bytes_per_second"),
        (with("sync", r#""delete":true,"keep_extra":true"#), "excludes keep_extra"),
        (with("sync", r#""trash":"soon""#), "trash"),
        (with("sync", r#""filters":{"rules":["- a["]}"#), "filters.rules"),
        (with("sync", r#""filters":{"files_from":["../x"]}"#), "filters.files_from"),
        (with("sync", r#""id_map":{"users":"x"}"#), "id_map"),
        (with("sync", r#""jobs":0"#), "jobs"),
        (with("sync", r#""manifest":"a","manifest_b64":"YQ==""#), "manifest"),
        (with("verify", r#""delete":true"#), "delete: a verify has no use for it"),
        (with("replicate", r#""strict":true"#), "replicate"),
        (minimal("sync").replace("\"schema\":1", "\"schema\":2"), "schema"),
        (minimal("sync").replace(r#""source":{"export":"/a"},"#, ""), "source"),
        (minimal("sync").replace(r#""export":"/b""#, ""), "destination"),
        ("no JSON".into(), "specification"),
    ] {
        let what = refusal(&text);
        assert!(what.contains(named), "{text}: {what}");
    }
}

#[test]
fn a_verify_without_a_source_is_held_against_its_manifest() {
    let directory = Path::new("/tree");
    let specification = Specification::new(Kind::Verify, None, directory).with_manifest(Some(Path::new("/list")));
    let Work::AgainstManifest(options) = specification.work(&unlimited()).unwrap() else { panic!("one tree") };
    assert_eq!((options.manifest, options.directory), (PathBuf::from("/list"), directory.to_owned()));
    let narrowed = Specification { one_file_system: true, ..specification };
    assert!(refusal(&narrowed.line()).contains("one_file_system"));
}

fn path() -> impl Strategy<Value = PathBuf> {
    proptest::collection::vec(1_u8.., 1..12).prop_map(|bytes| OsString::from_vec(bytes).into())
}

/// A name, also one that is no UTF-8.
fn name() -> impl Strategy<Value = OsString> {
    proptest::collection::vec(prop_oneof![Just(0xff_u8), b'a'..=b'z'], 1..6).prop_map(OsString::from_vec)
}

fn list() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Neither marks of rules and comments, nor what a list refuses.
    proptest::collection::vec(
        proptest::collection::vec(prop_oneof![Just(0xff_u8), b'a'..=b'z', Just(b' ')], 1..6),
        0..4,
    )
}

prop_compose! {
    fn copies()(
        (source, destination, state, manifest) in (path(), path(), proptest::option::of(path()), proptest::option::of(path())),
        (flags, numbers) in (any::<[bool; 8]>(), any::<(Option<u64>, Option<u32>, Option<u64>)>()),
        (rules, files, trash) in (list(), proptest::option::of(list()), proptest::option::of(1_u32..)),
        (level, backend) in (0_usize..4, 0_usize..3),
        (low, to) in any::<(u16, u16)>(),
        marker in proptest::option::of(name()),
    ) -> Specification {
        use {BackendChoice as B, VerifyLevel as V};
        let mut rules: Vec<Line> = rules.iter().map(|rule| Line::from([b"- ", &rule[..]].concat().as_slice())).collect();
        rules.reverse();
        let files_from = files.map(|files| files.iter().map(|file| Line::from(file.as_slice())).collect());
        let [dry_run, items, delete, allow_empty_source, retry_failed, one_file_system, strict, manifest_holes] = flags;
        Specification {
            verify: [V::None, V::Inline, V::Readback, V::Full][level],
            backend: [B::Auto, B::Uring, B::Threads][backend],
            max_delete: numbers.0,
            max_passes: numbers.1,
            limits: Limits {
                bytes_per_s: numbers.2,
                file_bytes: numbers.0,
                file_allocated_bytes: numbers.2,
                directory_entries: numbers.1.map(|n| u64::from(n) + 1),
            },
            new_destination: delete,
            trash: trash.map(|seconds| format!("{seconds}s")),
            filters: Filters { rules, files_from },
            id_map: Ids { users: Some(format!("{low}-{low}:{to}")), groups: None },
            accept_loss: vec![LossClass::Owner, LossClass::TimeGrain],
            jobs: Some(3),
            dry_run, items, delete, allow_empty_source, retry_failed, one_file_system, strict, manifest_holes,
            ..Specification::new(Kind::Migrate, Some(&source), &destination)
        }
        .with_source_marker(marker.as_deref())
        .with_state_dir(state.as_deref())
        .with_manifest(manifest.as_deref())
    }
}

proptest! {
    #[test]
    fn a_specification_comes_back_from_its_line_and_says_the_same_to_the_engine(specification in copies()) {
        let line = specification.line();
        prop_assert!(!line.contains('\n'));
        let back = Specification::parse(&line).unwrap();
        prop_assert_eq!(&back, &specification);
        let (Ok(Work::Copy(theirs)), Ok(Work::Copy(ours))) = (back.work(&unlimited()), specification.work(&unlimited())) else {
            panic!("a migrate copies: {:?}", specification.work(&unlimited()))
        };
        prop_assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        prop_assert_eq!(crate::pass::canonical(&ours), crate::pass::canonical(&theirs));
        // What the engine holds is what was said.
        prop_assert_eq!(Filters::from(&ours.filter).rules, specification.filters.rules.clone());
        prop_assert_eq!(Ids::from(&ours.id_map), specification.id_map.clone());
        let source = ours.source.as_path();
        prop_assert_eq!(Some(End::from(source)), specification.source.clone());
        prop_assert_eq!(ours.bounds.size, specification.limits.file_bytes);
        prop_assert_eq!(ours.state_dir, specification.state_path().unwrap());
    }
}
