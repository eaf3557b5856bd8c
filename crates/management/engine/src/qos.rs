//! Quality of service: policies of rules on bandwidth and marks. Nodes enforce what the port says, else its network, and
//! on a floating IP what the floating IP says.

use crate::networks::{found, own_project, seen_by, unchanged};
use crate::{Engine, EngineError};
use arcus_store::{
    AuditEntry, Db, Listing, Page, QosPolicy, QosRule, QosRuleKind, RbacAction, RbacType, StoreError, Tx,
};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{OpCtx, ProjectId, QosPolicyId, QosRuleId, Timestamp};
use serde_json::json;

/// The highest rate and burst, in thousands of bits (per second). Source: the network API's limit, a 32-bit number.
pub const KBPS_MAX: u64 = 2_147_483_647;

/// The marks that the network API knows (RFC 2474, 2597, 3246: class selectors, assured and expedited forwarding).
pub const DSCP_MARKS: &[u8] = &[0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 46, 48, 56];

/// A policy to make.
#[derive(Debug, Clone, Default)]
pub struct QosPolicyNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether the project's new networks get it.
    pub is_default: bool,
    /// Words of its owner.
    pub tags: Vec<String>,
}

/// What of a policy may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct QosPolicyChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub shared: Option<bool>,
    /// Whether the project's new networks get it.
    pub is_default: Option<bool>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

const POLICY: (&str, &str) = ("QosPolicyNotFound", "QoS policy");

fn no_rule(policy: QosPolicyId, id: QosRuleId) -> EngineError {
    EngineError::NotFound { code: "QosRuleNotFound", kind: "QoS rule", id: format!("{id} for policy {policy}") }
}

fn second_default(project: ProjectId) -> EngineError {
    EngineError::Conflict {
        code: "QoSPolicyDefaultAlreadyExists",
        message: format!("A default QoS policy exists for project {project}."),
    }
}

fn checked(kind: QosRuleKind) -> Result<(), EngineError> {
    match kind {
        QosRuleKind::BandwidthLimit { max_kbps, max_burst_kbps, .. } => {
            if max_kbps > KBPS_MAX || max_burst_kbps > KBPS_MAX {
                return Err(EngineError::invalid(format!("A rate is at most {KBPS_MAX} kbps.")));
            }
        }
        QosRuleKind::DscpMarking { mark } => {
            if !DSCP_MARKS.contains(&mark) {
                return Err(EngineError::invalid(format!(
                    "Invalid input for dscp_mark. Reason: '{mark}' is not in {DSCP_MARKS:?}."
                )));
            }
        }
    }
    Ok(())
}

