//! Certificates that belong to nobody else.

/// An authority and what it issues, as PEM.
#[derive(Debug)]
pub struct Authority {
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// Never, unless the machine has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let key = rcgen::KeyPair::generate().expect("there is randomness");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("the key is good");
        let pem = pem_text("CERTIFICATE", certificate.der());
        Self { key, params, pem }
    }

    /// A certificate for localhost and its key.
    ///
    /// # Panics
    /// Never, unless the machine has no randomness.
    #[must_use]
    pub fn issue(&self) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("there is randomness");
        let names = vec!["localhost".to_owned()];
        let issuer = rcgen::Issuer::new(self.params.clone(), &self.key);
        let params = rcgen::CertificateParams::new(names).expect("the name is good");
        let certificate = params.signed_by(&key, &issuer).expect("the key is good");
        (pem_text("CERTIFICATE", certificate.der()), pem_text("PRIVATE KEY", &key.serialize_der()))
    }

    /// What [`issue`](Self::issue) gives and the authority itself, for a program that takes them from variables: `X_CA`, `X_CERT` and
    /// `X_KEY` with the prefix `X`.
    #[must_use]
    pub fn variables(&self, prefix: &str) -> [(String, String); 3] {
        let (certificate, key) = self.issue();
        [("CA", self.pem.clone()), ("CERT", certificate), ("KEY", key)]
            .map(|(name, pem)| (format!("{prefix}_{name}"), pem))
    }
}

/// PEM, as certificates come in files.
fn pem_text(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
