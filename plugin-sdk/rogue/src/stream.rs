//! The two sides of a call that streams, by hand.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::service::{Frames, send};

/// What the host sends on a stream.
#[derive(Debug)]
pub struct Messages {
    body: Incoming,
    received: BytesMut,
}

impl Messages {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, received: BytesMut::new() }
    }

    /// The next message; `None` when the host has ended its side, or is gone.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(message) = self.received() {
                return Some(message);
            }
            if let Ok(data) = self.body.frame().await?.ok()?.into_data() {
                self.received.extend_from_slice(&data);
            }
        }
    }

    /// A message that is here as a whole.
    fn received(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.received.get(1..5)?.try_into().ok()?) as usize;
        if self.received.len() < 5 + length {
            return None;
        }
        self.received.advance(5);
        Some(self.received.split_to(length).to_vec())
    }
}

/// What the host gets on a stream.
#[derive(Debug, Clone)]
pub struct Answers(pub(crate) Frames);

impl Answers {
    /// Sends a message, if the host still listens.
    pub async fn send(&self, message: &[u8]) {
        send(&self.0, message).await;
    }
}
