//! Logs and events, to their end or until Ctrl-C.

use std::time::SystemTime;

use plugin_sdk::control::{EventsRequest, LogsRequest, events_response, logs_response};
use prost_types::Timestamp;

use super::args::{Events, Logs, Range};
use super::failure::OperateError;
use super::host::connect;
use super::style::Style;
use super::{json, views};
use crate::cli::Format;
use crate::failure::Failure;
use crate::output::Output;
use crate::talk::Talk;

pub(super) async fn logs(args: Logs, output: &mut Output, talk: &Talk) -> Result<(), Failure> {
    let Logs { one, range, level } = args;
    let style = Style::of_stdout(one.place.color);
    let request = LogsRequest {
        plugin: one.plugin,
        tail: range.tail,
        since: since(&range),
        follow: range.follow,
        min_level: level.map(plugin_sdk::control::Level::from).unwrap_or_default().into(),
    };
    let mut client = connect(&one.place).await?;
    let mut lines = client.logs(request).await.map_err(OperateError::from)?.into_inner();
    while let Some(answer) = lines.message().await.map_err(OperateError::from)? {
        match (answer.item, one.place.output) {
            (Some(logs_response::Item::Line(line)), Format::Text) => {
                output.text(&views::line(&line, style)).await?
            }
            (Some(logs_response::Item::Line(line)), Format::Json) => output.json(&json::line(&line)).await?,
            (Some(logs_response::Item::Missed(missed)), format) => {
                say_missed(missed, format, output, talk).await?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

pub(super) async fn events(args: Events, output: &mut Output, talk: &Talk) -> Result<(), Failure> {
    let Events { plugin, place, range } = args;
    let style = Style::of_stdout(place.color);
    let request = EventsRequest { plugin, since: since(&range), follow: range.follow, tail: range.tail };
    let mut client = connect(&place).await?;
    let mut events = client.events(request).await.map_err(OperateError::from)?.into_inner();
    while let Some(answer) = events.message().await.map_err(OperateError::from)? {
        let plugin = answer.plugin;
        match (answer.item, place.output) {
            (Some(events_response::Item::Event(event)), Format::Text) => {
                output.text(&views::event(&plugin, &event, style)).await?;
            }
            (Some(events_response::Item::Event(event)), Format::Json) => {
                output.json(&json::event(&plugin, &event)).await?;
            }
            (Some(events_response::Item::Missed(missed)), format) => {
                say_missed(missed, format, output, talk).await?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

async fn say_missed(missed: u64, format: Format, output: &mut Output, talk: &Talk) -> Result<(), Failure> {
    match format {
        Format::Text => talk.say(format_args!("pluginctl: {missed} that came too fast are left out here")),
        Format::Json => output.json(&serde_json::json!({"missed": missed})).await?,
    }
    Ok(())
}

fn since(range: &Range) -> Option<Timestamp> {
    let at = SystemTime::now().checked_sub(range.since?).unwrap_or(SystemTime::UNIX_EPOCH);
    Some(at.max(SystemTime::UNIX_EPOCH).into())
}
