//! The messages of a call, from JSON: one value after the other, each read only when the call can take it.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};

use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Deserializer, Value};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Messages that are read ahead of the call.
const READ_AHEAD: usize = 16;

/// Where the JSON is.
#[derive(Debug)]
pub(crate) enum Data {
    /// There is none: a call that takes one message gets an empty one, one that takes many gets none.
    Nothing,
    Text(String),
    File(File),
    Stdin,
}

/// How many messages a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    One,
    Many,
}

/// Why the data cannot be sent.
#[derive(Debug, Error)]
pub(crate) enum DataError {
    #[error("--data cannot be read")]
    Read(#[source] io::Error),
    #[error("--data is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("message {number} of --data is not a {message}")]
    Message {
        number: usize,
        message: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("--data is empty, and the method takes one message; {{}} is an empty one")]
    Empty,
    #[error("--data holds more than one JSON value, and the method takes one message")]
    TooMany,
}

/// The messages to send, and the error that ended them, if any. While there is an error to be seen, the stream does not end: a
/// plugin must not take the half of the messages for the whole.
pub(crate) struct Messages {
    pub(crate) stream: ReceiverStream<DynamicMessage>,
    failed: oneshot::Receiver<(DataError, mpsc::Sender<DynamicMessage>)>,
}

impl Messages {
    /// Starts reading, on a thread of its own: a file or a terminal may take any time.
    pub(crate) fn read(data: Data, message: MessageDescriptor, arity: Arity) -> Self {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let (fail, failed) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = feed(data, &message, arity, &sender) {
                let _ = fail.send((error, sender));
            }
        });
        Self { stream: ReceiverStream::new(receiver), failed }
    }

    /// The stream, and a future that is ready only if the data turn out to be bad.
    pub(crate) fn split(self) -> (ReceiverStream<DynamicMessage>, impl Future<Output = DataError>) {
        let failed = self.failed;
        let error = async move {
            match failed.await {
                Ok((error, _open)) => error,
                Err(_) => std::future::pending().await,
            }
        };
        (self.stream, error)
    }
}

fn feed(
    data: Data,
    message: &MessageDescriptor,
    arity: Arity,
    sender: &mpsc::Sender<DynamicMessage>,
) -> Result<(), DataError> {
    let source: Box<dyn Read> = match data {
        Data::Nothing => {
            if arity == Arity::One {
                let _ = sender.blocking_send(DynamicMessage::new(message.clone()));
            }
            return Ok(());
        }
        Data::Text(text) => Box::new(Cursor::new(text)),
        Data::File(file) => Box::new(BufReader::new(file)),
        Data::Stdin => Box::new(io::stdin().lock()),
    };
    let mut messages = values(source).enumerate().map(|(index, value)| parse(message, index + 1, value?));
    match arity {
        Arity::One => {
            let only = messages.next().ok_or(DataError::Empty)??;
            match messages.next() {
                None => {}
                Some(Err(error @ (DataError::Read(_) | DataError::Json(_)))) => return Err(error),
                Some(_) => return Err(DataError::TooMany),
            }
            // A call that has ended takes no more, which is its own affair.
            let _ = sender.blocking_send(only);
        }
        Arity::Many => {
            for message in messages {
                if sender.blocking_send(message?).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Whether `text` is a sequence of JSON values, as far as that can be told without knowing the message.
pub(crate) fn check(text: &str) -> Result<(), DataError> {
    values(Cursor::new(text)).try_for_each(|value| value.map(drop))
}

fn values(source: impl Read) -> impl Iterator<Item = Result<Value, DataError>> {
    Deserializer::from_reader(source).into_iter().map(|value| {
        value.map_err(
            |error| if error.is_io() { DataError::Read(error.into()) } else { DataError::Json(error) },
        )
    })
}

fn parse(message: &MessageDescriptor, number: usize, value: Value) -> Result<DynamicMessage, DataError> {
    DynamicMessage::deserialize(message.clone(), value).map_err(|source| DataError::Message {
        number,
        message: message.full_name().to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn text() -> MessageDescriptor {
        let pool = prost_reflect::DescriptorPool::global();
        pool.get_message_by_name("google.protobuf.StringValue").unwrap()
    }

    fn structured() -> MessageDescriptor {
        let pool = prost_reflect::DescriptorPool::global();
        pool.get_message_by_name("google.protobuf.SourceContext").unwrap()
    }

    async fn count(data: Data, message: MessageDescriptor, arity: Arity) -> Result<usize, DataError> {
        let (mut stream, failed) = Messages::read(data, message, arity).split();
        let counted = async {
            let mut count = 0;
            while stream.next().await.is_some() {
                count += 1;
            }
            count
        };
        tokio::select! {
            count = counted => Ok(count),
            error = failed => Err(error),
        }
    }

    #[tokio::test]
    async fn values_follow_each_other_in_any_layout() {
        for (json, expected) in [("", 0), (" \n", 0), (r#""a""#, 1), ("\"a\"\"b\"\n \"c\"", 3)] {
            assert_eq!(
                count(Data::Text(json.into()), text(), Arity::Many).await.unwrap(),
                expected,
                "{json:?}"
            );
        }
    }

    #[tokio::test]
    async fn without_data_one_empty_message_is_sent_or_none() {
        for message in [structured(), text()] {
            assert_eq!(count(Data::Nothing, message, Arity::One).await.unwrap(), 1);
        }
        assert_eq!(count(Data::Nothing, structured(), Arity::Many).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn bad_data_are_an_error_and_never_the_end() {
        for arity in [Arity::One, Arity::Many] {
            let error = count(Data::Text(r#""a" {"#.into()), text(), arity).await.unwrap_err();
            assert!(matches!(error, DataError::Json(_)), "{error:?}");
            let error = count(Data::Text("5".into()), text(), arity).await.unwrap_err();
            assert!(matches!(error, DataError::Message { number: 1, .. }), "{error:?}");
        }
        let error = count(Data::Text(r#"{"nosuch": 1}"#.into()), structured(), Arity::One).await.unwrap_err();
        assert!(plugin_sdk::one_line(&error).to_string().contains("nosuch"), "{error:?}");
        let one = |json: &str| count(Data::Text(json.into()), text(), Arity::One);
        assert!(matches!(one("").await, Err(DataError::Empty)));
        assert!(matches!(one(r#""a" "b""#).await, Err(DataError::TooMany)));
    }
}
