//! The environment variables of the handshake, in both directions.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use thiserror::Error;

use super::{AppVersions, MagicCookie, parse_bool};

pub(crate) const MIN_PORT: &str = "PLUGIN_MIN_PORT";
pub(crate) const MAX_PORT: &str = "PLUGIN_MAX_PORT";
pub(crate) const PROTOCOL_VERSIONS: &str = "PLUGIN_PROTOCOL_VERSIONS";
pub(crate) const MULTIPLEX_GRPC: &str = "PLUGIN_MULTIPLEX_GRPC";
pub(crate) const CLIENT_CERT: &str = "PLUGIN_CLIENT_CERT";
pub(crate) const UNIX_SOCKET_GROUP: &str = "PLUGIN_UNIX_SOCKET_GROUP";
pub(crate) const UNIX_SOCKET_DIR: &str = "PLUGIN_UNIX_SOCKET_DIR";
/// Ours, unknown to go-plugin: the descriptor that is at its end when the host has ended.
pub(crate) const HOST_LIFELINE: &str = "PLUGIN_HOST_LIFELINE";

/// The only value of [`HOST_LIFELINE`].
pub(crate) const LIFELINE_IS_STDIN: &str = "stdin";

/// Every variable by which a host controls a plugin, beside the cookie. A host that is itself a plugin was given some
/// of them, and must not pass those on (go-plugin does, which gives its children a certificate that is not theirs).
pub(crate) const CONTROL_VARIABLES: [&str; 8] = [
    MIN_PORT,
    MAX_PORT,
    PROTOCOL_VERSIONS,
    MULTIPLEX_GRPC,
    CLIENT_CERT,
    UNIX_SOCKET_GROUP,
    UNIX_SOCKET_DIR,
    HOST_LIFELINE,
];

/// Ports that a plugin may listen on where it uses TCP. Unix sockets take no notice of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// From the lowest to the highest port, both included; `None` if the lowest is above the highest.
    #[must_use]
    pub fn new(min: u16, max: u16) -> Option<Self> {
        (min <= max).then_some(Self(min..=max))
    }

    /// Lowest port.
    #[must_use]
    pub fn min(&self) -> u16 {
        *self.0.start()
    }

    /// Highest port.
    #[must_use]
    pub fn max(&self) -> u16 {
        *self.0.end()
    }
}

/// go-plugin's range, 10000 to 25000.
impl Default for PortRange {
    fn default() -> Self {
        Self(10_000..=25_000)
    }
}

/// What a host puts into a plugin's environment.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) cookie: MagicCookie,
    pub(crate) app_versions: AppVersions,
    pub(crate) ports: PortRange,
    /// Directory for the plugin's sockets, owned by the host.
    pub(crate) socket_dir: PathBuf,
    /// Name or number of the group that may connect.
    pub(crate) socket_group: Option<String>,
    /// The host's certificate, PEM, with AutoMTLS.
    pub(crate) client_cert: Option<String>,
    pub(crate) multiplexing: bool,
}

impl Offer {
    pub(crate) fn variables(&self) -> Vec<(String, OsString)> {
        let always = [
            (self.cookie.key(), OsString::from(self.cookie.value())),
            (MIN_PORT, self.ports.min().to_string().into()),
            (MAX_PORT, self.ports.max().to_string().into()),
            (PROTOCOL_VERSIONS, self.app_versions.to_string().into()),
            (UNIX_SOCKET_DIR, self.socket_dir.clone().into()),
        ];
        let asked = [
            self.multiplexing.then(|| (MULTIPLEX_GRPC, "true".into())),
            self.client_cert.as_ref().map(|pem| (CLIENT_CERT, pem.into())),
            self.socket_group.as_ref().map(|group| (UNIX_SOCKET_GROUP, group.into())),
        ];
        always
            .into_iter()
            .chain(asked.into_iter().flatten())
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// What a plugin finds in its environment. An empty variable counts as unset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginEnv {
    pub(crate) app_versions: AppVersions,
    /// Entries of the version list that are no numbers.
    pub(crate) version_junk: Vec<String>,
    /// `None`: any port.
    pub(crate) ports: Option<PortRange>,
    pub(crate) multiplexing: MultiplexRequest,
    pub(crate) socket_dir: Option<PathBuf>,
    pub(crate) socket_group: Option<String>,
    /// The host's certificate, PEM.
    pub(crate) client_cert: Option<String>,
    pub(crate) lifeline: Lifeline,
}

/// Whether the end of stdin is the end of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifeline {
    /// It means nothing: go-plugin's hosts give whatever they have themselves.
    No,
    /// It is.
    Stdin,
}

