//! Several clients that ask without a pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::http;

/// Clients at work until [`Load::stop`].
pub struct Load {
    stopping: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Lets `clients` clients ask for small numbers, each with one request after the other.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let (stopping, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..clients)
            .map(|client| {
                let (stopping, answered) = (Arc::clone(&stopping), Arc::clone(&answered));
                thread::spawn(move || work(address, client, &stopping, &answered))
            })
            .collect();
        Self { stopping, answered, clients }
    }

    /// How many requests have been answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the work and gives what went wrong: each answer that was not 200, or not there.
    pub fn stop(self) -> Vec<String> {
        self.stopping.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("clients do not panic")).collect()
    }
}

fn work(address: SocketAddr, client: usize, stopping: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    for round in 0.. {
        if stopping.load(Ordering::Relaxed) {
            break;
        }
        let target = format!("/fib/{}", (client + round) % 20);
        match http::send(address, "GET", &target) {
            Ok(response) if response.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(response) => wrong.push(format!("{target}: {} {}", response.status, response.text())),
            Err(error) => wrong.push(format!("{target}: {error}")),
        }
    }
    wrong
}
