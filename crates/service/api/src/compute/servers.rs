//! Servers: create, lists, show, change, delete. The body of each microversion is made in [`view`].

pub mod actions;
mod block_devices;
mod create;
mod query;
pub mod view;

use super::Answer;
use super::fields::Fields;
use super::links;
use crate::auth::Ctx;
use crate::body::{self, Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::servers::{ServerChange, ServerView};
use arcus_types::{OpCtx, ServerId};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Whether an answer to this caller holds the server's user data.
fn secrets(ctx: &OpCtx, version: Microversion) -> bool {
    ctx.is_admin() && version.at_least(3)
}

/// `POST /servers`
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<Response, ApiError> {
    let (new, reservation_only) = create::parse(&body, version)?;
    let manual = new.disk_config_manual;
    let made = app.engine.server_create(&ctx, new).await?;
    if reservation_only {
        let body = json!({ "reservation_id": made.reservation_id });
        return Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response());
    }
    let Some(server) = made.servers.first() else {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "No server was made."));
    };
    let id = server.id.to_string();
    let groups: Vec<Value> = made.security_groups.iter().map(|name| json!({ "name": name })).collect();
    let body = json!({ "server": {
        "id": id,
        "links": links::links(&app, "servers", &id),
        "OS-DCF:diskConfig": view::disk_config(manual),
        "security_groups": groups,
        "adminPass": made.admin_password,
    } });
    let mut response = (StatusCode::ACCEPTED, axum::Json(body)).into_response();
    let location = format!("{}/compute/v2.1/servers/{id}", app.endpoint.url);
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// `GET /servers`
pub async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    query: Pairs,
) -> Result<Response, ApiError> {
    let asked = query::parse(&ctx, &query, version)?;
    let (servers, more) = app.engine.server_list(&ctx, asked).await?;
    let more = next_page(&app, "/servers", &query, more, &servers);
    let brief = servers.into_iter().map(|v| {
        let id = v.server.id.to_string();
        json!({ "name": v.server.name, "links": links::links(&app, "servers", &id), "id": id })
    });
    Ok(body::list("servers", brief, more))
}

/// `GET /servers/detail`
pub async fn detail(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    query: Pairs,
) -> Result<Response, ApiError> {
    let mut asked = query::parse(&ctx, &query, version)?;
    asked.around = true;
    asked.secrets = secrets(&ctx, version);
    let (servers, more) = app.engine.server_list(&ctx, asked).await?;
    let shape = view::Shape { version, admin: ctx.is_admin(), full: true, groups: false };
    let more = next_page(&app, "/servers/detail", &query, more, &servers);
    let whole = servers.into_iter().map(|v| view::server(&app, &v, shape));
    Ok(body::list("servers", whole, more))
}

/// The link to the servers that follow, if any do.
fn next_page(
    app: &App,
    path: &str,
    query: &Pairs,
    more: bool,
    servers: &[ServerView],
) -> Option<(&'static str, Value)> {
    let last = servers.last().filter(|_| more)?;
    Some(("servers_links", links::next(app, path, query, &last.server.id.to_string())))
}

/// `GET /servers/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerId>) -> Answer {
    let found = app.engine.server_show(&ctx, id, secrets(&ctx, version)).await?;
    let shape = view::Shape { version, admin: ctx.is_admin(), full: true, groups: true };
    Ok(axum::Json(json!({ "server": view::server(&app, &found, shape) })))
}

/// `PUT /servers/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "server", &[])?;
    let change = ServerChange {
        name: fields.parsed("name")?,
        hostname: if version.at_least(90) { create::hostname(&mut fields, version)? } else { None },
        description: if version.at_least(19) { fields.text_or_null("description", 255)? } else { None },
        access_ip_v4: fields.address("accessIPv4", false)?,
        access_ip_v6: fields.address("accessIPv6", true)?,
        disk_config_manual: create::disk_config(&mut fields)?,
    };
    fields.end()?;
    let server = app.engine.server_update(&ctx, id, change).await?;
    let found = app.engine.server_view(server, secrets(&ctx, version)).await?;
    // From 2.75 on the answer is as that of a show.
    let shape = view::Shape { version, admin: ctx.is_admin(), full: version.at_least(75), groups: true };
    Ok(axum::Json(json!({ "server": view::server(&app, &found, shape) })))
}

/// `DELETE /servers/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>) -> Result<StatusCode, ApiError> {
    app.engine.server_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /servers/{id}/ips`
pub async fn ips(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>) -> Answer {
    let found = app.engine.server_show(&ctx, id, false).await?;
    Ok(axum::Json(json!({ "addresses": view::addresses(&found, false) })))
}

/// `GET /servers/{id}/ips/{network}`
pub async fn ips_of(Ctx(ctx): Ctx, State(app): State<App>, Path((id, network)): Path<(String, String)>) -> Answer {
    let id = super::server_id(&id)?;
    let found = app.engine.server_show(&ctx, id, false).await?;
    match view::addresses(&found, false).get(&network) {
        Some(list) => Ok(axum::Json(json!({ network: list }))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "Instance is not a member of specified network")),
    }
}

/// `GET /servers/{id}/topology`, from 2.78 on: guests here are not tied to a node's memory banks.
pub async fn topology(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerId>) -> Answer {
    super::since(version, 78)?;
    app.engine.server_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "nodes": [], "pagesize_kb": null })))
}
