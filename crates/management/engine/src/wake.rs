//! Who waits for what: nodes for their spec, clients for a relay. In memory only; the database says what is true, a
//! wake-up only says when to look.

use arcus_types::NodeId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, watch};

/// Wake-ups of nodes that wait for a new spec.
#[derive(Default)]
pub struct Wakeups {
    nodes: Mutex<HashMap<NodeId, watch::Sender<u64>>>,
    maintenance: Notify,
}

impl Wakeups {
    /// Tells a node's waiting request to look at the database again.
    pub fn node(&self, id: NodeId) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = nodes.get(&id) {
            sender.send_modify(|n| *n += 1);
        }
    }

    /// Tells every node's waiting request to look again.
    pub fn all(&self) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in nodes.values() {
            sender.send_modify(|n| *n += 1);
        }
    }

    /// Tells who moves drains on that there is something to do.
    pub fn maintenance(&self) {
        self.maintenance.notify_one();
    }

    /// Waits until there may be something to do for drains.
    pub async fn maintenance_due(&self) {
        self.maintenance.notified().await;
    }

    /// What a request that waits for a node's spec listens to. Subscribe before reading the database.
    pub fn listen(&self, id: NodeId) -> watch::Receiver<u64> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(id).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}
