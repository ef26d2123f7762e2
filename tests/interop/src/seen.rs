//! What our host has logged of its plugins, for tests to look at.

pub use plugin_testkit::Line;
use plugin_testkit::Logged;

/// Begins to take notes, for all tests of the process. To be called before a plugin is started.
pub fn begin() {
    let _they_are_kept = Logged::of_all_threads();
}

/// Waits for a line of the process `pid` for which `fits` holds.
///
/// # Panics
/// There is none in time.
pub async fn line(pid: u32, fits: impl Fn(&Line) -> bool) -> Line {
    let pid = pid.to_string();
    let of_plugin = |line: &Line| line.target == "plugin" && line.field("pid") == pid;
    Logged::of_all_threads().line(|line| of_plugin(line) && fits(line)).await
}
