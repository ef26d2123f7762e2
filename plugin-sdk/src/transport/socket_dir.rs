//! The host's private directory for one plugin's sockets, both sides'.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::listen::{MAX_SOCKET_PATH_BYTES, group_id};

/// What a plugin adds to the directory's path. go-plugin's names are `plugin` and up to ten digits, after a slash.
const LONGEST_SOCKET_NAME_BYTES: usize = "/plugin".len() + 20;

/// Characters of the random part of the directory's name.
const RANDOM_CHARACTERS: usize = 8;

/// A directory for sockets. Removed with this value, and the sockets in it; not what a plugin may have hidden in
/// directories of its own there, which would have us walk wherever it likes.
#[derive(Debug)]
pub(crate) struct SocketDir(PathBuf);

impl Drop for SocketDir {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        if let Err(error) = std::fs::remove_dir(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "the plugin's socket directory is left behind");
        }
    }
}

impl SocketDir {
    /// A new directory that only this user can enter, in the first of the runtime directory, the temporary directory
    /// and `/tmp` whose path is short enough for a socket in it.
    ///
    /// Members of `group` can enter as well, and make sockets in it.
    pub(crate) fn create(group: Option<&str>) -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let dir = Self::create_in(runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]))?;
        if let Some(group) = group {
            let id = group_id(group).map_err(io::Error::other)?;
            chown(dir.path(), None, Some(id))?;
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o770))?;
        }
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn create_in(candidates: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates.into_iter().filter(|parent| fits(parent)) {
            let private = std::fs::Permissions::from_mode(0o700);
            let made = tempfile::Builder::new()
                .prefix("plugin-")
                .rand_bytes(RANDOM_CHARACTERS)
                .permissions(private)
                .tempdir_in(parent);
            match made {
                Ok(dir) => return Ok(Self(dir.keep())),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn fits(parent: &Path) -> bool {
    let directory = "/plugin-".len() + RANDOM_CHARACTERS;
    parent.is_absolute()
        && parent.as_os_str().len() + directory + LONGEST_SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_is_too_long_or_missing_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("x".repeat(60));
        std::fs::create_dir(&long).unwrap();
        let dir = SocketDir::create_in([long, "/no/such".into(), home.path().into()]).unwrap();
        assert_eq!(dir.path().parent(), Some(home.path()));
        assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn sockets_go_with_their_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = SocketDir::create_in([home.path().into()]).unwrap();
        let path = dir.path().to_path_buf();
        drop(std::os::unix::net::UnixListener::bind(path.join("plugin1")).unwrap());
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn without_any_place_the_last_failure_is_told() {
        assert!(SocketDir::create_in(["/no/such".into()]).is_err());
        assert!(SocketDir::create_in([]).is_err());
    }
}
