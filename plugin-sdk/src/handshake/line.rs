//! The handshake line: one line on the plugin's real stdout that says where and how it can be reached.
//!
//! ```text
//! CORE|APP|NETWORK|ADDRESS|PROTOCOL|CERT|MUX
//! 1|1|unix|/run/plugin/plugin3889388928|grpc|                 what most plugins print
//! 1|1|tcp|127.0.0.1:1234|grpc                                 the least that a gRPC plugin may print
//! 1|2|unix|/run/plugin/plugin456582345|grpc|MIICTzCCAbCg...   with AutoMTLS
//! 1|1|unix|/run/plugin/plugin837190678|grpc||true             where the host asked for multiplexing
//! ```

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::address::{AddressProblem, PluginAddress};
use super::{AppVersion, AppVersions};

/// go-plugin's own protocol version, the same since its first release.
pub(crate) const CORE_PROTOCOL_VERSION: u32 = 1;

/// Longest handshake line in bytes, go-plugin's value: its line reader gives up at 64 KiB.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// Field 6 holds a certificate only if it is longer than this: old plugins put other data there.
const LONGEST_NOT_A_CERTIFICATE: usize = 50;

/// Standard alphabet. Go's encoder writes no padding and its decoder refuses it; others send it, so we take both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A handshake line that this host can follow. It cannot hold another core version or a net/rpc plugin, and so has no
/// field for either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeLine {
    /// The version that the plugin serves; one of those the host offered.
    pub app_version: AppVersion,
    /// Where the plugin listens.
    pub address: PluginAddress,
    /// The plugin's certificate, DER. An empty field 6 means "no TLS".
    pub server_cert: Option<CertificateDer<'static>>,
    /// Field 7, which is only there if the host asked for multiplexing.
    pub broker_mux: Option<bool>,
}

/// What a host has to know to judge a line.
#[derive(Debug, Clone)]
pub(crate) struct Expectation<'a> {
    pub(crate) app_versions: &'a AppVersions,
    pub(crate) certificate: bool,
    pub(crate) multiplexing: bool,
}

/// Why a first line on stdout is no handshake this host can follow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// Something else was printed: a stray print before `serve`, or no plugin at all.
    #[error("it is not a handshake: it has {fields} of at least 4 fields separated by |")]
    TooFewFields {
        /// How many there are.
        fields: usize,
    },
    /// Bytes that are not text.
    #[error("it is not a handshake: it is not UTF-8")]
    NotText,
    /// The line does not end within 64 KiB.
    #[error("it is not a handshake: it is longer than 65536 bytes")]
    TooLong,
    /// go-plugin's own version is another one. Rebuild the plugin with a current library.
    #[error(
        "it has core protocol version {found:?}, this host has 1: rebuild the plugin with a current go-plugin library"
    )]
    CoreVersion {
        /// Field 1.
        found: String,
    },
    /// Field 2 is not a number.
    #[error("its application protocol version {found:?} is not a number")]
    AppVersionText {
        /// Field 2.
        found: String,
    },
    /// Healthy plugin, other contract. Upgrade the side with the lower versions.
    #[error("the plugin speaks application protocol version {plugin}, this host speaks {host}: upgrade the {}", behind(*plugin, host))]
    AppVersion {
        /// What the plugin serves.
        plugin: AppVersion,
        /// What the host knows.
        host: AppVersions,
    },
    /// Fields 3 and 4.
    #[error(transparent)]
    Address(#[from] AddressProblem),
    /// A plugin for Go's net/rpc, which only Go can speak. A line without field 5 is one.
    #[error("it is a net/rpc plugin, this host speaks gRPC only: build the plugin with a gRPC server")]
    NetRpc,
    /// Field 5 is neither `grpc` nor `netrpc`.
    #[error("its protocol {found:?} is not grpc")]
    Protocol {
        /// Field 5.
        found: String,
    },
    /// Field 6 is not base64.
    #[error("its certificate is not base64")]
    Certificate,
    /// The plugin uses TLS and the host did not ask for it. go-plugin's host crashes on this.
    #[error("it announces a certificate, but this host did not ask for AutoMTLS")]
    UnexpectedCertificate,
    /// The host asked for AutoMTLS and the plugin did not answer.
    #[error("AutoMTLS was requested, but the plugin returned no certificate")]
    MissingCertificate,
    /// The host asked for multiplexing and the plugin cannot, or is too old to know.
    #[error("broker multiplexing was requested, but the plugin does not support it")]
    MultiplexingUnsupported,
    /// Field 7 is no boolean.
    #[error("its multiplexing field {found:?} is neither true nor false")]
    Multiplexing {
        /// Field 7.
        found: String,
    },
}

