//! Tags: short words that owners put on things of the network.

use crate::networks::{found, unchanged};
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Tagged, Tx};
use arcus_types::policy::{Denied, Target, authorize, network as policy};
use arcus_types::{
    FloatingIpId, NetworkId, OpCtx, PortId, ProjectId, QosPolicyId, RouterId, SecurityGroupId, SubnetId, SubnetPoolId,
};
use serde_json::json;
use uuid::Uuid;

/// The most tags of one thing.
pub const TAGS_MAX: usize = 50;

/// What to do with a thing's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// Put this one on it, if it is not there.
    Add(String),
    /// Put these on it, if they are not there.
    AddAll(Vec<String>),
    /// Take this one off it.
    Remove(String),
    /// Take these off it, as far as they are there.
    RemoveAll(Vec<String>),
    /// These and no others.
    Replace(Vec<String>),
}

/// What the list of tags becomes. Pure; `Err` names the tag that is not there.
fn changed(tags: &[String], change: TagChange) -> Result<Vec<String>, String> {
    let mut tags = tags.to_vec();
    match change {
        TagChange::Add(tag) => tags.push(tag),
        TagChange::AddAll(more) => tags.extend(more),
        TagChange::Remove(tag) => {
            let there = tags.iter().position(|t| *t == tag).ok_or(tag)?;
            tags.remove(there);
        }
        TagChange::RemoveAll(gone) => tags.retain(|t| !gone.contains(t)),
        TagChange::Replace(all) => tags = all,
    }
    Ok(tidied(tags))
}

/// Sorted, each once.
pub(crate) fn tidied(mut tags: Vec<String>) -> Vec<String> {
    tags.sort();
    tags.dedup();
    tags
}

/// Refuses more tags than a thing may have.
pub(crate) fn checked(tags: &[String]) -> Result<(), EngineError> {
    if tags.len() > TAGS_MAX {
        return Err(EngineError::Invalid {
            code: "TagsExhausted",
            message: format!("A resource has at most {TAGS_MAX} tags."),
        });
    }
    Ok(())
}

fn no_tag(tag: &str) -> EngineError {
    EngineError::not_found("TagNotFound", "Tag", tag)
}

impl Engine {
    /// The tags of a thing, its owner and its revision, if the caller may see it.
    async fn tags_seen(
        &self,
        ctx: &OpCtx,
        kind: Tagged,
        id: Uuid,
    ) -> Result<(Vec<String>, Option<ProjectId>, u64), EngineError> {
        macro_rules! of {
            ($get:ident, $id:ident) => {{
                let thing = self.$get(ctx, $id(id)).await?;
                (thing.tags, Some(thing.project_id), thing.revision)
            }};
        }
        Ok(match kind {
            Tagged::Network => of!(network_get, NetworkId),
            Tagged::Subnet => of!(subnet_get, SubnetId),
            Tagged::SubnetPool => of!(subnet_pool_get, SubnetPoolId),
            Tagged::Router => of!(router_get, RouterId),
            Tagged::FloatingIp => of!(floating_ip_get, FloatingIpId),
            Tagged::SecurityGroup => of!(security_group_get, SecurityGroupId),
            Tagged::QosPolicy => of!(qos_policy_get, QosPolicyId),
            Tagged::Port => {
                let port = self.port_get(ctx, PortId(id)).await?;
                (port.tags, port.project_id, port.revision)
            }
        })
    }

    /// The tags of a thing, sorted.
    ///
    /// # Errors
    /// 404 under the thing's own name.
    pub async fn tags_get(&self, ctx: &OpCtx, kind: Tagged, id: Uuid) -> Result<Vec<String>, EngineError> {
        authorize(ctx, policy::TAG_LIST, &Target::own(ctx))?;
        Ok(self.tags_seen(ctx, kind, id).await?.0)
    }

    /// Whether a thing has a tag.
    ///
    /// # Errors
    /// `TagNotFound`, or 404 under the thing's own name.
    pub async fn tag_check(&self, ctx: &OpCtx, kind: Tagged, id: Uuid, tag: &str) -> Result<(), EngineError> {
        let tags = self.tags_get(ctx, kind, id).await?;
        if tags.iter().any(|t| t == tag) { Ok(()) } else { Err(no_tag(tag)) }
    }

    /// Changes the tags of a thing; which it has now.
    ///
    /// # Errors
    /// 404 under the thing's own name, `TagNotFound` for one to remove, 400 for too many.
    pub async fn tags_change(
        &self,
        ctx: &OpCtx,
        kind: Tagged,
        id: Uuid,
        change: TagChange,
        if_match: Option<u64>,
    ) -> Result<Vec<String>, EngineError> {
        authorize(ctx, policy::TAG_UPDATE, &Target::own(ctx))?;
        let (_, owner, revision) = self.tags_seen(ctx, kind, id).await?;
        if !ctx.is_admin() && (owner.is_none() || owner != ctx.project_id()) {
            return Err(Denied::Forbidden(policy::TAG_UPDATE.name).into());
        }
        unchanged(if_match, revision)?;
        let tx = self.store().begin(ctx).await?;
        let tags = found(tx.tags_lock(kind, id).await?, "HTTPNotFound", "The resource", id)?;
        let new = changed(&tags, change).map_err(|tag| no_tag(&tag))?;
        checked(&new)?;
        if new != tags {
            tx.tags_set(kind, id, &new).await?;
        }
        self.tags_audit(&tx, id, owner, &new).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    async fn tags_audit(
        &self,
        tx: &Tx,
        id: Uuid,
        project_id: Option<ProjectId>,
        tags: &[String],
    ) -> Result<(), EngineError> {
        let entry = AuditEntry {
            action: policy::TAG_UPDATE,
            kind: "tags",
            id: id.to_string(),
            project_id,
            detail: &json!({ "tags": tags }),
        };
        Ok(tx.audit(entry).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn tags_stay_sorted_and_each_is_there_once() {
        let tags = words("blue red");
        assert_eq!(changed(&tags, TagChange::Add("blue".into())), Ok(words("blue red")));
        assert_eq!(changed(&tags, TagChange::AddAll(words("green amber green"))), Ok(words("amber blue green red")));
        assert_eq!(changed(&tags, TagChange::Replace(words("b a b"))), Ok(words("a b")));
        assert_eq!(changed(&tags, TagChange::RemoveAll(words("red none"))), Ok(words("blue")));
        assert_eq!(changed(&tags, TagChange::Remove("none".into())), Err("none".into()));
    }
}
