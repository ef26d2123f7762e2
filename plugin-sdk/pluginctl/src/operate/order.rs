//! Giving an order, and waiting for what it leads to.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_sdk::control::{
    EventsRequest, GetRequest, OrderRequest, OrderResponse, Reason, ReloadRequest, Wait, events_response,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::{Response, Status};

use super::args::{GiveOrder, Reload};
use super::failure::OperateError;
use super::host::{Client, connect};
use super::style::Style;
use super::{json, views};
use crate::cli::Format;
use crate::escape::escaped;
use crate::failure::Failure;
use crate::limits::LAST_WORDS;
use crate::output::Output;
use crate::talk::Talk;

/// Which order it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderName {
    Restart,
    Reload,
    Stop,
    Start,
    Enable,
    Disable,
    Clear,
}

impl OrderName {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Clear => "clear",
        }
    }

    pub(super) fn participle(self) -> &'static str {
        match self {
            Self::Restart => "restarted",
            Self::Reload => "reloaded",
            Self::Stop => "stopped",
            Self::Start => "started",
            Self::Enable => "enabled",
            Self::Disable => "disabled",
            Self::Clear => "cleared",
        }
    }
}

/// Has another instance take over, of another executable if the arguments say so.
pub(super) async fn reload(args: Reload, output: &mut Output, talk: &Talk) -> Result<(), Failure> {
    let program = args.path.as_deref().map(absolute).transpose()?;
    give(OrderName::Reload, args.order, program, output, talk).await
}

/// Gives an order, and shows what it has led to.
pub(super) async fn give(
    order: OrderName,
    args: GiveOrder,
    program: Option<String>,
    output: &mut Output,
    talk: &Talk,
) -> Result<(), Failure> {
    let GiveOrder { one, wait } = args;
    let client = connect(&one.place).await?;
    let request = OrderRequest {
        plugin: one.plugin,
        wait: if wait.no_wait { Wait::Accepted } else { Wait::Done }.into(),
    };
    let (named, looking) = (request.plugin.clone(), client.clone());
    let progress = Progress::begin(order, &request.plugin, client.clone(), talk);
    let sent = send(order, client, request, program);
    let answer = tokio::select! {
        answer = tokio::time::timeout(wait.timeout, sent) => {
            answer.map_err(|_| OperateError::TimedOut(wait.timeout))
        }
        never = progress.show() => match never {},
    };
    if std::io::stderr().is_terminal() {
        // So that what follows on stdout does not stand behind it.
        talk.flush(LAST_WORDS);
    }
    let answer = match answer?.map_err(OperateError::from) {
        Ok(answer) => answer.into_inner(),
        Err(error) => return Err(with_state(error, order, named, looking).await.into()),
    };
    let plugin = answer.plugin.as_ref().ok_or(OperateError::NoAnswer)?;
    match one.place.output {
        Format::Json => {
            let outcome = answer.outcome().as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase();
            let value = serde_json::json!({
                "order": order.verb(), "outcome": outcome, "plugin": json::plugin(plugin),
            });
            output.json(&value).await?;
        }
        Format::Text => {
            let style = Style::of_stdout(one.place.color);
            output.text(&views::outcome(order, answer.outcome(), plugin, style)).await?;
        }
    }
    Ok(())
}

/// What goes on all the same is of as much interest as what does not.
async fn with_state(
    error: OperateError,
    order: OrderName,
    plugin: String,
    mut client: Client,
) -> OperateError {
    let OperateError::Refused(status) = error else { return error };
    match client.get(GetRequest { plugin }).await.map(|answer| answer.into_inner().plugin) {
        Ok(Some(plugin)) => {
            let next = match Reason::of(&status) {
                Some(Reason::Disabled) => "enable it first".to_owned(),
                _ => format!("it is {}", views::now(&plugin, Style::none())),
            };
            OperateError::Order { verb: order.verb(), plugin: plugin.name, next, status }
        }
        _ => OperateError::Refused(status),
    }
}

async fn send(
    order: OrderName,
    mut client: Client,
    request: OrderRequest,
    program: Option<String>,
) -> Result<Response<OrderResponse>, Status> {
    match order {
        OrderName::Restart => client.restart(request).await,
        OrderName::Reload => {
            let OrderRequest { plugin, wait } = request;
            client.reload(ReloadRequest { plugin, wait, program: program.unwrap_or_default() }).await
        }
        OrderName::Stop => client.stop(request).await,
        OrderName::Start => client.start(request).await,
        OrderName::Enable => client.enable(request).await,
        OrderName::Disable => client.disable(request).await,
        OrderName::Clear => client.clear(request).await,
    }
}

/// The host may have another working directory. Links stay: what they lead to may change.
fn absolute(path: &Path) -> Result<String, OperateError> {
    let path: PathBuf = std::path::absolute(path).map_err(OperateError::Path)?;
    path.into_os_string().into_string().map_err(|_| OperateError::PathNotText)
}

/// One line on a terminal that changes: how long it takes, and what the host has decided last.
struct Progress<'a> {
    what: String,
    plugin: String,
    client: Client,
    /// `None`: nobody looks.
    talk: Option<&'a Talk>,
}

/// How long an order may take without a word.
const PATIENCE: Duration = Duration::from_millis(300);

impl<'a> Progress<'a> {
    fn begin(order: OrderName, plugin: &str, client: Client, talk: &'a Talk) -> Self {
        let talk = std::io::stderr().is_terminal().then_some(talk);
        let what = format!("{} {}", order.verb(), escaped(plugin)).trim_end().to_owned();
        Self { what, plugin: plugin.to_owned(), client, talk }
    }

    /// Goes on until it is dropped.
    async fn show(mut self) -> std::convert::Infallible {
        let Some(talk) = self.talk else { return std::future::pending().await };
        let begun = Instant::now();
        tokio::time::sleep(PATIENCE).await;
        let since = std::time::SystemTime::now() - PATIENCE;
        let request =
            EventsRequest { plugin: self.plugin, since: Some(since.into()), follow: true, tail: None };
        // Without events there is the time.
        let mut events = self.client.events(request).await.ok().map(Response::into_inner);
        let mut ticks = interval_at(Instant::now(), Duration::from_millis(500));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut latest = String::new();
        loop {
            let seconds = begun.elapsed().as_secs();
            talk.progress(format_args!("{} ... {seconds}s {latest}", self.what));
            let event = async {
                match &mut events {
                    Some(events) => events.message().await.ok().flatten(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {}
                event = event => match event.and_then(|event| event.item) {
                    Some(events_response::Item::Event(event)) => latest = escaped(&event.text).to_string(),
                    Some(events_response::Item::Missed(_)) => {}
                    None => events = None,
                }
            }
        }
    }
}
