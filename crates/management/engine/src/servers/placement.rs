//! Why a server is where it is, why it is not elsewhere, and where one could go: for who asks. Nothing is claimed here.

use super::create::{disk_gib, group_rule, needs_of, server_flavor};
use super::live::unlike;
use super::local_disks;
use crate::{Engine, EngineError};
use arcus_placement::{Decision, Needs, Verdict, image_mark};
use arcus_store::{Flavor, FlavorFilter, Node, PlacementDecision, Server};
use arcus_types::flavors::FlavorId;
use arcus_types::placement::{DecisionRecord, NodeLooked};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::{ImageId, OpCtx, ServerGroupId, ServerId};
use std::collections::BTreeMap;

/// Flavors that are looked through for a name at a time.
const FLAVORS_PAGE: u64 = 200;

/// Why a server is where it is.
#[derive(Debug, Clone)]
pub struct PlacementView {
    /// The server.
    pub server: Server,
    /// The name of its node.
    pub node: Option<String>,
    /// The last decisions about it, the newest first.
    pub decisions: Vec<PlacementDecision>,
}

/// Why a server is not on a node.
#[derive(Debug, Clone)]
pub struct NodeAnswer {
    /// Whether it is there.
    pub here: bool,
    /// What is decided about the node now.
    pub now: Verdict,
    /// What was decided when the server was last placed, if that is kept: it is of a few nodes.
    pub recorded: Option<NodeLooked>,
    /// Why the server could not go there while it runs, if so.
    pub live_blocker: Option<String>,
}

/// A server that somebody only thinks of.
#[derive(Debug, Clone, Default)]
pub struct ExplainWish {
    /// Id or name of its flavor.
    pub flavor: Option<String>,
    /// Virtual CPUs, instead of the flavor's.
    pub vcpus: Option<u64>,
    /// Memory in MiB, instead of the flavor's.
    pub memory_mib: Option<u64>,
    /// Disk in GiB, instead of the flavor's.
    pub disk_gib: Option<u64>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its group.
    pub group_id: Option<ServerGroupId>,
    /// Its image.
    pub image_id: Option<ImageId>,
    /// Its node, by name; only administrators may ask for one.
    pub node: Option<String>,
}

/// Where such a server could go.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What was asked, and the counts.
    pub record: DecisionRecord,
    /// The nodes, for administrators.
    pub decision: Decision,
}

impl Engine {
    /// Why a server is where it is.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], also for another project's server, or a refusal.
    pub async fn placement_get(&self, ctx: &OpCtx, id: ServerId) -> Result<PlacementView, EngineError> {
        let server = self.server_seen(self.store(), ctx, arcus::PLACEMENT_READ, id, true).await?;
        let decisions = self.store().placement_decision_list(id).await?;
        self.fleet_refresh().await?;
        let node = self.fleet_known(1, |m| m.node.as_ref().filter(|n| Some(n.id) == server.node_id).cloned()).pop();
        Ok(PlacementView { server, node: node.map(|n| n.name.to_string()), decisions })
    }

    /// Why a server is not on a node, judged as things are now: for administrators.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the server or the node, or a refusal.
    pub async fn placement_on(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        name: &str,
    ) -> Result<(PlacementView, NodeAnswer), EngineError> {
        let view = self.placement_get(ctx, id).await?;
        authorize(ctx, arcus::PLACEMENT_READ_NODE, &Target::default())?;
        let server = &view.server;
        let group = self.group_of(self.store(), server).await?;
        let around = self.around_without(self.store(), server, group.as_ref()).await?;
        let hints = &server.details.scheduler_hints;
        let needs = self.hinted(self.store(), needs_of(server, None), server.project_id, hints).await?;
        let needs = Needs { group: group_rule(group.as_ref(), &around), ..needs };
        let now = self.fleet_judge(&needs, &around, name);
        let mut now = now.ok_or_else(|| EngineError::not_found("NodeNotFound", "Node", name))?;
        let known = |wanted: &dyn Fn(&Node) -> bool| {
            self.fleet_known(1, |m| m.node.as_ref().filter(|n| wanted(n)).cloned()).pop()
        };
        let here = Some(now.node_id) == server.node_id;
        if here {
            // Its own room is claimed there: that it would not fit a second time is beside the point.
            now.refusals.clear();
        }
        let (source, dest) = (known(&|n| Some(n.id) == server.node_id), known(&|n| n.id == now.node_id));
        let live_blocker = source.zip(dest).filter(|_| !here).and_then(|(source, dest)| unlike(&source, &dest));
        let recorded = view.decisions.first().and_then(|d| d.record.looked_at.iter().find(|n| n.node == name).cloned());
        Ok((view, NodeAnswer { here, now, recorded, live_blocker }))
    }

