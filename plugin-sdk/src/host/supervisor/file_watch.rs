//! Notices that an executable's file was replaced or rewritten, by looking at it once a second: that works on every file
//! system, and whatever way the file got there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often it is looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (found.dev(), found.ino()),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[derive(Debug)]
pub(super) struct FileWatch {
    /// The file that is in use.
    known: Option<Stamp>,
    /// Another one, seen the last time: it may still be being written.
    seen: Option<Stamp>,
}

impl FileWatch {
    pub(super) fn new(path: &Path) -> Self {
        Self { known: Stamp::of(path), seen: None }
    }

    /// Whether there is another file, and it is the same as the last time.
    pub(super) fn has_changed(&mut self, path: &Path) -> bool {
        let now = Stamp::of(path);
        let settled = now.is_some() && now != self.known && now == self.seen;
        self.seen = now;
        if settled {
            self.known = now;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_when_the_file_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin");
        std::fs::write(&path, "1").unwrap();
        let mut watch = FileWatch::new(&path);
        assert!(!watch.has_changed(&path));
        std::fs::write(&path, "12").unwrap();
        assert!(!watch.has_changed(&path));
        std::fs::write(&path, "123").unwrap();
        assert!(!watch.has_changed(&path), "it is still being written");
        assert!(watch.has_changed(&path));
        assert!(!watch.has_changed(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed(&path) && !watch.has_changed(&path), "no file is not another one");
        std::fs::write(dir.path().join("new"), "123").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(!watch.has_changed(&path));
        assert!(watch.has_changed(&path));
    }
}
