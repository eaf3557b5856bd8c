//! Quality of service: policies of rules on bandwidth and marks, that networks, ports and floating IPs carry.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::security_groups::direction_text;
use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::Direction;
use arcus_types::{NetworkId, ProjectId, QosPolicyId, QosRuleId, Timestamp};
use std::collections::HashMap;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosRuleKind {
    /// The most that passes in a direction.
    BandwidthLimit {
        /// Which way, seen from the guest.
        direction: Direction,
        /// In the long run, in thousands of bits per second.
        max_kbps: u64,
        /// At once, in thousands of bits; 0 lets the node choose.
        max_burst_kbps: u64,
    },
    /// The mark of differentiated services on what the guest sends.
    DscpMarking {
        /// The mark, 0 to 56.
        mark: u8,
    },
}

impl QosRuleKind {
    /// The word in the database and in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BandwidthLimit { .. } => "bandwidth_limit",
            Self::DscpMarking { .. } => "dscp_marking",
        }
    }
}

/// One rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QosRule {
    /// Its id.
    pub id: QosRuleId,
    /// The policy.
    pub policy_id: QosPolicyId,
    /// What it says.
    pub kind: QosRuleKind,
}

/// A set of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosPolicy {
    /// Its id.
    pub id: QosPolicyId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether the project's new networks get it where none is named.
    pub is_default: bool,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// What it says.
    pub rules: Vec<QosRule>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a list of QoS policies can be filtered and sorted by.
pub const QOS_POLICY_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::shared(),
    Field::flag("is_default", "is_default"),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const POLICIES: ListOf = ListOf {
    table: "qos_policies",
    columns: "id, project_id, name, description, shared, is_default, tags, revision, created_at, updated_at",
    visible: "(project_id = ? OR shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn policy(row: &Row) -> Result<QosPolicy, StoreError> {
    Ok(QosPolicy {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        shared: row.get("shared")?,
        is_default: row.get("is_default")?,
        tags: row.json("tags")?,
        rules: Vec::new(),
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn rule(row: &Row) -> Result<QosRule, StoreError> {
    let (kind, direction): (String, String) = (row.get("kind")?, row.get("direction")?);
    let kind = match kind.as_str() {
        "bandwidth_limit" => QosRuleKind::BandwidthLimit {
            direction: if direction == "ingress" { Direction::Ingress } else { Direction::Egress },
            max_kbps: row.get("max_kbps")?,
            max_burst_kbps: row.get("max_burst_kbps")?,
        },
        "dscp_marking" => QosRuleKind::DscpMarking { mark: row.get("dscp_mark")? },
        other => return Err(StoreError::Corrupt { column: "kind".into(), value: other.chars().take(80).collect() }),
    };
    Ok(QosRule { id: row.get("id")?, policy_id: row.get("policy_id")?, kind })
}

impl Db {
    /// The policy with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_policy_get(&self, id: QosPolicyId) -> Result<Option<QosPolicy>, StoreError> {
        let sql = format!("SELECT {} FROM qos_policies WHERE id = $1", POLICIES.columns);
        let mut found: Vec<QosPolicy> =
            self.one(sql, params![id]).await?.as_ref().map(policy).transpose()?.into_iter().collect();
        self.qos_fill(&mut found).await?;
        Ok(found.pop())
    }

    /// Adds rules: one statement for any number of policies.
    async fn qos_fill(&self, policies: &mut [QosPolicy]) -> Result<(), StoreError> {
        let ids: Vec<QosPolicyId> = policies.iter().map(|p| p.id).collect();
        let mut rules: HashMap<QosPolicyId, Vec<QosRule>> = HashMap::new();
        for rule in self.qos_rules(&ids).await? {
            rules.entry(rule.policy_id).or_default().push(rule);
        }
        for policy in policies {
            policy.rules = rules.remove(&policy.id).unwrap_or_default();
        }
        Ok(())
    }

    /// A page of policies: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_policy_list(&self, listing: &Listing) -> Result<Page<QosPolicy>, StoreError> {
        let mut page = self.page(&POLICIES, listing, |_| {}, policy).await?;
        self.qos_fill(&mut page.rows).await?;
        Ok(page)
    }

    /// The rules of these policies.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_rules(&self, policies: &[QosPolicyId]) -> Result<Vec<QosRule>, StoreError> {
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("policy_id", policies.to_vec());
        let sql = format!(
            "SELECT id, policy_id, kind, direction, max_kbps, max_burst_kbps, dscp_mark FROM qos_rules{} ORDER BY id",
            filter.sql()
        );
        self.all(sql, filter.params).await?.iter().map(rule).collect()
    }

    /// The policy that a project's new networks get.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_policy_default(&self, project: ProjectId) -> Result<Option<QosPolicyId>, StoreError> {
        let sql = "SELECT id FROM qos_policies WHERE project_id = $1 AND is_default";
        self.one(sql, params![project]).await?.map(|r| r.get("id")).transpose()
    }

    /// The networks with ports, or with floating IPs' targets, that a policy bears on.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_policy_networks(&self, id: QosPolicyId) -> Result<Vec<NetworkId>, StoreError> {
        let sql = "SELECT id FROM networks WHERE qos_policy_id = $1
             UNION SELECT network_id FROM ports WHERE qos_policy_id = $1
             UNION SELECT p.network_id FROM floating_ips f JOIN ports p ON p.id = f.port_id WHERE f.qos_policy_id = $1";
        self.all(sql, params![id]).await?.iter().map(|r| r.get("id")).collect()
    }
}

