//! `GRPCStdio`: what a plugin writes to stdout and stderr after the handshake, as a stream to its host.
//!
//! A plugin is never held up for long by a host that does not read: output waits in a [`Backlog`](super::backlog), and when that is
//! full, the oldest goes, which the log tells. (In go-plugin the writer blocks once a pipe of 64 KiB is full.) A thread that is none
//! of the run time's waits for room instead, as long as the host goes on to read. One of the run time's must not: it may be the
//! one that would send the output. Every open stream gets all output from when it was opened; what was written while no
//! stream was open goes to the next one.

#[cfg(feature = "plugin")]
pub(crate) use server::Stdio;
#[cfg(feature = "plugin")]
pub use server::StdioWriter;

#[cfg(feature = "host")]
pub(crate) use client::receive;

#[cfg(feature = "plugin")]
mod server {
    use std::io;
    use std::sync::Arc;

    use tokio::runtime::Handle;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_util::sync::CancellationToken;
    use tonic::{Request, Response, Status};

    use crate::generated::plugin::StdioData;
    use crate::generated::plugin::grpc_stdio_server::GrpcStdio;
    use crate::generated::plugin::stdio_data::Channel;
    use crate::services::backlog::{Backlog, Next, Reader, WhenFull};

    /// Chunks handed to one stream ahead of what HTTP/2 has taken.
    const STREAM_AHEAD: usize = 4;

    /// The output of this process, and the service that gives it to hosts.
    #[derive(Debug, Clone)]
    pub(crate) struct Stdio {
        backlog: Arc<Backlog>,
        closing: CancellationToken,
    }

    /// Writes to one of the two channels. Never fails.
    ///
    /// In a task, it never blocks: 8 MiB wait for the host, and when there are more, the oldest go, and the plugin's log says how many
    /// bytes these were. In a thread of its own, it waits for room while the host reads.
    #[derive(Debug, Clone)]
    pub struct StdioWriter {
        backlog: Arc<Backlog>,
        channel: Channel,
    }

    impl Stdio {
        /// Streams end, after all that was written, when the token is cancelled.
        pub(crate) fn new(closing: CancellationToken) -> Self {
            Self { backlog: Arc::default(), closing }
        }

        pub(crate) fn stdout(&self) -> StdioWriter {
            StdioWriter { backlog: Arc::clone(&self.backlog), channel: Channel::Stdout }
        }

        pub(crate) fn stderr(&self) -> StdioWriter {
            StdioWriter { backlog: Arc::clone(&self.backlog), channel: Channel::Stderr }
        }

        /// For the end: says how much a host that reads has not got.
        pub(crate) fn tell_unread(&self) {
            let bytes = self.backlog.unread();
            if bytes > 0 {
                tracing::warn!(
                    bytes,
                    "output was lost, as the host did not read it before this plugin's end"
                );
            }
        }

        async fn feed(&self, reader: &mut Reader, stream: mpsc::Sender<Result<StdioData, Status>>) {
            loop {
                // Both before the look: what is written after it is news, and all that was written before the end is sent.
                let (news, closing) = (self.backlog.news(), self.closing.is_cancelled());
                match reader.next() {
                    Next::Chunk(chunk) => {
                        if stream.send(Ok(chunk)).await.is_err() {
                            return;
                        }
                    }
                    Next::Lost(bytes) => tracing::warn!(
                        bytes,
                        "output was lost, the oldest: it was written faster than this plugin's thread and its host could take it"
                    ),
                    Next::Nothing if closing => return,
                    Next::Nothing => tokio::select! {
                        () = stream.closed() => return,
                        () = news => {}
                        () = self.closing.cancelled() => {}
                    },
                }
            }
        }
    }

    impl io::Write for StdioWriter {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let when_full = if Handle::try_current().is_ok() { WhenFull::Drop } else { WhenFull::Wait };
            self.backlog.write(self.channel, data, when_full);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tonic::async_trait]
    impl GrpcStdio for Stdio {
        type StreamStdioStream = ReceiverStream<Result<StdioData, Status>>;

