//! Settings: what the example says is what the code does, and what is not known is refused.

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a file that is ours");
    Config::load(Some(file.path()))
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("it must be refused").to_string()
}

#[test]
fn the_example_holds_every_setting_and_changes_nothing() {
    let example = Config::example();
    let plain = parse("").expect("defaults");
    let shown = parse(&example).expect("the example can be read");
    assert_eq!(format!("{plain:?}"), format!("{shown:?}"));
    // Each commented line, taken into force, is a setting that is known.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(char::is_alphabetic) && setting.contains(" = ") => setting,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let enforced = parse(&all).expect("every default is a value that is taken");
    assert_eq!(format!("{plain:?}"), format!("{enforced:?}"));
    for key in ["jobs_max", "socket_mode", "local_roots", "tokens_file", "access", "user"] {
        assert!(example.contains(&format!("#{key} =")), "{key} is missing:\n{example}");
    }
}

#[test]
fn a_misspelt_key_is_refused_and_named_at_every_level() {
    for (text, named) in [
        ("[daemon]\njobs_maximum = 1", "jobs_maximum"),
        ("[api]\nsocket_moed = \"0600\"", "socket_moed"),
        ("[allow]\nlocal_root = [\"/srv\"]", "local_root"),
        ("[alow]\n", "alow"),
        ("[[access]]\nname = \"uid:0\"\nrole = \"admin\"\nproject = [\"a\"]", "project"),
    ] {
        let said = refusal(text);
        assert!(said.contains(named), "{text}: {said}");
    }
}

#[test]
fn values_without_sense_are_refused() {
    for text in [
        "[daemon]\njobs_max = 0",
        "[api]\nsocket = \"copyd.sock\"",
        "[api]\nsocket_mode = \"0999\"",
        "[api]\nsocket_mode = \"01777\"",
        "[api]\ntls_key = \"/k\"",
        "[[access]]\nname = \"uid:0\"\nrole = \"king\"",
        "[allow]\nlocal_roots = [\"srv\"]",
        "[allow]\nlocal_roots = [\"/srv/../etc\"]",
        "[allow]\nnetwork_namespaces = [\"../net\"]",
    ] {
        refusal(text);
    }
}

#[test]
fn a_mode_is_octal_in_both_forms() {
    for text in ["[api]\nsocket_mode = \"0600\"", "[api]\nsocket_mode = \"600\"", "[api]\nsocket_mode = 0o600"] {
        assert_eq!(parse(text).expect("a mode").api.socket_mode, 0o600, "{text}");
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("copyd.toml");
    std::fs::write(&file, "[daemon]\njobs_max = 3\n").expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert_eq!(Config::load(Some(&file)).expect("settings").daemon.jobs_max, 3);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).expect("it is ours");
    let said = Config::load(Some(&file)).expect_err("refused").to_string();
    assert!(said.contains("can write it"), "{said}");
    assert!(Config::load(Some(&place.path().join("missing.toml"))).is_err());
}
