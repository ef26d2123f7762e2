//! Out-of-process plugins over gRPC, wire compatible with HashiCorp's go-plugin, for hosts and for plugins.
//!
//! ```text
//!  host process                                         plugin process
//!  ┌──────────────┐  spawn, environment with cookie   ┌──────────────────┐
//!  │ host::Launch │ ────────────────────────────────▶ │ PluginBuilder    │
//!  │              │ ◀─ 1|1|unix|/…/plugin123|grpc| ── │  binds, announces│
//!  │ host::Plugin │ ── gRPC over the socket ────────▶ │  your services   │
//!  │              │ ◀─ stderr: log lines ──────────── │  health, stdio,  │
//!  │              │ ── Shutdown, TERM, KILL ────────▶ │  controller      │
//!  └──────────────┘                                   └──────────────────┘
//! ```
//!
//! **The way from a `.proto` to a running plugin**, with what `Cargo.toml` has to say, is in the crate's README.md; the programs
//! that it shows are in `examples/kv`.
//!
//! The crate knows nothing of what plugins are for. A host and its plugins share a contract: a [`MagicCookie`], one
//! or more [`AppVersion`]s, and the gRPC services that each version means.
//!
//! - Running plugins, feature `host`: begin with `host::Launch`.
//! - Looking at and steering the plugins of a running host, feature `host`: `host::ControlServer` and `control`.
//! - Being a plugin, feature `plugin`: begin with `plugin::PluginBuilder`.
//! - Testing either without a process, both features: `InMemory`; and all that the crate `plugin-testkit` offers.
//! - The protocol itself, for those who write a host or a plugin in another language, and what go-plugin's names are called
//!   here: `manual`.
//!
//! Tested on Linux. On macOS and other Unixes it should work, with less certainty about processes and without pinned
//! executables; Windows is not supported. The page `manual::lifecycle` has the details.
// Each half alone leaves some of what they share unused.
#![cfg_attr(not(all(feature = "host", feature = "plugin")), allow(dead_code, unused_imports))]

#[cfg(not(unix))]
compile_error!("plugin-sdk runs on Unix only: `manual::lifecycle` says what Windows would need");

#[cfg(feature = "host")]
mod clock;
#[cfg(feature = "host")]
pub mod control;
mod generated;
mod handshake;
#[cfg(feature = "host")]
pub mod host;
#[cfg(all(feature = "host", feature = "plugin"))]
mod in_memory;
mod limits;
#[cfg(all(feature = "host", feature = "plugin"))]
pub mod manual;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(feature = "host")]
mod process;
mod report;
#[cfg(feature = "host")]
mod runtime;
mod services;
mod transport;

#[cfg(feature = "measure")]
pub use handshake::parse_line;
pub use handshake::{
    AddressProblem, AppVersion, AppVersions, EnvProblem, HandshakeLine, LineProblem, MagicCookie,
    PluginAddress, PortRange, ReattachConfig, ReattachProblem,
};
#[cfg(all(feature = "host", feature = "plugin"))]
pub use in_memory::{InMemory, InMemoryError};
pub use limits::MAX_MESSAGE_BYTES;
pub use report::one_line;
pub use services::{Broker, BrokerError, BrokeredServer};
pub use transport::{ListenError, TlsConfig, TlsError};
