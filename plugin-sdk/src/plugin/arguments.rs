//! The SDK's own part of a plugin's command line and environment: whether to run as a service, and where.
//!
//! ```text
//! fib-cache-memory --listen unix:/run/cache.sock --max-entries 500
//!                  └────────── the SDK's ──────┘ └─ the plugin's ┘
//! ```

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use thiserror::Error;

use crate::transport::InheritedSocket;

/// The arguments of this process, the program's name first, without those of the SDK, which are
/// `--listen unix:PATH|tcp:IP:PORT` and `--listen-tls-ca`, `--listen-tls-cert` and `--listen-tls-key` with a file each.
///
/// A plugin that reads arguments of its own reads these (with clap: `Args::parse_from(plugin_sdk::plugin::args())`),
/// and so can be run as a service with no further change. Each
/// of the SDK's can also be a variable: `PLUGIN_LISTEN`, `PLUGIN_LISTEN_TLS_CA` and so on.
#[must_use]
pub fn args() -> Vec<OsString> {
    let mut args = std::env::args_os();
    args.next().into_iter().chain(split(args).rest).collect()
}

/// What [`args`] takes for itself, to be shown at the end of a plugin's `--help` (with clap: `after_help`), as those who run the
/// plugin know nothing of the SDK.
pub const ARGS_HELP: &str = "\
To run as a service of its own, to which hosts attach; each is also a variable, such as PLUGIN_LISTEN:
      --listen <ADDRESS>       unix:PATH or tcp:IP:PORT; systemd may hold the socket instead
      --listen-tls-ca <FILE>   PEM: who has issued the certificates of hosts
      --listen-tls-cert <FILE> PEM: the plugin's certificate
      --listen-tls-key <FILE>  PEM: its key";

/// How to run as a service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) listen_on: ListenOn,
    pub(super) tls: Option<TlsFiles>,
}

/// Where a service listens.
#[derive(Debug)]
pub(super) enum ListenOn {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// A socket that systemd holds (`LISTEN_FDS`).
    Activated(InheritedSocket),
}

/// PEM files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) authority: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is wrong with the SDK's own arguments. The operator has to mend them.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentProblem {
    /// An option without its value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// Not an address that can be listened on.
    #[error("--listen {0:?} is neither unix:PATH nor tcp:IP:PORT")]
    Listen(String),
    /// Some of the TLS files, but not all.
    #[error("--listen-tls-ca, --listen-tls-cert and --listen-tls-key go together")]
    TlsFiles,
}

const LISTEN: &str = "--listen";
const TLS_CA: &str = "--listen-tls-ca";
const TLS_CERT: &str = "--listen-tls-cert";
const TLS_KEY: &str = "--listen-tls-key";
const OPTIONS: [&str; 4] = [LISTEN, TLS_CA, TLS_CERT, TLS_KEY];

/// Arguments, taken apart.
#[derive(Debug, Default)]
struct Split {
    own: Vec<(&'static str, Option<OsString>)>,
    rest: Vec<OsString>,
}

fn split(args: impl IntoIterator<Item = OsString>) -> Split {
    let mut split = Split::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            split.rest.push(arg);
            split.rest.extend(args);
            break;
        }
        let bytes = arg.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(end) => (&bytes[..end], Some(OsStr::from_bytes(&bytes[end + 1..]).to_owned())),
            None => (bytes, None),
        };
        match OPTIONS.iter().find(|option| option.as_bytes() == name) {
            Some(option) => {
                let value = value.or_else(|| args.next());
                split.own.push((option, value));
            }
            None => split.rest.push(arg),
        }
    }
    split
}

impl Service {
    /// How this process is to run as a service, if it is.
    ///
    /// To the child of a host only an argument says so: variables may be left over from the host's own service.
    pub(super) fn of_this_process(is_child: bool) -> Result<Option<Self>, ArgumentProblem> {
        let variable = |name: &str| std::env::var_os(name).filter(|_| !is_child);
        let (listen_on, tls) = Self::read(split(std::env::args_os().skip(1)), variable)?;
        let inherited = || InheritedSocket::take().filter(|_| !is_child).map(ListenOn::Activated);
        Ok(listen_on.or_else(inherited).map(|listen_on| Self { listen_on, tls }))
    }

