//! Subnet pools: ranges that subnets are cut from, so that none of a project's overlap.

mod cut;

use crate::networks::{found, over_quota, own_project, seen_by, unchanged};
use crate::subnets::SubnetNew;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Listing, Page, QuotaResource, RbacAction, RbacType, StoreError, SubnetPool, Tx};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{AddressScopeId, OpCtx, ProjectId, SubnetPoolId, Timestamp};
use ipnet::IpNet;
use serde_json::json;

/// The most ranges of a pool.
const PREFIXES_MAX: usize = 64;

/// A subnet pool to make.
#[derive(Debug, Clone, Default)]
pub struct SubnetPoolNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The ranges, all of one IP version.
    pub prefixes: Vec<IpNet>,
    /// The length of a prefix that is cut where none is named; `None` is the shortest.
    pub prefix_default: Option<u8>,
    /// The shortest prefix that may be cut; `None` is 8 for IPv4, 64 for IPv6.
    pub prefix_min: Option<u8>,
    /// The longest prefix that may be cut; `None` is a single address.
    pub prefix_max: Option<u8>,
    /// How much each project may cut.
    pub quota: Option<u64>,
    /// Whether every project may cut from it.
    pub shared: bool,
    /// Whether it is the pool to take where none is named.
    pub is_default: bool,
    /// The space that its ranges are in.
    pub address_scope_id: Option<AddressScopeId>,
    /// Words of its owner.
    pub tags: Vec<String>,
}

/// What of a subnet pool may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct SubnetPoolChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The ranges, all of them; none may be lost.
    pub prefixes: Option<Vec<IpNet>>,
    /// The length of a prefix that is cut where none is named.
    pub prefix_default: Option<u8>,
    /// The shortest prefix that may be cut.
    pub prefix_min: Option<u8>,
    /// The longest prefix that may be cut.
    pub prefix_max: Option<u8>,
    /// How much each project may cut; `Some(None)` is no limit.
    pub quota: Option<Option<u64>>,
    /// Whether it is the pool to take where none is named.
    pub is_default: Option<bool>,
    /// The space that its ranges are in; `Some(None)` takes it out of its space.
    pub address_scope_id: Option<Option<AddressScopeId>>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

const POOL: (&str, &str) = ("SubnetPoolNotFound", "Subnet pool");

fn invalid(code: &'static str, message: String) -> EngineError {
    EngineError::Invalid { code, message }
}

/// Refuses what cannot be. Pure.
fn check(pool: &SubnetPool) -> Result<(), EngineError> {
    let Some(first) = pool.prefixes.first() else {
        return Err(invalid("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.".into()));
    };
    if pool.prefixes.len() > PREFIXES_MAX {
        return Err(EngineError::invalid(format!("A subnet pool holds at most {PREFIXES_MAX} prefixes.")));
    }
    if pool.prefixes.iter().any(|p| p.max_prefix_len() != first.max_prefix_len()) {
        return Err(invalid("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.".into()));
    }
    let (min, default, max) = (pool.prefix_min, pool.prefix_default, pool.prefix_max);
    if max > first.max_prefix_len() || min > default || default > max {
        return Err(invalid(
            "IllegalSubnetPoolPrefixBounds",
            format!("Illegal prefix bounds: min_prefixlen={min}, default_prefixlen={default}, max_prefixlen={max}."),
        ));
    }
    Ok(())
}

/// Ranges cut to their prefix, sorted, and none inside another one.
fn tidied(prefixes: &[IpNet]) -> Vec<IpNet> {
    let truncated: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
    IpNet::aggregate(&truncated)
}

