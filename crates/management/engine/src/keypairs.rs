//! Key pairs: a user's public keys. A private key that is generated here leaves with the answer and is kept nowhere.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Keypair, QuotaResource, StoreError};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{OpCtx, Scope, Timestamp, UserId};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};
use serde_json::json;

/// What kind of key a client hands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeypairKind {
    /// A key in OpenSSH's one-line form.
    Ssh,
    /// A certificate in PEM.
    X509,
}

/// A user's target, for the policy.
fn target(ctx: &OpCtx, user: UserId) -> Target {
    match ctx.scope {
        Scope::Project { domain_id, .. } | Scope::Domain { domain_id } => Target::user(user, domain_id),
        Scope::Unscoped | Scope::System => Target { user_id: Some(user), ..Target::default() },
    }
}

fn not_found(user: UserId, name: &str) -> EngineError {
    let name: String = name.chars().take(64).collect();
    EngineError::not_found("KeypairNotFound", "Keypair", format!("{name} for user {user}"))
}

impl Engine {
    /// A user's key pairs by name, and whether more follow.
    ///
    /// # Errors
    /// A refusal, or [`EngineError::Invalid`] for a marker that is no key pair.
    pub async fn keypair_list(
        &self,
        ctx: &OpCtx,
        user: UserId,
        marker: Option<&str>,
        limit: u64,
    ) -> Result<(Vec<Keypair>, bool), EngineError> {
        authorize(ctx, compute::KEYPAIR_READ, &target(ctx, user))?;
        if let Some(marker) = marker
            && self.store().keypair_get(user, marker).await?.is_none()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let mut keys = self.store().keypair_list(user, marker, limit).await?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = keys.len() > keep;
        keys.truncate(keep);
        Ok((keys, more))
    }

    /// One key pair of a user.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn keypair_get(&self, ctx: &OpCtx, user: UserId, name: &str) -> Result<Keypair, EngineError> {
        authorize(ctx, compute::KEYPAIR_READ, &target(ctx, user))?;
        self.store().keypair_get(user, name).await?.ok_or_else(|| not_found(user, name))
    }

    /// Keeps a public key, or draws a pair when `public_key` is `None`; the private key goes only to the caller.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken, [`EngineError::Invalid`] for a key that is none,
    /// [`EngineError::OverQuota`], or a refusal.
    pub async fn keypair_create(
        &self,
        ctx: &OpCtx,
        user: UserId,
        name: &str,
        kind: KeypairKind,
        public_key: Option<&str>,
    ) -> Result<(Keypair, Option<String>), EngineError> {
        authorize(ctx, compute::KEYPAIR_WRITE, &target(ctx, user))?;
        let (public_key, private_key) = match (kind, public_key) {
            (_, Some(given)) => (given.trim().to_owned(), None),
            (KeypairKind::Ssh, None) => {
                let (public, private) = generate()?;
                (public, Some(private))
            }
            (KeypairKind::X509, None) => {
                let (public, private) = certificate(user)?;
                (public, Some(private))
            }
        };
        let fingerprint = match kind {
            KeypairKind::Ssh => ssh_fingerprint(&public_key)?,
            KeypairKind::X509 => x509_fingerprint(&public_key)?,
        };
        let keypair = Keypair {
            user_id: user,
            name: name.to_owned(),
            kind: if kind == KeypairKind::Ssh { "ssh" } else { "x509" }.to_owned(),
            fingerprint,
            public_key,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        let cap = self.measure_cap(&tx, ctx.project_id(), Some(user), QuotaResource::KeyPairs).await?;
        if let Some(cap) = cap
            && tx.keypair_count(user).await? >= cap
        {
            return Err(EngineError::OverQuota {
                code: "KeypairLimitExceeded",
                message: format!("Quota exceeded, too many key pairs: a user has at most {cap}."),
            });
        }
        match tx.keypair_insert(&keypair).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => {
                return Err(EngineError::conflict(format!("Key pair '{name}' already exists.")));
            }
            Err(error) => return Err(error.into()),
        }
        let detail = json!({ "fingerprint": keypair.fingerprint, "generated": private_key.is_some() });
        tx.audit(AuditEntry {
            action: compute::KEYPAIR_WRITE,
            kind: "keypair",
            id: name.to_owned(),
            project_id: None,
            detail: &detail,
        })
        .await?;
        tx.commit().await?;
        Ok((keypair, private_key))
    }

    /// Removes a key pair. Servers keep the key that they were given.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn keypair_delete(&self, ctx: &OpCtx, user: UserId, name: &str) -> Result<(), EngineError> {
        authorize(ctx, compute::KEYPAIR_WRITE, &target(ctx, user))?;
        let tx = self.store().begin(ctx).await?;
        if !tx.keypair_delete(user, name).await? {
            return Err(not_found(user, name));
        }
        tx.audit(AuditEntry {
            action: compute::KEYPAIR_WRITE,
            kind: "keypair",
            id: name.to_owned(),
            project_id: None,
            detail: &json!({ "deleted": true }),
        })
        .await?;
        Ok(tx.commit().await?)
    }
}

