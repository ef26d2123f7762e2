//! From an address to a stream of bytes, and from a listener to an address.

#[cfg(feature = "host")]
mod connect;
#[cfg(feature = "plugin")]
mod listen;
mod stream;

#[cfg(feature = "host")]
pub(crate) use connect::{Connector, SocketDir};
#[cfg(feature = "plugin")]
pub use listen::ListenError;
#[cfg(feature = "plugin")]
pub(crate) use listen::Listener;
pub(crate) use stream::Stream;
