//! Where Redis is, and what it wants to hear before it answers. Nothing that is shown from here has a password in it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Text that is not to be seen.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// A URL, and the file that it is from if it is.
pub(crate) struct Address {
    info: ConnectionInfo,
    file: Option<PathBuf>,
    /// What will be read, while the file is being read.
    reading: Option<oneshot::Receiver<Result<ConnectionInfo, AddressError>>>,
}

/// Why there is no address.
#[derive(Debug, Error)]
pub(crate) enum AddressError {
    #[error("not a URL like redis://localhost:6379 or unix:///run/redis.sock")]
    Malformed,
    #[error("Redis over TLS is not supported yet")]
    Tls,
    /// Not repeated: it may have a password in it.
    #[error("there is a URL where the name of a file is expected")]
    UrlForFile,
    #[error("{} is no file", .0.display())]
    NoFile(PathBuf),
    #[error("{} cannot be read: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{} has no URL in it like redis://localhost:6379 or unix:///run/redis.sock", .0.display())]
    NoUrl(PathBuf),
    #[error("{} was not read within {limit:?}", file.display())]
    TimedOut { file: PathBuf, limit: Duration },
}

impl Address {
    /// The address in a URL.
    pub(crate) fn given(url: &Secret) -> Result<Self, AddressError> {
        Ok(Self { info: parse(&url.0)?, file: None, reading: None })
    }

    /// The address in a file, which is read now, and again when asked to.
    pub(crate) fn in_file(file: PathBuf) -> Result<Self, AddressError> {
        if file.to_string_lossy().contains("://") {
            return Err(AddressError::UrlForFile);
        }
        Ok(Self { info: read(&file)?, file: Some(file), reading: None })
    }

    /// Reads the file again, if there is one. Without success, and if that takes longer than this, the address stays what
    /// it was.
    pub(crate) async fn refresh(&mut self, limit: Duration) -> Result<(), AddressError> {
        self.refresh_by(read, limit).await
    }

    /// A thread of its own reads, as there is no other way to give up: it may have to wait for ever, for a server of files
    /// that is away. There is one at most. Who comes while it reads waits for the same.
    async fn refresh_by(
        &mut self,
        read: fn(&Path) -> Result<ConnectionInfo, AddressError>,
        limit: Duration,
    ) -> Result<(), AddressError> {
        let Some(file) = &self.file else { return Ok(()) };
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let (tell, told) = oneshot::channel();
                let path = file.clone();
                let started = thread::Builder::new().spawn(move || tell.send(read(&path)).is_ok());
                started.map_err(|error| AddressError::Unreadable { file: file.clone(), error })?;
                none.insert(told)
            }
        };
        let Ok(read) = timeout(limit, reading).await else {
            return Err(AddressError::TimedOut { file: file.clone(), limit });
        };
        self.reading = None;
        let panicked = || AddressError::Unreadable { file: file.clone(), error: io::Error::other("panic") };
        self.info = read.unwrap_or_else(|_| Err(panicked()))?;
        Ok(())
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }
}

/// `localhost:6379/0`, `/run/redis.sock/0`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.info.addr(), self.info.redis_settings().db())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

fn read(file: &Path) -> Result<ConnectionInfo, AddressError> {
    let unreadable = |error| AddressError::Unreadable { file: file.to_owned(), error };
    // A pipe would be waited for, and has nothing in it the second time.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(AddressError::NoFile(file.to_owned()));
    }
    let opened = File::open(file).map_err(unreadable)?;
    let mut text = String::new();
    opened.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    match parse(text.trim()) {
        Err(AddressError::Malformed) => Err(AddressError::NoUrl(file.to_owned())),
        parsed => parsed,
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, AddressError> {
    // The reason is not passed on: it could quote the URL.
    let parsed = redis::parse_redis_url(url).ok_or(AddressError::Malformed)?;
    if matches!(parsed.scheme(), "rediss" | "valkeys") {
        return Err(AddressError::Tls);
    }
    let info = parsed.into_connection_info().map_err(|_| AddressError::Malformed)?;
    match info.addr() {
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => Ok(info),
        _ => Err(AddressError::Tls),
    }
}

/// More than any URL, so that a file given by mistake is not read for ever.
const MAX_FILE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shown(url: &str) -> String {
        match Address::given(&Secret::from(url)) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn urls_are_hosts_or_sockets_with_a_database() {
        for (url, expected) in [
            ("redis://localhost", "localhost:6379/0"),
            ("redis://user:hunter2@[::1]:7000/3", "::1:7000/3"),
            ("valkey://10.0.0.1", "10.0.0.1:6379/0"),
            ("unix:///run/redis.sock", "/run/redis.sock/0"),
            ("redis+unix:///run/redis.sock?db=2&pass=hunter2", "/run/redis.sock/2"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for url in [
            "",
            "hunter2",
            "localhost:6379",
            "http://hunter2@localhost",
            "redis://",
            "redis://:hunter2@localhost:port",
            "redis://:hunter2@localhost/name",
            "rediss://:hunter2@localhost",
        ] {
            let error = Address::given(&Secret::from(url)).err().expect(url).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "...");
    }

    #[tokio::test]
    async fn a_file_is_read_again_and_its_last_good_address_stays() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let file = directory.path().join("url");
        std::fs::write(&file, "redis://first\n").expect("a file can be written");
        let mut address = Address::in_file(file.clone()).expect("a URL");
        std::fs::write(&file, "redis://:hunter2@second\n").expect("a file can be written");
        address.refresh(LONG).await.expect("a URL");
        assert_eq!(address.to_string(), "second:6379/0");

        std::fs::write(&file, "hunter2").expect("a file can be written");
        let error = address.refresh(LONG).await.expect_err("no URL").to_string();
        assert!(error.contains("/url") && !error.contains("hunter2"), "{error}");
        std::fs::remove_file(&file).expect("a file can be removed");
        assert!(matches!(address.refresh(LONG).await, Err(AddressError::Unreadable { .. })));
        assert_eq!(address.to_string(), "second:6379/0");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_now_is_not_waited_for_and_not_read_twice() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let file = directory.path().join("url");
        std::fs::write(&file, "redis://first").expect("a file can be written");
        let mut address = Address::in_file(file.clone()).expect("a URL");
        // To read it is to wait for somebody to write.
        std::fs::remove_file(&file).expect("a file can be removed");
        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).expect("a pipe can be made");
        assert!(matches!(address.refresh(LONG).await, Err(AddressError::NoFile(_))));
        let wait_for_it = |file: &Path| parse(&std::fs::read_to_string(file).expect("it is there"));
        for _ in 0..2 {
            let error = address.refresh_by(wait_for_it, Duration::from_millis(1)).await;
            assert!(matches!(error, Err(AddressError::TimedOut { .. })));
            assert_eq!(address.to_string(), "first:6379/0");
        }
        std::fs::write(&file, "redis://second").expect("it is being read");
        let not_again = |_: &Path| Err(AddressError::Malformed);
        address.refresh_by(not_again, LONG).await.expect("a URL");
        assert_eq!(address.to_string(), "second:6379/0");
    }
}
