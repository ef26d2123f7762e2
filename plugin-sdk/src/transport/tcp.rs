//! TCP connections: made to whichever of a name's addresses answers first, and given up when the peer's machine is gone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

/// How long one address may have for itself before the next is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long a connection is silent before the kernel asks whether the peer's machine is there, how long between that and asking
/// again, and how often it asks: after 45 s without an answer the connection is broken. HTTP/2's own pings would break those to peers that
/// are merely busy, or stopped in a debugger, as well.
const IDLE: Duration = Duration::from_secs(30);
const BETWEEN_PROBES: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Connects to a host by its name or address.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = first_to_answer(lookup_host((host, port)).await?).await?;
    set_up(&stream)?;
    Ok(stream)
}

/// Has what is written sent at once, and a peer noticed that is no longer there.
pub(super) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, BETWEEN_PROBES)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// Tries one address after the other, the next one as soon as one has failed or has had its head start.
async fn first_to_answer(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.peekable();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt.map_err(io::Error::other) {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) | Err(error) => failure = error,
            },
            () = tokio::time::sleep(HEAD_START), if addresses.peek().is_some() => {}
            else => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// An address that does not answer, as long as what comes with it is kept: the queue of its listener is full.
    fn silent() -> (SocketAddr, TcpListener, Vec<std::net::TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
        }
        (address, listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_or_refuses_keeps_nobody_from_the_next() {
        let (silent, _listener, _waiting) = silent();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good_address = good.local_addr().unwrap();
        let found = first_to_answer([closed, silent, good_address].into_iter());
        let found = tokio::time::timeout(LIMIT, found).await.expect("it does not wait for the silent one");
        assert_eq!(found.unwrap().peer_addr().unwrap(), good_address);
        let refused = first_to_answer([closed].into_iter()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let nowhere = first_to_answer([].into_iter()).await.unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }
}
