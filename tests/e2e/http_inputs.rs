//! What comes over the socket is answered as documented, and the next caller never notices. Here one input of each
//! kind goes to the real program; the tables of all inputs are in `server/tests/http.rs`.

use std::io::{Read, Write};

use e2e::{Server, http};
use http::{receive_all, send_raw};

#[test]
fn one_of_each_kind_of_request() {
    let server = Server::start(["--algorithm=doubling"]);
    for (method, target, status, body) in [
        ("GET", "/fib/93", 200, "{\"result\":12200160415121876738}\n"),
        ("GET", "/fib/%2B05?x=1", 200, "{\"result\":5}\n"),
        ("HEAD", "/fib/5", 200, ""),
        ("GET", "/fib/94", 400, "{\"error\":\"invalid value\""),
        ("GET", "/fib/%FF", 400, "{\"error\":\"invalid value\""),
        ("GET", "/fib", 404, "{\"error\":\"not found\""),
        ("POST", "/fib/5", 405, "{\"error\":\"method not allowed\""),
    ] {
        let response = server.send(method, target).expect("an answer");
        assert_eq!(response.status, status, "{method} {target}");
        assert!(response.text().starts_with(body), "{method} {target}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"), "{method} {target}");
    }
}

#[test]
fn what_is_not_http_is_refused() {
    let server = Server::start::<&str>([]);
    let padding = format!("GET /fib/5 HTTP/1.1\r\nX-Padding: {}\r\n\r\n", "x".repeat(100_000));
    for (bytes, status) in
        [(&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], 400), (padding.as_bytes(), 431)]
    {
        assert_eq!(send_raw(server.address(), bytes).expect("an answer").status, status);
    }
    assert_eq!(server.fib(5).text(), "{\"result\":5}\n");
}

#[test]
fn client_that_is_silent_is_cut_off() {
    let server = Server::start(["--header-timeout=300ms"]);
    for sent in ["", "GET /fib/5 HTTP/1.1\r\nX-Slow: "] {
        let mut stream = http::connect(server.address()).expect("the server accepts");
        stream.write_all(sent.as_bytes()).expect("the server reads");
        stream.read_to_end(&mut Vec::new()).expect("the server closes the connection in time");
    }
    // A body that never comes is not waited for at all.
    let mut stream = http::connect(server.address()).expect("the server accepts");
    let request = "POST /fib/5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc";
    stream.write_all(request.as_bytes()).expect("the server reads");
    let responses = receive_all(stream).expect("the server closes the connection in time");
    assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), [405]);
}
