//! What becomes of calls and of the plugin's health when Redis fails in each of its ways. Whatever it is, the plugin says
//! that it does not serve, answers calls in time all the same, and serves again by itself.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use cache_contract::{Plugin, entry, get, value};
use cache_proto::PipeRequest;
use redis::Value;
use rustix::process::Signal;
use support::{PROGRAM, Redis, free_port};
use tokio::net::UnixListener;
use tonic::{Code, Status};

/// The status of a call that must fail.
async fn failure(plugin: &Plugin) -> Status {
    plugin.get("k").await.expect_err("Redis is away")
}

async fn store(plugin: &Plugin) {
    plugin.set(entry("k", "v", None)).await.expect("Redis is there");
    assert_eq!(get(plugin, "k").await.as_deref(), Some(&b"v"[..]));
}

#[tokio::test]
async fn killed_and_restarted() {
    let Some(mut redis) = Redis::start("killed_and_restarted") else { return };
    let plugin = redis.plugin(&[]).await;
    for _ in 0..3 {
        store(&plugin).await;
        redis.kill();
        plugin.until_serving(false).await;
        assert_eq!(failure(&plugin).await.code(), Code::Unavailable);
        redis.up();
        plugin.until_serving(true).await;
        assert_eq!(get(&plugin, "k").await, None, "it has kept nothing");
    }
    store(&plugin).await;
    plugin.end().await;
}

#[tokio::test]
async fn a_call_under_way_fails_when_redis_is_killed() {
    let Some(mut redis) = Redis::start("a_call_under_way_fails_when_redis_is_killed") else { return };
    let plugin = redis.plugin(&["--timeout=1h"]).await;
    redis.signal(Signal::STOP);
    let (status, ()) = tokio::join!(failure(&plugin), async {
        tokio::task::yield_now().await;
        redis.kill();
    });
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    plugin.end().await;
}

