//! Access rules on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::Id;
use crate::{ApiError, App, Route};
use arcus_store::AccessRule;
use arcus_types::UserId;
use arcus_types::policy::identity as policy;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ONE: &str = "/identity/v3/users/{user_id}/access_rules/{access_rule_id}";
    vec![
        Route::get("/identity/v3/users/{user_id}/access_rules", policy::ACCESS_RULE_LIST, list),
        Route::get(ONE, policy::ACCESS_RULE_GET, get),
        Route::delete(ONE, policy::ACCESS_RULE_DELETE, delete),
    ]
}

/// A rule's body, as application credentials show it.
pub fn body(rule: &AccessRule) -> Value {
    json!({ "id": rule.id, "service": rule.service, "method": rule.method, "path": rule.path })
}

fn linked(app: &App, user_id: UserId, rule: &AccessRule) -> Value {
    let mut body = body(rule);
    body["links"] = json!({ "self": super::link(app, &format!("users/{user_id}/access_rules"), rule.id) });
    body
}

async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(user_id): Id<UserId>,
    query: Listing,
) -> Result<Json<Value>, ApiError> {
    let texts = ["service", "method", "path"].map(|key| query.text(key));
    let wanted = [texts[0].as_deref(), texts[1].as_deref(), texts[2].as_deref()];
    let found = app.identity.access_rule_list(&ctx, user_id, wanted, query.marker()?, query.ask()).await?;
    let path = format!("users/{user_id}/access_rules");
    Ok(query.render(&app, &path, "access_rules", found, |r| r.id, |r| linked(&app, user_id, r)))
}

async fn get(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((user, rule)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let user_id = super::id(&user)?;
    let rule = app.identity.access_rule_get(&ctx, user_id, super::id(&rule)?).await?;
    Ok(Json(json!({ "access_rule": linked(&app, user_id, &rule) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((user, rule)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.access_rule_delete(&ctx, super::id(&user)?, super::id(&rule)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
