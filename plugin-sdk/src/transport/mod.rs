//! From an address to a stream of bytes, and from a listener to an address.

mod busy_poll;
mod connect;
mod incoming;
mod listen;
mod mux;
mod mux_stream;
#[cfg(feature = "host")]
mod peer;
mod stream;
mod tcp;
mod tls;
mod translate;
mod unix;

#[cfg(feature = "host")]
pub(crate) use busy_poll::VARIABLE as BUSY_POLL;
pub(crate) use connect::{Dial, channel, connect};
pub(crate) use incoming::{Access, ConnectionInfo, Entrance, Incoming};
pub use listen::ListenError;
#[cfg(feature = "plugin")]
pub(crate) use listen::own_choice_of_dir;
pub(crate) use listen::{InheritedSocket, Listener, MAX_SOCKET_PATH_BYTES, Place, group_id};
pub(crate) use mux::Mux;
#[cfg(feature = "host")]
pub(crate) use peer::Peer;
pub(crate) use stream::Stream;
pub(crate) use tls::{Identity, Tls, certificate_from_pem};
pub use tls::{TlsConfig, TlsError};
#[cfg(feature = "host")]
pub(crate) use translate::Translate;
pub(crate) use translate::Translation;
pub(crate) use unix::UnixSocket;
