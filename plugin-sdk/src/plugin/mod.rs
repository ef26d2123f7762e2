//! Being a plugin: from `main` to the exit code.
//!
//! ```text
//! cookie -> environment -> version -> socket -> line on stdout -> stdout captured -> serving
//!                  Shutdown, SIGTERM or host gone -> drain -> socket removed -> exit code 0
//! ```

mod host_watch;
mod logging;
mod serve;
mod stdout;

pub use logging::{HclogLayer, init_logging};
pub use serve::{Context, Network, PluginBuilder, ServeError};

pub use crate::services::{HealthReporter, StdioWriter};
