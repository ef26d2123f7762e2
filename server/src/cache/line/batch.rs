//! Calls that travel as one, and who gets which answer. No I/O, no clock.

use cache_proto::{GetResponse, SetError, SetRequest};
use tokio::sync::oneshot;
use tonic::Code;

use super::Unavailable;

/// A call that waits for its turn, and whoever waits for its answer.
#[derive(Debug)]
pub(super) struct Call<Q, A> {
    pub(super) request: Q,
    pub(super) reply: oneshot::Sender<Reply<Q, A>>,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply<Q, A> {
    Answered(A),
    Unavailable(Unavailable),
    /// This plugin takes single calls only: the caller makes its own. Nothing was sent.
    CallAlone(Q),
}

/// A lookup, by its key.
pub(super) type Get = Call<String, GetResponse>;

/// A store.
pub(super) type Set = Call<SetRequest, ()>;

impl<Q, A> Call<Q, A> {
    /// Nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn fail(self, why: Unavailable) {
        tell(self.reply, Reply::Unavailable(why));
    }

    pub(super) fn call_alone(self) {
        tell(self.reply, Reply::CallAlone(self.request));
    }
}

/// An answer that does not fit its question. The calls have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Miscounted {
    pub(super) expected: usize,
    pub(super) got: usize,
}

/// Lookups that travel as one; those of one key share one.
#[derive(Debug, Default)]
pub(super) struct Gets {
    /// Each once.
    keys: Vec<String>,
    /// Who waits for the key of this index.
    waiting: Vec<(usize, oneshot::Sender<Reply<String, GetResponse>>)>,
}

impl Gets {
    /// Takes all that somebody waits for.
    pub(super) fn gather(calls: &mut Vec<Get>) -> Self {
        calls.retain(|call| !call.is_abandoned());
        // To find equal ones: for so few, cheaper than to hash each.
        calls.sort_unstable_by(|one, other| one.request.cmp(&other.request));
        let mut gets =
            Self { keys: Vec::with_capacity(calls.len()), waiting: Vec::with_capacity(calls.len()) };
        for Call { request, reply } in calls.drain(..) {
            if gets.keys.last() != Some(&request) {
                gets.keys.push(request);
            }
            gets.waiting.push((gets.keys.len() - 1, reply));
        }
        gets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Gives each its answer: `results` has one for each key, in their order.
    pub(super) fn answer(self, mut results: Vec<GetResponse>) -> Result<(), Miscounted> {
        let (expected, got) = (self.keys.len(), results.len());
        if got != expected {
            self.fail(Unavailable::Failed(Code::Internal));
            return Err(Miscounted { expected, got });
        }
        let mut waiting = self.waiting.into_iter().peekable();
        while let Some((index, reply)) = waiting.next() {
            let Some(result) = results.get_mut(index) else { continue };
            let is_last = waiting.peek().is_none_or(|(next, _)| *next != index);
            let answer = if is_last { std::mem::take(result) } else { result.clone() };
            tell(reply, Reply::Answered(answer));
        }
        Ok(())
    }

    pub(super) fn fail(self, why: Unavailable) {
        for (_, reply) in self.waiting {
            tell(reply, Reply::Unavailable(why));
        }
    }

    /// The calls as they were, to be made in another way.
    pub(super) fn into_calls(self) -> impl Iterator<Item = Get> {
        let Self { keys, waiting } = self;
        waiting
            .into_iter()
            .filter_map(move |(index, reply)| Some(Call { request: keys.get(index)?.clone(), reply }))
    }
}

/// Stores that travel as one.
#[derive(Debug, Default)]
pub(super) struct Sets {
    entries: Vec<SetRequest>,
    /// Who waits for the entry of the same index.
    waiting: Vec<oneshot::Sender<Reply<SetRequest, ()>>>,
}

impl Sets {
    /// Takes what somebody waits for, in order, as long as the entries have no more than `max_bytes` or there is only
    /// one.
    pub(super) fn gather(calls: &mut Vec<Set>, max_bytes: usize) -> Self {
        calls.retain(|call| !call.is_abandoned());
        let mut bytes = 0;
        let fit = calls.iter().take_while(|Call { request, .. }| {
            bytes += request.key.len() + request.value.len() + ENTRY_OVERHEAD_BYTES;
            bytes <= max_bytes
        });
        let number = fit.count().max(1).min(calls.len());
        let (entries, waiting) =
            calls.drain(..number).map(|Call { request, reply }| (request, reply)).unzip();
        Self { entries, waiting }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> &[SetRequest] {
        &self.entries
    }

    /// All were stored but those that `errors` has.
    pub(super) fn answer(self, errors: &[SetError]) {
        let mut replies = vec![Reply::Answered(()); self.waiting.len()];
        for error in errors {
            // One that is none of ours is nobody's.
            if let Some(reply) = usize::try_from(error.index).ok().and_then(|index| replies.get_mut(index)) {
                *reply = Reply::Unavailable(Unavailable::Failed(Code::from(error.code)));
            }
        }
        for (waiting, reply) in self.waiting.into_iter().zip(replies) {
            tell(waiting, reply);
        }
    }

    pub(super) fn fail(self, why: Unavailable) {
        for reply in self.waiting {
            tell(reply, Reply::Unavailable(why));
        }
    }

    /// The calls as they were, to be made in another way.
    pub(super) fn into_calls(self) -> impl Iterator<Item = Set> {
        self.entries.into_iter().zip(self.waiting).map(|(request, reply)| Call { request, reply })
    }
}

/// More than an entry takes in a message beside key and value.
const ENTRY_OVERHEAD_BYTES: usize = 64;

fn tell<T>(waiting: oneshot::Sender<T>, reply: T) {
    // They may have gone: at their deadline, or with the request that they were for.
    let _nobody_waits = waiting.send(reply);
}
