//! The layers of the workspace: dependencies point down, and each layer keeps out of what is not its business.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{cargo, output};

/// Packages that act on a node. Only the agent and the binary link them.
const DRIVERS: &[&str] = &["arcus-hypervisor", "arcus-storage", "arcus-network"];

/// Who may link drivers, besides drivers' own tests.
const DRIVER_USERS: &[&str] = &["arcus-agent", "arcus"];

/// Libraries that speak to a database, which layer 1 never links.
const DATABASES: &[&str] = &["sqlx", "sqlx-core", "sea-orm", "rusqlite", "tokio-postgres"];

/// Who may use `anyhow`; everyone else has an error type of its own.
const ANYHOW_USERS: &[&str] = &["arcus", "xtask"];

/// A room of the house, from the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Types,
    Pooling,
    Management,
    Service,
    Binary,
}

/// What the rules look at.
#[derive(Default)]
pub struct Workspace {
    members: Vec<Member>,
    /// For each package of the whole graph, by name: the names of what it links.
    links: BTreeMap<String, BTreeSet<String>>,
}

/// One package of ours.
struct Member {
    name: String,
    /// Its folder from the workspace root.
    folder: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    only_for_tests: bool,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo does not answer as expected.
    pub fn load() -> Result<Workspace> {
        let text = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))
            .or_else(|_| output(cargo().args(["metadata", "--format-version", "1"])))?;
        Workspace::parse(&serde_json::from_str(&text)?).context("cargo metadata has another form than expected")
    }

    fn parse(metadata: &Value) -> Option<Workspace> {
        let root = metadata["workspace_root"].as_str()?;
        let ours: BTreeSet<&str> = metadata["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
        let packages = metadata["packages"].as_array()?;
        let mut workspace = Workspace::default();
        let mut names = BTreeMap::new();
        for package in packages {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            names.insert(id, name);
            if !ours.contains(id) {
                continue;
            }
            let manifest = package["manifest_path"].as_str()?.strip_prefix(root)?;
            let dependencies = package["dependencies"].as_array()?.iter().filter_map(|dependency| {
                let name = dependency["name"].as_str()?.to_owned();
                Some(Dependency { name, only_for_tests: dependency["kind"] == "dev" })
            });
            workspace.members.push(Member {
                name: name.to_owned(),
                folder: manifest.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned(),
                dependencies: dependencies.collect(),
            });
        }
        for node in metadata["resolve"]["nodes"].as_array()? {
            let linked = node["deps"].as_array()?.iter().filter(|link| {
                link["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
            });
            let linked = linked.filter_map(|link| names.get(link["pkg"].as_str()?)).map(|name| (*name).to_owned());
            workspace.links.insert((*names.get(node["id"].as_str()?)?).to_owned(), linked.collect());
        }
        Some(workspace)
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The names of everything that `package` links, directly or not.
    fn closure(&self, package: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![package];
        while let Some(package) = open.pop() {
            for linked in self.links.get(package).into_iter().flatten() {
                if found.insert(linked.as_str()) {
                    open.push(linked);
                }
            }
        }
        found
    }
}

/// Every broken rule as a line.
pub fn broken_rules(workspace: &Workspace) -> Vec<String> {
    let mut broken = Vec::new();
    for member in &workspace.members {
        let Some(layer) = layer(&member.folder) else {
            if member.name != "xtask" {
                broken.push(format!("{} lies in {}, which is no layer", member.name, member.folder));
            }
            continue;
        };
        for dependency in &member.dependencies {
            broken.extend(broken_by_dependency(workspace, member, layer, dependency));
        }
        if layer == Layer::Pooling {
            let closure = workspace.closure(&member.name);
            let databases = DATABASES.iter().filter(|database| closure.contains(**database));
            broken.extend(databases.map(|database| format!("{} links the database library {database}", member.name)));
        }
    }
    broken
}

fn broken_by_dependency(
    workspace: &Workspace,
    member: &Member,
    layer_of_member: Layer,
    dependency: &Dependency,
) -> Option<String> {
    let (from, to) = (&member.name, &dependency.name);
    if to == "anyhow" && !dependency.only_for_tests && !ANYHOW_USERS.contains(&from.as_str()) {
        return Some(format!("{from} uses anyhow; a library has an error type of its own"));
    }
    let other = workspace.member(to)?;
    let Some(layer_of_other) = layer(&other.folder) else {
        return Some(format!("{from} depends on {to}, which is a tool"));
    };
    if layer_of_other > layer_of_member {
        return Some(format!("{from} ({layer_of_member:?}) depends on {to} ({layer_of_other:?}): up"));
    }
    let reaches_nodes = layer_of_other == Layer::Pooling && layer_of_member > Layer::Pooling;
    if reaches_nodes && layer_of_member != Layer::Binary {
        return Some(format!("{from} depends on {to}; nodes are reached through the agent protocol only"));
    }
    if DRIVERS.contains(&to.as_str()) && !DRIVER_USERS.contains(&from.as_str()) {
        return Some(format!("{from} links the driver {to}; only {} do", DRIVER_USERS.join(" and ")));
    }
    None
}

fn layer(folder: &str) -> Option<Layer> {
    let mut parts = folder.split('/');
    if parts.next() != Some("crates") {
        return None;
    }
    match parts.next()? {
        "types" | "formats" => Some(Layer::Types),
        "pooling" => Some(Layer::Pooling),
        "management" => Some(Layer::Management),
        "service" => Some(Layer::Service),
        "arcus" => Some(Layer::Binary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, folder: &str, dependencies: &[&str]) -> Member {
        let dependencies =
            dependencies.iter().map(|name| Dependency { name: (*name).to_owned(), only_for_tests: false }).collect();
        Member { name: name.to_owned(), folder: folder.to_owned(), dependencies }
    }

    fn house(store: &[&str], api: &[&str], agent: &[&str]) -> Vec<String> {
        let members = vec![
            member("arcus-types", "crates/types", &[]),
            member("arcus-network", "crates/pooling/network", &["arcus-types"]),
            member("arcus-agent", "crates/pooling/agent", agent),
            member("arcus-store", "crates/management/store", store),
            member("arcus-api", "crates/service/api", api),
            member("arcus", "crates/arcus", &["anyhow", "arcus-agent", "arcus-network", "arcus-api"]),
            member("xtask", "xtask", &["anyhow"]),
        ];
        let links = members
            .iter()
            .map(|member| {
                let names = member.dependencies.iter().map(|dependency| dependency.name.clone());
                (member.name.clone(), names.collect())
            })
            .collect();
        broken_rules(&Workspace { members, links })
    }

    #[test]
    fn this_workspace_keeps_its_layers() {
        let broken = broken_rules(&Workspace::load().expect("cargo answers"));
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn dependencies_that_point_down_are_fine() {
        let broken = house(&["arcus-types", "sqlx"], &["arcus-store", "arcus-types"], &["arcus-network"]);
        assert!(broken.is_empty(), "{broken:?}");
    }

    #[test]
    fn dependencies_that_point_up_are_told() {
        assert_eq!(house(&["arcus-api"], &[], &[]).len(), 1);
    }

    #[test]
    fn management_and_service_never_link_what_acts_on_nodes() {
        assert_eq!(house(&["arcus-network"], &["arcus-agent"], &[]).len(), 2);
    }

    #[test]
    fn layer_one_links_no_database() {
        assert_eq!(house(&[], &[], &["sqlx"]).len(), 1);
    }

    #[test]
    fn libraries_do_not_use_anyhow() {
        assert_eq!(house(&["anyhow"], &[], &[]).len(), 1);
    }
}
