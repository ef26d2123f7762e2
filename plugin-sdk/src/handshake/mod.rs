//! What host and plugin tell each other before the first RPC: text to values and back. No I/O and nothing asynchronous.
//!
//! ```text
//! host ── environment (cookie, versions, socket directory, ...) ──▶ plugin
//! host ◀─ one line on stdout: 1|1|unix|/run/p/plugin123|grpc|     ── plugin
//! ```

mod address;
mod cookie;
mod env;
mod line;
mod reattach;
mod version;

pub use address::{AddressProblem, PluginAddress};
pub use cookie::MagicCookie;
pub(crate) use env::*;
pub use env::{EnvProblem, PortRange};
#[cfg(feature = "measure")]
pub use line::parse_line;
pub(crate) use line::{Expectation, MAX_LINE_BYTES, parse_bool};
pub use line::{HandshakeLine, LineProblem};
pub use reattach::{ReattachConfig, ReattachProblem};
pub use version::{AppVersion, AppVersions};
