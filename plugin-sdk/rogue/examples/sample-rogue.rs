//! The rogue of one contract: it asks for its cookie, has one version, and answers two methods well.

use std::process::ExitCode;

use plugin_rogue::{Answers, Code, Messages, Methods, Rogue};

/// The service of the contract, by hand.
struct Sample;

impl Methods for Sample {
    async fn call(&self, path: &str, _message: &[u8]) -> Result<Vec<u8>, Code> {
        match path {
            // A string of six bytes in field 1.
            "/sample.v1.Sample/Who" => Ok(b"\x0a\x06a liar".to_vec()),
            _ => Err(Code::UNIMPLEMENTED),
        }
    }

    fn is_stream(&self, path: &str) -> bool {
        path == "/sample.v1.Sample/Chat"
    }

    async fn stream(&self, _path: &str, mut messages: Messages, answers: Answers) -> Result<(), Code> {
        while let Some(message) = messages.next().await {
            answers.send(&message).await;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    Rogue::new(Sample)
        .cookie("SAMPLE_PLUGIN", "a-sample-plugin-for-tests")
        .app_version(2)
        .run(&plugin_rogue::argument())
}
