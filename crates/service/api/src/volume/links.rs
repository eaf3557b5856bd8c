//! Links as the volume API writes them.

use crate::App;
use crate::body::Pairs;
use crate::query::again;
use arcus_types::OpCtx;
use serde_json::{Value, json};

/// The root of the API as the caller's catalogue shows it, without a slash at the end.
fn root(app: &App, ctx: &OpCtx) -> String {
    let url = &app.endpoint.url;
    ctx.project_id().map_or_else(|| format!("{url}/volume/v3"), |project| format!("{url}/volume/v3/{project}"))
}

/// The `self` and `bookmark` links of a resource.
pub fn links(app: &App, ctx: &OpCtx, kind: &str, id: impl std::fmt::Display) -> Value {
    let root = root(app, ctx);
    json!([
        { "rel": "self", "href": format!("{root}/{kind}/{id}") },
        { "rel": "bookmark", "href": format!("{root}/{kind}/{id}") },
    ])
}

/// The link to the next page: the same query with another marker. `path` begins with a slash.
pub fn next(app: &App, ctx: &OpCtx, path: &str, query: &Pairs, marker: impl std::fmt::Display) -> Value {
    let query = again(query, &marker.to_string());
    json!([{ "rel": "next", "href": format!("{}{path}?{query}", root(app, ctx)) }])
}
