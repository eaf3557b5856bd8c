//! Classes of resource and traits.

use super::errors::bad_value;
use super::query::keys_checked;
use super::{Answer, dated, location, shown, since};
use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::fields::Fields;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_store::ProviderWord::{Class, Trait};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

fn class_body(name: &str) -> Value {
    json!({ "name": name, "links": [{ "rel": "self", "href": format!("/placement/resource_classes/{name}") }] })
}

/// `GET /resource_classes`, from 1.2 on
pub async fn classes(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    since(version, 2)?;
    let names = app.engine.provider_word_list(&ctx, Class).await?;
    let list: Vec<Value> = names.iter().map(|name| class_body(name)).collect();
    shown(version, None, &json!({ "resource_classes": list }))
}

fn name_of(said: &Value) -> Result<&str, ApiError> {
    let mut fields = Fields::object(said, "body")?;
    let name = fields.text_required("name", 1, 255)?;
    fields.end()?;
    Ok(name)
}

/// `POST /resource_classes`, from 1.2 on
pub async fn class_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(said): Json<Value>,
) -> Answer {
    since(version, 2)?;
    let name = name_of(&said)?;
    if !app.engine.provider_word_create(&ctx, Class, name).await? {
        let message = format!("Conflicting resource class already exists: {name}");
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    Ok(location(StatusCode::CREATED, &app, &format!("resource_classes/{name}")))
}

/// `GET /resource_classes/{name}`, from 1.2 on
pub async fn class_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Answer {
    since(version, 2)?;
    app.engine.provider_word_get(&ctx, Class, &name).await?;
    shown(version, None, &class_body(&name))
}

/// `PUT /resource_classes/{name}`: until 1.6 it renames, from 1.7 on it sees to it that there is one.
pub async fn class_put(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Answer {
    since(version, 2)?;
    if version.at_least(7) {
        let made = app.engine.provider_word_create(&ctx, Class, &name).await?;
        let status = if made { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        return Ok(location(status, &app, &format!("resource_classes/{name}")));
    }
    let said: Value =
        serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("Malformed JSON: {e}")))?;
    let new = name_of(&said)?;
    app.engine.resource_class_rename(&ctx, &name, new).await?;
    shown(version, None, &class_body(new))
}

/// `DELETE /resource_classes/{name}`, from 1.2 on
pub async fn class_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    since(version, 2)?;
    app.engine.provider_word_delete(&ctx, Class, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /traits`, from 1.6 on
pub async fn traits(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 6)?;
    keys_checked(&query, &["name", "associated"], &[])?;
    let mut names = app.engine.provider_word_list(&ctx, Trait).await?;
    if let Some(text) = query.first("name") {
        match text.split_once(':') {
            Some(("in", list)) => names.retain(|name| list.split(',').any(|one| one == name)),
            Some(("startswith", prefix)) => names.retain(|name| name.starts_with(prefix)),
            Some(_) | None => {
                let message = "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix].";
                return Err(bad_value(message));
            }
        }
    }
    if let Some(text) = query.first("associated") {
        let wanted = match text.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(bad_value("The query parameter \"associated\" only accepts \"true\" or \"false\"")),
        };
        let used = app.engine.traits_in_use(&ctx).await?;
        names.retain(|name| used.contains(name) == wanted);
    }
    shown(version, None, &json!({ "traits": names }))
}

/// `GET /traits/{name}`, from 1.6 on
pub async fn trait_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Answer {
    since(version, 6)?;
    app.engine.provider_word_get(&ctx, Trait, &name).await?;
    Ok(dated(StatusCode::NO_CONTENT.into_response(), version, None))
}

/// `PUT /traits/{name}`, from 1.6 on
pub async fn trait_put(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Answer {
    since(version, 6)?;
    let made = app.engine.provider_word_create(&ctx, Trait, &name).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(dated(location(status, &app, &format!("traits/{name}")), version, None))
}

/// `DELETE /traits/{name}`, from 1.6 on
pub async fn trait_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    since(version, 6)?;
    app.engine.provider_word_delete(&ctx, Trait, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
