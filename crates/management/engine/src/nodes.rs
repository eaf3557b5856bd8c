//! Nodes: joining, certificates, the spec that they wait for and the report that they send.

use crate::authority::NODE_CERTIFICATE_S;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, NodeNew, SEEN_BATCH};
use arcus_types::agent::{NodeFacts, NodeIdentity, NodeReport, NodeSpec, PROBE_BYTES_MAX, SPEC_POLL_S};
use arcus_types::nodes::{LEASE_MARGIN_MS, LEASE_MS, NodeState};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::{Actor, ClusterId, Name, NodeId, OpCtx, ServerId, Timestamp};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A join token is good for at most this long, in seconds: a week.
pub const JOIN_TOKEN_S_MAX: i64 = 7 * 24 * 3600;
/// At most so many machines may join with one token.
pub const JOIN_TOKEN_USES_MAX: u64 = 10_000;
/// A node of which nothing was heard for so long may be replaced by a machine of the same name, in seconds.
const NODE_SILENT_S: i64 = 60;
/// A process that did not look at its nodes for so long slept, or hung: who was silent meanwhile may have spoken.
const ASLEEP: Duration = Duration::from_secs(5);
/// So many servers that are gone have their shared disks removed at once.
const DISK_REMOVALS_MAX: u32 = 200;
/// Other replicas' changes are looked for this often where the database is shared.
const REPLICA_POLL: Duration = Duration::from_secs(1);

/// What nodes last said, so that a report which says the same again costs no write, and when.
#[derive(Default)]
pub struct NodeMemory {
    seen: Mutex<HashMap<NodeId, Seen>>,
    /// Of lost nodes: what room there was when nothing more could be done for their servers, and when that was.
    recoveries: Mutex<HashMap<NodeId, (u64, Instant)>>,
    /// Since when this process listens without having slept, and when it looked last.
    awake: Mutex<Option<(Instant, Instant)>>,
    /// When it was last written who is heard of.
    seen_written: Mutex<Option<Instant>>,
}

#[derive(Default, Clone)]
struct Seen {
    facts: Option<NodeFacts>,
    heard: Option<Instant>,
    /// The generation of the spec that it has acted on.
    generation: u64,
    /// When it was last given a lease by this process.
    leased: Option<Instant>,
    /// It is being declared lost, and gets no lease until it counts as back.
    barred: bool,
}

impl NodeMemory {
    fn seen(&self) -> MutexGuard<'_, HashMap<NodeId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn recoveries(&self) -> MutexGuard<'_, HashMap<NodeId, (u64, Instant)>> {
        self.recoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a node was last heard of by this process, and the generation that it has acted on.
    pub(crate) fn heard(&self, node: NodeId) -> Option<(Instant, u64)> {
        self.seen().get(&node).and_then(|seen| Some((seen.heard?, seen.generation)))
    }

    /// Lets a node have no lease from now on, if it was not heard of since `before`.
    pub(crate) fn bar(&self, node: NodeId, before: Instant) -> bool {
        let mut seen = self.seen();
        let entry = seen.entry(node).or_default();
        entry.barred = entry.heard.is_none_or(|at| at <= before);
        entry.barred
    }

    /// A node counts as back, or stays as it was: what it has acted on counts from its next report on.
    pub(crate) fn unbar(&self, node: NodeId) {
        if let Some(entry) = self.seen().get_mut(&node) {
            (entry.barred, entry.generation) = (false, 0);
        }
    }

    fn grant(&self, node: NodeId, state: NodeState, now: Instant) -> u64 {
        let mut seen = self.seen();
        let entry = seen.entry(node).or_default();
        entry.heard = entry.heard.max(Some(now));
        if state.is_down() || entry.barred {
            return 0;
        }
        entry.leased = entry.leased.max(Some(now));
        LEASE_MS
    }

    /// Whether no lease of a node that this process, or the one before it, has given can be good any more, with the margin
    /// within which the node obeys that.
    pub(crate) fn fenced(&self, node: NodeId, now: Instant) -> bool {
        let awake = *self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, _)) = awake else { return false };
        let leased = self.seen().get(&node).and_then(|seen| seen.leased).unwrap_or(since).max(since);
        now.saturating_duration_since(leased) >= Duration::from_millis(LEASE_MS + LEASE_MARGIN_MS)
    }

    /// Since when silence counts: not before this process began, nor while it slept.
    pub(crate) fn awake_since(&self, now: Instant) -> Instant {
        let mut awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *awake {
            Some((since, last)) if now.saturating_duration_since(last) < ASLEEP => since,
            Some(_) => {
                tracing::warn!("the server did not look at its nodes for a while: their silence counts from now on");
                now
            }
            None => now,
        };
        *awake = Some((since, now));
        since
    }
}

