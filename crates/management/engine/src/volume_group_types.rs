//! Kinds of groups of volumes: everybody sees the public ones; administrators make and remove them.

use crate::volume_types::EXTRA_SPECS_MAX;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, StoreError, Tx, VolumeGroupType, VolumeGroupTypeFilter};
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::{OpCtx, Timestamp, VolumeGroupTypeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What of a group type shall change; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeGroupTypeChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// Whether everybody may use it.
    pub is_public: Option<bool>,
}

pub(crate) fn not_found(id: impl ToString) -> EngineError {
    EngineError::not_found("GroupTypeNotFound", "Group type", id)
}

/// The type has no such spec.
pub fn group_spec_not_found(id: VolumeGroupTypeId, key: &str) -> EngineError {
    let key: String = key.chars().take(64).collect();
    EngineError::not_found("GroupTypeSpecsNotFound", "Group spec", format!("{key} of group type {id}"))
}

async fn audit(tx: &Tx, id: VolumeGroupTypeId, detail: &Value) -> Result<(), EngineError> {
    let action = policy::GROUP_TYPE_WRITE;
    let entry = AuditEntry { action, kind: "volume_group_type", id: id.to_string(), project_id: None, detail };
    Ok(tx.audit(entry).await?)
}

fn taken(error: StoreError, name: &str) -> EngineError {
    match error {
        StoreError::Duplicate(_) => EngineError::conflict(format!("Group Type {name} already exists.")),
        other => other.into(),
    }
}

fn bounded(specs: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if specs.len() > EXTRA_SPECS_MAX {
        return Err(EngineError::invalid(format!("A group type holds at most {EXTRA_SPECS_MAX} specs.")));
    }
    Ok(())
}

impl Engine {
    /// The group type with this id, if the caller may use it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_group_type_get(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupTypeId,
    ) -> Result<VolumeGroupType, EngineError> {
        authorize(ctx, policy::GROUP_TYPE_READ, &Target::own(ctx))?;
        let found = self.store().volume_group_type_get(id).await?;
        found.filter(|found| found.is_public || ctx.is_admin()).ok_or_else(|| not_found(id))
    }

    /// The group type with this name or id, if the caller may use it.
    pub(crate) async fn volume_group_type_usable(
        &self,
        db: &Db,
        ctx: &OpCtx,
        asked: &str,
    ) -> Result<VolumeGroupType, EngineError> {
        let by_id = match asked.parse() {
            Ok(id) => db.volume_group_type_get(id).await?,
            Err(_) => None,
        };
        let found = match by_id {
            Some(found) => Some(found),
            None => db.volume_group_type_by_name(asked).await?,
        };
        let shown = || asked.chars().take(64).collect::<String>();
        found.filter(|found| found.is_public || ctx.is_admin()).ok_or_else(|| not_found(shown()))
    }

    /// A page of group types, and whether it is full.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is no group type, or a refusal.
    pub async fn volume_group_type_list(
        &self,
        ctx: &OpCtx,
        mut filter: VolumeGroupTypeFilter,
    ) -> Result<(Vec<VolumeGroupType>, bool), EngineError> {
        authorize(ctx, policy::GROUP_TYPE_READ, &Target::own(ctx))?;
        if !ctx.is_admin() {
            filter.is_public = Some(true);
        }
        if let Some(marker) = filter.marker
            && self.volume_group_type_get(ctx, marker).await.is_err()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut types = self.store().volume_group_type_list(&filter).await?;
        let full = types.len() >= limit;
        types.truncate(limit);
        Ok((types, full))
    }

    /// Makes a group type.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if its name is taken, [`EngineError::Invalid`], or a refusal.
    pub async fn volume_group_type_create(
        &self,
        ctx: &OpCtx,
        name: String,
        description: Option<String>,
        is_public: bool,
        specs: BTreeMap<String, String>,
    ) -> Result<VolumeGroupType, EngineError> {
        authorize(ctx, policy::GROUP_TYPE_WRITE, &Target::own(ctx))?;
        bounded(&specs)?;
        let (id, created_at) = (VolumeGroupTypeId::random(), Timestamp::now());
        let made = VolumeGroupType { id, name, description, is_public, specs, created_at, updated_at: None };
        let tx = self.store().begin(ctx).await?;
        tx.volume_group_type_insert(&made).await.map_err(|e| taken(e, &made.name))?;
        audit(&tx, made.id, &json!({ "name": made.name, "public": made.is_public })).await?;
        tx.commit().await?;
        Ok(made)
    }

    async fn volume_group_type_changed(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupTypeId,
        change: impl FnOnce(&mut VolumeGroupType) -> Result<(), EngineError>,
    ) -> Result<VolumeGroupType, EngineError> {
        authorize(ctx, policy::GROUP_TYPE_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut changed = tx.volume_group_type_get(id).await?.ok_or_else(|| not_found(id))?;
        change(&mut changed)?;
        changed.updated_at = Some(Timestamp::now());
        tx.volume_group_type_update(&changed).await.map_err(|e| taken(e, &changed.name))?;
        let detail = json!({ "name": changed.name, "public": changed.is_public, "specs": changed.specs });
        audit(&tx, id, &detail).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Changes a group type's name, description, or who may use it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Conflict`] if the name is taken, or a refusal.
    pub async fn volume_group_type_update(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupTypeId,
        change: VolumeGroupTypeChange,
    ) -> Result<VolumeGroupType, EngineError> {
        self.volume_group_type_changed(ctx, id, |found| {
            if let Some(name) = change.name {
                found.name = name;
            }
            if let Some(description) = change.description {
                found.description = description;
            }
            found.is_public = change.is_public.unwrap_or(found.is_public);
            Ok(())
        })
        .await
    }

    /// Adds or replaces specs of a group type.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for too many, or a refusal.
    pub async fn volume_group_specs_set(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupTypeId,
        specs: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        self.volume_group_type_changed(ctx, id, |found| {
            found.specs.extend(specs);
            bounded(&found.specs)
        })
        .await?;
        Ok(())
    }

    /// Removes a spec of a group type.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_group_spec_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupTypeId,
        key: &str,
    ) -> Result<(), EngineError> {
        self.volume_group_type_changed(ctx, id, |found| match found.specs.remove(key) {
            Some(_) => Ok(()),
            None => Err(group_spec_not_found(id, key)),
        })
        .await?;
        Ok(())
    }

    /// Removes a group type that no group is of.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] if a group is of it, or a refusal.
    pub async fn volume_group_type_delete(&self, ctx: &OpCtx, id: VolumeGroupTypeId) -> Result<(), EngineError> {
        authorize(ctx, policy::GROUP_TYPE_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let found = tx.volume_group_type_get(id).await?.ok_or_else(|| not_found(id))?;
        match tx.volume_group_type_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::invalid("Target group type is still in use: delete its groups first."));
            }
            Err(other) => return Err(other.into()),
        }
        audit(&tx, id, &json!({ "name": found.name, "deleted": true })).await?;
        Ok(tx.commit().await?)
    }
}
