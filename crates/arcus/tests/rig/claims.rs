//! What is claimed in the database of a cloud, against what the rows that claim it add up to.

use anyhow::{Result, ensure};
use sqlx::Connection as _;
use std::path::Path;

/// What is claimed of quotas and nodes, and what the rows that claim it add up to.
const CLAIMS: &str = "
    WITH held AS (SELECT lower(hex(node_id)) AS node, vcpus, memory_mib FROM servers WHERE deleted_at IS NULL
        UNION ALL SELECT replace(json_extract(details, '$.resize.elsewhere.node_id'), '-', ''),
            json_extract(details, '$.resize.elsewhere.vcpus'), json_extract(details, '$.resize.elsewhere.memory_mib')
            FROM servers WHERE deleted_at IS NULL AND json_extract(details, '$.resize.elsewhere') IS NOT NULL)
    SELECT q.resource AS what, q.used AS claimed, CASE q.resource
        WHEN 'instances' THEN (SELECT count(*) FROM servers x WHERE x.project_id = q.project_id AND x.deleted_at IS NULL)
        WHEN 'cores' THEN
            (SELECT COALESCE(sum(vcpus), 0) FROM servers x WHERE x.project_id = q.project_id AND x.deleted_at IS NULL)
        WHEN 'ram' THEN
            (SELECT COALESCE(sum(memory_mib), 0) FROM servers x WHERE x.project_id = q.project_id AND x.deleted_at IS NULL)
        WHEN 'network' THEN (SELECT count(*) FROM networks x WHERE x.project_id = q.project_id)
        WHEN 'subnet' THEN (SELECT count(*) FROM subnets x WHERE x.project_id = q.project_id)
        WHEN 'port' THEN (SELECT count(*) FROM ports x WHERE x.project_id = q.project_id)
        WHEN 'security_group' THEN (SELECT count(*) FROM security_groups x WHERE x.project_id = q.project_id)
        WHEN 'security_group_rule' THEN (SELECT count(*) FROM security_group_rules x WHERE x.project_id = q.project_id)
        WHEN 'images' THEN (SELECT count(*) FROM images x WHERE x.project_id = q.project_id)
        ELSE q.used END AS counted FROM quotas q
    UNION ALL SELECT 'vcpus of a node', n.vcpus_used,
        (SELECT COALESCE(sum(vcpus), 0) FROM held x WHERE x.node = lower(hex(n.id))) FROM nodes n
    UNION ALL SELECT 'memory of a node', n.memory_mib_used,
        (SELECT COALESCE(sum(memory_mib), 0) FROM held x WHERE x.node = lower(hex(n.id))) FROM nodes n
    UNION ALL SELECT 'addresses without a port', count(*), 0 FROM addresses a
        WHERE NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = a.port_id)
    UNION ALL SELECT 'ports of servers that are gone', count(*), 0 FROM ports p WHERE p.server_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM servers x WHERE x.id = p.server_id AND x.deleted_at IS NULL)";

/// What is claimed at one moment.
pub struct Claims(Vec<(String, i64, i64)>);

impl Claims {
    /// As the database of the cloud with this home folder has them.
    pub async fn read(home: &Path) -> Result<Self> {
        let mut db = open(home).await?;
        let claims = sqlx::query_as(CLAIMS).fetch_all(&mut db).await?;
        db.close().await?;
        Ok(Self(claims))
    }

    /// Everything that is claimed is used by a row, and nothing else is.
    pub fn add_up(&self) -> Result<()> {
        for (what, claimed, counted) in &self.0 {
            ensure!(claimed == counted, "{what}: {claimed} are claimed, the rows add up to {counted}");
        }
        Ok(())
    }
}

async fn open(home: &Path) -> Result<sqlx::SqliteConnection> {
    Ok(sqlx::SqliteConnection::connect(&format!("sqlite://{}?mode=ro", home.join("arcus.db").display())).await?)
}

/// The database's own check of its file and of references between tables.
pub async fn database_is_sound(home: &Path) -> Result<()> {
    let mut db = open(home).await?;
    let said: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut db).await?;
    ensure!(said == "ok", "the database is damaged: {said}");
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut db).await?;
    ensure!(broken.is_empty(), "{} rows refer to rows that are missing", broken.len());
    Ok(())
}
