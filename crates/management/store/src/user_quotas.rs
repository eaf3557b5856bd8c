//! What one user may have of a project's compute quota. Few users have such rows; what they use is counted when it matters.

use crate::sql::{Where, params};
use crate::{Db, QuotaResource, ServerDetails, ServerFlavor, StoreError, Tx};
use arcus_types::{ProjectId, UserId};

/// What a user has in a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserUse {
    /// Servers.
    pub servers: u64,
    /// Their virtual CPUs.
    pub vcpus: u64,
    /// Their memory in MiB.
    pub memory_mib: u64,
    /// Server groups.
    pub server_groups: u64,
}

impl UserUse {
    /// How much of a resource that is; `None` if it is not counted by user.
    pub fn of(&self, resource: QuotaResource) -> Option<u64> {
        match resource {
            QuotaResource::Instances => Some(self.servers),
            QuotaResource::Cores => Some(self.vcpus),
            QuotaResource::RamMib => Some(self.memory_mib),
            QuotaResource::ServerGroups => Some(self.server_groups),
            measure if measure.is_measure() => Some(0),
            _ => None,
        }
    }
}

impl Db {
    /// The quotas that a user has in a project; resources without one are limited by the project's alone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_quota_list(
        &self,
        project_id: ProjectId,
        user_id: UserId,
    ) -> Result<Vec<(QuotaResource, i64)>, StoreError> {
        let sql = "SELECT resource, cap FROM user_quotas WHERE project_id = $1 AND user_id = $2";
        let rows = self.all(sql, params![project_id, user_id]).await?;
        let mut quotas = Vec::new();
        for row in &rows {
            let name: String = row.get("resource")?;
            if let Some(&resource) = QuotaResource::ALL.iter().find(|resource| resource.name() == name) {
                quotas.push((resource, row.get("cap")?));
            }
        }
        Ok(quotas)
    }

    /// What a user has in a project. Reads no more servers than the project's quota admits.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_use(&self, project_id: ProjectId, user_id: UserId) -> Result<UserUse, StoreError> {
        let mut filter = Where::default();
        filter.and("project_id = ? AND user_id = ?", params![project_id, user_id]);
        let groups = format!("SELECT COUNT(*) AS n FROM server_groups{}", filter.sql());
        let groups = self.one(groups, filter.params.clone()).await?;
        filter.and("deleted_at IS NULL", vec![]);
        let sql = format!("SELECT flavor, details FROM servers{}", filter.sql());
        let mut uses = UserUse::default();
        if let Some(row) = groups {
            uses.server_groups = row.get("n")?;
        }
        for row in self.all(sql, filter.params).await? {
            let flavor: ServerFlavor = row.json("flavor")?;
            let details: ServerDetails = row.json("details")?;
            // As with the project's quota: the larger of both flavors, until the owner has said which it is to be.
            let other = details.resize.map(|resize| resize.other);
            let (other_vcpus, other_memory) = other.map_or((0, 0), |other| (other.vcpus, other.memory_mib));
            uses.servers += 1;
            uses.vcpus += u64::from(flavor.vcpus.max(other_vcpus));
            uses.memory_mib += flavor.memory_mib.max(other_memory);
        }
        Ok(uses)
    }
}

impl Tx {
    /// Sets a user's quota in a project; -1 is no limit beside the project's.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_quota_set(
        &self,
        project_id: ProjectId,
        user_id: UserId,
        resource: QuotaResource,
        cap: i64,
    ) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO user_quotas (project_id, user_id, resource, cap) VALUES ($1, $2, $3, $4)
             ON CONFLICT (project_id, user_id, resource) DO UPDATE SET cap = excluded.cap",
            params![project_id, user_id, resource.name(), cap],
        )
        .await?;
        Ok(())
    }

    /// Takes a user's quotas in a project away: the project's alone count.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_quotas_delete(&self, project_id: ProjectId, user_id: UserId) -> Result<(), StoreError> {
        let sql = "DELETE FROM user_quotas WHERE project_id = $1 AND user_id = $2";
        self.exec(sql, params![project_id, user_id]).await?;
        Ok(())
    }
}
