//! A batch from those who ask to those who are answered, with no plugin and no driver in between: for
//! `cargo xtask bench --instructions`, which counts what it costs.

use cache_proto::{GetResponse, Hit, PipeRequest, PipeResponse, get_response::Outcome};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    batch::{Call, Get, Gets, Reply},
    flying::{Batch, Flying},
};

/// Lookups that come together. To be flown once.
#[derive(Debug)]
pub struct Round {
    keys: Vec<String>,
    answers: Vec<GetResponse>,
    queue: (mpsc::Sender<Get>, mpsc::Receiver<Get>),
    waiting: Vec<Get>,
    flying: Flying,
    now: Instant,
}

impl Round {
    /// So many lookups, at least one, each of a key of its own. The plugin has the same value for all of them.
    pub fn of(lookups: usize) -> Self {
        let hit = Hit { value: "12200160415121876738".into(), ..Hit::default() };
        Self {
            keys: (0..lookups).map(|n| n.to_string()).collect(),
            answers: vec![GetResponse { outcome: Some(Outcome::Hit(hit)) }; lookups],
            queue: mpsc::channel(lookups),
            waiting: Vec::with_capacity(lookups),
            flying: Flying::default(),
            now: Instant::now(),
        }
    }

    /// All queue up and leave as one, the answer comes, and each takes its own. Gives the message that the plugin would get,
    /// and how many were answered.
    pub fn fly(&mut self) -> (PipeRequest, usize) {
        let (queue, calls) = &mut self.queue;
        let waiting: Vec<_> = std::mem::take(&mut self.keys)
            .into_iter()
            .filter_map(|request| {
                let (reply, answer) = oneshot::channel();
                queue.try_send(Call { request, reply }).ok().map(|()| answer)
            })
            .collect();
        while let Ok(call) = calls.try_recv() {
            self.waiting.push(call);
        }
        let gets = Gets::gather(&mut self.waiting);
        let keys = gets.keys().to_vec();
        let batch = self.flying.depart(Batch::Gets(gets), self.now);
        let answers = std::mem::take(&mut self.answers);
        self.flying.land(PipeResponse { batch, gets: answers, set_errors: Vec::new() });
        let answered = waiting.into_iter().filter_map(|mut answer| answer.try_recv().ok());
        let answered = answered.filter(|reply| matches!(reply, Reply::Answered(_))).count();
        (PipeRequest { batch, gets: keys, sets: Vec::new() }, answered)
    }
}
