//! What new security groups begin with: rules that administrators choose.

use super::rules::{RuleNew, rule};
use crate::networks::found;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, DefaultRule, Listing, Page, Tx};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{DefaultRuleId, OpCtx, ProjectId, Timestamp};
use serde_json::json;

/// The most rules that a new group begins with.
const DEFAULT_RULES_MAX: u64 = 100;

/// A rule that new groups shall begin with.
#[derive(Debug, Clone)]
pub struct DefaultRuleNew {
    /// What it says; its group is ignored.
    pub rule: RuleNew,
    /// Whether the other side is the new group itself.
    pub remote_self: bool,
    /// Whether projects' default groups get it.
    pub in_default: bool,
    /// Whether all other groups get it.
    pub in_others: bool,
}

const RULE: (&str, &str) = ("DefaultSecurityGroupRuleNotFound", "Default security group rule");

fn first(direction: Direction, ethertype: EtherType) -> DefaultRule {
    DefaultRule {
        id: DefaultRuleId::new(),
        description: String::new(),
        direction,
        ethertype,
        protocol: None,
        protocol_number: None,
        port_min: None,
        port_max: None,
        remote_cidr: None,
        remote_self: direction == Direction::Ingress,
        in_default: true,
        in_others: direction == Direction::Egress,
    }
}

impl Engine {
    /// The rules that new groups begin with. Every cloud begins with four: everything may leave, and what comes from the
    /// default group itself may enter it.
    pub(crate) async fn default_rules(&self, tx: &Tx) -> Result<Vec<DefaultRule>, EngineError> {
        if tx.default_rules_first().await? {
            for direction in [Direction::Egress, Direction::Ingress] {
                for ethertype in [EtherType::V4, EtherType::V6] {
                    tx.default_rule_insert(&first(direction, ethertype)).await?;
                }
            }
        }
        let listing = Listing { limit: Some(DEFAULT_RULES_MAX), ..Listing::default() };
        Ok(tx.default_rule_list(&listing).await?.rows)
    }

    /// A page of these rules.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn default_rule_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<DefaultRule>, EngineError> {
        authorize(ctx, policy::DEFAULT_RULE_LIST, &Target::own(ctx))?;
        let page = self.store().default_rule_list(&listing).await?;
        if !page.rows.is_empty() {
            return Ok(page);
        }
        // Nobody may have made a group yet.
        let tx = self.store().begin_unaudited().await?;
        self.default_rules(&tx).await?;
        tx.commit().await?;
        Ok(self.store().default_rule_list(&listing).await?)
    }

    /// The rule with this id.
    ///
    /// # Errors
    /// `DefaultSecurityGroupRuleNotFound`.
    pub async fn default_rule_get(&self, ctx: &OpCtx, id: DefaultRuleId) -> Result<DefaultRule, EngineError> {
        authorize(ctx, policy::DEFAULT_RULE_GET, &Target::own(ctx))?;
        found(self.store().default_rule_get(id).await?, RULE.0, RULE.1, id)
    }

    /// Adds a rule that new groups begin with; those that are there stay as they are.
    ///
    /// # Errors
    /// 400 for a rule that cannot be; `DefaultSecurityGroupRuleExists`.
    pub async fn default_rule_create(&self, ctx: &OpCtx, new: DefaultRuleNew) -> Result<DefaultRule, EngineError> {
        authorize(ctx, policy::DEFAULT_RULE_CREATE, &Target::default())?;
        if new.remote_self && new.rule.remote_cidr.is_some() {
            return Err(EngineError::Invalid {
                code: "SecurityGroupMultipleRemoteEntites",
                message: "Only remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.".into(),
            });
        }
        let says = rule(&new.rule, ProjectId(uuid::Uuid::nil()), Timestamp::now())?;
        let made = DefaultRule {
            id: DefaultRuleId::new(),
            description: says.description,
            direction: says.direction,
            ethertype: says.ethertype,
            protocol: says.protocol,
            protocol_number: says.protocol_number,
            port_min: says.port_min,
            port_max: says.port_max,
            remote_cidr: says.remote_cidr.map(|cidr| cidr.trunc()),
            remote_self: new.remote_self,
            in_default: new.in_default,
            in_others: new.in_others,
        };
        let tx = self.store().begin(ctx).await?;
        let present = self.default_rules(&tx).await?;
        let blank =
            |one: &DefaultRule| DefaultRule { id: made.id, description: String::new(), protocol: None, ..one.clone() };
        if let Some(same) = present.iter().find(|one| blank(one) == blank(&made)) {
            return Err(EngineError::Conflict {
                code: "DefaultSecurityGroupRuleExists",
                message: format!("Default Security group rule template already exists. Rule id is {}.", same.id),
            });
        }
        if u64::try_from(present.len()).unwrap_or(u64::MAX) >= DEFAULT_RULES_MAX {
            return Err(EngineError::invalid(format!("New groups begin with at most {DEFAULT_RULES_MAX} rules.")));
        }
        tx.default_rule_insert(&made).await?;
        self.default_rule_audit(&tx, policy::DEFAULT_RULE_CREATE, &made).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn default_rule_audit(&self, tx: &Tx, action: Action, of: &DefaultRule) -> Result<(), EngineError> {
        let detail = json!({ "in_default": of.in_default, "in_others": of.in_others });
        let (id, project_id) = (of.id.to_string(), None);
        Ok(tx.audit(AuditEntry { action, kind: "default_rule", id, project_id, detail: &detail }).await?)
    }

    /// Removes a rule that new groups begin with.
    ///
    /// # Errors
    /// `DefaultSecurityGroupRuleNotFound`.
    pub async fn default_rule_delete(&self, ctx: &OpCtx, id: DefaultRuleId) -> Result<(), EngineError> {
        authorize(ctx, policy::DEFAULT_RULE_DELETE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let of = found(tx.default_rule_get(id).await?, RULE.0, RULE.1, id)?;
        tx.default_rule_delete(id).await?;
        self.default_rule_audit(&tx, policy::DEFAULT_RULE_DELETE, &of).await?;
        self.commit(tx).await?;
        Ok(())
    }
}
