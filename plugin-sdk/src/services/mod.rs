//! The gRPC services that go-plugin has beside the application's own: broker, controller, health, stdio.

#[cfg(feature = "plugin")]
mod backlog;
mod broker;
#[cfg(feature = "plugin")]
mod controller;
mod deadline;
#[cfg(feature = "plugin")]
mod health;
mod panic;
mod server;
mod stdio;
#[cfg(feature = "plugin")]
mod until;

#[cfg(feature = "plugin")]
pub(crate) use broker::BrokerService;
pub(crate) use broker::Means;
#[cfg(feature = "host")]
pub(crate) use broker::run_at_host;
pub use broker::{Broker, BrokerError, BrokeredServer};
#[cfg(feature = "plugin")]
pub(crate) use controller::Controller;
#[cfg(feature = "host")]
pub(crate) use deadline::{timeout as grpc_timeout, timeout_value as grpc_timeout_value};
#[cfg(feature = "plugin")]
pub use health::HealthReporter;
#[cfg(feature = "plugin")]
pub(crate) use health::HealthService;
#[cfg(feature = "plugin")]
pub(crate) use panic::panic_text;
pub(crate) use server::server;
#[cfg(feature = "plugin")]
pub(crate) use stdio::Stdio;
#[cfg(feature = "plugin")]
pub use stdio::StdioWriter;
#[cfg(feature = "host")]
pub(crate) use stdio::receive as receive_stdio;
#[cfg(feature = "plugin")]
pub(crate) use until::Until;

/// The service name under which a plugin's health is asked for and answered.
pub(crate) const HEALTH_SERVICE_NAME: &str = "plugin";

/// How a stream of the SDK to a plugin ended.
#[cfg(feature = "host")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// With its connection, or because the plugin wanted it. It can be opened again.
    Broken,
    /// The plugin does not have the service.
    Unsupported,
}
