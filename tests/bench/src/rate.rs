//! Rate, latency and processor time under load: all servers are up at once and are asked in turn, in the opposite order
//! each round, so that what comes and goes on the machine does not always meet the same one.

use std::time::Duration;

use crate::Failure;
use crate::load::{Clients, Keys};
use crate::process::Machine;
use crate::row::{Row, Running};
use crate::spread::Spread;

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    pub(crate) connections: Vec<usize>,
    pub(crate) keys: Vec<Keys>,
}

/// Time for connections and branch predictors to settle before what counts begins.
const SETTLE: Duration = Duration::from_millis(200);

/// The share of answers that must have come from the cache for a run to count: otherwise it is the calculation that was
/// measured. Under more load than a server's deadline for its cache allows, it calculates.
const HITS: f64 = 0.999;

/// All rounds of all rows at one load.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) keys: Keys,
    pub(crate) connections: usize,
    pub(crate) rows: Vec<Figures>,
    /// For each run: the share of the machine that others had meanwhile.
    pub(crate) disturbed: Vec<f64>,
}

/// A row at one load, one figure per round; not a number where the round does not count.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) row: Row,
    pub(crate) per_second: Vec<f64>,
    pub(crate) p50_us: Vec<f64>,
    pub(crate) p99_us: Vec<f64>,
    /// Of the server and its plugin, per answer.
    pub(crate) cpu_us: Vec<f64>,
    /// The share of answers that came from the cache.
    pub(crate) hits: Vec<f64>,
}

/// One of the columns, for tables and plots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Figures) -> &[f64],
    /// Whether it is ten times as much, and more, where there is more load.
    pub(crate) spans_decades: bool,
}

/// All columns.
pub(crate) const METRICS: [Metric; 4] = [
    Metric { name: "requests/s", of: |figures| &figures.per_second, spans_decades: false },
    Metric { name: "p50 us", of: |figures| &figures.p50_us, spans_decades: true },
    Metric { name: "p99 us", of: |figures| &figures.p99_us, spans_decades: true },
    Metric { name: "CPU us/request", of: |figures| &figures.cpu_us, spans_decades: true },
];

impl Series {
    /// How a row did in comparison with another, round by round; `None` if one of them was not measured.
    pub(crate) fn ratio(&self, metric: Metric, row: Row, to: Row) -> Option<Spread> {
        Spread::of_ratios((metric.of)(self.figures(row)?), (metric.of)(self.figures(to)?))
    }

    /// Those of a row, if it was measured.
    pub(crate) fn figures(&self, row: Row) -> Option<&Figures> {
        self.rows.iter().find(|figures| figures.row == row)
    }
}

/// Measures servers that are warm.
pub(crate) fn measure(servers: &[Running], plan: &Plan) -> Result<Vec<Series>, Failure> {
    let loads = plan.keys.iter().flat_map(|keys| plan.connections.iter().map(|number| (*keys, *number)));
    let mut all: Vec<Series> = loads
        .map(|(keys, connections)| Series {
            keys,
            connections,
            rows: servers.iter().map(|server| Figures::new(server.row)).collect(),
            disturbed: Vec::new(),
        })
        .collect();
    for round in 0..plan.rounds {
        crate::progress(&format!("round {} of {}", round + 1, plan.rounds));
        for series in &mut all {
            for index in in_turn(servers.len(), round) {
                let disturbed =
                    series.rows[index].add(&servers[index], series.keys, series.connections, plan.time)?;
                series.disturbed.push(disturbed);
            }
        }
    }
    Ok(all)
}

/// The order of a round.
pub(crate) fn in_turn(number: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..number).collect() } else { (0..number).rev().collect() }
}

impl Figures {
    fn new(row: Row) -> Self {
        let [per_second, p50_us, p99_us, cpu_us, hits] = [const { Vec::new() }; 5];
        Self { row, per_second, p50_us, p99_us, cpu_us, hits }
    }

    /// One run. Gives the share of the machine that others had.
    fn add(
        &mut self,
        server: &Running,
        keys: Keys,
        connections: usize,
        time: Duration,
    ) -> Result<f64, Failure> {
        let of = |error| format!("{} at {connections} connections: {error}", server.row.name());
        // A run before may have been too much for it.
        server.warm()?;
        let mut clients = Clients::connect(server.address, connections, keys).map_err(of)?;
        clients.ask(SETTLE).map_err(of)?;
        let processes = server.processes();
        // That of the clients is known after the run only, and is not the server's.
        let own = crate::process::Tree::own();
        let (machine, cpu, clients_cpu) = (Machine::now(), processes.cpu(), own.cpu());
        let measured = clients.ask(time).map_err(of)?;
        let cpu = processes.cpu_since(cpu);
        let disturbed = Machine::now().taken_by_others(machine, cpu + own.cpu_since(clients_cpu));
        // A plugin that was started again has taken its processor time along.
        let same = server.processes() == processes;
        let share = measured.hit_share();
        self.hits.push(share);
        // What the cache did not answer is another program's rate: no figure, so that no ratio has it.
        let counted = |figure: f64| if share >= HITS && same { figure } else { f64::NAN };
        self.per_second.push(counted(measured.per_second()));
        self.p50_us.push(counted(micros(measured.latencies.quantile(0.5))));
        self.p99_us.push(counted(micros(measured.latencies.quantile(0.99))));
        self.cpu_us.push(counted(micros(cpu) / measured.answers as f64));
        Ok(disturbed)
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_is_the_other_way_round() {
        assert_eq!(in_turn(3, 0), [0, 1, 2]);
        assert_eq!(in_turn(3, 1), [2, 1, 0]);
        assert_eq!(in_turn(3, 2), [0, 1, 2]);
    }

    #[test]
    fn a_round_that_does_not_count_is_in_no_ratio() {
        let figures = |row, per_second| Figures { per_second, ..Figures::new(row) };
        let rows = vec![figures(Row::GoSo, vec![100.0, 100.0]), figures(Row::Memory, vec![f64::NAN, 150.0])];
        let series = Series { keys: Keys::Hot, connections: 1, rows, disturbed: Vec::new() };
        let ratio = series.ratio(METRICS[0], Row::Memory, Row::GoSo).unwrap();
        assert_eq!((ratio.least, ratio.most), (1.5, 1.5));
    }

    #[test]
    fn a_row_is_compared_within_its_rounds_and_only_if_both_were_measured() {
        let figures = |row, per_second| Figures { per_second, ..Figures::new(row) };
        let rows = vec![figures(Row::GoSo, vec![100.0, 50.0]), figures(Row::Memory, vec![200.0, 150.0])];
        let series = Series { keys: Keys::Hot, connections: 1, rows, disturbed: Vec::new() };
        let ratio = series.ratio(METRICS[0], Row::Memory, Row::GoSo).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.5, 2.0, 3.0));
        assert_eq!(series.ratio(METRICS[0], Row::Memory, Row::GoPlugin), None);
    }
}
