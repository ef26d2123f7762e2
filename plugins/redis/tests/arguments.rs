//! Arguments that make no sense end the plugin with exit status 2 and a line that names the flag, before it listens or
//! connects. No password is ever shown.

use std::fs;
use std::path::Path;

use e2e::run;
use rustix::fs::{CWD, FileType, Mode};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fib-cache-redis");

#[test]
fn a_wrong_argument_is_named_and_no_password_is_shown() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("url");
    fs::write(&file, "http://:hunter2@localhost").expect("a file can be written");
    let from_file = format!("--url-file={}", file.display());
    for (args, words) in [
        (&["--url=redis://:hunter2@localhost:port"][..], "--url"),
        (&["--url=rediss://:hunter2@localhost"], "TLS"),
        (&["--url=redis://:hunter2@localhost", "--url-file=x"], "--url-file"),
        (&["--url=redis://:hunter2@localhost", "--url=redis://:hunter2@localhost"], "--url"),
        (&["redis://:hunter2@localhost"], "--url"),
        (&["--ulr=redis://:hunter2@localhost"], "--ulr"),
        (&[&from_file], "--url-file"),
        (&["--url-file=/nonexistent/url"], "/nonexistent/url"),
        (&["--url-file=redis://:hunter2@localhost"], "--url-file"),
        (&["--url-file", "redis://:hunter2@localhost"], "--url-file"),
        (&["--key-prefix="], "--key-prefix"),
        (&["--timeout=0s"], "--timeout"),
        (&["--connect-timeout=soon"], "--connect-timeout"),
    ] {
        let output = run(PROGRAM, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains("hunter2"), "{args:?}: {said}");
    }
}

#[test]
fn a_url_file_that_is_no_file_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("a pipe can be made");
    for path in [&pipe, directory.path(), Path::new("/dev/zero")] {
        let output = run(PROGRAM, [format!("--url-file={}", path.display())]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--url-file") && said.contains("is no file"), "{said}");
    }
}

#[test]
fn help_tells_all_flags_on_stdout() {
    let output = run(PROGRAM, ["--help"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for flag in ["--url ", "--url-file", "--key-prefix", "--timeout", "--connect-timeout", "--listen"] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
}
