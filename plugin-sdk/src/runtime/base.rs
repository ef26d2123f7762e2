//! Where the directories of this user's hosts are, and whether it is really this user's: in `/tmp` anybody may have made
//! something of that name before.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, RawMode, Stat, flock, fstat, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use super::{ATTEMPTS, LONGEST_NAME_BYTES, RANDOM_CHARACTERS, socket_dir};
use crate::transport::MAX_SOCKET_PATH_BYTES;

/// A place for the directories of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base(PathBuf);

/// Why a base is not used. Whoever made it has to remove it, or another `TMPDIR` has to be chosen.
#[derive(Debug, Error)]
enum BaseProblem {
    /// A file, or a symbolic link, which is never followed.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Another user has made it.
    #[error("{} belongs to user {owner}", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    /// Others could have put something into it.
    #[error("{} can be entered by other users: its mode is {mode:o} instead of 700", path.display())]
    Open { path: PathBuf, mode: RawMode },
}

/// Whether a base is not used because others have made it.
pub(super) fn is_taken(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<BaseProblem>())
}

/// In the user's runtime directory, in the temporary directory, and in `/tmp`, in the order in which they are tried.
pub(super) fn candidates() -> Vec<Base> {
    let mut all: Vec<_> = user_dir().map(|dir| Base::new(dir.join("plugin-hosts"))).into_iter().collect();
    for parent in temporary_dirs() {
        let base = Base::new(parent.join(format!("plugin-hosts-{}", geteuid().as_raw())));
        if !all.contains(&base) {
            all.push(base);
        }
    }
    all
}

/// The user's runtime directory, if it is this user's: under `sudo` the variable may name another's, who could put
/// something else into the place of what we make there.
pub(super) fn user_dir() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    let metadata = dir.metadata().ok()?;
    (metadata.is_dir() && metadata.uid() == geteuid().as_raw()).then_some(dir)
}

/// Where anybody may make files.
pub(super) fn temporary_dirs() -> [PathBuf; 2] {
    [std::env::temp_dir(), PathBuf::from("/tmp")]
}

/// Every base of this user that is there: the candidates, and those that were made because a candidate was taken.
pub(super) fn existing() -> Vec<PathBuf> {
    let candidates = candidates();
    let others: Vec<_> = candidates.iter().flat_map(Base::siblings).collect();
    let all = candidates.into_iter().map(|base| base.0).chain(others);
    all.filter(|path| verified(path).is_ok()).collect()
}

impl Base {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the path of a socket in it is one that sockets can have.
    pub(super) fn fits(&self) -> bool {
        let longest = self.0.as_os_str().len() + LONGEST_NAME_BYTES + socket_dir::LONGEST_PATH_BYTES;
        self.0.is_absolute() && longest <= MAX_SOCKET_PATH_BYTES
    }

    /// Makes it unless it is there, looks whose it is, and opens it.
    pub(super) fn ensure(&self) -> io::Result<OwnedFd> {
        let path = &self.0;
        for _ in 0..ATTEMPTS {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            match verified(path) {
                // Its last host has taken it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                verified => return verified,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Another one beside it, of the same name with a random end.
    pub(super) fn another(&self) -> Self {
        let mut name = self.0.clone().into_os_string();
        name.push(format!(".{}", random_text(RANDOM_CHARACTERS)));
        Self::new(name.into())
    }

    /// Those that were [another](Self::another) for somebody.
    pub(super) fn siblings(&self) -> Vec<PathBuf> {
        let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) else { return Vec::new() };
        let prefix = [name.as_bytes(), b"."].concat();
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let theirs = entries.filter(|entry| entry.file_name().as_bytes().starts_with(&prefix));
        theirs.map(|entry| entry.path()).collect()
    }
}

/// A directory of this user that nobody else can enter, opened.
pub(super) fn verified(path: &Path) -> io::Result<OwnedFd> {
    let (dir, stat) = opened(path)?;
    let path = || path.to_path_buf();
    let mode = Mode::from_raw_mode(stat.st_mode).bits() & 0o777;
    if stat.st_uid != geteuid().as_raw() {
        return Err(io::Error::other(BaseProblem::Foreign { path: path(), owner: stat.st_uid }));
    }
    if mode & 0o077 != 0 {
        return Err(io::Error::other(BaseProblem::Open { path: path(), mode }));
    }
    Ok(dir)
}

/// A directory that is no symbolic link.
pub(super) fn opened(path: &Path) -> io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => io::Error::other(BaseProblem::NotADirectory(path.to_path_buf())),
        // Another user's, as a rule, that only its owner can open: the error has to name it.
        Errno::ACCESS => match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.uid() != geteuid().as_raw() => {
                io::Error::other(BaseProblem::Foreign { path: path.to_path_buf(), owner: metadata.uid() })
            }
            _ => error.into(),
        },
        other => other.into(),
    })?;
    let stat = fstat(&dir)?;
    Ok((dir, stat))
}

/// The lock on a host's directory, or `None` if another process has it, or the directory is gone.
///
/// It belongs to the open descriptor: closing that, or the end of the process, gives it up. A child does not have it for
/// longer than from fork to exec.
pub(super) fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    let dir = match verified(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        dir => dir?,
    };
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    // Removed by another process, which has had the lock before.
    let is_there = fstat(&dir)?.st_nlink > 0;
    Ok(is_there.then_some(dir))
}

/// Letters and digits that nobody can foresee: each `RandomState` has keys of its own, seeded by the operating system.
pub(super) fn random_text(characters: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut number = RandomState::new().hash_one(std::process::id());
    let digits = std::iter::repeat_with(|| {
        let digit = ALPHABET[(number % 62) as usize];
        number /= 62;
        char::from(digit)
    });
    digits.take(characters).collect()
}
