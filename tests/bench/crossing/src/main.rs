//! A host that only looks keys up, and the floor below it: what a crossing from one process to another costs with a
//! plugin, and with nothing but a socket. `cargo xtask bench` starts one of these for each way and measures it from
//! outside, so that what has to link the SDK is not what measures.
//!
//! ```text
//! bench-crossing floor          frames on a Unix socket, no HTTP/2, no protobuf; the other side is `bench-crossing echo`
//! bench-crossing pipe PLUGIN    Pipe of a cache plugin: one batch is one message, two are on their way
//! bench-crossing get PLUGIN     Get of a cache plugin: one key is one call, as many at a time as a batch has keys
//! ```
//!
//! It does what stdin says and tells stdout: `prepare BATCH VALUE_BYTES` is answered with `ready` once so many keys have
//! values of this size; `run MILLISECONDS` with how many keys were looked up, and in how many nanoseconds. It ends with
//! stdin. Any failure ends it, too: a miss is one, since another thing was measured then.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks with the one who started it")]

mod floor;
mod plugin;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};

use self::floor::Floor;
use self::plugin::{Get, Pipe};

type Failure = Box<dyn Error>;

/// Batches on their way at a time; as many as fib-server has.
const IN_FLIGHT: usize = 2;

/// For connections and caches to settle before what counts begins.
const SETTLE: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-crossing: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["echo"] => floor::echo(),
        ["floor"] => obey(Floor::start()?).await,
        ["pipe", plugin] => obey(Pipe::start(plugin).await?).await,
        ["get", plugin] => obey(Get::start(plugin).await?).await,
        _ => Err("usage: bench-crossing floor | echo | pipe PLUGIN | get PLUGIN".into()),
    }
}

/// Does what stdin says.
async fn obey(mut way: impl Way) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["prepare", batch, value_bytes] => {
                way.prepare(Load { batch: batch.parse()?, value_bytes: value_bytes.parse()? }).await?;
                way.look_up(SETTLE).await?;
                println!("ready");
            }
            ["run", millis] => {
                let begun = Instant::now();
                let keys = way.look_up(Duration::from_millis(millis.parse()?)).await?;
                println!("{keys} {}", begun.elapsed().as_nanos());
            }
            _ => return Err(format!("{line:?} means nothing").into()),
        }
    }
    way.end().await;
    Ok(())
}

/// How keys are looked up.
trait Way {
    /// Sees to it that there are values.
    async fn prepare(&mut self, load: Load) -> Result<(), Failure>;

    /// Looks the prepared keys up again and again for so long, and says how many that were.
    async fn look_up(&mut self, time: Duration) -> Result<u64, Failure>;

    async fn end(self);
}

/// What is looked up.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Keys that are looked up together.
    batch: usize,
    value_bytes: usize,
}

impl Load {
    fn keys(self) -> impl Iterator<Item = String> {
        (0..self.batch).map(|number| number.to_string())
    }
}
