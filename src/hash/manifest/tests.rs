//! Round trips of hostile names, b3sum's own word on what is written, and refusals.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::hash::{Digest, DigestKind};
use crate::limits::MANIFEST_LINE_BYTES_MAX;
use crate::sys::{Kind, Time};

fn file(path: &[u8], digest: Digest) -> ManifestEntry {
    ManifestEntry {
        path: path.to_vec(),
        kind: Kind::File,
        digest: Some(digest),
        target: None,
        rdev: None,
        size: Some(u64::MAX),
        mode: 0o4755,
        uid: u32::MAX,
        gid: 0,
        mtime: Time { seconds: i64::MIN, nanoseconds: 999_999_999 },
        xattrs: None,
        link_group: None,
    }
}

/// Names of every byte that a name can hold, alone and inside, and what has tripped parsers before.
fn names() -> Vec<Vec<u8>> {
    let bytes = (1..=255_u8).filter(|byte| !b"/.".contains(byte));
    let mut names: Vec<Vec<u8>> = bytes.clone().map(|byte| vec![byte]).collect();
    names.extend(bytes.map(|byte| vec![b'd', byte, b'd', byte]));
    for name in [
        "-x",
        " x",
        "x ",
        "a  b",
        "  ",
        "\\n",
        "\\\\",
        "n\\",
        "\r\n",
        "x\r",
        "x\n",
        "\n\r",
        "\\\r",
        ".x",
        "...",
        "ä",
        "日本",
        "BLAKE3 (x) = y",
        "\u{fffd}",
        "a\u{fffd}b",
        "\u{feff}x",
        "\u{2028}",
        "\u{85}",
        "*x",
        "?",
        "\"q\"",
        "~",
    ] {
        names.push(name.as_bytes().to_vec());
    }
    names.push(b"\xc3\x28".to_vec());
    names.push(vec![b'l'; 255]);
    names.sort();
    names.dedup();
    names
}

/// Names that b3sum can check, by its manual and source, decided here apart from the writer.
fn checkable(name: &[u8]) -> bool {
    String::from_utf8(name.to_vec()).is_ok_and(|name| !name.contains('\u{fffd}'))
}

fn read(manifest: &Path) -> Vec<Item> {
    Reader::open(manifest).unwrap().map(Result::unwrap).collect()
}

fn write(manifest: &Path, entries: &[ManifestEntry]) {
    let mut writer = Writer::create(manifest).unwrap();
    for entry in entries {
        writer.push(entry).unwrap();
    }
    writer.finish().unwrap();
}

fn b3sum(directory: &Path, arguments: &[&OsStr]) -> std::process::Output {
    let command = Command::new("b3sum").args(arguments).current_dir(directory).stdin(Stdio::null()).output();
    command.expect("b3sum 1.8 must be on the PATH for this test: cargo install b3sum")
}

#[test]
fn names_of_every_byte_come_back() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3");
    let entries: Vec<ManifestEntry> =
        names().iter().map(|name| file(&[b"dir/", name.as_slice()].concat(), Digest::of(name))).collect();
    write(&manifest, &entries);
    let expected: Vec<Item> = entries.iter().cloned().map(|entry| Item::Entry(Box::new(entry))).collect();
    assert!(Reader::open(&manifest).unwrap().has_entries());
    assert_eq!(read(&manifest), expected);

    fs::remove_file(entries_path(&manifest)).unwrap();
    let expected: Vec<Item> = entries
        .iter()
        .filter(|entry| checkable(&entry.path))
        .map(|entry| Item::Sum { path: entry.path.clone(), digest: entry.digest.unwrap() })
        .collect();
    assert!(!Reader::open(&manifest).unwrap().has_entries());
    assert_eq!(read(&manifest), expected);
}

#[test]
fn b3sum_checks_every_name_that_it_can() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let manifest = outside.path().join("m.b3");
    let mut entries = Vec::new();
    for name in names() {
        fs::write(root.path().join(OsStr::from_bytes(&name)), &name).unwrap();
        entries.push(file(&name, Digest::of(&name)));
    }
    write(&manifest, &entries);
    let count = entries.iter().filter(|entry| checkable(&entry.path)).count();

    let check = b3sum(root.path(), &["--check".as_ref(), manifest.as_os_str()]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && check.stderr.is_empty(), "{text}{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(text.lines().filter(|line| line.ends_with(": OK")).count(), count);

    fs::write(root.path().join("ä"), b"changed").unwrap();
    let check = b3sum(root.path(), &["--check".as_ref(), manifest.as_os_str()]);
    assert!(!check.status.success());
    let text = String::from_utf8(check.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| !line.ends_with(": OK")).collect::<Vec<_>>(), ["ä: FAILED"]);
}

