//! What is said first on a new connection, before redis-rs has it. That one takes every error for a wrong password, or
//! leaves out its name, and misses what Redis says before it is asked, as when it has too many clients.

use redis::{Cmd, RedisConnectionInfo, Value};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::fault::Fault;

/// Logs in, chooses the database, and makes sure that Redis works. Without a time limit.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    settings: &RedisConnectionInfo,
) -> Result<S, Fault> {
    let mut stream = BufReader::new(stream);
    if settings.username().is_some() || settings.password().is_some() {
        let mut auth = redis::cmd("AUTH");
        // To a user who needs no password any will do; without AUTH it would be another user.
        auth.arg(settings.username()).arg(settings.password().unwrap_or_default());
        ask(&mut stream, &auth).await.map_err(|fault| match fault {
            // Redis has no name for it that no password is wanted.
            Fault::Refused(name) if name == "ERR" => Fault::LoggedOut,
            fault => fault,
        })?;
    }
    if settings.db() != 0 {
        let select = ask(&mut stream, redis::cmd("SELECT").arg(settings.db())).await;
        select.map_err(|fault| match fault {
            // Redis has no name for it, nor for that there is but one, as in a cluster.
            Fault::Refused(name) if name == "ERR" => Fault::NoDatabase,
            fault => fault,
        })?;
    }
    ask(&mut stream, &redis::cmd("PING")).await.or_else(Fault::after_ping)?;
    // Nothing is left in it: Redis speaks when it is asked.
    Ok(stream.into_inner())
}

/// Has Redis execute a command that is answered with one line.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    command: &Cmd,
) -> Result<(), Fault> {
    // Redis may have hung up, and have said why.
    let _hung_up = stream.write_all(&command.get_packed_command()).await;
    let mut line = Vec::new();
    let _hung_up = stream.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await;
    match redis::parse_redis_value(&line) {
        Ok(Value::ServerError(error)) => Err(error.into()),
        Ok(_) => Ok(()),
        Err(_) if line.is_empty() => Err(Fault::Lost),
        Err(_) => Err(Fault::Nonsense),
    }
}

/// More than the longest error of Redis, which explains its protected mode in a thousand.
const MAX_LINE_BYTES: u64 = 8 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::IntoConnectionInfo;
    use tokio::time::timeout;

    use super::*;

    /// Greets a Redis that says this, whatever it is told, and hangs up.
    async fn greeted(url: &str, said: &str) -> Result<(), Fault> {
        let info = url.into_connection_info().expect("a URL");
        let (stream, mut redis) = tokio::io::duplex(64 << 10);
        redis.write_all(said.as_bytes()).await.expect("there is room");
        drop(redis);
        let greeted = timeout(Duration::from_secs(30), greet(stream, info.redis_settings()));
        greeted.await.expect("it is over").map(drop)
    }

    #[tokio::test]
    async fn each_refusal_is_known_by_name_and_a_peer_that_is_no_redis_is_not_waited_for() {
        let refused = |name: &str| Err(Fault::Refused(name.to_owned()));
        let (plain, all) = ("redis://host", "redis://user:hunter2@host/3");
        let explained = format!("-DENIED {}\r\n", "x".repeat(2000));
        for (url, said, expected) in [
            (plain, "+PONG\r\n", Ok(())),
            (plain, "-NOAUTH Authentication required.\r\n", Err(Fault::LoggedOut)),
            (plain, "-NOPERM no\r\n", Ok(())),
            (plain, "-MISCONF no\r\n", Ok(())),
            (plain, "-LOADING no\r\n", Err(Fault::Loading)),
            (plain, &explained, refused("DENIED")),
            (all, &explained, refused("DENIED")),
            (plain, "-ERR max number of clients reached\r\n", Err(Fault::TooManyClients)),
            (all, "-ERR max number of clients reached\r\n", Err(Fault::TooManyClients)),
            (all, "+OK\r\n+OK\r\n+PONG\r\n", Ok(())),
            (all, "-WRONGPASS no\r\n", Err(Fault::LoggedOut)),
            (all, "-ERR AUTH called without any password configured\r\n", Err(Fault::LoggedOut)),
            (all, "+OK\r\n-ERR DB index is out of range\r\n", Err(Fault::NoDatabase)),
            (all, "+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n", Err(Fault::NoDatabase)),
            (all, "+OK\r\n-NOPERM no\r\n", Err(Fault::NotPermitted)),
            (all, "+OK\r\n", Err(Fault::Lost)),
            (plain, "HTTP/1.1 400 Bad Request\r\n", Err(Fault::Nonsense)),
            (plain, &"x".repeat(60_000), Err(Fault::Nonsense)),
        ] {
            assert_eq!(greeted(url, said).await, expected, "{url} {said}");
        }
    }
}
