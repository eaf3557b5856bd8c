//! The catalogue: which services this cloud has and where, made from its one endpoint.

use arcus_types::{EndpointId, ServiceId};
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

/// Type, name and path of every service that is served.
const SERVICES: &[(&str, &str, &str)] = &[
    ("identity", "keystone", "/identity"),
    ("compute", "nova", "/compute/v2.1"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
];

const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

/// The catalogue of a cloud.
pub fn catalog(endpoint: &Endpoint) -> Vec<CatalogService> {
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
                url: format!("{}{path}", endpoint.url),
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
        let (one, two) = (catalog(&endpoint), catalog(&endpoint));
        assert_eq!(one, two);
        let mut ids: Vec<Uuid> = one.iter().flat_map(|s| s.endpoints.iter().map(|e| e.id.0).chain([s.id.0])).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert_eq!(one[1].endpoints[0].url, "https://127.0.0.1:8774/compute/v2.1");
    }
}
