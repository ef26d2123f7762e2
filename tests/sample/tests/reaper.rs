//! A host that orphans are given to, as process 1 of a container is. A file of its own, as that is so for a whole process.

use plugin_testkit::process::children_of;
use rustix::process::Signal;
use support::{SAMPLE, pid, script, signal, start, until};

mod support;

#[tokio::test]
async fn what_a_plugin_leaves_to_a_host_that_is_process_1_is_buried() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // One in the process group, and one that has left it.
    let text = format!("sleep 1000 >&- 2>&- & setsid sleep 1000 >&- 2>&- & exec {SAMPLE}");
    for is_asked in [true, false] {
        let (plugin, _client) = start(&script(dir.path(), &text)).await;
        let plugin_pid = pid(&plugin);
        until("both to be there", async || children_of(plugin_pid).len() == 2).await;
        if is_asked {
            plugin.shutdown().await;
        } else {
            signal(plugin_pid, Signal::KILL);
        }
        until("nothing to be left, not even a zombie", async || children_of(std::process::id()).is_empty())
            .await;
    }
}
