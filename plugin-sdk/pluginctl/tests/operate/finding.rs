//! Which host is meant, and who may ask it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::host::{Host, Machine, has_containers};

#[test]
fn without_a_host_the_exit_code_is_4() {
    let machine = Machine::new();
    for line in ["list", "restart cache", "logs -f", "--help"] {
        let ran = machine.run(line);
        if line == "--help" {
            assert!(ran.worked().contains("no host runs"), "exit codes are documented");
            continue;
        }
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""), "{line}");
        assert!(ran.stderr.contains("no host with plugins runs as this user"), "{}", ran.stderr);
    }
    let ran = machine.run("list --host nobody");
    assert_eq!(ran.code, Some(4));
    assert!(ran.stderr.contains("no such host runs: nobody; none runs"), "{}", ran.stderr);
    let ran = machine.run("list --socket nowhere");
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr.contains("no host answers at nowhere") && ran.stderr.contains("No such file"),
        "{ran:?}"
    );
}

#[test]
fn of_several_hosts_one_has_to_be_chosen() {
    let machine = Machine::new();
    let (first, second) = (machine.start([machine.plugin("one")]), machine.start([machine.plugin("two")]));
    let ran = machine.run("list");
    assert_eq!(ran.code, Some(2));
    let mut pids = [first.pid(), second.pid()];
    pids.sort_unstable();
    let candidates = format!("supervised-host ({}), supervised-host ({})", pids[0], pids[1]);
    assert!(ran.stderr.contains(&candidates), "{}", ran.stderr);
    // By name there are still two.
    assert_eq!(machine.run("list --host supervised-host").code, Some(2));
    assert!(machine.run(&format!("list --host {}", first.pid())).worked().contains("one"));
    assert!(machine.run("list --host 1").stderr.contains("there is supervised-host"));
    let of_variable = |name, value: String| {
        let mut command = machine.command("list");
        command.env(name, value);
        machine.finish(machine.begin_with(command)).worked()
    };
    assert!(of_variable("PLUGINCTL_HOST", second.pid().to_string()).contains("two"));
    let socket = machine
        .sockets()
        .into_iter()
        .find(|path| path.to_string_lossy().contains(&format!("/{}.", first.pid())));
    let socket = socket.expect("it has one").display().to_string();
    assert!(machine.run(&format!("list --socket {socket}")).worked().contains("one"));
    assert!(of_variable("PLUGINCTL_SOCKET", socket).contains("one"));
    // Where a variable is set to nothing, it is as if it were not set.
    let mut command = machine.command("-o json list");
    command.envs([("PLUGINCTL_SOCKET", ""), ("PLUGINCTL_HOST", &second.pid().to_string())]);
    let found = machine.finish(machine.begin_with(command));
    assert_eq!(found.json()[0]["plugins"][0]["name"], "two");
    first.end();
    assert!(machine.run("list --host supervised-host").worked().contains("two"));
}

#[test]
fn of_hosts_in_containers_one_can_be_chosen() {
    if !has_containers() {
        return eprintln!("skipped: no process here can be process 1");
    }
    let machine = Machine::new();
    let hosts = ["one", "two"].map(|name| machine.start_in_container([machine.plugin(name)]));
    let ran = machine.run("list --host 1");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let choices: Vec<_> =
        ran.stderr.split(['(', ')']).filter(|text| text.starts_with("1.")).map(str::to_owned).collect();
    assert_eq!(choices.len(), 2, "{}", ran.stderr);
    let plugins = choices.iter().map(|choice| machine.run(&format!("list --host {choice}")).worked());
    let plugins = plugins.collect::<String>();
    assert!(plugins.contains("one") && plugins.contains("two"), "{plugins}");
    hosts.into_iter().for_each(Host::end);
}

#[test]
fn a_host_that_was_killed_is_not_found() {
    let machine = Machine::new();
    drop(machine.start([machine.plugin("cache")]));
    assert_eq!(machine.run("list").code, Some(4));
}

#[test]
fn another_user_is_refused_even_where_the_socket_can_be_opened() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be another user");
    }
    let machine = Machine::new();
    let host = machine.start([machine.plugin("cache")]);
    let socket = machine.sockets().remove(0);
    // A copy, as the directory of the build need not be open to others.
    let program = machine.path().join("pluginctl");
    // Not by this process, another thread of which may start a program just now, that then has it open for writing.
    e2e::run("cp", [env!("CARGO_BIN_EXE_pluginctl").as_ref(), program.as_os_str()]);
    let as_another_user = || {
        let mut command = std::process::Command::new(&program);
        command.args(["list", "--socket"]).arg(&socket).current_dir("/").uid(65_533).gid(65_533);
        machine.finish(machine.begin_with(command))
    };
    let open = |mode| std::fs::Permissions::from_mode(mode);
    for dir in socket.ancestors().skip(1).take_while(|dir| dir.starts_with(machine.path())) {
        std::fs::set_permissions(dir, open(0o755)).expect("it is ours");
    }
    // The socket's mode keeps others out,
    let ran = as_another_user();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""));
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
    // and without it the host does.
    std::fs::set_permissions(&socket, open(0o666)).expect("it is ours");
    let ran = as_another_user();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""), "{}", ran.stderr);
    assert!(machine.run(&format!("list --socket {}", socket.display())).worked().contains("cache"));
    host.end();
}

#[test]
fn colours_are_for_those_who_want_them() {
    let machine = Machine::new();
    let host = machine.start([machine.plugin("cache")]);
    let coloured = |line: &str, variables: &[(&str, &str)]| {
        let mut command = machine.command(line);
        command.envs(variables.iter().copied());
        let output = e2e::run_with(&mut command);
        assert!(output.status.success());
        output.stdout.contains(&0x1b)
    };
    assert!(!coloured("list", &[]));
    assert!(coloured("list --color always", &[]));
    assert!(coloured("list --color always", &[("NO_COLOR", "1")]));
    assert!(coloured("list", &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured("list", &[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured("list", &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(!coloured("list --color never", &[("CLICOLOR_FORCE", "1")]));
    host.end();
}

#[test]
fn completions_and_manual_pages_know_all_commands() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.run(&format!("completions {shell}")).worked();
        for command in ["restart", "reload", "log-level", "inspect"] {
            assert!(script.contains(command), "{command} in {shell}");
        }
    }
    let man = machine.path().join("man");
    assert_eq!(machine.run("man man").worked(), "");
    for page in ["pluginctl.1", "pluginctl-reload.1", "pluginctl-inspect.1"] {
        let text = std::fs::read_to_string(man.join(page)).expect("there is a page");
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let ran = machine.run("man man/pluginctl.1");
    assert!(ran.failed().contains("cannot write man/pluginctl.1"), "{ran:?}");
}
