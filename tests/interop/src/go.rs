//! The programs in Go.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use e2e::skip;

use crate::files::target_dir;

/// A go-plugin to test with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The newest, with a recent gRPC.
    V1_8_0,
    /// The one before, with the gRPC that it asks for, from 2024: it does not insist on ALPN yet.
    V1_7_0,
}

/// Programs on one release of go-plugin.
#[derive(Debug, Clone)]
pub struct Go {
    /// Runs one scenario with a plugin, see `go/host`.
    pub host: PathBuf,
    /// A sample plugin, see `go/plugin`.
    pub plugin: PathBuf,
}

impl Go {
    /// The programs on `release`, built if they are not; `None` where Go is not installed. `test` is who asks.
    ///
    /// # Panics
    /// They cannot be built, or Go is missing on a CI machine.
    #[must_use]
    pub fn get(release: Release, test: &str) -> Option<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if *INSTALLED.get_or_init(is_installed) {
            return Some(release.built().clone());
        }
        skip(test, "go");
        None
    }
}

impl Release {
    fn modfile(self) -> &'static str {
        match self {
            Self::V1_8_0 => "go.mod",
            Self::V1_7_0 => "go170.mod",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::V1_8_0 => "1.8.0",
            Self::V1_7_0 => "1.7.0",
        }
    }

    fn built(self) -> &'static Go {
        static BUILT: [OnceLock<Go>; 2] = [const { OnceLock::new() }; 2];
        BUILT[self as usize].get_or_init(|| self.build())
    }

    fn build(self) -> Go {
        let folder = target_dir().join("interop-go").join(self.folder());
        fs::create_dir_all(&folder).expect("the target folder can be written to");
        let _locked = lock(&folder.join("lock"));
        let mut command = Command::new("go");
        command
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/go"))
            .args(["build", "-trimpath", "-buildvcs=false", "-modfile", self.modfile(), "-o"])
            .arg(&folder)
            .args(["./host", "./plugin"]);
        let output = command.output().expect("go was there a moment ago");
        assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        Go { host: folder.join("host"), plugin: folder.join("plugin") }
    }
}

fn is_installed() -> bool {
    Command::new("go").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Keeps other test processes from building the same until the file is closed.
fn lock(path: &Path) -> File {
    let file = File::create(path).expect("the target folder can be written to");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("a new file can be locked");
    file
}