        async fn stream_stdio(
            &self,
            _request: Request<()>,
        ) -> Result<Response<Self::StreamStdioStream>, Status> {
            let (send, receive) = mpsc::channel(STREAM_AHEAD);
            let stdio = self.clone();
            let mut reader = self.backlog.reader();
            tokio::spawn(async move { stdio.feed(&mut reader, send).await });
            Ok(Response::new(ReceiverStream::new(receive)))
        }
    }

    #[cfg(test)]
    mod tests {
        use std::io::Write;

        use tokio_stream::StreamExt;

        use super::*;
        use crate::services::backlog::{BACKLOG_BYTES, CHUNK_BYTES};

        async fn open(stdio: &Stdio) -> ReceiverStream<Result<StdioData, Status>> {
            stdio.stream_stdio(Request::new(())).await.unwrap().into_inner()
        }

        async fn text(stream: &mut ReceiverStream<Result<StdioData, Status>>, length: usize) -> String {
            let mut text = String::new();
            while text.len() < length {
                let chunk = stream.next().await.unwrap().unwrap();
                assert!(chunk.data.len() <= CHUNK_BYTES);
                text.push_str(std::str::from_utf8(&chunk.data).unwrap());
            }
            text
        }

        #[tokio::test]
        async fn output_from_before_the_stream_and_up_to_the_last_moment_arrives() {
            let closing = CancellationToken::new();
            let stdio = Stdio::new(closing.clone());
            let long = "x".repeat(3 * CHUNK_BYTES + 1);
            stdio.stdout().write_all(long.as_bytes()).unwrap();
            let mut stream = open(&stdio).await;
            assert_eq!(text(&mut stream, long.len()).await, long);
            stdio.stderr().write_all(b"last words").unwrap();
            closing.cancel();
            let last = stream.next().await.unwrap().unwrap();
            assert_eq!((last.channel(), last.data.as_ref()), (Channel::Stderr, &b"last words"[..]));
            assert!(stream.next().await.is_none());
        }

        #[tokio::test]
        async fn a_second_host_gets_output_after_the_first_has_gone() {
            let stdio = Stdio::new(CancellationToken::new());
            let mut first = open(&stdio).await;
            stdio.stdout().write_all(b"one").unwrap();
            assert_eq!(text(&mut first, 3).await, "one");
            drop(first);
            let mut second = open(&stdio).await;
            stdio.stdout().write_all(b"two").unwrap();
            assert_eq!(text(&mut second, 3).await, "two");
        }

        #[tokio::test]
        async fn without_a_reader_the_oldest_output_goes_and_nobody_waits() {
            let stdio = Stdio::new(CancellationToken::new());
            let line = format!("{}\n", "x".repeat(CHUNK_BYTES - 1));
            for _ in 0..BACKLOG_BYTES / CHUNK_BYTES {
                stdio.stdout().write_all(b"old\n").unwrap();
                stdio.stdout().write_all(line.as_bytes()).unwrap();
            }
            let mut reader = stdio.backlog.reader();
            let Next::Lost(lost) = reader.next() else { panic!("it has everything") };
            let mut left = 0;
            while let Next::Chunk(chunk) = reader.next() {
                left += chunk.data.len();
            }
            let written = BACKLOG_BYTES / CHUNK_BYTES * (CHUNK_BYTES + 4);
            assert_eq!(usize::try_from(lost).unwrap() + left, written, "what is lost is counted");
            assert!(left > BACKLOG_BYTES * 9 / 10, "{left} of {BACKLOG_BYTES} bytes are left");
        }

