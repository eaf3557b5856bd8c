//! Servers whose node is lost start on another one by themselves, if another one can reach their disks.
//!
//! ```text
//!  node lost, not held, lease and margin over --> each server: stays, and why --> room changes --> looked at again
//!                                                       \--> evacuated, the most important first
//! ```
//! Nothing of this is kept but in the servers' rows: each is moved in one transaction, the same as an operator's evacuation,
//! so a process that dies goes on where it was. Never may a server be moved before its node's lease is over
//! (`NodeMemory::fenced`): until then its guest may live.

use super::EvacuateWish;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{Node, Server};
use arcus_types::agent::Power;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{NodeId, OpCtx, ServerId, Timestamp, VolumeId};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// A server with this among its metadata, or its flavor's extra specs, as `off` is not started elsewhere by itself.
const SWITCH: &str = "arcus:recovery";
/// Servers with a higher number here, in their metadata or their flavor's extra specs, start first; 0 is normal.
const PRIORITY: &str = "arcus:recovery_priority";
/// One turn moves at most so many servers, and takes about so long: nodes are to be looked at meanwhile.
const MOVES_MAX: usize = 50;
const TURN: Duration = Duration::from_secs(2);
/// Servers that stay are looked at again after so long even if no room has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is done about a server whose node is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It starts elsewhere, the highest number first.
    Starts(i64),
    /// It stays; why, if its owner has to be told.
    Stays(Option<String>),
}

/// What of a server says what is done about it.
struct Facts<'a> {
    /// Whether other nodes can reach its disks.
    shared: bool,
    /// Whether something else is being done to it.
    busy: bool,
    /// Whether it ran.
    ran: bool,
    metadata: &'a BTreeMap<String, String>,
    extra_specs: &'a BTreeMap<String, String>,
    /// The names of its volumes, all of its node.
    volumes: &'a [String],
}

impl<'a> Facts<'a> {
    fn of(server: &'a Server, volumes: &'a [String]) -> Self {
        Self {
            shared: server.details.disk_pool.is_some(),
            busy: server.task.is_some(),
            ran: server.state == ServerState::Active && server.power == Power::Running,
            metadata: &server.metadata,
            extra_specs: &server.flavor.extra_specs,
            volumes,
        }
    }
}

/// What is done about a server whose node is lost.
fn fate(facts: &Facts<'_>) -> Fate {
    let setting = |key: &str| facts.metadata.get(key).or_else(|| facts.extra_specs.get(key));
    let off = setting(SWITCH).is_some_and(|word| matches!(word.to_lowercase().as_str(), "off" | "false" | "no" | "0"));
    if !facts.shared || facts.busy || !facts.ran {
        Fate::Stays(None)
    } else if off {
        Fate::Stays(Some(format!("It is not started elsewhere by itself: {SWITCH} is off.")))
    } else if !facts.volumes.is_empty() {
        let names = facts.volumes.join(", ");
        Fate::Stays(Some(format!("It goes on when its node is back: its volumes are there ({names}).")))
    } else {
        Fate::Starts(setting(PRIORITY).and_then(|number| number.trim().parse().ok()).unwrap_or(0))
    }
}

