//! gRPC servers as this crate runs them: the plugin's main one, and those behind the broker on either side.

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use super::deadline::DeadlineLayer;
use super::panic::CatchPanicLayer;
use crate::limits::{CONNECTION_WINDOW_BYTES, MAX_HEADER_LIST_BYTES};

/// Calls that a peer may have given up before the server has looked at them; each takes a few hundred bytes of memory. h2's own
/// limit is 20, against strangers who make work for a server. A host that gives up calls to a plugin which is busy, or
/// was paused, would lose its connection by it.
const MAX_CALLS_GIVEN_UP: usize = 64 * 1024;

/// A server that takes long header lists, stops calls at their deadline and survives handlers that panic.
pub(crate) fn server() -> Server<Stack<CatchPanicLayer, Stack<DeadlineLayer, Identity>>> {
    Server::builder()
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_CALLS_GIVEN_UP))
        .layer(DeadlineLayer)
        .layer(CatchPanicLayer)
}
