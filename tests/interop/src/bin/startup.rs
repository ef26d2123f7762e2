//! How long a plugin takes from the start of its process to the answer of the first call: our host with our plugin
//! against go-plugin's host with a plugin on go-plugin, in turn. For `cargo run --release --package interop --bin startup`, after
//! `cargo build --release --package sample-plugin`; with a number of rounds as its argument.
#![expect(clippy::print_stdout, reason = "a table is all that it is for")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use interop::{Go, Release, binary};
use plugin_sdk::host::{Contract, Launch, Security};
use sample_plugin::sample_client::SampleClient;

/// Starts of each side that count.
const ROUNDS: usize = 31;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse())?.max(1);
    let go = Go::get(Release::V1_8_0, "startup").ok_or("Go is not installed")?;
    let ours = binary("sample-plugin");
    println!("medians of {rounds} starts, up to the answer of the first call");
    for (name, security, flags) in
        [("plain", Security::Plain, &[][..]), ("AutoMTLS", Security::AutoMtls, &["-automtls"][..])]
    {
        let launch = Launch::new(&ours, Contract::new(sample_plugin::cookie(), [1])).security(security);
        let mut theirs = Theirs::start(&go, flags)?;
        let (mut own_times, mut their_times) = (Vec::new(), Vec::new());
        // The first round finds no file in memory and does not count.
        for round in 0..=rounds {
            let (own, their) = (time(&launch).await?, theirs.time()?);
            if round > 0 {
                own_times.push(own);
                their_times.push(their);
            }
        }
        let (own, their) = (median(own_times), median(their_times));
        let ratio = own.as_secs_f64() / their.as_secs_f64();
        println!("{name:8}  ours {own:>9.1?}  go-plugin {their:>9.1?}  ratio {ratio:.2}");
    }
    Ok(())
}

/// One start of ours.
async fn time(launch: &Launch) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let plugin = launch.start().await?;
    SampleClient::new(plugin.channel()).echo(vec![1]).await?;
    let took = begun.elapsed();
    plugin.shutdown().await;
    Ok(took)
}

/// A running host on go-plugin, which makes a start for each line that it gets.
struct Theirs {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Theirs {
    #[expect(clippy::disallowed_methods, reason = "it is a host, not a plugin")]
    fn start(go: &Go, flags: &[&str]) -> Result<Self, Box<dyn Error>> {
        let plugin: &Path = &go.plugin;
        let mut command = Command::new(&go.host);
        command.args(flags).args(["-scenario", "starts"]).arg(plugin);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().ok_or("it has no stdin")?;
        let stdout = process.stdout.take().map(BufReader::new).ok_or("it has no stdout")?;
        Ok(Self { process, stdin, stdout })
    }

    fn time(&mut self) -> Result<Duration, Box<dyn Error>> {
        writeln!(self.stdin)?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(Duration::from_micros(line.trim().parse()?))
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
