//! Claims on providers. Servers claim when they are made; here others do, by the same conditional writes.

use super::{CONCURRENT_UPDATE, conflict, no_provider};
use crate::fleet::Member;
use crate::{Engine, EngineError};
use arcus_store::{AllocationRow, AuditEntry, Consumer, ConsumerUsage, Inventory, Tx};
use arcus_types::policy::{Action, Target, authorize, placement as policy};
use arcus_types::{ConsumerId, NodeId, OpCtx, ProjectId, ProviderId, Timestamp};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most consumers that one request may write.
const CONSUMERS_MAX: usize = 1_000;

/// What a consumer shall claim of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationWish {
    /// Of whom.
    pub provider_id: ProviderId,
    /// Class and quantity.
    pub resources: Vec<(String, u64)>,
}

/// What a consumer shall claim, all of it; nothing forgets the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerWish {
    /// Who.
    pub id: ConsumerId,
    /// Its project, where the caller says it.
    pub project: Option<String>,
    /// Its user, where the caller says it.
    pub owner: Option<String>,
    /// Its kind, where the caller says it.
    pub kind: Option<String>,
    /// The generation that the caller knows: `Some(None)` is that of a consumer that is not there; `None` does not care.
    pub generation: Option<Option<u64>>,
    /// Of whom and how much.
    pub claims: Vec<AllocationWish>,
}

/// A consumer that was not there before, and whose kind nobody said, is called so.
const KIND_UNKNOWN: &str = "unknown";
/// A consumer of times when none had an owner.
const OWNER_UNKNOWN: &str = "00000000-0000-0000-0000-000000000000";

impl Engine {
    /// A consumer with its claims; `None` for one that claims nothing.
    ///
    /// # Errors
    /// A refusal.
    pub async fn consumer_get(
        &self,
        ctx: &OpCtx,
        id: ConsumerId,
    ) -> Result<Option<(Consumer, Vec<AllocationRow>)>, EngineError> {
        authorize(ctx, policy::ALLOCATION_READ, &Target::default())?;
        Ok(self.store().consumer_get(id).await?)
    }

