//! The example programs that come with go-plugin, as they are in its module.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{Place, Ran, words};

const MODULE: &str = "github.com/hashicorp/go-plugin@v1.8.0";

/// What the checksum database of Go says of it.
const SUM: &str = "h1:ie8S6RRY8RvB2usYZv+AAZ/wBvx2AU5p5QeP5j/FORs=";

/// Our name of a program, and its folder in the module.
const PROGRAMS: [(&str, &str); 6] = [
    ("kv", "examples/grpc/plugin-go-grpc"),
    ("kv-netrpc", "examples/grpc/plugin-go-netrpc"),
    ("counter", "examples/bidirectional/plugin-go-grpc"),
    ("negotiated", "examples/negotiated/plugin-go"),
    ("streamer", "examples/streaming/plugin"),
    ("greeter", "examples/basic/plugin"),
];

/// All of them have the same cookie, but for the last.
const COOKIE: &str = "--cookie BASIC_PLUGIN=hello";

/// The examples, built.
struct Examples {
    /// The module's source, with the .proto files.
    source: PathBuf,
    programs: PathBuf,
}

impl Examples {
    /// Builds them, the first time; `None` where Go is not installed. `test` is who asks.
    fn get(test: &str) -> Option<&'static Self> {
        static EXAMPLES: OnceLock<Option<Examples>> = OnceLock::new();
        let examples = EXAMPLES.get_or_init(Self::build).as_ref();
        if examples.is_none() {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "{test} needs Go, which is not installed");
            // Not by a macro: what those print is shown only of tests that fail.
            let _ = writeln!(std::io::stderr(), "skipped: {test}: go is not installed");
        }
        examples
    }

    fn build() -> Option<Self> {
        Command::new("go").arg("version").output().ok().filter(|output| output.status.success())?;
        let profile = e2e::binary("sample-plugin");
        let target = profile.parent().and_then(Path::parent).expect("binaries are in target/<profile>");
        let programs = target.join("interop-go-examples");
        fs::create_dir_all(&programs).expect("the target folder can be written to");
        // Another run of the tests may be building the same.
        let lock = File::create(programs.join("lock")).expect("the target folder can be written to");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a file can be locked");
        // Away from any module, so that no go.mod decides what is downloaded.
        let told = go(&programs, &["mod", "download", "-json", MODULE]);
        let module: Value = serde_json::from_slice(&told).expect("go answers in JSON");
        assert_eq!(module["Sum"], SUM, "{MODULE} is not what it was");
        let source = PathBuf::from(module["Dir"].as_str().expect("the module has a folder"));
        for (name, folder) in PROGRAMS {
            let program = programs.join(name);
            let output = program.to_str().expect("the target folder has a name of text");
            let folder = format!("./{folder}");
            go(&source, &["build", "-buildvcs=false", "-trimpath", "-mod=readonly", "-o", output, &folder]);
        }
        Some(Self { source, programs })
    }

    /// Runs `pluginctl COMMAND PROGRAM REST`, with the cookie.
    fn run(&self, place: &Place, command: &str, program: &str, rest: &str, data: Option<&str>) -> Ran {
        let program = self.programs.join(program).display().to_string();
        let mut args = words(&format!("{command} {program} {COOKIE} {rest}"));
        args.extend(data.into_iter().flat_map(|data| ["--data".to_owned(), data.to_owned()]));
        place.run(args)
    }

    /// Where the description of a call is from: from the plugin, or from the .proto file of an example.
    fn descriptions(&self, proto: &str) -> [String; 2] {
        let proto = self.source.join("examples").join(proto);
        [String::new(), format!("--proto {}", proto.display())]
    }
}

