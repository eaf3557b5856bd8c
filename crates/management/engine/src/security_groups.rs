//! Security groups: sets of filter rules, and the default group that each project has from first sight on.

pub mod rules;
pub mod templates;

use crate::networks::unchanged;
use crate::networks::{found, guard, over_quota, own_project, seen_by};
use crate::{Engine, EngineError};
use arcus_store::{
    AuditEntry, Db, DefaultRule, Listing, Page, QuotaResource, SecurityGroup, SecurityGroupRule, StoreError, Tx,
};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{OpCtx, ProjectId, SecurityGroupId, SecurityGroupRuleId, Timestamp};
use rules::RuleNew;
use serde_json::json;

/// The name of the group that ports get where none is named.
pub const DEFAULT_GROUP: &str = "default";

/// A security group to make.
#[derive(Debug, Clone, Default)]
pub struct SecurityGroupNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Words of its owner.
    pub tags: Vec<String>,
}

const GROUP: (&str, &str) = ("SecurityGroupNotFound", "Security group");
const RULE: (&str, &str) = ("SecurityGroupRuleNotFound", "Security group rule");

fn group_record(project_id: ProjectId, name: &str, description: &str) -> SecurityGroup {
    let now = Timestamp::now();
    SecurityGroup {
        id: SecurityGroupId::new(),
        project_id,
        name: name.to_owned(),
        description: description.to_owned(),
        is_default: false,
        shared: false,
        tags: Vec::new(),
        rules: Vec::new(),
        revision: 1,
        created_at: now,
        updated_at: now,
    }
}

/// The rule of a group that a template makes.
fn rule_of(template: &DefaultRule, group: &SecurityGroup) -> SecurityGroupRule {
    SecurityGroupRule {
        id: SecurityGroupRuleId::new(),
        security_group_id: group.id,
        project_id: group.project_id,
        description: template.description.clone(),
        direction: template.direction,
        ethertype: template.ethertype,
        protocol: template.protocol.clone(),
        protocol_number: template.protocol_number,
        port_min: template.port_min,
        port_max: template.port_max,
        remote_cidr: template.remote_cidr,
        remote_group_id: template.remote_self.then_some(group.id),
        remote_address_group_id: None,
        revision: 1,
        created_at: group.created_at,
        updated_at: group.created_at,
    }
}

