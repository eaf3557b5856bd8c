//! Where volumes live: zones, services, pools and hosts, all of them views of the nodes.

use super::{Answer, filters, page};
use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::fields::{Fields, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::volume_pools::{BACKEND, PROTOCOL, VENDOR, VolumePool};
use arcus_store::PoolShare;
use arcus_types::Timestamp;
use arcus_types::policy::{Target, authorize, volume as policy};
use axum::extract::{Path, State};
use serde_json::{Value, json};

/// The service of a pool, in the words of the reference implementation.
const VOLUME_SERVICE: &str = "cinder-volume";
/// The service that finds a pool for a volume: a part of the server that answers these calls.
const SCHEDULER: &str = "cinder-scheduler";
/// The host that the scheduler is said to be on.
const SCHEDULER_HOST: &str = "arcus";

/// `GET /os-availability-zone`
pub async fn zones(Ctx(ctx): Ctx, State(app): State<App>) -> Answer {
    let zones = app.engine.volume_zone_list(&ctx).await?;
    let list = zones.iter().map(|z| json!({ "zoneName": z.name, "zoneState": { "available": z.available } }));
    Ok(axum::Json(json!({ "availabilityZoneInfo": list.collect::<Vec<_>>() })))
}

/// A service as the list shows it.
struct Service {
    binary: &'static str,
    host: String,
    zone: String,
    enabled: bool,
    reason: Option<String>,
    up: bool,
    seen_at: Timestamp,
}

impl Service {
    fn of_pool(pool: &VolumePool) -> Self {
        Self {
            binary: VOLUME_SERVICE,
            host: pool.name(),
            zone: pool.node.availability_zone.clone(),
            enabled: pool.node.enabled,
            reason: pool.node.disabled_reason.clone(),
            up: pool.alive,
            seen_at: pool.node.seen_at,
        }
    }

    /// The part of this server that places volumes: up, since it answers.
    fn scheduler(app: &App) -> Self {
        Self {
            binary: SCHEDULER,
            host: SCHEDULER_HOST.to_owned(),
            zone: app.engine.config().default_zone.clone(),
            enabled: true,
            reason: None,
            up: true,
            seen_at: Timestamp::now(),
        }
    }

    const fn status(&self) -> &'static str {
        if self.enabled { "enabled" } else { "disabled" }
    }

    fn view(&self, version: Microversion) -> Value {
        let mut out = json!({
            "binary": self.binary,
            "host": self.host,
            "zone": self.zone,
            "status": self.status(),
            "state": if self.up { "up" } else { "down" },
            "updated_at": self.seen_at.iso_naive(),
            "disabled_reason": self.reason,
        });
        if version.at_least(7) {
            out["cluster"] = Value::Null;
        }
        if self.binary == VOLUME_SERVICE {
            out["replication_status"] = json!("disabled");
            out["active_backend_id"] = Value::Null;
            out["frozen"] = json!(false);
            if version.at_least(49) {
                out["backend_state"] = json!(if self.up { "up" } else { "down" });
            }
        }
        out
    }
}

/// `GET /os-services?host=&binary=`
pub async fn services(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let pools = app.engine.volume_pool_list(&ctx, policy::SERVICE_READ).await?;
    let all = std::iter::once(Service::scheduler(&app)).chain(pools.iter().map(Service::of_pool));
    let wanted = |s: &Service| {
        query.first("binary").is_none_or(|b| b == s.binary)
            && query.first("host").is_none_or(|h| h == s.host || s.host.split('@').next() == Some(h))
    };
    let list: Vec<Value> = all.filter(wanted).map(|s| s.view(version)).collect();
    Ok(axum::Json(json!({ "services": list })))
}

/// `PUT /os-services/{verb}`: `enable`, `disable` or `disable-log-reason`
pub async fn service_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(verb): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    if matches!(verb.as_str(), "get-log" | "set-log") {
        authorize(&ctx, policy::SERVICE_WRITE, &Target::default())?;
        return Err(ApiError::bad_request(format!(
            "'{verb}': the levels of the log are set when the server starts, not through this API."
        )));
    }
    let mut fields = Fields::object(&body, "body")?;
    let host = fields.text_required("host", 1, 255)?;
    let binary = fields.text("binary", 1, 255)?.or(fields.text("service", 1, 255)?).unwrap_or(VOLUME_SERVICE);
    let reason = fields.text("disabled_reason", 1, 255)?;
    let (enabled, reason) = match verb.as_str() {
        "enable" => (true, None),
        "disable" => (false, None),
        "disable-log-reason" => (false, Some(reason.ok_or_else(|| required("body", "disabled_reason"))?)),
        "freeze" | "thaw" | "failover" | "failover_host" => {
            let message = format!("'{verb}' is about pools that are replicated, and {host} is none.");
            return Err(ApiError::bad_request(message));
        }
        _ => return Err(ApiError::not_found("Action", verb.chars().take(64).collect::<String>())),
    };
    if binary != VOLUME_SERVICE {
        let shown: String = binary.chars().take(64).collect();
        return Err(ApiError::not_found("Service", format!("{shown} on host {host}")));
    }
    let pool = app.engine.volume_service_enable(&ctx, host, enabled, reason).await?;
    let mut out = json!({
        "host": pool.name(),
        "service": VOLUME_SERVICE,
        "binary": VOLUME_SERVICE,
        "disabled": !enabled,
        "status": if enabled { "enabled" } else { "disabled" },
    });
    if verb != "disable" {
        out["disabled_reason"] = json!(reason);
    }
    Ok(axum::Json(out))
}