/// MD5 of the key's blob with colons: what the API has always shown.
fn ssh_fingerprint(line: &str) -> Result<String, EngineError> {
    let refuse = |why: &str| EngineError::invalid(format!("Keypair data is invalid: {why}"));
    if line.lines().count() != 1 {
        return Err(refuse("an OpenSSH public key is one line"));
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return Err(refuse("failed to generate fingerprint: the line needs a type and a key"));
    };
    let blob = BASE64.decode(blob).map_err(|_| refuse("failed to generate fingerprint: the key is not base64"))?;
    // The blob begins with its type again, as a string with its length before it.
    let named = blob
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?));
    if named != Some(kind.as_bytes()) {
        return Err(refuse("failed to generate fingerprint: the type does not match the key"));
    }
    Ok(colons(&Md5::digest(&blob)))
}

/// SHA-1 of the certificate with colons.
fn x509_fingerprint(pem: &str) -> Result<String, EngineError> {
    let refuse = || EngineError::invalid("Keypair data is invalid: it is not a certificate in PEM");
    let body: String = pem
        .lines()
        .map(str::trim)
        .skip_while(|l| *l != "-----BEGIN CERTIFICATE-----")
        .skip(1)
        .take_while(|l| *l != "-----END CERTIFICATE-----")
        .collect();
    let der = BASE64.decode(body).ok().filter(|der| !der.is_empty()).ok_or_else(refuse)?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
    Ok(colons(digest.as_ref()))
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// A fresh Ed25519 pair: the public key in OpenSSH's one-line form, the private key in OpenSSH's PEM.
///
/// Source: OpenSSH's `PROTOCOL.key`.
fn generate() -> Result<(String, String), EngineError> {
    let seed: [u8; 32] = rand::random();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
        .map_err(|_| EngineError::Unavailable("A key could not be drawn; try again.".into()))?;
    let public = pair.public_key().as_ref();
    let mut blob = Vec::new();
    put(&mut blob, b"ssh-ed25519");
    put(&mut blob, public);

    let mut secret = Vec::new();
    let check: [u8; 4] = rand::random();
    secret.extend_from_slice(&check);
    secret.extend_from_slice(&check);
    secret.extend_from_slice(&blob);
    put(&mut secret, &[seed.as_slice(), public].concat());
    put(&mut secret, b"arcus");
    for pad in 1_u8.. {
        if secret.len() % 8 == 0 {
            break;
        }
        secret.push(pad);
    }

    let mut key = b"openssh-key-v1\0".to_vec();
    put(&mut key, b"none");
    put(&mut key, b"none");
    put(&mut key, b"");
    key.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut key, &blob);
    put(&mut key, &secret);

    let mut pem = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for (i, c) in BASE64.encode(&key).chars().enumerate() {
        if i > 0 && i % 70 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push_str("\n-----END OPENSSH PRIVATE KEY-----\n");
    Ok((format!("ssh-ed25519 {} Generated-by-Arcus", BASE64.encode(&blob)), pem))
}

/// How long a generated certificate is good for, in days.
const CERTIFICATE_DAYS: i64 = 3650;

/// A fresh RSA pair as a certificate that signs itself, for logins over WinRM: certificate and private key in PEM.
///
/// Source: the compute API's reference implementation names the user in the alternative name with this object identifier
/// (Microsoft's user principal name) and asks for client authentication.
fn certificate(user: UserId) -> Result<(String, String), EngineError> {
    const USER_PRINCIPAL_NAME: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    let made = || -> Result<(String, String), rcgen::Error> {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let mut params = rcgen::CertificateParams::default();
        let name = format!("{user}@localhost");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, user.to_string());
        params.subject_alt_names = vec![rcgen::SanType::OtherName((USER_PRINCIPAL_NAME.to_vec(), name.into()))];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
        params.not_after = params.not_before + time::Duration::days(CERTIFICATE_DAYS);
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    made().map_err(|error| {
        tracing::error!(%error, "a certificate could not be made");
        EngineError::Unavailable("A certificate could not be made; try again.".into())
    })
}

/// Appends a string with its length before it.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_reads_a_generated_key_and_finds_the_same_public_key() {
        use std::os::unix::fs::PermissionsExt;
        let (public, private) = generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, private).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let out = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let said = String::from_utf8(out.stdout).unwrap();
        assert_eq!(said.split(' ').nth(1).map(str::trim), public.split(' ').nth(1));
    }

    #[test]
    fn a_generated_certificate_is_one_and_has_a_fingerprint() {
        let (public, private) = certificate(UserId::new()).unwrap();
        assert!(private.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(x509_fingerprint(&public).unwrap().len(), 59);
    }

    #[test]
    fn a_known_key_has_its_known_fingerprint() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl comment";
        assert_eq!(ssh_fingerprint(line).unwrap(), "65:96:2d:fc:e8:d5:a9:11:64:0c:0f:ea:00:6e:5b:bd");
        for bad in ["", "ssh-rsa", "ssh-rsa !!!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5", "two\nlines"] {
            assert!(ssh_fingerprint(bad).is_err(), "{bad}");
        }
    }
}
