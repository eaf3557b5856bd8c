//! How servers are on their networks, as lists of servers tell it: two statements for any number of servers.

use crate::sql::{Row, Where};
use crate::{Db, StoreError};
use arcus_types::{MacAddr, PortId, ServerId};
use std::net::IpAddr;

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The server.
    pub server_id: ServerId,
    /// The port that has it.
    pub port_id: PortId,
    /// The Ethernet address of that port.
    pub mac: MacAddr,
    /// The name of the port's network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// Whether it is an external address that leads to the port.
    pub floating: bool,
}

fn address(row: &Row) -> Result<ServerAddress, StoreError> {
    let floating: i32 = row.get("floating")?;
    Ok(ServerAddress {
        server_id: row.get("server_id")?,
        port_id: row.get("port_id")?,
        mac: row.get("mac")?,
        network: row.get("network")?,
        address: row.get("address")?,
        floating: floating != 0,
    })
}

impl Db {
    /// The addresses of these servers: of each port its own, in its order, before those that lead to it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_addresses(&self, servers: &[ServerId]) -> Result<Vec<ServerAddress>, StoreError> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("p.server_id", servers.to_vec());
        let of = filter.sql();
        let sql = format!(
            "SELECT p.server_id, p.id AS port_id, p.mac, n.name AS network, a.address, 0 AS floating, a.ordinal, a.position
             FROM ports p JOIN networks n ON n.id = p.network_id JOIN addresses a ON a.port_id = p.id{of}
             UNION ALL
             SELECT p.server_id, p.id, p.mac, n.name, f.address, 1, 0, 0
             FROM ports p JOIN networks n ON n.id = p.network_id JOIN floating_ips f ON f.port_id = p.id{of}
             ORDER BY floating, ordinal, position, address"
        );
        self.all(sql, filter.params).await?.iter().map(address).collect()
    }

    /// The names of the security groups of these servers' ports, by port.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_security_groups(
        &self,
        servers: &[ServerId],
    ) -> Result<Vec<(ServerId, PortId, String)>, StoreError> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("p.server_id", servers.to_vec());
        let sql = format!(
            "SELECT p.server_id, p.id AS port_id, g.name FROM ports p
             JOIN port_security_groups m ON m.port_id = p.id JOIN security_groups g ON g.id = m.security_group_id{}
             ORDER BY g.id",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("server_id")?, r.get("port_id")?, r.get("name")?))).collect()
    }
}
