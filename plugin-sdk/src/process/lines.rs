//! Lines of any length from a pipe, in bounded memory.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at once.
const CHUNK_BYTES: usize = 8 * 1024;

/// Splits a stream at line feeds. A line that does not fit the limit comes in pieces.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    limit: usize,
    buffer: BytesMut,
    /// Up to where the buffer was searched for a line feed.
    searched: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BetweenLines,
    InLongLine,
    Ended,
}

/// One line without its line end, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) kind: PieceKind,
}

/// What a piece is of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// All of it. At the end of the stream the line feed may be missing.
    Whole,
    /// Not its end.
    Part,
    /// The end of a line of which parts came before. May be empty.
    LastPart,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(source: R, limit: usize) -> Self {
        Self { source, limit, buffer: BytesMut::new(), searched: 0, state: State::BetweenLines }
    }

    /// The next piece, or `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.buffered() {
                return Ok(Some(piece));
            }
            if self.state == State::Ended {
                return Ok(None);
            }
            self.buffer.reserve(CHUNK_BYTES);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Ok(self.rest());
            }
        }
    }

    /// What has been read and not been given out: a line that was begun.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer
    }

    fn buffered(&mut self) -> Option<Piece> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = end.map(|offset| self.searched + offset);
        match end {
            Some(end) if end < self.limit => {
                let mut bytes = self.take(end + 1);
                bytes.truncate(end);
                if bytes.ends_with(b"\r") {
                    bytes.truncate(end - 1);
                }
                let kind =
                    if self.state == State::InLongLine { PieceKind::LastPart } else { PieceKind::Whole };
                self.state = State::BetweenLines;
                Some(Piece { bytes, kind })
            }
            _ if self.buffer.len() >= self.limit => {
                self.state = State::InLongLine;
                Some(Piece { bytes: self.take(self.limit), kind: PieceKind::Part })
            }
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn rest(&mut self) -> Option<Piece> {
        let kind = match std::mem::replace(&mut self.state, State::Ended) {
            State::InLongLine => PieceKind::LastPart,
            _ if self.buffer.is_empty() => return None,
            _ => PieceKind::Whole,
        };
        let bytes = self.take(self.buffer.len());
        Some(Piece { bytes, kind })
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        self.buffer.split_to(length).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(input: &[u8], limit: usize) -> Vec<(PieceKind, String)> {
        let mut lines = Lines::new(input, limit);
        let mut pieces = Vec::new();
        while let Some(piece) = lines.next().await.unwrap() {
            pieces.push((piece.kind, String::from_utf8(piece.bytes.to_vec()).unwrap()));
        }
        pieces
    }

    #[tokio::test]
    async fn lines_are_split_and_long_ones_come_in_pieces() {
        use PieceKind::{LastPart, Part, Whole};
        for (input, expected) in [
            ("", &[][..]),
            ("a\nb", &[(Whole, "a"), (Whole, "b")]),
            ("a\r\n\n", &[(Whole, "a"), (Whole, "")]),
            ("1234\n", &[(Part, "1234"), (LastPart, "")]),
            ("123\n", &[(Whole, "123")]),
            ("1234567890\nx\n", &[(Part, "1234"), (Part, "5678"), (LastPart, "90"), (Whole, "x")]),
            ("12345", &[(Part, "1234"), (LastPart, "5")]),
            ("1234", &[(Part, "1234"), (LastPart, "")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect();
            assert_eq!(pieces(input.as_bytes(), 4).await, expected, "{input:?}");
        }
    }
}
