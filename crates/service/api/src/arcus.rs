//! The native API: what OpenStack never standardised.

mod clusters;
mod join_tokens;
mod live_migration;
mod maintenance;
mod nodes;
mod placement;
mod task_watch;
mod tasks;

use crate::Route;
use arcus_types::policy::{arcus, compute};

/// The routes of the native API.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/arcus/v1/join-tokens", arcus::JOIN_TOKEN_CREATE, join_tokens::create),
        Route::get("/arcus/v1/nodes", arcus::NODE_LIST, nodes::list),
        Route::post("/arcus/v1/nodes/{name}/drain", arcus::NODE_DRAIN, maintenance::drain),
        Route::post("/arcus/v1/nodes/{name}/restore", arcus::NODE_RESTORE, maintenance::restore),
        Route::get("/arcus/v1/clusters", arcus::CLUSTER_LIST, clusters::list),
        Route::post("/arcus/v1/clusters", arcus::CLUSTER_CREATE, clusters::create),
        Route::get("/arcus/v1/clusters/{id}", arcus::CLUSTER_READ, clusters::show),
        Route::patch("/arcus/v1/clusters/{id}", arcus::CLUSTER_UPDATE, clusters::update),
        Route::delete("/arcus/v1/clusters/{id}", arcus::CLUSTER_DELETE, clusters::delete),
        Route::get("/arcus/v1/clusters/{id}/pairs", arcus::CLUSTER_READ, clusters::pairs),
        Route::get("/arcus/v1/clusters/{id}/candidates/{node}", arcus::CLUSTER_READ, clusters::candidate),
        Route::put("/arcus/v1/clusters/{id}/nodes/{node}", arcus::CLUSTER_NODE_SET, clusters::node_add),
        Route::delete("/arcus/v1/clusters/{id}/nodes/{node}", arcus::CLUSTER_NODE_SET, clusters::node_remove),
        Route::get("/arcus/v1/tasks/{id}/servers", arcus::NODE_DRAIN, maintenance::servers),
        Route::get("/arcus/v1/tasks", arcus::TASK_LIST, tasks::list),
        Route::get("/arcus/v1/tasks/watch", arcus::TASK_LIST, task_watch::all),
        Route::get("/arcus/v1/tasks/{id}", arcus::TASK_READ, tasks::show),
        Route::get("/arcus/v1/tasks/{id}/events", arcus::TASK_READ, task_watch::one),
        Route::post("/arcus/v1/tasks/{id}/cancel", arcus::TASK_CANCEL, tasks::cancel),
        Route::post("/arcus/v1/tasks/{id}/retry", arcus::TASK_RETRY, tasks::retry),
        Route::post("/arcus/v1/servers/{id}/live-migration", compute::SERVER_MIGRATE, live_migration::create),
        Route::get("/arcus/v1/servers/{id}/placement", arcus::PLACEMENT_READ, placement::show),
        Route::post("/arcus/v1/placement/explain", arcus::PLACEMENT_EXPLAIN, placement::explain),
    ]
}
