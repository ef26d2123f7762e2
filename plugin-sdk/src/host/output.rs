//! Everything that comes out of a plugin: stderr, stdout after the handshake, and its stdio service, each read by a
//! task that never stops reading, so that the plugin never waits for its host.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, DuplexStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::StderrTail;
use super::heard::{Heard, HeardLines};
use super::log::{LogReader, Source, emit_output, text_of};
use super::pipe::Pipe;
use super::stderr_copy::StderrCopy;
use crate::process::Lines;
use crate::runtime::SocketDir;

/// Longest line that is read as one, go-plugin's default (`PluginLogBufferSize`).
const LOG_LINE_BYTES: usize = 64 * 1024;

/// Lines of stderr that are kept for errors and crash reports.
const TAIL_LINES: usize = 200;

/// Characters that are kept of each of them.
const TAIL_LINE_CHARACTERS: usize = 500;

/// How long after the end of a process its pipes are read on. A process outside of its group may hold them.
pub(super) const PIPE_GRACE: Duration = Duration::from_millis(250);

/// What is buffered between the stdio stream and the log.
const STDIO_BUFFER_BYTES: usize = 8 * 1024;

/// The readers of one process. They end with this value.
#[derive(Debug)]
pub(crate) struct Output {
    source: Source,
    tail: Tail,
    /// Cancelled when stderr has been read to its end.
    stderr_read: CancellationToken,
    readers: JoinSet<()>,
    /// For as long as there may be output.
    kept: Option<SocketDir>,
}

impl Output {
    /// Of a plugin that is only attached to: there are no pipes.
    pub(crate) fn of_stranger(source: Source) -> Self {
        let stderr_read = CancellationToken::new();
        stderr_read.cancel();
        Self { source, tail: Tail::default(), stderr_read, readers: JoinSet::new(), kept: None }
    }

    /// Of a plugin that this host has started.
    pub(super) fn of_launched(source: Source, stderr: Pipe, copy: Option<StderrCopy>) -> Self {
        let mut output = Self::of_stranger(source);
        output.stderr_read = CancellationToken::new();
        let (log, tail) = (LogReader::new(output.source.clone()), output.tail.clone());
        let at_its_end = output.stderr_read.clone().drop_guard();
        output.readers.spawn(async move {
            read_stderr(stderr, log, tail, copy).await;
            drop(at_its_end);
        });
        output
    }

    /// Keeps the host's own socket directory for a plugin without a process to keep it.
    pub(crate) fn keep(&mut self, dir: SocketDir) {
        self.kept = Some(dir);
    }

    /// What the plugin is called in logs.
    pub(crate) fn name(&self) -> &str {
        &self.source.name
    }

    /// Reads what comes on stdout after the handshake, so that the plugin does not block on a full pipe.
    pub(super) fn read_stdout(&mut self, stdout: Lines<Pipe>) {
        self.readers.spawn(read_output(stdout, self.source.clone(), "stdout"));
    }

    /// A sink for one channel of the stdio service that becomes log lines.
    pub(crate) fn log_sink(&mut self, stream: &'static str) -> DuplexStream {
        let (sink, source) = tokio::io::duplex(STDIO_BUFFER_BYTES);
        self.readers.spawn(read_output(Lines::new(source, LOG_LINE_BYTES), self.source.clone(), stream));
        sink
    }

    /// Runs `task` as long as the output is read.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.readers.spawn(task);
    }

    /// The last lines of stderr so far.
    pub(crate) fn tail(&self) -> StderrTail {
        self.tail.snapshot()
    }

    /// Waits until the stderr of a process that has ended was read to its end. Cancel safe.
    pub(super) async fn stderr_read(&self) {
        let _ = tokio::time::timeout(PIPE_GRACE, self.stderr_read.cancelled()).await;
    }

    /// Reads to the end of all pipes, for a process that has ended.
    pub(crate) async fn finish(&mut self) {
        let all = async { while self.readers.join_next().await.is_some() {} };
        if tokio::time::timeout(PIPE_GRACE, all).await.is_err() {
            self.readers.abort_all();
        }
    }
}

async fn read_stderr(
    stderr: impl AsyncRead + Unpin,
    mut log: LogReader,
    tail: Tail,
    copy: Option<StderrCopy>,
) {
    let mut lines = HeardLines::new(Lines::new(stderr, LOG_LINE_BYTES));
    while let Some(heard) = lines.next().await {
        if let (Some(copy), Some(piece)) = (&copy, heard.piece()) {
            copy.write(piece);
        }
        match &heard {
            _ if heard.is_empty_end() => {}
            Heard::Line(piece) => tail.push(&log.read(piece)),
            Heard::Missed(piece) => tail.push(&text_of(piece)),
            Heard::Gap(lines) => log.source().note_gap(*lines),
        }
    }
}

async fn read_output(lines: Lines<impl AsyncRead + Unpin>, source: Source, stream: &'static str) {
    let mut lines = HeardLines::new(lines);
    while let Some(heard) = lines.next().await {
        match heard {
            Heard::Line(piece) => emit_output(&source, stream, &piece),
            Heard::Missed(_) => {}
            Heard::Gap(lines) => source.note_gap(lines),
        }
    }
}

/// A bounded number of lines, shared between their reader and whoever asks.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(TAIL_LINE_CHARACTERS).collect());
    }

    fn snapshot(&self) -> StderrTail {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        StderrTail { lines, diagnosis: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::logbook::LogBook;

    #[tokio::test]
    async fn the_raw_stderr_copy_is_lines_with_a_line_feed_each_and_long_lines_intact() {
        let long = "x".repeat(3 * LOG_LINE_BYTES + 5);
        let exact = "y".repeat(LOG_LINE_BYTES);
        let json = r#"{"@level":"info","@message":"m"}"#;
        let stderr = format!("one\n\n{json}\r\n{long}\n{exact}\n\u{1}unterminated");
        let copied = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&copied);
        let copy = StderrCopy::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes));
        let log = LogReader::new(Source { name: "test".into(), pid: Some(1), book: None });
        read_stderr(stderr.as_bytes(), log, Tail::default(), Some(copy)).await;
        let expected = format!("one\n\n{json}\n{long}\n{exact}\n\u{1}unterminated\n");
        assert!(*copied.lock().unwrap() == expected.as_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_the_last_lines_are_kept_and_what_is_not_logged_is_told() {
        const LINES: usize = 200_000;
        let stderr: String = (1..=LINES).map(|number| format!("{number:0>150}\n")).collect();
        let book = LogBook::new(tracing::Level::TRACE);
        let log = LogReader::new(Source { name: "test".into(), pid: Some(1), book: Some(book.clone()) });
        let tail = Tail::default();
        read_stderr(stderr.as_bytes(), log, tail.clone(), None).await;
        assert!(tail.snapshot().lines().last().is_some_and(|line| line.ends_with(&LINES.to_string())));
        let gap = book.lines.kept().pop().expect("lines are kept").entry;
        assert_eq!(gap.level, tracing::Level::WARN);
        assert!(gap.message.contains("lines are left out"), "{}", gap.message);
    }

    #[test]
    fn the_tail_is_bounded_in_lines_and_in_characters() {
        let tail = Tail::default();
        for number in 0..TAIL_LINES + 2 {
            tail.push(&format!("{number}{}", "x".repeat(TAIL_LINE_CHARACTERS)));
        }
        let kept = tail.snapshot();
        assert_eq!(kept.lines().len(), TAIL_LINES);
        assert!(kept.lines()[0].starts_with("2x") && kept.lines()[0].len() == TAIL_LINE_CHARACTERS);
    }
}
