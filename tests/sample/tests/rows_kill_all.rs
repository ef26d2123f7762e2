//! The end of a host, for all of its plugins: alone in its process, because nobody's plugins survive it.

use plugin_sdk::host::{StopStep, kill_all};
use rustix::process::Signal;
use support::{BARE, LIMIT, is_running, launch_of, pid, sample, signal, socket_dir, start};

mod support;

#[tokio::test]
async fn all_plugins_of_a_host_are_killed_at_once_however_often_it_asks() {
    let mut plugins = Vec::new();
    for _ in 0..3 {
        plugins.push(start(&sample()).await.0);
        plugins.push(start(&launch_of(BARE).args(["--silent", "--ignore-sigterm"])).await.0);
    }
    signal(pid(&plugins[0]), Signal::STOP);
    let starting = sample().spawn().await.unwrap();
    let dirs: Vec<_> = plugins.iter().map(socket_dir).collect();

    let left = tokio::task::spawn_blocking(|| (kill_all(LIMIT), kill_all(LIMIT))).await.unwrap();
    assert_eq!(left, (0, 0));
    assert!(!is_running(starting.pid().unwrap()));
    assert!(dirs.iter().all(|dir| !dir.exists()));
    for plugin in plugins {
        assert!(!is_running(pid(&plugin)));
        assert_eq!(plugin.shutdown().await.after, StopStep::Kill);
    }
}
