//! The stream of batches, and what can go wrong there.

use std::process::exit;

use cache_proto::get_response::Outcome;
use cache_proto::{GetResponse, Hit, PipeRequest, PipeResponse};
use plugin_rogue::{Answers, Code, Messages};
use prost::Message;

use crate::cache::{Cache, read};

/// What is wrong on a stream. What ends it, does so in the middle: two batches have been answered, and another has not. Two, so
/// that a client alone has a hit at last: with one, that might be its store each time, and what ends the stream its lookup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PipeFault {
    /// Nothing.
    None,
    /// Answers have the number of no batch.
    WrongNumber,
    /// One result less than there are keys.
    TooFew,
    /// One more.
    TooMany,
    /// Each batch is answered twice.
    Twice,
    /// None is answered.
    Silent,
    /// The stream ends with OK.
    Ends,
    /// The stream ends with INTERNAL.
    Fails,
    /// An answer of 5 MiB, which is more than a message may have.
    Huge,
    /// Exit status 9.
    Exits,
}

impl PipeFault {
    /// Reads the name of one; no name is no fault.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::None,
            "wrong-number" => Self::WrongNumber,
            "too-few" => Self::TooFew,
            "too-many" => Self::TooMany,
            "twice" => Self::Twice,
            "silent" => Self::Silent,
            "ends" => Self::Ends,
            "fails" => Self::Fails,
            "huge" => Self::Huge,
            "exits" => Self::Exits,
            _ => return None,
        })
    }
}

/// Serves one stream.
pub(crate) async fn serve(
    cache: &Cache,
    fault: PipeFault,
    mut messages: Messages,
    answers: Answers,
) -> Result<(), Code> {
    let mut answered = 0_u64;
    while let Some(message) = messages.next().await {
        let mut answer = answer(cache, read(&message)?);
        let is_in_the_middle = answered >= 2;
        answered += 1;
        match fault {
            PipeFault::WrongNumber => answer.batch += 1_000_000,
            PipeFault::TooFew => _ = answer.gets.pop(),
            PipeFault::TooMany => answer.gets.push(GetResponse::default()),
            PipeFault::Twice => answers.send(&answer.encode_to_vec()).await,
            PipeFault::Silent => continue,
            PipeFault::Ends if is_in_the_middle => return Ok(()),
            PipeFault::Fails if is_in_the_middle => return Err(Code::INTERNAL),
            PipeFault::Huge if is_in_the_middle => answer.gets = vec![huge()],
            PipeFault::Exits if is_in_the_middle => exit(9),
            _ => {}
        }
        answers.send(&answer.encode_to_vec()).await;
    }
    Ok(())
}

/// The right answer.
fn answer(cache: &Cache, request: PipeRequest) -> PipeResponse {
    let PipeRequest { batch, gets, sets } = request;
    cache.store(sets);
    let gets = gets.iter().map(|key| cache.look_up(key)).collect();
    PipeResponse { batch, gets, set_errors: Vec::new() }
}

fn huge() -> GetResponse {
    let hit = Hit { value: vec![b'7'; 5 << 20].into(), ..Hit::default() };
    GetResponse { outcome: Some(Outcome::Hit(hit)) }
}
