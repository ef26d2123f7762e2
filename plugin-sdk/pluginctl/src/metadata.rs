//! Metadata: from `name: value` on the command line, and into reports.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use thiserror::Error;
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, KeyAndValueRef, MetadataMap,
};

/// Why a `-H` cannot be sent. Never holds a value: it may be a secret.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum MetadataError {
    #[error("has no colon: write it like 'name: value'")]
    NoColon,
    #[error("has the name {0:?}: names have lower-case letters, digits, '-', '_' and '.'")]
    Name(String),
    #[error("has the name {0:?}, which belongs to gRPC itself")]
    Reserved(String),
    #[error("has a value for {0:?} that is not printable ASCII; only names that end with -bin have others")]
    Value(String),
    #[error("has a value for {0:?} that is not base64, as names that end with -bin need")]
    Base64(String),
}

/// Adds a `name: value` to `map`. The value of a name that ends with `-bin` is base64 and is sent as bytes.
pub(crate) fn add(map: &mut MetadataMap, text: &str) -> Result<(), MetadataError> {
    let (name, value) = text.split_once(':').ok_or(MetadataError::NoColon)?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    if is_reserved(&name) {
        return Err(MetadataError::Reserved(name));
    }
    if name.ends_with("-bin") {
        let key = BinaryMetadataKey::from_bytes(name.as_bytes());
        let key = key.map_err(|_| MetadataError::Name(name.clone()))?;
        let bytes = STANDARD.decode(value).map_err(|_| MetadataError::Base64(name))?;
        map.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
    } else {
        let key = AsciiMetadataKey::from_bytes(name.as_bytes());
        let key = key.map_err(|_| MetadataError::Name(name.clone()))?;
        let printable = Some(value).filter(|value| value.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
        let value = printable.and_then(|value| AsciiMetadataValue::try_from(value).ok());
        let value = value.ok_or(MetadataError::Value(name))?;
        map.append(key, value);
    }
    Ok(())
}

/// Names that gRPC and HTTP/2 use themselves: a call with another value for them is not one.
fn is_reserved(name: &str) -> bool {
    let of_grpc = name.starts_with("grpc-") || name.starts_with(':');
    of_grpc || ["connection", "content-length", "content-type", "te", "transfer-encoding"].contains(&name)
}

/// Names and values in the order they came, bytes as base64, without those that gRPC itself puts there.
pub(crate) fn pairs(map: &MetadataMap) -> Vec<(String, String)> {
    map.iter()
        .map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => {
                (key.to_string(), String::from_utf8_lossy(value.as_encoded_bytes()).into_owned())
            }
            KeyAndValueRef::Binary(key, value) => {
                let text = value.to_bytes().map(|bytes| STANDARD.encode(bytes));
                (key.to_string(), text.unwrap_or_else(|_| "(not base64)".to_owned()))
            }
        })
        .filter(|(name, _)| !is_reserved(name))
        .collect()
}

/// As an object; each name has an array, since it may have come more than once.
pub(crate) fn json(map: &MetadataMap) -> Value {
    let mut object = Map::new();
    for (name, value) in pairs(map) {
        let values = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(value.into());
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_and_shown_the_same() {
        let mut map = MetadataMap::new();
        for text in ["X-Name: a: b", "x-name:second", "trace-bin: AP8="] {
            add(&mut map, text).unwrap();
        }
        map.insert("grpc-timeout", "1S".parse().unwrap());
        assert_eq!(map.get_bin("trace-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 255]);
        assert_eq!(json(&map), serde_json::json!({"x-name": ["a: b", "second"], "trace-bin": ["AP8="]}));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_its_value() {
        for (text, error) in [
            ("secret", MetadataError::NoColon),
            (": secret", MetadataError::Name(String::new())),
            ("a b: secret", MetadataError::Name("a b".into())),
            ("Content-Type: secret", MetadataError::Reserved("content-type".into())),
            ("grpc-timeout: secret", MetadataError::Reserved("grpc-timeout".into())),
            ("a: secret\n2", MetadataError::Value("a".into())),
            ("a: sécret", MetadataError::Value("a".into())),
            ("a-bin: secret!", MetadataError::Base64("a-bin".into())),
        ] {
            let found = add(&mut MetadataMap::new(), text).unwrap_err();
            assert!(!found.to_string().contains("secret"));
            assert_eq!(found, error, "{text:?}");
        }
    }
}