impl Engine {
    /// Makes a subnet pool.
    ///
    /// # Errors
    /// 400 for bounds or ranges that cannot be, 403 for what only administrators may ask for, `OverQuota`.
    pub async fn subnet_pool_create(&self, ctx: &OpCtx, new: SubnetPoolNew) -> Result<SubnetPool, EngineError> {
        authorize(ctx, policy::SUBNET_POOL_CREATE, &Target::own(ctx))?;
        if new.shared || new.is_default {
            authorize(ctx, policy::SUBNET_POOL_CREATE_SHARED, &Target::default())?;
        }
        let project_id = own_project(ctx, new.project_id)?;
        let now = Timestamp::now();
        let is_v6 = matches!(new.prefixes.first(), Some(IpNet::V6(_)));
        let prefix_min = new.prefix_min.unwrap_or(if is_v6 { 64 } else { 8 });
        let pool = SubnetPool {
            id: SubnetPoolId::new(),
            project_id,
            name: new.name,
            description: new.description,
            prefix_default: new.prefix_default.unwrap_or(prefix_min),
            prefix_min,
            prefix_max: new.prefix_max.unwrap_or(if is_v6 { 128 } else { 32 }),
            prefixes: new.prefixes,
            quota: new.quota,
            shared: new.shared,
            is_default: new.is_default,
            address_scope_id: new.address_scope_id,
            tags: new.tags,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        check(&pool)?;
        let pool = SubnetPool { prefixes: tidied(&pool.prefixes), ..pool };
        let tx = self.store().begin(ctx).await?;
        if !tx.quota_claim(project_id, QuotaResource::SubnetPools, 1).await? {
            return Err(over_quota("subnetpool"));
        }
        self.address_scope_fits(&tx, &pool).await?;
        self.only_default(&tx, &pool).await?;
        tx.subnet_pool_insert(&pool).await?;
        if pool.shared {
            self.share_with_all(&tx, RbacType::SubnetPool, pool.id.0, project_id, RbacAction::Shared).await?;
        }
        self.subnet_pool_audit(&tx, policy::SUBNET_POOL_CREATE, &pool).await?;
        self.commit(tx).await?;
        Ok(pool)
    }

    /// Refuses a second default pool of an IP version.
    async fn only_default(&self, tx: &Tx, pool: &SubnetPool) -> Result<(), EngineError> {
        let others = tx.subnet_pools_default().await?;
        if pool.is_default && others.iter().any(|(version, id)| *version == pool.ip_version() && *id != pool.id) {
            return Err(invalid(
                "InvalidInput",
                format!(
                    "Invalid input for operation: A default subnetpool for this IP family has already been set. Only one default may exist per IP family ({}).",
                    pool.ip_version()
                ),
            ));
        }
        Ok(())
    }

    async fn subnet_pool_audit(&self, tx: &Tx, action: Action, pool: &SubnetPool) -> Result<(), EngineError> {
        let detail = json!({ "name": pool.name, "prefixes": pool.prefixes });
        let (id, project_id) = (pool.id.to_string(), Some(pool.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "subnet_pool", id, project_id, detail: &detail }).await?)
    }

    async fn subnet_pool_seen(&self, db: &Db, ctx: &OpCtx, id: SubnetPoolId) -> Result<SubnetPool, EngineError> {
        self.subnet_pool_reached(db, ctx, (policy::SUBNET_POOL_GET, true), id).await
    }

