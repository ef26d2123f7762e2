//! Completions for shells, and manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::failure::OperateError;
use crate::cli::Cli;

/// The script that a shell needs to complete command lines.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pluginctl", &mut script);
    String::from_utf8_lossy(&script).trim_end().to_owned()
}

/// Writes `pluginctl.1`, and a page for each command, into a directory, which is made if it is not there.
pub(crate) fn man(dir: &Path) -> Result<(), OperateError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|source| OperateError::Write { path: dir.display().to_string(), source })
}
