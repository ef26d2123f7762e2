//! What is said on stderr: by a thread of its own, so that nothing ever waits for whoever reads it.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Lines that may wait to be written. Those that come when so many are waiting are counted and lost.
const MAX_WAITING: usize = 10_000;

/// Back to the beginning of the line, and away with all of it.
const CLEAR_LINE: &str = "\r\u{1b}[K";

/// A handle to the thread; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    messages: mpsc::Sender<Message>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// A line that takes the place of the one before it, if that was such a line.
    Progress(String),
    Flush(mpsc::Sender<()>),
}

impl Talk {
    /// Starts the thread. It ends with the process.
    pub(crate) fn start(mut stderr: impl Write + Send + 'static) -> io::Result<Self> {
        let (messages, received) = mpsc::channel();
        let talk = Self { messages, waiting: Arc::default(), lost: Arc::default() };
        let (waiting, lost) = (Arc::clone(&talk.waiting), Arc::clone(&talk.lost));
        std::thread::Builder::new().name("talk".to_owned()).spawn(move || {
            let mut in_progress = false;
            // That stderr is closed is no reason to stop, and there is nobody to tell.
            for message in received {
                if in_progress {
                    let _ = write!(stderr, "{CLEAR_LINE}");
                }
                in_progress = matches!(message, Message::Progress(_));
                match message {
                    Message::Line(line) => {
                        let _ = writeln!(stderr, "{line}");
                        waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    Message::Progress(line) => {
                        let _ = write!(stderr, "{line}");
                        let _ = stderr.flush();
                        waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    Message::Flush(done) => {
                        let lost = lost.swap(0, Ordering::Relaxed);
                        if lost > 0 {
                            let _ = writeln!(stderr, "pluginctl: {lost} lines came too fast to be shown");
                        }
                        let _ = stderr.flush();
                        let _ = done.send(());
                    }
                }
            }
        })?;
        Ok(talk)
    }

    /// Says one line.
    pub(crate) fn say(&self, line: impl Display) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            // The thread never ends before its senders.
            let _ = self.messages.send(Message::Line(line.to_string()));
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how far something is, on a terminal; the next line, or the end, takes its place.
    pub(crate) fn progress(&self, line: impl Display) {
        // What is not shown now is not of interest later.
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            let _ = self.messages.send(Message::Progress(line.to_string()));
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Says one line, whatever is waiting.
    pub(crate) fn say_at_last(&self, line: impl Display) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.messages.send(Message::Line(line.to_string()));
    }

    /// Waits until all is said, at most `limit`: somebody may hold stderr and not read it.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, flushed) = mpsc::channel();
        let _ = self.messages.send(Message::Flush(done));
        let _ = flushed.recv_timeout(limit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until the other end of its channel is dropped.
    struct Stuck(Receiver<()>, Shared);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let written = Shared::default();
        let (release, held) = mpsc::channel();
        let talk = Talk::start(Stuck(held, written.clone())).unwrap();
        for number in 0..MAX_WAITING + 5 {
            talk.say(number);
        }
        talk.flush(Duration::from_millis(1));
        talk.say_at_last("the end");
        drop(release);
        talk.flush(Duration::from_secs(60));
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(written.contains("pluginctl: 5 lines came too fast to be shown\n"), "{written}");
        assert!(written.ends_with("the end\n"));
    }
}
