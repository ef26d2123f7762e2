//! What the plugins do and use, again and again.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use plugin_sdk::control::{ListRequest, ListResponse, Plugin};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use super::args::Top;
use super::failure::OperateError;
use super::host::connect;
use super::style::Style;
use super::table::{Table, plain};
use super::time::{ago, short, size, span};
use super::views::{or_nothing, state_cell};
use crate::cli::Format;
use crate::escape::escaped;
use crate::failure::Failure;
use crate::output::Output;

/// Moves the cursor to the upper left and clears all below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Processor time of instances, when it was last looked at: what has been used since is a share of the time between.
type Before = HashMap<(String, u64), (Instant, Duration)>;

pub(super) async fn top(args: Top, output: &mut Output) -> Result<(), Failure> {
    let style = Style::of_stdout(args.place.color);
    let in_place = std::io::stdout().is_terminal() && args.place.output == Format::Text;
    let mut client = connect(&args.place).await?;
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Before::new();
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        ticks.tick().await;
        let ListResponse { host, plugins } =
            client.list(ListRequest {}).await.map_err(OperateError::from)?.into_inner();
        let shares = shares(&plugins, &mut before);
        match args.place.output {
            Format::Json => {
                let shown = plugins.iter().zip(&shares).map(|(plugin, share)| {
                    let mut value = super::json::plugin(plugin);
                    value["cpu_percent"] = json!(share);
                    value
                });
                output.json(&json!({"plugins": shown.collect::<Vec<_>>()})).await?;
            }
            Format::Text => {
                let host = host.unwrap_or_default();
                let up = ago(host.since).map(short).unwrap_or_default();
                let head = format!("{} ({}), up {up}", escaped(&host.name), host.pid);
                let clear = if in_place { CLEAR } else { "" };
                let table = table(&plugins, &shares, style);
                // A line between two tables.
                let gap = if in_place || shown == 0 { "" } else { "\n" };
                output.text(&format!("{clear}{gap}{head}\n{table}")).await?;
            }
        }
        shown += 1;
    }
    Ok(())
}

fn table(plugins: &[Plugin], shares: &[Option<f64>], style: Style) -> String {
    let mut table =
        Table::new(style, ["NAME", "STATE", "PID", "CPU", "MEMORY", "RESTARTS", "RELOADS", "UPTIME"]);
    for (plugin, share) in plugins.iter().zip(shares) {
        let instance = plugin.instance.as_ref();
        table.row([
            plain(escaped(&plugin.name)),
            state_cell(plugin),
            or_nothing(instance.and_then(|instance| instance.pid)),
            or_nothing(share.map(|share| format!("{share:.1}%"))),
            or_nothing(instance.and_then(|instance| instance.resident_bytes).map(size)),
            plain(plugin.restarts),
            plain(plugin.swaps),
            or_nothing(instance.and_then(|instance| ago(instance.since)).map(short)),
        ]);
    }
    table.text()
}

/// How much of one processor each has used since it was looked at before, in per cent.
fn shares(plugins: &[Plugin], before: &mut Before) -> Vec<Option<f64>> {
    let now = Instant::now();
    let mut after = Before::new();
    let share = |plugin: &Plugin| {
        let instance = plugin.instance.as_ref()?;
        let used = span(instance.cpu_time)?;
        let key = (plugin.name.clone(), instance.number);
        let earlier = before.get(&key).copied();
        after.insert(key, (now, used));
        let (at, used_then) = earlier?;
        let between = now.duration_since(at).as_secs_f64();
        (between > 0.0).then(|| 100.0 * used.saturating_sub(used_then).as_secs_f64() / between)
    };
    let shares = plugins.iter().map(share).collect();
    *before = after;
    shares
}
