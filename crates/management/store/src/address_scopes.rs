//! Address scopes: spaces in which no address is given twice.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{AddressScopeId, NetworkId, ProjectId, SubnetPoolId};
use ipnet::IpNet;

/// A space in which no address is given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressScope {
    /// Its id.
    pub id: AddressScopeId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// 4 or 6.
    pub ip_version: u32,
    /// Whether every project may use it.
    pub shared: bool,
}

/// What a list of address scopes can be filtered and sorted by.
pub const ADDRESS_SCOPE_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::number("ip_version", "ip_version"),
    Field::shared(),
];

const SCOPES: ListOf = ListOf {
    table: "address_scopes",
    columns: "id, project_id, name, ip_version, shared",
    visible: "(project_id = ? OR shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn scope(row: &Row) -> Result<AddressScope, StoreError> {
    Ok(AddressScope {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        ip_version: row.get("ip_version")?,
        shared: row.get("shared")?,
    })
}

impl Db {
    /// The address scope with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scope_get(&self, id: AddressScopeId) -> Result<Option<AddressScope>, StoreError> {
        let sql = format!("SELECT {} FROM address_scopes WHERE id = $1", SCOPES.columns);
        self.one(sql, params![id]).await?.as_ref().map(scope).transpose()
    }

    /// A page of address scopes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scope_list(&self, listing: &Listing) -> Result<Page<AddressScope>, StoreError> {
        self.page(&SCOPES, listing, |_| {}, scope).await
    }

    /// The ranges of a scope's pools.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scope_prefixes(
        &self,
        id: AddressScopeId,
    ) -> Result<Vec<(SubnetPoolId, Vec<IpNet>)>, StoreError> {
        let sql = "SELECT id, prefixes FROM subnet_pools WHERE address_scope_id = $1 ORDER BY id";
        let rows = self.all(sql, params![id]).await?;
        rows.iter().map(|r| Ok((r.get("id")?, r.json("prefixes")?))).collect()
    }

    /// The scopes that networks' addresses are in, by network and IP version.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scopes_by_networks(
        &self,
        networks: &[NetworkId],
    ) -> Result<Vec<(NetworkId, u32, AddressScopeId)>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("s.network_id", networks.to_vec()).and("p.address_scope_id IS NOT NULL", vec![]);
        let sql = format!(
            "SELECT DISTINCT s.network_id, s.ip_version, p.address_scope_id FROM subnets s
             JOIN subnet_pools p ON p.id = s.subnet_pool_id{}",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("network_id")?, r.get("ip_version")?, r.get("address_scope_id")?))).collect()
    }
}

impl Tx {
    /// Records an address scope.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scope_insert(&self, scope: &AddressScope) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO address_scopes (id, project_id, name, ip_version, shared) VALUES ($1, $2, $3, $4, $5)",
            params![scope.id, scope.project_id, &scope.name, scope.ip_version, scope.shared],
        )
        .await?;
        Ok(())
    }

    /// Records a new name; also holds off everybody else who changes the scope or joins it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_scope_update(&self, id: AddressScopeId, name: Option<&str>) -> Result<bool, StoreError> {
        let sql = "UPDATE address_scopes SET name = COALESCE($2, name) WHERE id = $1";
        Ok(self.exec(sql, params![id, name]).await? == 1)
    }

    /// Removes an address scope; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while subnet pools are in it.
    pub async fn address_scope_delete(&self, id: AddressScopeId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM address_scopes WHERE id = $1", params![id]).await? == 1)
    }
}
