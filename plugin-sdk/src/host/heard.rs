//! The lines of one stream of a plugin, as fast as its host can bear them.

use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::Instant;

use super::allowance::{Allowance, Turn};
use crate::process::{Lines, Piece, PieceKind};

/// After so many lines other tasks of the run time have their turn.
const LINES_AT_ONCE: u32 = 32;

/// Of a flood so much is read at once…
const FLOOD_BYTES: usize = 64 << 10;

/// …and then nothing for so long: 16 MiB a second, which keep the plugin from waiting for ever, and no core of the host busy.
const FLOOD_PAUSE: Duration = Duration::from_millis(4);

/// Reads on whatever comes, but understands only what is within the stream's [`Allowance`].
#[derive(Debug)]
pub(super) struct HeardLines<R> {
    lines: Lines<R>,
    allowance: Allowance,
    at_once: u32,
    missed_bytes: usize,
    /// Comes after [`Heard::Gap`].
    next: Option<Piece>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// To be logged.
    Line(Piece),
    /// One of too many, not to be logged.
    Missed(Piece),
    /// So many were missed up to here.
    Gap(u64),
}

impl<R: AsyncRead + Unpin> HeardLines<R> {
    pub(super) fn new(lines: Lines<R>) -> Self {
        let allowance = Allowance::new(Instant::now().into_std());
        Self { lines, allowance, at_once: 0, missed_bytes: 0, next: None }
    }

    /// `None` at the end of the stream. To be awaited to its end.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        if let Some(piece) = self.next.take() {
            return Some(Heard::Line(piece));
        }
        self.give_way().await;
        let Some(piece) = self.read().await else {
            return self.allowance.end_flood().map(Heard::Gap);
        };
        Some(match self.allowance.take(Instant::now().into_std(), piece.bytes.len()) {
            Turn::Heard => Heard::Line(piece),
            Turn::Missed => {
                self.missed_bytes += piece.bytes.len() + 1;
                Heard::Missed(piece)
            }
            Turn::HeardAgain { missed } => {
                self.next = Some(piece);
                Heard::Gap(missed)
            }
        })
    }

    async fn give_way(&mut self) {
        self.at_once = (self.at_once + 1) % LINES_AT_ONCE;
        if self.missed_bytes >= FLOOD_BYTES {
            self.missed_bytes = 0;
            tokio::time::sleep(FLOOD_PAUSE).await;
        } else if self.at_once == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// `None` at the end of the stream, and where a flood is over as nothing more has come.
    async fn read(&mut self) -> Option<Piece> {
        let next = self.lines.next();
        let read = match self.allowance.floods_until() {
            None => next.await,
            Some(until) => tokio::time::timeout_at(until.into(), next).await.ok()?,
        };
        // A stream that cannot be read has ended.
        read.ok().flatten()
    }
}

impl Heard {
    /// What has come.
    pub(super) fn piece(&self) -> Option<&Piece> {
        match self {
            Self::Line(piece) | Self::Missed(piece) => Some(piece),
            Self::Gap(_) => None,
        }
    }

    /// Whether it is but the end of a line whose parts have all come before.
    pub(super) fn is_empty_end(&self) -> bool {
        self.piece().is_some_and(|piece| piece.kind == PieceKind::LastPart && piece.bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LINES: u64 = 300_000;

    fn flood() -> Vec<u8> {
        format!("{}\n", "x".repeat(155)).repeat(LINES as usize).into_bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_a_part_is_heard_and_the_rest_is_counted_where_it_is_missing() {
        let input = flood();
        let mut lines = HeardLines::new(Lines::new(&input[..], 1_000));
        let (mut heard, mut missed, mut told) = (0, 0, 0);
        let began = Instant::now();
        while let Some(next) = lines.next().await {
            match next {
                Heard::Line(_) => heard += 1,
                Heard::Missed(_) => missed += 1,
                Heard::Gap(lines) => {
                    told += lines;
                    assert_eq!(told, missed, "a gap is told where it ends");
                }
            }
        }
        assert_eq!((heard + missed, told), (LINES, missed));
        assert!((65_000..75_000).contains(&heard), "{heard}");
        // The rest has more than 35 million bytes.
        assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_told_though_nothing_comes_after_it() {
        let (mut plugin, host) = tokio::io::duplex(1 << 20);
        let reader = tokio::spawn(async move {
            let mut lines = HeardLines::new(Lines::new(host, 1_000));
            let mut told = 0;
            while told < LINES {
                told += match lines.next().await.expect("the stream has not ended") {
                    Heard::Line(_) => 1,
                    Heard::Missed(_) => 0,
                    Heard::Gap(lines) => lines,
                };
            }
        });
        tokio::io::AsyncWriteExt::write_all(&mut plugin, &flood()).await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn others_have_their_turn_while_lines_that_are_there_are_read() {
        let turns = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let input = b"x\n".repeat(32_000);
        let mut lines = HeardLines::new(Lines::new(&input[..], 1_000));
        while lines.next().await.is_some() {}
        other.abort();
        assert!(turns.load(Ordering::Relaxed) >= 1_000, "{turns:?}");
    }
}
