//! Work that nobody waits for any more is given up.

use std::io::Write;
use std::thread;
use std::time::Duration;

use e2e::wait::wait_until;
use e2e::{Server, http, process};

#[test]
fn calculation_stops_when_the_client_has_gone() {
    let server = Server::start(["--compute-timeout=10m"]);
    let client = ask(&server, "/fib/93");
    server.wait_until_calculating();

    drop(client);
    wait_until("the calculation to stop", || {
        let before = process::cpu_ticks(server.pid());
        thread::sleep(Duration::from_millis(300));
        process::cpu_ticks(server.pid()) <= before.map(|ticks| ticks + 2)
    });
    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
}

#[test]
fn calculation_goes_on_for_the_callers_that_stay() {
    // With a plugin, the log tells of each look for the number.
    let server = Server::start_with_plugin(["--cache-plugin-path=memory", "--compute-timeout=10m"]);
    let first = ask(&server, "/fib/40");
    server.wait_until_calculating();
    let address = server.address();
    let second = thread::spawn(move || http::send(address, "GET", "/fib/40"));
    wait_until("the second caller to need the number", || server.log().count("cache miss") == 2);
    drop(first);
    let response = second.join().expect("the caller does not panic").expect("the caller is answered");
    assert_eq!(response.text(), "{\"result\":102334155}\n");
    assert!(response.cache_status().ends_with("; collapsed"), "{}", response.head);
    wait_until("the calculation to be logged", || server.calculations() > 0);
    assert_eq!(server.calculations(), 1);
}

#[test]
fn calculation_that_takes_too_long_is_given_up() {
    let server = Server::start(["--compute-timeout=300ms"]);
    let response = server.get("/fib/93");
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert!(response.json()["error"].is_string(), "{}", response.text());
    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
}

/// Sends a request and does not wait for the answer.
fn ask(server: &Server, target: &str) -> std::net::TcpStream {
    let mut stream = http::connect(server.address()).expect("the server accepts");
    stream.write_all(http::request("GET", target).as_bytes()).expect("the server reads");
    stream
}
