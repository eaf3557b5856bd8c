//! Quotas of volumes of one type, beside those of all types together. None has a limit unless somebody sets one.

use crate::sql::{Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, VolumeTypeId};
use std::collections::HashMap;

/// The most types whose quotas are shown.
const TYPES_MAX: u32 = 1_000;

/// What is counted of the volumes of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TypeQuotaKind {
    /// Volumes.
    Volumes,
    /// Snapshots of them.
    Snapshots,
    /// The size of both together, in GiB.
    Gigabytes,
}

impl TypeQuotaKind {
    /// Every kind.
    pub const ALL: &[TypeQuotaKind] = &[Self::Volumes, Self::Snapshots, Self::Gigabytes];

    /// The word in the API, before `_` and the name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Volumes => "volumes",
            Self::Snapshots => "snapshots",
            Self::Gigabytes => "gigabytes",
        }
    }

    /// The name in the database: by the type's id, which stays when it gets another name.
    fn key(self, id: VolumeTypeId) -> String {
        format!("{}:{id}", self.name())
    }
}

/// A project's quota of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeQuota {
    /// What is counted.
    pub kind: TypeQuotaKind,
    /// The type.
    pub volume_type_id: VolumeTypeId,
    /// Its name.
    pub type_name: String,
    /// The most that may be used; -1 is no limit.
    pub cap: i64,
    /// What is used.
    pub used: i64,
}

impl Db {
    /// A project's quotas of each type of volume, by the types' names.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_list(&self, project: ProjectId) -> Result<Vec<TypeQuota>, StoreError> {
        let sql = format!("SELECT id, name FROM volume_types ORDER BY name LIMIT {TYPES_MAX}");
        let types = self.all(sql, vec![]).await?;
        let mut quotas = Vec::with_capacity(types.len() * TypeQuotaKind::ALL.len());
        for row in &types {
            let (volume_type_id, type_name): (VolumeTypeId, String) = (row.get("id")?, row.get("name")?);
            quotas.extend(TypeQuotaKind::ALL.iter().map(|&kind| {
                let type_name = type_name.clone();
                TypeQuota { kind, volume_type_id, type_name, cap: -1, used: 0 }
            }));
        }
        let everybody = ProjectId(uuid::Uuid::nil());
        let mut filter = Where::default();
        filter.and_in("project_id", vec![everybody, project]);
        filter.and("resource LIKE '%:%'", vec![]);
        // The nil id comes first in every order of ids, so that a project's own quota is read after everybody's.
        let sql = format!("SELECT project_id, resource, cap, used FROM quotas{} ORDER BY project_id", filter.sql());
        let mut known: HashMap<String, (Option<i64>, i64)> = HashMap::new();
        for row in self.all(sql, filter.params).await? {
            let known = known.entry(row.get("resource")?).or_default();
            known.0 = row.opt("cap")?.or(known.0);
            if row.get::<ProjectId>("project_id")? == project {
                known.1 = row.get("used")?;
            }
        }
        for quota in &mut quotas {
            if let Some((cap, used)) = known.get(&quota.kind.key(quota.volume_type_id)) {
                (quota.cap, quota.used) = (cap.unwrap_or(-1), *used);
            }
        }
        Ok(quotas)
    }

    /// What projects may have of each type unless their own quota says otherwise.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_defaults(&self) -> Result<Vec<TypeQuota>, StoreError> {
        self.type_quota_list(ProjectId(uuid::Uuid::nil())).await
    }
}

impl Tx {
    /// Claims `amount` of what is counted of a type; `false` if the quota does not allow it, and then nothing is claimed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_claim(
        &self,
        project: ProjectId,
        kind: TypeQuotaKind,
        id: VolumeTypeId,
        amount: u64,
    ) -> Result<bool, StoreError> {
        self.quota_claim_of(project, &kind.key(id), amount, -1).await
    }

    /// Gives `amount` of what is counted of a type back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_release(
        &self,
        project: ProjectId,
        kind: TypeQuotaKind,
        id: VolumeTypeId,
        amount: u64,
    ) -> Result<(), StoreError> {
        self.quota_release_of(project, &kind.key(id), amount).await
    }

    /// Sets a project's quota of a type, or with no project what all have; `None` is the default, -1 no limit.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_set(
        &self,
        project: Option<ProjectId>,
        kind: TypeQuotaKind,
        id: VolumeTypeId,
        cap: Option<i64>,
    ) -> Result<(), StoreError> {
        self.quota_set_of(project.unwrap_or(ProjectId(uuid::Uuid::nil())), &kind.key(id), cap).await
    }

    /// Gives a project the default quotas of all types again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_reset(&self, project: ProjectId) -> Result<(), StoreError> {
        let sql = "UPDATE quotas SET cap = NULL WHERE project_id = $1 AND resource LIKE '%:%'";
        self.exec(sql, params![project]).await?;
        Ok(())
    }

    /// Forgets the quotas of a type that goes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_quota_forget(&self, id: VolumeTypeId) -> Result<(), StoreError> {
        let mut filter = Where::default();
        filter.and_in("resource", TypeQuotaKind::ALL.iter().map(|kind| kind.key(id)).collect());
        self.exec(format!("DELETE FROM quotas{}", filter.sql()), filter.params).await?;
        Ok(())
    }
}