    fn read(
        args: Split,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Option<ListenOn>, Option<TlsFiles>), ArgumentProblem> {
        let value = |option: &'static str| match args.own.iter().rfind(|(name, _)| *name == option) {
            Some((_, Some(value))) => Ok(Some(value.clone())),
            Some((_, None)) => Err(ArgumentProblem::NoValue(option)),
            None => {
                let name =
                    format!("PLUGIN_{}", option.trim_start_matches('-').replace('-', "_").to_uppercase());
                Ok(variable(&name).filter(|value| !value.is_empty()))
            }
        };
        let listen_on = value(LISTEN)?.map(|text| parse(&text)).transpose()?;
        let tls = match (value(TLS_CA)?, value(TLS_CERT)?, value(TLS_KEY)?) {
            (None, None, None) => None,
            (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles {
                authority: authority.into(),
                certificate: certificate.into(),
                key: key.into(),
            }),
            _ => return Err(ArgumentProblem::TlsFiles),
        };
        Ok((listen_on, tls))
    }
}

fn parse(text: &OsStr) -> Result<ListenOn, ArgumentProblem> {
    let problem = || ArgumentProblem::Listen(text.to_string_lossy().into_owned());
    if let Some(path) = text.as_bytes().strip_prefix(b"unix:").filter(|path| !path.is_empty()) {
        return Ok(ListenOn::Unix(OsStr::from_bytes(path).into()));
    }
    let address = text.to_str().and_then(|text| text.strip_prefix("tcp:")).ok_or_else(problem)?;
    address.parse().map(ListenOn::Tcp).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], variables: &[(&str, &str)]) -> (Vec<OsString>, Result<String, ArgumentProblem>) {
        let split = split(args.iter().map(OsString::from));
        let rest = split.rest.clone();
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        (rest, Service::read(split, variable).map(|found| format!("{found:?}")))
    }

    #[test]
    fn the_sdks_arguments_are_taken_from_among_the_plugins() {
        let (rest, found) = read(&["--listen", "unix:/run/x", "--max=5", "--", "--listen"], &[]);
        assert_eq!(rest, ["--max=5", "--", "--listen"]);
        assert_eq!(found.unwrap(), r#"(Some(Unix("/run/x")), None)"#);
        let (rest, found) = read(&["--listen=tcp:127.0.0.1:80", "x"], &[("PLUGIN_LISTEN", "unix:/y")]);
        assert_eq!((rest, found.unwrap().as_str()), (vec!["x".into()], "(Some(Tcp(127.0.0.1:80)), None)"));
    }

    #[test]
    fn variables_say_the_same() {
        let tls =
            [("PLUGIN_LISTEN_TLS_CA", "a"), ("PLUGIN_LISTEN_TLS_CERT", "b"), ("PLUGIN_LISTEN_TLS_KEY", "c")];
        let (_, found) = read(&[], &tls);
        assert!(found.unwrap().contains(r#"TlsFiles { authority: "a", certificate: "b", key: "c" }"#));
        assert_eq!(read(&[], &[("PLUGIN_LISTEN", "")]).1.unwrap(), "(None, None)");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (args, problem) in [
            (&["--listen"][..], ArgumentProblem::NoValue("--listen")),
            (&["--listen", "/run/x"], ArgumentProblem::Listen("/run/x".into())),
            (&["--listen", "unix:"], ArgumentProblem::Listen("unix:".into())),
            (&["--listen", "tcp:host:1"], ArgumentProblem::Listen("tcp:host:1".into())),
            (&["--listen-tls-ca", "x"], ArgumentProblem::TlsFiles),
        ] {
            assert_eq!(read(args, &[]).1, Err(problem), "{args:?}");
        }
    }
}
