//! `GRPCStdio`: what a plugin writes to stdout and stderr after the handshake, as a stream to its host.
//!
//! The plugin is never held up by a host that does not read. Output waits in a bounded buffer; when that is full, the
//! oldest goes. (In go-plugin the writer blocks once a pipe of 64 KiB is full.) Every open stream gets all output from
//! when it was opened; what was written while no stream was open goes to the next one.

#[cfg(feature = "plugin")]
pub(crate) use server::Stdio;
#[cfg(feature = "plugin")]
pub use server::StdioWriter;

#[cfg(feature = "host")]
pub(crate) use client::receive;

#[cfg(feature = "plugin")]
mod server {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use bytes::Bytes;
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};
    use tokio::sync::{broadcast, mpsc};
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_util::sync::CancellationToken;
    use tonic::{Request, Response, Status};

    use crate::generated::plugin::StdioData;
    use crate::generated::plugin::grpc_stdio_server::GrpcStdio;
    use crate::generated::plugin::stdio_data::Channel;

    /// Largest chunk that go-plugin sends.
    const CHUNK_BYTES: usize = 1024;

    /// Chunks that wait for a host; with full chunks 1 MiB.
    const BUFFERED_CHUNKS: usize = 1024;

    /// Chunks handed to one stream ahead of what HTTP/2 has taken.
    const STREAM_AHEAD: usize = 4;

    /// The output of this process, and the service that gives it to hosts.
    #[derive(Debug, Clone)]
    pub(crate) struct Stdio {
        chunks: broadcast::Sender<StdioData>,
        /// Holds output for the next stream while there is none.
        spare: Arc<Mutex<Option<broadcast::Receiver<StdioData>>>>,
        closing: CancellationToken,
    }

    /// Writes to one of the two channels. Never blocks and never fails.
    #[derive(Debug, Clone)]
    pub struct StdioWriter {
        chunks: broadcast::Sender<StdioData>,
        channel: Channel,
    }

    impl Stdio {
        /// Streams end, after all that was written, when the token is cancelled.
        pub(crate) fn new(closing: CancellationToken) -> Self {
            let (chunks, spare) = broadcast::channel(BUFFERED_CHUNKS);
            Self { chunks, spare: Arc::new(Mutex::new(Some(spare))), closing }
        }

        pub(crate) fn stdout(&self) -> StdioWriter {
            StdioWriter { chunks: self.chunks.clone(), channel: Channel::Stdout }
        }

        pub(crate) fn stderr(&self) -> StdioWriter {
            StdioWriter { chunks: self.chunks.clone(), channel: Channel::Stderr }
        }

        fn spare(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Receiver<StdioData>>> {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner)
        }

        async fn feed(
            &self,
            chunks: &mut broadcast::Receiver<StdioData>,
            stream: mpsc::Sender<Result<StdioData, Status>>,
        ) {
            loop {
                // In this order: a closed stream before output, and all output before the end.
                let chunk = tokio::select! {
                    biased;
                    () = stream.closed() => return,
                    received = chunks.recv() => match received {
                        Ok(chunk) => chunk,
                        Err(RecvError::Lagged(lost)) => {
                            tracing::warn!(lost, "output was dropped, as it was written faster than this plugin's thread and its host could take it: the oldest pieces");
                            continue;
                        }
                        Err(RecvError::Closed) => return,
                    },
                    () = self.closing.cancelled() => match chunks.try_recv() {
                        Ok(chunk) => chunk,
                        Err(TryRecvError::Lagged(_)) => continue,
                        Err(TryRecvError::Empty | TryRecvError::Closed) => return,
                    },
                };
                if stream.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
        }
    }

    impl io::Write for StdioWriter {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            for chunk in data.chunks(CHUNK_BYTES) {
                let data = Bytes::copy_from_slice(chunk);
                // Fails only while no stream is open and none waits: then nobody is to read it.
                let _ = self.chunks.send(StdioData { channel: self.channel.into(), data });
            }
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
            let mut chunks = self.spare().take().unwrap_or_else(|| self.chunks.subscribe());
            tokio::spawn(async move {
                stdio.feed(&mut chunks, send).await;
                // The last stream to close leaves its place to the next one.
                let mut spare = stdio.spare();
                if stdio.chunks.receiver_count() == 1 {
                    *spare = Some(chunks);
                } else {
                    drop(chunks);
                }
            });
            Ok(Response::new(ReceiverStream::new(receive)))
        }
    }

    #[cfg(test)]
    mod tests {
        use std::io::Write;

        use tokio_stream::StreamExt;

        use super::*;

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
            for number in 0..BUFFERED_CHUNKS * 2 {
                writeln!(stdio.stdout(), "{number}").unwrap();
            }
            let mut stream = open(&stdio).await;
            let first = stream.next().await.unwrap().unwrap();
            assert_ne!(first.data.as_ref(), b"0\n");
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

    /// Copies the plugin's output to the two sinks until the stream ends.
    ///
    /// The call may stay unanswered until the first output: go-plugin sends no headers before it.
    pub(crate) async fn receive(
        connection: Connection,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> StreamEnd {
        let mut client = GrpcStdioClient::new(connection);
        let mut stream = match client.stream_stdio(()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return end(&status),
        };
        loop {
            let chunk = match stream.message().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return StreamEnd::Broken,
                Err(status) => return end(&status),
            };
            let written = match chunk.channel() {
                Channel::Stdout => stdout.write_all(&chunk.data).await,
                Channel::Stderr => stderr.write_all(&chunk.data).await,
                Channel::Invalid => {
                    tracing::warn!(channel = chunk.channel, "the plugin sent output for an unknown channel");
                    Ok(())
                }
            };
            if let Err(error) = written {
                tracing::warn!(%error, "the plugin's output cannot be written");
            }
        }
    }

    fn end(status: &Status) -> StreamEnd {
        // A status that has a source is not the plugin's word: the connection broke, and its end is told elsewhere.
        let broken = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unimplemented => {
                tracing::warn!("the plugin has no stdio service: what it prints is not seen");
                StreamEnd::Unsupported
            }
            Code::Unavailable | Code::Cancelled => StreamEnd::Broken,
            _ if broken => StreamEnd::Broken,
            _ => {
                tracing::warn!(%status, "the plugin's output stream failed");
                StreamEnd::Broken
            }
        }
    }
}