/// go-plugin reads `PLUGIN_MULTIPLEX_GRPC` in two ways: not empty means that the host understands field 7, true means
/// that it wants multiplexing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MultiplexRequest {
    /// Unset: field 7 must not be printed, as old hosts would read it as part of the certificate.
    Unknown,
    /// Set, but not to a true value: field 7 is printed and says no.
    Understood,
    /// Set to a true value.
    Wanted,
}

/// A variable that the plugin was given and cannot follow. The host's author has to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvProblem {
    /// Not 32 bits of decimal number, or not a port.
    #[error("{name} is {value:?}, which is not a port")]
    Port {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// The lowest port is above the highest.
    #[error("PLUGIN_MIN_PORT is {min}, above PLUGIN_MAX_PORT, which is {max}")]
    PortOrder {
        /// Lowest port.
        min: u16,
        /// Highest port.
        max: u16,
    },
}

impl PluginEnv {
    /// Reads the variables through `get`, which gives `None` for an unset one.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvProblem> {
        let text = |name: &str| {
            get(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
        };
        let port = |name: &'static str| match text(name) {
            None => Ok(0),
            Some(value) => value.parse::<u16>().map_err(|_| EnvProblem::Port { name, value }),
        };
        let ports = match (port(MIN_PORT)?, port(MAX_PORT)?) {
            (0, 0) => None,
            (min, max) => Some(PortRange::new(min, max).ok_or(EnvProblem::PortOrder { min, max })?),
        };
        let (app_versions, version_junk) =
            AppVersions::parse_list(&text(PROTOCOL_VERSIONS).unwrap_or_default());
        let multiplexing = match text(MULTIPLEX_GRPC).as_deref().map(parse_bool) {
            None => MultiplexRequest::Unknown,
            Some(Some(true)) => MultiplexRequest::Wanted,
            Some(Some(false) | None) => MultiplexRequest::Understood,
        };
        let socket_dir = get(UNIX_SOCKET_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let (socket_group, client_cert) = (text(UNIX_SOCKET_GROUP), text(CLIENT_CERT));
        let lifeline = match text(HOST_LIFELINE).as_deref() {
            Some(LIFELINE_IS_STDIN) => Lifeline::Stdin,
            _ => Lifeline::No,
        };
        Ok(Self {
            app_versions,
            version_junk,
            ports,
            multiplexing,
            socket_dir,
            socket_group,
            client_cert,
            lifeline,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<PluginEnv, EnvProblem> {
        PluginEnv::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_plugin_reads_what_a_host_offers() {
        let offer = Offer {
            cookie: MagicCookie::new("COOKIE", "value"),
            app_versions: [2, 1].into_iter().collect(),
            ports: PortRange::default(),
            socket_dir: "/run/host".into(),
            socket_group: Some("staff".into()),
            client_cert: Some("-----BEGIN...\n".into()),
            multiplexing: true,
        };
        let variables = offer.variables();
        let read = PluginEnv::read(|name| {
            variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
        .unwrap();
        assert_eq!(read.app_versions, offer.app_versions);
        assert_eq!(read.ports, Some(PortRange::default()));
        assert_eq!(read.socket_dir, Some("/run/host".into()));
        assert_eq!((read.socket_group, read.client_cert), (offer.socket_group, offer.client_cert));
        assert_eq!(read.multiplexing, MultiplexRequest::Wanted);
        for (name, value) in [("COOKIE", "value"), (MIN_PORT, "10000"), (MAX_PORT, "25000")] {
            assert!(variables.contains(&(name.into(), value.into())), "{name}");
        }
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let empty = read(&CONTROL_VARIABLES.map(|name| (name, ""))).unwrap();
        assert_eq!(empty, read(&[]).unwrap());
        assert_eq!((empty.ports, empty.socket_dir), (None, None));
    }

    #[test]
    fn multiplexing_has_three_states() {
        for (value, state) in [
            ("true", MultiplexRequest::Wanted),
            ("1", MultiplexRequest::Wanted),
            ("false", MultiplexRequest::Understood),
            ("maybe", MultiplexRequest::Understood),
        ] {
            assert_eq!(read(&[(MULTIPLEX_GRPC, value)]).unwrap().multiplexing, state, "{value}");
        }
    }

    #[test]
    fn stdin_is_a_lifeline_only_where_the_host_says_so() {
        for (value, lifeline) in [("stdin", Lifeline::Stdin), ("", Lifeline::No), ("fd 5", Lifeline::No)] {
            assert_eq!(read(&[(HOST_LIFELINE, value)]).unwrap().lifeline, lifeline, "{value}");
        }
    }

    #[test]
    fn ports_that_make_no_range_are_refused() {
        assert!(matches!(read(&[(MIN_PORT, "x")]), Err(EnvProblem::Port { name: MIN_PORT, .. })));
        assert!(matches!(read(&[(MIN_PORT, "2"), (MAX_PORT, "1")]), Err(EnvProblem::PortOrder { .. })));
    }
}
