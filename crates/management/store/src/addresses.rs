//! Addresses and segment numbers: a row with a unique key is the claim, so two callers never hold the same one.
//!
//! The next free address is found without reading all that are taken: each subnet remembers the position drawn last, and
//! the draw goes on behind it. Only where that one is taken, or the range has ended, one query looks for the next gap.

use crate::sql::{Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{NetworkId, PortId, SubnetId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The largest segment number: VXLAN has 24 bits.
pub const SEGMENT_MAX: u32 = (1 << 24) - 1;

/// An address as a number that sorts as addresses do: its last 64 bits, moved into the signed range.
pub fn position(address: IpAddr) -> i64 {
    let low = match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() & u128::from(u64::MAX)).unwrap_or_default(),
    };
    (low ^ (1 << 63)).cast_signed()
}

/// The address at a position in the range that `base` is in: the other way round.
pub fn at_position(base: IpAddr, position: i64) -> IpAddr {
    let low = position.cast_unsigned() ^ (1 << 63);
    match base {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(low).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(v6) => {
            let high = v6.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(high | u128::from(low)).into()
        }
    }
}

/// A stretch of addresses that may be drawn, both ends included. Within one 64-bit prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

impl Tx {
    /// Claims this address for a port; `false` if another port has it, and then nothing is claimed.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the subnet or port is gone.
    pub async fn address_claim(
        &self,
        subnet: SubnetId,
        address: IpAddr,
        port: PortId,
        ordinal: u64,
    ) -> Result<bool, StoreError> {
        let claimed = self
            .exec(
                "INSERT INTO addresses (subnet_id, address, position, port_id, ordinal) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (subnet_id, address) DO NOTHING",
                params![subnet, address, position(address), port, ordinal],
            )
            .await?;
        Ok(claimed == 1)
    }

    /// Claims the next free address of a subnet's stretches for a port; `None` if all are taken.
    ///
    /// Two statements while the draw goes on behind the last one; four to six where it has to look for a gap.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the port is gone.
    pub async fn address_claim_next(
        &self,
        subnet: SubnetId,
        stretches: &[Stretch],
        port: PortId,
        ordinal: u64,
    ) -> Result<Option<IpAddr>, StoreError> {
        // Also locks the subnet's row, so that only one transaction draws from it at a time.
        let row =
            self.one("UPDATE subnets SET cursor = cursor + 1 WHERE id = $1 RETURNING cursor", params![subnet]).await?;
        let Some(row) = row else { return Ok(None) };
        let next: i64 = row.get("cursor")?;
        let inside = |s: &&Stretch| position(s.first) <= next && next <= position(s.last);
        if let Some(stretch) = stretches.iter().find(inside) {
            let address = at_position(stretch.first, next);
            if self.address_claim(subnet, address, port, ordinal).await? {
                return Ok(Some(address));
            }
        }
        // First what lies behind the cursor, then all from the beginning.
        for from in [next, i64::MIN] {
            for stretch in stretches {
                let (first, last) = (position(stretch.first).max(from), position(stretch.last));
                let Some(free) = self.gap(subnet, first, last).await? else { continue };
                let address = at_position(stretch.first, free);
                self.exec("UPDATE subnets SET cursor = $2 WHERE id = $1", params![subnet, free]).await?;
                if self.address_claim(subnet, address, port, ordinal).await? {
                    return Ok(Some(address));
                }
            }
        }
        Ok(None)
    }

    /// The first free position between these two, both included.
    async fn gap(&self, subnet: SubnetId, first: i64, last: i64) -> Result<Option<i64>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let taken = self
            .one("SELECT 1 AS taken FROM addresses WHERE subnet_id = $1 AND position = $2", params![subnet, first])
            .await?;
        if taken.is_none() {
            return Ok(Some(first));
        }
        let row = self
            .one(
                "SELECT a.position + 1 AS free FROM addresses a
                 WHERE a.subnet_id = $1 AND a.position >= $2 AND a.position < $3
                 AND NOT EXISTS (SELECT 1 FROM addresses b WHERE b.subnet_id = $1 AND b.position = a.position + 1)
                 ORDER BY a.position LIMIT 1",
                params![subnet, first, last],
            )
            .await?;
        row.map(|r| r.get("free")).transpose()
    }

    /// Gives back one address of a port.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_release(&self, port: PortId, subnet: SubnetId, address: IpAddr) -> Result<(), StoreError> {
        self.exec(
            "DELETE FROM addresses WHERE subnet_id = $1 AND address = $2 AND port_id = $3",
            params![subnet, address, port],
        )
        .await?;
        Ok(())
    }

    /// Records the place of an address in its port's list.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_ordinal_set(
        &self,
        port: PortId,
        subnet: SubnetId,
        address: IpAddr,
        ordinal: u64,
    ) -> Result<(), StoreError> {
        self.exec(
            "UPDATE addresses SET ordinal = $4 WHERE subnet_id = $1 AND address = $2 AND port_id = $3",
            params![subnet, address, port, ordinal],
        )
        .await?;
        Ok(())
    }

    /// Claims this segment number for a network; `false` if another network has it.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the network is gone.
    pub async fn segment_claim(&self, network: NetworkId, segment: u32) -> Result<bool, StoreError> {
        let claimed = self
            .exec(
                "INSERT INTO network_segments (segment, network_id) VALUES ($1, $2) ON CONFLICT (segment) DO NOTHING",
                params![segment, network],
            )
            .await?;
        if claimed == 1 {
            self.exec("UPDATE networks SET segment = $2 WHERE id = $1", params![network, segment]).await?;
        }
        Ok(claimed == 1)
    }

    /// Claims the next free segment number for a network; `None` if all are taken.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the network is gone.
    pub async fn segment_claim_next(&self, network: NetworkId) -> Result<Option<u32>, StoreError> {
        let row = self
            .one(
                "UPDATE segment_cursor SET last = CASE WHEN last >= $1 THEN 1 ELSE last + 1 END WHERE id = 1
                 RETURNING last",
                params![SEGMENT_MAX],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let next: u32 = row.get("last")?;
        if self.segment_claim(network, next).await? {
            return Ok(Some(next));
        }
        let row = self
            .one(
                "SELECT s.segment + 1 AS free FROM network_segments s WHERE s.segment >= $1 AND s.segment < $2
                 AND NOT EXISTS (SELECT 1 FROM network_segments t WHERE t.segment = s.segment + 1)
                 ORDER BY s.segment LIMIT 1",
                params![next, SEGMENT_MAX],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let free: u32 = row.get("free")?;
        self.exec("UPDATE segment_cursor SET last = $1 WHERE id = 1", params![free]).await?;
        Ok(self.segment_claim(network, free).await?.then_some(free))
    }
}

impl Db {
    /// How many addresses are taken in each of these subnets.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_counts(&self, subnets: &[SubnetId]) -> Result<Vec<(SubnetId, u64)>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("subnet_id", subnets.to_vec());
        let sql = format!("SELECT subnet_id, COUNT(*) AS taken FROM addresses{} GROUP BY subnet_id", filter.sql());
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("subnet_id")?, r.get("taken")?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_sort_as_addresses_do_and_lead_back() {
        for (low, high) in
            [("10.0.0.1", "10.0.0.2"), ("127.255.255.255", "128.0.0.0"), ("fd00::1", "fd00::f816:3eff:fe00:1")]
        {
            let (low, high): (IpAddr, IpAddr) = (low.parse().unwrap(), high.parse().unwrap());
            assert!(position(low) < position(high));
            assert_eq!(at_position(low, position(high)), high);
        }
    }
}
