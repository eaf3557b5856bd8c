//! What a cloud shows of a project.

use crate::claims::Claims;
use crate::session::Session;
use crate::worker::{Kind, Known, Worker};
use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::Value;
use std::path::Path;

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
    pub claims: Claims,
}

impl Books {
    pub async fn read(home: &Path, session: &Session) -> Result<Self> {
        let claims = Claims::read(home).await?;
        let project = &session.project;
        // Ports before servers: the port of a server that goes meanwhile is not taken for a leak.
        let ports = list(session, &format!("/network/v2.0/ports?project_id={project}"), "ports").await?;
        let networks = list(session, &format!("/network/v2.0/networks?project_id={project}"), "networks").await?;
        let servers = list(session, "/compute/v2.1/servers/detail", "servers").await?;
        let listed = servers.iter().map(|server| server.name.clone()).collect();
        Ok(Self { servers, ports, networks, listed, claims })
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