#[tokio::test]
async fn stopped_and_continued() {
    let Some(redis) = Redis::start("stopped_and_continued") else { return };
    let plugin = redis.plugin(&["--timeout=300ms", "--connect-timeout=300ms"]).await;
    // On a busy machine it is not always in time.
    plugin_testkit::until("an entry", async || plugin.set(entry("k", "v", None)).await.is_ok()).await;
    redis.signal(Signal::STOP);
    let begun = Instant::now();
    let status = failure(&plugin).await;
    assert!([Code::DeadlineExceeded, Code::Unavailable].contains(&status.code()), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    plugin.until_serving(false).await;
    // With the connection gone, nobody waits any more.
    let status = failure(&plugin).await;
    assert!([Code::DeadlineExceeded, Code::Unavailable].contains(&status.code()), "{status:?}");
    redis.signal(Signal::CONT);
    plugin.until_serving(true).await;
    plugin_testkit::until("the entry", async || {
        plugin.get("k").await.is_ok_and(|found| value(found).as_deref() == Some(b"v"))
    })
    .await;
    plugin.end().await;
}

#[tokio::test]
async fn stopped_while_nobody_asks() {
    let Some(redis) = Redis::start("stopped_while_nobody_asks") else { return };
    let plugin = redis.plugin(&["--timeout=300ms", "--connect-timeout=300ms"]).await;
    redis.signal(Signal::STOP);
    plugin.until_serving(false).await;
    redis.signal(Signal::CONT);
    plugin.until_serving(true).await;
    plugin.end().await;
}

#[tokio::test]
async fn loading() {
    let Some(mut redis) = Redis::start("loading") else { return };
    let plugin = redis.plugin(&[]).await;
    let entries = (0..2000).map(|n| entry(&n.to_string(), vec![b'x'; 200], None)).collect();
    plugin.set_many(entries).await.expect("Redis is there");
    let _: Value = redis.command(&["SAVE"]);
    redis.kill();
    // A hundredth of a second for each entry, and others are served in between.
    redis.args(&["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]);
    redis.launch();
    plugin_testkit::until("the plugin to say what Redis does", async || {
        plugin.log().contains("Redis is loading its data")
    })
    .await;
    assert!(!plugin.serves().await);
    let status = failure(&plugin).await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "Redis is loading its data"));
    let _: Value = redis.command(&["CONFIG", "SET", "key-load-delay", "0"]);
    plugin.until_serving(true).await;
    assert_eq!(get(&plugin, "1999").await, Some(vec![b'x'; 200]));
    plugin.end().await;
}

#[tokio::test]
async fn a_replica_is_read_and_takes_nothing_until_it_is_the_primary() {
    const TEST: &str = "a_replica_is_read_and_takes_nothing_until_it_is_the_primary";
    let (Some(mut primary), Some(redis)) = (Redis::down(TEST), Redis::start(TEST)) else { return };
    let port = free_port();
    primary.args(&["--port", &port, "--repl-diskless-sync-delay", "0"]);
    primary.up();
    let plugin = redis.plugin(&[]).await;
    let _: Value = redis.command(&["REPLICAOF", "127.0.0.1", &port]);
    let other = primary.plugin(&[]).await;
    store(&other).await;
    plugin_testkit::until("the entry to reach the replica", async || get(&plugin, "k").await.is_some()).await;

    // The connection is replaced in between, which nobody notices.
    for _ in 0..200 {
        let status = plugin.set(entry("k", "new", None)).await.expect_err("it is read-only");
        assert_eq!(
            (status.code(), status.message()),
            (Code::FailedPrecondition, "Redis is a read-only replica")
        );
        assert!(plugin.get("k").await.is_ok());
    }
    assert_eq!(
        plugin.delete(vec!["k".into()]).await.expect_err("it is read-only").code(),
        Code::FailedPrecondition
    );
    assert_eq!(plugin.flush().await.expect_err("it is read-only").code(), Code::FailedPrecondition);
    let told = || plugin.log().matches("stores of the cache fail: Redis is a read-only replica").count();
    plugin_testkit::until("it to be told", async || told() == 1).await;
    assert_eq!(get(&plugin, "k").await.as_deref(), Some(&b"v"[..]));
    assert!(plugin.serves().await);

    let _: Value = redis.command(&["REPLICAOF", "NO", "ONE"]);
    plugin.set(entry("k", "new", None)).await.expect("it is the primary");
    plugin.end().await;
    other.end().await;
}

#[tokio::test]
async fn address_that_leads_to_another_primary_is_followed_though_the_old_one_is_there() {
    const TEST: &str = "address_that_leads_to_another_primary_is_followed_though_the_old_one_is_there";
    let (Some(mut new), Some(old)) = (Redis::down(TEST), Redis::start(TEST)) else { return };
    let port = free_port();
    new.args(&["--port", &port]);
    new.up();
    let address = old.directory().join("primary.sock");
    symlink(old.socket(), &address).unwrap();
    let url = format!("--url=unix://{}", address.display());
    let plugin = Plugin::start(PROGRAM, [&*url, "--timeout=30s"]).await;
    store(&plugin).await;

    let _: Value = old.command(&["REPLICAOF", "127.0.0.1", &port]);
    let status = plugin.set(entry("k", "new", None)).await.expect_err("it is read-only");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let next = old.directory().join("next.sock");
    symlink(new.socket(), &next).unwrap();
    fs::rename(next, address).unwrap();
    plugin_testkit::until("stores to reach the new one", async || {
        plugin.set(entry("k", "new", None)).await.is_ok()
    })
    .await;
    assert_eq!(new.command::<usize>(&["DBSIZE"]), 1);
    plugin.end().await;
}

#[tokio::test]
async fn user_locked_out() {
    let Some(redis) = Redis::start("user_locked_out") else { return };
    let file = redis.directory().join("url");
    let write = |password: &str| {
        fs::write(&file, format!("{}?pass={password}\n", redis.url())).expect("a file can be written");
    };
    write("hunter2");
    let _: Value = redis.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let plugin = Plugin::start(PROGRAM, [&*format!("--url-file={}", file.display()), "--timeout=30s"]).await;
    store(&plugin).await;

    let mut operator = redis.connection_as("hunter2").expect("it is the password");
    for command in [&["CONFIG", "SET", "requirepass", "hunter3"][..], &["CLIENT", "KILL", "TYPE", "normal"]] {
        let _: Value =
            redis::cmd(command[0]).arg(&command[1..]).query(&mut operator).expect("Redis is there");
    }
    plugin.until_serving(false).await;
    plugin_testkit::until("the plugin to say why", async || plugin.log().contains("user or the password"))
        .await;
    let status = failure(&plugin).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");

    write("hunter3");
    plugin.until_serving(true).await;
    assert_eq!(get(&plugin, "k").await.as_deref(), Some(&b"v"[..]));
    assert!(!plugin.log().contains("hunter"), "{}", plugin.log());
    assert!(!status.message().contains("hunter"), "{status:?}");
    plugin.end().await;
}

#[tokio::test]
async fn url_file_that_is_gone_is_told_once() {
    let Some(mut redis) = Redis::start("url_file_that_is_gone_is_told_once") else { return };
    let file = redis.directory().join("url");
    fs::write(&file, redis.url()).expect("a file can be written");
    let plugin = Plugin::start(PROGRAM, [&*format!("--url-file={}", file.display()), "--timeout=30s"]).await;
    store(&plugin).await;
    fs::remove_file(&file).expect("it is there");
    redis.kill();
    let _none = fs::remove_file(redis.socket());
    let nobody = UnixListener::bind(redis.socket()).expect("Redis has left it");
    // Each attempt begins with a look at the file.
    for _ in 0..4 {
        nobody.accept().await.expect("the plugin tries again");
    }
    assert_eq!(plugin.log().matches("going by the last URL").count(), 1, "{}", plugin.log());
    fs::write(&file, redis.url()).expect("a file can be written");
    plugin_testkit::until("the plugin to say that it is back", async || {
        let _tried = tokio::time::timeout(Duration::from_millis(10), nobody.accept()).await;
        plugin.log().contains("can be read again")
    })
    .await;
    plugin.end().await;
}

#[tokio::test]
async fn user_without_a_password_is_the_user_who_is_named() {
    let Some(redis) = Redis::start("user_without_a_password_is_the_user_who_is_named") else { return };
    let words = ["SETUSER", "fib", "on", "nopass", "~fib:*", "+mget", "+pttl", "+eval", "+set", "+ping"];
    let mut operator = redis.connection().expect("it runs");
    let _: Value = redis::cmd("ACL").arg(&words).query(&mut operator).expect("Redis is there");
    let plugin = Plugin::start(PROGRAM, [&*format!("--url={}?user=fib", redis.url()), "--timeout=30s"]).await;
    store(&plugin).await;
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut operator).expect("Redis is there");
    assert!(clients.contains("user=fib"), "{clients}");
    plugin.end().await;
}

