//! What a plugin says of calls that it has failed, for the log. Most faults last, and come with each request: they are told
//! when they begin, and again once they have been away for a while.

use std::sync::{Mutex, PoisonError};

use plugin_sdk::host::CallError;
use tokio::time::{Duration, Instant};
use tonic::{Code, Status};
use tracing::{field::display, warn};

use super::Unavailable;
use crate::text::excerpt;

/// A fault that was not there for so long is news.
const QUIET: Duration = Duration::from_secs(60);

/// The most characters of a plugin's words that the log has.
const SAID_CHARACTERS: usize = 300;

/// The most characters of a value that the log has.
const VALUE_CHARACTERS: usize = 40;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    Lookups,
    Stores,
    Stream,
}

/// The faults that there were. Locked for a comparison or two, by calls that have failed.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

/// One for each code, of which there are a few.
#[derive(Debug)]
struct Fault {
    failing: Failing,
    code: Code,
    /// The newest instance that had it.
    instance: Option<u64>,
    last: Instant,
}

impl Faults {
    /// Logs what this instance of the plugin has said of what it fails at, if that is news.
    pub(super) fn tell(&self, failing: Failing, instance: Option<u64>, code: Code, said: &str, now: Instant) {
        if !self.is_news(failing, instance, code, now) {
            return;
        }
        let said = display(excerpt(said, SAID_CHARACTERS));
        match failing {
            Failing::Lookups => warn!(?code, said, "the cache plugin fails to look up"),
            Failing::Stores => warn!(?code, said, "the cache plugin fails to store"),
            Failing::Stream => warn!(?code, said, "the cache plugin has ended its stream with an error"),
        }
    }

    /// The same of a status, unless it is the host's own, or that of a time that is over.
    pub(super) fn tell_status(&self, failing: Failing, instance: Option<u64>, status: &Status, now: Instant) {
        if CallError::of(status).is_none() && Unavailable::from(status) != Unavailable::TimedOut {
            self.tell(failing, instance, status.code(), status.message(), now);
        }
    }

    /// Logs that this instance has failed lookups without a word, as the contract has it for a batch, if that is news.
    pub(super) fn tell_wordless(&self, instance: Option<u64>, now: Instant) {
        if self.is_news(Failing::Lookups, instance, Code::Internal, now) {
            warn!("the cache plugin fails to look up");
        }
    }

    /// Logs that this instance has ended its stream in good order, but not answered all that was on it, if that is news.
    pub(super) fn tell_cut(&self, instance: Option<u64>, now: Instant) {
        if self.is_news(Failing::Stream, instance, Code::Ok, now) {
            warn!("the cache plugin has ended its stream before it has answered all that was on it");
        }
    }

    /// Logs that this instance has given a value that is not a number, if that is news. Answers are right all the same, so
    /// that nothing else tells of it.
    pub(super) fn tell_corrupt(&self, instance: Option<u64>, key: &str, value: &[u8], now: Instant) {
        if self.is_news(Failing::Lookups, instance, Code::DataLoss, now) {
            let text = String::from_utf8_lossy(value);
            let value = display(excerpt(&text, VALUE_CHARACTERS));
            warn!(key, value, "the cache plugin gives a value that is not a number; it counts as a miss");
        }
    }

    /// Logs that this instance answers no lookups, if that is news.
    pub(super) fn tell_hung(&self, instance: Option<u64>, now: Instant) {
        if self.is_news(Failing::Lookups, instance, Code::DeadlineExceeded, now) {
            warn!("the cache plugin does not answer; it is asked once a second until it does");
        }
    }

    /// Logs that this instance has not answered stores in time, if that is news.
    pub(super) fn tell_stuck(&self, instance: Option<u64>, now: Instant) {
        if self.is_news(Failing::Stores, instance, Code::DeadlineExceeded, now) {
            warn!(
                "the cache plugin does not answer a store; no more is stored until it has, for 10 s at most"
            );
        }
    }

    fn is_news(&self, failing: Failing, instance: Option<u64>, code: Code, now: Instant) -> bool {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = faults.iter_mut().find(|fault| fault.failing == failing && fault.code == code)
        else {
            faults.push(Fault { failing, code, instance, last: now });
            return true;
        };
        // One that is on its way out may still fail with the new one.
        let is_news = instance > fault.instance || fault.last + QUIET <= now;
        (fault.instance, fault.last) = (fault.instance.max(instance), now);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_news_when_it_begins_and_when_it_is_another_instances() {
        let (faults, now) = (Faults::default(), Instant::now());
        let is_news = |failing, instance, code, seconds| {
            faults.is_news(failing, Some(instance), code, now + Duration::from_secs(seconds))
        };
        for (failing, instance, code, seconds, expected) in [
            (Failing::Stores, 1, Code::Internal, 0, true),
            (Failing::Stores, 1, Code::Internal, 59, false),
            (Failing::Stores, 1, Code::Internal, 118, false),
            (Failing::Lookups, 1, Code::Internal, 118, true),
            (Failing::Stores, 1, Code::DataLoss, 118, true),
            (Failing::Stores, 1, Code::Internal, 178, true),
            (Failing::Stores, 2, Code::Internal, 179, true),
            (Failing::Stores, 1, Code::Internal, 180, false),
            (Failing::Stores, 2, Code::Internal, 181, false),
        ] {
            assert_eq!(is_news(failing, instance, code, seconds), expected, "{failing:?} {code:?} {seconds}");
        }
    }
}
