//! The Cache service of a [`Cache`]: checks what comes in, keeps answers within their size, takes streams of batches
//! apart, and has the log say what fails.

mod trouble;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use self::trouble::Trouble;
use crate::cache::{panicked, unless_it_panics};
use crate::get_response::Outcome;
use crate::request::{MAX_SECONDS, check_all, check_batch, check_entry, check_key, is_key};
use crate::{
    Cache, DeleteRequest, DeleteResponse, Entry, FlushRequest, FlushResponse, GetManyRequest,
    GetManyResponse, GetRequest, GetResponse, Hit, Lookup, MAX_MESSAGE_BYTES, Miss, MissReason, PipeRequest,
    PipeResponse, SetError, SetManyRequest, SetManyResponse, SetRequest, SetResponse, StatsRequest,
    StatsResponse,
};

/// Batches of one stream that are answered at the same time. A host has no reason to have as many open; until one of
/// them is answered, no more are read.
const BATCHES_AT_A_TIME: usize = 16;

/// The most bytes of hits in one answer; the other keys are misses. gRPC libraries refuse messages of more than 4 MiB
/// unless told otherwise, and a request may name one large value very often. The quarter of a MiB that is left is for
/// the misses and the prefixes of a full batch, which are below 10 bytes for each key.
const MAX_HIT_BYTES: usize = MAX_MESSAGE_BYTES - (256 << 10);

/// The most bytes of texts of one batch's set errors; later ones have none.
const MAX_ERROR_TEXT_BYTES: usize = 64 << 10;

/// What is said of a key that is wrong or whose lookup has failed.
const NEITHER: GetResponse = GetResponse { outcome: None };

/// Serves a [`Cache`]: `CacheServer::new(CacheService::new(cache))`.
#[derive(Debug)]
pub struct CacheService<C> {
    cache: Arc<Watched<C>>,
    leases: Leases,
    closing: Shared<BoxFuture<'static, ()>>,
}

/// A cache, and what the log has been told of it.
#[derive(Debug)]
struct Watched<C> {
    cache: C,
    lookups: Trouble,
    stores: Trouble,
    removals: Trouble,
}

/// For how long at most hosts may answer hits from their own memory; `None`: not at all.
#[derive(Clone, Copy, Debug)]
struct Leases(Option<Duration>);

const ASK_EVERY_TIME: Leases = Leases(None);

impl<C: Cache> CacheService<C> {
    /// Serves this cache. Hosts ask it every time.
    pub fn new(cache: C) -> Self {
        let closing = future::pending().boxed().shared();
        Self { cache: Arc::new(Watched::new(cache)), leases: ASK_EVERY_TIME, closing }
    }

    /// Lets hosts give a hit again for so long without asking; zero: not at all. A key that is asked for often then costs
    /// next to nothing, and what *another* host stores or removes is seen so much later: `Hit.max_age` in the contract.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.leases = Leases((!max_age.is_zero()).then_some(max_age));
        self
    }

    /// Ends the streams of batches once this is done, after the answers to those that have come: hosts keep them open, and a
    /// plugin that is to end would wait for them. For one made with `plugin-sdk`, its `Closing`.
    #[must_use]
    pub fn until(mut self, closing: impl Future<Output = ()> + Send + 'static) -> Self {
        self.closing = closing.boxed().shared();
        self
    }
}

