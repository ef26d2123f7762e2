//! What a host keeps in the file system while it runs: one directory, with the sockets of all its plugins in it.
//!
//! ```text
//! $XDG_RUNTIME_DIR/plugin-hosts/      or <tmp>/plugin-hosts-<uid>/     0700, of this user
//! ├── 4711.k3Vx9q/                    one host: its process, random     0700, locked while it lives
//! │   ├── host                        the name of its program
//! │   ├── p8Yt2Z/plugin1794…          one plugin: its sockets, and those of the host for it
//! │   └── plugin-Qx81LkfW -> /tmp/plugin-Qx81LkfW        one whose group may enter, and so is elsewhere
//! └── 5001.Hq0sWd/
//! ```
//!
//! A host that ends in order takes its directory with it. One that is killed leaves it behind, without its lock: the next
//! host of this user [sweeps](sweep) it up.
//!
//! The lock is on the directory itself, so there is no moment at which one of them is there without the other; and
//! systemd-tmpfiles, which removes old files from `/tmp`, leaves a directory alone that is locked.

mod base;
mod others;
mod socket_dir;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use rustix::fs::Mode;
use rustix::io::Errno;

pub(crate) use others::hosts_in;
pub use others::{HostEntry, hosts, sweep};
pub(crate) use socket_dir::SocketDir;

/// How often a new directory is tried again that another host has swept up before it was locked.
const ATTEMPTS: usize = 16;

/// Characters of the random part of a directory's name.
const RANDOM_CHARACTERS: usize = 6;

/// Longest name of a host's directory, with the slash before it.
const LONGEST_NAME_BYTES: usize = "/4194304.".len() + RANDOM_CHARACTERS;

/// The file with the name of the host's program.
const NAME_FILE: &str = "host";

/// This host's directory. It goes with the last holder, and so does its base if it is empty.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    path: PathBuf,
    /// The directory, locked as long as it is open, that is until this process ends, however it does.
    lock: OwnedFd,
}

impl RuntimeDir {
    /// The directory of this process: the one that somebody holds, if it is still there, or else a new one. It may have gone
    /// with the user's runtime directory, when the user has logged out.
    ///
    /// The first call has the leavings of dead hosts swept up, by a thread of its own.
    pub(crate) fn of_this_process() -> io::Result<Arc<Self>> {
        static HELD: Mutex<Weak<RuntimeDir>> = Mutex::new(Weak::new());
        static FIRST: Once = Once::new();
        FIRST.call_once(|| {
            // Without the thread the leavings stay until the next host.
            let _ = std::thread::Builder::new().name("plugin-sweep".to_owned()).spawn(sweep);
        });
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        Self::held_or_new(&mut held, base::candidates)
    }

    fn held_or_new(
        held: &mut Weak<Self>,
        candidates: impl FnOnce() -> Vec<base::Base>,
    ) -> io::Result<Arc<Self>> {
        if let Some(dir) = held.upgrade().filter(|dir| dir.is_there()) {
            return Ok(dir);
        }
        let dir = Arc::new(Self::create(&candidates())?);
        *held = Arc::downgrade(&dir);
        Ok(dir)
    }

