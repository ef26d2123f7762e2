//! What is written on stdout: data, and nothing else.

use std::io;

use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncWriteExt, Stdout};

use crate::escape::escaped_json;

/// Stdout. Writing waits for the reader, and can be given up like any other future.
#[derive(Debug)]
pub(crate) struct Output(Stdout);

/// Why something could not be written.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    /// The reader has gone, as `head` does when it has enough. No fault of anybody's.
    #[error("nobody reads stdout any more")]
    Closed,
    #[error("cannot write to stdout")]
    Io(#[source] io::Error),
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self(tokio::io::stdout())
    }

    /// Writes `text` and a line end.
    pub(crate) async fn text(&mut self, text: &str) -> Result<(), OutputError> {
        let line = format!("{text}\n");
        let written = async {
            self.0.write_all(line.as_bytes()).await?;
            self.0.flush().await
        };
        written.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Io(error),
        })
    }

    /// Writes `value` on one line.
    pub(crate) async fn json(&mut self, value: &Value) -> Result<(), OutputError> {
        self.text(&escaped_json(&value.to_string())).await
    }

    /// Writes `value` for people to read.
    pub(crate) async fn pretty(&mut self, value: &Value) -> Result<(), OutputError> {
        // The alternate form of a value is the indented one.
        self.text(&escaped_json(&format!("{value:#}"))).await
    }
}
