//! The certificate authority of this cloud: one key under `<home>/ca`, which signs the endpoint's certificate and the
//! nodes' short-lived ones. It links no node and decides nothing: who may have a certificate is [`crate::nodes`]'s matter.

use arcus_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How long a node's certificate lasts, in seconds.
pub const NODE_CERTIFICATE_S: u64 = 24 * 3600;
/// How long the endpoint's certificate lasts, in days; every start of the server makes a new one.
const SERVER_CERTIFICATE_DAYS: i64 = 397;
const CA_DAYS: i64 = 3650;
/// Certificates begin this much in the past, so that clocks may differ.
const CLOCK_SLACK: time::Duration = time::Duration::hours(1);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the authority cannot be read or written.
    #[error("could not use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key, certificate or request is not valid.
    #[error("a key or certificate is not valid")]
    Crypto(#[from] rcgen::Error),
}

/// A certificate with its key, both in PEM.
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// The certificate authority.
pub struct Authority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority in this folder, or makes one.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (key_path, cert_path) = (folder.join("ca.key"), folder.join("ca.pem"));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(file(folder))?;
        if !cert_path.exists() {
            let key = KeyPair::generate()?;
            write_private(&key_path, &key.serialize_pem()).map_err(file(&key_path))?;
            let certificate = ca_params().self_signed(&key)?;
            std::fs::write(&cert_path, certificate.pem()).map_err(file(&cert_path))?;
        }
        let ca_pem = std::fs::read_to_string(&cert_path).map_err(file(&cert_path))?;
        let key_pem = std::fs::read_to_string(&key_path).map_err(file(&key_path))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem)?)?;
        Ok(Self { ca_pem, issuer })
    }

    /// The authority's own certificate in PEM: what clients must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// How join tokens name this authority: the SHA-256 of its PEM text, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.ca_pem().as_bytes()))
    }

    /// A certificate for the endpoint, good for these host names and addresses.
    ///
    /// # Errors
    /// [`AuthorityError::Crypto`] if one of them is no host name.
    pub fn issue_server(&self, names: &[String]) -> Result<KeyedCertificate, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "Arcus endpoint");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lifetime(&mut params, time::Duration::days(SERVER_CERTIFICATE_DAYS));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(KeyedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A certificate for a node, for the key of this request; all else that the request asks for is ignored.
    ///
    /// # Errors
    /// [`AuthorityError::Crypto`] if the request is not valid.
    pub fn issue_node(&self, csr_pem: &str, node: NodeId) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = vec![SanType::URI(node_uri(node).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        lifetime(&mut params, time::Duration::seconds(i64::try_from(NODE_CERTIFICATE_S).unwrap_or(86_400)));
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// How a node is named in its certificate.
pub fn node_uri(node: NodeId) -> String {
    format!("spiffe://arcus/node/{node}")
}

/// The node that a certificate's URI names.
pub fn node_of_uri(uri: &str) -> Option<NodeId> {
    uri.strip_prefix("spiffe://arcus/node/")?.parse().ok()
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Arcus certificate authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    lifetime(&mut params, time::Duration::days(CA_DAYS));
    params
}

fn lifetime(params: &mut CertificateParams, lasts: time::Duration) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + lasts;
    params.use_authority_key_identifier_extension = true;
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
