//! What keeps a server from moving while it runs: all of it, by name.

use super::{LiveMigrationWish, refused};
use crate::{Engine, EngineError};
use arcus_store::{Node, Server, Tx};
use arcus_types::Timestamp;

/// Something that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// What it is called; stays the same from release to release.
    pub name: &'static str,
    /// What is in the way and what to do.
    pub message: String,
    /// What the compute API calls it.
    pub(super) code: &'static str,
}

impl Blocker {
    fn new(name: &'static str, message: String) -> Self {
        Self { name, message, code: "MigrationPreCheckError" }
    }

    pub(super) fn error(self) -> EngineError {
        EngineError::Invalid { code: self.code, message: self.message }
    }
}

impl Engine {
    /// The node that the server leaves, if nothing of the server's own keeps it there.
    pub(in crate::servers) async fn live_source(
        &self,
        tx: &Tx,
        server: &Server,
        wish: &LiveMigrationWish,
    ) -> Result<Node, EngineError> {
        let (source, blockers) = self.live_blockers(tx, server, wish).await?;
        match blockers.into_iter().next() {
            Some(first) => Err(first.error()),
            None => source.ok_or_else(|| refused(format!("Instance {} is on no node.", server.id))),
        }
    }

    /// The node that the server is on, and all that keeps it there whatever node it would go to.
    pub(super) async fn live_blockers(
        &self,
        tx: &Tx,
        server: &Server,
        wish: &LiveMigrationWish,
    ) -> Result<(Option<Node>, Vec<Blocker>), EngineError> {
        let id = server.id;
        let source = match server.node_id {
            Some(node) => tx.node_get(node).await?,
            None => None,
        };
        let Some(source) = source else {
            return Ok((None, vec![Blocker::new("no_node", format!("Instance {id} is on no node."))]));
        };
        let mut all = Vec::new();
        if !self.node_alive(&source, Timestamp::now()) {
            all.push(Blocker {
                name: "source_down",
                message: format!("Compute service of {} is unavailable at this time.", source.name),
                code: "ComputeServiceUnavailable",
            });
        }
        if wish.block == Some(false) {
            all.push(Blocker::new(
                "not_shared",
                format!(
                    "{} is not on shared storage: Live migration can not be used without shared storage except a \
                     block_migration of 'auto' or true.",
                    source.name
                ),
            ));
        }
        if server.details.disk_pool.is_some() {
            all.push(Blocker::new(
                "shared_disks",
                format!(
                    "Instance {id} has its disks in a folder that nodes share: moving between two of them while it runs is \
                     not done yet."
                ),
            ));
        }
        if !tx.volume_attachments_by_servers(&[id]).await?.is_empty() {
            all.push(Blocker::new(
                "volumes",
                format!("Instance {id} has volumes, and they lie on {}: detach them first.", source.name),
            ));
        }
        if source.facts.underlay.is_none() {
            all.push(Blocker::new(
                "no_underlay",
                format!(
                    "{} has no address on the network that joins the nodes: start its agent with --underlay.",
                    source.name
                ),
            ));
        }
        if let Some(node) = &wish.node {
            if *node == source.name.as_str() {
                all.push(Blocker {
                    name: "same_node",
                    message: format!("Unable to migrate instance ({id}) to current host ({node})."),
                    code: "UnableToMigrateToSelf",
                });
            } else if tx.node_by_name(node).await?.is_none() {
                all.push(Blocker {
                    name: "unknown_node",
                    message: format!("Compute host {node} could not be found."),
                    code: "ComputeHostNotFound",
                });
            }
        }
        Ok((Some(source), all))
    }
}
