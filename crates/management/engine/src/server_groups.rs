//! Server groups: which servers shall share a node, or shall not.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, GroupPolicy, QuotaResource, ServerGroup, Tx};
use arcus_types::policy::{Denied, Target, authorize, compute};
use arcus_types::{OpCtx, ServerGroupId, ServerId, Timestamp};
use serde_json::json;
use std::collections::HashMap;

fn no_group(id: ServerGroupId) -> EngineError {
    EngineError::not_found("InstanceGroupNotFound", "Instance group", id)
}

impl Engine {
    /// Makes a group.
    ///
    /// # Errors
    /// [`EngineError::OverQuota`] or a refusal.
    pub async fn server_group_create(
        &self,
        ctx: &OpCtx,
        name: &str,
        policy: GroupPolicy,
        servers_per_node_max: u64,
    ) -> Result<ServerGroup, EngineError> {
        authorize(ctx, compute::SERVER_GROUP_WRITE, &Target::own(ctx))?;
        let (Some(project_id), Some(user_id)) = (ctx.project_id(), ctx.user_id()) else {
            return Err(EngineError::Forbidden("A server group is made by a user in a project.".into()));
        };
        let group = ServerGroup {
            id: ServerGroupId::new(),
            project_id,
            user_id,
            name: name.to_owned(),
            policy,
            servers_per_node_max,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        if !tx.quota_claim(project_id, QuotaResource::ServerGroups, 1).await? {
            return Err(EngineError::OverQuota {
                code: "ServerGroupLimitExceeded",
                message: "Quota exceeded, too many server groups.".into(),
            });
        }
        let wanted = [(QuotaResource::ServerGroups, 1)];
        if let Some(over) = self.user_quota_over(&tx, project_id, user_id, &wanted).await? {
            return Err(over.refusal(1));
        }
        tx.server_group_insert(&group).await?;
        tx.audit(AuditEntry {
            action: compute::SERVER_GROUP_WRITE,
            kind: "server_group",
            id: group.id.to_string(),
            project_id: Some(project_id),
            detail: &json!({ "policy": policy.text() }),
        })
        .await?;
        tx.commit().await?;
        Ok(group)
    }

    /// One group with its servers.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_group_get(
        &self,
        ctx: &OpCtx,
        id: ServerGroupId,
    ) -> Result<(ServerGroup, Vec<ServerId>), EngineError> {
        let group = self.store().server_group_get(id).await?.ok_or_else(|| no_group(id))?;
        group_allowed(ctx, compute::SERVER_GROUP_READ, &group)?;
        let members = self.store().server_group_members(&[id]).await?;
        Ok((group, members.into_iter().map(|(_, server, _)| server).collect()))
    }

    /// A page of groups with their servers.
    ///
    /// # Errors
    /// A refusal.
    pub async fn server_group_list(
        &self,
        ctx: &OpCtx,
        all_projects: bool,
        limit: u64,
        offset: u32,
    ) -> Result<Vec<(ServerGroup, Vec<ServerId>)>, EngineError> {
        authorize(ctx, compute::SERVER_GROUP_READ, &Target::own(ctx))?;
        let project = if all_projects && ctx.is_admin() { None } else { ctx.project_id() };
        if project.is_none() && !ctx.is_admin() {
            return Ok(Vec::new());
        }
        let groups = self.store().server_group_list(project, limit, offset).await?;
        let ids: Vec<ServerGroupId> = groups.iter().map(|g| g.id).collect();
        let mut members: HashMap<ServerGroupId, Vec<ServerId>> = HashMap::new();
        for (group, server, _) in self.store().server_group_members(&ids).await? {
            members.entry(group).or_default().push(server);
        }
        Ok(groups.into_iter().map(|g| (members.remove(&g.id).unwrap_or_default(), g)).map(|(m, g)| (g, m)).collect())
    }

    /// Removes a group; its servers stay.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_group_delete(&self, ctx: &OpCtx, id: ServerGroupId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let group = tx.server_group_get(id).await?.ok_or_else(|| no_group(id))?;
        group_allowed(ctx, compute::SERVER_GROUP_WRITE, &group)?;
        if !tx.server_group_delete(id).await? {
            return Err(no_group(id));
        }
        tx.quota_release(group.project_id, QuotaResource::ServerGroups, 1).await?;
        tx.audit(AuditEntry {
            action: compute::SERVER_GROUP_WRITE,
            kind: "server_group",
            id: id.to_string(),
            project_id: Some(group.project_id),
            detail: &json!({ "deleted": true }),
        })
        .await?;
        Ok(tx.commit().await?)
    }

    /// The group that a new server shall be in.
    pub(crate) async fn server_group_for_boot(
        &self,
        ctx: &OpCtx,
        id: ServerGroupId,
    ) -> Result<ServerGroup, EngineError> {
        let found = self.server_group_get(ctx, id).await.map_err(|error| match error {
            EngineError::NotFound { .. } => EngineError::invalid(format!("Instance group {id} could not be found.")),
            other => other,
        });
        Ok(found?.0)
    }

    /// Refuses more servers in a group than it may have. The caller has claimed the project's quota of servers in this
    /// transaction: that row's lock keeps other new servers out until the commit.
    pub(crate) async fn server_group_admits(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        group: &ServerGroup,
        more: u32,
    ) -> Result<(), EngineError> {
        let members = tx.server_group_members(&[group.id]).await?.len();
        let measure = QuotaResource::ServerGroupMembers;
        match self.measure_cap(tx, Some(group.project_id), ctx.user_id(), measure).await? {
            Some(cap) if u64::try_from(members).unwrap_or(u64::MAX).saturating_add(u64::from(more)) > cap => {
                Err(EngineError::OverQuota {
                    code: "ServerGroupMemberLimitExceeded",
                    message: format!("Quota exceeded, too many servers in group: it has {members} of {cap}."),
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn group_allowed(ctx: &OpCtx, action: arcus_types::policy::Action, group: &ServerGroup) -> Result<(), EngineError> {
    match authorize(ctx, action, &Target::project(group.project_id)) {
        Ok(()) => Ok(()),
        Err(Denied::Hidden) => Err(no_group(group.id)),
        Err(denied) => Err(denied.into()),
    }
}
