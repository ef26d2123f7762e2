//! Descriptions of services and messages: where they come from, and finding a method in them.

mod proto;
mod reflected;

use std::fmt;
use std::str::FromStr;

use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor};
use thiserror::Error;

use crate::limits::MAX_DESCRIPTOR_FILES;
use crate::reflection::ReflectionError;

pub(crate) use proto::{ProtoError, compile};
pub(crate) use reflected::reflect;

/// A method as it is called: `pkg.Service/Method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodName {
    pub(crate) service: String,
    pub(crate) method: String,
}

impl FromStr for MethodName {
    type Err = &'static str;

    /// Takes the form of gRPC's own paths too, which begin with a slash.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('/').unwrap_or(text).split_once('/') {
            Some((service, method)) if is_name(service) && is_name(method) && !method.contains('.') => {
                Ok(Self { service: service.to_owned(), method: method.to_owned() })
            }
            _ => Err("write it like pkg.Service/Method"),
        }
    }
}

fn is_name(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text.split('.').all(part)
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

/// Why there is no description of a method.
#[derive(Debug, Error)]
pub(crate) enum SchemaError {
    #[error("the plugin has no gRPC reflection: give its .proto file with --proto")]
    NoReflection,
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// It may be there all the same: a plugin describes what its author has given it descriptions of.
    #[error(
        "the plugin's gRPC reflection has no service {service}, it has {}; if the plugin serves it all the same, give its .proto file with --proto",
        list(known)
    )]
    NotDescribed { service: String, known: Vec<String> },
    #[error("the .proto files have no service {service}, they have {}", list(known))]
    NoService { service: String, known: Vec<String> },
    #[error("the service {service} has no method {method}, it has {}", known.join(", "))]
    NoMethod { service: String, method: String, known: Vec<String> },
    #[error(
        "the service {service} needs more than {MAX_DESCRIPTOR_FILES} files: give its .proto file with --proto"
    )]
    TooManyFiles { service: String },
    #[error("the plugin's description of itself does not fit together: {0:?}")]
    Descriptor(DescriptorError),
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Looks a method up.
pub(crate) fn find(pool: &DescriptorPool, name: &MethodName) -> Result<MethodDescriptor, SchemaError> {
    let Some(service) = pool.get_service_by_name(&name.service) else {
        let known = pool.services().map(|service| service.full_name().to_owned()).collect();
        return Err(SchemaError::NoService { service: name.service.clone(), known });
    };
    let method = service.methods().find(|method| method.name() == name.method);
    method.ok_or_else(|| SchemaError::NoMethod {
        service: name.service.clone(),
        method: name.method.clone(),
        known: service.methods().map(|method| method.name().to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_names_are_a_service_and_a_method() {
        let name = MethodName { service: "pkg.v1.Service".into(), method: "Method".into() };
        for text in ["pkg.v1.Service/Method", "/pkg.v1.Service/Method"] {
            assert_eq!(text.parse(), Ok(name.clone()), "{text}");
        }
        assert_eq!(name.to_string(), "pkg.v1.Service/Method");
        for text in
            ["", "/", "Service", "Service/", "/Method", "a//b", "a/b/c", "a/b.c", "a b/c", ".a/b", "a/b?c"]
        {
            assert!(text.parse::<MethodName>().is_err(), "{text:?}");
        }
    }
}
