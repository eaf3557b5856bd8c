//! Volume types: anybody sees those that its project may use; administrators make and remove them.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, StoreError, Tx, VOLUME_TYPE_DEFAULT, VolumeType, VolumeTypeFilter};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::{OpCtx, ProjectId, Timestamp, VolumeTypeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most extra specs that a type holds.
pub const EXTRA_SPECS_MAX: usize = 128;
/// Extra specs that everybody sees, because they tell what a volume of the type can do.
pub const EXTRA_SPECS_VISIBLE: [&str; 3] = ["RESKEY:availability_zones", "multiattach", "replication_enabled"];

/// A type that an administrator asks for.
#[derive(Debug, Clone)]
pub struct VolumeTypeNew {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Key and value pairs for the pools.
    pub extra_specs: BTreeMap<String, String>,
}

/// What of a type shall change; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeTypeChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// Whether every project may use it.
    pub is_public: Option<bool>,
}

pub(crate) fn not_found(id: impl ToString) -> EngineError {
    EngineError::not_found("VolumeTypeNotFound", "Volume type", id)
}

async fn audit(tx: &Tx, action: Action, id: VolumeTypeId, detail: &Value) -> Result<(), EngineError> {
    let entry = AuditEntry { action, kind: "volume_type", id: id.to_string(), project_id: None, detail };
    Ok(tx.audit(entry).await?)
}

fn taken(error: StoreError, name: &str) -> EngineError {
    match error {
        StoreError::Duplicate(_) => EngineError::conflict(format!("Volume type {name} already exists.")),
        other => other.into(),
    }
}

fn bounded(specs: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if specs.len() > EXTRA_SPECS_MAX {
        return Err(EngineError::invalid(format!("A volume type holds at most {EXTRA_SPECS_MAX} extra specs.")));
    }
    Ok(())
}