#[tokio::test]
async fn what_is_wrong_when_it_connects_is_told_by_its_name() {
    let Some(redis) = Redis::start("what_is_wrong_when_it_connects_is_told_by_its_name") else { return };
    const LOGGED_OUT: &str = "Redis does not accept the user or the password, or wants one";
    const NOT_PERMITTED: &str = "the Redis user may not use this command or these keys";
    const CROWDED: &str = "Redis has as many clients as it allows";
    let file = redis.directory().join("url");
    let write = |query: &str| {
        fs::write(&file, format!("{}?{query}\n", redis.url())).expect("a file can be written");
    };
    write("");
    let plugin = Plugin::start(PROGRAM, [&*format!("--url-file={}", file.display()), "--timeout=30s"]).await;
    store(&plugin).await;

    let mut operator = redis.connection().expect("it runs");
    let mut command = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let done: Value = redis::cmd(words[0]).arg(&words[1..]).query(&mut operator).expect("Redis is there");
        done
    };
    command("ACL SETUSER reader on >hunter2 ~fib:* +mget +pttl +eval");
    for (change, query, message, code) in [
        ("CONFIG SET maxclients 1", "", CROWDED, Code::Unavailable),
        ("CONFIG SET maxclients 1", "user=reader&pass=hunter2", CROWDED, Code::Unavailable),
        ("CONFIG SET maxclients 1", "db=3", CROWDED, Code::Unavailable),
        ("PING", "user=reader&pass=hunter2&db=3", NOT_PERMITTED, Code::FailedPrecondition),
        ("PING", "user=reader&pass=hunter3", LOGGED_OUT, Code::FailedPrecondition),
        // It wants none.
        ("PING", "pass=hunter2", LOGGED_OUT, Code::FailedPrecondition),
        ("CONFIG SET requirepass hunter2", "db=3", LOGGED_OUT, Code::FailedPrecondition),
    ] {
        command(change);
        write(query);
        command("CLIENT KILL TYPE normal");
        let mut last = None;
        plugin_testkit::until(&format!("{message:?} after {change}, ?{query}"), async || {
            last = plugin.get("k").await.err();
            last.as_ref().is_some_and(|status| status.message() == message)
        })
        .await;
        assert_eq!(last.expect("it has failed").code(), code, "{change}, {query}");
        assert!(!plugin.serves().await);
        command("CONFIG SET maxclients 1000");
    }
    write("pass=hunter2&db=3");
    plugin.until_serving(true).await;
    assert_eq!(get(&plugin, "k").await, None, "it is another database");
    store(&plugin).await;
    assert!(!plugin.log().contains("hunter"), "{}", plugin.log());
    plugin.end().await;
}

