//! Address groups: named lists of ranges that rules of security groups refer to.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{AddressGroupId, ProjectId, Timestamp};
use ipnet::IpNet;

/// A named list of ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressGroup {
    /// Its id.
    pub id: AddressGroupId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The ranges.
    pub addresses: Vec<IpNet>,
    /// Whether every project may use it.
    pub shared: bool,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a list of address groups can be filtered and sorted by.
pub const ADDRESS_GROUP_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::shared(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const GROUPS: ListOf = ListOf {
    table: "address_groups",
    columns: "id, project_id, name, description, addresses, shared, revision, created_at, updated_at",
    visible: "(project_id = ? OR shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn group(row: &Row) -> Result<AddressGroup, StoreError> {
    Ok(AddressGroup {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        addresses: row.json("addresses")?,
        shared: row.get("shared")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The address group with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_group_get(&self, id: AddressGroupId) -> Result<Option<AddressGroup>, StoreError> {
        Ok(self.address_group_list_by_ids(&[id]).await?.pop())
    }

    /// The address groups with these ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_group_list_by_ids(&self, ids: &[AddressGroupId]) -> Result<Vec<AddressGroup>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        let sql = format!("SELECT {} FROM address_groups{} ORDER BY id", GROUPS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(group).collect()
    }

    /// A page of address groups.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_group_list(&self, listing: &Listing) -> Result<Page<AddressGroup>, StoreError> {
        self.page(&GROUPS, listing, |_| {}, group).await
    }
}

impl Tx {
    /// Records an address group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn address_group_insert(&self, group: &AddressGroup) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO address_groups (id, project_id, name, description, addresses, shared, revision, created_at,
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)",
            params![
                group.id,
                group.project_id,
                &group.name,
                &group.description,
                Json(&group.addresses),
                group.shared,
                group.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of an address group may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn address_group_update(&self, group: &AddressGroup) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE address_groups SET name = $3, description = $4, addresses = $5, revision = revision + 1,
                 updated_at = $6 WHERE id = $1 AND revision = $2",
                params![
                    group.id,
                    group.revision,
                    &group.name,
                    &group.description,
                    Json(&group.addresses),
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("address group")) }
    }

    /// Removes an address group; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while rules refer to it.
    pub async fn address_group_delete(&self, id: AddressGroupId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM address_groups WHERE id = $1", params![id]).await? == 1)
    }

    /// Tells every node with a port in a security group that has a rule for this address group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn nodes_touch_by_address_group(&self, id: AddressGroupId) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET spec_generation = spec_generation + 1 WHERE id IN (SELECT p.node_id FROM ports p
             JOIN port_security_groups m ON m.port_id = p.id JOIN security_group_rules r
             ON r.security_group_id = m.security_group_id WHERE p.node_id IS NOT NULL AND r.remote_address_group_id = $1)
             RETURNING id";
        self.touch(sql.to_owned(), params![id]).await
    }
}
