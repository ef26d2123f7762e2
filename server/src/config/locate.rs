//! From `--cache-plugin-path` to a file: a path is taken as it is, a name is looked up.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt,
    path::{Component, Path, PathBuf},
};

/// What the file names of cache plugins begin with.
const PREFIX: &str = "fib-cache-";

/// How many plugins an error lists: enough for any real folder, and one line all the same.
const LISTED: usize = 20;

/// A plugin's file, and the name to show for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

/// Finds the file of a plugin. A value without a path separator is a name: `memory` and `fib-cache-memory` are the
/// file `fib-cache-memory` in the first of `folders` that has it. Whether the file can be run is not looked at.
pub(super) fn locate(wanted: &Path, folders: &[PathBuf]) -> Result<Located, NotFound> {
    let Some(name) = bare_name(wanted) else {
        return Ok(Located { path: wanted.to_owned(), name: short_name(wanted) });
    };
    let file = if name.starts_with(PREFIX) { name.to_owned() } else { format!("{PREFIX}{name}") };
    match folders.iter().map(|folder| folder.join(&file)).find(|path| path.exists()) {
        Some(path) => Ok(Located { name: short_name(&path), path }),
        None => Err(NotFound { file, folders: folders.to_vec(), there: plugins_in(folders) }),
    }
}

/// A name was given and no folder has its file. The operator's move: another name, a path, or `--plugin-dir`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) struct NotFound {
    file: String,
    folders: Vec<PathBuf>,
    there: BTreeSet<String>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        write!(f, "no plugin {} in {}", self.file, folders.join(" or "))?;
        if self.there.is_empty() {
            return write!(f, ", nor any other {PREFIX}*");
        }
        let there: Vec<_> = self.there.iter().take(LISTED).map(String::as_str).collect();
        write!(f, "; there is {}", there.join(", "))?;
        if self.there.len() > LISTED { write!(f, " and {} more", self.there.len() - LISTED) } else { Ok(()) }
    }
}

fn bare_name(wanted: &Path) -> Option<&str> {
    let mut components = wanted.components();
    let only = components.next();
    let has_separator = wanted.as_os_str().as_encoded_bytes().contains(&b'/');
    match (only, components.next()) {
        (Some(Component::Normal(name)), None) if !has_separator => name.to_str(),
        _ => None,
    }
}

/// `memory` for `/usr/lib/fib-cache-memory`.
fn short_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    file.strip_prefix(PREFIX).filter(|rest| !rest.is_empty()).unwrap_or(&file).to_owned()
}

fn plugins_in(folders: &[PathBuf]) -> BTreeSet<String> {
    let files = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().filter_map(Result::ok);
    files.filter_map(|file| plugin_name(&file.file_name())).collect()
}

fn plugin_name(file: &OsStr) -> Option<String> {
    // Cargo leaves `fib-cache-memory.d` beside the program it has built.
    file.to_str().filter(|name| name.starts_with(PREFIX) && !name.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        for (path, name) in [
            ("./memory", "memory"),
            ("/x/fib-cache-redis", "redis"),
            ("a/b", "b"),
            ("x/..", "x/.."),
            ("memory/", "memory"),
        ] {
            let located = locate(Path::new(path), &[]).unwrap();
            assert_eq!(located, Located { path: path.into(), name: name.into() });
        }
    }

    #[test]
    fn a_name_is_looked_up_in_order() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [first.path().to_owned(), second.path().to_owned()];
        fs::write(second.path().join("fib-cache-memory"), "").unwrap();
        for wanted in ["memory", "fib-cache-memory"] {
            let located = locate(Path::new(wanted), &folders).unwrap();
            assert_eq!(
                located,
                Located { path: second.path().join("fib-cache-memory"), name: "memory".into() }
            );
        }
        fs::write(first.path().join("fib-cache-memory"), "").unwrap();
        assert_eq!(
            locate(Path::new("memory"), &folders).unwrap().path,
            first.path().join("fib-cache-memory")
        );
    }

    #[test]
    fn a_name_that_is_nowhere_names_folders_and_alternatives() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["fib-cache-memory", "fib-cache-redis", "fib-cache-redis.d", "fib-server"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let folders = [folder.path().to_owned(), "/nowhere".into()];
        let error = locate(Path::new("memroy"), &folders).unwrap_err();
        assert_eq!(error.file, "fib-cache-memroy");
        assert_eq!(error.there, ["fib-cache-memory", "fib-cache-redis"].map(String::from).into());
        assert!(error.to_string().contains("/nowhere"));
        assert!(!error.to_string().contains('\n'));
    }
}
