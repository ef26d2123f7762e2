//! TLS for go-plugin's connections: AutoMTLS, and configurations of the application's own.
//!
//! With AutoMTLS each side makes a key and a certificate for one start, and tells the other the certificate over a
//! private channel: the host in the environment, the plugin in its handshake line. Each then accepts exactly that
//! certificate, and has the peer prove that it holds the key. Names, dates and issuers play no part.
//!
//! tonic's own TLS cannot be used: it refuses Unix sockets, and its check of client certificates refuses Go's, which
//! are authorities and end entities at once.
//!
//! The cryptography is ring's, but for checking signatures, which is aws-lc's: Go's certificates have P-521 keys, which ring does not
//! know. The rest is not aws-lc's as well because its first random number takes 50 ms in every new process.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName as RootHint, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Stream;

/// The only protocol on these connections. grpc-go closes a connection that has not agreed on it.
const ALPN: &[u8] = b"h2";

/// The name that go-plugin's certificates have and that its hosts ask for.
const SERVER_NAME: &str = "localhost";

/// Before now, for peers whose clock is a little behind. go-plugin's value.
const VALID_SINCE_SECONDS: i64 = 30;

/// From now; 30 years, as go-plugin has it. Nobody checks it, but some TLS libraries want a date in the future.
const VALID_FOR_HOURS: i64 = 262_980;

/// TLS cannot be set up, or a peer is not who it has to be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A key or certificate could not be made.
    #[error("cannot make a one-time certificate")]
    Generate(#[from] rcgen::Error),
    /// A certificate or key cannot be used.
    #[error("the TLS configuration cannot be used")]
    Config(#[from] rustls::Error),
    /// The peer's certificate came as text that is not one PEM certificate.
    #[error("a certificate or key is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// Certificates cannot be for this name.
    #[error("{0:?} is not the name of a server")]
    ServerName(String),
    /// The authority's certificates do not make a verifier.
    #[error("no certificate can be verified with this authority")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// TLS with certificates of the application's own, for both roles, instead of AutoMTLS. Both sides need one.
///
/// The peer's certificate has to come from the authority given here, in both roles: this is mutual TLS as well.
#[derive(Debug, Clone)]
pub struct TlsConfig(Tls);

impl TlsConfig {
    /// From PEM texts: the authority that the peer's certificate must come from, our own certificate with its
    /// intermediates, and its key. `server_name` is what a server's certificate has to be for.
    ///
    /// # Errors
    /// Text that is not PEM, or that does not make a usable configuration.
    pub fn from_pem(authority: &str, chain: &str, key: &str, server_name: &str) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.map_err(TlsError::Pem)?)?;
        }
        let roots = Arc::new(roots);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(TlsError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::Pem)?;
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        Ok(Self(Tls::new(client, server, server_name)))
    }

    pub(crate) fn tls(&self) -> Tls {
        self.0.clone()
    }
}

/// A key and its certificate, made for one start of one process.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Makes a P-256 key and a self-signed certificate of the shape that go-plugin's have. gRPC-core's TLS refuses
    /// go-plugin's own P-521.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "plugin-sdk");
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
            KeyUsagePurpose::KeyCertSign,
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::seconds(VALID_SINCE_SECONDS);
        params.not_after = now + time::Duration::hours(VALID_FOR_HOURS);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }

    /// For field 6 of the handshake line.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// For the host's variable.
    pub(crate) fn certificate_pem(&self) -> String {
        use base64::Engine;

        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }
}

/// Reads a certificate as it stands in the host's variable.
pub(crate) fn certificate_from_pem(text: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(TlsError::Pem)
}

/// What one side needs to secure its connections in both roles: the broker has each side listen and dial.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    server_name: ServerName<'static>,
}

