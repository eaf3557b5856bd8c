//! Links, pages and instants as the compute API writes them.

use crate::App;
use crate::body::Pairs;
use crate::query::again;
pub use crate::query::{PAGE_MAX, instant, known, limit, parse, parsed};
use arcus_types::Timestamp;
use serde_json::{Value, json};

/// The `self` and `bookmark` links of a resource.
pub fn links(app: &App, kind: &str, id: &str) -> Value {
    let url = &app.endpoint.url;
    json!([
        { "rel": "self", "href": format!("{url}/compute/v2.1/{kind}/{id}") },
        { "rel": "bookmark", "href": format!("{url}/compute/{kind}/{id}") },
    ])
}

/// The `bookmark` link alone.
pub fn bookmark(app: &App, kind: &str, id: &str) -> Value {
    json!([{ "rel": "bookmark", "href": format!("{}/compute/{kind}/{id}", app.endpoint.url) }])
}

/// The link to the next page: the same query with another marker.
pub fn next(app: &App, path: &str, query: &Pairs, marker: &str) -> Value {
    let query = again(query, marker);
    json!([{ "rel": "next", "href": format!("{}/compute/v2.1{path}?{query}", app.endpoint.url) }])
}

/// `2026-11-23T09:26:54.000000`: the form of times that are not in the core of a server.
pub fn naive(at: Timestamp) -> String {
    at.iso_naive()
}
