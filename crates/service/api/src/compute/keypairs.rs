//! Key pairs.

use super::Answer;
use super::fields::{Fields, refused, required};
use super::links::{self, PAGE_MAX, limit, parsed};
use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::keypairs::KeypairKind;
use arcus_store::Keypair;
use arcus_types::{OpCtx, UserId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Whose keys are meant: the caller's, or from 2.10 on another user's, for administrators.
fn user(ctx: &OpCtx, version: Microversion, query: &Pairs, more: &[&str]) -> Result<UserId, ApiError> {
    if version.at_least(75) {
        links::known(query, &[&["user_id"], more].concat())?;
    }
    let other = if version.at_least(10) { parsed(query, "user_id")? } else { None };
    other.or(ctx.user_id()).ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "Only a user has key pairs."))
}

fn brief(key: &Keypair, version: Microversion) -> Value {
    let mut out = json!({ "name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint });
    if version.at_least(2) {
        out["type"] = json!(key.kind);
    }
    out
}

/// `GET /os-keypairs`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let user = user(&ctx, version, &query, &["limit", "marker"])?;
    let (limit, marker) = if version.at_least(35) { (limit(&query)?, query.first("marker")) } else { (PAGE_MAX, None) };
    let (keys, more) = app.engine.keypair_list(&ctx, user, marker, limit).await?;
    let list: Vec<Value> = keys.iter().map(|k| json!({ "keypair": brief(k, version) })).collect();
    let mut out = json!({ "keypairs": list });
    if let (true, true, Some(last)) = (more, version.at_least(35), keys.last()) {
        out["keypairs_links"] = links::next(&app, "/os-keypairs", &query, &last.name);
    }
    Ok(axum::Json(out))
}

/// `GET /os-keypairs/{name}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    query: Pairs,
    Path(name): Path<String>,
) -> Answer {
    let key = app.engine.keypair_get(&ctx, user(&ctx, version, &query, &[])?, &name).await?;
    let mut out = brief(&key, version);
    out["user_id"] = json!(key.user_id);
    // A number that stays the same; the API has always had one.
    out["id"] = json!(key.created_at.0 & i64::from(i32::MAX));
    out["created_at"] = json!(links::naive(key.created_at));
    out["deleted"] = json!(false);
    out["deleted_at"] = Value::Null;
    out["updated_at"] = Value::Null;
    Ok(axum::Json(json!({ "keypair": out })))
}

/// `POST /os-keypairs`
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let mut fields = Fields::of(&body, "keypair", &[])?;
    let name = fields.text_required("name", 1, 255)?;
    name_checked(name, version)?;
    let public_key = fields.text("public_key", 1, 16_384)?;
    let mut kind = KeypairKind::Ssh;
    if version.at_least(2) {
        kind = match fields.text("type", 1, 16)? {
            None | Some("ssh") => KeypairKind::Ssh,
            Some("x509") => KeypairKind::X509,
            Some(other) => return Err(refused("type", &json!(other), "It is neither 'ssh' nor 'x509'.")),
        };
    }
    let other: Option<UserId> = if version.at_least(10) { fields.parsed("user_id")? } else { None };
    fields.end()?;
    if version.at_least(92) && public_key.is_none() {
        return Err(required("keypair", "public_key"));
    }
    let user = other.or(ctx.user_id());
    let user = user.ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "Only a user has key pairs."))?;
    let (key, private) = app.engine.keypair_create(&ctx, user, name, kind, public_key).await?;
    let mut out = brief(&key, version);
    out["user_id"] = json!(key.user_id);
    if let Some(private) = private {
        out["private_key"] = json!(private);
    }
    let status = if version.at_least(2) { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(json!({ "keypair": out }))))
}

fn name_checked(name: &str, version: Microversion) -> Result<(), ApiError> {
    let extra: &[char] = if version.at_least(92) { &['@', '.'] } else { &[] };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_') || extra.contains(&c);
    if name.trim() == name && name.chars().all(allowed) {
        return Ok(());
    }
    let value = json!(name);
    Err(refused("name", &value, "It holds letters, digits, spaces inside, '-' and '_', and from 2.92 on '@' and '.'."))
}

/// `DELETE /os-keypairs/{name}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    query: Pairs,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.engine.keypair_delete(&ctx, user(&ctx, version, &query, &[])?, &name).await?;
    Ok(if version.at_least(2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}
