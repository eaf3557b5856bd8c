//! What a cloud shows of a project, by its API and in its database.

use crate::session::Session;
use crate::worker::{Kind, Known, Worker};
use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::Value;
use sqlx::Connection as _;
use std::path::Path;

/// What is claimed of quotas and nodes, and what the rows that claim it add up to.
const CLAIMS: &str = "
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
        (SELECT COALESCE(sum(vcpus), 0) FROM servers x WHERE x.node_id = n.id AND x.deleted_at IS NULL) FROM nodes n
    UNION ALL SELECT 'memory of a node', n.memory_mib_used,
        (SELECT COALESCE(sum(memory_mib), 0) FROM servers x WHERE x.node_id = n.id AND x.deleted_at IS NULL) FROM nodes n
    UNION ALL SELECT 'addresses without a port', count(*), 0 FROM addresses a
        WHERE NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = a.port_id)
    UNION ALL SELECT 'ports of servers that are gone', count(*), 0 FROM ports p WHERE p.server_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM servers x WHERE x.id = p.server_id AND x.deleted_at IS NULL)";

/// One entry of a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: String,
    pub name: String,
    pub status: String,
    /// Of a server: what is being done to it.
    pub task: String,
    /// Of a port: what it belongs to.
    pub device: String,
}

/// Everything that is shown at one moment.
pub struct Books {
    pub servers: Vec<Listed>,
    pub ports: Vec<Listed>,
    networks: Vec<Listed>,
    listed: Vec<String>,
    claims: Vec<(String, i64, i64)>,
}

impl Books {
    pub async fn read(home: &Path, session: &Session) -> Result<Self> {
        let mut db = open(home).await?;
        let claims = sqlx::query_as(CLAIMS).fetch_all(&mut db).await?;
        db.close().await?;
        let project = &session.project;
        // Ports before servers: the port of a server that goes meanwhile is not taken for a leak.
        let ports = list(session, &format!("/network/v2.0/ports?project_id={project}"), "ports").await?;
        let networks = list(session, &format!("/network/v2.0/networks?project_id={project}"), "networks").await?;
        let servers = list(session, "/compute/v2.1/servers/detail", "servers").await?;
        let listed = servers.iter().map(|server| server.name.clone()).collect();
        Ok(Self { servers, ports, networks, listed, claims })
    }

    /// Everything that is claimed is used by a row, and nothing else is.
    pub fn quotas_add_up(&self) -> Result<()> {
        for (what, claimed, counted) in &self.claims {
            ensure!(claimed == counted, "{what}: {claimed} are claimed, the rows add up to {counted}");
        }
        Ok(())
    }

    /// What has this name; it counts as explained then.
    pub fn take(&mut self, kind: Kind, name: &str) -> Vec<Listed> {
        let list = match kind {
            Kind::Server => &mut self.servers,
            Kind::Port => &mut self.ports,
            Kind::Network => &mut self.networks,
        };
        list.extract_if(.., |one| one.name == name).collect()
    }

    /// The network that a worker always has is explained.
    pub fn explain_network(&mut self, id: &str) {
        self.networks.retain(|network| network.id != id);
    }

    /// Whether a server of this name was shown.
    pub fn was_listed(&self, server: &str) -> bool {
        self.listed.iter().any(|name| name == server)
    }

    /// Nothing is there that nobody asked for.
    pub fn all_explained(&self) -> Result<()> {
        let ports: Vec<&Listed> = self.ports.iter().filter(|port| port.device.is_empty()).collect();
        ensure!(
            self.servers.is_empty() && self.networks.is_empty() && ports.is_empty(),
            "nobody knows of {:?} {:?} {ports:?}",
            self.servers,
            self.networks
        );
        Ok(())
    }

    /// What has not come to rest.
    pub fn restless(&self, workers: &[Worker]) -> Vec<String> {
        let mut restless = Vec::new();
        for server in &self.servers {
            if !server.task.is_empty() || server.status != "ACTIVE" {
                restless.push(format!("{server:?}"));
            }
        }
        for thing in workers.iter().flat_map(|worker| &worker.things) {
            if matches!(thing.known, Known::Deleted { .. }) && self.was_listed(&thing.name) {
                restless.push(format!("{} is deleted and still shown", thing.name));
            }
        }
        for port in self.ports.iter().filter(|port| !port.device.is_empty()) {
            if !self.servers.iter().any(|server| server.id == port.device) {
                restless.push(format!("a port of a server that is gone: {port:?}"));
            }
        }
        restless
    }
}

/// A whole list; it must fit into one page.
async fn list(session: &Session, path: &str, key: &str) -> Result<Vec<Listed>> {
    let answer = session.ok(Method::GET, path, None).await?;
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let all = answer[key].as_array().cloned().unwrap_or_default();
    ensure!(answer.get(format!("{key}_links")).is_none(), "the list of {key} has more than one page");
    Ok(all
        .iter()
        .map(|one| Listed {
            id: text(one, "id"),
            name: text(one, "name"),
            status: text(one, "status"),
            task: text(one, "OS-EXT-STS:task_state"),
            device: text(one, "device_id"),
        })
        .collect())
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
