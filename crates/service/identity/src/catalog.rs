//! The catalogue: which services this cloud has and where. Our own follow from the one endpoint and are not changed; the
//! administrator may add regions, services and endpoints, which are kept in the database and in memory.

use crate::options::extra_check;
use crate::{Identity, IdentityError, text_check};
use arcus_store::{EndpointEntry, EndpointFilter, Extra, RegionEntry, ServiceEntry, Store, StoreError, Tx};
use arcus_types::policy::{Action, Target, authorize};
use arcus_types::{EndpointId, OpCtx, ProjectId, ServiceId};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError, RwLock};
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
    /// The service. The ids of our own are the same after every start.
    pub entry: ServiceEntry,
    /// Where it is reached.
    pub endpoints: Vec<CatalogEndpoint>,
    /// Whether it is our own and so not changed by calls.
    pub own: bool,
}

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEndpoint {
    /// The endpoint.
    pub entry: EndpointEntry,
    /// Whether it is our own and so not changed by calls.
    pub own: bool,
}

/// All that the catalogue holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Regions; the first one is our own.
    pub regions: Vec<RegionEntry>,
    /// Services, ours first.
    pub services: Vec<CatalogService>,
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

/// The path of our own whose URL ends with the project, for whom there is one.
const WITH_PROJECT: &str = "/volume/v3";

const INTERFACES: [&str; 3] = ["public", "internal", "admin"];
/// The most regions, services and endpoints, each, that can be added: all of them are kept in memory.
const ADDED_MAX: u32 = 1000;

