//! Pools: where volumes live. Each node has one, of files in a folder; it is written `<node>@dir`.

use crate::hypervisors::Zone;
use crate::{Engine, EngineError};
use arcus_store::{Node, PoolShare};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::{OpCtx, Timestamp};
use std::collections::BTreeMap;

/// The name of the backend, as a type may ask for it in `volume_backend_name`.
pub const BACKEND: &str = "dir";
/// How a server reaches its volume.
pub const PROTOCOL: &str = "file";
/// Who made the backend, in the words that the reference implementation has for its own.
pub const VENDOR: &str = "Open Source";

/// A pool with how it is.
#[derive(Debug, Clone)]
pub struct VolumePool {
    /// The node.
    pub node: Node,
    /// Whether the node was heard of lately.
    pub alive: bool,
    /// How many volumes it holds.
    pub volumes: u64,
    /// Their size together, in GiB.
    pub gibs: u64,
}

impl VolumePool {
    /// The backend as services, pools and hosts name it.
    pub fn name(&self) -> String {
        format!("{}@{BACKEND}", self.node.name)
    }

    /// Whether new volumes may be placed in it.
    pub const fn open(&self) -> bool {
        self.node.enabled && self.alive
    }
}

impl Engine {
    async fn volume_pools(&self) -> Result<Vec<VolumePool>, EngineError> {
        let held = self.store().volume_count_by_node().await?;
        let now = Timestamp::now();
        let pool = |node: Node| {
            let (volumes, gibs) = held.get(&node.id).copied().unwrap_or_default();
            VolumePool { alive: self.node_alive(&node, now), volumes, gibs, node }
        };
        Ok(self.store().node_list().await?.into_iter().map(pool).collect())
    }

    /// Every pool.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_pool_list(&self, ctx: &OpCtx, action: Action) -> Result<Vec<VolumePool>, EngineError> {
        authorize(ctx, action, &Target::default())?;
        self.volume_pools().await
    }

    /// The pool that is named as [`VolumePool::name`], or by its node alone.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_pool_get(&self, ctx: &OpCtx, action: Action, name: &str) -> Result<VolumePool, EngineError> {
        let pools = self.volume_pool_list(ctx, action).await?;
        pools.into_iter().find(|p| p.name() == name || p.node.name.as_str() == name).ok_or_else(|| {
            let shown: String = name.chars().take(128).collect();
            EngineError::not_found("HostNotFound", "Host", shown)
        })
    }

    /// A pool, and who has how much in it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_host_show(&self, ctx: &OpCtx, name: &str) -> Result<(VolumePool, Vec<PoolShare>), EngineError> {
        let pool = self.volume_pool_get(ctx, policy::HOST_READ, name).await?;
        let shares = self.store().volume_pool_shares(pool.node.id).await?;
        Ok((pool, shares))
    }

    /// Opens or closes a node, for volumes and servers alike.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_service_enable(
        &self,
        ctx: &OpCtx,
        name: &str,
        enabled: bool,
        reason: Option<&str>,
    ) -> Result<VolumePool, EngineError> {
        let pool = self.volume_pool_get(ctx, policy::SERVICE_WRITE, name).await?;
        let change = crate::node_services::ServiceChange {
            enabled: Some((enabled, reason.map(str::to_owned))),
            forced_down: None,
        };
        self.service_change(ctx, pool.node.id, &change).await?;
        Ok(pool)
    }

    /// Whether pools have what the volume type with this name or id asks for; `false` too if there is no such type.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_type_fits(&self, ctx: &OpCtx, asked: &str) -> Result<bool, EngineError> {
        authorize(ctx, policy::POOL_READ, &Target::default())?;
        let by_id = match asked.parse() {
            Ok(id) => self.store().volume_type_get(id).await?,
            Err(_) => None,
        };
        let found = match by_id {
            Some(found) => Some(found),
            None => self.store().volume_type_by_name(asked).await?,
        };
        Ok(found.is_some_and(|found| unmet(&found.extra_specs).is_none()))
    }

    /// The zones that volumes can be in.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_zone_list(&self, ctx: &OpCtx) -> Result<Vec<Zone>, EngineError> {
        authorize(ctx, policy::ZONE_LIST, &Target::own(ctx))?;
        self.zone_list(ctx, false).await
    }
}

/// What a pool of this cloud answers to a type's extra specs; keys of other name spaces are not about pools.
fn capability(key: &str) -> Option<&'static str> {
    match key {
        "volume_backend_name" => Some(BACKEND),
        "storage_protocol" => Some(PROTOCOL),
        "vendor_name" => Some(VENDOR),
        "thin_provisioning_support" | "online_extend_support" => Some("True"),
        "multiattach" | "QoS_support" | "thick_provisioning_support" | "replication_enabled" => Some("False"),
        _ => None,
    }
}

/// The first of a type's extra specs that no pool has, written `key=value`; `None` if volumes of the type can be placed.
///
/// Keys without a name space and those of `capabilities` are asked of the pool, as the reference implementation's
/// scheduler does. Values may begin with `<is>`, `<in>`, `<or>` or `s==`.
pub fn unmet(extra_specs: &BTreeMap<String, String>) -> Option<String> {
    let missing = extra_specs.iter().find(|(key, wanted)| {
        let key = match key.split_once(':') {
            Some(("capabilities", key)) => key,
            Some(_) => return false,
            None => key.as_str(),
        };
        !capability(key).is_some_and(|has| fits(has, wanted))
    });
    missing.map(|(key, wanted)| format!("{key}={wanted}"))
}

fn fits(has: &str, wanted: &str) -> bool {
    let wanted = wanted.trim();
    let (word, rest) = wanted.split_once(char::is_whitespace).unwrap_or((wanted, ""));
    let rest = rest.trim();
    match word {
        "<is>" => has.eq_ignore_ascii_case(rest),
        "<in>" => has.contains(rest),
        "<or>" => rest.split("<or>").any(|one| one.trim() == has),
        "s==" | "=" | "==" => has == rest,
        _ => has == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Option<String> {
        unmet(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_type_is_placed_where_all_that_it_asks_for_is_there() {
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("volume_backend_name", "dir"), ("multiattach", "<is> False")]), None);
        assert_eq!(asked(&[("capabilities:storage_protocol", "<or> iSCSI <or> file")]), None);
        assert_eq!(asked(&[("vendor_name", "<in> Source"), ("RESKEY:availability_zones", "far")]), None);
        assert_eq!(asked(&[("storage_protocol", "iSCSI")]).as_deref(), Some("storage_protocol=iSCSI"));
        assert_eq!(asked(&[("colour", "red")]).as_deref(), Some("colour=red"));
    }
}
