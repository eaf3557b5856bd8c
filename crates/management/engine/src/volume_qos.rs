//! QoS specs: limits that administrators tie to volume types. Nodes learn of a change at once, also for volumes in use.

use crate::volume_types::not_found as type_not_found;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, QosSpecs, StoreError, Tx, VolumeType};
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::volume_qos::{QOS_KEYS_MAX, QosConsumer, disk_qos};
use arcus_types::{OpCtx, QosSpecsId, Timestamp, VolumeTypeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most types that one answer names.
const ASSOCIATIONS_MAX: u32 = 1_000;

fn not_found(id: QosSpecsId) -> EngineError {
    EngineError::not_found("QoSSpecsNotFound", "QoS specs", id)
}

async fn audit(tx: &Tx, id: QosSpecsId, detail: &Value) -> Result<(), EngineError> {
    let entry =
        AuditEntry { action: policy::QOS_WRITE, kind: "qos_specs", id: id.to_string(), project_id: None, detail };
    Ok(tx.audit(entry).await?)
}

fn checked(specs: &QosSpecs) -> Result<(), EngineError> {
    if specs.specs.len() > QOS_KEYS_MAX {
        return Err(EngineError::invalid(format!("QoS specs hold at most {QOS_KEYS_MAX} keys.")));
    }
    disk_qos(specs.consumer, &specs.specs)?;
    Ok(())
}

impl Engine {
    /// A page of QoS specs, and whether it is full.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is none, or a refusal.
    pub async fn qos_specs_list(
        &self,
        ctx: &OpCtx,
        marker: Option<QosSpecsId>,
        limit: u64,
    ) -> Result<(Vec<QosSpecs>, bool), EngineError> {
        authorize(ctx, policy::QOS_READ, &Target::own(ctx))?;
        if let Some(marker) = marker
            && self.store().qos_specs_get(marker).await?.is_none()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let mut found = self.store().qos_specs_list(marker, limit).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let full = found.len() >= limit;
        found.truncate(limit);
        Ok((found, full))
    }

    /// QoS specs.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn qos_specs_get(&self, ctx: &OpCtx, id: QosSpecsId) -> Result<QosSpecs, EngineError> {
        authorize(ctx, policy::QOS_READ, &Target::own(ctx))?;
        self.store().qos_specs_get(id).await?.ok_or_else(|| not_found(id))
    }

    /// Makes QoS specs.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken, [`EngineError::Invalid`], or a refusal.
    pub async fn qos_specs_create(
        &self,
        ctx: &OpCtx,
        name: String,
        consumer: QosConsumer,
        specs: BTreeMap<String, String>,
    ) -> Result<QosSpecs, EngineError> {
        authorize(ctx, policy::QOS_WRITE, &Target::own(ctx))?;
        let id = QosSpecsId::random();
        let made = QosSpecs { id, name, consumer, specs, created_at: Timestamp::now(), updated_at: None };
        checked(&made)?;
        let tx = self.store().begin(ctx).await?;
        match tx.qos_specs_insert(&made).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => {
                return Err(EngineError::conflict(format!("QoS specs {} already exist.", made.name)));
            }
            Err(other) => return Err(other.into()),
        }
        audit(&tx, id, &json!({ "name": made.name, "consumer": made.consumer.as_str(), "specs": made.specs })).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Changes QoS specs and tells the nodes.
    async fn qos_specs_changed(
        &self,
        ctx: &OpCtx,
        id: QosSpecsId,
        change: impl FnOnce(&mut QosSpecs) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut changed = tx.qos_specs_get(id).await?.ok_or_else(|| not_found(id))?;
        change(&mut changed)?;
        checked(&changed)?;
        changed.updated_at = Some(Timestamp::now());
        tx.qos_specs_update(&changed).await?;
        audit(&tx, id, &json!({ "consumer": changed.consumer.as_str(), "specs": changed.specs })).await?;
        self.qos_told(tx).await
    }

    /// Commits a change of limits: any node may have a volume that they concern.
    async fn qos_told(&self, tx: Tx) -> Result<(), EngineError> {
        tx.node_touch_all().await?;
        tx.commit().await?;
        self.wake().all();
        Ok(())
    }

    /// Adds or replaces keys, and may change who enforces them.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`], or a refusal.
    pub async fn qos_specs_set(
        &self,
        ctx: &OpCtx,
        id: QosSpecsId,
        consumer: Option<QosConsumer>,
        specs: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        self.qos_specs_changed(ctx, id, |found| {
            found.consumer = consumer.unwrap_or(found.consumer);
            found.specs.extend(specs);
            Ok(())
        })
        .await
    }

    /// Removes keys.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there are no such specs or no such key, or a refusal.
    pub async fn qos_specs_unset(&self, ctx: &OpCtx, id: QosSpecsId, keys: &[String]) -> Result<(), EngineError> {
        self.qos_specs_changed(ctx, id, |found| {
            for key in keys {
                if found.specs.remove(key).is_none() {
                    let key: String = key.chars().take(64).collect();
                    let subject = format!("{key} of QoS specs {id}");
                    return Err(EngineError::not_found("QoSSpecsKeyNotFound", "Key", subject));
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes QoS specs; with `force` also if types have them.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] if a type has them, or a refusal.
    pub async fn qos_specs_delete(&self, ctx: &OpCtx, id: QosSpecsId, force: bool) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        if force {
            tx.qos_specs_release(id).await?;
        }
        match tx.qos_specs_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(not_found(id)),
            Err(StoreError::Referenced(_)) => {
                let message =
                    format!("QoS specs {id} are tied to volume types: disassociate them first, or use force.");
                return Err(EngineError::invalid(message));
            }
            Err(other) => return Err(other.into()),
        }
        audit(&tx, id, &json!({ "deleted": true, "force": force })).await?;
        self.qos_told(tx).await
    }

    /// The types that have these specs.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn qos_specs_types(&self, ctx: &OpCtx, id: QosSpecsId) -> Result<Vec<VolumeType>, EngineError> {
        self.qos_specs_get(ctx, id).await?;
        Ok(self.store().volume_type_list_by_qos(id, ASSOCIATIONS_MAX).await?)
    }

    /// Ties specs to a type, or takes them from it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] if the type has others, or a refusal.
    pub async fn qos_specs_tie(
        &self,
        ctx: &OpCtx,
        id: QosSpecsId,
        type_id: VolumeTypeId,
        tied: bool,
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        tx.qos_specs_get(id).await?.ok_or_else(|| not_found(id))?;
        let mut found = tx.volume_type_get(type_id).await?.ok_or_else(|| type_not_found(type_id))?;
        match found.qos_specs_id {
            Some(other) if tied && other != id => {
                let message = format!("Volume type {type_id} has the QoS specs {other}: disassociate them first.");
                return Err(EngineError::invalid(message));
            }
            other if !tied && other != Some(id) => {
                return Err(EngineError::invalid(format!("Volume type {type_id} does not have the QoS specs {id}.")));
            }
            Some(_) | None => {}
        }
        found.qos_specs_id = tied.then_some(id);
        found.updated_at = Some(Timestamp::now());
        tx.volume_type_update(&found).await?;
        audit(&tx, id, &json!({ "volume_type_id": type_id, "tied": tied })).await?;
        self.qos_told(tx).await
    }

    /// Takes specs from every type that has them.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn qos_specs_untie_all(&self, ctx: &OpCtx, id: QosSpecsId) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        tx.qos_specs_get(id).await?.ok_or_else(|| not_found(id))?;
        let types = tx.qos_specs_release(id).await?;
        audit(&tx, id, &json!({ "untied": types })).await?;
        self.qos_told(tx).await
    }
}