impl Engine {
    /// Starts servers of lost nodes elsewhere, as far as they can be; how many. To be called after each look at the nodes,
    /// with the same moment. Does nothing while no node is lost.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn servers_recover(&self, now: Instant) -> Result<usize, EngineError> {
        let lost = |node: &Node| node.state.is_down() && node.facts.disk_pool.is_some();
        let nodes = self.fleet_pick(usize::MAX, |m| m.node.clone().filter(lost)).await?;
        if nodes.is_empty() || !self.config().recovery {
            self.node_memory().recoveries().clear();
            return Ok(0);
        }
        let room = self.recovery_room();
        let mut due = Vec::new();
        for node in nodes.iter().filter(|node| self.recovery_due(node, room, now)) {
            due.extend(self.fates(node.id).await?.into_iter().map(|(fate, server)| (fate, server, node)));
        }
        let mut starting = Vec::new();
        for (fate, server, node) in due {
            match fate {
                Fate::Starts(priority) => {
                    starting.push((std::cmp::Reverse(priority), server.created_at, server.id, node.id));
                }
                Fate::Stays(why) => self.recovery_told(server.id, node.id, why).await?,
            }
        }
        starting.sort_unstable();
        let (began, mut moved, all) = (Instant::now(), 0, starting.len());
        for (tried, (_, _, id, node)) in starting.into_iter().enumerate() {
            if moved == MOVES_MAX || began.elapsed() > TURN {
                tracing::info!(moved, waiting = all - tried, "servers of lost nodes are started elsewhere");
                return Ok(moved);
            }
            match self.server_recover(id, node).await {
                Ok(done) => moved += usize::from(done),
                Err(EngineError::Conflict { message, .. }) => {
                    let why = format!("It starts elsewhere as soon as a node has room. {message}");
                    self.recovery_told(id, node, Some(why)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        // Only room that changes can help those that are left.
        let mut memory = self.node_memory().recoveries();
        memory.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        let room = self.recovery_room();
        memory.extend(nodes.iter().filter(|n| self.recovery_open(n, now)).map(|node| (node.id, (room, now))));
        Ok(moved)
    }

    /// Whether a lost node's servers may be started elsewhere by themselves.
    fn recovery_open(&self, node: &Node, now: Instant) -> bool {
        !node.held && self.node_fenced(node, now)
    }

    fn recovery_due(&self, node: &Node, room: u64, now: Instant) -> bool {
        let memory = self.node_memory().recoveries();
        let settled = memory.get(&node.id).is_some_and(|(then, at)| *then == room && now < *at + LOOK_AGAIN);
        !settled && self.recovery_open(node, now)
    }

    /// Whether a node's lease is over for certain, and so are its guests with shared disks.
    pub(super) fn node_fenced(&self, node: &Node, now: Instant) -> bool {
        // Where replicas share a database, another one may have granted a lease up to the moment of the state's change.
        let shared = self.store().is_postgres();
        let elsewhere = !shared || node.state_at.plus_seconds(arcus_types::nodes::FENCE_S) <= Timestamp::now();
        node.state.is_down() && elsewhere && self.node_memory().fenced(node.id, now)
    }

    /// A number that changes with what nodes can take.
    fn recovery_room(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for room in self.fleet_known(usize::MAX, |m| {
            let node = m.node.as_ref().filter(|node| node.state.takes_servers() && node.facts.disk_pool.is_some())?;
            let caps = (node.vcpus_cap, node.memory_mib_cap, node.disk_gib_cap);
            let used = (node.vcpus_used, node.memory_mib_used, node.disk_gib_used);
            Some((node.id, node.enabled, node.facts.disk_pool, caps, used))
        }) {
            room.hash(&mut hash);
        }
        hash.finish()
    }

    async fn fates(&self, node: NodeId) -> Result<Vec<(Fate, Server)>, EngineError> {
        let mut shared = self.store().server_list_by_node(node).await?;
        shared.retain(|server| server.details.disk_pool.is_some());
        let names: HashMap<VolumeId, String> = self
            .store()
            .volume_list_by_node(node)
            .await?
            .into_iter()
            .map(|v| (v.id, v.name.unwrap_or_default()))
            .collect();
        let ids: Vec<ServerId> = shared.iter().map(|server| server.id).collect();
        let mut volumes: HashMap<ServerId, Vec<String>> = HashMap::new();
        for attachment in self.store().volume_attachments_by_servers(&ids).await? {
            let name = names.get(&attachment.volume_id).cloned().filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| attachment.volume_id.to_string());
            if let Some(server) = attachment.server_id {
                volumes.entry(server).or_default().push(name);
            }
        }
        let none = Vec::new();
        let fate = |server: Server| (fate(&Facts::of(&server, volumes.get(&server.id).unwrap_or(&none))), server);
        Ok(shared.into_iter().map(fate).collect())
    }

    /// Starts one server elsewhere; `false` if it is not as it was any more.
    async fn server_recover(&self, id: ServerId, node: NodeId) -> Result<bool, EngineError> {
        let ctx = OpCtx::system();
        retried!({
            self.fleet_refresh().await?;
            let tx = self.store().begin(&ctx).await?;
            // Holds the node's row, so that it does not come back in between.
            tx.node_touch(node).await?;
            let source = tx.node_get(node).await?.filter(|node| node.state.is_down() && !node.held);
            let server = tx.server_lock(id).await?.filter(|s| s.node_id == Some(node) && s.deleted_at.is_none());
            let (Some(source), Some(mut server)) = (source, server) else { return Ok(false) };
            let volumes = tx.volume_attachments_by_servers(&[id]).await?;
            if !volumes.is_empty() || !matches!(fate(&Facts::of(&server, &[])), Fate::Starts(_)) {
                return Ok(false);
            }
            let dest = self.evacuate_move(&tx, &mut server, &source, &EvacuateWish::default()).await?;
            let detail =
                json!({ "source": source.name, "destination": dest, "epoch": server.epoch, "by_itself": true });
            let event = Some("compute_rebuild_instance");
            self.server_record(&tx, &server, compute::SERVER_EVACUATE, "evacuate", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Rebuilding)).await?;
            tx.commit().await?;
            self.wake().all();
            tracing::warn!(server.id = %id, source = %source.name, destination = %dest, "a server of a lost node starts elsewhere");
            Ok(true)
        })
    }

    /// Keeps why a server stays where it is lost, for its owner.
    async fn recovery_told(&self, id: ServerId, node: NodeId, why: Option<String>) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(&OpCtx::system()).await?;
            let server = tx.server_lock(id).await?.filter(|s| s.node_id == Some(node) && s.deleted_at.is_none());
            let Some(mut server) = server.filter(|server| server.details.recovery != why) else { return Ok(()) };
            server.details.recovery.clone_from(&why);
            let detail = json!({ "stays": why });
            self.server_audit(&tx, &server, compute::SERVER_EVACUATE, &detail).await?;
            tx.server_update(&mut server).await?;
            Ok(tx.commit().await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn only_what_ran_on_shared_disks_starts_elsewhere_and_its_owner_has_the_last_word() {
        let none = BTreeMap::new();
        let volumes = ["data".to_owned()];
        let ran = || Facts { shared: true, busy: false, ran: true, metadata: &none, extra_specs: &none, volumes: &[] };
        assert_eq!(fate(&ran()), Fate::Starts(0));
        assert_eq!(fate(&Facts { shared: false, ..ran() }), Fate::Stays(None));
        assert_eq!(fate(&Facts { busy: true, ..ran() }), Fate::Stays(None));
        assert_eq!(fate(&Facts { ran: false, ..ran() }), Fate::Stays(None));
        let Fate::Stays(Some(why)) = fate(&Facts { volumes: &volumes, ..ran() }) else { panic!("its volume is lost") };
        assert!(why.contains("(data)"), "{why}");
        let (off, on) = (one(SWITCH, "Off"), one(SWITCH, "on"));
        assert!(matches!(fate(&Facts { extra_specs: &off, ..ran() }), Fate::Stays(Some(_))));
        assert_eq!(fate(&Facts { extra_specs: &off, metadata: &on, ..ran() }), Fate::Starts(0));
        let (first, last) = (one(PRIORITY, "7"), one(PRIORITY, "-1"));
        assert_eq!(fate(&Facts { extra_specs: &last, ..ran() }), Fate::Starts(-1));
        assert_eq!(fate(&Facts { extra_specs: &last, metadata: &first, ..ran() }), Fate::Starts(7));
        assert_eq!(fate(&Facts { metadata: &one(PRIORITY, "soon"), ..ran() }), Fate::Starts(0));
    }
}
