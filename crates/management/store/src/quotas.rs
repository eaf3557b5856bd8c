//! Quotas: how much of each resource a project may have, claimed by a conditional write in the transaction that uses it.

use crate::sql::{Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::ProjectId;

macro_rules! resources { ($($(#[$doc:meta])* $name:ident = $text:literal, $default:literal;)*) => {
    /// A resource that a project has a quota of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum QuotaResource { $($(#[$doc])* $name),* }

    impl QuotaResource {
        /// Every resource.
        pub const ALL: &[QuotaResource] = &[$(QuotaResource::$name),*];

        /// The name in the database and in the APIs.
        pub const fn name(self) -> &'static str { match self { $(Self::$name => $text),* } }

        /// What a project may have unless its quota says otherwise; -1 is no limit.
        pub const fn default_cap(self) -> i64 { match self { $(Self::$name => $default),* } }
    }
}; }

resources! {
    /// Servers.
    Instances = "instances", 10;
    /// Virtual CPUs of servers.
    Cores = "cores", 20;
    /// Memory of servers, in MiB.
    RamMib = "ram", 51_200;
    /// Server groups.
    ServerGroups = "server_groups", 10;
    /// Servers of one group: a measure.
    ServerGroupMembers = "server_group_members", 10;
    /// Key and value pairs of one server: a measure.
    MetadataItems = "metadata_items", 128;
    /// Key pairs of one user: a measure.
    KeyPairs = "key_pairs", 100;
    /// Files that one server is given when it is made: a measure.
    InjectedFiles = "injected_files", 5;
    /// The size of one such file, in bytes: a measure.
    InjectedFileBytes = "injected_file_content_bytes", 10_240;
    /// The length of such a file's path, in bytes: a measure.
    InjectedFilePathBytes = "injected_file_path_bytes", 255;
    /// Addresses of servers, which ports have had for long: kept for clients that set it, and limits nothing.
    FixedIps = "fixed_ips", -1;
    /// Networks.
    Networks = "network", 100;
    /// Subnets.
    Subnets = "subnet", 100;
    /// Subnet pools.
    SubnetPools = "subnetpool", -1;
    /// Ports.
    Ports = "port", 500;
    /// Routers.
    Routers = "router", 10;
    /// Floating IPs.
    FloatingIps = "floatingip", 50;
    /// Security groups.
    SecurityGroups = "security_group", 10;
    /// Security group rules.
    SecurityGroupRules = "security_group_rule", 100;
    /// Policies that share things of the network.
    RbacPolicies = "rbac_policy", 10;
    /// Images.
    Images = "images", 100;
    /// Volumes.
    Volumes = "volumes", 10;
    /// Snapshots of volumes.
    VolumeSnapshots = "snapshots", 10;
    /// The size of volumes and their snapshots together, in GiB.
    VolumeGigabytes = "gigabytes", 1_000;
    /// The size of one volume, in GiB.
    VolumeGigabytesEach = "per_volume_gigabytes", -1;
    /// Backups of volumes.
    VolumeBackups = "backups", 10;
    /// The size of backups together, in GiB.
    VolumeBackupGigabytes = "backup_gigabytes", 1_000;
    /// Groups of volumes.
    VolumeGroups = "groups", 10;
}

impl QuotaResource {
    /// Whether this limits each thing of its kind rather than all of them together: nothing is claimed of it.
    pub const fn is_measure(self) -> bool {
        matches!(
            self,
            Self::ServerGroupMembers
                | Self::MetadataItems
                | Self::KeyPairs
                | Self::InjectedFiles
                | Self::InjectedFileBytes
                | Self::InjectedFilePathBytes
        )
    }
}

/// A project's quota of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The resource.
    pub resource: QuotaResource,
    /// The most that may be used; -1 is no limit.
    pub cap: i64,
    /// What is used.
    pub used: i64,
}

/// Whose quotas are what a project may have unless its own quota says otherwise: no project has this id.
const EVERYBODY: ProjectId = ProjectId(uuid::Uuid::nil());

impl Db {
    /// A project's quotas of these resources, in their order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_list(
        &self,
        project_id: ProjectId,
        resources: &[QuotaResource],
    ) -> Result<Vec<Quota>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("project_id", vec![EVERYBODY, project_id]);
        filter.and_in("resource", resources.iter().map(|r| r.name()).collect());
        // The nil id comes first in every order of ids, so that a project's own quota is read after everybody's.
        let sql = format!("SELECT project_id, resource, cap, used FROM quotas{} ORDER BY project_id", filter.sql());
        let mut quotas: Vec<Quota> =
            resources.iter().map(|&resource| Quota { resource, cap: resource.default_cap(), used: 0 }).collect();
        for row in self.all(sql, filter.params).await? {
            let name: String = row.get("resource")?;
            if let Some(quota) = quotas.iter_mut().find(|q| q.resource.name() == name) {
                quota.cap = row.opt("cap")?.unwrap_or(quota.cap);
                if row.get::<ProjectId>("project_id")? == project_id {
                    quota.used = row.get("used")?;
                }
            }
        }
        Ok(quotas)
    }

    /// What a project may have of these resources unless its own quota says otherwise.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_defaults(&self, resources: &[QuotaResource]) -> Result<Vec<Quota>, StoreError> {
        self.quota_list(EVERYBODY, resources).await
    }

    /// The projects with a quota of their own of one of these resources, with their quotas of all of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_list_of_all(
        &self,
        resources: &[QuotaResource],
    ) -> Result<Vec<(ProjectId, Vec<Quota>)>, StoreError> {
        let mut filter = Where::default();
        filter.and("cap IS NOT NULL", vec![]);
        filter.and("project_id <> ?", params![EVERYBODY]);
        filter.and_in("resource", resources.iter().map(|r| r.name()).collect());
        let sql = format!("SELECT project_id, resource, cap, used FROM quotas{} ORDER BY project_id", filter.sql());
        let mut all: Vec<(ProjectId, Vec<Quota>)> = Vec::new();
        for row in self.all(sql, filter.params).await? {
            let project: ProjectId = row.get("project_id")?;
            if all.last().is_none_or(|(last, _)| *last != project) {
                let fresh = |&resource: &QuotaResource| Quota { resource, cap: resource.default_cap(), used: 0 };
                all.push((project, resources.iter().map(fresh).collect()));
            }
            let name: String = row.get("resource")?;
            let quotas = all.last_mut().map(|(_, quotas)| quotas);
            if let Some(quota) = quotas.and_then(|q| q.iter_mut().find(|q| q.resource.name() == name)) {
                quota.cap = row.get("cap")?;
                quota.used = row.get("used")?;
            }
        }
        Ok(all)
    }
}