impl Engine {
    /// A project's default group, made on first use: what leaves is allowed, and what comes from the group itself.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn default_security_group_in(&self, tx: &Tx, project: ProjectId) -> Result<SecurityGroupId, EngineError> {
        if let Some(id) = tx.security_group_default(project).await? {
            return Ok(id);
        }
        let mut group = group_record(project, DEFAULT_GROUP, "Default security group");
        group.is_default = true;
        if !tx.security_group_insert(&group).await? {
            let made_meanwhile = tx.security_group_default(project).await?;
            return found(made_meanwhile, GROUP.0, GROUP.1, DEFAULT_GROUP);
        }
        let mut rules = 0;
        for template in self.default_rules(tx).await?.iter().filter(|rule| rule.in_default) {
            rules += u64::from(tx.security_group_rule_insert(&rule_of(template, &group)).await?);
        }
        tx.quota_count(project, QuotaResource::SecurityGroups, 1).await?;
        tx.quota_count(project, QuotaResource::SecurityGroupRules, rules).await?;
        Ok(group.id)
    }

    /// Makes the default group of a project that is seen for the first time.
    async fn default_security_group_ensure(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        if self.store().security_group_default(project).await?.is_some() {
            return Ok(());
        }
        let tx = self.store().begin(ctx).await?;
        let id = self.default_security_group_in(&tx, project).await?;
        let entry = AuditEntry {
            action: policy::SECURITY_GROUP_CREATE,
            kind: "security_group",
            id: id.to_string(),
            project_id: Some(project),
            detail: &json!({ "name": DEFAULT_GROUP }),
        };
        tx.audit(entry).await?;
        Ok(tx.commit().await?)
    }

    /// The group of a project that a name or id means.
    ///
    /// # Errors
    /// `SecurityGroupNotFound`; `NoUniqueMatch` if several have the name. A project that was never seen before has no
    /// `default` yet: callers that write use [`Engine::default_security_group_in`] for that name.
    pub async fn security_group_resolve(
        &self,
        db: &Db,
        project: ProjectId,
        name_or_id: &str,
    ) -> Result<SecurityGroupId, EngineError> {
        if let Ok(id) = name_or_id.parse::<SecurityGroupId>()
            && let Some(group) = db.security_group_get(id).await?
            && group.project_id == project
        {
            return Ok(id);
        }
        match db.security_groups_by_name(project, name_or_id).await?.as_slice() {
            [id] => Ok(*id),
            [] => Err(EngineError::not_found(GROUP.0, GROUP.1, name_or_id)),
            _ => Err(EngineError::Conflict {
                code: "NoUniqueMatch",
                message: format!(
                    "Multiple security groups match the name '{name_or_id}': use an id to be more specific."
                ),
            }),
        }
    }

    async fn group_audit(&self, tx: &Tx, action: Action, group: &SecurityGroup) -> Result<(), EngineError> {
        let detail = json!({ "name": group.name });
        let (id, project_id) = (group.id.to_string(), Some(group.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "security_group", id, project_id, detail: &detail }).await?)
    }

    /// Makes groups, all or none. Each begins with the rules that the cloud's
    /// administrators chose; unless they did, two that let everything leave.
    ///
    /// # Errors
    /// `OverQuota`; 409 for a second group named `default`.
    pub async fn security_groups_create(
        &self,
        ctx: &OpCtx,
        wishes: Vec<SecurityGroupNew>,
    ) -> Result<Vec<SecurityGroup>, EngineError> {
        authorize(ctx, policy::SECURITY_GROUP_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut groups = Vec::with_capacity(wishes.len());
        for new in wishes {
            let project = own_project(ctx, new.project_id)?;
            self.default_security_group_in(&tx, project).await?;
            if new.name == DEFAULT_GROUP {
                return Err(EngineError::Conflict {
                    code: "SecurityGroupDefaultAlreadyExists",
                    message: "Default security group already exists.".into(),
                });
            }
            let mut group = group_record(project, &new.name, &new.description);
            group.tags = new.tags;
            if !tx.quota_claim(project, QuotaResource::SecurityGroups, 1).await? {
                return Err(over_quota("security_group"));
            }
            let templates = self.default_rules(&tx).await?;
            let rules: Vec<SecurityGroupRule> =
                templates.iter().filter(|rule| rule.in_others).map(|template| rule_of(template, &group)).collect();
            let count = u64::try_from(rules.len()).unwrap_or(u64::MAX);
            if !tx.quota_claim(project, QuotaResource::SecurityGroupRules, count).await? {
                return Err(over_quota("security_group_rule"));
            }
            tx.security_group_insert(&group).await?;
            for rule in rules {
                tx.security_group_rule_insert(&rule).await?;
                group.rules.push(rule);
            }
            self.group_audit(&tx, policy::SECURITY_GROUP_CREATE, &group).await?;
            groups.push(group);
        }
        tx.commit().await?;
        Ok(groups)
    }

    async fn group_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: SecurityGroupId,
    ) -> Result<SecurityGroup, EngineError> {
        let mut group = found(db.security_group_get(id).await?, GROUP.0, GROUP.1, id)?;
        let seen = action == policy::SECURITY_GROUP_GET;
        self.reach(db, ctx, (action, seen), (group.project_id, &mut group.shared), GROUP, id.0).await?;
        Ok(group)
    }

    /// The group with this id.
    ///
    /// # Errors
    /// `SecurityGroupNotFound`.
    pub async fn security_group_get(&self, ctx: &OpCtx, id: SecurityGroupId) -> Result<SecurityGroup, EngineError> {
        self.group_owned(self.store(), ctx, policy::SECURITY_GROUP_GET, id).await
    }

    /// A page of groups.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn security_group_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<SecurityGroup>, EngineError> {
        authorize(ctx, policy::SECURITY_GROUP_LIST, &Target::own(ctx))?;
        let listing = seen_by(ctx, listing)?;
        if let Some(project) = ctx.project_id() {
            self.default_security_group_ensure(ctx, project).await?;
        }
        let mut page = self.store().security_group_list(&listing).await?;
        let marks = page.rows.iter_mut().map(|g| (g.id.0, g.project_id, &mut g.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Renames or describes a group.
    ///
    /// # Errors
    /// `SecurityGroupNotFound`; 409 for a new name of the default group.
    pub async fn security_group_update(
        &self,
        ctx: &OpCtx,
        id: SecurityGroupId,
        name: Option<String>,
        description: Option<String>,
        if_match: Option<u64>,
    ) -> Result<SecurityGroup, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut group = self.group_owned(&tx, ctx, policy::SECURITY_GROUP_UPDATE, id).await?;
        unchanged(if_match, group.revision)?;
        if !group.is_default && name.as_deref() == Some(DEFAULT_GROUP) {
            return Err(EngineError::Conflict {
                code: "SecurityGroupDefaultAlreadyExists",
                message: "Default security group already exists.".into(),
            });
        }
        if group.is_default && name.as_ref().is_some_and(|name| *name != group.name) {
            return Err(EngineError::Conflict {
                code: "SecurityGroupCannotUpdateDefault",
                message: "Updating default security group not allowed.".into(),
            });
        }
        group.name = name.unwrap_or(group.name);
        group.description = description.unwrap_or(group.description);
        tx.security_group_update(&group).await?;
        self.group_audit(&tx, policy::SECURITY_GROUP_UPDATE, &group).await?;
        let group = found(tx.security_group_get(id).await?, GROUP.0, GROUP.1, id)?;
        tx.commit().await?;
        Ok(group)
    }

    /// Removes a group with its rules and the rules of other groups that let its members in.
    ///
    /// # Errors
    /// `SecurityGroupNotFound`; `SecurityGroupInUse` while ports are in it;
    /// `SecurityGroupCannotRemoveDefault`, except for administrators.
    pub async fn security_group_delete(
        &self,
        ctx: &OpCtx,
        id: SecurityGroupId,
        if_match: Option<u64>,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let group = self.group_owned(&tx, ctx, policy::SECURITY_GROUP_DELETE, id).await?;
        unchanged(if_match, group.revision)?;
        if group.is_default && !ctx.is_admin() {
            return Err(EngineError::Conflict {
                code: "SecurityGroupCannotRemoveDefault",
                message: "Insufficient rights for removing default security group.".into(),
            });
        }
        tx.quota_release(group.project_id, QuotaResource::SecurityGroups, 1).await?;
        for (project, rules) in tx.security_group_rules_delete_about(id).await? {
            tx.quota_release(project, QuotaResource::SecurityGroupRules, rules).await?;
        }
        match tx.security_group_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(EngineError::not_found(GROUP.0, GROUP.1, id)),
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "SecurityGroupInUse",
                    message: format!("Security Group {id} in use."),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.shares_forget(&tx, id.0).await?;
        self.group_audit(&tx, policy::SECURITY_GROUP_DELETE, &group).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Adds rules, all or none.
    ///
    /// # Errors
    /// 400 for a rule that cannot be, `SecurityGroupNotFound`, `SecurityGroupRuleExists`, `OverQuota`.
    pub async fn security_group_rules_create(
        &self,
        ctx: &OpCtx,
        wishes: Vec<RuleNew>,
    ) -> Result<Vec<SecurityGroupRule>, EngineError> {
        authorize(ctx, policy::SECURITY_GROUP_RULE_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut made = Vec::with_capacity(wishes.len());
        for new in wishes {
            let id = new.security_group_id;
            let group = self.group_owned(&tx, ctx, policy::SECURITY_GROUP_RULE_CREATE, id).await?;
            if let Some(remote) = new.remote_group_id {
                self.group_owned(&tx, ctx, policy::SECURITY_GROUP_GET, remote).await?;
            }
            if let Some(remote) = new.remote_address_group_id {
                self.address_group_usable(&tx, remote).await?;
            }
            let rule = rules::rule(&new, group.project_id, Timestamp::now())?;
            if !tx.quota_claim(group.project_id, QuotaResource::SecurityGroupRules, 1).await? {
                return Err(over_quota("security_group_rule"));
            }
            if !tx.security_group_rule_insert(&rule).await? {
                let same = group.rules.iter().find(|r| r.fingerprint() == rule.fingerprint());
                let id = same.map_or_else(String::new, |r| r.id.to_string());
                return Err(EngineError::Conflict {
                    code: "SecurityGroupRuleExists",
                    message: format!("Security group rule already exists. Rule id is {id}."),
                });
            }
            self.rule_changed(&tx, policy::SECURITY_GROUP_RULE_CREATE, &rule).await?;
            made.push(rule);
        }
        self.commit(tx).await?;
        Ok(made)
    }

    async fn rule_changed(&self, tx: &Tx, action: Action, rule: &SecurityGroupRule) -> Result<(), EngineError> {
        tx.security_group_bump(rule.security_group_id).await?;
        tx.nodes_touch_by_groups(&[rule.security_group_id]).await?;
        let detail = json!({ "security_group_id": rule.security_group_id, "rule": rule.fingerprint() });
        let (id, project_id) = (rule.id.to_string(), Some(rule.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "security_group_rule", id, project_id, detail: &detail }).await?)
    }

    async fn rule_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: SecurityGroupRuleId,
    ) -> Result<SecurityGroupRule, EngineError> {
        let rule = found(db.security_group_rule_get(id).await?, RULE.0, RULE.1, id)?;
        match guard(ctx, action, rule.project_id, RULE, id) {
            Err(EngineError::NotFound { .. }) if action == policy::SECURITY_GROUP_RULE_GET => {
                // Whoever sees the group sees its rules.
                let group = self.group_owned(db, ctx, policy::SECURITY_GROUP_GET, rule.security_group_id).await;
                group.map(|_| rule).map_err(|_| EngineError::not_found(RULE.0, RULE.1, id))
            }
            other => other.map(|()| rule),
        }
    }

    /// The rule with this id.
    ///
    /// # Errors
    /// `SecurityGroupRuleNotFound`.
    pub async fn security_group_rule_get(
        &self,
        ctx: &OpCtx,
        id: SecurityGroupRuleId,
    ) -> Result<SecurityGroupRule, EngineError> {
        self.rule_owned(self.store(), ctx, policy::SECURITY_GROUP_RULE_GET, id).await
    }

    /// A page of rules.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn security_group_rule_list(
        &self,
        ctx: &OpCtx,
        listing: Listing,
    ) -> Result<Page<SecurityGroupRule>, EngineError> {
        authorize(ctx, policy::SECURITY_GROUP_RULE_LIST, &Target::own(ctx))?;
        let listing = seen_by(ctx, listing)?;
        if let Some(project) = ctx.project_id() {
            self.default_security_group_ensure(ctx, project).await?;
        }
        Ok(self.store().security_group_rule_list(&listing).await?)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// `SecurityGroupRuleNotFound`.
    pub async fn security_group_rule_delete(&self, ctx: &OpCtx, id: SecurityGroupRuleId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let rule = self.rule_owned(&tx, ctx, policy::SECURITY_GROUP_RULE_DELETE, id).await?;
        tx.quota_release(rule.project_id, QuotaResource::SecurityGroupRules, 1).await?;
        if !tx.security_group_rule_delete(id).await? {
            return Err(EngineError::not_found(RULE.0, RULE.1, id));
        }
        self.rule_changed(&tx, policy::SECURITY_GROUP_RULE_DELETE, &rule).await?;
        self.commit(tx).await?;
        Ok(())
    }
}
