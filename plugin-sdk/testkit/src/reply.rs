//! What a fake plugin does about a call.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// An answer, or what comes instead of one.
///
/// ```
/// use std::time::Duration;
///
/// use plugin_testkit::Reply;
/// use tonic::Status;
///
/// Reply::message(&"a prost type".to_owned());
/// Reply::bytes([0x08, 0x01]); // A message by its encoding, or what no message looks like.
/// Reply::messages(&[1_u32, 2, 3]).then(Status::data_loss("the rest is gone"));
/// Reply::status(Status::unavailable("come back later")).after(Duration::from_millis(50));
/// Reply::message(&"first".to_owned()).then_never(); // A stream that stays open.
/// Reply::never(); // Until the host gives up, at its deadline perhaps.
/// Reply::crash(); // The plugin dies of it.
/// ```
#[derive(Debug, Clone)]
pub struct Reply {
    pub(crate) after: Duration,
    pub(crate) metadata: MetadataMap,
    pub(crate) outcome: Outcome,
}

/// How a call goes on.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// These messages, then this end.
    Answer { messages: Vec<Bytes>, end: End },
    /// The plugin dies.
    Crash,
}

/// What follows the messages.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Status(Result<(), Status>),
    /// Nothing, ever.
    Never,
}

impl Reply {
    fn new(outcome: Outcome) -> Self {
        Self { after: Duration::ZERO, metadata: MetadataMap::new(), outcome }
    }

    fn answer(messages: Vec<Bytes>, end: End) -> Self {
        Self::new(Outcome::Answer { messages, end })
    }

    fn ending(mut self, with: End) -> Self {
        if let Outcome::Answer { end, .. } = &mut self.outcome {
            *end = with;
        }
        self
    }

    /// One message.
    #[must_use]
    pub fn message(message: &impl Message) -> Self {
        Self::bytes(message.encode_to_vec())
    }

    /// One message, encoded already.
    #[must_use]
    pub fn bytes(message: impl AsRef<[u8]>) -> Self {
        let message = Bytes::copy_from_slice(message.as_ref());
        Self::answer(vec![message], End::Status(Ok(())))
    }

    /// Any number of messages, of a method that streams them.
    #[must_use]
    pub fn messages<'a, M: Message + 'a>(messages: impl IntoIterator<Item = &'a M>) -> Self {
        let messages = messages.into_iter().map(|message| message.encode_to_vec().into()).collect();
        Self::answer(messages, End::Status(Ok(())))
    }

    /// A status and no message.
    #[must_use]
    pub fn status(status: Status) -> Self {
        Self::answer(Vec::new(), End::Status(Err(status)))
    }

    /// Nothing, for as long as the host waits.
    #[must_use]
    pub fn never() -> Self {
        Self::answer(Vec::new(), End::Never)
    }

    /// No answer: the plugin dies, and all its connections break.
    #[must_use]
    pub fn crash() -> Self {
        Self::new(Outcome::Crash)
    }

    /// The same, but not before this time has passed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// The same messages, and this status in the place of OK. A [`crash`](Self::crash) stays one.
    #[must_use]
    pub fn then(self, status: Status) -> Self {
        self.ending(End::Status(Err(status)))
    }

    /// The same messages, and no end: the stream stays open, for [`FakePlugin::crash`](crate::FakePlugin::crash) or the
    /// host to break off.
    #[must_use]
    pub fn then_never(self) -> Self {
        self.ending(End::Never)
    }

    /// The same, with these headers. Metadata in the trailers is part of a [`Status`].
    #[must_use]
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = metadata;
        self
    }
}
