//! `pluginctl inspect`: one life of a plugin, and what was seen of it.

mod report;
mod text;

use std::time::{Duration, Instant};

use plugin_sdk::host::{ExitKind, HealthError, Launch, LaunchError, Plugin};
use plugin_sdk::one_line;
use tonic::Code;
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::log::Kept;
use crate::reflection::Reflection;
use crate::stop::Stop;

use report::{Handshake, Health, Method, Report, Service, Services};

/// Starts a plugin, looks at it and stops it. The report holds what is known, also where something failed.
pub(crate) async fn inspect(
    launch: &Launch,
    timeout: Duration,
    log: &Kept,
    stop: &Stop,
) -> (Report, Result<(), Failure>) {
    let mut report = Report::new(launch.program());
    let outcome = live(launch, timeout, stop, &mut report).await;
    report.log = log.take();
    report.error = outcome.as_ref().err().map(|failure| one_line(failure).to_string());
    (report, outcome)
}

async fn live(launch: &Launch, timeout: Duration, stop: &Stop, report: &mut Report) -> Result<(), Failure> {
    let begun = Instant::now();
    let spawned = stop.or(launch.spawn()).await??;
    report.pid = spawned.pid();
    let announced = stop.or(spawned.handshake()).await??;
    report.handshake = Some(Handshake::new(announced.line(), begun.elapsed()));
    let connected = Box::pin(stop.or(announced.connect())).await?;
    if let Err(LaunchError::Unhealthy { source, .. }) = &connected {
        report.health = Some(Health::Bad(one_line(source).to_string()));
    }
    let plugin = connected?;
    // Connecting ends with a health check, the first call there is.
    report.first_rpc = Some(begun.elapsed());
    let seen = match stop.or(look(&plugin, timeout, report)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(failure.or_end_of(&plugin).await),
        Err(signal) => Err(signal.into()),
    };
    let asked = Instant::now();
    let exit = plugin.shutdown().await;
    report.end = Some((exit.clone(), asked.elapsed()));
    seen?;
    if exit.status == ExitKind::Unreaped { Err(Failure::NotGone { exit }) } else { Ok(()) }
}

async fn look(plugin: &Plugin, timeout: Duration, report: &mut Report) -> Result<(), Failure> {
    match plugin.health().await {
        Ok(()) => report.health = Some(Health::Serving),
        Err(HealthError::Check(status)) if status.code() == Code::Unimplemented => {
            report.health = Some(Health::NoService);
        }
        Err(error) => {
            report.health = Some(Health::Bad(one_line(&error).to_string()));
            return Err(error.into());
        }
    }
    let listed = tokio::time::timeout(timeout, services(plugin.channel())).await;
    report.services = Some(listed.map_err(|_| Failure::TimedOut { what: "reflection", after: timeout })??);
    Ok(())
}

async fn services(channel: Channel) -> Result<Services, Failure> {
    let Some((mut reflection, names)) = Reflection::open(channel).await? else {
        return Ok(Services::NoReflection);
    };
    let mut services = Vec::new();
    for name in names {
        // One that cannot be described keeps nobody from the others.
        let methods = match reflection.declaring(&name).await {
            Ok(files) => Method::all_of(&files, &name).ok_or_else(|| "its description is missing".to_owned()),
            Err(error) => Err(one_line(&error).to_string()),
        };
        services.push(Service { name, methods });
    }
    Ok(Services::Listed { version: reflection.version(), services })
}
