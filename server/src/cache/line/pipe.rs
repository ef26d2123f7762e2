//! One stream to one instance of the plugin, and the batches on it.

use std::{future::Future, pin::Pin};

use cache_proto::{PipeRequest, PipeResponse, cache_client::CacheClient};
use plugin_sdk::host::PluginChannel;
use tokio::{
    sync::mpsc,
    time::{self, Duration, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::{
    Unavailable,
    flying::{Batch, Calls, Flying, Landing},
};

/// Batches that may wait for the connection to take them: more than are ever under way, unless a plugin stops reading.
const WAITING_TO_LEAVE: usize = 8;

/// A stream that is being opened, or open.
pub(super) struct Pipe {
    requests: mpsc::Sender<PipeRequest>,
    answers: Answers,
    /// Ends when calls go to another instance, or to none.
    changed: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) flying: Flying,
    /// The plugin has answered a batch, so it has the method.
    is_proven: bool,
}

enum Answers {
    /// The head of the answer is not here yet, and may come together with the first batch's.
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(Box<Streaming<PipeResponse>>),
}

type Opened = Result<Response<Streaming<PipeResponse>>, Status>;

/// What happens on a stream.
pub(super) enum Happened {
    Answer(PipeResponse),
    /// It has ended; without a status if all is well.
    Ended(Option<Status>),
    /// Calls go to another instance now. To be asked for nothing more, but [`Pipe::retire`].
    Changed,
}

/// How a stream has ended.
pub(super) enum End {
    /// The plugin has no such method. Nothing was done.
    Unimplemented(Calls),
    /// The batches on it have failed.
    Broken,
    /// They have, and the plugin has ended it as if all were well.
    Cut,
}

impl Pipe {
    /// Begins to open one while calls go to `instance`. Batches can be sent at once. If calls go elsewhere by now, the stream may
    /// lead there, and this is [`Happened::Changed`] at once.
    pub(super) fn open(
        mut client: CacheClient<PluginChannel>,
        mut channel: PluginChannel,
        instance: Option<u64>,
    ) -> Self {
        let (requests, outgoing) = mpsc::channel(WAITING_TO_LEAVE);
        let opening = async move { client.pipe(ReceiverStream::new(outgoing)).await };
        let changed = async move { _ = channel.instance_changed(instance).await };
        Self {
            requests,
            answers: Answers::Opening(Box::pin(opening)),
            changed: Box::pin(changed),
            flying: Flying::default(),
            is_proven: false,
        }
    }

    /// Sends a batch. If the plugin has stopped reading, the batch fails, and this is false.
    pub(super) fn send(&mut self, batch: Batch, now: Instant) -> bool {
        let Ok(place) = self.requests.try_reserve() else {
            batch.fail(Unavailable::Failed(Code::Unavailable));
            return false;
        };
        let (gets, sets) = match &batch {
            Batch::Gets(gets) => (gets.keys().to_vec(), Vec::new()),
            Batch::Sets(sets) => (Vec::new(), sets.entries().to_vec()),
        };
        place.send(PipeRequest { batch: self.flying.depart(batch, now), gets, sets });
        true
    }

    /// Waits for what happens next. Cancel safe.
    pub(super) async fn next(&mut self) -> Happened {
        tokio::select! {
            biased;
            happened = self.answers.next() => happened,
            () = &mut self.changed => Happened::Changed,
        }
    }

    /// Hands an answer out.
    pub(super) fn land(&mut self, answer: PipeResponse) -> Landing {
        self.is_proven = true;
        self.flying.land(answer)
    }

    /// Settles what was on its way when the stream ended with this status.
    pub(super) fn ended(&mut self, status: Option<&Status>) -> End {
        match status {
            Some(status) if status.code() == Code::Unimplemented && !self.is_proven => {
                End::Unimplemented(self.flying.take_back())
            }
            Some(status) => {
                self.flying.fail(status.into());
                End::Broken
            }
            None if self.flying.oldest().is_none() => End::Broken,
            None => {
                self.flying.fail(Unavailable::Failed(Code::Unavailable));
                End::Cut
            }
        }
    }

    /// Ends the stream once what is on its way has been answered, and within `limit` in any case. Gives back what the plugin turns
    /// out to have no method for.
    pub(super) async fn retire(mut self, limit: Duration) -> Calls {
        let (nobody, _) = mpsc::channel(1);
        // Our end of the stream ends when its sender is gone.
        self.requests = nobody;
        let rest = async {
            loop {
                match self.answers.next().await {
                    Happened::Answer(answer) => _ = self.land(answer),
                    Happened::Ended(status) => return self.ended(status.as_ref()),
                    Happened::Changed => {}
                }
            }
        };
        match time::timeout(limit, rest).await {
            Ok(End::Unimplemented(taken)) => taken,
            Ok(End::Broken | End::Cut) => Calls::default(),
            Err(_) => {
                self.flying.fail(Unavailable::TimedOut);
                Calls::default()
            }
        }
    }
}

impl Answers {
    /// Cancel safe.
    async fn next(&mut self) -> Happened {
        loop {
            match self {
                Self::Opening(opening) => match opening.as_mut().await {
                    Ok(response) => *self = Self::Open(Box::new(response.into_inner())),
                    Err(status) => return Happened::Ended(Some(status)),
                },
                Self::Open(answers) => {
                    return match answers.message().await {
                        Ok(Some(answer)) => Happened::Answer(answer),
                        Ok(None) => Happened::Ended(None),
                        Err(status) => Happened::Ended(Some(status)),
                    };
                }
            }
        }
    }
}
