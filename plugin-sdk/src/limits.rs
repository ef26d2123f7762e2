//! Numbers that both sides of a connection have to agree on.

/// The largest message, in bytes, that either side takes unless it is told otherwise: 4 MiB, the limit of tonic and of
/// go-plugin's plugins. (go-plugin's hosts take 2 GiB.) A larger one is refused with `OUT_OF_RANGE` by whoever receives it; how
/// much may be sent is not limited.
///
/// The limit is one of each generated client and server, and so a choice for each service and each side:
///
/// ```text
/// const LARGE: usize = 16 * plugin_sdk::MAX_MESSAGE_BYTES;
/// // In the host, for answers of the plugin:
/// let client = ExampleClient::new(plugin.channel()).max_decoding_message_size(LARGE);
/// // In the plugin, for requests of the host:
/// let routes = Routes::new(ExampleServer::new(service).max_decoding_message_size(LARGE));
/// ```
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Largest header list that is taken, go's value: long error texts travel in trailers, and hyper's own limit is 16 KiB.
pub(crate) const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes that a whole connection takes before they are read: as many as HTTP/2 can say. h2 gives this window back only for
/// what was read, so that with a smaller one a few streams that are read slowly would stop all other calls, health checks
/// among them. What is kept in memory is bounded by the window of each stream.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