/// Who has to move when versions do not meet.
fn behind(plugin: AppVersion, host: &AppVersions) -> &'static str {
    if host.iter().next_back().is_some_and(|highest| plugin > highest) { "host" } else { "plugin" }
}

impl HandshakeLine {
    /// Reads a first line of stdout, with or without its line end.
    ///
    /// The checks come in go-plugin's order: number of fields, core version, application version, address,
    /// protocol, certificate, multiplexing. Fields after the seventh are ignored.
    pub(crate) fn parse(line: &[u8], expected: &Expectation<'_>) -> Result<Self, LineProblem> {
        let line = std::str::from_utf8(line).map_err(|_| LineProblem::NotText)?.trim();
        let fields: Vec<&str> = line.split('|').collect();
        let [core, app, network, address, optional @ ..] = fields.as_slice() else {
            return Err(LineProblem::TooFewFields { fields: if line.is_empty() { 0 } else { fields.len() } });
        };
        if core.parse() != Ok(CORE_PROTOCOL_VERSION) {
            return Err(LineProblem::CoreVersion { found: (*core).to_owned() });
        }
        let app_version = app
            .parse()
            .map(AppVersion)
            .map_err(|_| LineProblem::AppVersionText { found: (*app).to_owned() })?;
        if !expected.app_versions.contains(app_version) {
            return Err(LineProblem::AppVersion { plugin: app_version, host: expected.app_versions.clone() });
        }
        let address = PluginAddress::parse(network, address)?;
        match optional.first() {
            Some(&"grpc") => {}
            None | Some(&"netrpc") => return Err(LineProblem::NetRpc),
            Some(other) => return Err(LineProblem::Protocol { found: (*other).to_owned() }),
        }
        let server_cert = parse_certificate(optional.get(1).copied().unwrap_or_default())?;
        match (&server_cert, expected.certificate) {
            (Some(_), false) => return Err(LineProblem::UnexpectedCertificate),
            (None, true) => return Err(LineProblem::MissingCertificate),
            _ => {}
        }
        let broker_mux =
            if expected.multiplexing { Some(parse_mux(optional.get(2).copied())?) } else { None };
        Ok(Self { app_version, address, server_cert, broker_mux })
    }
}

/// Reads a line as a host does that knows these versions, and that has asked for AutoMTLS or not.
#[cfg(feature = "measure")]
pub fn parse_line(
    line: &[u8],
    app_versions: &AppVersions,
    certificate: bool,
) -> Result<HandshakeLine, LineProblem> {
    HandshakeLine::parse(line, &Expectation { app_versions, certificate, multiplexing: false })
}

fn parse_certificate(field: &str) -> Result<Option<CertificateDer<'static>>, LineProblem> {
    if field.len() <= LONGEST_NOT_A_CERTIFICATE {
        return Ok(None);
    }
    let der = BASE64.decode(field).map_err(|_| LineProblem::Certificate)?;
    Ok(Some(der.into()))
}