impl Tx {
    /// Claims `amount` of a resource for a project; `false` if its quota does not allow it, and then nothing is claimed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_claim(
        &self,
        project_id: ProjectId,
        resource: QuotaResource,
        amount: u64,
    ) -> Result<bool, StoreError> {
        self.quota_claim_of(project_id, resource.name(), amount, resource.default_cap()).await
    }

    /// [`Tx::quota_claim`] of a resource by its name in the database.
    pub(crate) async fn quota_claim_of(
        &self,
        project_id: ProjectId,
        resource: &str,
        amount: u64,
        default_cap: i64,
    ) -> Result<bool, StoreError> {
        const CLAIM: &str = "UPDATE quotas SET used = used + $3 WHERE project_id = $1 AND resource = $2
             AND (COALESCE(cap, (SELECT d.cap FROM quotas d WHERE d.project_id = $5 AND d.resource = $2), $4) < 0
             OR used + $3 <= COALESCE(cap, (SELECT d.cap FROM quotas d WHERE d.project_id = $5 AND d.resource = $2), $4))";
        let values = || params![project_id, resource, amount, default_cap, EVERYBODY];
        if self.exec(CLAIM, values()).await? == 1 {
            return Ok(true);
        }
        // The row may be missing, or another transaction may have made it meanwhile: either way it is there now.
        self.exec(
            "INSERT INTO quotas (project_id, resource, used) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING",
            params![project_id, resource],
        )
        .await?;
        Ok(self.exec(CLAIM, values()).await? == 1)
    }

    /// Gives `amount` of a resource back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_release(
        &self,
        project_id: ProjectId,
        resource: QuotaResource,
        amount: u64,
    ) -> Result<(), StoreError> {
        self.quota_release_of(project_id, resource.name(), amount).await
    }

    /// [`Tx::quota_release`] of a resource by its name in the database.
    pub(crate) async fn quota_release_of(
        &self,
        project_id: ProjectId,
        resource: &str,
        amount: u64,
    ) -> Result<(), StoreError> {
        self.exec(
            "UPDATE quotas SET used = CASE WHEN used < $3 THEN 0 ELSE used - $3 END WHERE project_id = $1 AND resource = $2",
            params![project_id, resource, amount],
        )
        .await?;
        Ok(())
    }

    /// Sets what a project may have unless its own quota says otherwise; `None` is what the cloud began with.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_default_set(&self, resource: QuotaResource, cap: Option<i64>) -> Result<(), StoreError> {
        self.quota_set(EVERYBODY, resource, cap).await
    }

    /// Sets a project's quota; `None` is the cloud's default, -1 no limit.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn quota_set(
        &self,
        project_id: ProjectId,
        resource: QuotaResource,
        cap: Option<i64>,
    ) -> Result<(), StoreError> {
        self.quota_set_of(project_id, resource.name(), cap).await
    }

    /// [`Tx::quota_set`] of a resource by its name in the database.
    pub(crate) async fn quota_set_of(
        &self,
        project_id: ProjectId,
        resource: &str,
        cap: Option<i64>,
    ) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO quotas (project_id, resource, cap, used) VALUES ($1, $2, $3, 0)
             ON CONFLICT (project_id, resource) DO UPDATE SET cap = excluded.cap",
            params![project_id, resource, cap],
        )
        .await?;
        Ok(())
    }
}
