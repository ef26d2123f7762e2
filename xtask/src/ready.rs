//! The line that says what to curl, once the server answers.
//!
//! `cargo xtask run` becomes the server, so a process of its own has to watch for that moment. It is the child of a
//! child that has ended: the server would otherwise have a child that it knows nothing of.
//!
//! ```text
//! xtask run ── starts, waits for ──▶ xtask announce ── starts ──▶ xtask announce watch
//!     │ exec                             ends                         │ polls /readyz, prints, ends
//!     ▼
//! fib-server
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Outcome, succeed};

/// Name of the task, which is not for people.
pub(crate) const TASK: &str = "announce";

/// How long the server may take; its log says what it is doing meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(50);

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Has the line printed once the server that this process is about to become has written its address to `port_file`
/// and is ready.
pub(crate) fn announce(port_file: &Path) -> Outcome {
    // Left from a server that was killed, it would name the wrong address.
    match std::fs::remove_file(port_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{} cannot be replaced: {error}", port_file.display()).into());
        }
        _ => {}
    }
    let mut child = Command::new(std::env::current_exe()?);
    child.arg(TASK).arg("start").arg(std::process::id().to_string()).arg(port_file);
    succeed(child)
}

/// The two processes of [`announce`].
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    match arguments {
        ["start", server, port_file] => start(server, port_file),
        ["watch", server, port_file] => {
            match wait_until_ready(server, Path::new(port_file), PATIENCE) {
                Waited::Ready(address) => println!("ready: curl http://{address}/fib/30"),
                Waited::InVain => println!("not ready after {} s; see the log", PATIENCE.as_secs()),
                // It has said why.
                Waited::Ended => {}
            }
            Ok(())
        }
        _ => Err(format!("`{TASK}` is for `cargo xtask run` alone").into()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the process is no plugin, and it outlives this one on purpose"
)]
fn start(server: &str, port_file: &str) -> Outcome {
    let mut child = Command::new(std::env::current_exe()?);
    child.args([TASK, "watch", server, port_file]).stdin(Stdio::null()).spawn()?;
    Ok(())
}

/// How the wait for a server ended.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    Ready(SocketAddr),
    InVain,
    Ended,
}

fn wait_until_ready(server: &str, port_file: &Path, patience: Duration) -> Waited {
    let start = Instant::now();
    while start.elapsed() < patience {
        if !is_running(server) {
            return Waited::Ended;
        }
        let text = std::fs::read_to_string(port_file).unwrap_or_default();
        if let Ok(address) = text.trim().parse().map(reachable)
            && answers(address).unwrap_or(false)
        {
            return Waited::Ready(address);
        }
        sleep(PAUSE);
    }
    Waited::InVain
}

/// Whether a process is there, where the system can say so without a library; elsewhere only [`PATIENCE`] ends the
/// wait.
fn is_running(process: &str) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(process).exists()
}

/// A server that listens on every address is reached on this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn answers(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut status_line = [0; OK.len()];
    stream.read_exact(&mut status_line)?;
    Ok(status_line == *OK)
}

const OK: &[u8; 13] = b"HTTP/1.1 200 ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_is_not_the_end_of_the_server() {
        let (own, nowhere) = (std::process::id().to_string(), Path::new("/nonexistent/port"));
        assert_eq!(wait_until_ready(&own, nowhere, Duration::ZERO), Waited::InVain);
        assert_eq!(wait_until_ready("0", nowhere, PATIENCE), Waited::Ended);
    }

    #[test]
    fn every_address_means_this_machine() {
        for (bound, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), expected);
        }
    }
}
