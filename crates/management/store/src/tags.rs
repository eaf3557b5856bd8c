//! Tags: short words that owners put on things. Each thing carries its own as a sorted JSON list.

use crate::sql::{Json, params};
use crate::{StoreError, Tx};
use arcus_types::Timestamp;
use uuid::Uuid;

/// What can be tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged {
    /// A network.
    Network,
    /// A subnet.
    Subnet,
    /// A subnet pool.
    SubnetPool,
    /// A port.
    Port,
    /// A router.
    Router,
    /// A floating IP.
    FloatingIp,
    /// A security group.
    SecurityGroup,
    /// A QoS policy.
    QosPolicy,
}

impl Tagged {
    const fn table(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Subnet => "subnets",
            Self::SubnetPool => "subnet_pools",
            Self::Port => "ports",
            Self::Router => "routers",
            Self::FloatingIp => "floating_ips",
            Self::SecurityGroup => "security_groups",
            Self::QosPolicy => "qos_policies",
        }
    }
}

impl Tx {
    /// The tags of a thing, and nobody else changes them until the end of the transaction; `None` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tags_lock(&self, kind: Tagged, id: Uuid) -> Result<Option<Vec<String>>, StoreError> {
        let sql = format!("UPDATE {} SET revision = revision WHERE id = $1 RETURNING tags", kind.table());
        self.one(sql, params![id]).await?.map(|r| r.json("tags")).transpose()
    }

    /// Records a thing's tags.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tags_set(&self, kind: Tagged, id: Uuid, tags: &[String]) -> Result<(), StoreError> {
        let sql =
            format!("UPDATE {} SET tags = $2, revision = revision + 1, updated_at = $3 WHERE id = $1", kind.table());
        self.exec(sql, params![id, Json(&tags), Timestamp::now()]).await?;
        Ok(())
    }
}
