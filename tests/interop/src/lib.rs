//! Our hosts and plugins with those of go-plugin itself: what both have to do for it to work.
//!
//! ```text
//! go/host    a Go host: runs one scenario with a plugin       tests/go_host.rs     it runs our sample-plugin
//! go/plugin  a Go plugin: does whatever it is asked to        tests/go_plugin.rs   our host runs it
//! go/sample  the contract of both, tests/sample/proto
//! ```
//!
//! The Go programs are built by the first test that needs them, into `target/interop-go`, once for each of the
//! supported [`Release`]s. Where Go is not installed the tests say that they were skipped, unless `CI` is `true`.

mod files;
mod go;
pub mod seen;
mod started;

pub use e2e::skip;
pub use files::binary;
pub use go::{Go, Release};
pub use sample_plugin::Greeter;
pub use started::Started;
