//! Callers of a plugin that is kept running to whom its instances are not all the same: broker's ids and versions belong to
//! one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plugin_sdk::Broker;
use plugin_sdk::host::{
    Backoff, CallError, Failure, Launch, NotReady, OrderError, PluginChannel, PluginHandle, PrepareError,
    RestartPolicy, Supervised, Supervisor, Swap,
};
use rustix::process::Signal;
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::{LIMIT, SAMPLE, contract, is_running, sample, script, signal, until};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Code, Status};

mod support;

fn supervisor(launch: Launch) -> Supervisor {
    let backoff = Backoff::constant(Duration::from_millis(10));
    // Drains end when their calls do.
    let swap = Swap { settle: Duration::from_millis(50), drain: Duration::from_secs(3_600) };
    Supervisor::launch(launch).policy(RestartPolicy { backoff, ..RestartPolicy::default() }).swap(swap)
}

async fn serving(supervisor: Supervisor) -> Supervised {
    let plugin = supervisor.start();
    let ready = tokio::time::timeout(LIMIT, plugin.ready()).await.expect("it does not take long");
    ready.expect("it serves");
    plugin
}

/// Has the plugin call a service of this host.
async fn call_back(channel: &PluginChannel, broker: &Broker) -> Result<Vec<u8>, Status> {
    let id = broker.next_id();
    let server = broker.accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await;
    let server = server.map_err(|error| Status::unknown(error.to_string()))?;
    let answer = SampleClient::new(channel.clone()).call_back(server.id()).await;
    answer.map(tonic::Response::into_inner)
}

fn drained(handle: &PluginHandle) -> bool {
    handle.events().kept().iter().any(|event| event.entry.what.name() == "drained")
}

