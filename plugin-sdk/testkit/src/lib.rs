//! For the tests of those who write plugins and hosts with `plugin-sdk`.
//!
//! | you test | with | real is |
//! |---|---|---|
//! | a plugin's services | [`InMemory`]: your plugin and a host, in this process | all but the process |
//! | a host's calls and what it makes of their failures | [`FakePlugin`]: answers what the test says | gRPC, health, broker |
//! | how a host starts, watches and stops plugins | the crate `plugin-rogue`: a program that misbehaves on request | all |
//! | a whole plugin, a whole host | their own programs, found by [`program`] | all |
//!
//! Whichever it is, a test waits for conditions ([`until`], [`wait`]), looks at processes from outside ([`process`]),
//! reads what the host has logged of its plugin ([`Logged`]) and checks that nothing is left of it ([`Traces`]). The page `testing` of `plugin-sdk`'s manual has an
//! example of each.
//!
//! Everything here panics when a test cannot go on, and says what for. It is no dependency of a program: put it under
//! `[dev-dependencies]`.

mod fake;
mod logged;
pub mod process;
mod program;
mod reply;
mod service;
mod traces;
pub mod wait;

pub use fake::{Call, FakePlugin};
pub use logged::{Line, Logged};
pub use plugin_sdk::{InMemory, InMemoryError};
pub use program::{profile_dir, program};
pub use reply::Reply;
pub use traces::Traces;
pub use wait::until;
