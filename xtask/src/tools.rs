//! Programs that a task uses if they are there, besides the toolchain that everyone has.

use std::process::{Command, Stdio};

/// A program that may be missing.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The argument with which it says its version and no more.
    asked: &'static str,
    /// What is skipped without it.
    pub(crate) used_for: &'static str,
    task: Task,
}

/// The task that wants a tool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Bench,
    Check,
    Instructions,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "cargo-deny",
        asked: "--version",
        used_for: "licences, sources and duplicates of dependencies",
        task: Task::Check,
    },
    Tool {
        name: "go",
        asked: "version",
        used_for: "servers and a plugin in Go to compare with",
        task: Task::Bench,
    },
    Tool {
        name: "valgrind",
        asked: "--version",
        used_for: "counting instructions",
        task: Task::Instructions,
    },
];

/// The tools for `task` that are not installed.
pub(crate) fn missing(task: Task) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| tool.task == task && !tool.is_installed())
}

impl Tool {
    fn is_installed(&self) -> bool {
        let version =
            Command::new(self.name).arg(self.asked).stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }
}
