//! Operators steer the plugin with `pluginctl` while the server serves, and no answer is lost.

use e2e::file::script;
use e2e::load::Load;
use e2e::wait::wait_until;
use e2e::{Server, binary};

#[test]
fn an_operator_replaces_the_plugin_and_no_answer_is_lost() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    let load = Load::start(server.address(), 4);
    let memory = binary("fib-cache-memory");
    for order in ["restart", "reload", &format!("reload --path {}", memory.display()), "stop", "start"] {
        let before = load.answered();
        server.order(order);
        wait_until("answers", || load.answered() > before + 20);
    }
    load.stop().is_flawless();
    assert_eq!(server.pluginctl("status").1, Some(0));
    server.wait_for_hit(25);
}

#[test]
fn a_reload_to_something_else_leaves_the_plugin_and_says_why() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    let pid = server.plugin_pid();
    for (path, why) in [("/no/such/plugin", "there is no such file"), ("/bin/true", "exit status 0")] {
        let (said, code) = server.pluginctl(&format!("reload --path {path}"));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why) && said.contains(&pid.to_string()), "{said}");
    }
    assert_eq!(server.plugin_pid(), pid);
}

#[test]
fn the_level_of_the_servers_own_lines_is_changed_while_it_runs() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    assert_eq!(server.pluginctl("log-level warn --of-host").1, Some(0));
    let quiet = server.log().count("cache miss");
    server.fib(21);
    assert_eq!(server.pluginctl("log-level debug --of-host").1, Some(0));
    server.fib(22);
    wait_until("a line at level debug", || server.log().count("cache miss") > quiet);
    assert_eq!(server.log().count("cache miss"), quiet + 1);
}

#[test]
fn the_level_of_a_plugins_lines_is_its_own_and_reaches_the_next_process() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let memory = binary("fib-cache-memory");
    let says = format!(r#"echo "[DEBUG] was told $RUST_LOG" >&2; exec '{}'"#, memory.display());
    let plugin = script(dir.path(), "says", &says);
    let server = Server::start_for_load([format!("--cache-plugin-path={}", plugin.display())]);
    let (status, _) = server.pluginctl("status -o json");
    assert!(status.contains(r#""log_level":"warn""#), "{status}");

    assert_eq!(server.pluginctl("log-level debug").1, Some(0));
    server.order("restart");
    wait_until("the plugin's line", || server.log().count("[DEBUG] was told debug") == 1);
    assert_eq!(server.log().count("was told warn"), 0, "that was below the level");
    assert_eq!(server.log().events("serving"), 0, "the server's own level is what it was");
}

#[test]
fn a_server_without_a_plugin_is_no_host() {
    let server = Server::start([""; 0]);
    assert_eq!(server.pluginctl("list").1, Some(4));
}
