//! `--port-file`: tells whoever started the server where it listens. Complete or absent, never half written.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
};

/// The file; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PortFile(PathBuf);

impl PortFile {
    /// Writes `address` and a newline beside `path`, then moves it there.
    pub(crate) fn write(path: &Path, address: SocketAddr) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.tmp", process::id()));
        let unfinished = path.with_file_name(name);
        let written =
            fs::write(&unfinished, format!("{address}\n")).and_then(|()| fs::rename(&unfinished, path));
        if let Err(error) = written {
            // Best effort: the first error is the one to report.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // Somebody may have removed it already, and nobody could do anything about another error.
        let _ = fs::remove_file(&self.0);
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
    fn an_impossible_path_is_an_error() {
        let address = "127.0.0.1:1234".parse().unwrap();
        for path in ["/", "/no/such/folder/port", ""] {
            assert!(PortFile::write(Path::new(path), address).is_err(), "{path}");
        }
    }
}
