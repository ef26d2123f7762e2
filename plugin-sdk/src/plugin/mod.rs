//! Being a plugin: from `main` to the exit code.
//!
//! ```text
//! cookie -> environment -> version -> socket -> line on stdout -> stdout captured -> serving
//!                  Shutdown, SIGTERM or host gone -> drain -> socket removed -> exit code 0
//! ```

mod arguments;
mod builder;
mod child;
mod closing;
mod hclog;
mod host_watch;
mod logging;
#[cfg(feature = "host")]
mod memory;
mod panic_hook;
mod reflection;
mod server;
mod service;
mod stdout;
mod test_mode;

pub use arguments::{ARGS_HELP, ArgumentProblem, args};
pub use builder::{Context, Network, PluginBuilder, ServeError};
pub use closing::Closing;
pub use logging::{HclogLayer, init_logging};
#[cfg(feature = "host")]
pub(crate) use memory::MemoryPlugin;
pub use panic_hook::install_panic_hook;

pub use crate::services::{HealthReporter, StdioWriter};
