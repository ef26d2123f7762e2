//! The Cache service, and what it can get wrong.

use std::collections::HashMap;
use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cache_proto::get_response::Outcome;
use cache_proto::{GetManyRequest, GetManyResponse, SetManyRequest, SetManyResponse};
use cache_proto::{GetRequest, GetResponse, Hit, Miss, MissReason, SetRequest, SetResponse};
use cache_proto::{StatsRequest, StatsResponse};
use plugin_rogue::{Answers, Code, Messages, Methods};
use prost::Message;

use crate::pipe::{self, PipeFault};

/// What a cache does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Each key has a value that is not a number.
    CorruptValues,
    /// Each Get takes so long.
    Slow(Duration),
    /// Each Get fails with INTERNAL.
    ErrorOnGet,
    /// Get and Set only.
    Unimplemented,
    /// GetMany and SetMany too, and no Pipe.
    Many,
    /// Pipe too, and what is wrong there.
    Pipe(PipeFault),
    /// Each hit may be given again for so many seconds and nanoseconds, whatever they are.
    MaxAge(i64, i32),
    /// Exit status 9 instead of an answer, after so many calls of Get and Set.
    DieAfter(usize),
}

impl Fault {
    /// Reads `name` or `name=value`, if it is the name of one. A duration is `1s999`, in seconds and nanoseconds.
    pub(crate) fn parse(argument: &str) -> Option<Self> {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        Some(match name {
            "corrupt-values" => Self::CorruptValues,
            "slow" => Self::Slow(Duration::from_millis(value.parse().ok()?)),
            "error-on-get" => Self::ErrorOnGet,
            "unimplemented" => Self::Unimplemented,
            "many" => Self::Many,
            "max-age" => {
                let (seconds, nanos) = value.split_once('s')?;
                Self::MaxAge(seconds.parse().ok()?, nanos.parse().ok()?)
            }
            "pipe" => Self::Pipe(PipeFault::parse(value)?),
            "die-after" => Self::DieAfter(value.parse().ok()?),
            _ => return None,
        })
    }
}

/// A cache without limits.
#[derive(Debug)]
pub(crate) struct Cache {
    fault: Option<Fault>,
    calls: AtomicUsize,
    entries: Mutex<HashMap<String, Bytes>>,
}

impl Methods for Cache {
    fn has(&self, path: &str) -> bool {
        match path {
            "/cache.v1.Cache/Get" | "/cache.v1.Cache/Set" => true,
            "/cache.v1.Cache/Stats" => self.fault != Some(Fault::Unimplemented),
            "/cache.v1.Cache/GetMany" | "/cache.v1.Cache/SetMany" => self.fault == Some(Fault::Many),
            PIPE => matches!(self.fault, Some(Fault::Pipe(_))),
            _ => false,
        }
    }

    fn is_stream(&self, path: &str) -> bool {
        path == PIPE
    }

    async fn stream(&self, _path: &str, messages: Messages, answers: Answers) -> Result<(), Code> {
        let Some(Fault::Pipe(fault)) = self.fault else { return Err(Code::UNIMPLEMENTED) };
        pipe::serve(self, fault, messages, answers).await
    }

    async fn call(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Code> {
        match path {
            "/cache.v1.Cache/Get" => self.get(read(message)?).await,
            "/cache.v1.Cache/Set" => self.set(read(message)?),
            "/cache.v1.Cache/GetMany" => self.get_many(read(message)?),
            "/cache.v1.Cache/SetMany" => self.set_many(read(message)?),
            "/cache.v1.Cache/Stats" => self.stats(read(message)?),
            _ => Err(Code::UNIMPLEMENTED),
        }
    }
}

impl Cache {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { fault, calls: AtomicUsize::new(0), entries: Mutex::default() }
    }

    async fn get(&self, request: GetRequest) -> Result<Vec<u8>, Code> {
        self.count_call();
        match self.fault {
            Some(Fault::ErrorOnGet) => return Err(Code::INTERNAL),
            Some(Fault::Slow(duration)) => tokio::time::sleep(duration).await,
            _ => {}
        }
        Ok(self.look_up(&request.key).encode_to_vec())
    }

    pub(crate) fn look_up(&self, key: &str) -> GetResponse {
        let found = match self.fault {
            Some(Fault::CorruptValues) => Some(Bytes::from_static(b"forty-two")),
            _ => self.entries().get(key).cloned(),
        };
        let max_age = match self.fault {
            Some(Fault::MaxAge(seconds, nanos)) => Some(prost_types::Duration { seconds, nanos }),
            _ => None,
        };
        let outcome = match found {
            Some(value) => Outcome::Hit(Hit { value, ttl_remaining: None, max_age }),
            None => Outcome::Miss(Miss { reason: MissReason::NotFound.into() }),
        };
        GetResponse { outcome: Some(outcome) }
    }

    fn get_many(&self, request: GetManyRequest) -> Result<Vec<u8>, Code> {
        let results = request.keys.iter().map(|key| self.look_up(key)).collect();
        Ok(GetManyResponse { results }.encode_to_vec())
    }

    fn set_many(&self, request: SetManyRequest) -> Result<Vec<u8>, Code> {
        self.store(request.entries);
        Ok(SetManyResponse {}.encode_to_vec())
    }

    pub(crate) fn store(&self, entries: Vec<SetRequest>) {
        self.entries().extend(entries.into_iter().map(|entry| (entry.key, entry.value)));
    }

    fn set(&self, request: SetRequest) -> Result<Vec<u8>, Code> {
        self.count_call();
        self.entries().insert(request.key, request.value);
        Ok(SetResponse {}.encode_to_vec())
    }

    fn stats(&self, _request: StatsRequest) -> Result<Vec<u8>, Code> {
        let entries = self.entries().len();
        Ok(StatsResponse { entries: entries as u64, ..StatsResponse::default() }.encode_to_vec())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Bytes>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_call(&self) {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if matches!(self.fault, Some(Fault::DieAfter(limit)) if calls > limit) {
            exit(9);
        }
    }
}

/// The method that streams.
const PIPE: &str = "/cache.v1.Cache/Pipe";

pub(crate) fn read<M: Message + Default>(message: &[u8]) -> Result<M, Code> {
    M::decode(message).map_err(|_| Code::INVALID_ARGUMENT)
}
