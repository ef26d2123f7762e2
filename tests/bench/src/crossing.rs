//! What it costs to have keys looked up by another process, without a server in front: `bench-crossing`, once for each
//! way, told what to do and measured from outside.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::rate::in_turn;
use crate::started::{self, Lines, PATIENCE, Started};
use crate::{Failure, stop};

/// How keys are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Frames on a socket and nothing else; no cache.
    Floor,
    /// The plugin `memory`, by Pipe: a batch is one message.
    Pipe,
    /// The plugin `memory`, by Get: as many calls at a time as a batch has keys.
    Get,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Pipe, Self::Get];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Pipe => "Pipe",
            Self::Get => "Get",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Pipe => "pipe",
            Self::Get => "get",
        }
    }
}

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Keys that are looked up together.
    pub(crate) batch: usize,
    pub(crate) value_bytes: usize,
}

/// As many keys as fib-server looks up together: with 1 connection, with 16, with 64 and with 256.
pub(crate) const CROSSINGS: [usize; 4] = [1, 7, 32, 128];

/// A number in decimals is not longer.
pub(crate) const CROSSING_BYTES: usize = 8;

/// Keys that are looked up together, for the costs.
pub(crate) const BATCHES: [usize; 6] = [1, 4, 16, 64, 256, 1000];

/// Sizes of values, for the costs.
pub(crate) const VALUES: [usize; 6] = [1, 64, 1 << 10, 16 << 10, 256 << 10, 1 << 20];

/// What a message may have at most.
const MESSAGE_BYTES: usize = 4 << 20;

/// More than a key or a value has around it in a message.
const AROUND_BYTES: usize = 32;

impl Load {
    /// All that are measured and fit into a message.
    fn all() -> impl Iterator<Item = Self> {
        let crossings = CROSSINGS.map(|batch| Self { batch, value_bytes: CROSSING_BYTES });
        let costs =
            VALUES.into_iter().flat_map(|value_bytes| BATCHES.map(|batch| Self { batch, value_bytes }));
        crossings.into_iter().chain(costs).filter(|load| load.fits())
    }

    fn fits(self) -> bool {
        self.batch * (self.value_bytes + AROUND_BYTES) <= MESSAGE_BYTES
    }
}

/// What a key costs, one figure per round, in microseconds.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) way: Way,
    pub(crate) load: Load,
    /// Of time.
    pub(crate) wall_us: Vec<f64>,
    /// Of all processors, for both processes.
    pub(crate) cpu_us: Vec<f64>,
}

/// The programs that are needed: the one that drives, and the plugin.
pub(crate) const PROGRAMS: [&str; 2] = ["bench-crossing", "fib-cache-memory"];

/// Measures all ways with all loads.
pub(crate) fn measure(folder: &Path, rounds: usize, time: Duration) -> Result<Vec<Cost>, Failure> {
    let drivers = Way::ALL.map(|way| Driver::start(way, folder)).into_iter();
    let mut drivers = drivers.collect::<Result<Vec<_>, _>>()?;
    let mut costs: Vec<Cost> = Load::all()
        .flat_map(|load| Way::ALL.map(|way| Cost { way, load, wall_us: Vec::new(), cpu_us: Vec::new() }))
        .collect();
    for round in 0..rounds {
        crate::progress(&format!("costs, round {} of {rounds}", round + 1));
        for costs in costs.chunks_mut(drivers.len()) {
            for index in in_turn(drivers.len(), round) {
                drivers[index].measure(&mut costs[index], time)?;
            }
        }
    }
    Ok(costs)
}

/// `bench-crossing`, at work.
#[derive(Debug)]
struct Driver {
    way: Way,
    started: Started,
    stdin: ChildStdin,
    stdout: Lines,
    _directory: TempDir,
}

impl Driver {
    fn start(way: Way, folder: &Path) -> Result<Self, Failure> {
        let directory = started::directory()?;
        let [driver, plugin] = PROGRAMS.map(|program| folder.join(program));
        let mut command = started::command(&driver, &directory);
        command.arg(way.word()).args((way != Way::Floor).then_some(plugin));
        let mut started = Started::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdin = started.child.stdin.take().ok_or("stdin is piped")?;
        let stdout = Lines::of(started.child.stdout.take().ok_or("stdout is piped")?);
        Ok(Self { way, started, stdin, stdout, _directory: directory })
    }

    /// One run.
    fn measure(&mut self, cost: &mut Cost, time: Duration) -> Result<(), Failure> {
        stop::check()?;
        let Load { batch, value_bytes } = cost.load;
        let ready = self.say(&format!("prepare {batch} {value_bytes}"), PATIENCE)?;
        if ready != "ready" {
            return Err(format!("{}: {ready:?} instead of ready", self.way.name()).into());
        }
        let processes = self.started.processes();
        let before = processes.cpu();
        let did = self.say(&format!("run {}", time.as_millis()), time + PATIENCE)?;
        let cpu = processes.cpu_since(before);
        let (keys, nanos) = did.split_once(' ').ok_or_else(|| format!("{did:?} says nothing"))?;
        let (keys, nanos): (f64, f64) = (keys.parse()?, nanos.parse()?);
        cost.wall_us.push(nanos / 1e3 / keys);
        cost.cpu_us.push(cpu.as_secs_f64() * 1e6 / keys);
        Ok(())
    }

    /// Says something to it, and gives its answer.
    fn say(&mut self, line: &str, patience: Duration) -> Result<String, Failure> {
        writeln!(self.stdin, "{line}")?;
        self.stdout.next(&format!("{}, told {line:?},", self.way.name()), patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_where_a_message_does() {
        let batches = |value_bytes| Load::all().filter(move |load| load.value_bytes == value_bytes).count();
        assert_eq!(batches(CROSSING_BYTES), CROSSINGS.len());
        assert_eq!(VALUES.map(batches), [6, 6, 6, 4, 2, 1]);
    }
}
