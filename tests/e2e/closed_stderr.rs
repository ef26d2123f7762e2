//! Nobody has to read what the server says.

use std::process::{Command, Stdio};

use e2e::process::wait_for_exit;
use e2e::wait::wait_until;
use e2e::{Server, binary};

#[test]
fn server_whose_stderr_has_no_reader_any_more_keeps_answering() {
    let mut server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    server.log().hang_up();
    wait_until("the pipe to be closed", || {
        server.fib(10);
        server.log().has_ended()
    });
    for n in 0..20 {
        server.fib(n);
    }
    assert!(!server.has_ended());
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a command line that no harness is for")]
fn refusal_that_nobody_reads_is_still_a_usage_error() {
    let (reader, stderr) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    let mut command = Command::new(binary("fib-server"));
    let mut child = command.arg("--port=x").stdin(Stdio::null()).stderr(stderr).spawn().expect("it starts");
    assert_eq!(wait_for_exit(&mut child, "the server to refuse").code(), Some(2));
}
