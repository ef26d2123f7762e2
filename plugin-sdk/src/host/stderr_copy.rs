//! A copy of what a plugin writes to its stderr, as it is, for whoever wants more than log events.

use std::fmt;
use std::sync::Arc;

use crate::process::{Piece, PieceKind};

/// Gets every line with one line feed at its end, the last one too if it had none. A line that is too long to be held
/// comes in several calls.
#[derive(Clone)]
pub(super) struct StderrCopy(Arc<Sink>);

type Sink = dyn Fn(&[u8]) + Send + Sync;

impl StderrCopy {
    pub(super) fn new(sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    pub(super) fn write(&self, piece: &Piece) {
        match piece.kind {
            PieceKind::Part => (self.0)(&piece.bytes),
            // In one call, so that a sink which several plugins share does not mix their lines.
            PieceKind::Whole | PieceKind::LastPart => (self.0)(&[&piece.bytes[..], b"\n"].concat()),
        }
    }
}

impl fmt::Debug for StderrCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StderrCopy")
    }
}
