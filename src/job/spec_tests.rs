//! What is asked is taken as it was said, or refused with the name of the field.

use super::*;

const LEAST: &str = r#""kind":"migrate","source":{"export":"/srv/a"},"destination":{"export":"/srv/b"}"#;

fn refused(text: &str) -> (String, String) {
    let invalid = JobSpec::parse(text.as_bytes()).expect_err(text);
    assert!(!invalid.remedy.is_empty(), "{invalid:?}");
    (invalid.field, invalid.what)
}

#[test]
fn the_least_is_a_kind_and_two_sides_and_the_rest_is_as_documented() {
    let spec = JobSpec::parse(format!("{{{LEAST}}}").as_bytes()).expect("a specification");
    assert_eq!(spec, JobSpec::new(Kind::Migrate, "/srv/a", "/srv/b"));
    assert_eq!(
        (spec.priority, spec.project.as_str(), spec.verify, spec.schema),
        (50, "default", VerifyLevel::Readback, 1)
    );
    assert!(!spec.deletes());
    assert!(JobSpec::new(Kind::Restore, "/a", "/b").deletes());
}

#[test]
fn a_field_that_is_unknown_missing_twice_or_of_another_type_is_named_however_deep() {
    for (more, field) in [
        (r#","max_delet":3"#, "max_delet"),
        (r#","limits":{"bytes_per_second":3}"#, "limits.bytes_per_second"),
        (r#","limits":{"bytes_per_s":"3"}"#, "limits.bytes_per_s"),
        (r#","limits":{"bytes_per_s":-1}"#, "limits.bytes_per_s"),
        (r#","verify":"half""#, "verify"),
        (r#","accept_loss":["owner","everything"]"#, "accept_loss[1]"),
        (r#","labels":{"a":1}"#, "labels.a"),
        (r#","priority":256"#, "priority"),
        (r#","strict":true,"strict":true"#, "strict"),
        (r#","state_dir":"/x""#, "state_dir"),
    ] {
        assert_eq!(refused(&format!("{{{LEAST}{more}}}")).0, field, "{more}");
    }
    assert_eq!(refused(r#"{"kind":"migrate","source":{"export":"/a"}}"#).0, "destination");
    assert_eq!(refused(r#"{"kind":"migrate","source":{},"destination":{"export":"/a"}}"#).0, "source.export");
    assert_eq!(refused(r#"{"kind":"copy"}"#).0, "kind");
    for text in ["", "[]", "{", &format!("{{{LEAST}}} x")] {
        assert_eq!(refused(text).0, "", "{text}");
    }
}

#[test]
fn a_value_out_of_its_bounds_is_named() {
    for (more, field) in [
        (r#","schema":2"#, "schema"),
        (r#","priority":101"#, "priority"),
        (r#","limits":{"bytes_per_s":511}"#, "limits.bytes_per_s"),
        (r#","limits":{"window":"9-5"}"#, "limits.window"),
        (r#","limits":{"directory_entries":0}"#, "limits.directory_entries"),
        (r#","limits":{"file_bytes":9223372036854775808}"#, "limits.file_bytes"),
        (r#","schedule":"hourly""#, "schedule"),
        (r#","cutover_deadline_s":0"#, "cutover_deadline_s"),
        (r#","timeout_s":99999999999"#, "timeout_s"),
        (r#","max_passes":0"#, "max_passes"),
        (r#","trash":"a while""#, "trash"),
        (&format!(r#","filters":{{"rules":["- a","- {}"]}}"#, "x".repeat(5000)), "filters.rules[1]"),
        (r#","filters":{"files_from":["a","b\u0000c"]}"#, "filters.files_from[1]"),
        (r#","id_map":{"users":"me"}"#, "id_map"),
        (r#","project":"../x""#, "project"),
        (r#","project":"""#, "project"),
        (r#","group":"a b""#, "group"),
        (r#","labels":{"":"x"}"#, "labels."),
        (r#","delete":true,"keep_extra":true"#, "keep_extra"),
        (r#","group":"g","cutover":"auto""#, "cutover"),
    ] {
        assert_eq!(refused(&format!("{{{LEAST}{more}}}")).0, field, "{more}");
    }
    let long = "x".repeat(1024);
    assert_eq!(refused(&format!(r#"{{{LEAST},"private_data":{{"k":"{long}"}}}}"#)).0, "private_data.k");
    let fits = format!(r#"{{{LEAST},"private_data":{{"{}":"{}"}}}}"#, &long[..255], &long[..1023]);
    assert!(JobSpec::parse(fits.as_bytes()).is_ok());
}

#[test]
fn what_a_kind_has_no_use_for_is_refused_and_does_not_vanish() {
    for (kind, more, field) in [
        ("verify", r#""delete":true"#, "delete"),
        ("verify", r#""max_delete":3"#, "max_delete"),
        ("verify", r#""verify":"full""#, "verify"),
        ("verify", r#""limits":{"file_bytes":1}"#, "limits.file_bytes"),
        ("restore", r#""schedule":"every 1h""#, "schedule"),
        ("restore", r#""keep_extra":true"#, "keep_extra"),
        ("migrate", r#""rpo_s":60"#, "rpo_s"),
        ("replicate", r#""cutover":"auto""#, "cutover"),
        ("replicate", r#""group":"g""#, "group"),
        ("replicate", r#""max_passes":3"#, "max_passes"),
    ] {
        let text = format!(r#"{{"kind":"{kind}","source":{{"export":"/a"}},"destination":{{"export":"/b"}},{more}}}"#);
        assert_eq!(refused(&text).0, field, "{text}");
    }
}

#[test]
fn only_a_plain_absolute_directory_of_this_machine_is_an_export() {
    let path = |export: &str| Side { export: export.into(), ..Side::default() }.path("source");
    for (export, expected) in [("/a/b", "/a/b"), ("file:///a/b", "/a/b"), ("/a//b/./", "/a/b"), ("/", "/")] {
        assert_eq!(path(export).expect(export).as_os_str(), expected, "{export}");
    }
    for export in ["nfs://h/x", "smb://h/x", "10.0.0.5:/x", "\\\\h\\x", "file://host/x", "[fe80::1]:/x"] {
        let invalid = path(export).expect_err(export);
        assert_eq!(invalid.field, "source.export");
        assert!(invalid.what.contains("not in this version"), "{export}: {invalid}");
    }
    for export in ["", "a", "./a", "/a/../b", "/..", "file:///a%2fb", "file:///a?b", "/a\0b", &"/a".repeat(3000)] {
        assert!(path(export).is_err(), "{export}");
    }
    let same = format!("{{{}}}", LEAST.replace("/srv/b", "file:///srv//a/"));
    assert_eq!(refused(&same).0, "destination.export");
}

#[test]
fn a_change_sets_what_it_names_removes_with_null_and_touches_nothing_else() {
    let mut spec = JobSpec::new(Kind::Migrate, "/a", "/b");
    spec.limits.bytes_per_s = Some(1000);
    spec.limits.file_bytes = Some(7);
    spec.labels.insert("a".into(), "1".into());
    let patch = |text: &str| JobPatch::parse(text.as_bytes());
    let changed = |text: &str| spec.patched(&patch(text).expect(text));
    let mut expected = spec.clone();
    (expected.limits.bytes_per_s, expected.priority) = (None, 9);
    (expected.limits.window, expected.labels) = (Some("01:00-02:00".into()), [("b".into(), "2".into())].into());
    let text = r#"{"priority":9,"limits":{"bytes_per_s":null,"window":"01:00-02:00"},"labels":{"a":null,"b":"2"}}"#;
    assert_eq!(changed(text), Ok(expected));
    assert_eq!(changed("{}"), Ok(spec.clone()));
    assert_eq!(changed(r#"{"rpo_s":60}"#).expect_err("not of a migrate").field, "rpo_s");
    assert_eq!(changed(r#"{"limits":{"window":"1-2"}}"#).expect_err("no window").field, "limits.window");
    for (text, field) in [
        (r#"{"source":{"export":"/x"}}"#, "source"),
        (r#"{"delete":true}"#, "delete"),
        (r#"{"limits":{"file_bytes":1}}"#, "limits.file_bytes"),
        (r#"{"priority":"high"}"#, "priority"),
    ] {
        assert_eq!(patch(text).expect_err(text).field, field);
    }
    assert!(patch(r#"{"labels":{},"private_data":{"a":null}}"#).is_ok_and(|patch| patch.is_of_names_only()));
    assert!(patch(r#"{"limits":{"window":null}}"#).is_ok_and(|patch| !patch.is_of_names_only()));
    let text = r#"{"limits":{"bytes_per_s":null},"schedule":null}"#;
    let stored = serde_json::to_string(&patch(text).expect(text)).expect("JSON");
    assert_eq!(patch(&stored), patch(text), "null is kept: {stored}");
}

#[test]
fn every_type_of_the_api_has_its_schema() {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(
        JobSpec,
        JobPatch,
        Invalid,
        crate::job::Job,
        crate::job::StoredEvent,
        crate::job::Refusal,
        crate::job::Group
    )))]
    struct Document;
    let document = <Document as utoipa::OpenApi>::openapi().to_json().expect("JSON");
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let of = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(of("JobSpec")["additionalProperties"], false, "unknown fields are refused");
    assert_eq!(of("JobPatch")["additionalProperties"], false);
    assert_eq!(of("JobSpec")["required"], serde_json::json!(["kind", "source", "destination"]));
    assert!(of("Job")["properties"]["state"].is_object() && of("Job")["description"].is_string());
}
