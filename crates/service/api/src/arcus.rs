//! The native API: what OpenStack never standardised.

mod join_tokens;
mod nodes;

use crate::Route;
use arcus_types::policy::arcus;

/// The routes of the native API.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/arcus/v1/join-tokens", arcus::JOIN_TOKEN_CREATE, join_tokens::create),
        Route::get("/arcus/v1/nodes", arcus::NODE_LIST, nodes::list),
    ]
}
