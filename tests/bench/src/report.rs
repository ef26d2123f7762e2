//! The tables, in Markdown, so that they can be shown as they are.

use std::fmt::{self, Write};
use std::fs;
use std::time::SystemTime;

use crate::crossing::{BATCHES, CROSSING_BYTES, CROSSINGS, Cost, Load, VALUES, Way};
use crate::load::Keys;
use crate::moment::{Moments, Recovery};
use crate::plot::bytes;
use crate::rate::{Figures, METRICS, Metric, Plan, Series};
use crate::row::Row;
use crate::spread::Spread;

/// What the others are compared with; the last by those that ask Redis, too.
pub(crate) const BASES: [(&str, Row); 4] =
    [("A", Row::GoSo), ("B", Row::GoPlugin), ("C", Row::InProcess), ("D", Row::GoRedisSo)];

/// The machine and the time, for whoever reads the figures later.
pub(crate) fn heading(plan: &Plan) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    // What comes after a dash is who has built it.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let Plan { rounds, time, .. } = plan;
    format!(
        "{}: {cores} x {}, Linux {kernel}; {rounds} round{} of {time:?}.\n\
         Figures are medians over the rounds. Ratios are taken within each round: median (least-most).\n\
         A round in which fewer than 99.9 % of a row's answers were hits, or its plugin was started again, does not count\n\
         for that row.\n\
         {}.\n",
        now.split('T').next().unwrap_or_default(),
        model.unwrap_or("unknown processor"),
        plural(*rounds),
        BASES.map(|(letter, row)| format!("{letter} is \"{}\"", row.name())).join(", "),
    )
}

/// Of all tables the few lines that are ours: our plugins with hot keys, beside what they are compared with.
pub(crate) fn summary(all: &[Series]) -> String {
    let mut text = String::new();
    let (in_memory, in_redis) = BASES.split_at(3);
    for (row, bases) in [(Row::Memory, in_memory), (Row::Lease, in_memory), (Row::Redis, in_redis)] {
        let hot = |series: &&Series| series.keys == Keys::Hot && series.figures(row).is_some();
        let series: Vec<&Series> = all.iter().filter(hot).collect();
        write_summary(&mut text, row, bases, &series).expect("a String takes everything");
    }
    text
}

