//! Capture of stdout: once the handshake line is out, file descriptor 1 leads to the host's `GRPCStdio` stream, for
//! `println!`, C libraries and child processes alike.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::services::StdioWriter;

/// How long the end of a capture waits for output that is still in the pipe. A child process may hold the pipe open.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// A running capture.
#[derive(Debug)]
pub(crate) struct Capture {
    copying: JoinHandle<()>,
    /// The pipe to the host on which the handshake line went out. Kept open: a host may take its end for ours.
    _original: OwnedFd,
}

impl Capture {
    /// Puts a pipe in the place of descriptor 1 and copies what comes out of it to `writer`.
    pub(crate) fn start(writer: StdioWriter) -> io::Result<Self> {
        let original = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::stdio::dup2_stdout(&write)?;
        let copying = tokio::spawn(copy(pipe::Receiver::from_owned_fd(read)?, writer));
        Ok(Self { copying, _original: original })
    }

    /// Ends the capture after what has been written so far. Later output is thrown away.
    pub(crate) async fn finish(self) {
        let _ = io::stdout().flush();
        if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(null);
        }
        let abort = self.copying.abort_handle();
        if tokio::time::timeout(FLUSH_LIMIT, self.copying).await.is_err() {
            abort.abort();
        }
    }
}

async fn copy(mut pipe: pipe::Receiver, mut writer: StdioWriter) {
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let _ = writer.write_all(&buffer[..length]);
    }
}
