//! Which way dependencies point: between the crates as cargo sees them, and between the modules of plugin-sdk as
//! their `crate::` paths show.
//!
//! ```text
//! fib-server -> plugin-sdk (host)                plugins/* -> plugin-sdk (plugin)
//!     \--> cache-proto <-- plugins/*             plugin-sdk -/-> cache-proto
//! in plugin-sdk:  host, plugin -> services, process, transport -> handshake
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, cargo, display};

/// Crates that must not depend on others, however far away.
const CRATES: &[(&str, &[&str])] = &[
    ("plugin-sdk", &["cache-proto", "fib-server", "fib-cache-memory"]),
    // mio is what tokio does I/O with: the contract itself does none.
    ("cache-proto", &["plugin-sdk", "fib-server", "hyper", "mio"]),
    ("fib-server", &["fib-cache-memory"]),
    ("fib-cache-memory", &["fib-server"]),
    ("rogue-plugin", &["plugin-sdk"]),
];

/// Modules of plugin-sdk that must not use others.
const MODULES: &[(&str, &[&str])] = &[
    ("handshake", &["transport", "process", "services", "host", "plugin"]),
    ("transport", &["host", "plugin"]),
    ("process", &["host", "plugin"]),
    ("services", &["host", "plugin"]),
    ("host", &["plugin"]),
    ("plugin", &["host"]),
];

/// Fails where a dependency points the wrong way, and names all that do.
pub(crate) fn run(root: &Path) -> Outcome {
    let mut wrong = Vec::new();
    for (package, forbidden) in CRATES {
        let tree = dependencies(root, package)?;
        let found = forbidden.iter().filter(|name| tree.iter().any(|dependency| dependency == *name));
        wrong.extend(found.map(|name| format!("{package} depends on {name}")));
    }
    for (module, forbidden) in MODULES {
        for file in files_of(&root.join("plugin-sdk/src"), module)? {
            let code = without_comments(&fs::read_to_string(&file)?);
            let found = modules_used(&code).into_iter().filter(|name| forbidden.contains(name));
            wrong.extend(found.map(|name| format!("{} uses crate::{name}", file.display())));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// Names of all crates that end up in a build of `package` with its default features.
fn dependencies(root: &Path, package: &str) -> Result<Vec<String>, String> {
    let mut command = cargo(root);
    command.args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let line = display(&command);
    let output = command.output().map_err(|error| format!("`{line}` does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The files of a module: `name.rs`, and all in `name/`.
fn files_of(source: &Path, module: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![source.join(module)];
    let file = source.join(module).with_extension("rs");
    if file.exists() {
        files.push(file);
    }
    while let Some(folder) = folders.pop().filter(|folder| folder.exists()) {
        let unreadable = |error| format!("{} cannot be read: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    // A module that was renamed would otherwise pass for ever.
    if files.is_empty() { Err(format!("plugin-sdk has no module {module}")) } else { Ok(files) }
}

/// The first names after `crate::`, those in braces included.
fn modules_used(code: &str) -> Vec<&str> {
    let after = code.match_indices("crate::").map(|(at, path)| &code[at + path.len()..]);
    let names = after.map(|path| match path.strip_prefix('{') {
        Some(group) => group_items(group),
        None => vec![first_name(path)],
    });
    names.flatten().collect()
}

/// The source without what comes after `//` on each line: comments may name anything.
fn without_comments(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first name of each item of a `{...}` group, given without its opening brace.
fn group_items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(first_name(group[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn first_name(path: &str) -> &str {
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_');
    &path[..end.unwrap_or(path.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_paths_and_groups_and_not_in_comments() {
        for (source, expected) in [
            ("use crate::host::Launch;", &["host"][..]),
            (
                "pub use crate::{host::Launch, process::{Exit, Kind}, MagicCookie};",
                &["host", "process", "MagicCookie"],
            ),
            (
                "use crate::{\n    host,\n    plugin as p,\n};\nuse crate::report;",
                &["host", "plugin", "report"],
            ),
            ("fn f() { crate::host::x(); crate::plugin::y() }", &["host", "plugin"]),
            ("//! [`crate::host`], [`crate::process`]\n    // crate::plugin\nuse std::fmt;", &[]),
            ("pub(crate) fn f() {}", &[]),
        ] {
            assert_eq!(modules_used(&without_comments(source)), expected, "{source}");
        }
    }
}
