//! Which way dependencies point: between the crates as cargo sees them, and between the modules of plugin-sdk as
//! their paths show that begin with `crate::`, or with so many `super::` that they come to the same.
//!
//! ```text
//! fib-server -> plugin-sdk (host)                plugins/* -> plugin-sdk (plugin)
//!     \--> cache-proto <-- plugins/*             plugin-sdk -/-> cache-proto
//! plugin-testkit -> plugin-sdk, in tests only    plugin-rogue -/-> plugin-sdk
//! in plugin-sdk:  host, plugin -> services, process, transport -> handshake
//!                 host -> runtime -> process, transport
//!                 services <-> transport, since connections are multiplexed together with the broker's
//! ```
//!
//! What only looks: names that are re-exported at the root of plugin-sdk, and macros, are not followed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, cargo, display};

/// Crates that must not depend on others, however far away.
const CRATES: &[(&str, &[&str])] = &[
    ("plugin-sdk", &["cache-proto", "fib-server", "fib-cache-memory", "fib-cache-redis", "plugin-testkit"]),
    // What shares no code with the SDK does not share its mistakes.
    ("plugin-rogue", &["plugin-sdk"]),
    ("plugin-testkit", &["cache-proto", "fib-server", "fib-cache-memory", "fib-cache-redis"]),
    // It is for those who have nothing of ours but the SDK.
    ("kv-example", &["cache-proto", "fib-server", "plugin-testkit", "plugin-rogue"]),
    // mio is what tokio does I/O with: the contract itself does none.
    ("cache-proto", &["plugin-sdk", "fib-server", "hyper", "mio"]),
    ("fib-server", &["fib-cache-memory", "fib-cache-redis", "redis", "plugin-testkit"]),
    ("fib-cache-memory", &["fib-server", "fib-cache-redis", "plugin-testkit"]),
    ("fib-cache-redis", &["fib-server", "fib-cache-memory", "plugin-testkit"]),
    ("rogue-plugin", &["plugin-sdk"]),
    // It sees servers from outside, and what it links is not measured.
    ("bench", &["plugin-sdk", "fib-server", "cache-proto", "bench-crossing"]),
    ("bench-crossing", &["fib-server", "fib-cache-memory", "fib-cache-redis"]),
    ("bench-get-only", &["fib-server", "fib-cache-redis"]),
];

/// Features of plugin-sdk that a crate must not enable: each side of a plugin is built without the other.
const FEATURES: &[(&str, &str)] = &[
    ("fib-server", "plugin"),
    ("fib-cache-memory", "host"),
    ("fib-cache-redis", "host"),
    ("bench-get-only", "host"),
];

/// Modules of plugin-sdk that must not use others.
const MODULES: &[(&str, &[&str])] = &[
    ("handshake", &["transport", "process", "runtime", "services", "host", "plugin"]),
    ("transport", &["process", "runtime", "host", "plugin"]),
    ("process", &["transport", "runtime", "services", "host", "plugin"]),
    ("runtime", &["services", "host", "plugin"]),
    ("services", &["process", "runtime", "host", "plugin"]),
    ("control", &["process", "host", "plugin"]),
    ("host", &["plugin"]),
    ("plugin", &["host"]),
];

/// Fails where a dependency points the wrong way, and names all that do.
pub(crate) fn run(root: &Path) -> Outcome {
    let mut wrong = Vec::new();
    for (package, forbidden) in CRATES {
        let tree = tree(root, package, "normal")?;
        let found = forbidden.iter().filter(|name| tree.lines().any(|line| first_word(line) == **name));
        wrong.extend(found.map(|name| format!("{package} depends on {name}")));
    }
    for (package, feature) in FEATURES {
        if enables(&tree(root, package, "normal,features")?, feature)? {
            wrong.push(format!("{package} enables feature {feature} of plugin-sdk"));
        }
    }
    for (module, forbidden) in MODULES {
        let source = root.join("plugin-sdk/src");
        for file in files_of(&source, module)? {
            let code = without_comments(&fs::read_to_string(&file)?);
            let found = modules_used(&code, depth(file.strip_prefix(&source)?))
                .into_iter()
                .filter(|name| forbidden.contains(name));
            wrong.extend(found.map(|name| format!("{} uses module {name}", file.display())));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// All that ends up in a build of `package` with its default features, one crate or feature per line.
fn tree(root: &Path, package: &str, edges: &str) -> Result<String, String> {
    let mut command = cargo(root);
    command.args(["tree", "--package", package, "--edges", edges, "--prefix", "none", "--format", "{p}"]);
    let line = display(&command);
    let output = command.output().map_err(|error| format!("`{line}` does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Whether a tree with features has this one of plugin-sdk, as in the line `plugin-sdk feature "host"`.
fn enables(tree: &str, feature: &str) -> Result<bool, String> {
    let mut features = tree.lines().filter_map(|line| line.strip_prefix("plugin-sdk feature ")).peekable();
    // Another way to print them would otherwise pass for ever.
    features.peek().ok_or("`cargo tree` shows no feature of plugin-sdk")?;
    Ok(features.any(|line| first_word(line).trim_matches('"') == feature))
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

/// How many modules a file of a crate is below its root: `host/mod.rs` and `host.rs` one, `host/error.rs` two.
fn depth(file: &Path) -> usize {
    let parts = file.components().count();
    if file.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// The first names after `crate::`, those in braces included, in a file at this depth, where so many `super::` mean
/// the same.
fn modules_used(code: &str, depth: usize) -> Vec<&str> {
    let supers = "super::".repeat(depth);
    let after = ["crate::", &supers]
        .into_iter()
        .flat_map(|prefix| code.match_indices(prefix).map(|(at, path)| &code[at + path.len()..]));
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
            assert_eq!(modules_used(&without_comments(source), 2), expected, "{source}");
        }
    }

    #[test]
    fn as_many_supers_as_a_file_is_deep_lead_to_the_root() {
        let depth = |file| super::depth(Path::new(file));
        assert_eq!([depth("a/mod.rs"), depth("a.rs"), depth("a/b.rs"), depth("a/b/c.rs")], [1, 1, 2, 3]);
        for (source, depth, expected) in [
            ("use super::host::Launch;", 1, &["host"][..]),
            ("use super::host::Launch;", 2, &[]),
            ("use super::super::{host, plugin as p};", 2, &["host", "plugin"]),
            ("fn f() { super::super::super::host::x() }", 3, &["host"]),
        ] {
            assert_eq!(modules_used(source, depth), expected, "{source}");
        }
    }

    #[test]
    fn features_are_read_from_the_tree() {
        let tree = "a v1\nplugin-sdk feature \"host\"\nplugin-sdk v0.1.0 (/x)\nb feature \"plugin\" (*)\n";
        assert_eq!(enables(tree, "host"), Ok(true));
        assert_eq!(enables(tree, "plugin"), Ok(false));
        assert!(enables("plugin-sdk v0.1.0\n", "host").is_err());
    }
}
