//! What was seen of a plugin, and its form for programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_sdk::HandshakeLine;
use plugin_sdk::host::{Exit, ExitKind, StopStep};
use prost_types::{FileDescriptorProto, MethodDescriptorProto};
use serde_json::{Value, json};

use super::text;
use crate::certificate::Certificate;
use crate::cli::Format;
use crate::log::Line;
use crate::output::{Output, OutputError};
use crate::reflection::Version;

/// All that was seen. What is `None` was not seen, since something failed before.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) path: PathBuf,
    pub(super) pid: Option<u32>,
    pub(super) handshake: Option<Handshake>,
    pub(super) health: Option<Health>,
    /// From the start of the process to its first answer.
    pub(super) first_rpc: Option<Duration>,
    pub(super) services: Option<Services>,
    /// Lines, and the number of those that were too many to be kept.
    pub(super) log: (Vec<Line>, usize),
    /// How it ended, and how long that took since it was asked to.
    pub(super) end: Option<(Exit, Duration)>,
    pub(super) error: Option<String>,
}

/// What the plugin said on its first line.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) app_version: u32,
    pub(super) network: &'static str,
    pub(super) address: String,
    pub(super) certificate: Option<Certificate>,
    /// `None` where it was not asked.
    pub(super) multiplexing: Option<bool>,
    /// From the start of the process.
    pub(super) after: Duration,
}

/// go-plugin's own protocol version and the protocol of the plugin's calls: a handshake with others is refused.
pub(super) const CORE_VERSION: u32 = 1;
pub(super) const PROTOCOL: &str = "grpc";

#[derive(Debug)]
pub(super) enum Health {
    Serving,
    NoService,
    /// It said that it cannot work, or nothing.
    Bad(String),
}

#[derive(Debug)]
pub(super) enum Services {
    NoReflection,
    Listed { version: Version, services: Vec<Service> },
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// Or why they are not known.
    pub(super) methods: Result<Vec<Method>, String>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) client_streaming: bool,
    pub(super) server_streaming: bool,
}

impl Report {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            pid: None,
            handshake: None,
            health: None,
            first_rpc: None,
            services: None,
            log: (Vec::new(), 0),
            end: None,
            error: None,
        }
    }

    /// Writes it down.
    pub(crate) async fn print(&self, output: &mut Output, format: Format) -> Result<(), OutputError> {
        match format {
            Format::Text => output.text(text::report(self).trim_end()).await,
            Format::Json => output.json(&self.json()).await,
        }
    }

    fn json(&self) -> Value {
        let (lines, dropped) = &self.log;
        json!({
            "path": self.path.to_string_lossy(),
            "pid": self.pid,
            "handshake": self.handshake.as_ref().map(Handshake::json),
            "health": self.health.as_ref().map(Health::as_text),
            "first_rpc_ms": self.first_rpc.map(milliseconds),
            "reflection": self.services.as_ref().map(Services::version),
            "services": self.services.as_ref().map(Services::json),
            "log": { "lines": lines.iter().map(Line::json).collect::<Vec<_>>(), "dropped": dropped },
            "end": self.end.as_ref().map(|(exit, took)| end_json(exit, *took)),
            "error": self.error,
        })
    }
}

impl Handshake {
    pub(super) fn new(line: &HandshakeLine, after: Duration) -> Self {
        Self {
            app_version: line.app_version.get(),
            network: line.address.network(),
            address: line.address.to_string(),
            certificate: line.server_cert.as_ref().map(|der| Certificate::read(der)),
            multiplexing: line.broker_mux,
            after,
        }
    }

    fn json(&self) -> Value {
        json!({
            "core_version": CORE_VERSION,
            "app_version": self.app_version,
            "network": self.network,
            "address": self.address,
            "protocol": PROTOCOL,
            "certificate": self.certificate.as_ref().map(Certificate::json),
            "multiplexing": self.multiplexing,
            "after_ms": milliseconds(self.after),
        })
    }
}

