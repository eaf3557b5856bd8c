//! The identity API: Keystone v3 under `/identity/v3`.

mod access_rules;
mod application_credentials;
mod assignments;
mod catalog;
mod credentials;
mod domains;
mod groups;
mod limits;
mod listing;
mod project_tags;
mod projects;
mod regions;
mod roles;
mod tokens;
mod trusts;
mod users;
mod versions;

use crate::{ApiError, App, Route};
use arcus_engine::EngineError;
use arcus_identity::IdentityError;
use arcus_store::Extra;
use arcus_types::policy::identity as policy;
use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// What the identity API serves.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/identity", policy::VERSIONS, versions::list),
        Route::get("/identity/", policy::VERSIONS, versions::list),
        Route::get("/identity/v3", policy::VERSIONS, versions::v3),
        Route::get("/identity/v3/", policy::VERSIONS, versions::v3),
        Route::post("/identity/v3/auth/tokens", policy::TOKEN_CREATE, tokens::create),
        Route::get("/identity/v3/auth/tokens", policy::TOKEN_GET, tokens::get),
        Route::delete("/identity/v3/auth/tokens", policy::TOKEN_DELETE, tokens::delete),
        Route::get("/identity/v3/auth/catalog", policy::CATALOG_GET, catalog::show),
        Route::get("/identity/v3/auth/projects", policy::OWN_SCOPES_LIST, tokens::projects),
        Route::get("/identity/v3/auth/domains", policy::OWN_SCOPES_LIST, tokens::domains),
        Route::get("/identity/v3/auth/system", policy::OWN_SCOPES_LIST, tokens::system),
    ];
    routes.extend(domains::routes());
    routes.extend(projects::routes());
    routes.extend(users::routes());
    routes.extend(groups::routes());
    routes.extend(roles::routes());
    routes.extend(assignments::routes());
    routes.extend(application_credentials::routes());
    routes.extend(catalog::routes());
    routes.extend(access_rules::routes());
    routes.extend(credentials::routes());
    routes.extend(limits::routes());
    routes.extend(project_tags::routes());
    routes.extend(regions::routes());
    routes.extend(trusts::routes());
    routes
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::Invalid(_) => Self::bad_request(message),
            IdentityError::Unauthorized => Self::unauthorized(),
            IdentityError::PasswordExpired(_) => Self { message, ..Self::unauthorized() },
            IdentityError::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, message),
            IdentityError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, message),
            IdentityError::Conflict(_) => Self::new(StatusCode::CONFLICT, message),
            IdentityError::Denied(denied) => denied.into(),
            IdentityError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            IdentityError::Store(source) => EngineError::Store(source).into(),
            IdentityError::KeyFile { .. } | IdentityError::Corrupt(_) => crate::error::internal(&error),
        }
    }
}

/// The address of one object.
fn link(app: &App, collection: &str, id: impl std::fmt::Display) -> String {
    format!("{}/identity/v3/{collection}/{id}", app.endpoint.url)
}

/// A list's body: the objects under their name, and links. `next` is the query of the page that follows.
fn list(app: &App, path: &str, name: &str, items: Vec<Value>, next: Option<String>) -> Json<Value> {
    let here = format!("{}/identity/v3/{path}", app.endpoint.url);
    let next = next.map(|query| format!("{here}?{query}"));
    Json(json!({ name: items, "links": { "self": here, "next": next, "previous": null } }))
}

/// An id without the form of an id names nothing. A fresh one names nothing either, and then takes the same way and
/// time.
fn id_or_none_such<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

/// An id from the path; text that is no id names nothing, so it answers 404.
fn id<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    let shown: String = text.chars().take(64).collect();
    text.parse().map_err(|_| ApiError::not_found("Resource", shown))
}

/// Reads a field that may be absent, `null` or a value: absent and `null` differ in a change.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// Attributes of the client's own: what is not known, less what the answer says itself.
fn extra(mut more: Extra) -> Extra {
    for known in ["id", "links", "password_expires_at"] {
        more.remove(known);
    }
    more
}

/// A body over attributes of the client's own.
fn over(extra: &Extra, body: Value) -> Value {
    let mut whole = extra.clone();
    if let Value::Object(body) = body {
        whole.extend(body);
    }
    Value::Object(whole)
}

/// Refuses to move something to another domain.
fn same_domain<T: PartialEq>(now: T, wanted: T) -> Result<(), ApiError> {
    if now == wanted { Ok(()) } else { Err(ApiError::bad_request("The domain cannot be changed.")) }
}
