//! The line to the cache plugin, of which batches and their flights are the server's own. The driver is as short as it can be and
//! still do what the server's does: two batches at a time, what comes meanwhile leaves with the next one, and what is not
//! taken by the plugin is given back.

use cache_proto::{GetResponse, PipeResponse};
use fib_server::cache::Unavailable;
use real_tokio::{
    select,
    sync::{mpsc, oneshot},
};
use shuttle::future::{spawn, yield_now};

use self::{
    batch::{Call, Get, Gets, Reply},
    flying::{Batch, Calls, Flying},
};

#[allow(dead_code, reason = "stores are not modelled: they have no keys to share and no order to lose")]
#[path = "../../../server/src/cache/line/batch.rs"]
mod batch;
#[allow(dead_code, reason = "nor is time")]
#[path = "../../../server/src/cache/line/flying.rs"]
mod flying;

/// Batches under way at a time.
const BATCHES: usize = 2;

/// Calls taken from the queue for one batch.
const BATCH: usize = 3;

/// What becomes of a lookup.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// What the plugin said.
    Answered(GetResponse),
    /// There is none, for this reason.
    Unavailable(Unavailable),
    /// The plugin takes single calls only.
    CallAlone,
}

/// What the plugin is sent.
#[derive(Debug)]
pub struct Request {
    /// The number of the batch.
    pub batch: u64,
    /// What to look up.
    pub keys: Vec<String>,
}

/// What the plugin does.
#[derive(Debug)]
pub enum Event {
    /// It answers a batch.
    Answer(PipeResponse),
    /// It says that it has no batches.
    Unimplemented,
}

/// For lookups. The driver ends with the last clone.
#[derive(Clone, Debug)]
pub struct Line(mpsc::Sender<Get>);

impl Line {
    /// A line with room for so many lookups that wait, and the plugin's end of it: what it is sent and what it says. It breaks
    /// when that is dropped.
    pub fn new(room: usize) -> (Self, mpsc::UnboundedReceiver<Request>, mpsc::UnboundedSender<Event>) {
        let (gets, queue) = mpsc::channel(room);
        let (requests, incoming) = mpsc::unbounded_channel();
        let (says, events) = mpsc::unbounded_channel();
        spawn(drive(queue, requests, events));
        (Self(gets), incoming, says)
    }

    /// Looks a key up.
    pub async fn get(&self, key: &str) -> Answer {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Call { request: key.to_owned(), reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Answer::Unavailable(Unavailable::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return Answer::Unavailable(Unavailable::Down),
        }
        match answer.await {
            Ok(Reply::Answered(response)) => Answer::Answered(response),
            Ok(Reply::Unavailable(why)) => Answer::Unavailable(why),
            Ok(Reply::CallAlone(request)) if request == key => Answer::CallAlone,
            other => panic!("the lookup of {key} is lost: {other:?}"),
        }
    }
}

async fn drive(
    mut queue: mpsc::Receiver<Get>,
    requests: mpsc::UnboundedSender<Request>,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    let (mut waiting, mut flying, mut takes_batches) = (Calls::default(), Flying::default(), true);
    loop {
        if !takes_batches {
            waiting.gets.drain(..).for_each(Call::call_alone);
        } else if !waiting.gets.is_empty() && flying.gets() < BATCHES {
            let gets = Gets::gather(&mut waiting.gets);
            if !gets.is_empty() {
                let keys = gets.keys().to_vec();
                let batch = flying.depart(Batch::Gets(gets), real_tokio::time::Instant::now());
                // If the plugin is gone, so are its events.
                let _gone = requests.send(Request { batch, keys });
            }
        }
        let may_leave = flying.gets() < BATCHES;
        select! {
            biased;
            event = events.recv() => match event {
                Some(Event::Answer(response)) => _ = flying.land(response),
                Some(Event::Unimplemented) => {
                    waiting.put_back(flying.take_back());
                    takes_batches = false;
                }
                None => break,
            },
            received = queue.recv_many(&mut waiting.gets, BATCH), if may_leave => {
                if received == 0 {
                    break;
                }
                yield_now().await;
                while waiting.gets.len() < BATCH && let Ok(call) = queue.try_recv() {
                    waiting.gets.push(call);
                }
            }
        }
    }
    flying.fail(Unavailable::Failed(tonic::Code::Unavailable));
    queue.close();
    while let Ok(call) = queue.try_recv() {
        call.fail(Unavailable::Down);
    }
    waiting.fail(Unavailable::Down);
}
