//! Transfers: a volume goes from one project to another. Whoever knows an offer's id and key may accept it; the key is
//! shown once, to the one who offers.

use crate::servers::retried;
use crate::volumes::invalid_volume;
use crate::{Engine, EngineError};
use arcus_store::{
    AuditEntry, QuotaResource, StoreError, Tx, Volume, VolumeSnapshot, VolumeTransfer, VolumeTransferFilter,
};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::volumes::{VolumeRequest, VolumeStatus};
use arcus_types::{OpCtx, ProjectId, Timestamp, TransferId, UserId, VolumeId, VolumeTypeId};
use rand::RngCore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The bytes of a key and of its salt: 64 and 128 bits, written as hexadecimal digits.
const KEY_BYTES: usize = 8;
const SALT_BYTES: usize = 16;

fn not_found(id: TransferId) -> EngineError {
    EngineError::not_found("TransferNotFound", "Transfer", id)
}

fn hashed(salt: &str, key: &str) -> String {
    hex::encode(Sha256::new().chain_update(salt).chain_update(key).finalize())
}

fn drawn<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Whether two digests are the same, in a time that does not tell where they differ.
fn same(one: &str, two: &str) -> bool {
    one.len() == two.len() && one.bytes().zip(two.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

async fn audit(tx: &Tx, action: Action, transfer: &VolumeTransfer, detail: &Value) -> Result<(), EngineError> {
    let project_id = Some(transfer.source_project_id);
    let entry = AuditEntry { action, kind: "volume_transfer", id: transfer.id.to_string(), project_id, detail };
    Ok(tx.audit(entry).await?)
}

impl Engine {
    /// Offers a volume to whoever gets the key: the offer and its key.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] in a state that does not admit it, or a refusal.
    pub async fn volume_transfer_create(
        &self,
        ctx: &OpCtx,
        volume_id: VolumeId,
        name: Option<String>,
        no_snapshots: bool,
    ) -> Result<(VolumeTransfer, String), EngineError> {
        authorize(ctx, policy::TRANSFER_CREATE, &Target::own(ctx))?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::TRANSFER_CREATE, volume_id).await?;
            if !VolumeRequest::Transfer.admits(volume.status) {
                return Err(invalid_volume(format!("status must be available, it is {}", volume.status)));
            }
            let (salt, key) = (drawn::<SALT_BYTES>(), drawn::<KEY_BYTES>());
            let transfer = VolumeTransfer {
                id: TransferId::random(),
                volume_id,
                name: name.clone(),
                key_hash: hashed(&salt, &key),
                salt,
                no_snapshots,
                source_project_id: volume.project_id,
                created_at: Timestamp::now(),
            };
            match tx.volume_transfer_insert(&transfer).await {
                Ok(()) => {}
                Err(StoreError::Duplicate(_)) => return Err(invalid_volume("it is being transferred already")),
                Err(other) => return Err(other.into()),
            }
            self.volume_set(&tx, &mut volume, VolumeStatus::AwaitingTransfer).await?;
            audit(&tx, policy::TRANSFER_CREATE, &transfer, &json!({ "volume_id": volume_id })).await?;
            tx.commit().await?;
            Ok((transfer, key))
        })
    }

    /// An offer.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_transfer_get(&self, ctx: &OpCtx, id: TransferId) -> Result<VolumeTransfer, EngineError> {
        authorize(ctx, policy::TRANSFER_READ, &Target::own(ctx))?;
        let found = self.store().volume_transfer_get(id).await?.ok_or_else(|| not_found(id))?;
        authorize(ctx, policy::TRANSFER_READ, &Target::project(found.source_project_id)).map_err(|_| not_found(id))?;
        Ok(found)
    }

    /// A page of offers, and whether it is full: those of the caller's project, or for administrators all.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is none, or a refusal.
    pub async fn volume_transfer_list(
        &self,
        ctx: &OpCtx,
        all_projects: bool,
        mut filter: VolumeTransferFilter,
    ) -> Result<(Vec<VolumeTransfer>, bool), EngineError> {
        authorize(ctx, policy::TRANSFER_READ, &Target::own(ctx))?;
        if !(ctx.is_admin() && all_projects) {
            filter.project_id = ctx.project_id();
        }
        if let Some(marker) = filter.marker
            && self.volume_transfer_get(ctx, marker).await.is_err()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut found = self.store().volume_transfer_list(&filter).await?;
        let full = found.len() >= limit;
        found.truncate(limit);
        Ok((found, full))
    }

    /// Withdraws an offer.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_transfer_delete(&self, ctx: &OpCtx, id: TransferId) -> Result<(), EngineError> {
        authorize(ctx, policy::TRANSFER_DELETE, &Target::own(ctx))?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let found = tx.volume_transfer_get(id).await?.ok_or_else(|| not_found(id))?;
            let target = Target::project(found.source_project_id);
            match authorize(ctx, policy::TRANSFER_DELETE, &target) {
                Ok(()) => {}
                Err(_) if ctx.project_id() != Some(found.source_project_id) => return Err(not_found(id)),
                Err(denied) => return Err(denied.into()),
            }
            tx.volume_transfer_delete(id).await?;
            if let Some(mut volume) = tx.volume_lock(found.volume_id).await?
                && volume.status == VolumeStatus::AwaitingTransfer
            {
                self.volume_set(&tx, &mut volume, VolumeStatus::Available).await?;
            }
            audit(&tx, policy::TRANSFER_DELETE, &found, &json!({ "volume_id": found.volume_id })).await?;
            Ok(tx.commit().await?)
        })
    }

    /// Takes over an offered volume, with its snapshots unless they were kept back: the quota of both projects changes in
    /// the same transaction.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a wrong key or a type that the project may not use,
    /// [`EngineError::OverQuota`], or a refusal.
    pub async fn volume_transfer_accept(
        &self,
        ctx: &OpCtx,
        id: TransferId,
        key: &str,
    ) -> Result<VolumeTransfer, EngineError> {
        authorize(ctx, policy::TRANSFER_ACCEPT, &Target::own(ctx))?;
        let (Some(project), Some(user)) = (ctx.project_id(), ctx.user_id()) else {
            return Err(EngineError::Forbidden("A volume goes to a project: use a project's token.".into()));
        };
        retried!({
            let tx = self.store().begin(ctx).await?;
            let found = tx.volume_transfer_get(id).await?.ok_or_else(|| not_found(id))?;
            if !same(&hashed(&found.salt, key), &found.key_hash) {
                return Err(EngineError::invalid(format!("Invalid auth key: the key does not fit transfer {id}.")));
            }
            let mut volume = tx.volume_lock(found.volume_id).await?.ok_or_else(|| not_found(id))?;
            if volume.status != VolumeStatus::AwaitingTransfer {
                return Err(invalid_volume(format!("status must be awaiting-transfer, it is {}", volume.status)));
            }
            self.type_follows(&tx, &volume, project).await?;
            let snapshots = match found.no_snapshots {
                true => Vec::new(),
                false => tx.volume_snapshots_of(volume.id).await?,
            };
            let from = volume.project_id;
            self.volume_moves(&tx, &mut volume, project, user).await?;
            for snapshot in snapshots {
                self.snapshot_moves(&tx, snapshot, volume.volume_type_id, project, user).await?;
            }
            tx.volume_transfer_delete(id).await?;
            let detail = json!({ "volume_id": volume.id, "from": from, "to": project });
            audit(&tx, policy::TRANSFER_ACCEPT, &found, &detail).await?;
            tx.commit().await?;
            Ok(found)
        })
    }

    /// Refuses a volume whose type its new project may not use.
    async fn type_follows(&self, tx: &Tx, volume: &Volume, project: ProjectId) -> Result<(), EngineError> {
        let Some(kind) = tx.volume_type_get(volume.volume_type_id).await? else { return Ok(()) };
        if kind.is_public || tx.volume_type_accessible(kind.id, project).await? {
            return Ok(());
        }
        Err(EngineError::invalid(format!("The project may not use volume type {}, which the volume is of.", kind.name)))
    }

    async fn volume_moves(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        project: ProjectId,
        user: UserId,
    ) -> Result<(), EngineError> {
        self.volume_size_admitted(tx, project, volume.size_gib).await?;
        let kind = volume.volume_type_id;
        self.volume_quota_claim(tx, project, kind, Some(QuotaResource::Volumes), volume.size_gib).await?;
        self.volume_quota_release(tx, volume.project_id, kind, Some(QuotaResource::Volumes), volume.size_gib).await?;
        self.volume_usage(tx, volume, false).await?;
        volume.project_id = project;
        volume.user_id = user;
        self.volume_usage(tx, volume, true).await?;
        self.volume_set(tx, volume, VolumeStatus::Available).await
    }

    async fn snapshot_moves(
        &self,
        tx: &Tx,
        mut snapshot: VolumeSnapshot,
        kind: VolumeTypeId,
        project: ProjectId,
        user: UserId,
    ) -> Result<(), EngineError> {
        let count = Some(QuotaResource::VolumeSnapshots);
        self.volume_quota_claim(tx, project, kind, count, snapshot.size_gib).await?;
        self.volume_quota_release(tx, snapshot.project_id, kind, count, snapshot.size_gib).await?;
        snapshot.project_id = project;
        snapshot.user_id = user;
        Ok(tx.volume_snapshot_update(&mut snapshot).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_its_own_hash_alone() {
        let (salt, key) = (drawn::<SALT_BYTES>(), drawn::<KEY_BYTES>());
        assert_eq!(key.len(), 16);
        assert!(same(&hashed(&salt, &key), &hashed(&salt, &key)));
        assert!(!same(&hashed(&salt, &key), &hashed(&salt, &drawn::<KEY_BYTES>())));
        assert!(!same(&hashed(&salt, &key), ""));
    }
}
