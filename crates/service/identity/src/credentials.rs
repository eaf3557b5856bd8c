//! Secrets that users keep here for other programs: sealed with a key beside the token keys, never in the clear in the
//! database. They open nothing in this cloud.

use crate::{Identity, IdentityError};
use arcus_store::{CredentialEntry, CredentialFilter};
use arcus_types::policy::{Action, Denied, Target, authorize, identity as policy};
use arcus_types::{CredentialId, OpCtx, ProjectId, Timestamp, UserId};
use serde_json::json;

/// The longest secret, in bytes.
const BLOB_BYTES_MAX: usize = 8192;

/// A secret, opened.
#[derive(Clone)]
pub struct Credential {
    /// What is known of it.
    pub entry: CredentialEntry,
    /// The secret.
    pub blob: String,
}

/// A secret that somebody wants kept.
#[derive(Clone)]
pub struct CredentialNew {
    /// Whose; unless given, the caller's.
    pub user_id: Option<UserId>,
    /// The project that it is for.
    pub project_id: Option<ProjectId>,
    /// Its type.
    pub kind: String,
    /// The secret.
    pub blob: String,
}

fn target(user_id: Option<UserId>) -> Target {
    Target { user_id, ..Target::default() }
}

impl Identity {
    fn blob_seal(&self, blob: &str) -> Result<String, IdentityError> {
        if blob.len() > BLOB_BYTES_MAX {
            return Err(IdentityError::Invalid(format!("A credential's blob holds at most {BLOB_BYTES_MAX} bytes.")));
        }
        self.0.credential_keys.seal(blob.as_bytes())
    }

    fn credential_open(&self, entry: CredentialEntry) -> Result<Credential, IdentityError> {
        let bytes = self.0.credential_keys.unseal(&entry.sealed);
        let blob = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let blob = blob.ok_or_else(|| IdentityError::Corrupt(format!("credential {} cannot be opened", entry.id)))?;
        Ok(Credential { entry, blob })
    }

    /// Keeps a secret.
    ///
    /// # Errors
    /// [`IdentityError::Denied`] for another user's, [`IdentityError::Invalid`], [`IdentityError::NotFound`].
    pub async fn credential_create(&self, ctx: &OpCtx, new: CredentialNew) -> Result<Credential, IdentityError> {
        let user_id = new.user_id.or(ctx.user_id()).ok_or(IdentityError::Unauthorized)?;
        authorize(ctx, policy::CREDENTIAL_CREATE, &target(Some(user_id)))?;
        self.own_hands(ctx)?;
        if new.kind.is_empty() || new.kind.len() > 255 {
            return Err(IdentityError::Invalid("A credential's type holds 1 to 255 bytes.".to_owned()));
        }
        if new.kind == "ec2" && new.project_id.is_none() {
            return Err(IdentityError::Invalid("A credential of the type ec2 needs a project_id.".to_owned()));
        }
        self.user_find(user_id).await?;
        let entry = CredentialEntry {
            id: CredentialId::random(),
            user_id,
            project_id: new.project_id,
            kind: new.kind,
            sealed: self.blob_seal(&new.blob)?,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.credential_insert(&entry).await?;
        let detail = json!({ "user_id": user_id, "type": entry.kind });
        self.audit(&tx, policy::CREDENTIAL_CREATE, "credential", &entry.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(Credential { entry, blob: new.blob })
    }

    /// Secrets: of everybody for administrators, else the caller's.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn credential_list(
        &self,
        ctx: &OpCtx,
        mut filter: CredentialFilter,
    ) -> Result<Vec<Credential>, IdentityError> {
        if !ctx.is_admin() {
            let own = ctx.user_id().ok_or(IdentityError::Unauthorized)?;
            if *filter.user_id.get_or_insert(own) != own {
                return Ok(Vec::new());
            }
        }
        authorize(ctx, policy::CREDENTIAL_LIST, &target(filter.user_id))?;
        self.own_hands(ctx)?;
        let found = self.store().credential_list(&filter).await?;
        found.into_iter().map(|entry| self.credential_open(entry)).collect()
    }

    /// A secret: for its user and administrators.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn credential_get(&self, ctx: &OpCtx, id: CredentialId) -> Result<Credential, IdentityError> {
        self.credential_open(self.credential_reachable(ctx, policy::CREDENTIAL_GET, id).await?)
    }

    async fn credential_reachable(
        &self,
        ctx: &OpCtx,
        action: Action,
        id: CredentialId,
    ) -> Result<CredentialEntry, IdentityError> {
        let found = self.store().credential_get(id).await?;
        match authorize(ctx, action, &target(found.as_ref().map(|c| c.user_id))) {
            Err(Denied::Forbidden(_)) => return Err(IdentityError::not_found("credential", id)),
            other => other?,
        }
        self.own_hands(ctx)?;
        found.ok_or_else(|| IdentityError::not_found("credential", id))
    }

    /// Replaces a secret.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`], [`IdentityError::Invalid`].
    pub async fn credential_update(
        &self,
        ctx: &OpCtx,
        id: CredentialId,
        blob: Option<String>,
    ) -> Result<Credential, IdentityError> {
        let entry = self.credential_reachable(ctx, policy::CREDENTIAL_UPDATE, id).await?;
        let Some(blob) = blob else { return self.credential_open(entry) };
        let sealed = self.blob_seal(&blob)?;
        let tx = self.store().begin(ctx).await?;
        if !tx.credential_update(id, &sealed).await? {
            return Err(IdentityError::not_found("credential", id));
        }
        self.audit(&tx, policy::CREDENTIAL_UPDATE, "credential", &id, &json!({})).await?;
        self.commit(tx, &[]).await?;
        Ok(Credential { entry: CredentialEntry { sealed, ..entry }, blob })
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn credential_delete(&self, ctx: &OpCtx, id: CredentialId) -> Result<(), IdentityError> {
        self.credential_reachable(ctx, policy::CREDENTIAL_DELETE, id).await?;
        let tx = self.store().begin(ctx).await?;
        if !tx.credential_delete(id).await? {
            return Err(IdentityError::not_found("credential", id));
        }
        self.audit(&tx, policy::CREDENTIAL_DELETE, "credential", &id, &json!({})).await?;
        Ok(self.commit(tx, &[]).await?)
    }

    /// Refuses whoever acts by a trust or an application credential: they were not given the user's secrets.
    fn own_hands(&self, ctx: &OpCtx) -> Result<(), IdentityError> {
        self.in_own_name(ctx)?;
        if matches!(ctx.actor, arcus_types::Actor::User { application_credential_id: Some(_), .. }) {
            let reason = "This cannot be done with a token of an application credential.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        Ok(())
    }
}