#[tokio::test]
async fn unable_to_save() {
    let Some(mut redis) = Redis::down("unable_to_save") else { return };
    let folder = redis.directory().join("data");
    fs::create_dir(&folder).expect("a directory can be made");
    redis.args(&["--dir", folder.to_str().expect("names here are text")]);
    redis.up();
    let plugin = redis.plugin(&[]).await;
    store(&plugin).await;
    fs::remove_dir(&folder).expect("it is empty");
    let _: Value = redis.command(&["CONFIG", "SET", "save", "3600 1"]);
    let _: Value = redis.command(&["BGSAVE"]);
    plugin_testkit::until("Redis to see that it cannot save", async || {
        redis.command::<String>(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
    })
    .await;
    // It tells so to whoever asks whether it is well, on a new connection, too.
    let answer = redis::cmd("PING").query::<String>(&mut redis.connection().expect("it runs"));
    assert_eq!(answer.expect_err("it cannot save").code(), Some("MISCONF"));

    for _ in 0..2 {
        plugin_testkit::until("an entry", async || plugin.get("k").await.is_ok()).await;
        assert_eq!(get(&plugin, "k").await.as_deref(), Some(&b"v"[..]));
        let status = plugin.set(entry("k", "new", None)).await.expect_err("it takes nothing");
        assert_eq!(
            (status.code(), status.message()),
            (Code::FailedPrecondition, "Redis cannot save its data, and takes no more until it can")
        );
        assert!(plugin.serves().await);
        let _: Value = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    let told = plugin.log().matches("stores of the cache fail: Redis cannot save its data").count();
    assert_eq!(told, 1, "{}", plugin.log());

    let _: Value = redis.command(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    plugin_testkit::until("it to take an entry", async || plugin.set(entry("k", "new", None)).await.is_ok())
        .await;
    assert_eq!(get(&plugin, "k").await.as_deref(), Some(&b"new"[..]));
    plugin.end().await;
}

#[tokio::test]
async fn user_without_permission() {
    let Some(redis) = Redis::start("user_without_permission") else { return };
    let _: Value =
        redis.command(&["ACL", "SETUSER", "reader", "on", ">hunter2", "~fib:*", "+mget", "+pttl", "+eval"]);
    let url = format!("--url={}?user=reader&pass=hunter2", redis.url());
    let plugin = Plugin::start(PROGRAM, [&*url, "--timeout=30s"]).await;
    assert_eq!(get(&plugin, "k").await, None);
    for _ in 0..100 {
        let status = plugin.set(entry("k", "secret", None)).await.expect_err("it is not permitted");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(!status.message().contains("secret"), "{status:?}");
    }
    assert!(plugin.serves().await);
    let said = "stores of the cache fail: the Redis user may not use this command or these keys";
    plugin_testkit::until("the plugin to say why", async || plugin.log().contains(said)).await;
    assert_eq!(plugin.log().matches("of the cache fail").count(), 1, "{}", plugin.log());
    assert!(!plugin.log().contains("hunter2"), "{}", plugin.log());
    plugin.end().await;
}

#[tokio::test]
async fn user_for_some_of_the_keys() {
    let Some(redis) = Redis::start("user_for_some_of_the_keys") else { return };
    let _: Value = redis.command(&["ACL", "SETUSER", "some", "on", ">hunter2", "~fib:a*", "+@all"]);
    let url = format!("--url={}?user=some&pass=hunter2", redis.url());
    let plugin = Plugin::start(PROGRAM, [&*url, "--timeout=30s"]).await;
    let sets = ["b1", "a1", "b2", "a2"].map(|key| entry(key, "v", None)).into();
    let errors = plugin.pipe().ask(PipeRequest { batch: 1, gets: vec![], sets }).await.set_errors;
    let codes: Vec<_> = errors.iter().map(|error| (error.index, Code::from(error.code))).collect();
    assert_eq!(codes, [(0, Code::FailedPrecondition), (2, Code::FailedPrecondition)]);
    for key in ["a1", "a2"] {
        assert_eq!(get(&plugin, key).await.as_deref(), Some(&b"v"[..]), "it is stored");
    }
    plugin.end().await;
}

#[tokio::test]
async fn full() {
    let Some(redis) = Redis::start("full") else { return };
    let plugin = redis.plugin(&[]).await;
    store(&plugin).await;
    let _: Value = redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let _: Value = redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    plugin.set(entry("k", "new", None)).await.expect("a full cache is no error");
    assert_eq!(get(&plugin, "k").await, None, "and it does not keep what was replaced");
    assert!(plugin.serves().await);
    plugin.end().await;
}

#[tokio::test]
async fn down_at_the_start() {
    let Some(mut redis) = Redis::down("down_at_the_start") else { return };
    let url = format!("--url={}", redis.url());
    let (plugin, ()) = tokio::join!(Plugin::start(PROGRAM, [&*url, "--timeout=30s"]), async {
        tokio::task::yield_now().await;
        redis.up();
    });
    store(&plugin).await;
    plugin.end().await;

    redis.kill();
    let error = Plugin::try_start(PROGRAM, [url], Duration::from_secs(4)).await;
    let error = plugin_sdk::one_line(&error.err().expect("Redis is down")).to_string();
    assert!(error.contains("NOT_SERVING") && error.contains("Redis"), "{error}");
}