#[test]
fn a_file_written_by_b3sum_is_the_same_and_is_read() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let manifest = outside.path().join("m.b3");
    let mut entries = Vec::new();
    let mut arguments: Vec<&OsStr> = vec!["--".as_ref()];
    let names: Vec<Vec<u8>> = names().into_iter().filter(|name| name != b"-" && checkable(name)).collect();
    for name in &names {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).unwrap();
        entries.push(file(name, Digest::of(name)));
        arguments.push(OsStr::from_bytes(name));
    }
    let theirs = b3sum(root.path(), &arguments);
    assert!(theirs.status.success());
    write(&manifest, &entries);
    assert_eq!(fs::read(&manifest).unwrap(), theirs.stdout);

    let list = outside.path().join("theirs.b3");
    fs::write(&list, b3sum(root.path(), &["./-x".as_ref(), "././ä".as_ref()]).stdout).unwrap();
    let sum = |name: &str| Item::Sum { path: name.into(), digest: Digest::of(name.as_bytes()) };
    assert_eq!(read(&list), [sum("-x"), sum("ä")]);
}

#[test]
fn what_b3sum_cannot_check_stands_beside_only() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3");
    let standard = Digest::of(b"x");
    let nonzero = Digest { kind: DigestKind::Blake3Nonzero, ..standard };
    let other = |path: &str, kind| ManifestEntry { kind, digest: None, size: None, ..file(path.as_bytes(), standard) };
    let entries = [
        other("", Kind::Directory),
        file(b"sparse", nonzero),
        file(&[b'p'; 4096], standard),
        file(b"ok", standard),
        ManifestEntry { digest: None, ..file(b"unknown", standard) },
        ManifestEntry { target: Some(b"/any\xffthing\n".to_vec()), ..other("link", Kind::Symlink) },
        ManifestEntry { rdev: Some(rustix::fs::makedev(0xfff_ffff, 259)), ..other("disk", Kind::BlockDevice) },
        ManifestEntry { rdev: Some(rustix::fs::makedev(1, 3)), ..other("null", Kind::CharDevice) },
        other("pipe", Kind::Fifo),
        ManifestEntry { xattrs: Some([7; 32]), link_group: Some(b"a\xff".to_vec()), ..other("s", Kind::Socket) },
    ];
    write(&manifest, &entries);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), format!("{}  ok\n", standard.hex()));
    let expected: Vec<Item> = entries.iter().cloned().map(|entry| Item::Entry(Box::new(entry))).collect();
    assert_eq!(read(&manifest), expected);
}

#[test]
fn the_lines_have_the_documented_fields() {
    let mut entry = file(b"a\xffb", Digest { kind: DigestKind::Blake3Nonzero, bytes: [0x1f; 32] });
    entry.mtime = Time { seconds: -1, nanoseconds: 5 };
    entry.link_group = Some(b"a".to_vec());
    let expected = serde_json::json!({
        "path_b64": "Yf9i", "type": "file", "digest_kind": "b3-nonzero", "digest": "1f".repeat(32), "size": u64::MAX,
        "mode": 0o4755, "uid": u32::MAX, "gid": 0, "mtime": {"seconds": -1, "nanoseconds": 5}, "link_group": "a",
    });
    assert_eq!(serde_json::to_value(&entry).unwrap(), expected);
    assert_eq!(serde_json::from_value::<ManifestEntry>(expected).unwrap(), entry);
}

#[test]
fn an_unfinished_manifest_leaves_the_old_one_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3");
    let list = || {
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let mut writer = Writer::create(&manifest).unwrap();
    writer.push(&file(b"new", Digest::of(b"new"))).unwrap();
    assert!(!manifest.exists() && !entries_path(&manifest).exists());
    drop(writer);
    assert!(list().is_empty());

    write(&manifest, &[file(b"old", Digest::of(b"old"))]);
    let old = read(&manifest);
    let mut writer = Writer::create(&manifest).unwrap();
    writer.push(&file(b"new", Digest::of(b"new"))).unwrap();
    drop(writer);
    assert_eq!(read(&manifest), old);
    assert_eq!(list(), ["m.b3", "m.b3.jsonl"].map(Into::into).into());
    write(&manifest, &[]);
    assert_eq!(read(&manifest), []);
}

