//! Numbers that both sides of a connection have to agree on.

/// Largest header list that is taken, go's value: long error texts travel in trailers, and hyper's own limit is 16 KiB.
pub(crate) const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024 * 1024;
