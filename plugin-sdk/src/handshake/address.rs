//! Where a plugin listens, as it stands in fields 3 and 4 of the handshake line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// An address that a plugin announced or that a host was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PluginAddress {
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// A socket in Linux's abstract name space, without the `@` that stands for it in text.
    Abstract(String),
    /// TCP. The host may be a name; go-plugin resolves it when it parses the line, we when we connect.
    Tcp {
        /// Name or number of the machine; an empty one in text means this machine and is `localhost` here.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// Inside this process, without a socket. Never announced.
    Memory,
}

/// Why fields 3 and 4 are no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// Field 3 is neither `unix` nor `tcp`.
    #[error("the network {0:?} is neither unix nor tcp")]
    Network(String),
    /// A configuration has something else.
    #[error("{0:?} is not an address of the form unix:PATH, unix:@NAME or tcp:HOST:PORT")]
    Form(String),
    /// No path, or one with a NUL byte.
    #[error("{0:?} is not the path of a socket")]
    Path(String),
    /// Not `host:port` with a port from 1 to 65535.
    #[error("{0:?} is not a TCP address of the form host:port")]
    HostPort(String),
}

impl PluginAddress {
    /// Reads the network word and the address as they stand in the line.
    ///
    /// # Errors
    /// Whatever cannot be connected to on any machine. Whether anything listens there is found out by connecting.
    pub fn parse(network: &str, address: &str) -> Result<Self, AddressProblem> {
        match network {
            "unix" => match address.strip_prefix('@') {
                _ if address.is_empty() || address.contains('\0') => {
                    Err(AddressProblem::Path(address.to_owned()))
                }
                Some("") => Err(AddressProblem::Path(address.to_owned())),
                Some(name) => Ok(Self::Abstract(name.to_owned())),
                None => Ok(Self::Unix(address.into())),
            },
            "tcp" => {
                let problem = || AddressProblem::HostPort(address.to_owned());
                let (host, port) = address.rsplit_once(':').ok_or_else(problem)?;
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(problem)?;
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                // A bare IPv6 address is ambiguous: only the bracketed form may hold colons.
                if bare.len() == host.len() && bare.contains(':') || bare.contains(['\0', '/', ' ']) {
                    return Err(problem());
                }
                let host = if bare.is_empty() { "localhost" } else { bare };
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            other => Err(AddressProblem::Network(other.to_owned())),
        }
    }

    /// Field 3: `unix` or `tcp`; `memory` for what never stands there.
    #[must_use]
    pub fn network(&self) -> &'static str {
        match self {
            Self::Unix(_) | Self::Abstract(_) => "unix",
            Self::Tcp { .. } => "tcp",
            Self::Memory => "memory",
        }
    }
}

/// Reads `unix:PATH`, `unix:@NAME` or `tcp:HOST:PORT`, the form of configurations; a path from the root and `@NAME` also by
/// themselves, as [`Display`](fmt::Display) shows them.
impl FromStr for PluginAddress {
    type Err = AddressProblem;

    fn from_str(text: &str) -> Result<Self, AddressProblem> {
        if text.starts_with(['/', '@']) {
            return Self::parse("unix", text);
        }
        match text.split_once(':') {
            Some((network @ ("unix" | "tcp"), address)) => Self::parse(network, address),
            _ => Err(AddressProblem::Form(text.to_owned())),
        }
    }
}

/// Field 4: a path, `@name` or `host:port`.
impl fmt::Display for PluginAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_the_same() {
        for (network, text) in [
            ("unix", "/tmp/plugin1234"),
            ("unix", "relative/plugin"),
            ("unix", "@abstract"),
            ("tcp", "127.0.0.1:1234"),
            ("tcp", "[::1]:80"),
            ("tcp", "example.com:65535"),
        ] {
            let address = PluginAddress::parse(network, text).unwrap();
            assert_eq!((address.network(), address.to_string().as_str()), (network, text));
        }
        let this_machine = PluginAddress::parse("tcp", ":1234").unwrap();
        assert_eq!(this_machine, PluginAddress::Tcp { host: "localhost".into(), port: 1234 });
    }

    #[test]
    fn an_address_of_a_configuration_names_its_network_unless_it_can_only_be_a_socket() {
        for (text, network, address) in [
            ("unix:/run/a:b", "unix", "/run/a:b"),
            ("unix:relative", "unix", "relative"),
            ("/run/a:b", "unix", "/run/a:b"),
            ("@abstract", "unix", "@abstract"),
            ("tcp:localhost:80", "tcp", "localhost:80"),
        ] {
            assert_eq!(text.parse(), PluginAddress::parse(network, address), "{text}");
        }
        for text in ["", "relative", "127.0.0.1:80", "localhost:80", "udp:1", "unix"] {
            let problem = text.parse::<PluginAddress>().unwrap_err();
            assert_eq!(problem, AddressProblem::Form(text.to_owned()));
        }
        assert!(matches!("unix:".parse::<PluginAddress>(), Err(AddressProblem::Path(_))));
        assert!(matches!("/a\0b".parse::<PluginAddress>(), Err(AddressProblem::Path(_))));
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for (network, text) in [
            ("udp", "127.0.0.1:1"),
            ("UNIX", "/tmp/x"),
            ("", "/tmp/x"),
            ("unix", ""),
            ("unix", "@"),
            ("unix", "/tmp/\0"),
            ("tcp", ""),
            ("tcp", "1234"),
            ("tcp", "localhost:0"),
            ("tcp", "localhost:65536"),
            ("tcp", "localhost:-1"),
            ("tcp", "::1:80"),
        ] {
            assert!(PluginAddress::parse(network, text).is_err(), "{network}|{text:?}");
        }
    }
}
