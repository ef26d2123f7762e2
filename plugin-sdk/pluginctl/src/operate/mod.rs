//! The operator's half: looking at the plugins of a running host, and giving orders. No plugin is started here: the host is asked,
//! through its control socket.
//!
//! ```text
//! args ─▶ host: which one? ─▶ control socket ─▶ views for people, or json ─▶ stdout
//! ```

pub(crate) mod args;
mod failure;
mod follow;
pub(crate) mod generate;
mod host;
mod json;
mod order;
mod style;
mod table;
mod time;
mod top;
mod views;

use plugin_sdk::control::{
    GetCrashRequest, GetRequest, ListCrashesRequest, ListRequest, SetLogLevelRequest, State,
    set_log_level_request,
};

pub(crate) use failure::OperateError;

use crate::cli::Format;
use crate::failure::Failure;
use crate::output::Output;
use crate::talk::Talk;
use args::{Crashes, LogLevel, OnePlugin, Operate, Place};
use host::connect;
use order::OrderName;
use style::Style;

/// Does what was asked for.
pub(crate) async fn operate(operate: Operate, output: &mut Output, talk: &Talk) -> Result<(), Failure> {
    match operate {
        Operate::List(place) => list(place, output).await,
        Operate::Status(one) => status(one, output).await,
        Operate::Restart(args) => order::give(OrderName::Restart, args, None, output, talk).await,
        Operate::Reload(args) => order::reload(args, output, talk).await,
        Operate::Stop(args) => order::give(OrderName::Stop, args, None, output, talk).await,
        Operate::Start(args) => order::give(OrderName::Start, args, None, output, talk).await,
        Operate::Enable(args) => order::give(OrderName::Enable, args, None, output, talk).await,
        Operate::Disable(args) => order::give(OrderName::Disable, args, None, output, talk).await,
        Operate::Clear(args) => order::give(OrderName::Clear, args, None, output, talk).await,
        Operate::Logs(args) => follow::logs(args, output, talk).await,
        Operate::Events(args) => follow::events(args, output, talk).await,
        Operate::Crashes(args) => crashes(args, output).await,
        Operate::Top(args) => top::top(args, output).await,
        Operate::LogLevel(args) => log_level(args, output).await,
    }
}

async fn list(place: Place, output: &mut Output) -> Result<(), Failure> {
    let mut client = connect(&place).await?;
    let answer = client.list(ListRequest {}).await.map_err(OperateError::from)?.into_inner();
    match place.output {
        Format::Json => {
            let plugins: Vec<_> = answer.plugins.iter().map(json::plugin).collect();
            let host = answer.host.as_ref().map(json::host);
            output.json(&serde_json::json!({"host": host, "plugins": plugins})).await?;
        }
        Format::Text => output.text(&views::list(&answer.plugins, Style::of_stdout(place.color))).await?,
    }
    Ok(())
}

async fn status(one: OnePlugin, output: &mut Output) -> Result<(), Failure> {
    let OnePlugin { plugin, place } = one;
    let mut client = connect(&place).await?;
    let answer = client.get(GetRequest { plugin }).await.map_err(OperateError::from)?.into_inner();
    let plugin = answer.plugin.ok_or(OperateError::NoAnswer)?;
    match place.output {
        Format::Json => output.json(&json::plugin(&plugin)).await?,
        Format::Text => output.text(&views::status(&plugin, Style::of_stdout(place.color))).await?,
    }
    match views::state(&plugin) {
        State::Serving => Ok(()),
        State::Degraded | State::GaveUp => Err(OperateError::Unwell.into()),
        _ => Err(OperateError::NotRunning.into()),
    }
}

async fn crashes(args: Crashes, output: &mut Output) -> Result<(), Failure> {
    let Crashes { plugin, show, place } = args;
    let style = Style::of_stdout(place.color);
    let mut client = connect(&place).await?;
    if let Some(number) = show {
        let request = GetCrashRequest { plugin, number };
        let answer = client.get_crash(request).await.map_err(OperateError::from)?.into_inner();
        let crash = answer.crash.ok_or(OperateError::NoAnswer)?;
        match place.output {
            Format::Json => output.json(&json::whole_crash(&crash)).await?,
            Format::Text => output.text(&views::whole_crash(&crash, style)).await?,
        }
        return Ok(());
    }
    let request = ListCrashesRequest { plugin };
    let crashes = client.list_crashes(request).await.map_err(OperateError::from)?.into_inner().crashes;
    match place.output {
        Format::Json => {
            for crash in &crashes {
                output.json(&json::crash(crash)).await?;
            }
        }
        Format::Text => output.text(&views::crashes(&crashes, style)).await?,
    }
    Ok(())
}

async fn log_level(args: LogLevel, output: &mut Output) -> Result<(), Failure> {
    let LogLevel { level, one, of_host } = args;
    let level = plugin_sdk::control::Level::from(level);
    let mut client = connect(&one.place).await?;
    let target = if of_host {
        set_log_level_request::Target::Host(())
    } else {
        set_log_level_request::Target::Plugin(one.plugin)
    };
    let request = SetLogLevelRequest { target: Some(target), level: level.into() };
    client.set_log_level(request).await.map_err(OperateError::from)?;
    let word = json::level(level);
    match one.place.output {
        Format::Json => output.json(&serde_json::json!({"log_level": word, "of_host": of_host})).await?,
        Format::Text if of_host => {
            output.text(&format!("the host logs its own lines from {word} on")).await?
        }
        Format::Text => output.text(&format!("the host logs the plugin's lines from {word} on")).await?,
    }
    Ok(())
}
