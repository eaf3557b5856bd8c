//! Resource providers, as the placement API shows and changes them. Nodes are providers; what they have of processors,
//! memory and disk is what servers are placed by, and only nodes and servers change it.

mod allocations;
mod candidates;
mod traits;
mod words;

pub use allocations::{AllocationWish, ConsumerWish};
pub use candidates::{CandidateWish, Candidates};

use crate::fleet::Member;
use crate::{Engine, EngineError};
use arcus_placement::candidates::Group;
use arcus_store::{AuditEntry, Inventory, Provider, StoreError, Tx};
use arcus_types::policy::{Action, Target, authorize, placement as policy};
use arcus_types::{OpCtx, ProviderAggregateId, ProviderId, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most of anything that one provider may be given in one request.
const WORDS_MAX: usize = 1_000;
/// The most providers that one list shows: the API knows no pages.
pub const PROVIDERS_MAX: usize = 20_000;

/// Somebody else has changed it since the caller read it.
pub const CONCURRENT_UPDATE: &str = "placement.concurrent_update";
const DUPLICATE_NAME: &str = "placement.duplicate_name";
const PROVIDER_IN_USE: &str = "placement.resource_provider.inuse";
const PROVIDER_HAS_CHILDREN: &str = "placement.resource_provider.cannot_delete_parent";
const INVENTORY_IN_USE: &str = "placement.inventory.inuse";
const PROVIDER_NOT_FOUND: &str = "placement.resource_provider.not_found";

/// Which providers are looked for.
#[derive(Debug, Clone, Default)]
pub struct ProviderFilter {
    /// The one with this id.
    pub id: Option<ProviderId>,
    /// The one with this name.
    pub name: Option<String>,
    /// Those in the tree of this one.
    pub in_tree: Option<ProviderId>,
    /// Those that could alone give this.
    pub group: Group,
}

pub(crate) fn no_provider(id: ProviderId) -> EngineError {
    EngineError::NotFound { code: PROVIDER_NOT_FOUND, kind: "Resource provider", id: id.to_string() }
}

fn conflict(code: &'static str, message: impl Into<String>) -> EngineError {
    EngineError::Conflict { code, message: message.into() }
}

fn generation_conflict() -> EngineError {
    let message = "Resource provider's generation already changed. Please update the generation and try again.";
    conflict(CONCURRENT_UPDATE, message)
}

impl Engine {
    /// The providers that a filter lets through, in the order in which they were made.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a class or trait that there is not, or a refusal.
    pub async fn provider_list(&self, ctx: &OpCtx, f: &ProviderFilter) -> Result<Vec<Arc<Member>>, EngineError> {
        authorize(ctx, policy::PROVIDER_LIST, &Target::default())?;
        self.group_checked(&f.group).await?;
        let root = match f.in_tree {
            None => None,
            Some(id) => match self.fleet_get(&[id]).await?.first() {
                Some(found) => Some(found.view.root_id),
                None => return Ok(Vec::new()),
            },
        };
        if let (Some(id), None, None) = (f.id, &f.name, root) {
            let mut found = self.fleet_get(&[id]).await?;
            found.retain(|m| f.group.given_by(&m.view));
            return Ok(found);
        }
        self.fleet_pick(PROVIDERS_MAX, |m| {
            let wanted = f.id.is_none_or(|id| id == m.view.id)
                && f.name.as_ref().is_none_or(|name| *name == m.name)
                && root.is_none_or(|root| root == m.view.root_id)
                && f.group.given_by(&m.view);
            wanted.then(|| Arc::clone(m))
        })
        .await
    }

    /// The provider with this id.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn provider_get(&self, ctx: &OpCtx, id: ProviderId) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::PROVIDER_SHOW, &Target::default())?;
        self.provider_found(id).await
    }

    /// The generation of a provider; 0 for one that is gone.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn provider_generation(&self, id: ProviderId) -> Result<u64, EngineError> {
        Ok(self.fleet_get(&[id]).await?.first().map_or(0, |m| m.generation))
    }

    /// Every trait that a provider has.
    ///
    /// # Errors
    /// A refusal.
    pub async fn traits_in_use(&self, ctx: &OpCtx) -> Result<BTreeSet<String>, EngineError> {
        authorize(ctx, policy::TRAIT_READ, &Target::default())?;
        let mut used = BTreeSet::new();
        let note = |m: &Arc<Member>| {
            for word in &m.view.traits {
                if !used.contains(word) {
                    used.insert(word.clone());
                }
            }
            None::<()>
        };
        self.fleet_pick(usize::MAX, note).await?;
        Ok(used)
    }

    pub(crate) async fn provider_found(&self, id: ProviderId) -> Result<Arc<Member>, EngineError> {
        self.fleet_get(&[id]).await?.pop().ok_or_else(|| no_provider(id))
    }

    /// The provider as the database has it, in the caller's transaction.
    async fn provider_row(&self, tx: &Tx, id: ProviderId) -> Result<Provider, EngineError> {
        tx.provider_list(Some(&[id])).await?.pop().ok_or_else(|| no_provider(id))
    }

    async fn provider_audit(
        &self,
        tx: &Tx,
        action: Action,
        id: ProviderId,
        detail: &serde_json::Value,
    ) -> Result<(), EngineError> {
        let entry = AuditEntry { action, kind: "resource_provider", id: id.to_string(), project_id: None, detail };
        Ok(tx.audit(entry).await?)
    }

    /// Registers a provider.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if its name or id is taken, [`EngineError::Invalid`] for a parent that is not there.
    pub async fn provider_create(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
        name: &str,
        parent_id: Option<ProviderId>,
    ) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::PROVIDER_CREATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let root_id = match parent_id {
            None => id,
            Some(parent) if parent == id => {
                return Err(EngineError::invalid("parent provider UUID cannot be same as UUID."));
            }
            Some(parent) => parent_row(&tx, parent).await?.root_id,
        };
        let now = Timestamp::now();
        let new = Provider {
            id,
            name: name.to_owned(),
            parent_id,
            root_id,
            generation: 0,
            inventories: Vec::new(),
            traits: Vec::new(),
            aggregates: Vec::new(),
            node: None,
            created_at: now,
            updated_at: now,
        };
        tx.provider_insert(&new).await.map_err(|e| taken(e, &format!("name: {name}, or uuid: {id}")))?;
        self.provider_audit(&tx, policy::PROVIDER_CREATE, id, &json!({ "name": name, "parent_id": parent_id })).await?;
        tx.commit().await?;
        self.provider_found(id).await
    }

    /// Renames a provider, or hangs it, with all below it, somewhere else. `parent` is `None` to leave it where it is.
    /// Before it was allowed (`may_move`), a provider could only be given a parent once.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Conflict`] if the name is taken, [`EngineError::Invalid`] for a place
    /// where it cannot be.
    pub async fn provider_update(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
        name: &str,
        parent: Option<Option<ProviderId>>,
        may_move: bool,
    ) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::PROVIDER_UPDATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let known = self.provider_row(&tx, id).await?;
        if known.node.is_some() && (name != known.name || parent.is_some_and(|p| p != known.parent_id)) {
            return Err(conflict(
                "Conflict",
                format!("{} is a node: it has the node's name and is a root.", known.name),
            ));
        }
        let parent_id = parent.unwrap_or(known.parent_id);
        if parent_id != known.parent_id {
            if known.parent_id.is_some() && !may_move {
                return Err(EngineError::invalid("re-parenting a provider is not currently allowed."));
            }
            let trees = tx.provider_list(None).await?;
            let below = subtree(&trees, id);
            let root = match parent_id {
                None => id,
                Some(parent) if below.contains(&parent) => {
                    return Err(EngineError::invalid("creating loop in the provider tree is not allowed."));
                }
                Some(parent) => parent_row(&tx, parent).await?.root_id,
            };
            tx.providers_root_set(&below, root).await?;
        }
        tx.provider_update(id, name, parent_id).await.map_err(|e| taken(e, name))?;
        self.provider_audit(&tx, policy::PROVIDER_UPDATE, id, &json!({ "name": name, "parent_id": parent_id })).await?;
        tx.commit().await?;
        self.provider_found(id).await
    }

    /// Forgets a provider that nobody claims anything of.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Conflict`] for a node, one in use, or one with others below it.
    pub async fn provider_delete(&self, ctx: &OpCtx, id: ProviderId) -> Result<(), EngineError> {
        authorize(ctx, policy::PROVIDER_DELETE, &Target::default())?;
        let name = self.provider_found(id).await?.name.clone();
        let tx = self.store().begin(ctx).await?;
        let known = self.provider_row(&tx, id).await?;
        if known.node.is_some() {
            let message = format!("Unable to delete resource provider {id}: it is the node {name}.");
            return Err(conflict(PROVIDER_IN_USE, message));
        }
        if tx.provider_has_children(id).await? {
            let message = format!("Unable to delete parent resource provider {id}: It has child resource providers.");
            return Err(conflict(PROVIDER_HAS_CHILDREN, message));
        }
        if tx.provider_claimed(id).await? {
            let message = format!("Unable to delete resource provider {id}: Resource provider has allocations.");
            return Err(conflict(PROVIDER_IN_USE, message));
        }
        tx.provider_delete(id).await?;
        self.provider_audit(&tx, policy::PROVIDER_DELETE, id, &json!({ "name": known.name })).await?;
        Ok(tx.commit().await?)
    }

    /// Says what a provider has: all of it, or only (`only`) what is said here. A node's processors, memory and disk may
    /// be repeated as they are.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a class that there is not, [`EngineError::Conflict`] for a
    /// generation that has passed, for what is claimed and would go, and for what a node tells itself.
    pub async fn inventories_set(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
        generation: Option<u64>,
        wanted: Vec<Inventory>,
        only: bool,
    ) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::INVENTORY_UPDATE, &Target::default())?;
        let known = self.provider_found(id).await?;
        for one in &wanted {
            self.class_checked(&one.class).await?;
            if known.tells_itself(&one.class) && !known.inventories.iter().any(|i| same_figures(i, one)) {
                return Err(conflict(INVENTORY_IN_USE, told_by_node(&known, &one.class)));
            }
        }
        let tx = self.store().begin(ctx).await?;
        if !tx.provider_generation_raise(id, generation).await? {
            return Err(generation_conflict());
        }
        let stored = self.provider_row(&tx, id).await?.inventories;
        for one in wanted.iter().filter(|one| !known.tells_itself(&one.class)) {
            tx.inventory_set(id, one).await?;
        }
        if !only {
            if let Some(class) = ["VCPU", "MEMORY_MB", "DISK_GB"].into_iter().find(|class| {
                known.tells_itself(class)
                    && known.inventories.iter().any(|i| i.class == *class)
                    && !wanted.iter().any(|w| w.class == *class)
            }) {
                return Err(conflict(INVENTORY_IN_USE, told_by_node(&known, class)));
            }
            for gone in stored.iter().filter(|i| !wanted.iter().any(|w| w.class == i.class)) {
                inventory_gone(&tx, id, &gone.class).await?;
            }
        }
        let classes: Vec<&str> = wanted.iter().map(|i| i.class.as_str()).collect();
        self.provider_audit(&tx, policy::INVENTORY_UPDATE, id, &json!({ "classes": classes, "only": only })).await?;
        tx.commit().await?;
        self.provider_found(id).await
    }

    /// A provider has nothing of a class any more, or of any if none is named.
    ///
    /// # Errors
    /// As [`Engine::inventories_set`].
    pub async fn inventory_delete(&self, ctx: &OpCtx, id: ProviderId, class: Option<&str>) -> Result<(), EngineError> {
        let Some(class) = class else {
            return self.inventories_set(ctx, id, None, Vec::new(), false).await.map(drop);
        };
        authorize(ctx, policy::INVENTORY_UPDATE, &Target::default())?;
        let known = self.provider_found(id).await?;
        if !known.inventories.iter().any(|i| i.class == class) {
            return Err(EngineError::NotFound { code: "NotFound", kind: "Inventory of class", id: class.to_owned() });
        }
        if known.tells_itself(class) {
            return Err(conflict(INVENTORY_IN_USE, told_by_node(&known, class)));
        }
        let tx = self.store().begin(ctx).await?;
        tx.provider_generation_raise(id, None).await?;
        inventory_gone(&tx, id, class).await?;
        self.provider_audit(&tx, policy::INVENTORY_UPDATE, id, &json!({ "deleted": class })).await?;
        Ok(tx.commit().await?)
    }

    /// Says what a provider can do, all of it. What a node can do by nature stays.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a trait that there is not, [`EngineError::Conflict`] for a
    /// generation that has passed.
    pub async fn provider_traits_set(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
        generation: Option<u64>,
        mut wanted: Vec<String>,
    ) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::PROVIDER_TRAITS_UPDATE, &Target::default())?;
        let known = self.provider_found(id).await?;
        if wanted.len() > WORDS_MAX {
            return Err(EngineError::invalid(format!("A provider has at most {WORDS_MAX} traits.")));
        }
        self.traits_checked(wanted.iter().map(String::as_str)).await?;
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|word| !known.has_by_nature(word));
        let tx = self.store().begin(ctx).await?;
        if !tx.provider_generation_raise(id, generation).await? {
            return Err(generation_conflict());
        }
        tx.provider_traits_set(id, &wanted).await?;
        self.provider_audit(&tx, policy::PROVIDER_TRAITS_UPDATE, id, &json!({ "traits": wanted })).await?;
        tx.commit().await?;
        self.provider_found(id).await
    }

    /// Says which aggregates a provider is in, all of them. Without a generation none is raised, as it was until 1.18.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or [`EngineError::Conflict`] for a generation that has passed.
    pub async fn provider_aggregates_set(
        &self,
        ctx: &OpCtx,
        id: ProviderId,
        generation: Option<u64>,
        wanted: Vec<ProviderAggregateId>,
    ) -> Result<Arc<Member>, EngineError> {
        authorize(ctx, policy::PROVIDER_AGGREGATES_UPDATE, &Target::default())?;
        self.provider_found(id).await?;
        if wanted.len() > WORDS_MAX {
            return Err(EngineError::invalid(format!("A provider is in at most {WORDS_MAX} aggregates.")));
        }
        let tx = self.store().begin(ctx).await?;
        if generation.is_some() && !tx.provider_generation_raise(id, generation).await? {
            return Err(generation_conflict());
        }
        tx.provider_aggregates_set(id, &wanted).await?;
        let detail = json!({ "aggregates": wanted });
        self.provider_audit(&tx, policy::PROVIDER_AGGREGATES_UPDATE, id, &detail).await?;
        tx.commit().await?;
        self.provider_found(id).await
    }
}

