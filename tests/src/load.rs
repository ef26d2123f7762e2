//! Several clients that ask without a pause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::{Connection, Response};

/// Clients at work until [`Load::stop`].
pub struct Load {
    stopping: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Report>>,
}

/// What clients have seen.
#[derive(Default)]
pub struct Report {
    /// What went wrong: each answer that was not 200 or not the number, or not there.
    pub wrong: Vec<String>,
    /// All other answers.
    pub answers: Vec<Answer>,
}

/// An answer with status 200 and the number that was asked for.
#[derive(Clone, Copy)]
pub struct Answer {
    /// When its request began to be sent.
    pub asked: Instant,
    /// How long it took.
    pub took: Duration,
    /// Whether the number came from the cache.
    pub hit: bool,
}

impl Load {
    /// Lets `clients` clients ask for small numbers, each with one request after the other on one connection.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let (stopping, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..clients)
            .map(|client| {
                let (stopping, answered) = (Arc::clone(&stopping), Arc::clone(&answered));
                thread::spawn(move || {
                    let mut report = Report::default();
                    if let Err(error) = work(address, client, &stopping, &answered, &mut report) {
                        report.wrong.push(format!("the connection of client {client}: {error}"));
                    }
                    report
                })
            })
            .collect();
        Self { stopping, answered, clients }
    }

    /// How many requests have been answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the work and tells of it.
    pub fn stop(self) -> Report {
        self.stopping.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let report = client.join().expect("clients do not panic");
            all.wrong.extend(report.wrong);
            all.answers.extend(report.answers);
        }
        all
    }
}

impl Report {
    /// Expects that nothing went wrong, and something right.
    #[track_caller]
    pub fn is_flawless(&self) -> &Self {
        assert_eq!(self.wrong, Vec::<String>::new());
        assert!(!self.answers.is_empty(), "nothing was answered");
        self
    }

    /// The first answer from the cache to a request that was sent after `moment`: when it was there.
    pub fn first_hit_after(&self, moment: Instant) -> Option<Instant> {
        let hits = self.answers.iter().filter(|answer| answer.hit && answer.asked > moment);
        hits.map(|answer| answer.asked + answer.took).min()
    }

    /// What was asked, and answered, between these moments.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let within = |answer: &&Answer| answer.asked >= from && answer.asked + answer.took <= to;
        Self { wrong: Vec::new(), answers: self.answers.iter().filter(within).copied().collect() }
    }

    /// The time within which this part of the answers was there: 0.99 for all but each hundredth.
    ///
    /// # Panics
    /// There is no answer.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut times: Vec<_> = self.answers.iter().map(|answer| answer.took).collect();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let place = (times.len() as f64 * part) as usize;
        times[place.min(times.len() - 1)]
    }
}

/// One client, up to the first fault of its connection.
fn work(
    address: SocketAddr,
    client: usize,
    stopping: &AtomicBool,
    answered: &AtomicUsize,
    report: &mut Report,
) -> io::Result<()> {
    let mut connection = Connection::open(address)?;
    for round in 0.. {
        if stopping.load(Ordering::Relaxed) {
            break;
        }
        let n = (client + round) % NUMBERS.len();
        let asked = Instant::now();
        let response = connection.get(&format!("/fib/{n}"))?;
        let took = asked.elapsed();
        if is_right(&response, NUMBERS[n]) {
            let hit = response.cache_status().starts_with("fib; hit");
            report.answers.push(Answer { asked, took, hit });
            answered.fetch_add(1, Ordering::Relaxed);
        } else {
            report.wrong.push(format!("/fib/{n}: {} {}", response.status, response.text()));
        }
    }
    Ok(())
}

fn is_right(response: &Response, number: u32) -> bool {
    response.status == 200 && response.body == format!("{{\"result\":{number}}}\n").as_bytes()
}

/// What is asked for.
const NUMBERS: [u32; 20] =
    [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181];
