//! What a host is left with when a plugin has been restarted again and again. The only test of its process, which it counts
//! things of. `RESTARTS=2000` makes it thorough.

use std::time::Duration;

use plugin_sdk::host::{Backoff, RestartPolicy, Supervisor};
use rustix::process::Signal;
use support::{Count, sample, signal, until};

mod support;

/// How often the plugin is killed.
const RESTARTS: u64 = 100;

/// What may come on top, in bytes: what is remembered of restarts is bounded, and allocators do not give everything back.
const MEMORY: u64 = 8 << 20;

#[tokio::test]
async fn restarts_leave_no_descriptor_no_thread_no_task_and_no_memory() {
    let restarts = std::env::var("RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(RESTARTS);
    let backoff = Backoff::constant(Duration::from_millis(1));
    let policy = RestartPolicy { backoff, ..RestartPolicy::default() };
    let before_all = Count::now();
    let plugin = Supervisor::launch(sample()).policy(policy).start();
    let handle = plugin.handle();
    let mut before = None;
    for restart in 0..=restarts {
        let mut live = None;
        until("the next instance serves", async || {
            live = handle.status().borrow().state.live().cloned();
            live.as_ref().is_some_and(|live| live.instance == restart + 1)
        })
        .await;
        // Journals are filled, and what is made once is there.
        if restart == restarts / 4 {
            before = Some((Count::now(), resident_bytes()));
        }
        if restart < restarts {
            signal(live.and_then(|live| live.pid).expect("it is a process"), Signal::KILL);
        }
    }
    let (count, memory) = before.expect("it was looked at");
    until("there is no more than before", async || Count::now().is_within(count)).await;
    let grown = resident_bytes().saturating_sub(memory);
    eprintln!("{restarts} restarts: {memory} bytes of memory, then {grown} more");
    assert!(grown < MEMORY, "{grown} bytes more after {restarts} restarts, {memory} before");
    assert_eq!(handle.status().borrow().restarts, restarts);
    plugin.shutdown().await;
    until("all of it has gone", async || Count::now() == before_all).await;
}

/// Memory that this process has in use.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has this field");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
    kibibytes << 10
}
