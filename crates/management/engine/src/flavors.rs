//! Flavors: anybody sees those that its project may use; administrators make and remove them.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Flavor, FlavorFilter, StoreError, Tx};
use arcus_types::flavors::FlavorId;
use arcus_types::policy::{Action, Target, authorize, compute};
use arcus_types::{OpCtx, ProjectId, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most further settings that a flavor holds.
pub const EXTRA_SPECS_MAX: usize = 128;

/// A flavor that an administrator asks for.
#[derive(Debug, Clone)]
pub struct FlavorNew {
    /// Its id; `None` draws one.
    pub id: Option<FlavorId>,
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Root disk in GiB.
    pub disk_gib: u64,
    /// A second disk in GiB.
    pub ephemeral_gib: u64,
    /// Swap in MiB.
    pub swap_mib: u64,
    /// Network share in percent of normal.
    pub rxtx_percent: u32,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Free text.
    pub description: Option<String>,
}

fn not_found(id: &FlavorId) -> EngineError {
    EngineError::not_found("FlavorNotFound", "Flavor", id)
}

async fn audit(tx: &Tx, action: Action, id: &FlavorId, detail: &Value) -> Result<(), EngineError> {
    let entry = AuditEntry { action, kind: "flavor", id: id.to_string(), project_id: None, detail };
    Ok(tx.audit(entry).await?)
}

impl Engine {
    /// The flavor with this id, if the caller may use it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn flavor_get(&self, ctx: &OpCtx, id: &FlavorId) -> Result<Flavor, EngineError> {
        authorize(ctx, compute::FLAVOR_READ, &Target::own(ctx))?;
        let flavor = self.store().flavor_get(id).await?.ok_or_else(|| not_found(id))?;
        if flavor.is_public || ctx.is_admin() {
            return Ok(flavor);
        }
        let allowed = self.store().flavor_access_list(id).await?;
        if ctx.project_id().is_some_and(|own| allowed.contains(&own)) { Ok(flavor) } else { Err(not_found(id)) }
    }

    /// A page of flavors, and whether more follow.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is no flavor, or a refusal.
    pub async fn flavor_list(&self, ctx: &OpCtx, mut filter: FlavorFilter) -> Result<(Vec<Flavor>, bool), EngineError> {
        authorize(ctx, compute::FLAVOR_READ, &Target::own(ctx))?;
        if !ctx.is_admin() {
            filter.is_public = None;
            filter.viewer = Some(ctx.project_id().unwrap_or(ProjectId(uuid::Uuid::nil())));
        }
        if let Some(marker) = &filter.marker
            && self.flavor_get(ctx, marker).await.is_err()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut flavors = self.store().flavor_list(&filter).await?;
        let more = flavors.len() > limit;
        flavors.truncate(limit);
        Ok((flavors, more))
    }

    /// Makes a flavor.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if its id or name is taken, or a refusal.
    pub async fn flavor_create(&self, ctx: &OpCtx, new: FlavorNew) -> Result<Flavor, EngineError> {
        authorize(ctx, compute::FLAVOR_WRITE, &Target::own(ctx))?;
        let now = Timestamp::now();
        let flavor = Flavor {
            id: new.id.unwrap_or_else(FlavorId::random),
            name: new.name,
            vcpus: new.vcpus,
            memory_mib: new.memory_mib,
            disk_gib: new.disk_gib,
            ephemeral_gib: new.ephemeral_gib,
            swap_mib: new.swap_mib,
            rxtx_percent: new.rxtx_percent,
            is_public: new.is_public,
            description: new.description,
            extra_specs: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        match tx.flavor_insert(&flavor).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => {
                return Err(EngineError::conflict(format!(
                    "Flavor with name {} or ID {} already exists.",
                    flavor.name, flavor.id
                )));
            }
            Err(error) => return Err(error.into()),
        }
        audit(&tx, compute::FLAVOR_WRITE, &flavor.id, &json!({ "name": flavor.name })).await?;
        tx.commit().await?;
        Ok(flavor)
    }

    /// Changes what of a flavor may change.
    async fn flavor_change(
        &self,
        ctx: &OpCtx,
        id: &FlavorId,
        change: impl FnOnce(&mut Flavor) -> Result<(), EngineError>,
    ) -> Result<Flavor, EngineError> {
        authorize(ctx, compute::FLAVOR_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut flavor = tx.flavor_get(id).await?.ok_or_else(|| not_found(id))?;
        change(&mut flavor)?;
        tx.flavor_update(&flavor).await?;
        audit(&tx, compute::FLAVOR_WRITE, id, &json!({ "extra_specs": flavor.extra_specs })).await?;
        tx.commit().await?;
        Ok(flavor)
    }

    /// Sets a flavor's description.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn flavor_describe(
        &self,
        ctx: &OpCtx,
        id: &FlavorId,
        description: Option<String>,
    ) -> Result<Flavor, EngineError> {
        self.flavor_change(ctx, id, |flavor| {
            flavor.description = description;
            Ok(())
        })
        .await
    }

    /// Adds or replaces further settings of a flavor.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for too many, or a refusal.
    pub async fn flavor_extra_specs_set(
        &self,
        ctx: &OpCtx,
        id: &FlavorId,
        specs: BTreeMap<String, String>,
    ) -> Result<Flavor, EngineError> {
        self.flavor_change(ctx, id, |flavor| {
            flavor.extra_specs.extend(specs);
            if flavor.extra_specs.len() > EXTRA_SPECS_MAX {
                return Err(EngineError::invalid(format!("A flavor holds at most {EXTRA_SPECS_MAX} extra specs.")));
            }
            Ok(())
        })
        .await
    }

    /// Removes a further setting of a flavor.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn flavor_extra_spec_delete(&self, ctx: &OpCtx, id: &FlavorId, key: &str) -> Result<(), EngineError> {
        self.flavor_change(ctx, id, |flavor| match flavor.extra_specs.remove(key) {
            Some(_) => Ok(()),
            None => Err(extra_spec_not_found(&flavor.id, key)),
        })
        .await?;
        Ok(())
    }

    /// Removes a flavor. Servers keep the copy that they were given.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn flavor_delete(&self, ctx: &OpCtx, id: &FlavorId) -> Result<(), EngineError> {
        authorize(ctx, compute::FLAVOR_WRITE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        if !tx.flavor_delete(id).await? {
            return Err(not_found(id));
        }
        audit(&tx, compute::FLAVOR_WRITE, id, &json!({ "deleted": true })).await?;
        Ok(tx.commit().await?)
    }

    /// The projects that may use a private flavor.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such flavor or it is public, or a refusal.
    pub async fn flavor_access_list(&self, ctx: &OpCtx, id: &FlavorId) -> Result<Vec<ProjectId>, EngineError> {
        authorize(ctx, compute::FLAVOR_ACCESS, &Target::own(ctx))?;
        let flavor = self.store().flavor_get(id).await?.ok_or_else(|| not_found(id))?;
        if flavor.is_public {
            let id = "list of a public flavor";
            return Err(EngineError::not_found("FlavorAccessNotFound", "Access", id));
        }
        Ok(self.store().flavor_access_list(id).await?)
    }

    /// Lets a project use a private flavor, or no longer; who may afterwards. Of a public one, which all may use, this changes
    /// nothing that counts; `public` says whether that is accepted.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if it is public, which is not accepted, or the project may already, [`EngineError::NotFound`], or a refusal.
    pub async fn flavor_access_change(
        &self,
        ctx: &OpCtx,
        id: &FlavorId,
        project: ProjectId,
        allowed: bool,
        public: bool,
    ) -> Result<Vec<ProjectId>, EngineError> {
        authorize(ctx, compute::FLAVOR_ACCESS, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let flavor = tx.flavor_get(id).await?.ok_or_else(|| not_found(id))?;
        if flavor.is_public && allowed && !public {
            return Err(EngineError::conflict("Can not add access to a public flavor."));
        }
        let exists = tx.flavor_access_list(id).await?.contains(&project);
        if allowed && exists {
            return Err(EngineError::conflict(format!(
                "Flavor access already exists for flavor {id} and project {project} combination."
            )));
        }
        if !allowed && !exists {
            let id = format!("of flavor {id} for {project}");
            return Err(EngineError::not_found("FlavorAccessNotFound", "Flavor access", id));
        }
        if allowed {
            tx.flavor_access_insert(id, project).await?;
        } else {
            tx.flavor_access_delete(id, project).await?;
        }
        audit(&tx, compute::FLAVOR_ACCESS, id, &json!({ "project_id": project, "allowed": allowed })).await?;
        let after = tx.flavor_access_list(id).await?;
        tx.commit().await?;
        Ok(after)
    }
}

/// The flavor has no such further setting.
pub fn extra_spec_not_found(id: &FlavorId, key: &str) -> EngineError {
    let key: String = key.chars().take(64).collect();
    EngineError::not_found("FlavorExtraSpecsNotFound", "Flavor extra spec", format!("{key} of flavor {id}"))
}
