//! Security groups and their rules.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::ports::AllowedPair;
use crate::quotas::QuotaResource;
use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::{AddressGroupId, ProjectId, SecurityGroupId, SecurityGroupRuleId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A set of filter rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it is the one that ports get where none is named.
    pub is_default: bool,
    /// Whether every project may use it.
    pub shared: bool,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// What it allows.
    pub rules: Vec<SecurityGroupRule>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// One filter rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupRule {
    /// Its id.
    pub id: SecurityGroupRuleId,
    /// The group that it belongs to.
    pub security_group_id: SecurityGroupId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Free text.
    pub description: String,
    /// Which way, seen from the guest.
    pub direction: Direction,
    /// Which IP version.
    pub ethertype: EtherType,
    /// The protocol as its owner wrote it: a name or a number.
    pub protocol: Option<String>,
    /// The protocol's number; `None` is any.
    pub protocol_number: Option<u8>,
    /// The first port, or the ICMP type.
    pub port_min: Option<u16>,
    /// The last port, or the ICMP code.
    pub port_max: Option<u16>,
    /// The other side's range as its owner wrote it: it may name a host of the range.
    pub remote_cidr: Option<ipnet::IpNet>,
    /// The group that the other side is in.
    pub remote_group_id: Option<SecurityGroupId>,
    /// The address group that the other side is in.
    pub remote_address_group_id: Option<AddressGroupId>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl SecurityGroupRule {
    /// The other side's range, cut to its prefix: what packets are compared with.
    pub fn normalized_cidr(&self) -> Option<ipnet::IpNet> {
        self.remote_cidr.map(|cidr| cidr.trunc())
    }

    /// Everything that makes this rule differ from another one of its group, in one text.
    pub fn fingerprint(&self) -> String {
        let show = |value: Option<String>| value.unwrap_or_else(|| "*".to_owned());
        [
            direction_text(self.direction).to_owned(),
            ethertype_text(self.ethertype).to_owned(),
            show(self.protocol_number.map(|n| n.to_string())),
            show(self.port_min.map(|n| n.to_string())),
            show(self.port_max.map(|n| n.to_string())),
            show(self.normalized_cidr().map(|c| c.to_string())),
            show(self.remote_group_id.map(|g| g.to_string())),
        ]
        .into_iter()
        // At the end and only where there is one: the texts of older rules stay what they are.
        .chain(self.remote_address_group_id.map(|g| g.to_string()))
        .collect::<Vec<_>>()
        .join(" ")
    }
}

/// The word for a direction in the database and in the API.
pub const fn direction_text(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// The word for an IP version in the database and in the API.
pub const fn ethertype_text(ethertype: EtherType) -> &'static str {
    match ethertype {
        EtherType::V4 => "IPv4",
        EtherType::V6 => "IPv6",
    }
}

/// What a list of security groups can be filtered and sorted by.
pub const SECURITY_GROUP_FIELDS: &[Field] = &[
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

/// What a list of rules can be filtered and sorted by.
pub const SECURITY_GROUP_RULE_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::id("security_group_id", "security_group_id"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::text("description", "description"),
    Field::text("direction", "direction"),
    Field::text("ethertype", "ethertype"),
    Field::text("protocol", "protocol").or_null(),
    Field::number("port_range_min", "port_min").or_null(),
    Field::number("port_range_max", "port_max").or_null(),
    Field::text("remote_ip_prefix", "remote_cidr").or_null(),
    Field::id("remote_group_id", "remote_group_id").or_null(),
    Field::id("remote_address_group_id", "remote_address_group_id").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const GROUPS: ListOf = ListOf {
    table: "security_groups",
    columns: "id, project_id, name, description, is_default, shared, tags, revision, created_at, updated_at",
    visible: "(project_id = ? OR shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

const RULES: ListOf = ListOf {
    table: "security_group_rules",
    columns: "id, security_group_id, project_id, description, direction, ethertype, protocol, protocol_number, port_min, \
              port_max, remote_cidr, remote_group_id, remote_address_group_id, revision, created_at, updated_at",
    visible: "(project_id = ? OR security_group_id IN (SELECT id FROM security_groups WHERE shared
              UNION ALL SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn group(row: &Row) -> Result<SecurityGroup, StoreError> {
    Ok(SecurityGroup {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        is_default: row.get("is_default")?,
        shared: row.get("shared")?,
        tags: row.json("tags")?,
        rules: Vec::new(),
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn rule(row: &Row) -> Result<SecurityGroupRule, StoreError> {
    let direction: String = row.get("direction")?;
    let ethertype: String = row.get("ethertype")?;
    Ok(SecurityGroupRule {
        id: row.get("id")?,
        security_group_id: row.get("security_group_id")?,
        project_id: row.get("project_id")?,
        description: row.get("description")?,
        direction: if direction == "egress" { Direction::Egress } else { Direction::Ingress },
        ethertype: if ethertype == "IPv6" { EtherType::V6 } else { EtherType::V4 },
        protocol: row.opt("protocol")?,
        protocol_number: row.opt("protocol_number")?,
        port_min: row.opt("port_min")?,
        port_max: row.opt("port_max")?,
        remote_cidr: row.opt("remote_cidr")?,
        remote_group_id: row.opt("remote_group_id")?,
        remote_address_group_id: row.opt("remote_address_group_id")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The security groups with these ids, with their rules: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_list_by_ids(&self, ids: &[SecurityGroupId]) -> Result<Vec<SecurityGroup>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        let sql = format!("SELECT {} FROM security_groups{} ORDER BY id", GROUPS.columns, filter.sql());
        let rows = self.all(sql, filter.params).await?;
        let mut groups = rows.iter().map(group).collect::<Result<Vec<_>, _>>()?;
        self.groups_fill(&mut groups).await?;
        Ok(groups)
    }

    /// The security group with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_get(&self, id: SecurityGroupId) -> Result<Option<SecurityGroup>, StoreError> {
        Ok(self.security_group_list_by_ids(&[id]).await?.pop())
    }

    /// The ids of a project's groups with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_groups_by_name(
        &self,
        project: ProjectId,
        name: &str,
    ) -> Result<Vec<SecurityGroupId>, StoreError> {
        let rows = self
            .all(
                "SELECT id FROM security_groups WHERE project_id = $1 AND name = $2 ORDER BY id",
                params![project, name],
            )
            .await?;
        rows.iter().map(|r| r.get("id")).collect()
    }

    /// A project's default group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_default(&self, project: ProjectId) -> Result<Option<SecurityGroupId>, StoreError> {
        let row =
            self.one("SELECT id FROM security_groups WHERE project_id = $1 AND is_default", params![project]).await?;
        row.map(|r| r.get("id")).transpose()
    }

    /// A page of security groups with their rules: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_list(&self, listing: &Listing) -> Result<Page<SecurityGroup>, StoreError> {
        let mut page = self.page(&GROUPS, listing, |_| {}, group).await?;
        self.groups_fill(&mut page.rows).await?;
        Ok(page)
    }

    async fn groups_fill(&self, groups: &mut [SecurityGroup]) -> Result<(), StoreError> {
        if groups.is_empty() {
            return Ok(());
        }
        let mut filter = Where::default();
        filter.and_in("security_group_id", groups.iter().map(|g| g.id).collect());
        let sql = format!("SELECT {} FROM security_group_rules{} ORDER BY id", RULES.columns, filter.sql());
        let mut rules: HashMap<SecurityGroupId, Vec<SecurityGroupRule>> = HashMap::new();
        for row in self.all(sql, filter.params).await? {
            let rule = rule(&row)?;
            rules.entry(rule.security_group_id).or_default().push(rule);
        }
        for group in groups {
            group.rules = rules.remove(&group.id).unwrap_or_default();
        }
        Ok(())
    }

    /// The addresses of these groups' ports that live on some node, and the single addresses that those may use besides:
    /// whoever may be the other side of a packet. A port without a node sends nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_members(
        &self,
        groups: &[SecurityGroupId],
    ) -> Result<Vec<(SecurityGroupId, IpAddr)>, StoreError> {
        let mut filter = Where::default();
        filter.and("p.node_id IS NOT NULL", vec![]).and_in("m.security_group_id", groups.to_vec());
        let sql = format!(
            "SELECT m.security_group_id, a.address, p.allowed_pairs FROM port_security_groups m
             JOIN ports p ON p.id = m.port_id JOIN addresses a ON a.port_id = p.id{} ORDER BY m.security_group_id, a.position",
            filter.sql()
        );
        let mut members = Vec::new();
        for row in self.all(sql, filter.params).await? {
            let group: SecurityGroupId = row.get("security_group_id")?;
            members.push((group, row.get("address")?));
            let pairs: Vec<AllowedPair> = row.json("allowed_pairs")?;
            let single = pairs.iter().filter(|pair| pair.cidr.prefix_len() == pair.cidr.max_prefix_len());
            members.extend(single.map(|pair| (group, pair.cidr.addr())));
        }
        Ok(members)
    }

    /// The rule with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_rule_get(
        &self,
        id: SecurityGroupRuleId,
    ) -> Result<Option<SecurityGroupRule>, StoreError> {
        let sql = format!("SELECT {} FROM security_group_rules WHERE id = $1", RULES.columns);
        self.one(sql, params![id]).await?.as_ref().map(rule).transpose()
    }

    /// A page of rules.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_rule_list(&self, listing: &Listing) -> Result<Page<SecurityGroupRule>, StoreError> {
        self.page(&RULES, listing, |_| {}, rule).await
    }
}

impl Tx {
    /// Records a security group, without rules; `false` if it is a default group and the project has one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_insert(&self, group: &SecurityGroup) -> Result<bool, StoreError> {
        let inserted = self
            .exec(
                "INSERT INTO security_groups (id, project_id, name, description, is_default, tags, revision, created_at,
                 updated_at) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7) ON CONFLICT DO NOTHING",
                params![
                    group.id, group.project_id, &group.name, &group.description, group.is_default,
                    Json(&group.tags), group.created_at
                ],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Records a new name and description.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_update(&self, group: &SecurityGroup) -> Result<(), StoreError> {
        self.exec(
            "UPDATE security_groups SET name = $2, description = $3, revision = revision + 1, updated_at = $4 WHERE id = $1",
            params![group.id, &group.name, &group.description, Timestamp::now()],
        )
        .await?;
        Ok(())
    }

    /// Says that a group's rules change; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_bump(&self, id: SecurityGroupId) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE security_groups SET revision = revision + 1, updated_at = $2 WHERE id = $1",
                params![id, Timestamp::now()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Removes a group with its rules.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if ports or rules of other groups still need it.
    pub async fn security_group_delete(&self, id: SecurityGroupId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM security_groups WHERE id = $1", params![id]).await? == 1)
    }

    /// Records a rule; `false` if the group has the same one, and then nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a group is gone.
    pub async fn security_group_rule_insert(&self, rule: &SecurityGroupRule) -> Result<bool, StoreError> {
        let inserted = self
            .exec(
                "INSERT INTO security_group_rules (id, security_group_id, project_id, description, direction, ethertype,
                 protocol, protocol_number, port_min, port_max, remote_cidr, remote_group_id,
                 remote_address_group_id, fingerprint, revision, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1, $15, $15)
                 ON CONFLICT (security_group_id, fingerprint) DO NOTHING",
                params![
                    rule.id, rule.security_group_id, rule.project_id, &rule.description,
                    direction_text(rule.direction), ethertype_text(rule.ethertype), &rule.protocol,
                    rule.protocol_number, rule.port_min, rule.port_max, rule.remote_cidr, rule.remote_group_id,
                    rule.remote_address_group_id, rule.fingerprint(), rule.created_at
                ],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Removes a rule; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_rule_delete(&self, id: SecurityGroupRuleId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM security_group_rules WHERE id = $1", params![id]).await? == 1)
    }

    /// Removes the rules of a group and those of others that name it; answers how many of each project's.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn security_group_rules_delete_about(
        &self,
        id: SecurityGroupId,
    ) -> Result<BTreeMap<ProjectId, u64>, StoreError> {
        self.exec(
            "UPDATE security_groups SET revision = revision + 1, updated_at = $2 WHERE id IN
             (SELECT security_group_id FROM security_group_rules WHERE remote_group_id = $1) AND id <> $1",
            params![id, Timestamp::now()],
        )
        .await?;
        let sql = "DELETE FROM security_group_rules WHERE security_group_id = $1 OR remote_group_id = $1
                   RETURNING project_id";
        let mut gone = BTreeMap::new();
        for row in self.all(sql, params![id]).await? {
            *gone.entry(row.get("project_id")?).or_insert(0) += 1;
        }
        Ok(gone)
    }

    /// Counts use that no quota may refuse: what every project has, such as its default security group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_count(
        &self,
        project: ProjectId,
        resource: QuotaResource,
        amount: u64,
    ) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO quotas (project_id, resource, used) VALUES ($1, $2, $3)
             ON CONFLICT (project_id, resource) DO UPDATE SET used = quotas.used + excluded.used",
            params![project, resource.name(), amount],
        )
        .await?;
        Ok(())
    }
}