impl Engine {
    /// A new join token, good for `uses` machines and `lifetime_s` seconds; only its hash is kept.
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is an administrator, [`EngineError::Invalid`] beyond the limits.
    pub async fn join_token_create(&self, ctx: &OpCtx, uses: u64, lifetime_s: i64) -> Result<String, EngineError> {
        authorize(ctx, arcus::JOIN_TOKEN_CREATE, &Target::default())?;
        if !(1..=JOIN_TOKEN_USES_MAX).contains(&uses) {
            return Err(EngineError::invalid(format!("uses must be from 1 to {JOIN_TOKEN_USES_MAX}")));
        }
        if !(1..=JOIN_TOKEN_S_MAX).contains(&lifetime_s) {
            return Err(EngineError::invalid(format!("lifetime_s must be from 1 to {JOIN_TOKEN_S_MAX} seconds")));
        }
        let token = hex::encode(rand::random::<[u8; 24]>());
        let tx = self.store().begin(ctx).await?;
        tx.join_token_insert(&hash(&token), uses, Timestamp::now().plus_seconds(lifetime_s)).await?;
        tx.audit(AuditEntry {
            action: arcus::JOIN_TOKEN_CREATE,
            kind: "join_token",
            id: hash(&token)[..16].to_owned(),
            project_id: None,
            detail: &json!({ "uses": uses, "lifetime_s": lifetime_s }),
        })
        .await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Takes a machine into the cloud, and a new one into the cluster of this name. A machine that joins again under its name keeps
    /// its id and its cluster.
    ///
    /// # Errors
    /// [`EngineError::Denied`] for a token that is not good, [`EngineError::Invalid`] for a bad name or request.
    pub async fn node_join(
        &self,
        ctx: &OpCtx,
        token: &str,
        name: &str,
        csr_pem: &str,
        cluster: Option<&str>,
    ) -> Result<NodeIdentity, EngineError> {
        authorize(ctx, arcus::NODE_JOIN, &Target::default())?;
        let name: Name = name.parse()?;
        let tx = self.store().begin(ctx).await?;
        if !tx.join_token_use(&hash(token), Timestamp::now()).await? {
            return Err(EngineError::Denied(arcus_types::policy::Denied::Forbidden(arcus::NODE_JOIN.name)));
        }
        let node_id = match tx.node_by_name(name.as_str()).await? {
            Some(node) if node.seen_at.plus_seconds(NODE_SILENT_S) > Timestamp::now() => {
                return Err(EngineError::conflict(format!(
                    "a node called {name} is connected: give this machine another name with --node, or stop the other"
                )));
            }
            Some(node) => node.id,
            None => {
                let cluster = self.cluster_to_join(&tx, cluster).await?;
                let new = NodeNew { id: NodeId::new(), name, availability_zone: cluster.zone };
                tx.node_insert(&new).await?;
                if cluster.id != ClusterId::DEFAULT {
                    tx.node_cluster_set(new.id, cluster.id).await?;
                }
                new.id
            }
        };
        let identity = self.node_identity(csr_pem, node_id)?;
        tx.audit(AuditEntry {
            action: arcus::NODE_JOIN,
            kind: "node",
            id: node_id.to_string(),
            project_id: None,
            detail: &json!({}),
        })
        .await?;
        tx.commit().await?;
        tracing::info!(node.id = %node_id, "a node joined");
        Ok(identity)
    }

    /// A fresh certificate for a node that has one.
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is a node that is still known.
    pub async fn node_renew(&self, ctx: &OpCtx, csr_pem: &str) -> Result<NodeIdentity, EngineError> {
        authorize(ctx, arcus::NODE_RENEW, &Target::default())?;
        let node_id = node_of(ctx)?;
        self.node_known(node_id).await?;
        self.node_identity(csr_pem, node_id)
    }

    fn node_identity(&self, csr_pem: &str, node_id: NodeId) -> Result<NodeIdentity, EngineError> {
        let authority = self.authority()?;
        let certificate_pem = authority
            .issue_node(csr_pem, node_id)
            .map_err(|_| EngineError::invalid("csr_pem is not a valid certificate request in PEM"))?;
        Ok(NodeIdentity {
            node_id,
            certificate_pem,
            ca_pem: authority.ca_pem().to_owned(),
            renew_after_s: NODE_CERTIFICATE_S / 2,
        })
    }

    async fn node_known(&self, id: NodeId) -> Result<u64, EngineError> {
        let generation = self.store().node_spec_generation(id).await?;
        generation.ok_or_else(|| EngineError::not_found("NodeNotFound", "Node", id))
    }

    /// What a node must bring about, once it is newer than `after` or a client waits for a byte stream; `None` when
    /// nothing changed for [`SPEC_POLL_S`]. Relays in `known_relays` have been acted on already.
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is a node.
    pub async fn node_spec(
        &self,
        ctx: &OpCtx,
        after: u64,
        known_relays: &HashSet<arcus_types::RelayId>,
    ) -> Result<Option<NodeSpec>, EngineError> {
        authorize(ctx, arcus::NODE_SPEC, &Target::default())?;
        let node_id = node_of(ctx)?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(SPEC_POLL_S);
        let mut woken = self.wake().listen(node_id);
        loop {
            woken.mark_unchanged();
            let generation = self.node_known(node_id).await?;
            let relays = self.relays().of_node(node_id);
            if generation > after || relays.iter().any(|r| !known_relays.contains(&r.id)) {
                let (networks, routers, security_groups) = self.network_specs(node_id).await?;
                let disk_removals = self.store().server_disk_removals(node_id, DISK_REMOVALS_MAX).await?;
                let (servers, mut snapshots) = self.server_specs(node_id).await?;
                let (volumes, uploads) = self.volume_specs(node_id).await?;
                snapshots.extend(uploads);
                let prefetch = self.store().node_prefetch_list(node_id, prefetch_since()).await?;
                return Ok(Some(NodeSpec {
                    generation,
                    networks,
                    routers,
                    security_groups,
                    servers,
                    volumes,
                    snapshots,
                    prefetch,
                    disk_removals,
                    relays,
                }));
            }
            let look_again = if self.store().is_postgres() {
                deadline.min(tokio::time::Instant::now() + REPLICA_POLL)
            } else {
                deadline
            };
            let woke = tokio::time::timeout_at(look_again, woken.changed()).await;
            if woke.is_err() && tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Shared disks are gone of servers that were: the node need not be told any more.
    async fn disks_removed(&self, node: NodeId, servers: &[ServerId]) -> Result<(), EngineError> {
        if servers.is_empty() {
            return Ok(());
        }
        let tx = self.store().begin_unaudited().await?;
        let mut changed = false;
        for server in servers {
            changed |= tx.server_disks_removed(node, *server).await?;
        }
        if changed {
            tx.node_touch(node).await?;
            tx.commit().await?;
            self.wake().node(node);
        }
        Ok(())
    }

    /// Takes in what a node has observed. A report that says nothing new writes nothing: that the node was heard of is kept in
    /// memory, and written by [`Self::nodes_seen_write`].
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is a node.
    pub async fn node_report(&self, ctx: &OpCtx, report: &NodeReport) -> Result<(), EngineError> {
        authorize(ctx, arcus::NODE_REPORT, &Target::default())?;
        let node_id = node_of(ctx)?;
        self.node_heard(node_id, report).await?;
        self.ports_observed(node_id, &report.ports_up).await?;
        self.live_migrations_observed(node_id, report).await?;
        self.servers_observed(node_id, report).await?;
        self.disks_removed(node_id, &report.disks_removed).await?;
        self.volumes_observed(node_id, report).await?;
        self.passwords_left(ctx, node_id, &report.passwords_left).await?;
        for fault in &report.network_faults {
            tracing::warn!(node.id = %node_id, fault, "a node could not bring about part of its network");
        }
        Ok(())
    }

    /// Grants a node its next lease; for how many milliseconds from when it asked, 0 if it is held to be lost or dead.
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is a node that is still known.
    pub async fn node_lease(&self, ctx: &OpCtx, now: Instant) -> Result<u64, EngineError> {
        authorize(ctx, arcus::NODE_LEASE, &Target::default())?;
        let id = node_of(ctx)?;
        // From the database, for another replica may have given the node up.
        let state = self.store().node_state(id).await?;
        let state = state.ok_or_else(|| EngineError::not_found("NodeNotFound", "Node", id))?;
        Ok(self.node_memory().grant(id, state, now))
    }

    /// How many bytes a node gets to measure its way here by.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for too many, or a refusal.
    pub fn node_probe(&self, ctx: &OpCtx, bytes: u64) -> Result<u64, EngineError> {
        authorize(ctx, arcus::NODE_PROBE, &Target::default())?;
        node_of(ctx)?;
        if bytes > PROBE_BYTES_MAX {
            return Err(EngineError::invalid(format!("A probe has at most {PROBE_BYTES_MAX} bytes.")));
        }
        Ok(bytes)
    }

    async fn node_heard(&self, node_id: NodeId, report: &NodeReport) -> Result<(), EngineError> {
        let facts = &report.facts;
        self.store().presence().heard(node_id, Timestamp::now());
        let changed = {
            let mut seen = self.node_memory().seen();
            let entry = seen.entry(node_id).or_default();
            entry.heard = entry.heard.max(Some(Instant::now()));
            entry.generation = report.spec_generation;
            let changed = entry.facts.as_ref() != Some(facts);
            if changed {
                entry.facts = Some(facts.clone());
            }
            changed
        };
        if !changed {
            return Ok(());
        }
        let tx = self.store().begin_unaudited().await?;
        tx.node_facts_set(node_id, facts).await?;
        tx.node_prefetches_done(node_id, &facts.cached_images, prefetch_since()).await?;
        Ok(tx.commit().await?)
    }

    /// Writes of all nodes when they were heard of, three times within the time after which a silent node counts as down, so
    /// that a process which starts later and replicas know; how many were written. To be called every second or so.
    ///
    /// No lease depends on it: who starts counts silence from then on.
    ///
    /// # Errors
    /// [`EngineError::Store`]; what was not written is when this is called next.
    pub async fn nodes_seen_write(&self, now: Instant) -> Result<usize, EngineError> {
        let every = Duration::from_secs(self.config().node_down_after_s / 3);
        {
            let mut written = self.node_memory().seen_written.lock().unwrap_or_else(PoisonError::into_inner);
            if written.is_some_and(|at| now.saturating_duration_since(at) < every) {
                return Ok(0);
            }
            *written = Some(now);
        }
        let seen: Vec<(NodeId, Timestamp)> = self.store().presence().take_unwritten().into_iter().collect();
        for (at, batch) in seen.chunks(SEEN_BATCH).enumerate() {
            if let Err(error) = self.seen_batch_write(batch).await {
                self.store().presence().put_back(seen.get(at * SEEN_BATCH..).unwrap_or_default());
                *self.node_memory().seen_written.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Err(error);
            }
        }
        Ok(seen.len())
    }

    async fn seen_batch_write(&self, batch: &[(NodeId, Timestamp)]) -> Result<(), EngineError> {
        let tx = self.store().begin_unaudited().await?;
        tx.nodes_seen(batch).await?;
        Ok(tx.commit().await?)
    }
}

/// How long a node may take to fetch an image that it was told to have, in seconds; then nobody waits for it any more.
const PREFETCH_S_MAX: i64 = 3_600;

fn prefetch_since() -> Timestamp {
    Timestamp::now().plus_seconds(-PREFETCH_S_MAX)
}

/// The node that calls.
pub(crate) fn node_of(ctx: &OpCtx) -> Result<NodeId, EngineError> {
    match ctx.actor {
        Actor::Node { node_id } => Ok(node_id),
        Actor::Anonymous | Actor::User { .. } | Actor::System => {
            Err(EngineError::Denied(arcus_types::policy::Denied::Forbidden(arcus::NODE_REPORT.name)))
        }
    }
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}
