//! What the server answers, and how it bounds clients that are slow, large or rude: over real sockets, without a
//! plugin.

mod harness;

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::Server;

#[test]
fn numbers_in_all_their_spellings() {
    let server = Server::start(&[]);
    for (path, body) in [
        ("/fib/0", "{\"result\":0}\n"),
        ("/fib/1", "{\"result\":1}\n"),
        ("/fib/5", "{\"result\":5}\n"),
        ("/fib/05", "{\"result\":5}\n"),
        ("/fib/+5", "{\"result\":5}\n"),
        ("/fib/%35", "{\"result\":5}\n"),
        ("/fib/%2B5", "{\"result\":5}\n"),
        ("/fib/10?x=1", "{\"result\":55}\n"),
        ("http://test/fib/10", "{\"result\":55}\n"),
        ("/fib/20", "{\"result\":6765}\n"),
    ] {
        let response = server.get(path);
        assert_eq!((response.status, response.body.as_str()), (200, body), "{path}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("cache-status"), Some("fib; fwd=bypass; detail=no-plugin"));
    }
}

#[test]
fn numbers_are_exact_up_to_the_last_that_fits() {
    let server = Server::start(&["--algorithm=doubling"]);
    assert_eq!(server.get("/fib/92").body, "{\"result\":7540113804746346429}\n");
    assert_eq!(server.get("/fib/93").body, "{\"result\":12200160415121876738}\n");
    assert_eq!(server.get("/fib/94").status, 400);
}

#[test]
fn everything_that_is_no_number_in_range_is_an_invalid_value() {
    let server = Server::start(&["--max-n=40"]);
    let digits = format!("/fib/{}", "9".repeat(10_000));
    let letters = format!("/fib/{}", "a".repeat(10_000));
    for path in [
        "/fib/",
        "/fib/abc",
        "/fib/-1",
        "/fib/5.0",
        "/fib/1e3",
        "/fib/41",
        "/fib/99999999999999999999",
        "/fib/%00",
        "/fib/5%00",
        "/fib/5%0A",
        "/fib/%20",
        "/fib/12345678901234567890",
        "/fib/%",
        "/fib/%FF",
        "/fib/%2F",
        "/fib/%0d%0a",
        "/fib/%EF%BC%95",
        "/fib/５",
        "/fib/0x5",
        "/fib/++5",
        &digits,
        &letters,
    ] {
        let response = server.get(path);
        assert_eq!(response.status, 400, "{path}");
        let (body, shown) = (response.json(), &path[..path.len().min(40)]);
        assert_eq!(body["error"], "invalid value", "{shown}");
        assert!(body["detail"].as_str().unwrap().len() < 200, "{shown}");
        assert!(response.body.starts_with("{\"error\":"), "{shown}");
    }
}

#[test]
fn other_paths_are_not_found() {
    let server = Server::start(&[]);
    for path in [
        "/",
        "/fib",
        "/fibs/5",
        "/fib/5/",
        "/fib/5/6",
        "//fib/5",
        "/Fib/5",
        "/healthz/",
        "/nothing",
        "/fib/../fib/5",
    ] {
        let response = server.get(path);
        assert_eq!((response.status, &response.json()["error"]), (404, &"not found".into()), "{path}");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let server = Server::start(&[]);
    for path in ["/fib/5", "/fib/", "/healthz", "/readyz", "/version"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let mut client = server.connect();
            client.send(format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
            let response = client.response();
            assert_eq!(
                (response.status, &response.json()["error"]),
                (405, &"method not allowed".into()),
                "{method}"
            );
            assert_eq!(response.header("allow"), Some("GET,HEAD"), "{method} {path}");
        }
    }
    for (request, status) in [("OPTIONS *", 404), ("CONNECT test:80", 404)] {
        let mut client = server.connect();
        client.send(format!("{request} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(client.response().status, status, "{request}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start(&[]);
    for path in ["/fib/20", "/fib/x", "/nothing", "/healthz", "/readyz?verbose", "/version"] {
        let get = server.get(path);
        let mut client = server.connect();
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-type", "content-length", "cache-status"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(client.closed(), "", "{path}");
    }
}

#[test]
fn status_pages() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/healthz").body, "{\"status\":\"ok\"}\n");
    assert_eq!(server.get("/readyz").body, "{\"status\":\"ok\"}\n");
    assert_eq!(server.get("/readyz?verbose").json()["plugin"], serde_json::Value::Null);
    let version = server.get("/version").json();
    assert_eq!(version["name"], "fib-server");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    let server = Server::start(&[]);
    let id_for = |header: &str| {
        let mut client = server.connect();
        client.send(format!("GET /healthz HTTP/1.1\r\nhost: test\r\n{header}\r\n"));
        client.response().header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id_for("x-request-id: abc-123\r\n"), "abc-123");
    let (first, second) = (id_for(""), id_for(&format!("x-request-id: {}\r\n", "x".repeat(65))));
    assert_ne!(first, second);
    assert!(first.len() <= 64 && second.len() <= 64);
}

#[test]
fn a_calculation_that_takes_too_long_is_a_503_that_says_when_to_come_back() {
    let server = Server::start(&["--compute-timeout=100ms"]);
    let response = server.get("/fib/90");
    assert_eq!((response.status, &response.json()["error"]), (503, &"timed out".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("cache-status"), Some("fib; fwd=bypass; detail=no-plugin"));
}

#[test]
fn a_calculation_stops_when_its_client_goes() {
    let server = Server::start(&["--compute-threads=1"]);
    let mut endless = server.connect();
    endless.send("GET /fib/90 HTTP/1.1\r\nhost: test\r\n\r\n");
    server.has_read_what_was_sent();
    // Has only that one thread to run on.
    let mut next = server.connect();
    next.send("GET /fib/33 HTTP/1.1\r\nhost: test\r\n\r\n");
    server.has_read_what_was_sent();
    drop(endless);
    assert_eq!(next.response().body, "{\"result\":3524578}\n");
}

#[test]
fn more_threads_give_the_same_answers() {
    let server = Server::start(&["--threads=3"]);
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /fib/30 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    assert!(clients.iter_mut().all(|client| client.response().body == "{\"result\":832040}\n"));
}

#[test]
fn callers_at_the_same_time_share_a_calculation() {
    let server = Server::start(&["--compute-timeout=300ms"]);
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /fib/80 HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    // All fail with the one calculation: on threads for each of them, on this machine, some would still wait.
    let started = Instant::now();
    assert!(clients.iter_mut().all(|client| client.response().status == 503));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_is_kept_and_requests_may_be_pipelined() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("GET /fib/1 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().body, "{\"result\":1}\n");
    let requests = [10, 20, 30].map(|n| format!("GET /fib/{n} HTTP/1.1\r\nhost: test\r\n\r\n"));
    client.send(requests.concat());
    for body in ["{\"result\":55}\n", "{\"result\":6765}\n", "{\"result\":832040}\n"] {
        assert_eq!(client.response().body, body);
    }
}

#[test]
fn a_head_that_dribbles_in_is_cut_off() {
    let server = Server::start(&["--header-timeout=300ms"]);
    let mut client = server.connect();
    let started = Instant::now();
    // Each byte comes well within the limit; all of them do not.
    for byte in b"GET /fib/5 HTTP/1.1\r\nhost: a-name-that-is-long-enough-for-this\r\n".iter().cycle() {
        if client.try_send([*byte]).is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "the server waits for ever");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.closed(), "");
}

#[test]
fn a_silent_connection_is_closed_before_and_after_a_request() {
    let server = Server::start(&["--header-timeout=200ms"]);
    assert_eq!(server.connect().closed(), "");
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.closed(), "");
}

#[test]
fn a_body_is_never_waited_for() {
    let server = Server::start(&[]);
    for header in ["content-length: 1000000", "transfer-encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("GET /fib/5 HTTP/1.1\r\nhost: test\r\n{header}\r\n\r\n5\r\nabc"));
        assert_eq!(client.response().body, "{\"result\":5}\n", "{header}");
        assert_eq!(client.closed(), "", "{header}");
    }
    // Nor asked for.
    let mut client = server.connect();
    client.send("POST /fib/5 HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 405);
    // A small one that is there already does no harm.
    let mut client = server.connect();
    client.send("GET /fib/5 HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabcGET /fib/10 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().body, "{\"result\":5}\n");
    assert_eq!(client.response().body, "{\"result\":55}\n");
}

#[test]
fn two_lengths_for_one_body_smuggle_nothing() {
    let server = Server::start(&[]);
    for lengths in
        ["transfer-encoding: chunked\r\ncontent-length: 5", "content-length: 5\r\ntransfer-encoding: chunked"]
    {
        let mut client = server.connect();
        client.send(format!(
            "GET /fib/5 HTTP/1.1\r\nhost: test\r\n{lengths}\r\n\r\n0\r\n\r\nGET /fib/10 HTTP/1.1\r\nhost: test\r\n\r\n"
        ));
        assert_eq!(client.response().body, "{\"result\":5}\n", "{lengths}");
        assert_eq!(client.closed(), "", "{lengths}");
    }
}

#[test]
fn what_is_not_http_is_refused() {
    let server = Server::start(&[]);
    for (request, status) in [
        ("rubbish\r\n\r\n", 400),
        ("GET /fib/5\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", 400),
        ("GET /fib/\0 HTTP/1.1\r\n\r\n", 400),
        ("GET /fib/5 HTTP/1.1\r\nhost\r\n\r\n", 400),
        ("GET /fib/5 HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        ("GET /fib/5 HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        ("GET /fib/5 HTTP/1.0\r\n\r\n", 200),
        ("GET /fib/5 HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /fib/5 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ] {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.response().status, status, "{request:?}");
        assert_eq!(client.closed(), "", "{request:?}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(&[]);
    let long_line = format!("x: {}\r\n", "x".repeat(100_000));
    let many_lines = "x: y\r\n".repeat(200);
    for headers in [long_line, many_lines] {
        let mut client = server.connect();
        // The server may have closed before all of it is sent.
        let _ = client.try_send(format!("GET /fib/5 HTTP/1.1\r\n{headers}\r\n"));
        assert_eq!(client.response().status, 431);
        assert_eq!(client.closed(), "");
    }
    let mut client = server.connect();
    let _ = client.try_send(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)));
    assert!(matches!(client.response().status, 414 | 431));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::start_with(&[], |config| config.http.write_timeout = Duration::from_millis(200));
    let mut client = server.connect();
    let requests = "GET /fib/5 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(1000);
    let started = Instant::now();
    while client.try_send(&requests).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(15), "the server takes requests for ever");
    }
    assert_eq!(server.get("/fib/5").status, 200);
}

#[test]
fn a_connection_over_the_limit_waits_for_its_turn() {
    let server = Server::start(&["--max-connections=2"]);
    let (mut first, mut second, mut third) = (server.connect(), server.connect(), server.connect());
    let request = "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n";
    for client in [&mut first, &mut second] {
        client.send(request);
        assert_eq!(client.response().status, 200);
    }
    third.send(request);
    drop(first);
    assert_eq!(third.response().status, 200);
}

#[test]
fn a_drain_answers_what_is_in_flight_and_closes_what_is_idle() {
    let mut server = Server::start(&["--compute-timeout=500ms"]);
    let mut idle = server.connect();
    idle.send("GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(idle.response().status, 200);
    let mut silent = server.connect();
    let mut busy = server.connect();
    busy.send("GET /fib/90 HTTP/1.1\r\nhost: test\r\n\r\n");
    server.has_read_what_was_sent();

    server.begin_to_stop();
    let response = busy.response();
    assert_eq!((response.status, response.header("connection")), (503, Some("close")));
    assert_eq!([busy.closed(), idle.closed(), silent.closed()], ["", "", ""]);
    server.stopped();
}

#[test]
fn a_drain_is_over_when_its_time_is() {
    let mut server = Server::start(&["--drain-timeout=100ms"]);
    let mut busy = server.connect();
    busy.send("GET /fib/90 HTTP/1.1\r\nhost: test\r\n\r\n");
    server.has_read_what_was_sent();
    server.begin_to_stop();
    let response = busy.response();
    assert_eq!((response.status, response.header("connection")), (503, Some("close")));
    assert!(response.body.contains("\"stopping\""), "{}", response.body);
    assert_eq!(busy.closed(), "");
    let started = Instant::now();
    // The calculation has gone with its client.
    server.stopped();
    assert!(started.elapsed() < Duration::from_secs(5));
}
