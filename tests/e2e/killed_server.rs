//! A server that is killed, at whatever moment, leaves no process; its files are gone with the next start.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use e2e::load::Load;
use e2e::wait::wait_until;
use e2e::{Server, times};
use rustix::process::Signal;

const ARGS: [&str; 3] = ["--port=0", "--log-level=warn", "--cache-plugin-path=memory"];

/// What is promised: within this time of its server's end a plugin is gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn server_killed_under_load_leaves_no_process_and_its_files_only_until_the_next_start() {
    let mut server = Server::launch(ARGS);
    for round in 0..times(10) {
        // Every other one while its plugin is being started.
        let load = (round % 2 == 1).then(|| {
            wait_until("the plugin to serve", || server.plugin_state() == "serving");
            Load::start(server.address(), 8)
        });
        std::thread::sleep(random_moment());
        server.signal(Signal::KILL);
        let killed = Instant::now();
        server.wait_for_exit();
        while !server.processes().is_empty() {
            assert!(killed.elapsed() < GONE_WITHIN, "{:?} are left", server.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its clients have nobody to ask, which they tell.
        drop(load.map(Load::stop));
        server = server.succeeded_by(ARGS);
        wait_until("the plugin to serve", || server.plugin_state() == "serving");
        wait_until("the files of the dead to be gone", || directories(&server).len() == 1);
    }
    server.signal(Signal::TERM);
    let status: ExitStatus = server.wait_for_exit();
    assert_eq!((status.code(), server.files()), (Some(0), Vec::<PathBuf>::new()));
}

/// The directories of all servers in this place.
fn directories(server: &Server) -> Vec<PathBuf> {
    server.files().into_iter().filter(|path| path.join("host").is_file()).collect()
}

/// Some time in which a server starts its plugin, or serves.
fn random_moment() -> Duration {
    Duration::from_millis(RandomState::new().hash_one(()) % 200)
}
