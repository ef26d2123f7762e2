//! Programs that are started as a person would start them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Started(Child);

impl Started {
    /// Starts `command`, without stdin and with stdout for [`first_line`](Self::first_line).
    ///
    /// # Panics
    /// It cannot be started.
    #[expect(clippy::disallowed_methods, reason = "this is not what a host does with its plugins")]
    pub fn new(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The first line of its stdout, which is then read no more. To be called once.
    ///
    /// # Panics
    /// It closes stdout without one.
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.take().expect("the first line is read once");
        BufReader::new(stdout).read_line(&mut line).expect("stdout can be read");
        line
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}
