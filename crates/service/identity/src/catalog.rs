//! The catalogue: which services this cloud has and where, made from its one endpoint.

use arcus_types::{EndpointId, ProjectId, ServiceId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How clients reach this cloud.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Such as `https://127.0.0.1:8774`, without a slash at the end.
    pub url: String,
    /// The region that the catalogue names.
    pub region: String,
}

/// A service of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogService {
    /// Its id: the same after every start.
    pub id: ServiceId,
    /// Its type, as the service types authority spells it.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Where it is reached.
    pub endpoints: Vec<CatalogEndpoint>,
}

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEndpoint {
    /// Its id: the same after every start.
    pub id: EndpointId,
    /// `public`, `internal` or `admin`: the same URL for all of them.
    pub interface: &'static str,
    /// The region.
    pub region: String,
    /// The URL.
    pub url: String,
}

/// Type, name and path of every service that is served. Block storage is known by its type of today and by the one of
/// its API's third version, which older clients look for.
const SERVICES: &[(&str, &str, &str)] = &[
    ("identity", "keystone", "/identity"),
    ("compute", "nova", "/compute/v2.1"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
    ("placement", "placement", "/placement"),
    ("block-storage", "cinder", "/volume/v3"),
    ("volumev3", "cinderv3", "/volume/v3"),
];

const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

/// The path whose URL ends with the project, for whom there is one.
const WITH_PROJECT: &str = "/volume/v3";

/// The catalogue of a cloud, for a token of this project.
pub fn catalog(endpoint: &Endpoint, project: Option<ProjectId>) -> Vec<CatalogService> {
    let url = |path: &str| match project {
        Some(project) if path == WITH_PROJECT => format!("{}{path}/{project}", endpoint.url),
        Some(_) | None => format!("{}{path}", endpoint.url),
    };
    let service = |&(kind, name, path): &(&'static str, &'static str, &str)| CatalogService {
        id: ServiceId(stable_id(&["service", &endpoint.region, kind])),
        kind,
        name,
        endpoints: INTERFACES
            .iter()
            .map(|&interface| CatalogEndpoint {
                id: EndpointId(stable_id(&["endpoint", &endpoint.region, kind, interface])),
                interface,
                region: endpoint.region.clone(),
                url: url(path),
            })
            .collect(),
    };
    SERVICES.iter().map(service).collect()
}

/// An id that follows from words alone (UUID version 8).
fn stable_id(words: &[&str]) -> Uuid {
    let digest = Sha256::digest(words.join("\n").as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_and_differ() {
        let endpoint = Endpoint { url: "https://127.0.0.1:8774".into(), region: "RegionOne".into() };
        let (one, two) = (catalog(&endpoint, None), catalog(&endpoint, None));
        assert_eq!(one, two);
        let mut ids: Vec<Uuid> = one.iter().flat_map(|s| s.endpoints.iter().map(|e| e.id.0).chain([s.id.0])).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert_eq!(one[1].endpoints[0].url, "https://127.0.0.1:8774/compute/v2.1");
    }

    #[test]
    fn volumes_are_reached_under_the_project() {
        let endpoint = Endpoint { url: "https://127.0.0.1:8774".into(), region: "RegionOne".into() };
        let project = ProjectId::new();
        let url = |project| {
            let found = catalog(&endpoint, project).into_iter().find(|s| s.kind == "block-storage");
            found.map(|s| s.endpoints[0].url.clone())
        };
        assert_eq!(url(None).as_deref(), Some("https://127.0.0.1:8774/volume/v3"));
        assert_eq!(url(Some(project)), Some(format!("https://127.0.0.1:8774/volume/v3/{project}")));
    }
}
