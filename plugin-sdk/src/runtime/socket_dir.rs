//! The host's private directory for one plugin's sockets, both sides'.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::RuntimeDir;
use super::base::{opened, temporary_dirs, user_dir};
use crate::transport::{MAX_SOCKET_PATH_BYTES, group_id};

/// What a plugin adds to the directory's path. go-plugin's names are `plugin` and up to ten digits, after a slash.
const LONGEST_SOCKET_NAME_BYTES: usize = "/plugin".len() + 20;

/// Name of a directory in the host's own; random characters follow.
const PREFIX: &str = "p";
const RANDOM_CHARACTERS: usize = 5;

/// Name of a directory beside those of hosts; random characters follow.
const OUTSIDE_PREFIX: &str = "plugin-";
const OUTSIDE_RANDOM_CHARACTERS: usize = 8;

/// What is added to the path of the host's directory at most.
pub(super) const LONGEST_PATH_BYTES: usize =
    "/".len() + PREFIX.len() + RANDOM_CHARACTERS + LONGEST_SOCKET_NAME_BYTES;

/// A directory for sockets. Removed with this value, and the sockets in it; not what a plugin may have hidden in
/// directories of its own there, which would have us walk wherever it likes.
#[derive(Debug)]
pub(crate) struct SocketDir {
    path: PathBuf,
    /// The link by which the host's directory knows one that is elsewhere.
    link: Option<PathBuf>,
    /// Last, so that it is empty when it goes.
    _runtime: Arc<RuntimeDir>,
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        remove_flat(&self.path);
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link);
        }
    }
}

/// Removes a directory and the files in it, if it is there.
pub(super) fn remove_flat(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
    if let Err(error) = std::fs::remove_dir(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "the plugin's socket directory is left behind");
    }
}

impl SocketDir {
    /// A new directory that only this user can enter, in that of the host.
    ///
    /// With `group`, the group's members can enter as well, and make sockets in it. It is then not in the host's directory,
    /// which they cannot pass through, but in the runtime directory, the temporary directory or `/tmp`, whose path has
    /// to be short enough for a socket in it; the host's directory has a link to it, for the sweep.
    pub(crate) fn create(group: Option<&str>) -> io::Result<Self> {
        let runtime = RuntimeDir::of_this_process()?;
        match group {
            None => Self::create_in(runtime),
            Some(group) => {
                let id = group_id(group).map_err(io::Error::other)?;
                let dir = Self::create_outside(runtime, user_dir().into_iter().chain(temporary_dirs()))?;
                chown(dir.path(), None, Some(id))?;
                std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o770))?;
                Ok(dir)
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn create_in(runtime: Arc<RuntimeDir>) -> io::Result<Self> {
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(RANDOM_CHARACTERS)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(runtime.path())?;
        Ok(Self { path: made.keep(), link: None, _runtime: runtime })
    }

    fn create_outside(
        runtime: Arc<RuntimeDir>,
        candidates: impl IntoIterator<Item = PathBuf>,
    ) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates.into_iter().filter(|parent| fits(parent)) {
            let made = tempfile::Builder::new()
                .prefix(OUTSIDE_PREFIX)
                .rand_bytes(OUTSIDE_RANDOM_CHARACTERS)
                .make_in(parent, |path| make_with_link(path, runtime.path()));
            match made.map(|made| made.into_parts()) {
                Ok((link, path)) => {
                    let path = path.keep().map_err(io::Error::from)?;
                    return Ok(Self { path, link: Some(link), _runtime: runtime });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Makes a directory, and before it the link to it, so that it is never there without.
fn make_with_link(path: &Path, runtime: &Path) -> io::Result<PathBuf> {
    let link = runtime.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    symlink(path, &link)?;
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    if made.is_err() {
        let _ = std::fs::remove_file(&link);
    }
    made.map(|()| link)
}

/// The directories elsewhere to which a host's directory has links: those that are there, are this user's, and have the
/// name of the link and of such a directory.
pub(super) fn registered_in(runtime: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runtime).into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_name().as_bytes().starts_with(OUTSIDE_PREFIX.as_bytes()));
    let targets = links.filter_map(|link| {
        let target = std::fs::read_link(link.path()).ok()?;
        let (_, stat) = opened(&target).ok()?;
        let is_ours = target.is_absolute()
            && target.file_name() == Some(&link.file_name())
            && stat.st_uid == rustix::process::geteuid().as_raw();
        is_ours.then_some(target)
    });
    targets.collect()
}

fn fits(parent: &Path) -> bool {
    let directory = "/".len() + OUTSIDE_PREFIX.len() + OUTSIDE_RANDOM_CHARACTERS;
    parent.is_absolute()
        && parent.as_os_str().len() + directory + LONGEST_SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::base::Base;

    fn runtime(home: &Path) -> Arc<RuntimeDir> {
        Arc::new(RuntimeDir::create(&[Base::new(home.join("plugin-hosts"))]).unwrap())
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_is_private_in_that_of_the_host_and_both_go_with_the_last() {
        let home = tempfile::tempdir().unwrap();
        let runtime = runtime(home.path());
        let host = runtime.path().to_path_buf();
        let [first, second] = [SocketDir::create_in(Arc::clone(&runtime)), SocketDir::create_in(runtime)];
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.path().parent(), mode(first.path())), (Some(host.as_path()), 0o700));
        drop(std::os::unix::net::UnixListener::bind(first.path().join("plugin1")).unwrap());
        let path = first.path().to_path_buf();
        drop(first);
        assert!(!path.exists() && host.exists());
        drop(second);
        assert!(!home.path().join("plugin-hosts").exists());
    }

    #[test]
    fn the_longest_path_is_short_enough_for_a_socket() {
        let home = tempfile::tempdir().unwrap();
        let dir = SocketDir::create_in(runtime(home.path())).unwrap();
        let name = dir.path().strip_prefix(home.path().join("plugin-hosts")).unwrap();
        let pid = std::process::id().to_string().len();
        let longest = super::super::LONGEST_NAME_BYTES + LONGEST_PATH_BYTES;
        let measured = "/".len() + name.as_os_str().len() + "4194304".len() - pid + LONGEST_SOCKET_NAME_BYTES;
        assert_eq!(measured, longest);
    }

    #[test]
    fn outside_a_parent_that_is_too_long_or_missing_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("x".repeat(60));
        std::fs::create_dir(&long).unwrap();
        let candidates = [long, "/no/such".into(), home.path().into()];
        let dir = SocketDir::create_outside(runtime(home.path()), candidates).unwrap();
        assert_eq!((dir.path().parent(), mode(dir.path())), (Some(home.path()), 0o700));
        assert!(SocketDir::create_outside(runtime(home.path()), ["/no/such".into()]).is_err());
    }

    #[test]
    fn one_that_is_outside_is_known_to_the_host_as_long_as_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let runtime = runtime(home.path());
        let dir = SocketDir::create_outside(Arc::clone(&runtime), [home.path().into()]).unwrap();
        assert_eq!(registered_in(runtime.path()), [dir.path().to_path_buf()]);
        let path = dir.path().to_path_buf();
        drop(dir);
        assert!(!path.exists() && registered_in(runtime.path()).is_empty());
        // By a plugin that hopes to have something else removed.
        for (name, target) in [("plugin-AAAAAAAA", home.path()), ("plugin-BBBBBBBB", Path::new("/etc"))] {
            symlink(target, runtime.path().join(name)).unwrap();
        }
        assert!(registered_in(runtime.path()).is_empty());
    }
}