#[tonic::async_trait]
impl<C: Cache> crate::cache_server::Cache for CacheService<C> {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = check_key(request.into_inner().key)?;
        let result = self.cache.cache.get(&key).await.map_err(failure);
        self.cache.lookups.note(result.as_ref().err());
        Ok(Response::new(self.leases.respond(result?)))
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let result = self.cache.cache.set(check_entry(request.into_inner())?).await.map_err(failure);
        self.cache.stores.note(result.as_ref().err());
        result.map(|()| Response::new(SetResponse {}))
    }

    async fn get_many(&self, request: Request<GetManyRequest>) -> Result<Response<GetManyResponse>, Status> {
        let keys = check_all("keys", request.into_inner().keys, check_key)?;
        let LookedUp { responses, failures } = look_up(&self.cache, self.leases, &keys).await;
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(Response::new(GetManyResponse { results: responses })),
        }
    }

    async fn set_many(&self, request: Request<SetManyRequest>) -> Result<Response<SetManyResponse>, Status> {
        let entries = check_all("entries", request.into_inner().entries, check_entry)?;
        match store(&self.cache, entries).await.into_iter().next() {
            Some((_, failure)) => Err(failure),
            None => Ok(Response::new(SetManyResponse {})),
        }
    }

    type PipeStream = Pin<Box<dyn Stream<Item = Result<PipeResponse, Status>> + Send>>;

    async fn pipe(
        &self,
        requests: Request<Streaming<PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        let requests = all_come_until(self.closing.clone(), requests.into_inner());
        let answers = pipe(Arc::clone(&self.cache), self.leases, requests);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let keys = check_all("keys", request.into_inner().keys, check_key)?;
        let result = self.cache.cache.delete(&keys).await.map_err(failure);
        self.cache.note_removal(result.as_ref().err());
        result.map(|removed| Response::new(DeleteResponse { removed }))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        let result = self.cache.cache.flush().await.map_err(failure);
        self.cache.note_removal(result.as_ref().err());
        result.map(|()| Response::new(FlushResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        self.cache.cache.stats().await.map(Response::new).map_err(failure)
    }
}

impl<C> Watched<C> {
    fn new(cache: C) -> Self {
        let [lookups, stores, removals] = ["lookups", "stores", "removals"].map(Trouble::none);
        Self { cache, lookups, stores, removals }
    }

    /// A cache that cannot remove says so each time, and is well.
    fn note_removal(&self, failure: Option<&Status>) {
        self.removals.note(failure.filter(|failure| failure.code() != Code::Unimplemented));
    }
}

/// The results if there are as many as there should be. If not, nobody can say whose they are.
fn one_for_each<T>(results: Vec<Result<T, Status>>, count: usize) -> Vec<Result<T, Status>> {
    if results.len() == count {
        return results;
    }
    let miscount = Status::internal(format!("the cache gives {} results for {count}", results.len()));
    (0..count).map(|_| Err(miscount.clone())).collect()
}

/// What a call has failed with, which cannot be OK.
fn failure(status: Status) -> Status {
    if status.code() == Code::Ok { Status::unknown("the cache failed with OK") } else { status }
}

impl Leases {
    fn respond(self, lookup: Lookup) -> GetResponse {
        let outcome = match lookup {
            Lookup::Hit { value, remaining } => {
                let max_age = self.0.map(|most| remaining.map_or(most, |remaining| most.min(remaining)));
                Outcome::Hit(Hit {
                    value,
                    ttl_remaining: remaining.map(to_proto),
                    max_age: max_age.map(to_proto),
                })
            }
            Lookup::Miss(reason) => miss(reason),
        };
        GetResponse { outcome: Some(outcome) }
    }
}

fn miss(reason: MissReason) -> Outcome {
    Outcome::Miss(Miss { reason: reason.into() })
}

/// Ends once `closing` is done, after what has come by then. (`take_until` looks at the end first.)
fn all_come_until<T>(
    mut closing: impl Future<Output = ()> + Unpin,
    mut requests: impl Stream<Item = T> + Unpin,
) -> impl Stream<Item = T> {
    let requests = stream::poll_fn(move |cx| match requests.poll_next_unpin(cx) {
        Poll::Pending => closing.poll_unpin(cx).map(|()| None),
        come => come,
    });
    requests.fuse()
}

/// Answers batches as each is done. Ends after the last answer once there are no more requests, or with the first error.
fn pipe<C: Cache>(
    cache: Arc<Watched<C>>,
    leases: Leases,
    requests: impl Stream<Item = Result<PipeRequest, Status>> + Send,
) -> impl Stream<Item = Result<PipeResponse, Status>> + Send {
    let answer = move |request| {
        let cache = Arc::clone(&cache);
        async move { answer(&cache, leases, request?).await }
    };
    requests.map(answer).buffer_unordered(BATCHES_AT_A_TIME)
}

async fn answer<C: Cache>(
    cache: &Watched<C>,
    leases: Leases,
    request: PipeRequest,
) -> Result<PipeResponse, Status> {
    let PipeRequest { batch, gets, sets } = request;
    check_batch("batch", gets.len() + sets.len())?;
    let (gets, set_errors) = future::join(look_up_each(cache, leases, gets), store_each(cache, sets)).await;
    Ok(PipeResponse { batch, gets, set_errors })
}

/// Looks up the keys of several callers: a wrong one, or one that fails, is no fault of the others. Nothing if all fail.
async fn look_up_each<C: Cache>(
    cache: &Watched<C>,
    leases: Leases,
    mut keys: Vec<String>,
) -> Vec<GetResponse> {
    let count = keys.len();
    let is_wrong = |key: &String| !is_key(key);
    let wrong: Vec<usize> =
        keys.iter().enumerate().filter(|(_, key)| is_wrong(key)).map(|(index, _)| index).collect();
    if !wrong.is_empty() {
        keys.retain(|key| !is_wrong(key));
    }
    if keys.is_empty() {
        return vec![NEITHER; count];
    }
    let LookedUp { responses, failures } = look_up(cache, leases, &keys).await;
    if failures.len() == keys.len() {
        return Vec::new();
    }
    if wrong.is_empty() {
        return responses;
    }
    let (mut wrong, mut responses) = (wrong.into_iter().peekable(), responses.into_iter());
    let response = |place| match wrong.next_if_eq(&place) {
        Some(_) => NEITHER,
        None => responses.next().unwrap_or(NEITHER),
    };
    (0..count).map(response).collect()
}

/// What has become of lookups.
struct LookedUp {
    /// One for each key, within the size of an answer.
    responses: Vec<GetResponse>,
    /// Of the keys of which the response says nothing.
    failures: Vec<Status>,
}

async fn look_up<C: Cache>(cache: &Watched<C>, leases: Leases, keys: &[String]) -> LookedUp {
    let lookups = unless_it_panics(cache.cache.get_many(keys), || vec![Err(panicked()); keys.len()]).await;
    let lookups = one_for_each(lookups, keys.len());
    let (mut room, mut failures) = (MAX_HIT_BYTES, Vec::new());
    let respond = |lookup| match lookup {
        Ok(lookup) => within(&mut room, leases.respond(lookup)),
        Err(status) => {
            failures.push(failure(status));
            NEITHER
        }
    };
    let responses = lookups.into_iter().map(respond).collect();
    cache.lookups.note(failures.first());
    LookedUp { responses, failures }
}

/// Stores entries, and gives the places of those that have failed, and why.
async fn store<C: Cache>(cache: &Watched<C>, entries: Vec<Entry>) -> Vec<(usize, Status)> {
    let count = entries.len();
    let results = unless_it_panics(cache.cache.set_many(entries), || vec![Err(panicked()); count]).await;
    let results = one_for_each(results, count).into_iter().enumerate();
    let failed = |(place, result): (usize, Result<(), Status>)| Some((place, failure(result.err()?)));
    let failures: Vec<_> = results.filter_map(failed).collect();
    cache.stores.note(failures.first().map(|(_, status)| status));
    failures
}

/// Stores the entries of several callers, and gives what went wrong.
async fn store_each<C: Cache>(cache: &Watched<C>, requests: Vec<SetRequest>) -> Vec<SetError> {
    let mut errors = Vec::new();
    let mut room = MAX_ERROR_TEXT_BYTES;
    let mut fail = |index: usize, status: &Status| {
        let message = match room.checked_sub(status.message().len()) {
            Some(left) => {
                room = left;
                status.message().to_owned()
            }
            None => String::new(),
        };
        // A batch is checked to have far less entries than a u32 can count.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        errors.push(SetError { index, code: status.code().into(), message });
    };
    let (mut entries, mut indices) = (Vec::with_capacity(requests.len()), Vec::with_capacity(requests.len()));
    for (index, request) in requests.into_iter().enumerate() {
        match check_entry(request) {
            Ok(entry) => {
                entries.push(entry);
                indices.push(index);
            }
            Err(error) => fail(index, &error.into()),
        }
    }
    if entries.is_empty() {
        return errors;
    }
    for (place, status) in store(cache, entries).await {
        fail(indices[place], &status);
    }
    errors
}

/// Gives a response of a batch as it is if it is a miss or there is still `room` for the hit, and a miss if not.
fn within(room: &mut usize, response: GetResponse) -> GetResponse {
    if let Some(Outcome::Miss(_)) | None = response.outcome {
        return response;
    }
    match room.checked_sub(response.encoded_len()) {
        Some(left) => {
            *room = left;
            response
        }
        None => GetResponse { outcome: Some(miss(MissReason::Unspecified)) },
    }
}

fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        // Entries that others have stored may have more left.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(MAX_SECONDS).min(MAX_SECONDS),
        // Less than a thousand million.
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

#[cfg(test)]
mod tests;
