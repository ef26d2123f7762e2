//! The handshake, by hand: one line on stdout that says where the socket is.
//!
//! ```text
//! 1|1|unix|/tmp/dir/rogue-4711.sock|grpc|
//! ```

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// The fields of a handshake line. The address is always [`socket_path`].
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// go-plugin's own version.
    pub(crate) core: String,
    /// The version of the application's protocol.
    pub(crate) app: String,
    /// `unix` or `tcp`.
    pub(crate) network: String,
    /// `grpc` or `netrpc`.
    pub(crate) protocol: &'static str,
    /// Base64 of a certificate.
    pub(crate) cert: String,
}

impl Line {
    /// A good line.
    pub(crate) fn good(app_version: u32) -> Self {
        Self {
            core: "1".to_owned(),
            app: app_version.to_string(),
            network: "unix".to_owned(),
            protocol: "grpc",
            cert: String::new(),
        }
    }
}

/// Binds [`socket_path`].
pub(crate) fn bind() -> io::Result<UnixListener> {
    UnixListener::bind(socket_path())
}

/// Prints `line`.
pub(crate) fn announce(line: &Line) -> io::Result<()> {
    let Line { core, app, network, protocol, cert } = line;
    say(format!("{core}|{app}|{network}|{}|{protocol}|{cert}\n", socket_path().display()))
}

/// Writes `bytes` to stdout as they are, at once.
pub(crate) fn say(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes.as_ref())?;
    stdout.flush()
}

/// Where this process listens: in the host's directory if it names one.
pub(crate) fn socket_path() -> PathBuf {
    let directory = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    directory.join(format!("rogue-{}.sock", std::process::id()))
}

/// The highest version that the host offers in its variable, or else 1.
pub(crate) fn highest_offered() -> u32 {
    let offered = std::env::var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
    offered.split(',').filter_map(|version| version.trim().parse().ok()).max().unwrap_or(1)
}