fn parse_mux(field: Option<&str>) -> Result<bool, LineProblem> {
    match field.map(|text| (text, parse_bool(text))) {
        Some((_, Some(true))) => Ok(true),
        None | Some((_, Some(false))) => Err(LineProblem::MultiplexingUnsupported),
        Some((text, None)) => Err(LineProblem::Multiplexing { found: text.to_owned() }),
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The line as a plugin prints it, without the line end: always six fields, since some hosts want exactly those, and a
/// seventh only where the host asked for it, since hosts before go-plugin 1.6.0 would take it for a part of the
/// certificate.
impl fmt::Display for HandshakeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app_version, address, server_cert, broker_mux } = self;
        let certificate = server_cert.as_ref().map(|der| BASE64.encode(der)).unwrap_or_default();
        write!(
            f,
            "{CORE_PROTOCOL_VERSION}|{app_version}|{}|{address}|grpc|{certificate}",
            address.network()
        )?;
        broker_mux.map_or(Ok(()), |mux| write!(f, "|{mux}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<HandshakeLine, LineProblem> {
        parse_expecting(line, false, false)
    }

    fn parse_expecting(
        line: &str,
        certificate: bool,
        multiplexing: bool,
    ) -> Result<HandshakeLine, LineProblem> {
        let app_versions = [1, 3].into_iter().collect();
        HandshakeLine::parse(
            line.as_bytes(),
            &Expectation { app_versions: &app_versions, certificate, multiplexing },
        )
    }

    #[test]
    fn lines_of_every_age_are_read() {
        let plain = HandshakeLine {
            app_version: AppVersion(1),
            address: PluginAddress::Unix("/tmp/plugin3889388928".into()),
            server_cert: None,
            broker_mux: None,
        };
        for line in [
            "1|1|unix|/tmp/plugin3889388928|grpc|",
            "1|1|unix|/tmp/plugin3889388928|grpc",
            "1|1|unix|/tmp/plugin3889388928|grpc||true",
            "1|1|unix|/tmp/plugin3889388928|grpc||maybe",
            "1|1|unix|/tmp/plugin3889388928|grpc|old plugins put junk here",
            "1|1|unix|/tmp/plugin3889388928|grpc||true|and|more",
            "01|+1|unix|/tmp/plugin3889388928|grpc|",
            "  1|1|unix|/tmp/plugin3889388928|grpc|\r\n",
        ] {
            assert_eq!(parse(line), Ok(plain.clone()), "{line:?}");
        }
    }

    #[test]
    fn the_first_thing_wrong_is_the_error() {
        use LineProblem as P;
        let host: AppVersions = [1, 3].into_iter().collect();
        let cert = "M".repeat(52);
        for (line, problem) in [
            ("", P::TooFewFields { fields: 0 }),
            ("hello", P::TooFewFields { fields: 1 }),
            ("2|9|unix", P::TooFewFields { fields: 3 }),
            ("2|9|udp|x|netrpc", P::CoreVersion { found: "2".into() }),
            ("-1|1|unix|/x|grpc", P::CoreVersion { found: "-1".into() }),
            ("1e3|1|unix|/x|grpc", P::CoreVersion { found: "1e3".into() }),
            ("1|x|udp|x", P::AppVersionText { found: "x".into() }),
            ("1||unix|/x|grpc", P::AppVersionText { found: String::new() }),
            ("1|2|udp|x|netrpc", P::AppVersion { plugin: AppVersion(2), host }),
            ("1|1|udp|x|netrpc", P::Address(AddressProblem::Network("udp".into()))),
            ("1|1|tcp|x|netrpc", P::Address(AddressProblem::HostPort("x".into()))),
            ("1|1|tcp|:1234", P::NetRpc),
            ("1|1|unix|/x|netrpc|", P::NetRpc),
            ("1|1|unix|/x|GRPC|", P::Protocol { found: "GRPC".into() }),
            ("1|1|unix|/x||", P::Protocol { found: String::new() }),
            (&format!("1|1|unix|/x|grpc|{}", "*".repeat(51)), P::Certificate),
            (&format!("1|1|unix|/x|grpc|{cert}"), P::UnexpectedCertificate),
        ] {
            assert_eq!(parse(line), Err(problem), "{line:?}");
        }
    }

    #[test]
    fn the_side_with_the_lower_version_is_told_to_upgrade() {
        for (version, side) in [("0", "plugin"), ("2", "plugin"), ("4", "host")] {
            let text = parse(&format!("1|{version}|unix|/x|grpc|")).unwrap_err().to_string();
            assert!(text.ends_with(&format!("upgrade the {side}")), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_read_with_and_without_padding() {
        let line = "1|1|unix|/x|grpc|";
        let der: Vec<u8> = (0..=60).collect();
        let unpadded = BASE64.encode(&der);
        for field in [unpadded.clone(), format!("{unpadded}==")] {
            let read = parse_expecting(&format!("{line}{field}"), true, false).unwrap();
            assert_eq!(read.server_cert.as_deref(), Some(der.as_slice()));
        }
        assert_eq!(parse_expecting(line, true, false), Err(LineProblem::MissingCertificate));
    }

    #[test]
    fn field_seven_is_judged_only_if_the_host_asked() {
        let line = "1|1|unix|/x|grpc|";
        for (tail, mux) in [
            ("|true", Ok(Some(true))),
            ("|1", Ok(Some(true))),
            ("", Err(LineProblem::MultiplexingUnsupported)),
            ("|false", Err(LineProblem::MultiplexingUnsupported)),
            ("|maybe", Err(LineProblem::Multiplexing { found: "maybe".into() })),
        ] {
            let read = parse_expecting(&format!("{line}{tail}"), false, true);
            assert_eq!(read.map(|line| line.broker_mux), mux, "{tail:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_read_back(
            third in any::<bool>(),
            path in "/[a-z0-9/]{1,80}",
            der in proptest::option::of(proptest::collection::vec(any::<u8>(), 40..400)),
            mux in any::<bool>(),
        ) {
            let line = HandshakeLine {
                app_version: AppVersion(if third { 3 } else { 1 }),
                address: PluginAddress::Unix(path.into()),
                server_cert: der.map(CertificateDer::from),
                broker_mux: mux.then_some(true),
            };
            prop_assert_eq!(&parse_expecting(&line.to_string(), line.server_cert.is_some(), mux).unwrap(), &line);
        }

        #[test]
        fn no_bytes_whatever_make_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let app_versions = [1].into_iter().collect();
            let expected = Expectation { app_versions: &app_versions, certificate: false, multiplexing: true };
            let _ = HandshakeLine::parse(&line, &expected);
        }
    }
}
