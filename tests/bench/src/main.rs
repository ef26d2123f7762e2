//! Measures fib-server with its plugins beside two servers in Go and beside itself with the cache in its own process.
//! `cargo xtask bench` builds all of them and starts this.
//!
//! ```text
//! bench ── HTTP, keep-alive, one thread ──▶ each server in turn, all of them up ──▶ its plugin, if it has one
//!   └── /proc: processor time of the server and its plugin, what the rest of the machine did meanwhile
//! ```
//!
//! Only ratios within one run mean something: on a shared machine the same server is twice as fast a quarter of an hour
//! later. So each round asks every server, each ratio is taken within a round, and how far the rounds are apart is
//! shown with it, as is the share of the processors that others had. A run in which the answers did not come from the
//! cache does not count, and an answer that is not 200 ends it all.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables for a person, and how far it has come"
)]

mod crossing;
mod histogram;
mod load;
mod moment;
mod plot;
mod process;
mod rate;
mod readme;
mod redis;
mod report;
mod row;
mod spread;
mod started;
mod stop;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::load::Keys;
use self::moment::Sizes;
use self::rate::{METRICS, Plan};
use self::readme::Readme;
use self::row::{Row, Running};

type Failure = Box<dyn Error>;

/// Measures fib-server and its plugins beside servers in Go.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --", disable_help_subcommand = true)]
struct Args {
    /// Rounds; each measures every row at every load.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds for each row at each load.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,

    /// Numbers of connections.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1024],
          value_parser = clap::value_parser!(u16).range(1..))]
    connections: Vec<u16>,

    /// Which numbers are asked for.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Keys::Hot, Keys::Random])]
    keys: Vec<Keys>,

    /// What is measured [default: all].
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,

    /// Starts of each row, and kills of its plugin; 0 leaves out all that happens once.
    #[arg(long, value_name = "COUNT", default_value_t = 11)]
    starts: usize,

    /// Seconds for each size of batch and value, to see what a key costs; 0 leaves that out.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds_or_none)]
    costs: f64,

    /// The number that 64 clients ask for at once.
    #[arg(long, value_name = "N", default_value_t = 38, value_parser = clap::value_parser!(u8).range(26..=50))]
    herd: u8,

    /// The number that nobody waits for.
    #[arg(long, value_name = "N", default_value_t = 44, value_parser = clap::value_parser!(u8).range(26..=50))]
    left: u8,

    /// Show the figures in the repository's README.md, and put the report and the plots into its docs/bench.
    #[arg(long)]
    readme: bool,

    /// Where the README is.
    #[arg(long, value_name = "DIR", hide = true, default_value = ".")]
    repository: PathBuf,

    /// Where the programs are.
    #[arg(long, value_name = "DIR", hide = true)]
    programs: PathBuf,

    /// Where the table and the plots go.
    #[arg(long, value_name = "DIR", hide = true)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    stop::listen()?;
    raise_limit_on_files()?;
    let rows = rows(args)?;
    let plan = Plan {
        rounds: args.rounds as usize,
        time: Duration::from_secs_f64(args.seconds),
        connections: args.connections.iter().copied().map(usize::from).collect(),
        keys: args.keys.clone(),
    };
    let readme = if args.readme { Some(Readme::of(&args.repository)?) } else { None };
    let heading = report::heading(&plan);
    let mut text = heading.clone();
    let servers =
        rows.iter().map(|row| Running::start_warm(*row, &args.programs)).collect::<Result<Vec<_>, _>>()?;
    let series = rate::measure(&servers, &plan)?;
    drop(servers);
    text += &report::rates(&series);
    if args.starts > 0 {
        let sizes = Sizes { starts: args.starts, herd: args.herd, abandoned: args.left };
        text += &report::moments(&moment::measure(&rows, &args.programs, sizes)?, args.herd, args.left);
    }
    let mut plots = Vec::new();
    for keys in &args.keys {
        plots.extend(METRICS.map(|metric| plot::of_rates(&series, *keys, metric)));
    }
    if let Some(time) = time_for_costs(args) {
        let costs = crossing::measure(&args.programs, plan.rounds, time)?;
        text += &report::costs(&costs);
        plots.extend(plot::of_costs(&costs));
    }
    fs::create_dir_all(&args.out)?;
    for plot in &plots {
        fs::write(args.out.join(plot.file()).with_extension("svg"), plot.svg())?;
    }
    fs::write(args.out.join("report.md"), &text)?;
    print!("{text}");
    progress(&format!("the table and plots are in {}", args.out.display()));
    if let Some(readme) = readme {
        let summary = format!("{heading}{}", report::summary(&series));
        readme.show(&summary, &text, &plots, METRICS.len())?;
        progress("the README shows them");
    }
    Ok(())
}

/// The rows that were asked for, each once and in the order of the tables. Those whose programs are missing are named
/// and left out, unless they were asked for by name.
fn rows(args: &Args) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for row in Row::ALL {
        let named = args.rows.contains(&row);
        match row.missing(&args.programs) {
            None if named || args.rows.is_empty() => rows.push(row),
            Some(program) if named => {
                return Err(format!("{} needs {program}, which is not there", row.name()).into());
            }
            Some(program) if args.rows.is_empty() => {
                progress(&format!("left out: {}, as there is no {program}", row.name()));
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// How long each cost is measured, if costs are wanted and their programs are there.
fn time_for_costs(args: &Args) -> Option<Duration> {
    if args.costs == 0.0 {
        return None;
    }
    match crossing::PROGRAMS.into_iter().find(|program| !args.programs.join(program).is_file()) {
        Some(program) => {
            progress(&format!("left out: costs of a key, as there is no {program}"));
            None
        }
        None => Some(Duration::from_secs_f64(args.costs)),
    }
}

/// For as many connections as are asked for: the usual limit is 1024 files.
fn raise_limit_on_files() -> Result<(), Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 0.1 to 3600".into()),
    }
}

fn seconds_or_none(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds == 0.0 || (0.01..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be 0 or a number from 0.01 to 60".into()),
    }
}

/// Says on stderr what is being done.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
