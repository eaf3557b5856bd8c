//! Policies that share a thing with other projects.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, RbacPolicyId, Timestamp};
use std::collections::HashSet;
use uuid::Uuid;

macro_rules! words { ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal),* $(,)? }) => {
    $(#[$doc])*
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum $name { $($(#[$word_doc])* $word),* }

    impl $name {
        /// Every word.
        pub const ALL: &[$name] = &[$($name::$word),*];

        /// The word in the database and in the API.
        pub const fn as_str(self) -> &'static str { match self { $(Self::$word => $text),* } }
    }

    impl std::str::FromStr for $name {
        type Err = ();
        fn from_str(text: &str) -> Result<Self, ()> {
            Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or(())
        }
    }
}; }

words! {
    /// What can be shared.
    RbacType {
        /// A network.
        Network = "network",
        /// A subnet pool.
        SubnetPool = "subnetpool",
        /// A QoS policy.
        QosPolicy = "qos_policy",
        /// A security group.
        SecurityGroup = "security_group",
        /// An address group.
        AddressGroup = "address_group",
        /// An address scope.
        AddressScope = "address_scope",
    }
}

words! {
    /// As what it is shared.
    RbacAction {
        /// To use as one's own.
        Shared = "access_as_shared",
        /// A network, as a way out of the cloud.
        External = "access_as_external",
    }
}

impl RbacType {
    const fn table(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::SubnetPool => "subnet_pools",
            Self::QosPolicy => "qos_policies",
            Self::SecurityGroup => "security_groups",
            Self::AddressGroup => "address_groups",
            Self::AddressScope => "address_scopes",
        }
    }
}

/// A policy that shares a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbacPolicy {
    /// Its id.
    pub id: RbacPolicyId,
    /// Who made it.
    pub project_id: ProjectId,
    /// What kind of thing is shared.
    pub object_type: RbacType,
    /// Which one.
    pub object_id: Uuid,
    /// As what.
    pub action: RbacAction,
    /// With whom; `None` is every project.
    pub target: Option<ProjectId>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a list of RBAC policies can be filtered and sorted by.
pub const RBAC_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::text("object_type", "object_type"),
    Field::id("object_id", "object_id"),
    Field::text("action", "action"),
    Field::id("target_tenant", "target_id").or_null(),
];

const POLICIES: ListOf = ListOf {
    table: "rbac_policies",
    columns: "id, project_id, object_type, object_id, action, everyone, target_id, revision, created_at, updated_at",
    visible: "project_id = ?",
};

fn policy(row: &Row) -> Result<RbacPolicy, StoreError> {
    Ok(RbacPolicy {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        object_type: row.text("object_type")?,
        object_id: row.get("object_id")?,
        action: row.text("action")?,
        target: row.opt("target_id")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The policy with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_get(&self, id: RbacPolicyId) -> Result<Option<RbacPolicy>, StoreError> {
        let sql = format!("SELECT {} FROM rbac_policies WHERE id = $1", POLICIES.columns);
        self.one(sql, params![id]).await?.as_ref().map(policy).transpose()
    }

    /// A page of policies.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_list(&self, listing: &Listing) -> Result<Page<RbacPolicy>, StoreError> {
        self.page(&POLICIES, listing, |_| {}, policy).await
    }

    /// The policies of one thing.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_list_by_object(&self, object: Uuid) -> Result<Vec<RbacPolicy>, StoreError> {
        let sql = format!("SELECT {} FROM rbac_policies WHERE object_id = $1 ORDER BY id", POLICIES.columns);
        self.all(sql, params![object]).await?.iter().map(policy).collect()
    }

    /// Which of these things are shared with a project, as this or in any way.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_shared_with(
        &self,
        objects: Vec<Uuid>,
        action: Option<RbacAction>,
        project: ProjectId,
    ) -> Result<HashSet<Uuid>, StoreError> {
        if objects.is_empty() {
            return Ok(HashSet::new());
        }
        let mut filter = Where::default();
        filter.and_in("object_id", objects);
        if let Some(action) = action {
            filter.and("action = ?", params![action.as_str()]);
        }
        filter.and("(everyone OR target_id = ?)", params![project]);
        let rows = self.all(format!("SELECT object_id FROM rbac_policies{}", filter.sql()), filter.params).await?;
        rows.iter().map(|r| r.get("object_id")).collect()
    }

    /// The owner of a thing that can be shared.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_object_owner(&self, kind: RbacType, object: Uuid) -> Result<Option<ProjectId>, StoreError> {
        let sql = format!("SELECT project_id FROM {} WHERE id = $1", kind.table());
        self.one(sql, params![object]).await?.map(|r| r.get("project_id")).transpose()
    }

    /// Whether a project other than the owner, and other than those named, uses a thing. `only` limits the question to
    /// one project.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_object_used(
        &self,
        kind: RbacType,
        action: RbacAction,
        object: Uuid,
        owner: ProjectId,
        only: Option<ProjectId>,
        but: &[ProjectId],
    ) -> Result<bool, StoreError> {
        let users: &[&str] = match (kind, action) {
            (RbacType::Network, RbacAction::External) => &[
                "SELECT project_id FROM routers WHERE gateway_network_id = ?",
                "SELECT project_id FROM floating_ips WHERE network_id = ?",
            ],
            (RbacType::Network, RbacAction::Shared) => {
                &["SELECT project_id FROM ports WHERE network_id = ? AND project_id IS NOT NULL"]
            }
            (RbacType::SubnetPool, _) => &["SELECT project_id FROM subnets WHERE subnet_pool_id = ?"],
            (RbacType::QosPolicy, _) => &[
                "SELECT project_id FROM networks WHERE qos_policy_id = ?",
                "SELECT project_id FROM ports WHERE qos_policy_id = ?",
                "SELECT project_id FROM floating_ips WHERE qos_policy_id = ?",
            ],
            (RbacType::SecurityGroup, _) => &[
                "SELECT p.project_id FROM ports p JOIN port_security_groups m ON m.port_id = p.id
                 WHERE m.security_group_id = ?",
                "SELECT project_id FROM security_group_rules WHERE remote_group_id = ?",
            ],
            (RbacType::AddressGroup, _) => {
                &["SELECT project_id FROM security_group_rules WHERE remote_address_group_id = ?"]
            }
            (RbacType::AddressScope, _) => &["SELECT project_id FROM subnet_pools WHERE address_scope_id = ?"],
        };
        for of in users {
            let mut filter = Where::default();
            filter.and("project_id <> ?", params![owner]);
            if let Some(only) = only {
                filter.and("project_id = ?", params![only]);
            }
            for but in but {
                filter.and("project_id <> ?", params![*but]);
            }
            let number = filter.params.len() + 1;
            filter.params.extend(params![object]);
            let of = of.replace('?', &format!("${number}"));
            let sql = format!("SELECT 1 AS used FROM ({of}) u{} LIMIT 1", filter.sql());
            if self.one(sql, filter.params).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Tx {
    /// Records a policy; `false` if the thing is shared in this way already, and then nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_insert(&self, policy: &RbacPolicy) -> Result<bool, StoreError> {
        let inserted = self
            .exec(
                "INSERT INTO rbac_policies (id, project_id, object_type, object_id, action, everyone, target_id, revision,
                 created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8) ON CONFLICT DO NOTHING",
                params![
                    policy.id, policy.project_id, policy.object_type.as_str(), policy.object_id,
                    policy.action.as_str(), policy.target.is_none(), policy.target, policy.created_at
                ],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Records a new target.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the thing is shared with it already.
    pub async fn rbac_update(&self, policy: &RbacPolicy) -> Result<(), StoreError> {
        self.exec(
            "UPDATE rbac_policies SET everyone = $2, target_id = $3, revision = revision + 1, updated_at = $4 WHERE id = $1",
            params![policy.id, policy.target.is_none(), policy.target, Timestamp::now()],
        )
        .await?;
        Ok(())
    }

    /// Removes a policy; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_delete(&self, id: RbacPolicyId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM rbac_policies WHERE id = $1", params![id]).await? == 1)
    }

    /// Removes every policy of a thing that goes away: by project, how many there were.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_delete_by_object(&self, object: Uuid) -> Result<Vec<ProjectId>, StoreError> {
        let rows =
            self.all("DELETE FROM rbac_policies WHERE object_id = $1 RETURNING project_id", params![object]).await?;
        rows.iter().map(|r| r.get("project_id")).collect()
    }

    /// Brings what a thing says of itself in line with its policies: whether it is shared with everybody, and whether a
    /// network is anybody's way out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rbac_settle(&self, kind: RbacType, object: Uuid) -> Result<(), StoreError> {
        let mut sets = "shared = EXISTS (SELECT 1 FROM rbac_policies WHERE object_id = $1 AND everyone
                        AND action = 'access_as_shared')"
            .to_owned();
        if kind == RbacType::Network {
            sets.push_str(
                ", external = EXISTS (SELECT 1 FROM rbac_policies WHERE object_id = $1 AND action = 'access_as_external')",
            );
        }
        self.exec(format!("UPDATE {} SET {sets} WHERE id = $1", kind.table()), params![object]).await?;
        Ok(())
    }
}
