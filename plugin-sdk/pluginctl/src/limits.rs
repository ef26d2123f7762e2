//! Sizes and times that no flag changes.

use std::time::Duration;

/// Largest message that is taken from a plugin. Hosts in Go take any size, and some plugins send tens of megabytes; this
/// is more than any of them, and little enough for a machine that runs plugins.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Files that one service may need: more than the largest of interfaces have, so that a plugin that always names another
/// is found out.
pub(crate) const MAX_DESCRIPTOR_FILES: usize = 10_000;

/// How much later than ours the deadline is that a plugin is told, so that ours, which ends the call, comes first and
/// the outcome does not depend on who was quicker.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_millis(500);

/// Time for the kernel to remove a plugin that got SIGKILL. It takes milliseconds, unless a file system hangs.
pub(crate) const REAP: Duration = Duration::from_secs(2);

/// Time for a plugin whose connection broke to be seen to have ended, so that its end is told as the cause.
pub(crate) const EXIT_GRACE: Duration = Duration::from_millis(250);

/// Time for whoever holds stderr to take in what was said last.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Longest duration a flag takes: a hundred years, which is for ever, and can still be added to any clock.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