/// What go printed.
fn go(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("go").current_dir(dir).args(args).output().expect("go was there a moment ago");
    assert!(output.status.success(), "go {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// All ways to connect to a plugin.
const CONNECTIONS: [&str; 4] = ["", "--auto-mtls", "--multiplex", "--auto-mtls --multiplex"];

#[test]
fn every_example_for_grpc_is_inspected_over_every_connection() {
    let Some(examples) = Examples::get("every_example_for_grpc_is_inspected_over_every_connection") else {
        return;
    };
    for (program, version, service, methods) in [
        ("kv", 1, "proto.KV", &["Get", "Put"][..]),
        ("counter", 1, "proto.Counter", &["Get", "Put"]),
        ("negotiated", 3, "proto.KV", &["Get", "Put"]),
        ("streamer", 1, "proto.StreamerService", &["Configure", "Read", "Write"]),
    ] {
        for connection in CONNECTIONS {
            let more = format!("--app-versions 1,3 -o json {connection}");
            let ran = examples.run(&Place::new(), "inspect", program, &more, None);
            assert_eq!(ran.code, Some(0), "{program} {connection}: {ran:?}");
            let report = ran.json().remove(0);
            let handshake = &report["handshake"];
            assert_eq!((&handshake["core_version"], &handshake["app_version"]), (&json!(1), &json!(version)));
            let key = connection.contains("mtls").then_some("ECDSA P-521");
            assert_eq!(handshake["certificate"]["key"].as_str(), key, "{handshake}");
            assert_eq!(handshake["multiplexing"].as_bool(), connection.contains("multiplex").then_some(true));
            assert_eq!((&report["health"], &report["reflection"]), (&json!("SERVING"), &json!("v1")));
            assert_eq!(methods_of(&report, service), methods, "{report}");
            assert_eq!(
                (&report["end"]["exit_code"], &report["end"]["after"]),
                (&json!(0), &json!("shutdown"))
            );
            let logged = report["log"]["lines"].as_array().expect("there is a log");
            assert!(logged.iter().any(|line| line["message"] == "plugin address"), "{report}");
        }
    }
}

fn methods_of(report: &Value, service: &str) -> Vec<String> {
    let mut services = report["services"].as_array().into_iter().flatten();
    let found = services.find(|listed| listed["name"] == service).unwrap_or_else(|| panic!("{report}"));
    let methods = found["methods"].as_array().into_iter().flatten();
    methods.filter_map(|method| method["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn streams_are_told_from_single_messages() {
    let Some(examples) = Examples::get("streams_are_told_from_single_messages") else { return };
    let text = examples.run(&Place::new(), "inspect", "streamer", "", None).worked();
    for method in [
        "Configure(proto.Configure.Request) returns (proto.Configure.Response)",
        "Read(proto.Read.Request) returns (stream proto.Read.ResponseChunk)",
        "Write(stream proto.Write.RequestChunk) returns (proto.Write.Response)",
    ] {
        assert!(text.contains(method), "{text}");
    }
}

#[test]
fn examples_for_net_rpc_are_told_as_such() {
    let Some(examples) = Examples::get("examples_for_net_rpc_are_told_as_such") else { return };
    for (program, more) in [("kv-netrpc", ""), ("greeter", ""), ("negotiated", "--app-versions 2")] {
        let ran = examples.run(&Place::new(), "inspect", program, more, None);
        assert!(ran.failed().contains("it is a net/rpc plugin"), "{program}: {ran:?}");
    }
}

#[test]
fn a_wrong_cookie_is_told_as_such() {
    let Some(examples) = Examples::get("a_wrong_cookie_is_told_as_such") else { return };
    let program = examples.programs.join("kv").display().to_string();
    let ran = Place::new().run(words(&format!("inspect {program} --cookie OTHER=cookie")));
    assert!(ran.failed().ends_with("the --cookie is not this plugin's"), "{ran:?}");
}

#[test]
fn values_are_put_and_got_over_reflection_and_over_the_proto_file() {
    let Some(examples) = Examples::get("values_are_put_and_got_over_reflection_and_over_the_proto_file")
    else {
        return;
    };
    for (program, version) in [("kv", 1), ("negotiated", 3)] {
        for description in examples.descriptions("grpc/proto/kv.proto") {
            for connection in CONNECTIONS {
                let place = Place::new();
                let call = |method: &str, data: &str| {
                    let more =
                        format!("proto.KV/{method} --app-versions {version} {description} {connection}");
                    examples.run(&place, "call", program, &more, Some(data))
                };
                assert_eq!(call("Put", r#"{"key": "a", "value": "aGk="}"#).worked(), "{}\n");
                let stored = fs::read(place.path().join("kv_a")).expect("the plugin has written it");
                assert!(stored.starts_with(b"hi\n"), "{stored:?}");
                let ran = call("Get", r#"{"key": "a"}"#);
                let value: Value = serde_json::from_str(&ran.worked()).expect("it is JSON");
                assert!(value["value"].as_str().is_some_and(|value| value.starts_with("aGk")), "{value}");
            }
        }
    }
}

#[test]
fn statuses_of_all_examples_are_shown_as_such() {
    let Some(examples) = Examples::get("statuses_of_all_examples_are_shown_as_such") else { return };
    for (program, proto, method, data) in [
        ("kv", "grpc/proto/kv.proto", "proto.KV/Get", r#"{"key": "none"}"#),
        ("counter", "bidirectional/proto/kv.proto", "proto.Counter/Get", r#"{"key": "none"}"#),
        // Without `Configure`, which another process has forgotten, it has no file to stream from or to.
        ("streamer", "streaming/proto/streamer.proto", "proto.StreamerService/Read", "{}"),
        (
            "streamer",
            "streaming/proto/streamer.proto",
            "proto.StreamerService/Write",
            r#"{"bytesToWrite": "aGk="} {"bytesToWrite": "aGk="}"#,
        ),
    ] {
        for description in examples.descriptions(proto) {
            let ran =
                examples.run(&Place::new(), "call", program, &format!("{method} {description}"), Some(data));
            let told = ran.failed();
            assert!(told.starts_with("pluginctl: the plugin answered UNKNOWN: open "), "{program}: {told}");
        }
    }
}

#[test]
fn a_stream_is_called_both_ways() {
    let Some(examples) = Examples::get("a_stream_is_called_both_ways") else { return };
    for service in ["grpc.reflection.v1", "grpc.reflection.v1alpha"] {
        let method = format!("{service}.ServerReflection/ServerReflectionInfo -o json --auto-mtls");
        let data = r#"{"listServices": ""} {"fileContainingSymbol": "proto.StreamerService"}"#;
        let ran = examples.run(&Place::new(), "call", "streamer", &method, Some(data));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let lines = ran.json();
        assert!(lines[1]["message"]["listServicesResponse"].is_object(), "{ran:?}");
        assert!(lines[2]["message"]["fileDescriptorResponse"].is_object(), "{ran:?}");
        assert_eq!((lines.len(), &lines[3]["status"]["code"]), (4, &json!("OK")));
    }
}
