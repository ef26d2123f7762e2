//! The Cache service, and what it can get wrong.

use std::collections::HashMap;
use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cache_proto::get_response::Outcome;
use cache_proto::{GetRequest, GetResponse, Hit, Miss, MissReason, SetRequest, SetResponse};
use cache_proto::{StatsRequest, StatsResponse};
use plugin_rogue::{Code, Methods};
use prost::Message;

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
    /// Exit status 9 instead of an answer, after so many calls of Get and Set.
    DieAfter(usize),
}

impl Fault {
    /// Reads `name` or `name=value`, if it is the name of one.
    pub(crate) fn parse(argument: &str) -> Option<Self> {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        Some(match name {
            "corrupt-values" => Self::CorruptValues,
            "slow" => Self::Slow(Duration::from_millis(value.parse().ok()?)),
            "error-on-get" => Self::ErrorOnGet,
            "unimplemented" => Self::Unimplemented,
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
    async fn call(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Code> {
        match path {
            "/cache.v1.Cache/Get" => self.get(read(message)?).await,
            "/cache.v1.Cache/Set" => self.set(read(message)?),
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
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.fault {
            Some(Fault::CorruptValues) => Some(Bytes::from_static(b"forty-two")),
            _ => entries.get(&request.key).cloned(),
        };
        let outcome = match found {
            Some(value) => Outcome::Hit(Hit { value, ttl_remaining: None }),
            None => Outcome::Miss(Miss { reason: MissReason::NotFound.into() }),
        };
        Ok(GetResponse { outcome: Some(outcome) }.encode_to_vec())
    }

    fn set(&self, request: SetRequest) -> Result<Vec<u8>, Code> {
        self.count_call();
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(request.key, request.value);
        Ok(SetResponse {}.encode_to_vec())
    }

    fn stats(&self, _request: StatsRequest) -> Result<Vec<u8>, Code> {
        if self.fault == Some(Fault::Unimplemented) {
            return Err(Code::UNIMPLEMENTED);
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).len();
        Ok(StatsResponse { entries: entries as u64, ..StatsResponse::default() }.encode_to_vec())
    }

    fn count_call(&self) {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if matches!(self.fault, Some(Fault::DieAfter(limit)) if calls > limit) {
            exit(9);
        }
    }
}

fn read<M: Message + Default>(message: &[u8]) -> Result<M, Code> {
    M::decode(message).map_err(|_| Code::INVALID_ARGUMENT)
}