impl Health {
    /// The name of its status, or what is wrong.
    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Serving => "SERVING",
            Self::NoService => "none",
            Self::Bad(problem) => problem,
        }
    }
}

impl Services {
    fn version(&self) -> String {
        match self {
            Self::NoReflection => "none".to_owned(),
            Self::Listed { version, .. } => version.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::NoReflection => Value::Null,
            Self::Listed { services, .. } => services.iter().map(Service::json).collect(),
        }
    }
}

impl Service {
    fn json(&self) -> Value {
        let methods = self.methods.as_ref().ok();
        json!({
            "name": self.name,
            "methods": methods.map(|methods| methods.iter().map(Method::json).collect::<Vec<_>>()),
            "problem": self.methods.as_ref().err(),
        })
    }
}

impl Method {
    /// The methods of a service, by its full name; `None` if it is in none of the files.
    pub(super) fn all_of(files: &[FileDescriptorProto], service: &str) -> Option<Vec<Self>> {
        let (package, short) = service.rsplit_once('.').unwrap_or(("", service));
        let mut declared =
            files.iter().filter(|file| file.package() == package).flat_map(|file| &file.service);
        let service = declared.find(|declared| declared.name() == short)?;
        Some(service.method.iter().map(Self::new).collect())
    }

    fn new(method: &MethodDescriptorProto) -> Self {
        let type_name = |name: &str| name.strip_prefix('.').unwrap_or(name).to_owned();
        Self {
            name: method.name().to_owned(),
            input: type_name(method.input_type()),
            output: type_name(method.output_type()),
            client_streaming: method.client_streaming(),
            server_streaming: method.server_streaming(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "input": self.input,
            "output": self.output,
            "client_streaming": self.client_streaming,
            "server_streaming": self.server_streaming,
        })
    }
}

fn end_json(exit: &Exit, took: Duration) -> Value {
    let (code, signal) = match exit.status {
        ExitKind::Code(code) => (Some(code), None),
        ExitKind::Signal { number, .. } => (None, Some(number)),
        _ => (None, None),
    };
    let after = match exit.after {
        StopStep::Nothing => "nothing",
        StopStep::Shutdown => "shutdown",
        StopStep::Terminate => "terminate",
        StopStep::Kill => "kill",
        _ => "other",
    };
    json!({
        "how": exit.to_string(),
        "exit_code": code,
        "signal": signal,
        "after": after,
        "took_ms": milliseconds(took),
        "uptime_ms": milliseconds(exit.uptime),
    })
}

/// With three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use prost_types::ServiceDescriptorProto;

    use super::*;

    #[test]
    fn methods_are_found_by_the_full_name_of_their_service() {
        let method = MethodDescriptorProto {
            name: Some("M".into()),
            input_type: Some(".a.b.In".into()),
            output_type: Some(".a.b.Out".into()),
            server_streaming: Some(true),
            ..MethodDescriptorProto::default()
        };
        let service =
            ServiceDescriptorProto { name: Some("S".into()), method: vec![method], ..Default::default() };
        let file = |package: Option<&str>| FileDescriptorProto {
            package: package.map(str::to_owned),
            service: vec![service.clone()],
            ..FileDescriptorProto::default()
        };
        let expected = Method {
            name: "M".into(),
            input: "a.b.In".into(),
            output: "a.b.Out".into(),
            client_streaming: false,
            server_streaming: true,
        };
        let files = [FileDescriptorProto::default(), file(Some("a.b"))];
        assert_eq!(Method::all_of(&files, "a.b.S"), Some(vec![expected]));
        for other in ["b.S", "a.b.T", "S"] {
            assert_eq!(Method::all_of(&files, other), None, "{other}");
        }
        assert_eq!(Method::all_of(&[file(None)], "S").map(|methods| methods.len()), Some(1));
    }

    #[test]
    fn a_report_of_nothing_has_every_key() {
        let json = Report::new(Path::new("/x")).json();
        for key in [
            "path",
            "pid",
            "handshake",
            "health",
            "first_rpc_ms",
            "reflection",
            "services",
            "log",
            "end",
            "error",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
