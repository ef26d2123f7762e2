//! A plugin before it serves: services that take time, that cannot be made, or that are waited for in vain.
#![allow(clippy::unwrap_used, reason = "all of it is tests, parts of one among them")]

use plugin_sdk::host::{ExitKind, LaunchError};
use plugin_sdk::plugin::{PluginBuilder, ServeError};
use plugin_sdk::{InMemory, InMemoryError};
use rustix::process::Signal;
use support::logged::{Line, Logged};
use support::{contract, sample, signal, start, who};
use tonic::Status;
use tonic::service::Routes;

mod support;

fn waits(line: &Line) -> bool {
    line.message() == "waiting for the database"
}

#[tokio::test]
async fn services_may_take_their_time_and_a_run_time_of_their_own() {
    for flag in ["--slow-database", "--own-run-time"] {
        let (plugin, _) = start(&sample().arg(flag)).await;
        assert_eq!(who(&plugin).await, "rust 1");
        assert!(plugin.shutdown().await.is_success());
    }
}

#[tokio::test]
async fn why_services_cannot_be_made_is_one_line_that_the_host_quotes() {
    for threads in [None, Some("--own-run-time")] {
        let error = sample().arg("--no-database").args(threads).start().await.unwrap_err();
        let text = plugin_sdk::one_line(&error).to_string();
        let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
        assert_eq!((exit.status, stderr_tail.lines().len()), (ExitKind::Code(1), 1), "{text}");
        assert!(text.contains("cannot make the services of version 1: No such file"), "{text}");
    }
}

#[tokio::test]
async fn why_services_cannot_be_made_is_an_error_in_memory() {
    let plugin = PluginBuilder::new(sample_plugin::cookie())
        .try_version(1, async |_| Err(Status::data_loss("the database is damaged")));
    let error = InMemory::start(plugin, &contract(&[1])).await.unwrap_err();
    let InMemoryError::Serve(ServeError::Services { app_version, source }) = error else {
        panic!("{error:?}")
    };
    assert!(app_version == 1 && source.downcast_ref::<Status>().is_some());
}

#[tokio::test]
async fn a_plugin_that_waits_for_its_services_can_be_ended_in_order() {
    let logged = Logged::begin();
    let spawned = sample().arg("--stuck-database").spawn().await.unwrap();
    logged.line(waits).await;
    signal(spawned.pid().unwrap(), Signal::TERM);
    let error = spawned.handshake().await.unwrap_err();
    let LaunchError::Exited { exit, .. } = error else { panic!("{error:?}") };
    assert_eq!(exit.status, ExitKind::Code(0));
}

#[tokio::test]
async fn services_of_a_version_that_has_some_already_are_an_error() {
    let plugin = PluginBuilder::new(sample_plugin::cookie())
        .version(1, |_context| Routes::default())
        .version(1, |_context| Routes::default());
    let error = InMemory::start(plugin, &contract(&[1])).await.unwrap_err();
    assert!(
        matches!(error, InMemoryError::Serve(ServeError::VersionTwice(version)) if version == 1),
        "{error}"
    );
}
