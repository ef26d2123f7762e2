//! The handshake, by hand: one line on stdout that says where the socket is.
//!
//! ```text
//! 1|1|unix|/tmp/dir/rogue-4711.sock|grpc|
//! ```

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// The fields of a handshake line. The address is always [`socket_path`]. The default is a good line.
pub(crate) struct Line {
    /// go-plugin's own version.
    pub(crate) core: String,
    /// The version of the Cache contract.
    pub(crate) app: String,
    /// `unix` or `tcp`.
    pub(crate) network: String,
    /// `grpc` or `netrpc`.
    pub(crate) protocol: &'static str,
    /// Base64 of a certificate.
    pub(crate) cert: String,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            core: "1".to_owned(),
            app: "1".to_owned(),
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
