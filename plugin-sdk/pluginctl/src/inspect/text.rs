//! The report for people.

use std::fmt::{Display, Write};
use std::time::Duration;

use plugin_sdk::host::{Exit, StopStep};

use super::report::{CORE_VERSION, Handshake, Method, PROTOCOL, Report, Service, Services, milliseconds};
use crate::certificate::Certificate;
use crate::escape::escaped;

/// All that is known, one fact per line.
pub(super) fn report(report: &Report) -> String {
    let mut page = Page(String::new());
    page.fact("plugin", escaped(&report.path.to_string_lossy()));
    if let Some(pid) = report.pid {
        page.fact("process", pid);
    }
    if let Some(handshake) = &report.handshake {
        page.handshake(handshake);
    }
    if let Some(health) = &report.health {
        page.fact("health", escaped(health.as_text()));
    }
    if let Some(first_rpc) = report.first_rpc {
        page.fact("first RPC", format_args!("after {}", span(first_rpc)));
    }
    if let Some(services) = &report.services {
        page.services(services);
    }
    page.log(report);
    if let Some((exit, took)) = &report.end {
        page.fact("end", ending(exit, *took));
    }
    page.0
}

/// Width of the names of facts.
const NAME_WIDTH: usize = 16;

struct Page(String);

impl Page {
    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn fact(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name:<NAME_WIDTH$}{value}"));
    }

    fn handshake(&mut self, handshake: &Handshake) {
        self.fact("handshake", format_args!("after {}", span(handshake.after)));
        self.fact("  core version", CORE_VERSION);
        self.fact("  app version", handshake.app_version);
        self.fact("  network", handshake.network);
        self.fact("  address", escaped(&handshake.address));
        self.fact("  protocol", PROTOCOL);
        match &handshake.certificate {
            Some(certificate) => self.certificate(certificate),
            None => self.fact("  certificate", "none"),
        }
        self.fact(
            "  multiplexing",
            match handshake.multiplexing {
                None => "not asked for",
                Some(true) => "yes",
                Some(false) => "no",
            },
        );
    }

    fn certificate(&mut self, certificate: &Certificate) {
        self.fact("  certificate", format_args!("SHA-256 {}", certificate.fingerprint));
        match &certificate.content {
            Some(content) => {
                self.fact("    subject", &content.subject);
                self.fact("    key", &content.key);
                self.fact("    valid", format_args!("{} to {}", content.not_before, content.not_after));
            }
            None => self.fact("", "is not a certificate that can be read"),
        }
    }

    fn services(&mut self, services: &Services) {
        match services {
            Services::NoReflection => self.fact("services", "unknown: the plugin has no gRPC reflection"),
            Services::Listed { version, services } => {
                self.fact("services", format_args!("{} (reflection {version})", services.len()));
                services.iter().for_each(|service| self.service(service));
            }
        }
    }

    fn service(&mut self, service: &Service) {
        self.line(format_args!("  {}", escaped(&service.name)));
        match &service.methods {
            Ok(methods) => {
                methods.iter().for_each(|method| self.line(format_args!("    {}", declaration(method))))
            }
            Err(problem) => self.line(format_args!("    ({problem})")),
        }
    }

    fn log(&mut self, report: &Report) {
        let (lines, dropped) = &report.log;
        match lines.len() + dropped {
            0 => self.fact("log", "nothing"),
            1 => self.fact("log", "1 line"),
            count => self.fact("log", format_args!("{count} lines")),
        }
        if *dropped > 0 {
            self.line(format_args!("  (the first {dropped} are not shown)"));
        }
        lines.iter().for_each(|line| self.line(format_args!("  {line}")));
    }
}

/// As in a .proto file.
fn declaration(method: &Method) -> String {
    let stream = |streaming: bool| if streaming { "stream " } else { "" };
    let Method { name, input, output, .. } = method;
    let (incoming, outgoing) = (stream(method.client_streaming), stream(method.server_streaming));
    escaped(&format!("{name}({incoming}{input}) returns ({outgoing}{output})")).to_string()
}

fn ending(exit: &Exit, took: Duration) -> String {
    let took = span(took);
    match exit.after {
        StopStep::Nothing => format!("{exit}, by itself"),
        StopStep::Shutdown => format!("{exit}, {took} after Shutdown"),
        StopStep::Terminate => format!("{exit}, {took} after Shutdown, which it did not follow, and SIGTERM"),
        StopStep::Kill => {
            format!("{exit}, {took} after Shutdown and SIGTERM, which it did not follow, and SIGKILL")
        }
        _ => format!("{exit}, after {took}"),
    }
}

fn span(duration: Duration) -> String {
    format!("{:.1} ms", milliseconds(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_look_as_in_a_proto_file() {
        let method = |client_streaming, server_streaming| Method {
            name: "M".into(),
            input: "a.In".into(),
            output: "a.Out".into(),
            client_streaming,
            server_streaming,
        };
        assert_eq!(declaration(&method(false, false)), "M(a.In) returns (a.Out)");
        assert_eq!(declaration(&method(true, true)), "M(stream a.In) returns (stream a.Out)");
    }
}
