//! The HTTP surface. A handler extracts, converts, makes one engine call and converts back; reads may ask the store's
//! lists through the engine. Every route is declared in a table with its policy action ([`route::Route`]).

pub mod agent;
pub mod arcus;
pub mod auth;
pub mod body;
pub mod compute;
pub mod console;
pub mod error;
pub mod fields;
pub mod identity;
pub mod image;
pub mod microversion;
pub mod network;
pub mod placement;
pub mod query;
pub mod root;
pub mod route;
pub mod volume;

pub use arcus_identity::Endpoint;
pub use error::ApiError;
pub use route::{Route, router};

use arcus_engine::Engine;
use arcus_identity::Identity;
use std::sync::Arc;

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// Servers, images, networks, nodes.
    pub engine: Engine,
    /// Users, projects, tokens.
    pub identity: Identity,
    /// How clients reach this cloud.
    pub endpoint: Arc<Endpoint>,
}

/// Every route of every service.
pub fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(root::routes());
    routes.extend(agent::routes());
    routes.extend(console::routes());
    routes.extend(arcus::routes());
    routes.extend(image::routes());
    routes.extend(identity::routes());
    routes.extend(compute::routes());
    routes.extend(network::routes());
    routes.extend(placement::routes());
    routes.extend(volume::routes());
    routes
}
