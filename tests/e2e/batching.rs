//! Lookups travel together, whatever the plugin can do, and nobody is worse off for it when it ends.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use e2e::file::copy;
use e2e::load::Load;
use e2e::wait::wait_until;
use e2e::{Server, binary, http, process, rogue};
use rustix::process::Signal;

#[test]
fn plugin_with_many_and_no_pipe_is_used_to_the_full() {
    for mode in ["many", "unimplemented"] {
        let server = Server::start_with_plugin(rogue(mode));
        let load = Load::start(server.address(), 16);
        wait_until("answers", || load.answered() > 300);
        load.stop().is_flawless();
        server.wait_for_hit(19);
    }
}

#[test]
fn killed_plugin_with_a_thousand_lookups_under_way_costs_no_answer_and_no_time() {
    let server = Server::start_with_plugin([
        "--cache-plugin-path=memory",
        "--cache-timeout=50s",
        "--algorithm=doubling",
        "--plugin-probe-interval=60s",
    ]);
    let pid = server.plugin_pid();
    server.wait_for_hit(20);
    process::signal(pid, Signal::STOP);
    let clients: Vec<_> = (0..1_000)
        .map(|number| {
            let mut stream = http::connect(server.address()).expect("the server accepts");
            stream.write_all(http::request("GET", &format!("/fib/{}", number % 90)).as_bytes()).unwrap();
            stream
        })
        .collect();
    // It has read all of them: on one more connection, it has come to a later one.
    wait_until("another answer", || server.get("/healthz").status == 200);
    let killed = Instant::now();
    process::signal(pid, Signal::KILL);
    for stream in clients {
        let answers = http::receive_all(stream).expect("an answer");
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200]);
    }
    assert!(killed.elapsed() < Duration::from_secs(25), "they have waited for their timeout");
    server.wait_for_plugin_after(pid);
    server.wait_for_hit(20);
}

#[test]
fn old_instance_is_let_go_of_at_once_when_another_takes_over_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("fib-cache-copy");
    let place = |name: &str| {
        let copy = copy(&binary("fib-cache-memory"), &directory.path().join(name));
        fs::rename(copy, &program).unwrap();
    };
    place("first");
    let server = Server::start_with_plugin([
        format!("--cache-plugin-path={}", program.display()),
        "--plugin-watch".to_owned(),
        "--plugin-settle=100ms".to_owned(),
        "--plugin-drain=60s".to_owned(),
    ]);
    let pid = server.plugin_pid();
    let load = Load::start(server.address(), 4);
    wait_until("answers with the old instance", || load.answered() > 50);
    place("second");
    server.wait_for_plugin_after(pid);
    // Not after the minute that it would be given.
    wait_until("the old instance to end", || !process::is_running(pid));
    let before = load.answered();
    wait_until("answers with the new instance", || load.answered() > before + 50);
    load.stop().is_flawless();
    let cut = server.log().find(|line| line.to_string().contains("broken off"));
    assert!(cut.is_none(), "calls to it were broken off");
}

#[test]
fn server_that_stops_does_not_wait_for_its_own_stream() {
    let mut server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    server.wait_for_hit(20);
    let load = Load::start(server.address(), 2);
    wait_until("answers", || load.answered() > 20);
    let _refused_at_the_end = load.stop();
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().success());
    assert!(asked.elapsed() < Duration::from_secs(20));
    let killed = server.log().find(|line| line.to_string().contains("SIGKILL"));
    assert!(killed.is_none(), "the plugin had to be killed");
}

#[test]
fn plugin_that_nobody_asks_is_seen_to_be_idle() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory", "--plugin-idle-after=100ms"]);
    wait_until("the plugin to have the number", || server.fib(20).cache_status().starts_with("fib; hit"));
    // `/readyz` says so without a call of the plugin that would wake it.
    wait_until("the plugin to be ended", || {
        thread::sleep(Duration::from_millis(200));
        server.processes().len() == 1
    });
    assert_eq!(server.fib(20).text(), "{\"result\":6765}\n");
}
