//! A plugin's certificate, as far as a person wants to know it.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::escape::escaped;

/// What the certificate of the handshake line holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Certificate {
    /// SHA-256 of all of it, in hexadecimal.
    pub(crate) fingerprint: String,
    /// `None` for bytes that are no certificate.
    pub(crate) content: Option<Content>,
}

/// The content of a readable certificate.
#[derive(Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) subject: String,
    /// `ECDSA P-521`, `RSA 2048`.
    pub(crate) key: String,
    /// The first moment at which it is valid, RFC 3339.
    pub(crate) not_before: String,
    /// The last one.
    pub(crate) not_after: String,
}

impl Certificate {
    pub(crate) fn read(der: &[u8]) -> Self {
        let fingerprint = Sha256::digest(der).iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let content = X509Certificate::from_der(der).ok().map(|(_, certificate)| Content {
            subject: escaped(&certificate.subject().to_string()).to_string(),
            key: key_type(certificate.public_key()),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
        });
        Self { fingerprint, content }
    }

    pub(crate) fn json(&self) -> Value {
        let content = self.content.as_ref();
        json!({
            "fingerprint_sha256": self.fingerprint,
            "subject": content.map(|content| &content.subject),
            "key": content.map(|content| &content.key),
            "not_before": content.map(|content| &content.not_before),
            "not_after": content.map(|content| &content.not_after),
        })
    }
}

/// Keys of elliptic curves are known by their curve.
const CURVES: [(&str, &str); 3] = [
    ("1.2.840.10045.3.1.7", "ECDSA P-256"),
    ("1.3.132.0.34", "ECDSA P-384"),
    ("1.3.132.0.35", "ECDSA P-521"),
];

const ED25519: &str = "1.3.101.112";

fn key_type(key: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = key.algorithm.algorithm.to_id_string();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve =
                key.algorithm.parameters.as_ref().and_then(|parameters| Oid::try_from(parameters).ok());
            let curve = curve.map_or(algorithm, |curve| curve.to_id_string());
            let known = CURVES.iter().find(|(id, _)| *id == curve);
            known.map_or_else(|| format!("ECDSA on {curve}"), |(_, name)| (*name).to_owned())
        }
        _ if algorithm == ED25519 => "Ed25519".to_owned(),
        _ => algorithm,
    }
}

fn time(time: ASN1Time) -> String {
    let seconds = u64::try_from(time.timestamp()).ok();
    let time = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    // Formatting fails only beyond the year 9999, which X.509 cannot say.
    time.map_or_else(|| "before 1970".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A throw-away certificate for P-256, made by OpenSSL for this test.
    const P256: &str = "\
        MIIBoTCCAUegAwIBAgIUVGrE9T8ObE812DX/oB0vYDiSBA4wCgYIKoZIzj0EAwIwJjEQMA4GA1UECgwHRXhhbXBsZTESMBAG\
        A1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyMzIzNTkzMVoXDTM2MTEyMDIzNTkzMVowJjEQMA4GA1UECgwHRXhhbXBsZTESMBAG\
        A1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEnaXwp5v9ysXLJ8UfMwqblZ27D2Ds8uKf9Nl5lsqm\
        bA9jiv8b5aDfOOgmFcQjpxGevXYjpWzu+JIlU5m/iYYXcKNTMFEwHQYDVR0OBBYEFBP/G8Qha1zshgI9sgc6mBZtsU1PMB8G\
        A1UdIwQYMBaAFBP/G8Qha1zshgI9sgc6mBZtsU1PMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhANTokcZR\
        Cxe74S13c/VjoHAh8++teQzlkoMEgyocQKyRAiAormotzJl0rwQPjTlyWHTZCo0UqPO47eRibFhZjTtVmw==";

    #[test]
    fn a_certificate_is_read() {
        let certificate = Certificate::read(&STANDARD.decode(P256).unwrap());
        assert_eq!(
            certificate.fingerprint,
            "a683af9f1f3c87368312431b170bcd7654b25c23afc62eea1b609b81d955c8da"
        );
        let content = certificate.content.unwrap();
        assert_eq!(
            (content.subject.as_str(), content.key.as_str()),
            ("O=Example, CN=localhost", "ECDSA P-256")
        );
        assert_eq!(
            (content.not_before.as_str(), content.not_after.as_str()),
            ("2026-11-23T23:59:31Z", "2036-11-20T23:59:31Z")
        );
    }

    #[test]
    fn bytes_that_are_no_certificate_have_a_fingerprint() {
        let certificate = Certificate::read(b"no certificate");
        assert_eq!(certificate.fingerprint.len(), 64);
        assert_eq!(certificate.content, None);
        assert_eq!(certificate.json()["subject"], Value::Null);
    }
}