impl Engine {
    /// The type with this id, if the caller may use it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_type_get(&self, ctx: &OpCtx, id: VolumeTypeId) -> Result<VolumeType, EngineError> {
        authorize(ctx, policy::TYPE_READ, &Target::own(ctx))?;
        let found = self.store().volume_type_get(id).await?.ok_or_else(|| not_found(id))?;
        if found.is_public || ctx.is_admin() {
            return Ok(found);
        }
        let Some(project) = ctx.project_id() else { return Err(not_found(id)) };
        if self.store().volume_type_accessible(id, project).await? { Ok(found) } else { Err(not_found(id)) }
    }

    /// A page of types, and whether it is full.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is no type, or a refusal.
    pub async fn volume_type_list(
        &self,
        ctx: &OpCtx,
        mut filter: VolumeTypeFilter,
    ) -> Result<(Vec<VolumeType>, bool), EngineError> {
        authorize(ctx, policy::TYPE_READ, &Target::own(ctx))?;
        if !ctx.is_admin() {
            filter.is_public = None;
            filter.viewer = Some(ctx.project_id().unwrap_or(ProjectId(uuid::Uuid::nil())));
        }
        self.volume_type_of_the_cloud().await?;
        if let Some(marker) = filter.marker
            && self.volume_type_get(ctx, marker).await.is_err()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut types = self.store().volume_type_list(&filter).await?;
        let full = types.len() >= limit;
        types.truncate(limit);
        Ok((types, full))
    }

    /// The type that the caller's volumes get unless they name one: the project's, or the cloud's.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_type_default(&self, ctx: &OpCtx) -> Result<VolumeType, EngineError> {
        authorize(ctx, policy::TYPE_READ, &Target::own(ctx))?;
        if let Some(project) = ctx.project_id()
            && let Some(id) = self.store().volume_type_default_of(project).await?
            && let Some(found) = self.store().volume_type_get(id).await?
        {
            return Ok(found);
        }
        self.volume_type_of_the_cloud().await
    }

    /// The cloud's default type; made if it is not there yet.
    async fn volume_type_of_the_cloud(&self) -> Result<VolumeType, EngineError> {
        if let Some(found) = self.store().volume_type_by_name(VOLUME_TYPE_DEFAULT).await? {
            return Ok(found);
        }
        let tx = self.store().begin(&OpCtx::system()).await?;
        let made = tx.volume_type_default().await?;
        audit(&tx, policy::TYPE_WRITE, made.id, &json!({ "name": made.name })).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Makes a type.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if its name is taken, [`EngineError::Invalid`], or a refusal.
    pub async fn volume_type_create(&self, ctx: &OpCtx, new: VolumeTypeNew) -> Result<VolumeType, EngineError> {
        authorize(ctx, policy::TYPE_WRITE, &Target::own(ctx))?;
        bounded(&new.extra_specs)?;
        let made = VolumeType {
            id: VolumeTypeId::random(),
            name: new.name,
            description: new.description,
            is_public: new.is_public,
            extra_specs: new.extra_specs,
            qos_specs_id: None,
            created_at: Timestamp::now(),
            updated_at: None,
        };
        let tx = self.store().begin(ctx).await?;
        tx.volume_type_insert(&made).await.map_err(|e| taken(e, &made.name))?;
        audit(&tx, policy::TYPE_WRITE, made.id, &json!({ "name": made.name, "public": made.is_public })).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Changes a type.
    async fn volume_type_changed(
        &self,
        ctx: &OpCtx,
        id: VolumeTypeId,
        change: impl FnOnce(&mut VolumeType) -> Result<(), EngineError>,
    ) -> Result<VolumeType, EngineError> {
        authorize(ctx, policy::TYPE_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut changed = tx.volume_type_get(id).await?.ok_or_else(|| not_found(id))?;
        change(&mut changed)?;
        changed.updated_at = Some(Timestamp::now());
        tx.volume_type_update(&changed).await.map_err(|e| taken(e, &changed.name))?;
        let detail = json!({ "name": changed.name, "public": changed.is_public, "extra_specs": changed.extra_specs });
        audit(&tx, policy::TYPE_WRITE, id, &detail).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Changes a type's name, description, or who may use it. The cloud's default type keeps its name and stays public.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`], [`EngineError::Conflict`] if the name is taken, or a refusal.
    pub async fn volume_type_update(
        &self,
        ctx: &OpCtx,
        id: VolumeTypeId,
        change: VolumeTypeChange,
    ) -> Result<VolumeType, EngineError> {
        self.volume_type_changed(ctx, id, |found| {
            let default = found.name == VOLUME_TYPE_DEFAULT;
            let renamed = change.name.as_ref().is_some_and(|name| *name != found.name);
            if default && (renamed || change.is_public == Some(false)) {
                return Err(EngineError::invalid("The cloud's default volume type keeps its name and stays public."));
            }
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

    /// Adds or replaces extra specs of a type.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for too many, or a refusal.
    pub async fn volume_type_extra_specs_set(
        &self,
        ctx: &OpCtx,
        id: VolumeTypeId,
        specs: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        self.volume_type_changed(ctx, id, |found| {
            found.extra_specs.extend(specs);
            bounded(&found.extra_specs)
        })
        .await?;
        Ok(())
    }

    /// Removes an extra spec of a type.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_type_extra_spec_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeTypeId,
        key: &str,
    ) -> Result<(), EngineError> {
        self.volume_type_changed(ctx, id, |found| match found.extra_specs.remove(key) {
            Some(_) => Ok(()),
            None => Err(extra_spec_not_found(id, key)),
        })
        .await?;
        Ok(())
    }

    /// Removes a type that no volume is of.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] if a volume is of it or it is the cloud's default, or a refusal.
    pub async fn volume_type_delete(&self, ctx: &OpCtx, id: VolumeTypeId) -> Result<(), EngineError> {
        authorize(ctx, policy::TYPE_WRITE, &Target::own(ctx))?;
        let in_use =
            || EngineError::invalid(format!("Volume type {id} is used by volumes: delete or retype them first."));
        let tx = self.store().begin(ctx).await?;
        let found = tx.volume_type_get(id).await?.ok_or_else(|| not_found(id))?;
        if found.name == VOLUME_TYPE_DEFAULT {
            return Err(EngineError::invalid("The cloud's default volume type cannot be deleted."));
        }
        if tx.volume_type_used(id).await? {
            return Err(in_use());
        }
        match tx.volume_type_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => return Err(in_use()),
            Err(other) => return Err(other.into()),
        }
        audit(&tx, policy::TYPE_WRITE, id, &json!({ "name": found.name, "deleted": true })).await?;
        Ok(tx.commit().await?)
    }

    /// The projects that may use a type that is not public.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such type or it is public, or a refusal.
    pub async fn volume_type_access_list(&self, ctx: &OpCtx, id: VolumeTypeId) -> Result<Vec<ProjectId>, EngineError> {
        authorize(ctx, policy::TYPE_ACCESS, &Target::own(ctx))?;
        let found = self.store().volume_type_get(id).await?.ok_or_else(|| not_found(id))?;
        if found.is_public {
            return Err(EngineError::not_found("VolumeTypeNotFound", "Access list of the public volume type", id));
        }
        Ok(self.store().volume_type_access_list(id).await?)
    }

    /// Lets a project use a type that is not public, or no longer.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a public type, [`EngineError::Conflict`] if the project may already,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_type_access_change(
        &self,
        ctx: &OpCtx,
        id: VolumeTypeId,
        project: ProjectId,
        allowed: bool,
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::TYPE_ACCESS, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let found = tx.volume_type_get(id).await?.ok_or_else(|| not_found(id))?;
        if found.is_public {
            return Err(EngineError::invalid("Type access modification is not applicable to public volume type."));
        }
        if allowed && !tx.volume_type_access_insert(id, project).await? {
            let message = format!("Volume type access for {id} / {project} combination already exists.");
            return Err(EngineError::conflict(message));
        }
        if !allowed && !tx.volume_type_access_delete(id, project).await? {
            let subject = format!("for {id} / {project} combination");
            return Err(EngineError::not_found("VolumeTypeAccessNotFound", "Volume type access", subject));
        }
        audit(&tx, policy::TYPE_ACCESS, id, &json!({ "project_id": project, "allowed": allowed })).await?;
        Ok(tx.commit().await?)
    }

    /// The projects with a default type of their own; one of them, if it is named.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if the named project has none, or a refusal.
    pub async fn volume_type_defaults(
        &self,
        ctx: &OpCtx,
        project: Option<ProjectId>,
    ) -> Result<Vec<(ProjectId, VolumeTypeId)>, EngineError> {
        authorize(ctx, policy::TYPE_DEFAULT, &Target::own(ctx))?;
        let Some(project) = project else { return Ok(self.store().volume_type_default_list().await?) };
        let found = self.store().volume_type_default_of(project).await?;
        found.map(|id| vec![(project, id)]).ok_or_else(|| no_default(project))
    }

    /// Sets the type that a project's volumes get unless they name one; the type by id or name.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such type or the project may not use it, or a refusal.
    pub async fn volume_type_default_set(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        name_or_id: &str,
    ) -> Result<VolumeTypeId, EngineError> {
        authorize(ctx, policy::TYPE_DEFAULT, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let by_id = match name_or_id.parse::<VolumeTypeId>() {
            Ok(id) => tx.volume_type_get(id).await?,
            Err(_) => None,
        };
        let found = match by_id {
            Some(found) => Some(found),
            None => tx.volume_type_by_name(name_or_id).await?,
        };
        let shown: String = name_or_id.chars().take(64).collect();
        let found = found.ok_or_else(|| not_found(&shown))?;
        if !found.is_public && !tx.volume_type_accessible(found.id, project).await? {
            return Err(not_found(shown));
        }
        tx.volume_type_default_set(project, found.id).await?;
        audit(&tx, policy::TYPE_DEFAULT, found.id, &json!({ "project_id": project })).await?;
        tx.commit().await?;
        Ok(found.id)
    }

    /// Gives a project's volumes the cloud's default type again.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if they have it, or a refusal.
    pub async fn volume_type_default_unset(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, policy::TYPE_DEFAULT, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let was = tx.volume_type_default_of(project).await?.ok_or_else(|| no_default(project))?;
        tx.volume_type_default_unset(project).await?;
        audit(&tx, policy::TYPE_DEFAULT, was, &json!({ "project_id": project, "unset": true })).await?;
        Ok(tx.commit().await?)
    }
}

fn no_default(project: ProjectId) -> EngineError {
    EngineError::not_found("VolumeTypeProjectDefaultNotFound", "Default type for project", project)
}

/// The type has no such extra spec.
pub fn extra_spec_not_found(id: VolumeTypeId, key: &str) -> EngineError {
    let key: String = key.chars().take(64).collect();
    EngineError::not_found("VolumeTypeExtraSpecsNotFound", "Extra spec", format!("{key} of volume type {id}"))
}
