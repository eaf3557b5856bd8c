//! Port forwardings: ports of a floating IP that lead to ports of a guest.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{FloatingIpId, NetworkId, PortForwardingId, PortId, RouterId, Timestamp};
use std::net::IpAddr;

/// Ports of a floating IP that lead to ports of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForwarding {
    /// Its id.
    pub id: PortForwardingId,
    /// The floating IP.
    pub floating_ip_id: FloatingIpId,
    /// The port that it leads to.
    pub port_id: PortId,
    /// Which of that port's addresses.
    pub address: IpAddr,
    /// `tcp`, `udp`, `dccp` or `sctp`.
    pub protocol: String,
    /// The first and the last of the guest's ports.
    pub internal_ports: (u16, u16),
    /// The first and the last external port.
    pub external_ports: (u16, u16),
    /// Free text.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a list of port forwardings can be filtered and sorted by.
pub const PORT_FORWARDING_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::id("internal_port_id", "port_id"),
    Field::text("internal_ip_address", "address"),
    Field::text("protocol", "protocol"),
    Field::number("internal_port", "internal_min"),
    Field::number("external_port", "external_min"),
    Field::text("description", "description"),
];

const FORWARDINGS: ListOf = ListOf {
    table: "port_forwardings",
    columns: "id, floating_ip_id, port_id, address, protocol, internal_min, internal_max, external_min, external_max, \
              description, created_at",
    visible: "floating_ip_id IN (SELECT id FROM floating_ips WHERE project_id = ?)",
};

fn forwarding(row: &Row) -> Result<PortForwarding, StoreError> {
    Ok(PortForwarding {
        id: row.get("id")?,
        floating_ip_id: row.get("floating_ip_id")?,
        port_id: row.get("port_id")?,
        address: row.get("address")?,
        protocol: row.get("protocol")?,
        internal_ports: (row.get("internal_min")?, row.get("internal_max")?),
        external_ports: (row.get("external_min")?, row.get("external_max")?),
        description: row.get("description")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The forwardings of these floating IPs.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwardings_by_floating_ips(
        &self,
        ids: &[FloatingIpId],
    ) -> Result<Vec<PortForwarding>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("floating_ip_id", ids.to_vec());
        let sql = format!("SELECT {} FROM port_forwardings{} ORDER BY id", FORWARDINGS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(forwarding).collect()
    }

    /// The forwardings that lead to a port.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwardings_by_port(&self, id: PortId) -> Result<Vec<PortForwarding>, StoreError> {
        let sql = format!("SELECT {} FROM port_forwardings WHERE port_id = $1 ORDER BY id", FORWARDINGS.columns);
        self.all(sql, params![id]).await?.iter().map(forwarding).collect()
    }

    /// The forwardings of the floating IPs that these routers translate, each with its router and external address.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwardings_by_routers(
        &self,
        routers: &[RouterId],
    ) -> Result<Vec<(RouterId, IpAddr, PortForwarding)>, StoreError> {
        if routers.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("i.router_id", routers.to_vec());
        let sql = format!(
            "SELECT i.router_id, i.address AS external, f.id, f.floating_ip_id, f.port_id, f.address, f.protocol,
             f.internal_min, f.internal_max, f.external_min, f.external_max, f.description, f.created_at
             FROM floating_ips i JOIN port_forwardings f ON f.floating_ip_id = i.id{} ORDER BY f.id",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("router_id")?, r.get("external")?, forwarding(r)?))).collect()
    }

    /// A page of a floating IP's forwardings.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwarding_list(
        &self,
        floating_ip: FloatingIpId,
        listing: &Listing,
    ) -> Result<Page<PortForwarding>, StoreError> {
        let only = |filter: &mut Where| {
            filter.and("floating_ip_id = ?", params![floating_ip]);
        };
        self.page(&FORWARDINGS, listing, only, forwarding).await
    }

    /// The networks of the ports that a floating IP's forwardings lead to.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwarding_networks(&self, id: FloatingIpId) -> Result<Vec<NetworkId>, StoreError> {
        let sql = "SELECT DISTINCT p.network_id FROM port_forwardings f JOIN ports p ON p.id = f.port_id
             WHERE f.floating_ip_id = $1";
        self.all(sql, params![id]).await?.iter().map(|r| r.get("network_id")).collect()
    }
}

impl Tx {
    /// Records a forwarding.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the floating IP or port is gone.
    pub async fn port_forwarding_insert(&self, new: &PortForwarding) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO port_forwardings (id, floating_ip_id, port_id, address, protocol, internal_min, internal_max,
             external_min, external_max, description, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                new.id,
                new.floating_ip_id,
                new.port_id,
                new.address,
                &new.protocol,
                new.internal_ports.0,
                new.internal_ports.1,
                new.external_ports.0,
                new.external_ports.1,
                &new.description,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Removes a forwarding; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_forwarding_delete(&self, id: PortForwardingId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM port_forwardings WHERE id = $1", params![id]).await? == 1)
    }
}
