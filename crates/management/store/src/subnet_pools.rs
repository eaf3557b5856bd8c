//! Subnet pools: ranges that subnets are cut from.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Json, Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{AddressScopeId, ProjectId, SubnetPoolId, Timestamp};
use ipnet::IpNet;

/// Ranges that subnets are cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetPool {
    /// Its id.
    pub id: SubnetPoolId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The ranges, all of one IP version.
    pub prefixes: Vec<IpNet>,
    /// The length of a prefix that is cut where none is named.
    pub prefix_default: u8,
    /// The shortest prefix that may be cut.
    pub prefix_min: u8,
    /// The longest prefix that may be cut.
    pub prefix_max: u8,
    /// How much each project may cut: addresses for IPv4, 64-bit prefixes for IPv6; `None` is no limit.
    pub quota: Option<u64>,
    /// The space that its ranges are in.
    pub address_scope_id: Option<AddressScopeId>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Whether every project may cut from it.
    pub shared: bool,
    /// Whether it is the pool of its IP version to take where none is named.
    pub is_default: bool,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl SubnetPool {
    /// 4 or 6.
    pub fn ip_version(&self) -> u32 {
        if matches!(self.prefixes.first(), Some(IpNet::V6(_))) { 6 } else { 4 }
    }
}

/// What a list of subnet pools can be filtered and sorted by.
pub const SUBNET_POOL_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::number("ip_version", "ip_version"),
    Field::shared(),
    Field::id("address_scope_id", "address_scope_id").or_null(),
    Field::flag("is_default", "is_default"),
    Field::number("default_prefixlen", "prefix_default"),
    Field::number("min_prefixlen", "prefix_min"),
    Field::number("max_prefixlen", "prefix_max"),
    Field::number("default_quota", "quota").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const POOLS: ListOf = ListOf {
    table: "subnet_pools",
    columns: "id, project_id, name, description, prefixes, ip_version, prefix_default, prefix_min, prefix_max, quota, \
              shared, is_default, address_scope_id, tags, revision, created_at, updated_at",
    visible: "(project_id = ? OR shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn pool(row: &Row) -> Result<SubnetPool, StoreError> {
    Ok(SubnetPool {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        prefixes: row.json("prefixes")?,
        prefix_default: row.get("prefix_default")?,
        prefix_min: row.get("prefix_min")?,
        prefix_max: row.get("prefix_max")?,
        quota: row.opt("quota")?,
        address_scope_id: row.opt("address_scope_id")?,
        tags: row.json("tags")?,
        shared: row.get("shared")?,
        is_default: row.get("is_default")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The subnet pool with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_pool_get(&self, id: SubnetPoolId) -> Result<Option<SubnetPool>, StoreError> {
        let sql = format!("SELECT {} FROM subnet_pools WHERE id = $1", POOLS.columns);
        self.one(sql, params![id]).await?.as_ref().map(pool).transpose()
    }

    /// A page of subnet pools.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_pool_list(&self, listing: &Listing) -> Result<Page<SubnetPool>, StoreError> {
        self.page(&POOLS, listing, |_| {}, pool).await
    }
}

impl Tx {
    /// Records a subnet pool.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_pool_insert(&self, pool: &SubnetPool) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO subnet_pools (id, project_id, name, description, prefixes, ip_version, prefix_default, prefix_min,
             prefix_max, quota, shared, is_default, address_scope_id, tags, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1, $15, $15)",
            params![
                pool.id,
                pool.project_id,
                &pool.name,
                &pool.description,
                Json(&pool.prefixes),
                pool.ip_version(),
                pool.prefix_default,
                pool.prefix_min,
                pool.prefix_max,
                pool.quota,
                pool.shared,
                pool.is_default,
                pool.address_scope_id,
                Json(&pool.tags),
                pool.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a subnet pool may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn subnet_pool_update(&self, pool: &SubnetPool) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE subnet_pools SET name = $3, description = $4, prefixes = $5, prefix_default = $6, prefix_min = $7,
                 prefix_max = $8, quota = $9, is_default = $10, address_scope_id = $11, revision = revision + 1,
                 updated_at = $12 WHERE id = $1 AND revision = $2",
                params![
                    pool.id,
                    pool.revision,
                    &pool.name,
                    &pool.description,
                    Json(&pool.prefixes),
                    pool.prefix_default,
                    pool.prefix_min,
                    pool.prefix_max,
                    pool.quota,
                    pool.is_default,
                    pool.address_scope_id,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("subnet pool")) }
    }

    /// The pool, and nobody else cuts from it until the end of the transaction.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_pool_lock(&self, id: SubnetPoolId) -> Result<Option<SubnetPool>, StoreError> {
        let sql = format!("UPDATE subnet_pools SET revision = revision + 1 WHERE id = $1 RETURNING {}", POOLS.columns);
        self.one(sql, params![id]).await?.as_ref().map(pool).transpose()
    }

    /// Removes a subnet pool; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while subnets were cut from it.
    pub async fn subnet_pool_delete(&self, id: SubnetPoolId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM subnet_pools WHERE id = $1", params![id]).await? == 1)
    }
}
