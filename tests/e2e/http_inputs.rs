//! Whatever comes over the socket is answered as documented, and the next caller never notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use e2e::wait::wait_until;
use e2e::{Server, http};
use http::{Response, receive_all, send_raw};

/// A server that is fast for each number it knows.
fn start() -> Server {
    Server::start(["--algorithm=doubling"])
}

#[test]
fn numbers_in_range_are_answered_byte_for_byte() {
    let server = start();
    let table = [
        ("/fib/5", "{\"result\":5}\n"),
        ("/fib/05", "{\"result\":5}\n"),
        ("/fib/+5", "{\"result\":5}\n"),
        ("/fib/%35", "{\"result\":5}\n"),
        ("/fib/%2B5", "{\"result\":5}\n"),
        ("/fib/5?x=1", "{\"result\":5}\n"),
        ("/fib/0", "{\"result\":0}\n"),
        ("/fib/1", "{\"result\":1}\n"),
        ("/fib/92", "{\"result\":7540113804746346429}\n"),
        ("/fib/93", "{\"result\":12200160415121876738}\n"),
    ];
    for (target, body) in table {
        let response = server.get(target);
        assert_eq!((response.status, response.text()), (200, body.to_owned()), "{target}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{target}");
    }
}

#[test]
fn anything_else_is_an_invalid_value() {
    let server = start();
    let digits = "9".repeat(10_000);
    let long = format!("/fib/{digits}");
    let table = [
        "/fib/",
        "/fib/94",
        "/fib/abc",
        "/fib/-1",
        "/fib/5.0",
        "/fib/1e3",
        "/fib/0x5",
        "/fib/12345678901234567890",
        &long,
        "/fib/%00",
        "/fib/5%00",
        "/fib/%20",
        "/fib/5%0A",
        "/fib/%EF%BC%95",
        "/fib/\u{ff15}",
        "/fib/%FF",
        "/fib/%2F",
        "/fib/++5",
    ];
    for target in table {
        let response = server.get(target);
        let shown = &target[..target.len().min(40)];
        assert_eq!(response.status, 400, "{shown}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"), "{shown}");
        assert_eq!(response.json()["error"], "invalid value", "{shown}: {}", response.text());
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!((1..1000).contains(&detail.len()), "{shown}: {detail}");
    }
}

#[test]
fn other_paths_are_not_found() {
    let server = start();
    for target in ["/", "/fib", "/fib/5/", "/fib/5/6", "/fibs/5", "//fib/5", "/fib/../fib/5"] {
        let response = server.get(target);
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{target}");
        assert!(response.json()["error"].is_string(), "{target}: {}", response.text());
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let server = start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let response = server.send(method, "/fib/5").expect("an answer");
        assert_eq!(response.status, 405, "{method}");
        let allowed = response.header("allow").unwrap_or_default();
        assert!(allowed.contains("GET") && allowed.contains("HEAD"), "{method}: {allowed:?}");
        assert!(response.json()["error"].is_string(), "{method}: {}", response.text());
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = start();
    let response = server.send("HEAD", "/fib/5").expect("an answer");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-length"), Some("13"));
    assert!(response.body.is_empty());
}

#[test]
fn header_of_100_kilobytes_is_too_large() {
    let server = start();
    let padding = "x".repeat(100_000);
    let request = format!("GET /fib/5 HTTP/1.1\r\nHost: localhost\r\nX-Padding: {padding}\r\n\r\n");
    let response = send_raw(server.address(), request.as_bytes()).expect("an answer");
    assert_eq!(response.status, 431);
    serves_on(&server);
}

#[test]
fn rubbish_is_a_bad_request() {
    let server = start();
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], b"hello\r\n\r\n", b"GET\r\n\r\n"]
    {
        assert_eq!(send_raw(server.address(), bytes).expect("an answer").status, 400);
    }
    serves_on(&server);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start();
    let responses = exchange(
        &server,
        &["GET /fib/6 HTTP/1.1\r\nHost: localhost\r\n\r\n", &http::request("GET", "/fib/7")],
    );
    let bodies: Vec<_> = responses.iter().map(Response::text).collect();
    assert_eq!(bodies, ["{\"result\":8}\n", "{\"result\":13}\n"]);
}

#[test]
fn request_with_two_lengths_cannot_hide_another() {
    let server = start();
    // Whoever believes the length takes the second request for a body; whoever believes the chunks answers it.
    // To answer it is right, and to close the connection before it is right. Anything else is a way to smuggle.
    let hidden = http::request("GET", "/fib/7");
    let first = format!(
        "GET /fib/6 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n",
        "0\r\n\r\n".len() + hidden.len()
    );
    let answers: Vec<_> = exchange(&server, &[&first, &hidden])
        .iter()
        .map(|response| (response.status, response.text()))
        .collect();
    let six = (200, "{\"result\":8}\n".to_owned());
    let seven = (200, "{\"result\":13}\n".to_owned());
    assert!(answers == [six.clone()] || answers == [six, seven] || answers[0].0 == 400, "{answers:?}");
}

#[test]
fn slow_header_is_cut_off() {
    let server = Server::start(["--header-timeout=300ms"]);
    let mut stream = http::connect(server.address()).expect("the server accepts");
    stream.write_all(b"GET /fib/5 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").expect("the server reads");
    wait_until("the server to hang up on a client that is never silent", || {
        stream.write_all(b"x").is_err() || has_hung_up(&mut stream)
    });
    serves_on(&server);
}

#[test]
fn connection_without_a_request_is_closed() {
    let server = Server::start(["--header-timeout=300ms"]);
    let mut stream = http::connect(server.address()).expect("the server accepts");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the server closes the connection in time");
}

#[test]
fn body_that_never_comes_is_not_waited_for() {
    let server = Server::start(["--header-timeout=300ms"]);
    let mut stream = http::connect(server.address()).expect("the server accepts");
    let request = "POST /fib/5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc";
    stream.write_all(request.as_bytes()).expect("the server reads");
    let responses = receive_all(stream).expect("the server closes the connection in time");
    assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), [405]);
}

#[test]
fn idle_connections_keep_nobody_out() {
    let server = start();
    let idle: Vec<_> =
        (0..300).map(|_| http::connect(server.address()).expect("the server accepts")).collect();
    serves_on(&server);
    drop(idle);
    serves_on(&server);
}

/// Sends these on one connection, all at once, and reads to its end.
fn exchange(server: &Server, requests: &[&str]) -> Vec<Response> {
    let mut stream = http::connect(server.address()).expect("the server accepts");
    stream.write_all(requests.concat().as_bytes()).expect("the server reads");
    receive_all(stream).expect("the server closes the connection in time")
}

fn serves_on(server: &Server) {
    assert_eq!(server.get("/fib/5").text(), "{\"result\":5}\n");
}

/// Whether the other side has ended the connection; does not wait for it.
fn has_hung_up(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket can be polled");
    let ended = match stream.read(&mut [0; 1024]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket can be waited for");
    ended
}
