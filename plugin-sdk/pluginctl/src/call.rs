//! `pluginctl call`: one call of a plugin that lives just for it.

use std::time::Duration;

use plugin_sdk::host::{ExitKind, Launch, Plugin};
use plugin_sdk::one_line;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Extensions, Request, Status};

use crate::cli::Format;
use crate::config::{Call, Source};
use crate::data::{Arity, Messages};
use crate::dynamic::DynamicCodec;
use crate::escape::escaped;
use crate::failure::Failure;
use crate::limits::{DEADLINE_SLACK, MAX_MESSAGE_BYTES};
use crate::output::{Output, OutputError};
use crate::status::{self, CallStatus};
use crate::stop::Stop;
use crate::talk::Talk;
use crate::{metadata, schema};

/// Starts a plugin, calls it, shows what it answers and stops it.
pub(crate) async fn call(
    call: Call,
    launch: &Launch,
    timeout: Duration,
    mut show: Show<'_>,
    stop: &Stop,
) -> Result<(), Failure> {
    show.verbose = call.verbose;
    // The states of a whole start and of a call are in them.
    let plugin = match Box::pin(stop.or(launch.start())).await {
        Ok(Ok(plugin)) => plugin,
        Ok(Err(error)) => return show.failure(error.into()).await,
        Err(signal) => return Err(signal.into()),
    };
    let called = match Box::pin(stop.or(talk_to(&plugin, call, timeout, &mut show))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(failure.or_end_of(&plugin).await),
        Err(signal) => Err(signal.into()),
    };
    let exit = plugin.shutdown().await;
    show.talk(format_args!("plugin ended: {exit}"));
    match called {
        Err(failure) => show.failure(failure).await,
        Ok(()) if exit.status == ExitKind::Unreaped => Err(Failure::NotGone { exit }),
        Ok(()) => Ok(()),
    }
}

async fn talk_to(plugin: &Plugin, call: Call, timeout: Duration, show: &mut Show<'_>) -> Result<(), Failure> {
    let timed_out = |what| Failure::TimedOut { what, after: timeout };
    let pool = match call.source {
        Source::Files(pool) => pool,
        Source::Reflection => {
            let reflected = schema::reflect(plugin.channel(), &call.method.service);
            tokio::time::timeout(timeout, reflected).await.map_err(|_| timed_out("reflection"))??
        }
    };
    let method = schema::find(&pool, &call.method)?;
    let arity = if method.is_client_streaming() { Arity::Many } else { Arity::One };
    let (messages, bad_data) = Messages::read(call.data, method.input(), arity).split();
    let mut metadata = call.metadata;
    set_timeout(&mut metadata, timeout);
    let request = Request::from_parts(metadata, Extensions::default(), messages);
    let done = tokio::time::timeout(timeout, converse(plugin.channel(), &method, request, show));
    tokio::select! {
        biased;
        error = bad_data => Err(error.into()),
        done = done => done.map_err(|_| timed_out("the call"))?,
    }
}

/// Tells the plugin how long it has.
fn set_timeout(metadata: &mut MetadataMap, timeout: Duration) {
    let mut carrier = Request::new(());
    carrier.set_timeout(timeout + DEADLINE_SLACK);
    if let Some(value) = carrier.metadata().get("grpc-timeout") {
        metadata.insert("grpc-timeout", value.clone());
    }
}

async fn converse(
    channel: Channel,
    method: &MethodDescriptor,
    request: Request<impl tokio_stream::Stream<Item = DynamicMessage> + Send + 'static>,
    show: &mut Show<'_>,
) -> Result<(), Failure> {
    let failed = |status: Status| Failure::Status(CallStatus::new(status));
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    // Names of services and methods are identifiers, which are always good paths.
    let path = PathAndQuery::try_from(path).map_err(|error| failed(Status::internal(error.to_string())))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    client.ready().await.map_err(|error| failed(Status::from_error(error.into())))?;
    // A call with one message each way is a stream on the wire too.
    let response =
        client.streaming(request, path, DynamicCodec { answer: method.output() }).await.map_err(failed)?;
    show.headers(response.metadata()).await?;
    let mut answers = response.into_inner();
    let mut count = 0_usize;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        show.message(&answer).await?;
        count += 1;
    }
    let trailers = answers.trailers().await.map_err(failed)?.unwrap_or_default();
    if count == 0 && !method.is_server_streaming() {
        return Err(Failure::NoMessage);
    }
    show.end(None, &trailers).await?;
    Ok(())
}

/// Where the parts of an answer go.
pub(crate) struct Show<'a> {
    output: &'a mut Output,
    talk: &'a Talk,
    format: Format,
    verbose: bool,
}

impl<'a> Show<'a> {
    pub(crate) fn new(output: &'a mut Output, talk: &'a Talk, format: Format) -> Self {
        Self { output, talk, format, verbose: false }
    }

    fn talk(&self, line: impl std::fmt::Display) {
        if self.verbose {
            self.talk.say(line);
        }
    }

    fn pairs(&self, kind: &str, metadata: &MetadataMap) {
        for (name, value) in metadata::pairs(metadata) {
            self.talk(format_args!("{kind} {}: {}", escaped(&name), escaped(&value)));
        }
    }

    async fn headers(&mut self, headers: &MetadataMap) -> Result<(), OutputError> {
        self.pairs("header", headers);
        match self.format {
            Format::Text => Ok(()),
            Format::Json => self.output.json(&json!({ "headers": metadata::json(headers) })).await,
        }
    }

    async fn message(&mut self, message: &DynamicMessage) -> Result<(), Failure> {
        let value = serde_json::to_value(message).map_err(Failure::Unshowable)?;
        match self.format {
            Format::Text => self.output.pretty(&value).await?,
            Format::Json => self.output.json(&json!({ "message": value })).await?,
        }
        Ok(())
    }

    /// `None` is OK.
    async fn end(&mut self, status: Option<&Status>, trailers: &MetadataMap) -> Result<(), OutputError> {
        self.pairs("trailer", trailers);
        match self.format {
            Format::Text => Ok(()),
            Format::Json => {
                let end: Value =
                    json!({ "status": status::json(status), "trailers": metadata::json(trailers) });
                self.output.json(&end).await
            }
        }
    }

    /// Shows a failure to programs; people read it on stderr.
    async fn failure(&mut self, failure: Failure) -> Result<(), Failure> {
        match &failure {
            Failure::Output(_) | Failure::Stopped(_) => {}
            Failure::Status(status) if !status.is_local() => {
                self.end(Some(status.status()), status.status().metadata()).await?;
            }
            other if self.format == Format::Json => {
                self.output.json(&json!({ "error": one_line(other).to_string() })).await?;
            }
            _ => {}
        }
        Err(failure)
    }
}