#[test]
fn only_regular_files_are_replaced() {
    let directory = TempDir::new().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, b"precious").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let taken = directory.path().join("m.b3");
    fs::create_dir(entries_path(&taken)).unwrap();
    for path in [link.as_path(), &taken, Path::new("/dev/null"), Path::new("/"), directory.path()] {
        assert!(matches!(Writer::create(path), Err(Error::Output { .. })), "{}", path.display());
    }
    assert!(matches!(Writer::create(&directory.path().join("no/m")), Err(Error::Output { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn a_name_of_the_longest_form_is_written() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m".repeat(249));
    write(&manifest, &[file(b"a", Digest::of(b"a"))]);
    assert_eq!(read(&manifest).len(), 1);
}

/// The reason for which the second of two lines is refused, after the first was taken.
fn refusal(manifest: &Path, good: &[u8], bad: &[u8]) -> Option<Reason> {
    fs::write(manifest, [good, b"\n", bad].concat()).unwrap();
    let beside = manifest.extension() == Some("jsonl".as_ref());
    let named = if beside { manifest.with_extension("") } else { manifest.to_path_buf() };
    let mut reader = Reader::open(&named).unwrap();
    assert!(matches!(reader.next(), Some(Ok(_))), "the good line");
    let error = reader.next().and_then(Result::err)?;
    assert!(reader.next().is_none(), "nothing comes after an error");
    assert!(error.to_string().starts_with(&format!("{}:2: ", manifest.display())), "{error}");
    match error {
        ManifestError::Line { reason, .. } => Some(reason),
        ManifestError::Io { .. } => None,
    }
}

#[test]
fn bad_sums_are_refused_with_file_line_and_reason() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3");
    let hash = Digest::of(b"x").hex();
    let line = |path: &str| format!("{hash}  {path}").into_bytes();
    let good = line("good");
    let mut not_utf8 = line("a");
    not_utf8.push(0xff);
    let mut long = line("a");
    long.resize(MANIFEST_LINE_BYTES_MAX + 1, b'a');
    macro_rules! refused {
        ($($reason:pat => $bad:expr),* $(,)?) => {$(
            let bad: Vec<u8> = $bad;
            let found = refusal(&manifest, &good, &bad);
            assert!(matches!(found, Some($reason)), "{:?}: {found:?}", bad.get(..100).unwrap_or(&bad));
        )*};
    }
    refused! {
        Reason::Empty => b"\n".to_vec(),
        Reason::Empty => b"\r\n".to_vec(),
        Reason::Form => hash.clone().into_bytes(),
        Reason::Form => format!("{hash} a").into_bytes(),
        Reason::Form => format!("BLAKE3 (a) = {hash}").into_bytes(),
        Reason::Hash(_) => format!("{}  a", hash.to_uppercase()).into_bytes(),
        Reason::Hash(_) => format!("{}  a", &hash[1..]).into_bytes(),
        Reason::Hash(_) => format!("\\\\{hash}  a").into_bytes(),
        Reason::Escape => format!("\\{hash}  a\\t").into_bytes(),
        Reason::Escape => format!("\\{hash}  a\\").into_bytes(),
        Reason::Replacement => line("a\u{fffd}"),
        Reason::NotUtf8 => not_utf8,
        Reason::NoPath => line(""),
        Reason::NoPath => line("./"),
        Reason::Nul => line("a\0b"),
        Reason::Absolute => line("/etc/passwd"),
        Reason::Absolute => line(".//etc/passwd"),
        Reason::Parent => line(".."),
        Reason::Parent => line("a/../../b"),
        Reason::Parent => line("./../b"),
        Reason::Unclean => line("a//b"),
        Reason::Unclean => line("a/./b"),
        Reason::Unclean => line("a/"),
        Reason::Unclean => line("."),
        Reason::Long => long,
    }
    fs::write(&manifest, [&good, b"\r\n".as_slice(), &line("a..b/...")].concat()).unwrap();
    assert_eq!(read(&manifest).len(), 2, "the end of line may be a DOS one, and the last may lack it");
}

#[test]
fn bad_entries_are_refused_with_file_line_and_reason() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3.jsonl");
    let good = serde_json::to_value(file(b"good", Digest::of(b"x"))).unwrap();
    let refused = |change: &[(&str, serde_json::Value)]| {
        let mut bad = good.clone();
        for (field, value) in change {
            bad[field] = value.clone();
        }
        refusal(&manifest, good.to_string().as_bytes(), bad.to_string().as_bytes())
    };
    assert!(refused(&[]).is_none(), "the unchanged entry is good");
    let null = serde_json::Value::Null;
    for path in ["/a", "..", "a/../b", "a//b", "a\0"] {
        assert!(refused(&[("path", path.into())]).is_some(), "{path}");
        assert!(refused(&[("link_group", path.into())]).is_some(), "{path}");
    }
    // "../x" in base64.
    assert!(matches!(refused(&[("path", null.clone()), ("path_b64", "Li4veA==".into())]), Some(Reason::Parent)));
    for change in [
        ("path", null.clone()),
        ("path_b64", "YQ==".into()),
        ("type", "door".into()),
        ("type", "directory".into()),
        ("type", "symlink".into()),
        ("digest", null.clone()),
        ("digest_kind", null.clone()),
        ("size", null.clone()),
        ("target", "x".into()),
        ("rdev", serde_json::json!([1, 3])),
        ("mtime", serde_json::json!({"seconds": 0, "nanoseconds": 1_000_000_000})),
    ] {
        let found = refused(std::slice::from_ref(&change));
        assert!(matches!(found, Some(Reason::Entry(_))), "{change:?}: {found:?}");
    }
    assert!(matches!(refused(&[("digest", "abc".into())]), Some(Reason::Hash(_))));
    for change in [("new", 1.into()), ("mode", (-1).into()), ("uid", null), ("digest_kind", "md5".into())] {
        assert!(matches!(refused(std::slice::from_ref(&change)), Some(Reason::Json(_))), "{change:?}");
    }
}

#[test]
fn errors_reach_the_user_with_a_remedy() {
    let directory = TempDir::new().unwrap();
    let manifest = directory.path().join("m.b3");
    let missing = Error::from(Reader::open(&manifest).unwrap_err());
    assert!(matches!(&missing, Error::Output { path, .. } if *path == manifest));
    fs::write(&manifest, b"nonsense\n").unwrap();
    let error = Error::from(Reader::open(&manifest).unwrap().next().unwrap().unwrap_err());
    assert_eq!(error.to_string(), format!("{}:1: the line is not of the form \"HASH  PATH\"", manifest.display()));
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\\'), Just(b'\n'), Just(b'\r'), Just(b' '), Just(b'-'), 1_u8..=127, 1_u8..=255];
    prop::collection::vec(byte.prop_map(|byte| if byte == b'/' { b'.' } else { byte }), 1..9)
        .prop_filter("names", |name| name != b"." && name != b"..")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_paths_come_back_in_both_forms(paths in prop::collection::vec(prop::collection::vec(component(), 1..4), 0..9)) {
        let directory = TempDir::new().unwrap();
        let manifest = directory.path().join("m");
        let entries: BTreeMap<Vec<u8>, ManifestEntry> = paths
            .iter()
            .map(|path| path.join(&b'/'))
            .map(|path| (path.clone(), file(&path, Digest::of(&path))))
            .collect();
        write(&manifest, &entries.values().cloned().collect::<Vec<_>>());
        let expected: Vec<Item> = entries.values().cloned().map(|entry| Item::Entry(Box::new(entry))).collect();
        prop_assert_eq!(read(&manifest), expected);
        fs::remove_file(entries_path(&manifest)).unwrap();
        let found: Vec<Vec<u8>> = read(&manifest).into_iter().map(|item| match item {
            Item::Sum { path, digest } => {
                assert_eq!(digest, Digest::of(&path));
                path
            }
            Item::Entry(entry) => entry.path,
        }).collect();
        let expected: Vec<Vec<u8>> = entries.into_keys().filter(|path| checkable(path)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_line_makes_the_readers_panic(line in prop::collection::vec(any::<u8>(), 0..200), path in ".{0,20}") {
        let hash = Digest::of(b"").hex();
        for line in [line, format!("{hash}  {path}").into_bytes(), format!("\\{hash}  {path}").into_bytes()] {
            if let Ok((path, _)) = super::line::parse(&line) {
                prop_assert!(super::line::check_path(&path).is_ok() && !path.is_empty());
            }
            prop_assert!(ManifestEntry::parse(&line).is_err());
        }
    }
}