async fn parent_row(tx: &Tx, parent: ProviderId) -> Result<Provider, EngineError> {
    let found = tx.provider_list(Some(&[parent])).await?.pop();
    found.ok_or_else(|| EngineError::invalid(format!("parent provider UUID '{parent}' does not exist.")))
}

/// A provider with all below it.
fn subtree(all: &[Provider], top: ProviderId) -> Vec<ProviderId> {
    let mut found = vec![top];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|p| p.parent_id == Some(parent)).map(|p| p.id));
        at += 1;
    }
    found
}

fn taken(error: StoreError, what: &str) -> EngineError {
    match error {
        StoreError::Duplicate(_) => {
            conflict(DUPLICATE_NAME, format!("Conflicting resource provider {what} already exists."))
        }
        other => other.into(),
    }
}

async fn inventory_gone(tx: &Tx, id: ProviderId, class: &str) -> Result<(), EngineError> {
    if tx.inventory_delete(id, class).await? {
        return Ok(());
    }
    let message = format!("Inventory for '{class}' on resource provider '{id}' in use.");
    Err(conflict(INVENTORY_IN_USE, message))
}

/// Whether a client repeats what a node tells of itself.
fn same_figures(told: &Inventory, said: &Inventory) -> bool {
    told.class == said.class && told.total == said.total && told.cap == said.cap && told.reserved == said.reserved
}

fn told_by_node(node: &Member, class: &str) -> String {
    format!("{class} of {} is what the node itself tells: change the node, or its cluster's overcommit.", node.name)
}