    async fn subnet_pool_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: SubnetPoolId,
    ) -> Result<SubnetPool, EngineError> {
        self.subnet_pool_reached(db, ctx, (action, false), id).await
    }

    async fn subnet_pool_reached(
        &self,
        db: &Db,
        ctx: &OpCtx,
        asked: (Action, bool),
        id: SubnetPoolId,
    ) -> Result<SubnetPool, EngineError> {
        let mut pool = found(db.subnet_pool_get(id).await?, POOL.0, POOL.1, id)?;
        self.reach(db, ctx, asked, (pool.project_id, &mut pool.shared), POOL, id.0).await?;
        Ok(pool)
    }

    /// The subnet pool with this id.
    ///
    /// # Errors
    /// `SubnetPoolNotFound`.
    pub async fn subnet_pool_get(&self, ctx: &OpCtx, id: SubnetPoolId) -> Result<SubnetPool, EngineError> {
        self.subnet_pool_seen(self.store(), ctx, id).await
    }

    /// A page of subnet pools.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn subnet_pool_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<SubnetPool>, EngineError> {
        authorize(ctx, policy::SUBNET_POOL_LIST, &Target::own(ctx))?;
        let mut page = self.store().subnet_pool_list(&seen_by(ctx, listing)?).await?;
        let marks = page.rows.iter_mut().map(|p| (p.id.0, p.project_id, &mut p.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Changes a subnet pool.
    ///
    /// # Errors
    /// `SubnetPoolNotFound`; 400 for bounds that cannot be or ranges that would be lost.
    pub async fn subnet_pool_update(
        &self,
        ctx: &OpCtx,
        id: SubnetPoolId,
        change: SubnetPoolChange,
    ) -> Result<SubnetPool, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.subnet_pool_owned(&tx, ctx, policy::SUBNET_POOL_UPDATE, id).await?;
        let mut pool = found(tx.subnet_pool_lock(id).await?, POOL.0, POOL.1, id)?;
        // The lock has raised the revision by one.
        unchanged(change.if_match, pool.revision - 1)?;
        if change.is_default.is_some_and(|is_default| is_default != pool.is_default) {
            authorize(ctx, policy::SUBNET_POOL_CREATE_SHARED, &Target::default())?;
        }
        if let Some(prefixes) = change.prefixes {
            let kept = tidied(&prefixes);
            if !pool.prefixes.iter().all(|old| kept.iter().any(|new| new.contains(old))) {
                return Err(invalid(
                    "IllegalSubnetPoolUpdate",
                    "Illegal subnet pool update: Existing prefixes must be a subset of the new prefixes.".into(),
                ));
            }
            pool.prefixes = kept;
        }
        pool.name = change.name.unwrap_or(pool.name);
        pool.description = change.description.unwrap_or(pool.description);
        pool.prefix_default = change.prefix_default.unwrap_or(pool.prefix_default);
        pool.prefix_min = change.prefix_min.unwrap_or(pool.prefix_min);
        pool.prefix_max = change.prefix_max.unwrap_or(pool.prefix_max);
        pool.quota = change.quota.unwrap_or(pool.quota);
        pool.is_default = change.is_default.unwrap_or(pool.is_default);
        check(&pool)?;
        self.only_default(&tx, &pool).await?;
        pool.address_scope_id = change.address_scope_id.unwrap_or(pool.address_scope_id);
        self.address_scope_fits(&tx, &pool).await?;
        tx.subnet_pool_update(&pool).await?;
        self.subnet_pool_audit(&tx, policy::SUBNET_POOL_UPDATE, &pool).await?;
        let pool = found(tx.subnet_pool_get(id).await?, POOL.0, POOL.1, id)?;
        self.commit(tx).await?;
        Ok(pool)
    }

    /// Removes a subnet pool.
    ///
    /// # Errors
    /// `SubnetPoolNotFound`; `SubnetPoolInUse` while subnets were cut from it.
    pub async fn subnet_pool_delete(
        &self,
        ctx: &OpCtx,
        id: SubnetPoolId,
        if_match: Option<u64>,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let pool = self.subnet_pool_owned(&tx, ctx, policy::SUBNET_POOL_DELETE, id).await?;
        unchanged(if_match, pool.revision)?;
        match tx.subnet_pool_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "SubnetPoolInUse",
                    message: "Unable to delete subnet pool: Subnet pool has existing allocations.".into(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        tx.quota_release(pool.project_id, QuotaResource::SubnetPools, 1).await?;
        self.shares_forget(&tx, id.0).await?;
        self.subnet_pool_audit(&tx, policy::SUBNET_POOL_DELETE, &pool).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// The range of a new subnet: the one that was named, or one that is cut from the pool.
    pub(crate) async fn subnet_range(&self, tx: &Tx, new: &SubnetNew) -> Result<IpNet, EngineError> {
        let Some(pool_id) = new.subnet_pool_id else {
            return new.cidr.ok_or_else(|| EngineError::invalid("A subnet needs a cidr or a subnetpool_id."));
        };
        self.subnet_pool_seen(tx, tx.ctx(), pool_id).await?;
        let pool = found(tx.subnet_pool_lock(pool_id).await?, POOL.0, POOL.1, pool_id)?;
        let length = match (new.cidr, new.prefix_len) {
            (Some(_), Some(_)) => return Err(EngineError::invalid("cidr and prefixlen must not be supplied together")),
            (Some(cidr), None) => cidr.prefix_len(),
            (None, length) => length.unwrap_or(pool.prefix_default),
        };
        if length < pool.prefix_min || length > pool.prefix_max {
            return Err(invalid(
                if length < pool.prefix_min {
                    "MinPrefixSubnetAllocationError"
                } else {
                    "MaxPrefixSubnetAllocationError"
                },
                format!(
                    "Unable to allocate subnet with prefix length {length}, allowed prefixes are {} to {}.",
                    pool.prefix_min, pool.prefix_max
                ),
            ));
        }
        let cut_already = tx.subnet_list_by_pool(pool_id).await?;
        let taken: Vec<IpNet> = cut_already.iter().map(|subnet| subnet.cidr).collect();
        let owner = own_project(tx.ctx(), new.project_id)?;
        let own = cut_already.iter().filter(|subnet| subnet.project_id == owner).map(|subnet| subnet.cidr);
        if let Some(quota) = pool.quota {
            let used = own.fold(cut::weight(pool.ip_version(), length), |sum, cidr| {
                sum.saturating_add(cut::weight(pool.ip_version(), cidr.prefix_len()))
            });
            if used > u128::from(quota) {
                return Err(EngineError::Conflict {
                    code: "SubnetPoolQuotaExceeded",
                    message: "Per-tenant subnet pool prefix quota exceeded.".into(),
                });
            }
        }
        let range = match new.cidr {
            Some(cidr) => cut::is_free(&pool.prefixes, &taken, cidr).then_some(cidr),
            None => cut::first_free(&pool.prefixes, &taken, length),
        };
        range.ok_or_else(|| EngineError::Conflict {
            code: "SubnetAllocationError",
            message: "Failed to allocate subnet: Insufficient prefix space to allocate the requested subnet.".into(),
        })
    }
}