    /// A provider and every claim on it, with its consumer.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn provider_allocations(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
    ) -> Result<(Arc<Member>, Vec<(Consumer, Vec<AllocationRow>)>), EngineError> {
        authorize(ctx, policy::ALLOCATION_READ, &Target::default())?;
        let provider = self.provider_found(id).await?;
        Ok((provider, self.store().allocation_list(id).await?))
    }

    /// What a project's consumers claim, by kind.
    ///
    /// # Errors
    /// A refusal.
    pub async fn consumer_usages(
        &self,
        ctx: &OpCtx,
        project: &str,
        owner: Option<&str>,
        kind: Option<&str>,
    ) -> Result<Vec<ConsumerUsage>, EngineError> {
        let target = Target { project_id: project.parse::<ProjectId>().ok(), ..Target::default() };
        authorize(ctx, policy::USAGE_READ, &target)?;
        Ok(self.store().consumer_usages(project, owner, kind).await?)
    }

    /// Replaces the claims of consumers by these, all or none.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for a server, for a generation that has passed, and where there is not so much left;
    /// [`EngineError::Invalid`] for a provider or an inventory that is not there.
    pub async fn allocations_set(&self, ctx: &OpCtx, wishes: &[ConsumerWish]) -> Result<(), EngineError> {
        authorize(ctx, policy::ALLOCATION_UPDATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        self.allocations_set_in(&tx, wishes, policy::ALLOCATION_UPDATE).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets a consumer and gives back what it claims.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Conflict`] for a server.
    pub async fn allocations_delete(&self, ctx: &OpCtx, id: ConsumerId) -> Result<(), EngineError> {
        authorize(ctx, policy::ALLOCATION_UPDATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        if tx.consumer_get(id).await?.is_none() {
            return Err(EngineError::NotFound { code: "NotFound", kind: "Consumer", id: id.to_string() });
        }
        let nothing = ConsumerWish { id, project: None, owner: None, kind: None, generation: None, claims: Vec::new() };
        self.allocations_set_in(&tx, &[nothing], policy::ALLOCATION_UPDATE).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn allocations_set_in(
        &self,
        tx: &Tx,
        wishes: &[ConsumerWish],
        action: Action,
    ) -> Result<(), EngineError> {
        if wishes.len() > CONSUMERS_MAX {
            return Err(EngineError::invalid(format!("One request writes at most {CONSUMERS_MAX} consumers.")));
        }
        let mut before = Vec::with_capacity(wishes.len());
        for wish in wishes {
            before.push(self.consumer_checked(tx, wish).await?);
        }
        // What is given back first may be claimed by another one of the same request.
        for claim in before.iter().flatten().flat_map(|(_, claims)| claims) {
            release(tx, claim).await?;
        }
        let mut touched: BTreeSet<ProviderId> =
            before.iter().flatten().flat_map(|(_, claims)| claims.iter().map(|c| c.provider_id)).collect();
        for (wish, before) in wishes.iter().zip(&before) {
            if wish.claims.is_empty() {
                tx.consumer_delete(wish.id).await?;
            } else {
                self.consumer_claims(tx, wish, before.as_ref().map(|(c, _)| c)).await?;
                touched.extend(wish.claims.iter().map(|c| c.provider_id));
            }
            let detail = json!({ "providers": wish.claims.iter().map(|c| c.provider_id).collect::<Vec<_>>() });
            let entry =
                AuditEntry { action, kind: "consumer", id: wish.id.to_string(), project_id: None, detail: &detail };
            tx.audit(entry).await?;
        }
        for id in touched {
            tx.provider_generation_raise(id, None).await?;
        }
        Ok(())
    }

    /// What is known of a consumer, if it may be written so.
    async fn consumer_checked(
        &self,
        tx: &Tx,
        wish: &ConsumerWish,
    ) -> Result<Option<(Consumer, Vec<AllocationRow>)>, EngineError> {
        if tx.consumer_is_server(wish.id).await? {
            return Err(EngineError::conflict(format!(
                "Consumer {} is a server of this cloud: what it claims changes with it. Resize or delete the server.",
                wish.id
            )));
        }
        let known = tx.consumer_get(wish.id).await?;
        let generation = known.as_ref().map(|(c, _)| c.generation);
        if wish.generation.is_some_and(|said| said != generation) {
            let text = |g: Option<u64>| g.map_or_else(|| "null".to_owned(), |g| g.to_string());
            let message = format!(
                "consumer generation conflict - expected {} but got {}",
                text(generation),
                text(wish.generation.flatten())
            );
            return Err(conflict(CONCURRENT_UPDATE, message));
        }
        Ok(known)
    }

    async fn consumer_claims(&self, tx: &Tx, wish: &ConsumerWish, known: Option<&Consumer>) -> Result<(), EngineError> {
        let or = |said: &Option<String>, known: Option<&String>, default: &str| {
            said.clone().or_else(|| known.cloned()).unwrap_or_else(|| default.to_owned())
        };
        let consumer = Consumer {
            id: wish.id,
            project: or(&wish.project, known.map(|c| &c.project), OWNER_UNKNOWN),
            owner: or(&wish.owner, known.map(|c| &c.owner), OWNER_UNKNOWN),
            kind: or(&wish.kind, known.map(|c| &c.kind), KIND_UNKNOWN),
            generation: known.map_or(0, |c| c.generation),
            is_server: false,
            updated_at: Timestamp::now(),
        };
        if !tx.consumer_set(&consumer).await? {
            return Err(conflict(CONCURRENT_UPDATE, "consumer generation conflict"));
        }
        let mut rows = Vec::new();
        for one in &wish.claims {
            let row = tx.provider_list(Some(&[one.provider_id])).await?.pop();
            let provider = row.map(crate::fleet::member).ok_or_else(|| {
                EngineError::invalid(format!(
                    "Allocation for resource provider '{}' that does not exist.",
                    one.provider_id
                ))
            })?;
            for (class, amount) in &one.resources {
                let inventory = provider.inventories.iter().find(|i| i.class == *class).ok_or_else(|| {
                    conflict(
                        "Conflict",
                        format!(
                            "Unable to allocate inventory: Inventory for '{class}' on resource provider '{}' invalid.",
                            one.provider_id
                        ),
                    )
                })?;
                size_checked(inventory, *amount, one.provider_id)?;
                rows.push(AllocationRow {
                    consumer_id: wish.id,
                    provider_id: one.provider_id,
                    class: class.clone(),
                    used: *amount,
                });
            }
            claim(tx, &provider, &one.resources).await?;
        }
        Ok(tx.allocations_set(wish.id, &rows).await?)
    }

    /// Moves inventories and claims at once, all or none: each provider's inventories as they shall be, with the
    /// generation that the caller knows, and the consumers' claims.
    ///
    /// # Errors
    /// As [`Engine::inventories_set`] and [`Engine::allocations_set`].
    pub async fn reshape(
        &self,
        ctx: &OpCtx,
        inventories: &BTreeMap<ProviderId, (u64, Vec<Inventory>)>,
        wishes: &[ConsumerWish],
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::RESHAPE, &Target::default())?;
        for (_, wanted) in inventories.values() {
            for one in wanted {
                self.class_checked(&one.class).await?;
            }
        }
        let tx = self.store().begin(ctx).await?;
        let mut stored = Vec::new();
        for (id, (generation, wanted)) in inventories {
            let row = tx.provider_list(Some(&[*id])).await?.pop().ok_or_else(|| no_provider(*id))?;
            if !tx.provider_generation_raise(*id, Some(*generation)).await? {
                return Err(super::generation_conflict());
            }
            let known = crate::fleet::member(row);
            for one in wanted {
                if !known.tells_itself(&one.class) {
                    tx.inventory_set(*id, one).await?;
                } else if !known.inventories.iter().any(|i| super::same_figures(i, one)) {
                    return Err(conflict(super::INVENTORY_IN_USE, super::told_by_node(&known, &one.class)));
                }
            }
            stored.push((*id, known, wanted));
        }
        self.allocations_set_in(&tx, wishes, policy::RESHAPE).await?;
        for (id, known, wanted) in stored {
            for gone in known.inventories.iter().filter(|i| !wanted.iter().any(|w| w.class == i.class)) {
                if known.tells_itself(&gone.class) {
                    return Err(conflict(super::INVENTORY_IN_USE, super::told_by_node(&known, &gone.class)));
                }
                super::inventory_gone(&tx, id, &gone.class).await?;
            }
            self.provider_audit(&tx, policy::RESHAPE, id, &json!({})).await?;
        }
        Ok(tx.commit().await?)
    }
}

fn size_checked(i: &Inventory, amount: u64, provider: ProviderId) -> Result<(), EngineError> {
    if i.admits(amount) {
        return Ok(());
    }
    Err(EngineError::conflict(format!(
        "Unable to allocate inventory: Unable to create allocation for '{}' on resource provider '{provider}'. The requested amount would violate inventory constraints: {amount} is not between {} and {}, or not a multiple of {}.",
        i.class, i.min_unit, i.max_unit, i.step_size
    )))
}

async fn claim(tx: &Tx, provider: &Member, resources: &[(String, u64)]) -> Result<(), EngineError> {
    let id = provider.view.id;
    let full = || {
        EngineError::conflict(format!(
            "Unable to allocate inventory: Unable to create allocation on resource provider '{id}'. The requested amount would exceed the capacity."
        ))
    };
    let of = |class: &str| resources.iter().filter(|(c, _)| c == class).map(|(_, amount)| amount).sum::<u64>();
    if provider.node.is_some() {
        let (vcpus, memory_mib, disk_gib) = (of("VCPU"), of("MEMORY_MB"), of("DISK_GB"));
        if vcpus + memory_mib + disk_gib > 0 && !tx.node_claim(NodeId(id.0), vcpus, memory_mib, disk_gib).await? {
            return Err(full());
        }
    }
    for (class, amount) in resources.iter().filter(|(class, _)| !provider.tells_itself(class)) {
        if !tx.inventory_claim(id, class, *amount).await? {
            return Err(full());
        }
    }
    Ok(())
}

async fn release(tx: &Tx, claim: &AllocationRow) -> Result<(), EngineError> {
    let used = claim.used;
    let node = NodeId(claim.provider_id.0);
    // Of what is not a node, no row changes, and the other way round.
    match claim.class.as_str() {
        "VCPU" => tx.node_release(node, used, 0, 0).await?,
        "MEMORY_MB" => tx.node_release(node, 0, used, 0).await?,
        "DISK_GB" => tx.node_release(node, 0, 0, used).await?,
        _ => {}
    }
    Ok(tx.inventory_release(claim.provider_id, &claim.class, used).await?)
}
