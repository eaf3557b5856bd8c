//! Aggregates: administrators group nodes; an aggregate with a zone puts its nodes there.
//!
//! A node is in at most one zone, and does not change it while it holds servers: their owners chose where they are.

use crate::{Engine, EngineError};
use arcus_store::{Aggregate, AuditEntry, Node, StoreError, Tx};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{AggregateId, ImageId, OpCtx, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An aggregate with the names of its nodes.
pub type AggregateView = (Aggregate, Vec<String>);

fn not_found(number: u64) -> EngineError {
    EngineError::not_found("AggregateNotFound", "Aggregate", number)
}

fn named(error: StoreError, name: &str) -> EngineError {
    match error {
        StoreError::Duplicate(_) => {
            EngineError::Conflict { code: "AggregateNameExists", message: format!("Aggregate {name} already exists.") }
        }
        other => other.into(),
    }
}

impl Engine {
    /// Every aggregate.
    ///
    /// # Errors
    /// A refusal.
    pub async fn aggregate_list(&self, ctx: &OpCtx) -> Result<Vec<AggregateView>, EngineError> {
        authorize(ctx, compute::AGGREGATE_READ, &Target::default())?;
        let all = self.store().aggregate_list().await?;
        let ids: Vec<AggregateId> = all.iter().map(|a| a.id).collect();
        let mut nodes: BTreeMap<AggregateId, Vec<String>> = BTreeMap::new();
        for (id, _, name) in self.store().aggregate_nodes(&ids).await? {
            nodes.entry(id).or_default().push(name);
        }
        Ok(all.into_iter().map(|a| (nodes.remove(&a.id).unwrap_or_default(), a)).map(|(n, a)| (a, n)).collect())
    }

    /// One aggregate.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn aggregate_get(&self, ctx: &OpCtx, number: u64) -> Result<AggregateView, EngineError> {
        authorize(ctx, compute::AGGREGATE_READ, &Target::default())?;
        let aggregate = self.store().aggregate_get(number).await?.ok_or_else(|| not_found(number))?;
        let nodes = self.store().aggregate_nodes(&[aggregate.id]).await?;
        Ok((aggregate, nodes.into_iter().map(|(_, _, name)| name).collect()))
    }

    /// Makes an aggregate.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken, or a refusal.
    pub async fn aggregate_create(
        &self,
        ctx: &OpCtx,
        name: &str,
        zone: Option<&str>,
    ) -> Result<AggregateView, EngineError> {
        authorize(ctx, compute::AGGREGATE_WRITE, &Target::default())?;
        let now = Timestamp::now();
        let new = Aggregate {
            id: AggregateId::new(),
            number: 0,
            name: name.to_owned(),
            availability_zone: zone.map(str::to_owned),
            metadata: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        let made = tx.aggregate_insert(&new).await.map_err(|e| named(e, name))?;
        aggregate_audit(&tx, &made, &json!({ "name": name, "zone": zone })).await?;
        tx.commit().await?;
        Ok((made, Vec::new()))
    }

    /// Changes an aggregate's name or zone.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken or its nodes hold servers that would change their zone,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn aggregate_update(
        &self,
        ctx: &OpCtx,
        number: u64,
        name: Option<&str>,
        zone: Option<Option<&str>>,
    ) -> Result<AggregateView, EngineError> {
        let detail = json!({ "name": name, "zone": zone });
        self.aggregate_change(ctx, number, &detail, |aggregate| {
            if let Some(name) = name {
                aggregate.name = name.to_owned();
            }
            if let Some(zone) = zone {
                aggregate.availability_zone = zone.map(str::to_owned);
            }
        })
        .await
    }

    /// Sets pairs of an aggregate's metadata; `None` removes one. The key `availability_zone` is the zone.
    ///
    /// # Errors
    /// As [`Engine::aggregate_update`].
    pub async fn aggregate_metadata_set(
        &self,
        ctx: &OpCtx,
        number: u64,
        pairs: &[(String, Option<String>)],
    ) -> Result<AggregateView, EngineError> {
        let detail = json!({ "keys": pairs.iter().map(|(key, _)| key).collect::<Vec<_>>() });
        self.aggregate_change(ctx, number, &detail, |aggregate| {
            for (key, value) in pairs {
                match value {
                    _ if key == "availability_zone" => aggregate.availability_zone.clone_from(value),
                    Some(value) => drop(aggregate.metadata.insert(key.clone(), value.clone())),
                    None => drop(aggregate.metadata.remove(key)),
                }
            }
        })
        .await
    }

    async fn aggregate_change(
        &self,
        ctx: &OpCtx,
        number: u64,
        detail: &Value,
        change: impl Fn(&mut Aggregate) + Send + Sync,
    ) -> Result<AggregateView, EngineError> {
        authorize(ctx, compute::AGGREGATE_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let before = tx.aggregate_get(number).await?.ok_or_else(|| not_found(number))?;
        let mut after = before.clone();
        change(&mut after);
        after.updated_at = Timestamp::now();
        if !tx.aggregate_update(&after).await.map_err(|e| named(e, &after.name))? {
            return Err(not_found(number));
        }
        let nodes = tx.aggregate_nodes(&[after.id]).await?;
        if before.availability_zone != after.availability_zone {
            for (_, id, _) in &nodes {
                let Some(node) = tx.node_get(*id).await? else { continue };
                self.node_zone_derive(&tx, &node).await?;
            }
        }
        aggregate_audit(&tx, &after, detail).await?;
        tx.commit().await?;
        Ok((after, nodes.into_iter().map(|(_, _, name)| name).collect()))
    }

    /// Removes an aggregate without nodes.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] while it has nodes, [`EngineError::NotFound`], or a refusal.
    pub async fn aggregate_delete(&self, ctx: &OpCtx, number: u64) -> Result<(), EngineError> {
        authorize(ctx, compute::AGGREGATE_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let aggregate = tx.aggregate_get(number).await?.ok_or_else(|| not_found(number))?;
        if !tx.aggregate_nodes(&[aggregate.id]).await?.is_empty() {
            return Err(EngineError::invalid(format!(
                "Cannot remove aggregate {number}: remove its hosts from it first."
            )));
        }
        if !tx.aggregate_delete(aggregate.id).await? {
            return Err(not_found(number));
        }
        aggregate_audit(&tx, &aggregate, &json!({ "deleted": true })).await?;
        Ok(tx.commit().await?)
    }

    /// Puts a node into an aggregate, or takes it out.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if it is there already, is in another zone, or holds servers that would change theirs;
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn aggregate_node_set(
        &self,
        ctx: &OpCtx,
        number: u64,
        name: &str,
        add: bool,
    ) -> Result<AggregateView, EngineError> {
        authorize(ctx, compute::AGGREGATE_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let aggregate = tx.aggregate_get(number).await?.ok_or_else(|| not_found(number))?;
        let shown: String = name.chars().take(64).collect();
        let no_node = || EngineError::not_found("ComputeHostNotFound", "Compute host", &shown);
        let node = tx.node_by_name(name).await?.ok_or_else(no_node)?;
        if add {
            let other = tx
                .aggregate_zones_of(node.id)
                .await?
                .into_iter()
                .find(|(_, zone)| aggregate.availability_zone.as_ref().is_some_and(|own| own != zone));
            if let Some((_, zone)) = other {
                return Err(EngineError::conflict(format!(
                    "Cannot add host {shown} to aggregate {number}: it is in availability zone {zone}."
                )));
            }
            if !tx.aggregate_node_add(aggregate.id, node.id).await? {
                return Err(EngineError::conflict(format!("Aggregate {number} already has host {shown}.")));
            }
        } else if !tx.aggregate_node_remove(aggregate.id, node.id).await? {
            return Err(EngineError::not_found("AggregateHostNotFound", "Aggregate host", &shown));
        }
        if aggregate.availability_zone.is_some() {
            self.node_zone_derive(&tx, &node).await?;
        }
        aggregate_audit(&tx, &aggregate, &json!({ "node": node.name, "added": add })).await?;
        let nodes = tx.aggregate_nodes(&[aggregate.id]).await?;
        tx.commit().await?;
        Ok((aggregate, nodes.into_iter().map(|(_, _, name)| name).collect()))
    }

    /// Lets the nodes of an aggregate fetch images before servers need them. That they do so is not waited for.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for an image that cannot be booted, [`EngineError::NotFound`], or a refusal.
    pub async fn aggregate_images_cache(
        &self,
        ctx: &OpCtx,
        number: u64,
        images: &[ImageId],
    ) -> Result<(), EngineError> {
        authorize(ctx, compute::AGGREGATE_WRITE, &Target::default())?;
        for image in images {
            self.image_for_boot(ctx, *image).await?;
        }
        let tx = self.store().begin(ctx).await?;
        let aggregate = tx.aggregate_get(number).await?.ok_or_else(|| not_found(number))?;
        for (_, node, _) in tx.aggregate_nodes(&[aggregate.id]).await? {
            for image in images {
                tx.node_prefetch_insert(node, *image).await?;
            }
            tx.node_touch(node).await?;
        }
        aggregate_audit(&tx, &aggregate, &json!({ "images": images })).await?;
        self.commit(tx).await
    }

    /// Puts a node into the zone that its aggregates say, else into the cloud's own.
    pub(crate) async fn node_zone_derive(&self, tx: &Tx, node: &Node) -> Result<(), EngineError> {
        let zones = tx.aggregate_zones_of(node.id).await?;
        let cluster = tx.cluster_get(node.cluster_id).await?.map(|cluster| cluster.zone);
        let own = cluster.as_ref().unwrap_or(&self.config().default_zone);
        let wanted = zones.first().map_or(own, |(_, zone)| zone);
        if zones.iter().any(|(_, zone)| zone != wanted) {
            return Err(EngineError::conflict(format!("Host {} would be in two availability zones.", node.name)));
        }
        if *wanted == node.availability_zone {
            return Ok(());
        }
        if !tx.server_list_by_node(node.id).await?.is_empty() {
            return Err(EngineError::conflict(format!(
                "Host {} holds servers in availability zone {}: it cannot go to zone {wanted}.",
                node.name, node.availability_zone
            )));
        }
        Ok(tx.node_zone_set(node.id, wanted).await?)
    }
}

async fn aggregate_audit(tx: &Tx, aggregate: &Aggregate, detail: &Value) -> Result<(), EngineError> {
    tx.audit(AuditEntry {
        action: compute::AGGREGATE_WRITE,
        kind: "aggregate",
        id: aggregate.id.to_string(),
        project_id: None,
        detail,
    })
    .await?;
    Ok(())
}
