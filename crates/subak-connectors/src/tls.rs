//! Encrypted connections, by the words of `sslmode`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use subak_connect::{ConnectError, ConnectErrorKind};

use crate::sslmode::refuse_unused_root;

/// What encrypts connections. With `verify-full` the server must prove its name by a certificate that leads to `root_file`, or to one that
/// the system trusts; the other modes encrypt without asking who answers.
pub(crate) fn config(name: &str, word: &str, root_file: Option<&str>) -> Result<Arc<ClientConfig>, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |message: String| ConnectError::new(ConnectErrorKind::Config, format!("connection `{name}`: {message}"));
    refuse_unused_root(name, word, root_file)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused("encryption cannot be set up".to_owned()).because(error))?;
    let config = if word == "verify-full" {
        builder.with_root_certificates(roots(root_file).map_err(refused)?).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn roots(file: Option<&str>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            let unread = |error: rustls::pki_types::pem::Error| format!("`sslrootcert` cannot be read from `{file}`: {error}");
            for certificate in CertificateDer::pem_file_iter(file).map_err(unread)? {
                let certificate = certificate.map_err(unread)?;
                store.add(certificate).map_err(|error| format!("`{file}` holds a certificate that is none: {error}"))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err("there is no certificate by which a server could be verified; name one with `sslrootcert:`".to_owned());
    }
    Ok(store)
}

/// Takes every certificate, and checks only that the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
