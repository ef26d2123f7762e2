//! The manual: the protocol and its reasons, for authors in any language.
//!
//! A host or a plugin that does what these pages say works with everything that is made with this crate, and with
//! everything that speaks gRPC through HashiCorp's go-plugin. Nothing else has to be read: service definitions, file
//! formats and time limits are all here. Where this crate decides differently from go-plugin, the page says so.
//!
//! Whoever writes a host or a plugin with this crate wants the README first, then [`lifecycle`] and [`security`], and may leave
//! [`protocol`] until something does not work.
//!
//! | page | answers |
//! |---|---|
//! | [`protocol`] | what is on the wire: variables, the handshake line, TLS, services, broker, multiplexing, reattach, logs |
//! | [`lifecycle`] | who does what when: start, health, signals, stop, a host that dies, and every time limit |
//! | [`operating`] | how to look at a running host's plugins and steer them, and what to do when something is wrong |
//! | [`security`] | what is promised, what is not, and what a hostile plugin can do |
//! | [`testing`] | how to test a plugin and how to test a host, with what |
//! | [`other_languages`] | how to write a plugin or a host without this crate, with a checklist |
//! | [`from_go_plugin`] | which name of go-plugin's has which here, what is not here, and what to do instead |
//!
//! Which test proves each behaviour of the protocol is on a page that is no part of these, since it is made of links to the
//! repository's files: `plugin-sdk/src/manual/conformance.md` there.

#[doc = include_str!("manual/from-go-plugin.md")]
pub mod from_go_plugin {}

#[doc = include_str!("manual/lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("manual/operating.md")]
pub mod operating {}

#[doc = include_str!("manual/other-languages.md")]
pub mod other_languages {}

#[doc = include_str!("manual/protocol.md")]
pub mod protocol {}

#[doc = include_str!("manual/security.md")]
pub mod security {}

#[doc = include_str!("manual/testing.md")]
pub mod testing {}