fn write_summary(text: &mut String, row: Row, bases: &[(&str, Row)], all: &[&Series]) -> fmt::Result {
    if !all.is_empty() {
        writeln!(text, "\n{} |\n|{}", columns(row.name(), bases), "---|".repeat(7 + bases.len()))?;
    }
    for series in all {
        if let Some(figures) = series.figures(row) {
            let connections = format!("{} connection{}", series.connections, plural(series.connections));
            writeln!(text, "| {connections} |{} |", cells(series, figures, bases))?;
        }
    }
    Ok(())
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// One table for each load.
pub(crate) fn rates(all: &[Series]) -> String {
    let mut text = String::new();
    for series in all {
        write_series(&mut text, series).expect("a String takes everything");
    }
    text
}

fn write_series(text: &mut String, series: &Series) -> fmt::Result {
    let (keys, connections) = (series.keys.name(), series.connections);
    writeln!(text, "\n### {keys} keys, {connections} connection{}\n", plural(connections))?;
    if let Some(disturbed) = Spread::of(series.disturbed.iter().map(|share| 100.0 * share)) {
        let Spread { median, least, most } = disturbed;
        writeln!(text, "Others had {median:.0} % ({least:.0}-{most:.0}) of the processors meanwhile.")?;
    }
    let (in_memory, in_redis) = BASES.split_at(3);
    write_table(text, series, in_memory, |row| !row.asks_redis())?;
    write_table(text, series, in_redis, Row::asks_redis)
}

/// The rows that are to be compared with `bases`, if there are any.
fn write_table(
    text: &mut String,
    series: &Series,
    bases: &[(&str, Row)],
    fits: fn(Row) -> bool,
) -> fmt::Result {
    let rows: Vec<&Figures> = series.rows.iter().filter(|figures| fits(figures.row)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let lines = "---|".repeat(8 + bases.len());
    writeln!(text, "\n{} | hits % |\n|{lines}", columns("", bases))?;
    for figures in rows {
        let (name, cells, hits) = (figures.row.name(), cells(series, figures, bases), hits(figures));
        writeln!(text, "| {name} |{cells} | {hits} |")?;
    }
    Ok(())
}

/// What is told of a row: the names of the columns.
fn columns(first: &str, bases: &[(&str, Row)]) -> String {
    let times: String = bases.iter().map(|(letter, _)| format!(" x {letter} |")).collect();
    let base = bases.first().map_or("", |(letter, _)| letter);
    let first = if first.is_empty() { String::new() } else { format!("{first} ") };
    format!("| {first}| req/s |{times} p50 us | p99 us | p99 x {base} | CPU us/req | CPU x {base}")
}

/// What is told of a row: the figures.
fn cells(series: &Series, figures: &Figures, bases: &[(&str, Row)]) -> String {
    let [rate, p50, p99, cpu] = METRICS;
    let row = figures.row;
    let median = |metric: Metric, digits: usize| {
        let spread = Spread::of((metric.of)(figures).iter().copied());
        spread.map_or_else(none, |spread| format!("{:.digits$}", spread.median))
    };
    let ratio = |metric, to| {
        series.ratio(metric, row, to).filter(|_| row != to).map_or_else(none, |spread| spread.to_string())
    };
    let first = bases.first().map_or(row, |(_, to)| *to);
    let times: String = bases.iter().map(|(_, to)| format!(" {} |", ratio(rate, *to))).collect();
    format!(
        " {} |{times} {} | {} | {} | {} | {}",
        median(rate, 0),
        median(p50, 0),
        median(p99, 0),
        ratio(p99, first),
        median(cpu, 1),
        ratio(cpu, first),
    )
}

/// The table of what happens once.
pub(crate) fn moments(all: &[Moments], herd: u8, abandoned: u8) -> String {
    let mut text = format!(
        "\n### Once\n\n\
         Start: from `exec` to the first answer, and to the first one out of the cache. Herd: 64 clients ask for F({herd}) at once.\n\
         Left: processor time spent on F({abandoned}) after its only client has left. Killed: from SIGKILL for the plugin, with 8 clients,\n\
         to 90 % of the rate, out of the cache; every answer until then was 200. RSS: of the server, and of its plugin.\n\n\
         | | first answer ms | first hit ms | RSS MiB | herd s | herd CPU s | left CPU s | killed ms |\n|---|---|---|---|---|---|---|---|\n"
    );
    for moments in all {
        let spread = |spread: Option<Spread>| {
            spread.map_or_else(none, |Spread { median, least, most }| {
                format!("{median:.1} ({least:.1}-{most:.1})")
            })
        };
        let killed = match moments.killed {
            None => none(),
            Some(Recovery::After(Spread { median, least, most })) => {
                format!("{median:.0} ({least:.0}-{most:.0})")
            }
            Some(Recovery::Never) => "never".to_owned(),
        };
        let resident: Vec<_> = moments.resident_mib.iter().map(|mib| format!("{mib:.1}")).collect();
        let resident = resident.join(" + ");
        writeln!(
            text,
            "| {} | {} | {} | {resident} | {:.2} | {:.2} | {:.2} | {killed} |",
            moments.row.name(),
            spread(moments.first_answer_ms),
            spread(moments.first_hit_ms),
            moments.herd_s,
            moments.herd_cpu_s,
            moments.abandoned_cpu_s,
        )
        .expect("a String takes everything");
    }
    text
}

/// The tables of what a crossing costs, and a key in it.
pub(crate) fn costs(all: &[Cost]) -> String {
    let mut text = String::new();
    write_crossings(&mut text, all).expect("a String takes everything");
    for (name, of) in COSTS {
        write_costs(&mut text, all, name, of).expect("a String takes everything");
    }
    text
}

type OfCost = fn(&Cost) -> &[f64];

const COSTS: [(&str, OfCost); 2] = [("us", |cost| &cost.wall_us), ("CPU us", |cost| &cost.cpu_us)];

fn cost(all: &[Cost], way: Way, batch: usize, value_bytes: usize) -> Option<&Cost> {
    all.iter().find(|cost| cost.way == way && cost.load == Load { batch, value_bytes })
}

fn write_crossings(text: &mut String, all: &[Cost]) -> fmt::Result {
    writeln!(
        text,
        "\n### A crossing\n\n\
         Without a server: a process with one thread has keys looked up by another, and does nothing else. Values have \
         {CROSSING_BYTES} bytes.\n\
         Floor: frames with a length on a Unix socket, no HTTP/2, no protobuf, and no cache behind it; busy polling as the others.\n\
         Pipe and Get: those of the plugin `memory`. Two batches are on their way at a time; of Get, which is a call for each key, as\n\
         many calls as the batch has keys. Time and CPU are those of a key, CPU of both processes.\n\n\
         | keys | | crossings/s | us | x floor | CPU us | x floor |\n|---|---|---|---|---|---|---|"
    )?;
    for batch in CROSSINGS {
        for way in Way::ALL {
            let Some(measured) = cost(all, way, batch, CROSSING_BYTES) else { continue };
            let floor = cost(all, Way::Floor, batch, CROSSING_BYTES).filter(|_| way != Way::Floor);
            let ratio = |of: OfCost| {
                let ratio = floor.and_then(|floor| Spread::of_ratios(of(measured), of(floor)));
                ratio.map_or_else(none, |spread| spread.to_string())
            };
            let keys = if way == Way::Get { 1 } else { batch };
            let crossings = measured.wall_us.iter().map(|us| 1e6 / (us * keys as f64));
            let crossings = Spread::of(crossings).map_or_else(none, |spread| format!("{:.0}", spread.median));
            let [(us, wall_ratio), (cpu_us, cpu_ratio)] =
                COSTS.map(|(_, of)| (short(of(measured)), ratio(of)));
            let name = way.name();
            writeln!(
                text,
                "| {batch} | {name} | {crossings} | {us} | {wall_ratio} | {cpu_us} | {cpu_ratio} |"
            )?;
        }
    }
    Ok(())
}

fn write_costs(text: &mut String, all: &[Cost], name: &str, of: OfCost) -> fmt::Result {
    let batches: String = BATCHES.iter().map(|batch| format!(" {batch} |")).collect();
    let lines = "---|".repeat(2 + BATCHES.len());
    writeln!(
        text,
        "\n### {name} per key, by size of value and keys looked up together\n\n\
         What does not fit into a message of 4 MiB is left out.\n\n\
         | value | |{batches}\n|{lines}"
    )?;
    for value_bytes in VALUES {
        for way in Way::ALL {
            let cell = |batch| cost(all, way, batch, value_bytes).map_or_else(none, |cost| short(of(cost)));
            let cells: String = BATCHES.iter().map(|batch| format!(" {} |", cell(*batch))).collect();
            writeln!(text, "| {} | {} |{cells}", bytes(value_bytes), way.name())?;
        }
    }
    Ok(())
}

/// `12.3 (11.9-15.0)`, with as many digits as mean something.
fn short(figures: &[f64]) -> String {
    let Some(Spread { median, least, most }) = Spread::of(figures.iter().copied()) else { return none() };
    let digits = match median {
        ..1.0 => 3,
        ..10.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{median:.digits$} ({least:.digits$}-{most:.digits$})")
}

/// The share of hits, and how many rounds count if not all do.
fn hits(figures: &Figures) -> String {
    let shares = figures.hits.iter().map(|share| 100.0 * share);
    let Some(Spread { median, least, most }) = Spread::of(shares) else { return none() };
    let all = figures.hits.len();
    let counted = figures.per_second.iter().filter(|figure| figure.is_finite()).count();
    let partly = if counted < all { format!(", {counted} of {all} rounds count") } else { String::new() };
    format!("{median:.1} ({least:.1}-{most:.1}){partly}")
}

fn none() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(row: Row, factor: f64) -> Figures {
        let rounds = |figure: f64| vec![figure * factor, 2.0 * figure * factor, 3.0 * figure * factor];
        Figures {
            row,
            per_second: rounds(100.0),
            p50_us: rounds(1.0),
            p99_us: rounds(9.0),
            cpu_us: rounds(5.0),
            hits: vec![1.0; 3],
        }
    }

    #[test]
    fn a_row_without_its_base_has_no_ratio_and_a_base_none_to_itself() {
        let rows = vec![figures(Row::GoSo, 1.0), figures(Row::Memory, 2.0)];
        let text = rates(&[Series { keys: Keys::Hot, connections: 64, rows, disturbed: vec![0.1, 0.3] }]);
        let expected = "
### hot keys, 64 connections

Others had 20 % (10-30) of the processors meanwhile.

| | req/s | x A | x B | x C | p50 us | p99 us | p99 x A | CPU us/req | CPU x A | hits % |
|---|---|---|---|---|---|---|---|---|---|---|
| Go, in-process .so | 200 | - | - | - | 2 | 18 | - | 10.0 | - | 100.0 (100.0-100.0) |
| ours, memory | 400 | 2.00 (2.00-2.00) | - | - | 4 | 36 | 2.00 (2.00-2.00) | 20.0 | 2.00 (2.00-2.00) | 100.0 (100.0-100.0) |
";
        assert_eq!(text, expected);
    }

    #[test]
    fn rounds_that_do_not_count_are_told() {
        let mut figures = figures(Row::Memory, 1.0);
        figures.per_second[1] = f64::NAN;
        figures.hits[1] = 0.25;
        assert_eq!(hits(&figures), "100.0 (25.0-100.0), 2 of 3 rounds count");
    }

    #[test]
    fn small_figures_have_more_digits() {
        for (figure, expected) in [
            (0.0214, "0.021 (0.021-0.021)"),
            (9.994, "9.99 (9.99-9.99)"),
            (36.51, "36.5 (36.5-36.5)"),
            (1000.4, "1000 (1000-1000)"),
        ] {
            assert_eq!(short(&[figure]), expected);
        }
        assert_eq!(short(&[]), "-");
    }

    #[test]
    fn a_plugin_that_never_comes_back_is_called_that() {
        let moments = Moments {
            row: Row::GoPlugin,
            first_answer_ms: Spread::of([1.0, 2.0, 3.0]),
            first_hit_ms: None,
            resident_mib: vec![14.94, 13.88],
            herd_cpu_s: 18.1,
            herd_s: 9.13,
            abandoned_cpu_s: 4.8,
            killed: Some(Recovery::Never),
        };
        let text = super::moments(&[moments], 38, 44);
        let last = text.lines().last().unwrap();
        assert_eq!(last, "| Go, go-plugin | 2.0 (1.0-3.0) | - | 14.9 + 13.9 | 9.13 | 18.10 | 4.80 | never |");
    }
}
