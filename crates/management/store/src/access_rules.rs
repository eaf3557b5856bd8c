//! Access rules: what application credentials that have some may call.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{AccessRuleId, ApplicationCredentialId, UserId};

/// One kind of call that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Its id.
    pub id: AccessRuleId,
    /// The type of the service, such as `compute`.
    pub service: String,
    /// The HTTP method.
    pub method: String,
    /// The path, with `*` for one part, `**` for any and `{word}` for one part.
    pub path: String,
}

fn access_rule(row: &Row) -> Result<AccessRule, StoreError> {
    Ok(AccessRule {
        id: row.get("id")?,
        service: row.get("service")?,
        method: row.get("method")?,
        path: row.get("path")?,
    })
}

impl Db {
    /// A user's rules by id, those that match, at most `limit` after `marker`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn access_rule_list(
        &self,
        user_id: UserId,
        wanted: [Option<&str>; 3],
        marker: Option<AccessRuleId>,
        limit: u32,
    ) -> Result<Vec<AccessRule>, StoreError> {
        let mut filter = Where::default();
        filter.and("user_id = ?", params![user_id]);
        for (column, value) in ["service", "method", "path"].into_iter().zip(wanted) {
            if let Some(value) = value {
                filter.and(&format!("{column} = ?"), params![value]);
            }
        }
        if let Some(marker) = marker {
            filter.and("id > ?", params![marker]);
        }
        let sql =
            format!("SELECT id, service, method, path FROM access_rules{} ORDER BY id LIMIT {limit}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(access_rule).collect()
    }

    /// A rule of a user.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn access_rule_get(&self, user_id: UserId, id: AccessRuleId) -> Result<Option<AccessRule>, StoreError> {
        let sql = "SELECT id, service, method, path FROM access_rules WHERE id = $1 AND user_id = $2";
        self.one(sql, params![id, user_id]).await?.as_ref().map(access_rule).transpose()
    }

    /// The rules of application credentials, each with the credential that it belongs to.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn application_credential_rules(
        &self,
        ids: Vec<ApplicationCredentialId>,
    ) -> Result<Vec<(ApplicationCredentialId, AccessRule)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("c.credential_id", ids);
        let sql = format!(
            "SELECT c.credential_id, r.id, r.service, r.method, r.path FROM application_credential_rules c
             JOIN access_rules r ON r.id = c.rule_id{} ORDER BY r.id",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|row| Ok((row.get("credential_id")?, access_rule(row)?))).collect()
    }
}

impl Tx {
    /// Lets an application credential call what a rule says; the rule is made unless the user has the same one. Two
    /// statements and a read.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the user or credential is gone.
    pub async fn application_credential_rule_add(
        &self,
        user_id: UserId,
        credential_id: ApplicationCredentialId,
        rule: &AccessRule,
    ) -> Result<AccessRule, StoreError> {
        self.exec(
            "INSERT INTO access_rules (id, user_id, service, method, path) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (user_id, service, method, path) DO NOTHING",
            params![rule.id, user_id, &rule.service, &rule.method, &rule.path],
        )
        .await?;
        let texts = [Some(rule.service.as_str()), Some(rule.method.as_str()), Some(rule.path.as_str())];
        let found = self.access_rule_list(user_id, texts, None, 1).await?.pop();
        let found = found.ok_or(StoreError::Stale("the access rule"))?;
        self.exec(
            "INSERT INTO application_credential_rules (credential_id, rule_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            params![credential_id, found.id],
        )
        .await?;
        Ok(found)
    }

    /// Deletes a rule of a user; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while an application credential has it.
    pub async fn access_rule_delete(&self, user_id: UserId, id: AccessRuleId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM access_rules WHERE id = $1 AND user_id = $2";
        Ok(self.exec(sql, params![id, user_id]).await? == 1)
    }
}
