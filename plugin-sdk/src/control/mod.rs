//! The control protocol, for those who look at and steer the plugins of a running host from another process: the generated
//! messages and client of `proto/plugin/control/v1/control.proto`, whose comments say what each call does.
//!
//! `pluginctl` is made of it. The other end is [`ControlServer`](crate::host::ControlServer).
//!
//! ```no_run
//! use std::path::Path;
//!
//! use plugin_sdk::control::{self, OrderRequest, Reason};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = control::connect(Path::new("/run/user/1000/example/control")).await?;
//! let order = OrderRequest { plugin: "cache".into(), ..OrderRequest::default() };
//! match client.restart(order).await {
//!     Ok(answer) => println!("{:?}", answer.into_inner().outcome()),
//!     Err(status) if Reason::of(&status) == Some(Reason::Disabled) => println!("enable it first"),
//!     Err(status) => return Err(status.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod connect;
mod generated;
mod reason;
mod sockets;

pub use connect::{ConnectError, connect};
pub use generated::plugin_control_client::PluginControlClient;
pub use generated::*;
pub(crate) use sockets::SOCKET_NAME;
pub use sockets::{HostSocket, sockets, sockets_in};

/// The package of the protocol, and the domain of its errors.
pub const PACKAGE: &str = "plugin.control.v1";

impl State {
    /// The state in one word of lower case, as
    /// [`PluginState::name`](crate::host::PluginState::name) has it; `unknown` for one of a later version.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::BackingOff => "backing-off",
            Self::GaveUp => "gave-up",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
        }
    }
}