        #[tokio::test]
        async fn a_reader_that_is_late_is_told_what_it_has_missed_even_at_the_end() {
            let closing = CancellationToken::new();
            let stdio = Stdio::new(closing.clone());
            let mut reader = stdio.backlog.reader();
            stdio.stdout().write_all(&vec![b'x'; BACKLOG_BYTES + 10]).unwrap();
            stdio.stderr().write_all(b"last words").unwrap();
            closing.cancel();
            assert!(matches!(reader.next(), Next::Lost(bytes) if bytes > 10));
            let unread = stdio.backlog.unread();
            let mut read = 0;
            while let Next::Chunk(chunk) = reader.next() {
                read += chunk.data.len();
            }
            assert_eq!((u64::try_from(read).unwrap(), stdio.backlog.unread()), (unread, 0));
        }

        #[test]
        fn a_thread_of_its_own_waits_for_a_reader_that_goes_on_and_not_for_one_that_does_not() {
            let stdio = Stdio::new(CancellationToken::new());
            let mut reader = stdio.backlog.reader();
            let mut stdout = stdio.stdout();
            let writer = std::thread::spawn(move || {
                for _ in 0..BACKLOG_BYTES / CHUNK_BYTES * 3 {
                    stdout.write_all(&[b'x'; CHUNK_BYTES]).unwrap();
                }
            });
            let mut read = 0;
            while !(writer.is_finished() && stdio.backlog.unread() == 0) {
                match reader.next() {
                    Next::Chunk(chunk) => read += chunk.data.len(),
                    Next::Lost(bytes) => panic!("{bytes} bytes were lost"),
                    Next::Nothing => std::thread::yield_now(),
                }
            }
            writer.join().unwrap();
            assert_eq!(read, BACKLOG_BYTES * 3);

            for _ in 0..BACKLOG_BYTES / CHUNK_BYTES * 3 {
                stdio.stdout().write_all(&[b'x'; CHUNK_BYTES]).unwrap();
            }
            assert!(matches!(reader.next(), Next::Lost(_)), "it has waited once, in vain");
        }
    }
}

#[cfg(feature = "host")]
mod client {
    use tokio::io::{AsyncWrite, AsyncWriteExt};
    use tonic::transport::Channel as Connection;
    use tonic::{Code, Status};

    use crate::generated::plugin::grpc_stdio_client::GrpcStdioClient;
    use crate::generated::plugin::stdio_data::Channel;
    use crate::services::StreamEnd;

    /// Copies the output of the plugin of this name to the two sinks until the stream ends.
    ///
    /// The call may stay unanswered until the first output: go-plugin sends no headers before it.
    pub(crate) async fn receive(
        plugin: &str,
        connection: Connection,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> StreamEnd {
        let mut client = GrpcStdioClient::new(connection);
        let mut stream = match client.stream_stdio(()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return end(plugin, &status),
        };
        loop {
            let chunk = match stream.message().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return StreamEnd::Broken,
                Err(status) => return end(plugin, &status),
            };
            let written = match chunk.channel() {
                Channel::Stdout => stdout.write_all(&chunk.data).await,
                Channel::Stderr => stderr.write_all(&chunk.data).await,
                Channel::Invalid => {
                    let channel = chunk.channel;
                    tracing::warn!(plugin, channel, "the plugin sent output for an unknown channel");
                    Ok(())
                }
            };
            if let Err(error) = written {
                tracing::warn!(plugin, %error, "the plugin's output cannot be written");
            }
        }
    }

    fn end(plugin: &str, status: &Status) -> StreamEnd {
        // A status that has a source is not the plugin's word: the connection broke, and its end is told elsewhere.
        let broken = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unimplemented => {
                // As it was made, and so at each start.
                tracing::info!(plugin, "the plugin has no stdio service: what it prints is not seen");
                StreamEnd::Unsupported
            }
            Code::Unavailable | Code::Cancelled => StreamEnd::Broken,
            _ if broken => StreamEnd::Broken,
            _ => {
                tracing::warn!(plugin, %status, "the plugin's output stream failed");
                StreamEnd::Broken
            }
        }
    }
}
