//! The program as a process, as far as that needs no plugin: exit codes and what is on stderr.

use std::process::{Command, Output};

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fib-server"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .envs(variables.iter().copied())
        .output()
        .expect("the program can be run")
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_2() {
    for (args, variables, named) in [
        (&["--max-n=94"][..], &[][..], "--max-n"),
        (&["-port=x"], &[], "--port"),
        (&["--no-such-flag"], &[], "--no-such-flag"),
        (&["--cache-plugin-path", "no-such-plugin"], &[], "fib-cache-no-such-plugin"),
        (&["--cache-plugin-path", "/etc/passwd"], &[], "--cache-plugin-path"),
        (&[], &[("FIB_PORT", "70000")], "--port"),
        (&[], &[("FIB_PORT", "70000")], "FIB_PORT"),
        (&[], &[("FIB_PLUGIN_WATCH", "perhaps")], "FIB_PLUGIN_WATCH"),
        (&[], &[("FIB_CACHE_TIMEOUT", "soon")], "--cache-timeout"),
        (&[], &[("FIB_PLUGIN_WATCH", "perhaps")], "--plugin-watch"),
        (&[], &[("RUST_LOG", "a=b=c")], "RUST_LOG"),
    ] {
        let output = run(args, variables);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{args:?}: {stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
        assert!(stderr.len() < 300 && !stderr.contains("--help"), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_empty_variable_is_no_variable() {
    // Gets past the configuration, and fails where it is to fail.
    let output = run(
        &["--host=256.0.0.1"],
        &[("FIB_PORT", ""), ("FIB_CACHE_PLUGIN_PATH", ""), ("FIB_PLUGIN_DIR", "")],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn switches_are_variables_too() {
    for value in ["1", "true", "yes", "on", "0", "false", "no", "off"] {
        let variables = [("FIB_PLUGIN_WATCH", value), ("FIB_PLUGIN_LAZY", value)];
        assert_eq!(run(&["--host=256.0.0.1"], &variables).status.code(), Some(1), "{value}");
    }
    for (value, code) in [("0", 1), ("no", 1), ("yes", 2)] {
        let attached = ["--host=256.0.0.1", "--cache-plugin-attach=unix:/x"];
        let output = run(&attached, &[("FIB_PLUGIN_WATCH", value)]);
        assert_eq!(output.status.code(), Some(code), "{value}: {output:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "-h", "--version", "-V"] {
        let output = run(&[flag], &[]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{flag}");
        assert!(!output.stdout.is_empty(), "{flag}");
    }
}

#[test]
fn help_shows_no_secrets_that_plugins_are_given() {
    let variables = [
        ("FIB_CACHE_PLUGIN_ARG", "--url=redis://:hunter2@host"),
        ("FIB_CACHE_PLUGIN_ENV", "PASSWORD=hunter2"),
    ];
    let output = run(&["--help"], &variables);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FIB_CACHE_PLUGIN_ARG") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["-port", &port], &[]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&port), "{stderr}");
}