impl Tls {
    /// AutoMTLS: presents `own`, and accepts `peer` and nobody else, in both roles.
    pub(crate) fn pinned(own: &Identity, peer: CertificateDer<'static>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let pin = Arc::new(Pin { certificate: peer, provider: Arc::clone(&provider) });
        let chain = || vec![own.certificate.clone()];
        let key = || PrivateKeyDer::from(own.key.clone_key());
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&pin) as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(chain(), key())?;
        // Each start has fresh keys, and a resumed session would not show its certificate again.
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(pin)
            .with_single_cert(chain(), key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self::new(client, server, ServerName::try_from(SERVER_NAME).expect("it is a DNS name")))
    }

    fn new(mut client: ClientConfig, mut server: ServerConfig, server_name: ServerName<'static>) -> Self {
        client.alpn_protocols = vec![ALPN.to_vec()];
        server.alpn_protocols = vec![ALPN.to_vec()];
        Self { client: Arc::new(client), server: Arc::new(server), server_name }
    }

    /// The TLS client's half of a handshake.
    pub(crate) async fn connect(&self, stream: Stream) -> io::Result<Stream> {
        let stream =
            TlsConnector::from(Arc::clone(&self.client)).connect(self.server_name.clone(), stream).await?;
        agreed(stream.get_ref().1.alpn_protocol())?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// The TLS server's half of a handshake.
    pub(crate) async fn accept(&self, stream: Stream) -> io::Result<Stream> {
        let stream = TlsAcceptor::from(Arc::clone(&self.server)).accept(stream).await?;
        agreed(stream.get_ref().1.alpn_protocol())?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

fn agreed(alpn: Option<&[u8]>) -> io::Result<()> {
    if alpn == Some(ALPN) {
        Ok(())
    } else {
        Err(io::Error::other("the peer did not agree on HTTP/2 (ALPN h2)"))
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms,
        ..rustls::crypto::ring::default_provider()
    }
}

/// Accepts one certificate, byte for byte, from a peer that holds its key.
#[derive(Debug)]
struct Pin {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    /// Intermediates are of no interest: the leaf itself is trusted or not.
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if *leaf == self.certificate { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }

    fn check_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn check_tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pin {
    /// None: a Go client that finds its issuer missing among hints sends no certificate at all.
    fn root_hint_subjects(&self) -> &[RootHint] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::transport::UnixSocket;

    async fn handshake(client: &Tls, server: &Tls) -> (io::Result<Stream>, io::Result<Stream>) {
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (UnixSocket::new(near).unwrap(), UnixSocket::new(far).unwrap());
        let accept = async {
            let mut stream = server.accept(Stream::Unix(far)).await?;
            // A client of TLS 1.3 learns with the first byte that its certificate was refused.
            stream.write_all(b"x").await?;
            stream.flush().await?;
            Ok(stream)
        };
        let connect = async {
            let mut stream = client.connect(Stream::Unix(near)).await?;
            stream.read_u8().await?;
            Ok(stream)
        };
        tokio::join!(connect, accept)
    }

    fn pair() -> (Identity, Identity) {
        (Identity::generate().unwrap(), Identity::generate().unwrap())
    }

    #[tokio::test]
    async fn each_side_accepts_the_certificate_that_it_was_told() {
        let (host, plugin) = pair();
        let at_host = Tls::pinned(&host, plugin.certificate().clone()).unwrap();
        let told = certificate_from_pem(&host.certificate_pem()).unwrap();
        let at_plugin = Tls::pinned(&plugin, told).unwrap();
        for (client, server) in [(&at_host, &at_plugin), (&at_plugin, &at_host)] {
            let (near, far) = handshake(client, server).await;
            assert!(near.is_ok() && far.is_ok(), "{near:?} {far:?}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_refused_in_both_roles() {
        let (host, plugin) = pair();
        let stranger = Identity::generate().unwrap();
        let at_plugin = Tls::pinned(&plugin, host.certificate().clone()).unwrap();
        let as_client = Tls::pinned(&stranger, plugin.certificate().clone()).unwrap();
        let (_, far) = handshake(&as_client, &at_plugin).await;
        assert!(far.is_err());
        let at_host = Tls::pinned(&host, plugin.certificate().clone()).unwrap();
        let as_server = Tls::pinned(&stranger, host.certificate().clone()).unwrap();
        let (near, _) = handshake(&at_host, &as_server).await;
        assert!(near.is_err());
    }

    #[tokio::test]
    async fn the_right_certificate_without_its_key_is_refused() {
        let (host, plugin) = pair();
        let other_key = Identity::generate().unwrap().key;
        let thief = Identity { certificate: plugin.certificate().clone(), key: other_key };
        let at_host = Tls::pinned(&host, plugin.certificate().clone()).unwrap();
        let provider = Arc::new(provider());
        let key = provider.key_provider.load_private_key(thief.key.clone_key().into()).unwrap();
        let certified = rustls::sign::CertifiedKey::new(vec![thief.certificate.clone()], key);
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let as_server = Tls { server: Arc::new(server), ..at_host.clone() };
        let (near, _) = handshake(&at_host, &as_server).await;
        assert!(near.is_err());
    }

    #[tokio::test]
    async fn a_peer_without_a_certificate_or_without_alpn_is_refused() {
        let (host, plugin) = pair();
        let at_plugin = Tls::pinned(&plugin, host.certificate().clone()).unwrap();
        let pin = Arc::new(Pin { certificate: plugin.certificate().clone(), provider: Arc::new(provider()) });
        let builder = || {
            let provider = Arc::new(provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            builder.unwrap().dangerous().with_custom_certificate_verifier(Arc::clone(&pin) as Arc<_>)
        };
        let mut anonymous = builder().with_no_client_auth();
        anonymous.alpn_protocols = vec![ALPN.to_vec()];
        let chain = vec![host.certificate().clone()];
        let silent = builder().with_client_auth_cert(chain, host.key.clone_key().into()).unwrap();
        for config in [anonymous, silent] {
            let client = Tls { client: Arc::new(config), ..at_plugin.clone() };
            let (_, far) = handshake(&client, &at_plugin).await;
            assert!(far.is_err());
        }
    }

    #[tokio::test]
    async fn a_host_refuses_a_plugin_without_alpn() {
        let (host, plugin) = pair();
        let at_host = Tls::pinned(&host, plugin.certificate().clone()).unwrap();
        let at_plugin = Tls::pinned(&plugin, host.certificate().clone()).unwrap();
        let mut silent = (*at_plugin.server).clone();
        silent.alpn_protocols.clear();
        let (near, _) = handshake(&at_host, &Tls { server: Arc::new(silent), ..at_plugin }).await;
        assert!(near.unwrap_err().to_string().contains("ALPN"));
    }
}