impl Tx {
    /// Records a policy without rules.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if it is a default one and the project has one.
    pub async fn qos_policy_insert(&self, policy: &QosPolicy) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO qos_policies (id, project_id, name, description, shared, is_default, tags, revision, created_at,
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8)",
            params![
                policy.id,
                policy.project_id,
                &policy.name,
                &policy.description,
                policy.shared,
                policy.is_default,
                Json(&policy.tags),
                policy.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a policy may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read, [`StoreError::Duplicate`] for a second default one.
    pub async fn qos_policy_update(&self, policy: &QosPolicy) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE qos_policies SET name = $3, description = $4, is_default = $5, revision = revision + 1,
                 updated_at = $6 WHERE id = $1 AND revision = $2",
                params![
                    policy.id,
                    policy.revision,
                    &policy.name,
                    &policy.description,
                    policy.is_default,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("QoS policy")) }
    }

    /// Says that a policy's rules change, and holds off others who change them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_policy_bump(&self, id: QosPolicyId) -> Result<bool, StoreError> {
        let sql = "UPDATE qos_policies SET revision = revision + 1, updated_at = $2 WHERE id = $1";
        Ok(self.exec(sql, params![id, Timestamp::now()]).await? == 1)
    }

    /// Removes a policy with its rules; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while networks, ports or floating IPs carry it.
    pub async fn qos_policy_delete(&self, id: QosPolicyId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM qos_policies WHERE id = $1", params![id]).await? == 1)
    }

    /// Records a rule; `false` if the policy has one of this kind and direction, and then nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the policy is gone.
    pub async fn qos_rule_insert(&self, rule: &QosRule) -> Result<bool, StoreError> {
        let (direction, max_kbps, burst, mark) = rule_columns(rule.kind);
        let inserted = self
            .exec(
                "INSERT INTO qos_rules (id, policy_id, kind, direction, max_kbps, max_burst_kbps, dscp_mark)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (policy_id, kind, direction) DO NOTHING",
                params![rule.id, rule.policy_id, rule.kind.word(), direction, max_kbps, burst, mark],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Records what a rule says now.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the policy has another one of this direction.
    pub async fn qos_rule_update(&self, rule: &QosRule) -> Result<(), StoreError> {
        let (direction, max_kbps, burst, mark) = rule_columns(rule.kind);
        self.exec(
            "UPDATE qos_rules SET direction = $2, max_kbps = $3, max_burst_kbps = $4, dscp_mark = $5 WHERE id = $1",
            params![rule.id, direction, max_kbps, burst, mark],
        )
        .await?;
        Ok(())
    }

    /// Removes a rule; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_rule_delete(&self, id: QosRuleId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM qos_rules WHERE id = $1", params![id]).await? == 1)
    }
}

/// Direction, rate, burst and mark.
const fn rule_columns(kind: QosRuleKind) -> (&'static str, u64, u64, u8) {
    match kind {
        QosRuleKind::BandwidthLimit { direction, max_kbps, max_burst_kbps } => {
            (direction_text(direction), max_kbps, max_burst_kbps, 0)
        }
        QosRuleKind::DscpMarking { mark } => (direction_text(Direction::Egress), 0, 0, mark),
    }
}