impl Engine {
    /// Makes a policy.
    ///
    /// # Errors
    /// Policy; `QoSPolicyDefaultAlreadyExists`.
    pub async fn qos_policy_create(&self, ctx: &OpCtx, new: QosPolicyNew) -> Result<QosPolicy, EngineError> {
        authorize(ctx, policy::QOS_POLICY_CREATE, &Target::own(ctx))?;
        let project_id = own_project(ctx, new.project_id)?;
        let now = Timestamp::now();
        let made = QosPolicy {
            id: QosPolicyId::new(),
            project_id,
            name: new.name,
            description: new.description,
            shared: new.shared,
            is_default: new.is_default,
            tags: new.tags,
            rules: Vec::new(),
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        if made.is_default && tx.qos_policy_default(project_id).await?.is_some() {
            return Err(second_default(project_id));
        }
        tx.qos_policy_insert(&made).await?;
        if made.shared {
            self.share_with_all(&tx, RbacType::QosPolicy, made.id.0, project_id, RbacAction::Shared).await?;
        }
        self.qos_audit(&tx, policy::QOS_POLICY_CREATE, &made).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn qos_audit(&self, tx: &Tx, action: Action, of: &QosPolicy) -> Result<(), EngineError> {
        let detail = json!({ "name": of.name, "shared": of.shared });
        let (id, project_id) = (of.id.to_string(), Some(of.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "qos_policy", id, project_id, detail: &detail }).await?)
    }

    async fn qos_policy_reached(
        &self,
        db: &Db,
        ctx: &OpCtx,
        (action, seen): (Action, bool),
        id: QosPolicyId,
    ) -> Result<QosPolicy, EngineError> {
        let mut of = found(db.qos_policy_get(id).await?, POLICY.0, POLICY.1, id)?;
        self.reach(db, ctx, (action, seen), (of.project_id, &mut of.shared), POLICY, id.0).await?;
        Ok(of)
    }

    /// The policy, if the caller may put it on things of its own.
    pub(crate) async fn qos_policy_usable(
        &self,
        tx: &Tx,
        id: Option<QosPolicyId>,
    ) -> Result<Option<QosPolicyId>, EngineError> {
        if let Some(id) = id {
            let ctx = *tx.ctx();
            self.qos_policy_reached(tx, &ctx, (policy::QOS_POLICY_GET, true), id).await?;
        }
        Ok(id)
    }

    /// The policy with this id.
    ///
    /// # Errors
    /// `QosPolicyNotFound`.
    pub async fn qos_policy_get(&self, ctx: &OpCtx, id: QosPolicyId) -> Result<QosPolicy, EngineError> {
        self.qos_policy_reached(self.store(), ctx, (policy::QOS_POLICY_GET, true), id).await
    }

    /// A page of policies with their rules.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn qos_policy_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<QosPolicy>, EngineError> {
        authorize(ctx, policy::QOS_POLICY_LIST, &Target::own(ctx))?;
        let mut page = self.store().qos_policy_list(&seen_by(ctx, listing)?).await?;
        let marks = page.rows.iter_mut().map(|p| (p.id.0, p.project_id, &mut p.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Changes a policy.
    ///
    /// # Errors
    /// `QosPolicyNotFound`, `QoSPolicyDefaultAlreadyExists`; `RbacPolicyInUse` for one that shall be shared no longer while
    /// others use it.
    pub async fn qos_policy_update(
        &self,
        ctx: &OpCtx,
        id: QosPolicyId,
        change: QosPolicyChange,
    ) -> Result<QosPolicy, EngineError> {
        authorize(ctx, policy::QOS_POLICY_UPDATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut of = self.qos_policy_reached(&tx, ctx, (policy::QOS_POLICY_UPDATE, false), id).await?;
        unchanged(change.if_match, of.revision)?;
        of.name = change.name.unwrap_or(of.name);
        of.description = change.description.unwrap_or(of.description);
        of.is_default = change.is_default.unwrap_or(of.is_default);
        let other = tx.qos_policy_default(of.project_id).await?;
        if of.is_default && other.is_some_and(|other| other != id) {
            return Err(second_default(of.project_id));
        }
        match change.shared {
            Some(true) if !of.shared => {
                self.share_with_all(&tx, RbacType::QosPolicy, id.0, of.project_id, RbacAction::Shared).await?;
            }
            Some(false) if of.shared => {
                for shared in tx.rbac_list_by_object(id.0).await?.iter().filter(|p| p.target.is_none()) {
                    self.sharing_ends(&tx, shared, of.project_id).await?;
                }
                self.share_with_all_end(&tx, id.0, RbacAction::Shared).await?;
            }
            Some(_) | None => {}
        }
        tx.qos_policy_update(&of).await?;
        tx.rbac_settle(RbacType::QosPolicy, id.0).await?;
        self.qos_audit(&tx, policy::QOS_POLICY_UPDATE, &of).await?;
        let of = found(tx.qos_policy_get(id).await?, POLICY.0, POLICY.1, id)?;
        self.commit(tx).await?;
        Ok(of)
    }

    /// Removes a policy with its rules.
    ///
    /// # Errors
    /// `QosPolicyNotFound`; `QosPolicyInUse` while networks, ports or floating IPs carry it.
    pub async fn qos_policy_delete(
        &self,
        ctx: &OpCtx,
        id: QosPolicyId,
        if_match: Option<u64>,
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_POLICY_DELETE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let of = self.qos_policy_reached(&tx, ctx, (policy::QOS_POLICY_DELETE, false), id).await?;
        unchanged(if_match, of.revision)?;
        match tx.qos_policy_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "QosPolicyInUse",
                    message: format!("QoS Policy {id} is used by networks, ports or floating IPs."),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.shares_forget(&tx, id.0).await?;
        self.qos_audit(&tx, policy::QOS_POLICY_DELETE, &of).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// A rule of a policy.
    ///
    /// # Errors
    /// `QosPolicyNotFound`, `QosRuleNotFound`.
    pub async fn qos_rule_get(
        &self,
        ctx: &OpCtx,
        policy_id: QosPolicyId,
        id: QosRuleId,
        word: &str,
    ) -> Result<QosRule, EngineError> {
        authorize(ctx, policy::QOS_RULE_LIST, &Target::own(ctx))?;
        let of = self.qos_policy_get(ctx, policy_id).await?;
        let rule = of.rules.into_iter().find(|rule| rule.id == id && rule.kind.word() == word);
        rule.ok_or_else(|| no_rule(policy_id, id))
    }

    /// Adds a rule to a policy.
    ///
    /// # Errors
    /// `QosPolicyNotFound`; `QoSRulesConflict` if the policy has one of this kind and direction; 400 for what cannot be.
    pub async fn qos_rule_create(
        &self,
        ctx: &OpCtx,
        policy_id: QosPolicyId,
        kind: QosRuleKind,
    ) -> Result<QosRule, EngineError> {
        authorize(ctx, policy::QOS_RULE_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let of = self.qos_policy_reached(&tx, ctx, (policy::QOS_RULE_CREATE, false), policy_id).await?;
        checked(kind)?;
        let rule = QosRule { id: QosRuleId::new(), policy_id, kind };
        if !tx.qos_rule_insert(&rule).await? {
            return Err(rule_conflict(policy_id));
        }
        self.qos_rules_changed(&tx, policy::QOS_RULE_CREATE, &of).await?;
        self.commit(tx).await?;
        Ok(rule)
    }

    /// Tells every node that enforces a policy.
    async fn qos_rules_changed(&self, tx: &Tx, action: Action, of: &QosPolicy) -> Result<(), EngineError> {
        tx.qos_policy_bump(of.id).await?;
        let networks = tx.qos_policy_networks(of.id).await?;
        tx.nodes_touch_by_networks(&networks).await?;
        self.qos_audit(tx, action, of).await
    }

    /// Changes what a rule says; `change` gets what it said.
    ///
    /// # Errors
    /// `QosPolicyNotFound`, `QosRuleNotFound`, `QoSRulesConflict`; 400 for what cannot be.
    pub async fn qos_rule_update(
        &self,
        ctx: &OpCtx,
        policy_id: QosPolicyId,
        id: QosRuleId,
        word: &str,
        change: impl FnOnce(QosRuleKind) -> QosRuleKind + Send,
    ) -> Result<QosRule, EngineError> {
        authorize(ctx, policy::QOS_RULE_UPDATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let of = self.qos_policy_reached(&tx, ctx, (policy::QOS_RULE_UPDATE, false), policy_id).await?;
        let rule = of.rules.iter().find(|rule| rule.id == id && rule.kind.word() == word);
        let mut rule = *rule.ok_or_else(|| no_rule(policy_id, id))?;
        rule.kind = change(rule.kind);
        checked(rule.kind)?;
        tx.qos_rule_update(&rule).await.map_err(|error| match error {
            StoreError::Duplicate(_) => rule_conflict(policy_id),
            other => other.into(),
        })?;
        self.qos_rules_changed(&tx, policy::QOS_RULE_UPDATE, &of).await?;
        self.commit(tx).await?;
        Ok(rule)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// `QosPolicyNotFound`, `QosRuleNotFound`.
    pub async fn qos_rule_delete(
        &self,
        ctx: &OpCtx,
        policy_id: QosPolicyId,
        id: QosRuleId,
        word: &str,
    ) -> Result<(), EngineError> {
        authorize(ctx, policy::QOS_RULE_DELETE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let of = self.qos_policy_reached(&tx, ctx, (policy::QOS_RULE_DELETE, false), policy_id).await?;
        if !of.rules.iter().any(|rule| rule.id == id && rule.kind.word() == word) || !tx.qos_rule_delete(id).await? {
            return Err(no_rule(policy_id, id));
        }
        self.qos_rules_changed(&tx, policy::QOS_RULE_DELETE, &of).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// What kinds of rules there are.
    ///
    /// # Errors
    /// Policy.
    pub fn qos_rule_types(&self, ctx: &OpCtx) -> Result<&'static [&'static str], EngineError> {
        authorize(ctx, policy::QOS_RULE_TYPE_LIST, &Target::own(ctx))?;
        Ok(&["bandwidth_limit", "dscp_marking"])
    }

    /// One kind of rule, with what it may say; for administrators.
    ///
    /// # Errors
    /// Policy; `QosRuleTypeNotFound`.
    pub fn qos_rule_type(&self, ctx: &OpCtx, word: &str) -> Result<&'static str, EngineError> {
        authorize(ctx, policy::QOS_RULE_TYPE_GET, &Target::default())?;
        let known = self.qos_rule_types(ctx)?.iter().find(|known| **known == word);
        let shown: String = word.chars().take(64).collect();
        found(known.copied(), "QosRuleTypeNotFound", "QoS rule type", shown)
    }
}

fn rule_conflict(policy: QosPolicyId) -> EngineError {
    EngineError::Conflict {
        code: "QoSRulesConflict",
        message: format!("QoS policy {policy} has a rule of this type and direction already."),
    }
}
