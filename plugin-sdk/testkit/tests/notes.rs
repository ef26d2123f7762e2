//! Notes of one thread among others, of which nobody takes any. In a process of its own: other notes would hide it.

use std::thread;

use plugin_testkit::Logged;

#[test]
fn an_event_that_another_thread_comes_to_first_is_noted_here_all_the_same() {
    let logged = Logged::begin();
    let event = || tracing::info!("said at one place of the code");
    thread::spawn(event).join().unwrap();
    assert!(logged.lines().is_empty());
    event();
    assert_eq!(logged.lines().len(), 1);
}