/// What a pool can do and hold.
fn capabilities(pool: &VolumePool) -> Value {
    let facts = &pool.node.facts;
    json!({
        "volume_backend_name": BACKEND,
        "vendor_name": VENDOR,
        "driver_version": facts.agent_version,
        "storage_protocol": PROTOCOL,
        "total_capacity_gb": facts.disk_gib,
        "free_capacity_gb": facts.disk_free_gib,
        "reserved_percentage": 0,
        "QoS_support": false,
        "updated": pool.node.seen_at.iso_naive(),
        "timestamp": pool.node.seen_at.iso_naive(),
    })
}

/// `GET /scheduler-stats/get_pools?detail=`
pub async fn pools(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let detail = page::flag(&query, "detail")?.unwrap_or(false);
    let pools = app.engine.volume_pool_list(&ctx, policy::POOL_READ).await?;
    filters::admitted(&ctx, version, &query, "pool")?;
    // From 3.35 on; a type that asks for what no pool has fits none of them.
    let fits = match query.first("volume_type").filter(|_| version.at_least(35)) {
        Some(asked) => app.engine.volume_type_fits(&ctx, asked).await?,
        None => true,
    };
    // From 3.28 on.
    let name = query.first("name").filter(|_| version.at_least(28));
    let wanted = |p: &&VolumePool| fits && name.is_none_or(|name| name == p.name());
    let list = pools.iter().filter(wanted).map(|pool| {
        let mut out = json!({ "name": pool.name() });
        if detail {
            out["capabilities"] = capabilities(pool);
        }
        out
    });
    Ok(axum::Json(json!({ "pools": list.collect::<Vec<_>>() })))
}

/// `GET /capabilities/{host}`
pub async fn capabilities_show(Ctx(ctx): Ctx, State(app): State<App>, Path(host): Path<String>) -> Answer {
    let pool = app.engine.volume_pool_get(&ctx, policy::POOL_READ, &host).await?;
    Ok(axum::Json(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", pool.name()),
        "vendor_name": VENDOR,
        "volume_backend_name": BACKEND,
        "pool_name": BACKEND,
        "driver_version": pool.node.facts.agent_version,
        "storage_protocol": PROTOCOL,
        "display_name": "Files on the node",
        "description": "Volumes are files in a folder of the node, and servers of that node use them.",
        "visibility": "public",
        "replication_targets": [],
        "properties": {},
    })))
}

/// `GET /os-hosts`
pub async fn hosts(Ctx(ctx): Ctx, State(app): State<App>) -> Answer {
    let pools = app.engine.volume_pool_list(&ctx, policy::HOST_READ).await?;
    let all = std::iter::once(Service::scheduler(&app)).chain(pools.iter().map(Service::of_pool));
    let host = |s: Service| {
        json!({
            "host_name": s.host,
            "service": s.binary,
            "zone": s.zone,
            "service-status": if s.up { "available" } else { "unavailable" },
            "service-state": s.status(),
            "last-update": s.seen_at.iso_naive(),
        })
    };
    Ok(axum::Json(json!({ "hosts": all.map(host).collect::<Vec<_>>() })))
}

/// `GET /os-hosts/{host}`
pub async fn host_show(Ctx(ctx): Ctx, State(app): State<App>, Path(host): Path<String>) -> Answer {
    let (pool, shares) = app.engine.volume_host_show(&ctx, &host).await?;
    let line = |project: String, volumes: u64, gibs: u64, snapshots: u64, snapshot_gibs: u64| {
        json!({ "resource": {
            "host": pool.name(),
            "project": project,
            "volume_count": volumes.to_string(),
            "total_volume_gb": gibs.to_string(),
            "snapshot_count": snapshots.to_string(),
            "total_snapshot_gb": snapshot_gibs.to_string(),
        } })
    };
    let sum = |of: fn(&PoolShare) -> u64| shares.iter().map(of).sum::<u64>();
    let total = line(
        "(total)".to_owned(),
        sum(|s| s.volumes),
        sum(|s| s.volume_gibs),
        sum(|s| s.snapshots),
        sum(|s| s.snapshot_gibs),
    );
    let of_project =
        |s: &PoolShare| line(s.project_id.to_string(), s.volumes, s.volume_gibs, s.snapshots, s.snapshot_gibs);
    let list: Vec<Value> = std::iter::once(total).chain(shares.iter().map(of_project)).collect();
    Ok(axum::Json(json!({ "host": list })))
}
