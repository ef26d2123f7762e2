//! `--port-file`: tells whoever started the server where it listens. Complete or absent, never half written.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

/// The file; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PortFile {
    path: PathBuf,
    /// Open, so that no other file is taken for it: as long as it is, none has the same number.
    file: File,
}

impl PortFile {
    /// Writes `address` and a newline beside `path`, then moves it there, in the place of a file or a link at most: what an earlier
    /// server has left.
    pub(crate) fn write(path: &Path, address: SocketAddr) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no file"));
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.tmp", process::id()));
        let unfinished = path.with_file_name(name);
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(format!("{address}\n").as_bytes())?;
            fs::rename(&unfinished, path)?;
            Ok(file)
        });
        match written {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(error) => {
                // Best effort: the first error is the one to report.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }

    /// Whether what is at the path is still the file that was put there.
    fn is_there(&self) -> bool {
        let same = |other: fs::Metadata| {
            let own = self.file.metadata()?;
            io::Result::Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
        };
        fs::symlink_metadata(&self.path).and_then(same).unwrap_or(false)
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // A server that was started meanwhile, with this path as well, may have put its own there.
        if self.is_there() {
            // Nobody could do anything about an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_whole_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        fs::write(&path, "what an earlier server left").unwrap();
        let address = "127.0.0.1:1234".parse().unwrap();
        let file = PortFile::write(&path, address).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1:1234\n");
        drop(file);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn the_file_of_the_next_server_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        let ending = PortFile::write(&path, "127.0.0.1:1".parse().unwrap()).unwrap();
        let next = PortFile::write(&path, "127.0.0.1:2".parse().unwrap()).unwrap();
        drop(ending);
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1:2\n");
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        // Like a device, and anybody can make one.
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for taken in [path.as_path(), folder.path()] {
            let error = PortFile::write(taken, "127.0.0.1:1".parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(!path.is_file() && path.exists());
    }

    #[test]
    fn an_impossible_path_is_an_error() {
        let address = "127.0.0.1:1234".parse().unwrap();
        for path in ["/", "/no/such/folder/port", ""] {
            assert!(PortFile::write(Path::new(path), address).is_err(), "{path}");
        }
    }
}
