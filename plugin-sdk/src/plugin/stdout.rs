//! Capture of stdout: file descriptor 1 leads to the host's `GRPCStdio` stream, for `println!`, C libraries and child
//! processes alike. Only the handshake line goes out on the pipe that it led to before.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::services::StdioWriter;

/// How long the end of a capture waits for output that is still in the pipe. A child process may hold the pipe open.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// What a pipe holds, on Linux.
const PIPE_BYTES: usize = 64 * 1024;

/// How long pieces gather after one was copied. Each `println!` is a piece, and to send many together costs the plugin and its host
/// less.
const GATHERING: Duration = Duration::from_millis(1);

/// A running capture.
#[derive(Debug)]
pub(crate) struct Capture {
    copied: oneshot::Receiver<()>,
    /// The pipe to the host, for the handshake line. Kept open after it: a host may take its end for ours.
    original: File,
}

impl Capture {
    /// Puts a pipe in the place of descriptor 1 and copies what comes out of it to `writer`.
    ///
    /// A thread does so, since a handler that prints more than the pipe holds keeps its own thread from doing anything
    /// else, which may be the only one of the run time.
    pub(crate) fn start(writer: StdioWriter) -> io::Result<Self> {
        let original = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let (read, write) = io::pipe()?;
        let (tell, copied) = oneshot::channel();
        std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            copy(OwnedFd::from(read).into(), writer);
            let _ = tell.send(());
        })?;
        rustix::stdio::dup2_stdout(&write)?;
        Ok(Self { copied, original: original.into() })
    }

    /// Writes to what was stdout before.
    pub(crate) fn tell_host(&mut self, text: &str) -> io::Result<()> {
        self.original.write_all(text.as_bytes())
    }

    /// Ends the capture after what has been written so far. Later output is thrown away.
    pub(crate) async fn finish(self) {
        let _ = io::stdout().flush();
        if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(null);
        }
        let _ = tokio::time::timeout(FLUSH_LIMIT, self.copied).await;
    }
}

fn copy(mut pipe: File, mut writer: StdioWriter) {
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                _ = writer.write_all(&buffer[..length]);
                std::thread::sleep(GATHERING);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