#[tokio::test]
async fn each_instance_calls_back_over_its_own_broker_and_an_old_one_until_it_is_let_go() {
    for multiplexing in [false, true] {
        let plugin = serving(supervisor(sample().multiplexing(multiplexing))).await;
        let handle = plugin.handle();
        let (first, broker) = plugin.channel().hold().await.unwrap();
        assert_eq!(call_back(&first, &broker).await.unwrap(), b"host got from plugin");

        let old = handle.status().borrow().state.live().unwrap().clone();
        let swapped = handle.reload(None).await.unwrap().expect("it serves");
        let (second, next_broker) = plugin.channel().hold().await.unwrap();
        assert_eq!((first.instance(), second.instance()), (Some(old.instance), Some(swapped.instance)));
        assert_eq!(call_back(&second, &next_broker).await.unwrap(), b"host got from plugin");
        // What was begun with the old one is finished with it.
        assert_eq!(call_back(&first, &broker).await.unwrap(), b"host got from plugin");
        assert!(!drained(handle), "it is held on to");
        drop(first);
        until("the old one is gone", async || drained(handle)).await;
        assert!(!is_running(old.pid.unwrap()));
        assert!(broker.dial(1).await.is_err(), "the broker has ended with its instance");

        handle.restart().await.unwrap();
        let error = SampleClient::new(second.clone()).who(()).await.unwrap_err();
        assert_eq!((CallError::of(&error), second.instance()), (Some(CallError::Down), None));
        let (third, broker) = plugin.channel().hold().await.unwrap();
        assert_eq!(call_back(&third, &broker).await.unwrap(), b"host got from plugin");
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn a_plugin_that_rests_is_woken_by_who_wants_its_broker_and_does_not_rest_meanwhile() {
    let plugin = supervisor(sample()).lazy(true).idle_after(Duration::from_millis(50)).start();
    let (channel, broker) = plugin.channel().hold().await.unwrap();
    let held = channel.instance();
    let open = tokio::time::Instant::now();
    until("it could have been idle", async || open.elapsed() > Duration::from_millis(200)).await;
    assert_eq!(channel.instance(), held);
    assert_eq!(call_back(&channel, &broker).await.unwrap(), b"host got from plugin");
    drop(channel);
    let mut status = plugin.status();
    let stopped = status.wait_for(|status| status.state.name() == "stopped");
    tokio::time::timeout(LIMIT, stopped).await.expect("it is idle").expect("the supervisor is there");
    plugin.shutdown().await;
}

#[tokio::test]
async fn every_new_instance_is_prepared_before_it_is_called() {
    let (tell, mut told) = mpsc::unbounded_channel();
    // Multiplexing, since a plugin that has not got it can dial an id once only, and this one dials for each call.
    let plugin = serving(supervisor(sample().multiplexing(true)).prepare(move |new| {
        let tell = tell.clone();
        async move {
            let routes = Routes::new(SampleServer::new(Greeter));
            let server = new.broker.accept_and_serve(new.broker.next_id(), routes).await?;
            let _ = tell.send((new.app_version.get(), server.id()));
            SampleClient::new(new.channel).call_back(server.id()).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(server)
        }
    }))
    .await;
    let handle = plugin.handle();
    let mut client = SampleClient::new(plugin.channel());
    for bring in ["start", "restart", "swap", "crash"] {
        match bring {
            "restart" => _ = handle.restart().await.unwrap(),
            "swap" => _ = handle.reload(None).await.unwrap(),
            "crash" => {
                let live = handle.status().borrow().state.live().unwrap().clone();
                signal(live.pid.unwrap(), Signal::KILL);
                plugin.channel().instance_changed(Some(live.instance)).await;
                plugin.ready().await.unwrap();
            }
            _ => {}
        }
        let (version, id) = told.try_recv().expect("it was prepared before");
        assert_eq!((version, told.try_recv().is_err()), (1, true), "{bring}: it is prepared once");
        // What was kept for it is there for as long as it is.
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin", "{bring}");
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn an_instance_that_cannot_be_prepared_does_not_serve() {
    let policy = RestartPolicy { hopeless_after: 2, ..RestartPolicy::default() };
    let plugin = supervisor(sample())
        .policy(policy)
        .prepare(|new| async move { SampleClient::new(new.channel).env("NO_SUCH".to_owned()).await })
        .start();
    let error = tokio::time::timeout(LIMIT, plugin.ready()).await.expect("it is given up").unwrap_err();
    let NotReady::GaveUp { last: Some(failure @ Failure::Prepare(_)), .. } = &error else {
        panic!("{error:?}")
    };
    let Failure::Prepare(why) = failure else { unreachable!() };
    assert!(matches!(**why, PrepareError::Failed(_)));
    assert!(!failure.to_string().contains("not set"), "the plugin's own words may be secret");
    assert!(plugin_sdk::one_line(&error).to_string().contains("not set"), "{}", plugin_sdk::one_line(&error));
    plugin.shutdown().await;

    // The end of the process is the better reason.
    let dies = supervisor(sample())
        .policy(RestartPolicy { hopeless_after: 1, ..policy })
        .prepare(|new| async move { SampleClient::new(new.channel).die("exit".to_owned()).await })
        .start();
    let error = tokio::time::timeout(LIMIT, dies.ready()).await.expect("it is given up").unwrap_err();
    assert!(matches!(&error, NotReady::GaveUp { last: Some(Failure::Start(_)), .. }), "{error:?}");
    dies.shutdown().await;
}

#[tokio::test]
async fn a_panic_in_what_the_application_does_with_an_instance_ends_nothing_else() {
    let calls = Arc::new(AtomicUsize::new(0));
    let plugin = supervisor(sample())
        .prepare(move |_| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first one is not prepared");
            std::future::ready(Ok::<(), Status>(()))
        })
        .warm_up(|_, _| async { panic!("this one is not warmed up") })
        .start();
    let ready = tokio::time::timeout(LIMIT, plugin.ready()).await.expect("it does not take long");
    assert_eq!(ready.expect("it is tried again").instance, 2);
    plugin.handle().reload(None).await.expect("the swap goes on");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_swap_to_an_instance_that_cannot_be_prepared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = script(dir.path(), &format!("OTHER=yes exec {SAMPLE}"));
    let plugin = serving(supervisor(sample()).prepare(|new| async move {
        match SampleClient::new(new.channel).env("OTHER".to_owned()).await {
            Ok(_) => Err(Status::failed_precondition("another one")),
            Err(_) => Ok(()),
        }
    }))
    .await;
    let error = plugin.handle().reload(Some(other.program().to_path_buf())).await.unwrap_err();
    assert!(matches!(error, OrderError::NotStarted(Failure::Prepare(_))), "{error:?}");
    assert_eq!(SampleClient::new(plugin.channel()).who(()).await.unwrap().into_inner(), "rust 1");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_client_of_one_version_is_told_when_another_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let speaks = |version: u32| {
        let dir = dir.path().join(version.to_string());
        std::fs::create_dir(&dir).unwrap();
        script(&dir, &format!("PLUGIN_PROTOCOL_VERSIONS={version} exec {SAMPLE}")).program().to_path_buf()
    };
    let (one, two) = (speaks(1), speaks(2));
    let plugin = serving(supervisor(Launch::new(one, contract(&[1, 2])))).await;
    let channel = plugin.channel();
    let mut of_one = SampleClient::new(channel.clone().for_version(1));
    let mut of_two = SampleClient::new(channel.clone().wait_for_ready(true).for_version(2));
    assert_eq!(channel.app_version(), Some(1.into()));
    assert_eq!(of_one.who(()).await.unwrap().into_inner(), "rust 1");
    let error = of_two.who(()).await.unwrap_err();
    let other = CallError::OtherVersion { wanted: 2.into(), serves: 1.into() };
    assert_eq!((CallError::of(&error), error.code()), (Some(other), Code::FailedPrecondition));

    plugin.handle().reload(Some(two)).await.unwrap();
    assert_eq!(channel.app_version(), Some(2.into()));
    assert_eq!(of_two.who(()).await.unwrap().into_inner(), "rust 2");
    let error = CallError::of(&of_one.who(()).await.unwrap_err());
    assert_eq!(error, Some(CallError::OtherVersion { wanted: 1.into(), serves: 2.into() }));
    let held = channel.for_version(1).hold().await.map(|_| ()).unwrap_err();
    assert_eq!(Some(held), error);
    plugin.shutdown().await;
}
