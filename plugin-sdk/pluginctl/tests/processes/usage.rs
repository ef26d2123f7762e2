//! The command line itself.

use crate::support::{Place, words};

#[test]
fn help_and_version_are_data() {
    for (args, part) in [
        ("--help", "inspect"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("inspect --help", "--app-versions"),
        ("call --help", "--proto"),
    ] {
        assert!(Place::new().run(words(args)).worked().contains(part), "{args}");
    }
}

#[test]
fn a_command_line_that_cannot_be_used_is_exit_code_2_and_explained() {
    for (args, part) in [
        ("inspect", "<PATH>"),
        ("list --bogus", "unexpected argument '--bogus' found"),
        ("frob", "unrecognized subcommand 'frob'"),
        ("list -o xml", "possible values: text, json"),
        ("inspect plugin", "magic cookie"),
        ("inspect plugin --cookie KEY", "KEY=VALUE"),
        ("inspect plugin --cookie K=V --env SECRET", "K=V"),
        ("call", "were not provided: <PATH>; <METHOD>"),
        ("call plugin method --cookie K=V", "pkg.Service/Method"),
        ("call plugin a/b --cookie K=V --data {", "JSON"),
        ("call plugin a/b --cookie K=V --data @nowhere", "nowhere"),
        ("call plugin a/b --cookie K=V --proto nowhere.proto", "nowhere.proto"),
        ("call plugin a/b --cookie K=V -H SECRET", "name: value"),
    ] {
        let ran = Place::new().run(words(args));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args}");
        assert!(ran.stderr.contains(part) && !ran.stderr.contains("SECRET"), "{args}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("pluginctl: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
}

#[test]
fn who_says_nothing_gets_help() {
    let ran = Place::new().run(words(""));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Usage"), "{ran:?}");
}

#[test]
fn a_plugin_that_is_not_there_is_a_failure() {
    let ran = Place::new().run(words("inspect ./nowhere --cookie K=V"));
    assert!(ran.failed().contains("there is no such file"), "{ran:?}");
}