    /// Whether its path leads to it.
    pub(crate) fn is_there(&self) -> bool {
        let there =
            rustix::fs::lstat(&self.path).and_then(|found| Ok((found, rustix::fs::fstat(&self.lock)?)));
        there.is_ok_and(|(found, held)| (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In the first base that will do. Where none does, because others have made them, in a new one with a random name.
    fn create(candidates: &[base::Base]) -> io::Result<Self> {
        let (mut failure, mut taken) = (None, Vec::new());
        for base in candidates.iter().filter(|base| base.fits()) {
            match Self::create_in(base) {
                Ok(dir) => return Ok(dir),
                Err(error) => {
                    let dir = base.path().display();
                    tracing::warn!(%dir, %error, "a place for the host's directory is passed over");
                    if base::is_taken(&error) {
                        taken.push(base);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        let others = taken.into_iter().map(base::Base::another).filter(base::Base::fits);
        let another = others.map(|base| Self::create_in(&base)).find_map(Result::ok);
        another.ok_or_else(|| failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// If it fails, it leaves nothing.
    fn create_in(base: &base::Base) -> io::Result<Self> {
        Self::try_to_create_in(base).inspect_err(|error| {
            if !base::is_taken(error) {
                // It fails as long as there are others. Unlike most else it needs no descriptor, which may be what is missing.
                let _ = std::fs::remove_dir(base.path());
            }
        })
    }

    fn try_to_create_in(base: &base::Base) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let opened = base.ensure()?;
            let name = format!("{}.{}", std::process::id(), base::random_text(RANDOM_CHARACTERS));
            match rustix::fs::mkdirat(opened, &name, Mode::RWXU) {
                // The name is taken, or the base has gone with its last host.
                Err(Errno::EXIST | Errno::NOENT) => continue,
                made => made?,
            }
            let path = base.path().join(name);
            // A host that sweeps just now may have taken the directory for one of a dead host.
            let lock = match base::lock(&path) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(error) => {
                    // A file system without locks.
                    let _ = std::fs::remove_dir(&path);
                    return Err(error);
                }
            };
            let dir = Self { path, lock };
            if let Err(error) = dir.write_name() {
                let _ = std::fs::remove_dir(&dir.path);
                return Err(error);
            }
            return Ok(dir);
        }
        Err(io::Error::other(format!("no directory in {} could be locked", base.path().display())))
    }

    /// For people who look at it, and for [`hosts`].
    fn write_name(&self) -> io::Result<()> {
        let program = std::env::current_exe().ok();
        let name = program.as_deref().and_then(Path::file_name).unwrap_or_default();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(NAME_FILE))?;
        io::Write::write_all(&mut file, name.to_string_lossy().as_bytes())
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if self.is_there() {
            // Mostly that is all there is, and no descriptor is needed then, which may be what is missing.
            let _ = std::fs::remove_file(self.path.join(NAME_FILE));
        }
        if let Err(error) = others::remove(&self.path) {
            tracing::warn!(dir = %self.path.display(), %error, "the host's directory is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::DirBuilder;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    use plugin_testkit::process;

    use super::base::Base;
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_goes_with_its_holder_and_the_base_with_the_last_directory() {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("plugin-hosts");
        let create = || RuntimeDir::create(&[Base::new(base.clone())]).unwrap();
        let (first, second) = (create(), create());
        assert_ne!(first.path(), second.path());
        assert_eq!((mode(&base), mode(first.path())), (0o700, 0o700));
        let name = std::fs::read_to_string(first.path().join(NAME_FILE)).unwrap();
        assert_eq!(name.as_str(), std::env::current_exe().unwrap().file_name().unwrap());
        drop(first);
        assert!(second.path().exists());
        drop(second);
        assert!(!base.exists());
    }

    #[test]
    fn a_base_of_another_user_or_open_to_others_is_refused_by_name_and_the_next_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let [open, link, file, good] = ["open", "link", "file", "good"].map(|name| home.path().join(name));
        DirBuilder::new().mode(0o777).create(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        DirBuilder::new().mode(0o700).create(&good).unwrap();
        std::os::unix::fs::symlink(&good, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        // Another user's, if we may make such a thing; the root directory is one as well, unless we are root.
        let foreign = home.path().join("foreign");
        DirBuilder::new().mode(0o700).create(&foreign).unwrap();
        if std::os::unix::fs::chown(&foreign, Some(65_533), None).is_ok() {
            let error = Base::new(foreign).ensure().unwrap_err();
            assert!(error.to_string().ends_with("/foreign belongs to user 65533"), "{error}");
        }
        for refused in [&open, &link, &file, &PathBuf::from("/")] {
            let error = Base::new(refused.clone()).ensure().unwrap_err();
            assert!(error.to_string().starts_with(&refused.display().to_string()), "{error}");
            let both = vec![Base::new(refused.clone()), Base::new(good.clone())];
            assert_eq!(RuntimeDir::create(&both).unwrap().path().parent(), Some(good.as_path()));
            DirBuilder::new().mode(0o700).create(&good).unwrap();
        }
    }

    #[test]
    fn where_every_base_is_taken_by_others_a_new_one_is_made_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("plugin-hosts-1");
        std::fs::write(&base, "somebody else's").unwrap();
        let dir = RuntimeDir::create(&[Base::new(base.clone())]).unwrap();
        let other = dir.path().parent().unwrap();
        assert!(other.display().to_string().starts_with(&format!("{}.", base.display())));
        assert_eq!(mode(other), 0o700);
        assert_eq!(Base::new(base.clone()).siblings(), [other.to_path_buf()]);
        drop(dir);
        assert!(Base::new(base).siblings().is_empty());
    }

    #[test]
    fn a_base_whose_path_is_too_long_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("x".repeat(60));
        let short = home.path().join("short");
        let dir = RuntimeDir::create(&[Base::new(long.clone()), Base::new(short.clone())]).unwrap();
        assert_eq!(dir.path().parent(), Some(short.as_path()));
        assert!(!long.exists());
    }

    #[test]
    fn it_goes_though_no_descriptor_is_free() {
        if !process::is_of_its_own(module_path!(), "it_goes_though_no_descriptor_is_free") {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("plugin-hosts");
        let dir = RuntimeDir::create(&[Base::new(base.clone())]).unwrap();
        process::take_descriptors();
        drop(dir);
        assert!(!base.exists());
    }

    #[test]
    fn without_any_base_the_first_failure_is_told() {
        assert!(RuntimeDir::create(&[]).is_err());
        let missing = vec![Base::new("/no/such/base".into())];
        assert_eq!(RuntimeDir::create(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_has_gone_with_its_base_is_replaced_by_one_in_the_next_base() {
        let home = tempfile::tempdir().unwrap();
        let [session, temporary] = ["session", "temporary"].map(|name| home.path().join(name));
        let (mut held, candidates) =
            (Weak::new(), || [&session, &temporary].map(|dir| Base::new(dir.join("plugin-hosts"))).into());
        for dir in [&session, &temporary] {
            std::fs::create_dir(dir).unwrap();
        }
        let log = plugin_testkit::Logged::begin();
        let old = RuntimeDir::held_or_new(&mut held, candidates).unwrap();
        assert_eq!(RuntimeDir::held_or_new(&mut held, candidates).unwrap().path(), old.path());
        std::fs::remove_dir_all(&session).unwrap();
        let new = RuntimeDir::held_or_new(&mut held, candidates).unwrap();
        assert!(new.path().starts_with(&temporary) && new.is_there() && !old.is_there());
        assert_eq!(RuntimeDir::held_or_new(&mut held, candidates).unwrap().path(), new.path());
        let passed_over = log.lines();
        drop(old);
        assert_eq!(log.lines().len(), passed_over.len(), "what is gone is not left behind");
        assert!(new.is_there());
    }

    #[test]
    fn all_holders_of_a_process_share_one_directory() {
        let first = RuntimeDir::of_this_process().unwrap();
        assert_eq!(RuntimeDir::of_this_process().unwrap().path(), first.path());
    }
}