/// Our own part of the catalogue.
fn own(endpoint: &Endpoint) -> Vec<CatalogService> {
    let service = |&(kind, name, path): &(&'static str, &'static str, &str)| {
        let service_id = ServiceId(stable_id(&["service", &endpoint.region, kind]));
        let at = |&interface: &&str| CatalogEndpoint {
            entry: EndpointEntry {
                id: EndpointId(stable_id(&["endpoint", &endpoint.region, kind, interface])),
                service_id,
                region_id: Some(endpoint.region.clone()),
                interface: interface.to_owned(),
                url: format!("{}{path}", endpoint.url),
                enabled: true,
                extra: Extra::new(),
            },
            own: true,
        };
        CatalogService {
            entry: ServiceEntry {
                id: service_id,
                kind: kind.to_owned(),
                name: Some(name.to_owned()),
                description: String::new(),
                enabled: true,
                extra: Extra::new(),
            },
            endpoints: INTERFACES.iter().map(at).collect(),
            own: true,
        }
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

/// The catalogue as it is shown: read again by every replica about once a second.
#[derive(Default)]
pub(crate) struct Shown(RwLock<Arc<Catalog>>);

impl Shown {
    fn now(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it again. Three queries.
    pub async fn refresh(&self, store: &Store, endpoint: &Endpoint) -> Result<(), StoreError> {
        let added = store.region_list(ADDED_MAX).await?;
        let services = store.catalog_service_list(ADDED_MAX).await?;
        let all = EndpointFilter { limit: ADDED_MAX, ..EndpointFilter::default() };
        let endpoints = store.catalog_endpoint_list(&all).await?;
        let first = RegionEntry {
            id: endpoint.region.clone(),
            parent_id: None,
            description: String::new(),
            extra: Extra::new(),
        };
        let regions = [first].into_iter().chain(added).collect();
        let more = services.into_iter().map(|entry| CatalogService { entry, endpoints: Vec::new(), own: false });
        let mut services: Vec<CatalogService> = own(endpoint).into_iter().chain(more).collect();
        for entry in endpoints {
            if let Some(service) = services.iter_mut().find(|s| s.entry.id == entry.service_id) {
                service.endpoints.push(CatalogEndpoint { entry, own: false });
            }
        }
        let fresh = Catalog { regions, services };
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if **shown != fresh {
            *shown = Arc::new(fresh);
        }
        Ok(())
    }
}

/// A service that somebody wants.
#[derive(Debug, Clone)]
pub struct ServiceNew {
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: String,
    /// Whether tokens show it.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
}

/// An endpoint that somebody wants.
#[derive(Debug, Clone)]
pub struct EndpointNew {
    /// The service.
    pub service_id: ServiceId,
    /// The region; made if it is not there.
    pub region_id: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    /// The URL.
    pub url: String,
    /// Whether tokens show it.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
}

/// A change of the catalogue.
#[derive(Debug, Clone)]
pub enum CatalogChange {
    /// Adds a region.
    RegionAdd(RegionEntry),
    /// Replaces a region.
    RegionSet(RegionEntry),
    /// Takes a region away.
    RegionRemove(String),
    /// Adds a service.
    ServiceAdd(ServiceEntry),
    /// Replaces a service.
    ServiceSet(ServiceEntry),
    /// Takes a service away, with its endpoints.
    ServiceRemove(ServiceId),
    /// Adds an endpoint.
    EndpointAdd(EndpointEntry),
    /// Replaces an endpoint.
    EndpointSet(EndpointEntry),
    /// Takes an endpoint away.
    EndpointRemove(EndpointId),
}

impl Catalog {
    /// The region with this id.
    pub fn region(&self, id: &str) -> Result<&RegionEntry, IdentityError> {
        self.regions.iter().find(|r| r.id == id).ok_or_else(|| IdentityError::not_found("region", id))
    }

    /// The service with this id.
    pub fn service(&self, id: ServiceId) -> Result<&CatalogService, IdentityError> {
        self.services.iter().find(|s| s.entry.id == id).ok_or_else(|| IdentityError::not_found("service", id))
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &CatalogEndpoint> {
        self.services.iter().flat_map(|s| s.endpoints.iter())
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> Result<&CatalogEndpoint, IdentityError> {
        self.endpoints().find(|e| e.entry.id == id).ok_or_else(|| IdentityError::not_found("endpoint", id))
    }

    /// What a token shows: what is enabled, with the token's project in its URLs.
    pub fn of_token(&self, project_id: Option<ProjectId>) -> Vec<(&ServiceEntry, Vec<(&EndpointEntry, String)>)> {
        let url = |own: bool, entry: &EndpointEntry| {
            let mut url = entry.url.clone();
            if let Some(project_id) = project_id.filter(|_| own && url.ends_with(WITH_PROJECT)) {
                url.push_str(&format!("/{project_id}"));
            }
            for word in ["$(project_id)s", "%(project_id)s", "$(tenant_id)s", "%(tenant_id)s"] {
                if url.contains(word) {
                    url = url.replace(word, &project_id?.to_string());
                }
            }
            Some(url)
        };
        let shown = self.services.iter().filter(|s| s.entry.enabled);
        shown
            .map(|service| {
                let enabled = service.endpoints.iter().filter(|e| e.entry.enabled);
                (&service.entry, enabled.filter_map(|e| Some((&e.entry, url(e.own, &e.entry)?))).collect())
            })
            .collect()
    }
}

impl Identity {
    /// The catalogue.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.now()
    }

    /// Changes the catalogue.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] for what is our own,
    /// [`IdentityError::Conflict`] for a region that is there already, [`IdentityError::Invalid`].
    pub async fn catalog_change(
        &self,
        ctx: &OpCtx,
        action: Action,
        change: CatalogChange,
    ) -> Result<(), IdentityError> {
        authorize(ctx, action, &Target::default())?;
        // Another replica may have changed it in the last second.
        self.0.catalog.refresh(self.store(), &self.config().endpoint).await?;
        self.catalog_check(&change)?;
        let tx = self.store().begin(ctx).await?;
        let (kind, id, done) = match &change {
            CatalogChange::RegionAdd(region) => {
                tx.region_insert(region).await?;
                ("region", region.id.clone(), true)
            }
            CatalogChange::RegionSet(region) => ("region", region.id.clone(), tx.region_update(region).await?),
            CatalogChange::RegionRemove(id) => ("region", id.clone(), tx.region_delete(id).await?),
            CatalogChange::ServiceAdd(service) => {
                tx.catalog_service_insert(service).await?;
                ("service", service.id.to_string(), true)
            }
            CatalogChange::ServiceSet(service) => {
                ("service", service.id.to_string(), tx.catalog_service_update(service).await?)
            }
            CatalogChange::ServiceRemove(id) => ("service", id.to_string(), tx.catalog_service_delete(*id).await?),
            CatalogChange::EndpointAdd(endpoint) => {
                self.region_ensure(&tx, endpoint).await?;
                tx.catalog_endpoint_insert(endpoint).await?;
                ("endpoint", endpoint.id.to_string(), true)
            }
            CatalogChange::EndpointSet(endpoint) => {
                self.region_ensure(&tx, endpoint).await?;
                ("endpoint", endpoint.id.to_string(), tx.catalog_endpoint_update(endpoint).await?)
            }
            CatalogChange::EndpointRemove(id) => ("endpoint", id.to_string(), tx.catalog_endpoint_delete(*id).await?),
        };
        if !done {
            return Err(IdentityError::not_found(kind, id));
        }
        self.audit(&tx, action, kind, &id, &json!({})).await?;
        self.commit(tx, &[]).await?;
        Ok(self.0.catalog.refresh(self.store(), &self.config().endpoint).await?)
    }

    /// Makes the region that an endpoint names, as Keystone does.
    async fn region_ensure(&self, tx: &Tx, endpoint: &EndpointEntry) -> Result<(), IdentityError> {
        let Some(id) = endpoint.region_id.as_ref().filter(|id| self.catalog().region(id).is_err()) else {
            return Ok(());
        };
        let new = RegionEntry { id: id.clone(), parent_id: None, description: String::new(), extra: Extra::new() };
        region_check(&self.catalog(), &new)?;
        Ok(tx.region_insert(&new).await?)
    }

    fn catalog_check(&self, change: &CatalogChange) -> Result<(), IdentityError> {
        let catalog = self.catalog();
        let full = |count: usize| {
            if count < usize::try_from(ADDED_MAX).unwrap_or(usize::MAX) {
                return Ok(());
            }
            Err(IdentityError::Forbidden(format!("At most {ADDED_MAX} of these can be added.")))
        };
        match change {
            CatalogChange::RegionAdd(region) => {
                full(catalog.regions.len())?;
                region_check(&catalog, region)?;
                if catalog.region(&region.id).is_ok() {
                    return Err(IdentityError::Conflict("There is a region with this id already.".to_owned()));
                }
            }
            CatalogChange::RegionSet(region) => {
                catalog.region(&region.id)?;
                region_check(&catalog, region)?;
                own_check(region.id == self.config().endpoint.region)?;
            }
            CatalogChange::RegionRemove(id) => {
                catalog.region(id)?;
                own_check(*id == self.config().endpoint.region)?;
                let used = catalog.regions.iter().any(|r| r.parent_id.as_ref() == Some(id));
                if used || catalog.endpoints().any(|e| e.entry.region_id.as_ref() == Some(id)) {
                    let reason = "Endpoints or other regions are still in this region.";
                    return Err(IdentityError::Forbidden(reason.to_owned()));
                }
            }
            CatalogChange::ServiceAdd(service) => {
                full(catalog.services.len())?;
                service_check(service)?;
            }
            CatalogChange::ServiceSet(service) => {
                own_check(catalog.service(service.id)?.own)?;
                service_check(service)?;
            }
            CatalogChange::ServiceRemove(id) => own_check(catalog.service(*id)?.own)?,
            CatalogChange::EndpointAdd(endpoint) => {
                full(catalog.endpoints().count())?;
                endpoint_check(&catalog, endpoint)?;
            }
            CatalogChange::EndpointSet(endpoint) => {
                own_check(catalog.endpoint(endpoint.id)?.own)?;
                endpoint_check(&catalog, endpoint)?;
            }
            CatalogChange::EndpointRemove(id) => own_check(catalog.endpoint(*id)?.own)?,
        }
        Ok(())
    }
}

fn own_check(own: bool) -> Result<(), IdentityError> {
    if own {
        let reason = "This follows from the address of the cloud and is not changed by calls.";
        return Err(IdentityError::Forbidden(reason.to_owned()));
    }
    Ok(())
}

fn invalid<T>(text: &str) -> Result<T, IdentityError> {
    Err(IdentityError::Invalid(text.to_owned()))
}

fn region_check(catalog: &Catalog, region: &RegionEntry) -> Result<(), IdentityError> {
    text_check(Some(&region.description))?;
    extra_check(&region.extra)?;
    if region.id.is_empty() || region.id.len() > 255 || region.id.chars().any(|c| c.is_control() || c == '/') {
        return invalid("A region's id holds 1 to 255 bytes, no slashes or control characters.");
    }
    let mut above = region.parent_id.clone();
    while let Some(id) = above {
        if id == region.id {
            return invalid("Regions cannot be part of each other in a circle.");
        }
        above = catalog.region(&id)?.parent_id.clone();
    }
    Ok(())
}

fn service_check(service: &ServiceEntry) -> Result<(), IdentityError> {
    text_check(Some(&service.description))?;
    extra_check(&service.extra)?;
    if service.kind.is_empty() || service.kind.len() > 255 || service.name.as_ref().is_some_and(|n| n.len() > 255) {
        return invalid("A service's type holds 1 to 255 bytes, and its name at most 255.");
    }
    Ok(())
}

fn endpoint_check(catalog: &Catalog, endpoint: &EndpointEntry) -> Result<(), IdentityError> {
    extra_check(&endpoint.extra)?;
    if !INTERFACES.contains(&endpoint.interface.as_str()) {
        return invalid("An endpoint's interface is public, internal or admin.");
    }
    let plain = endpoint.url.len() <= 2048 && !endpoint.url.chars().any(|c| c.is_whitespace() || c.is_control());
    if !plain || !(endpoint.url.starts_with("http://") || endpoint.url.starts_with("https://")) {
        return invalid(
            "An endpoint's URL begins with http:// or https://, and holds at most 2048 bytes without spaces.",
        );
    }
    let service = catalog.service(endpoint.service_id);
    service.map_err(|_| IdentityError::Invalid(format!("There is no service {}.", endpoint.service_id)))?;
    Ok(())
}

impl ServiceNew {
    /// The service with an id of its own.
    pub fn entry(self) -> ServiceEntry {
        let Self { kind, name, description, enabled, extra } = self;
        ServiceEntry { id: ServiceId::new(), kind, name, description, enabled, extra }
    }
}

impl EndpointNew {
    /// The endpoint with an id of its own.
    pub fn entry(self) -> EndpointEntry {
        let Self { service_id, region_id, interface, url, enabled, extra } = self;
        EndpointEntry { id: EndpointId::new(), service_id, region_id, interface, url, enabled, extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_and_differ() {
        let endpoint = Endpoint { url: "https://127.0.0.1:8774".into(), region: "RegionOne".into() };
        let (one, two) = (own(&endpoint), own(&endpoint));
        assert_eq!(one, two);
        let each = one.iter().flat_map(|s| s.endpoints.iter().map(|e| e.entry.id.0).chain([s.entry.id.0]));
        let mut ids: Vec<Uuid> = each.collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert_eq!(one[1].endpoints[0].entry.url, "https://127.0.0.1:8774/compute/v2.1");
    }

    #[test]
    fn volumes_are_reached_under_the_project() {
        let endpoint = Endpoint { url: "https://127.0.0.1:8774".into(), region: "RegionOne".into() };
        let catalog = Catalog { regions: Vec::new(), services: own(&endpoint) };
        let project = ProjectId::new();
        let url = |project| {
            let found = catalog.of_token(project).into_iter().find(|(s, _)| s.kind == "block-storage");
            found.map(|(_, endpoints)| endpoints[0].1.clone())
        };
        assert_eq!(url(None).as_deref(), Some("https://127.0.0.1:8774/volume/v3"));
        assert_eq!(url(Some(project)), Some(format!("https://127.0.0.1:8774/volume/v3/{project}")));
    }
}
