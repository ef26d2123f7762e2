//! What happens once: a start, a herd, a client that leaves, a plugin that dies. Each with servers of its own.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::load::{self, Clients, Keys};
use crate::rate::in_turn;
use crate::row::{Row, Running};
use crate::spread::Spread;
use crate::started::{PATIENCE, kill};
use crate::{Failure, stop};

/// What a row did in its moments; `None` where there is nothing to measure.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) row: Row,
    /// From the start of the process to the first answer, in milliseconds.
    pub(crate) first_answer_ms: Option<Spread>,
    /// From the start of the process to the first answer out of the cache, in milliseconds.
    pub(crate) first_hit_ms: Option<Spread>,
    /// Memory of each process once warm and idle, in MiB, the server's first.
    pub(crate) resident_mib: Vec<f64>,
    /// Processor time in seconds for 64 clients that ask for one number at once.
    pub(crate) herd_cpu_s: f64,
    /// How long the last of them waited, in seconds.
    pub(crate) herd_s: f64,
    /// Processor time in seconds after the client has left.
    pub(crate) abandoned_cpu_s: f64,
    /// What happened after SIGKILL for the plugin, under load.
    pub(crate) killed: Option<Recovery>,
}

/// How a server came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Recovery {
    /// Nine tenths of the rate, from the cache, so many milliseconds after each kill.
    After(Spread),
    /// Once not within the time that was watched.
    Never,
}

/// How much work the moments are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) starts: usize,
    /// The number that a herd asks for.
    pub(crate) herd: u8,
    /// The number that nobody waits for.
    pub(crate) abandoned: u8,
}

/// Clients of a herd.
const HERD: usize = 64;

/// Clients while a plugin is killed.
const UNDER_LOAD: usize = 8;

/// After which a client leaves.
const LEAVES_AFTER: Duration = Duration::from_millis(100);

/// For which a server's processor time is watched at most, once its client has left.
const WATCHED: Duration = Duration::from_secs(30);

/// For which a server may come back.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Of the rates that are compared with the one before the kill.
const SLICE: Duration = Duration::from_millis(25);

/// For a herd to be answered.
const HERD_PATIENCE: Duration = Duration::from_secs(300);

/// Measures each row.
pub(crate) fn measure(rows: &[Row], folder: &Path, sizes: Sizes) -> Result<Vec<Moments>, Failure> {
    crate::progress("starts");
    let starts = starts(rows, folder, sizes.starts)?;
    let mut all = Vec::new();
    for (row, starts) in rows.iter().zip(starts) {
        crate::progress(&format!("moments of {}", row.name()));
        let server = Running::start_warm(*row, folder)?;
        let resident = server.processes().resident_bytes();
        let resident_mib = resident.into_iter().map(|bytes| bytes as f64 / f64::from(1 << 20)).collect();
        let (herd_s, herd_cpu_s) = herd(&server, sizes.herd)?;
        let abandoned_cpu_s = abandoned(&server, sizes.abandoned)?;
        drop(server);
        let killed = if row.has_plugin() { recovery(*row, folder, sizes.starts)? } else { None };
        let [first_answer_ms, first_hit_ms] = [|start: &Start| start.answer, |start: &Start| start.hit]
            .map(|of| Spread::of(starts.iter().map(of)));
        let row = *row;
        all.push(Moments {
            row,
            first_answer_ms,
            first_hit_ms,
            resident_mib,
            herd_cpu_s,
            herd_s,
            abandoned_cpu_s,
            killed,
        });
    }
    Ok(all)
}

/// Times in milliseconds.
#[derive(Debug)]
struct Start {
    answer: f64,
    hit: f64,
}

/// Starts of each row, in turn.
fn starts(rows: &[Row], folder: &Path, rounds: usize) -> Result<Vec<Vec<Start>>, Failure> {
    let mut all: Vec<Vec<Start>> = rows.iter().map(|_| Vec::new()).collect();
    // The first round finds no file in memory and does not count.
    for round in 0..=rounds {
        for index in in_turn(rows.len(), round) {
            let start = start(rows[index], folder)?;
            if round > 0 {
                all[index].push(start);
            }
        }
    }
    Ok(all)
}

fn start(row: Row, folder: &Path) -> Result<Start, Failure> {
    let server = Running::start(row, folder)?;
    let ask = || load::ask(server.address, 1, PATIENCE).ok();
    server.wait("answer", ask)?;
    let answer = millis(server.started.elapsed());
    server.wait("hit", || ask().filter(|hit| *hit))?;
    Ok(Start { answer, hit: millis(server.started.elapsed()) })
}

/// Clients that ask at the same time for a number that nobody has asked for: seconds until all have it, and of processor
/// time.
fn herd(server: &Running, n: u8) -> Result<(f64, f64), Failure> {
    let processes = server.processes();
    let before = processes.cpu();
    let mut clients = Clients::asking_for(server.address, HERD, [n])?;
    let took = clients.ask_once(HERD_PATIENCE)?.elapsed;
    Ok((took.as_secs_f64(), processes.cpu_since(before).as_secs_f64()))
}

/// Seconds of processor time that a server spends on a number after the only client that wanted it has left.
fn abandoned(server: &Running, n: u8) -> Result<f64, Failure> {
    load::ask_and_leave(server.address, n, LEAVES_AFTER)?;
    let processes = server.processes();
    let (left, before) = (Instant::now(), processes.cpu());
    let mut last = before;
    while left.elapsed() < WATCHED {
        stop::check()?;
        sleep(10 * LEAVES_AFTER);
        let now = processes.cpu();
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last.saturating_sub(before).as_secs_f64())
}

/// Kills so many plugins under load, one after the other.
fn recovery(row: Row, folder: &Path, kills: usize) -> Result<Option<Recovery>, Failure> {
    let mut times = Vec::new();
    for _ in 0..kills {
        match back_after(row, folder)? {
            Some(millis) => times.push(millis),
            None => return Ok(Some(Recovery::Never)),
        }
    }
    Ok(Spread::of(times).map(Recovery::After))
}

/// Kills a plugin under load; `None` if the server is not back in time.
fn back_after(row: Row, folder: &Path) -> Result<Option<f64>, Failure> {
    let server = Running::start_warm(row, folder)?;
    let mut clients = Clients::connect(server.address, UNDER_LOAD, Keys::Hot)?;
    clients.ask(20 * SLICE)?;
    let usual = clients.ask(40 * SLICE)?.per_second();
    let killed = Instant::now();
    for pid in server.processes().descendants() {
        kill(*pid);
    }
    while killed.elapsed() < RECOVERS_WITHIN {
        let slice = clients.ask(SLICE)?;
        if slice.hit_share() > 0.99 && slice.per_second() >= 0.9 * usual {
            return Ok(Some(millis(killed.elapsed())));
        }
    }
    Ok(None)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