    /// Where a server could go, and why not elsewhere. Nothing is claimed.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for what is not there or if nothing is asked for, or a refusal.
    pub async fn placement_explain(&self, ctx: &OpCtx, wish: &ExplainWish) -> Result<Explained, EngineError> {
        authorize(ctx, arcus::PLACEMENT_EXPLAIN, &Target::own(ctx))?;
        if ctx.project_id().is_none() {
            return Err(EngineError::Forbidden("Servers are placed for a project: use a project's token.".into()));
        }
        if wish.node.is_some() {
            authorize(ctx, arcus::PLACEMENT_READ_NODE, &Target::default())?;
        }
        let flavor = match &wish.flavor {
            Some(name) => Some(server_flavor(self.flavor_named(ctx, name).await?)),
            None if wish.vcpus.or(wish.memory_mib).or(wish.disk_gib).is_some() => None,
            None => {
                return Err(EngineError::invalid(
                    "Say what is to be placed: a flavor, or vcpus, memory_mib, disk_gib.",
                ));
            }
        };
        let image = match wish.image_id {
            Some(id) => Some(self.image_for_boot(ctx, id).await?),
            None => None,
        };
        let group = match wish.group_id {
            Some(id) => Some(self.server_group_for_boot(ctx, id).await?),
            None => None,
        };
        let disk = match (&image, &flavor) {
            (Some(image), Some(flavor)) => disk_gib(image, flavor),
            (None, Some(flavor)) => flavor.disk_gib,
            (_, None) => 0,
        };
        let local = match &flavor {
            Some(flavor) => local_disks::gib(&local_disks::local_disks(flavor, &[], &BTreeMap::new())?),
            None => 0,
        };
        let around = self.around(self.store(), group.as_ref()).await?;
        let needs = Needs {
            vcpus: wish.vcpus.unwrap_or(flavor.as_ref().map_or(0, |f| u64::from(f.vcpus))),
            memory_mib: wish.memory_mib.unwrap_or(flavor.as_ref().map_or(0, |f| f.memory_mib)),
            disk_gib: wish.disk_gib.unwrap_or(disk + local),
            zone: wish.zone.clone(),
            node: wish.node.clone(),
            group: group_rule(group.as_ref(), &around),
            image: image.as_ref().and_then(|i| i.content.as_ref()).and_then(|content| image_mark(&content.sha256)),
            ..Needs::default()
        };
        self.fleet_refresh().await?;
        let decision = self.fleet_decide(&needs, &around);
        Ok(Explained {
            record: decision.record(&needs, decision.ranked.first().map(|r| r.candidate.node_id)),
            decision,
        })
    }

    /// The flavor with this id or name.
    async fn flavor_named(&self, ctx: &OpCtx, name: &str) -> Result<Flavor, EngineError> {
        if let Ok(id) = name.parse::<FlavorId>() {
            match self.flavor_get(ctx, &id).await {
                Err(EngineError::NotFound { .. }) => {}
                other => return other,
            }
        }
        let mut filter = FlavorFilter { limit: FLAVORS_PAGE, ..FlavorFilter::default() };
        loop {
            let (flavors, more) = self.flavor_list(ctx, filter.clone()).await?;
            filter.marker = flavors.last().map(|flavor| flavor.id.clone());
            if let Some(found) = flavors.into_iter().find(|flavor| flavor.name == name) {
                return Ok(found);
            }
            if !more {
                return Err(EngineError::invalid(format!("Flavor {name} could not be found.")));
            }
        }
    }
}
