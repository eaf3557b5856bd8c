//! `POST /servers/{id}/action`: one body, one action.

mod disk;
mod migration;
mod network;

use super::{create, secrets, view};
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::compute::fields::{Fields, refused, required};
use crate::compute::server_id;
use crate::console::page_url;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::servers::{ConsoleKind, RebuildWish};
use arcus_types::{OpCtx, ServerId};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Everything that an action needs to know.
struct Call<'a> {
    ctx: OpCtx,
    app: &'a App,
    version: Microversion,
    id: ServerId,
    body: &'a Value,
}

/// `POST /servers/{id}/action`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    Json(body): Json<Value>,
) -> Result<Response, ApiError> {
    let map = body.as_object().ok_or_else(|| refused("body", &body, "It is not an object."))?;
    let Some(name) = map.keys().next().filter(|_| map.len() == 1) else {
        return Err(ApiError::bad_request("The body of an action has exactly one field: the action's name."));
    };
    let call = Call { ctx, app: &app, version, id, body: &body };
    let engine = &app.engine;
    match name.as_str() {
        "reboot" => call.reboot().await,
        "os-start" => done(engine.server_start(&ctx, id).await),
        "os-stop" => done(engine.server_stop(&ctx, id).await),
        "pause" => done(engine.server_pause(&ctx, id).await),
        "unpause" => done(engine.server_unpause(&ctx, id).await),
        "suspend" => done(engine.server_suspend(&ctx, id).await),
        "resume" => done(engine.server_resume(&ctx, id).await),
        "forceDelete" => done(engine.server_delete(&ctx, id).await),
        "unlock" => done(engine.server_unlock(&ctx, id).await),
        "revertResize" => done(engine.server_resize_revert(&ctx, id).await),
        "confirmResize" => {
            engine.server_resize_confirm(&ctx, id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        "lock" => call.lock().await,
        "resize" => call.resize().await,
        "rebuild" => call.rebuild().await,
        "createImage" => call.create_image().await,
        "createBackup" => call.create_backup().await,
        "changePassword" => call.change_password().await,
        "rescue" => call.rescue().await,
        "unrescue" => done(engine.server_unrescue(&ctx, id).await),
        "shelve" => done(engine.server_shelve(&ctx, id).await),
        "shelveOffload" => done(engine.server_shelve_offload(&ctx, id).await),
        "unshelve" => call.unshelve().await,
        "restore" => done(engine.server_restore(&ctx, id).await),
        "migrate" => call.migrate().await,
        "os-migrateLive" => call.migrate_live().await,
        "evacuate" => call.evacuate().await,
        "addFixedIp" if !version.at_least(44) => call.fixed_ip_add().await,
        "removeFixedIp" if !version.at_least(44) => call.fixed_ip_remove().await,
        "addFloatingIp" if !version.at_least(44) => call.floating_ip_add().await,
        "removeFloatingIp" if !version.at_least(44) => call.floating_ip_remove().await,
        "injectNetworkInfo" => done(engine.server_network_inject(&ctx, id).await),
        "resetNetwork" => Err(ApiError::new(StatusCode::GONE, "This action is gone.")),
        "addSecurityGroup" => call.security_group("addSecurityGroup", true).await,
        "removeSecurityGroup" => call.security_group("removeSecurityGroup", false).await,
        "os-resetState" => call.reset_state().await,
        "os-getConsoleOutput" => call.console_output().await,
        "os-getSerialConsole" => call.console_old("os-getSerialConsole", "serial", ConsoleKind::Serial).await,
        "os-getVNCConsole" => call.console_old("os-getVNCConsole", "novnc", ConsoleKind::Screen).await,
        // What the compute API knows and this cloud does not do is told apart from what nobody knows.
        "trigger_crash_dump" if version.at_least(17) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "The action 'trigger_crash_dump' is not available in this cloud: guests' memory is not dumped.",
        )),
        other => Err(unknown(other)),
    }
}

fn done(result: Result<(), arcus_engine::EngineError>) -> Result<Response, ApiError> {
    result?;
    Ok(StatusCode::ACCEPTED.into_response())
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    ApiError::bad_request(format!("There is no such action: {name}"))
}

impl Call<'_> {
    async fn reboot(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "reboot", &[])?;
        let kind = fields.text_required("type", 1, 16)?;
        fields.end()?;
        let hard = match kind.to_ascii_uppercase().as_str() {
            "SOFT" => false,
            "HARD" => true,
            _ => return Err(refused("type", &json!(kind), "It is neither 'SOFT' nor 'HARD'.")),
        };
        done(self.app.engine.server_reboot(&self.ctx, self.id, hard).await)
    }

    async fn lock(&self) -> Result<Response, ApiError> {
        let reason = match self.body.get("lock") {
            Some(Value::Object(_)) if self.version.at_least(73) => {
                let mut fields = Fields::of(self.body, "lock", &[])?;
                let reason = fields.text("locked_reason", 1, 255)?.map(str::to_owned);
                fields.end()?;
                reason
            }
            _ => None,
        };
        done(self.app.engine.server_lock(&self.ctx, self.id, reason).await)
    }

    async fn resize(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "resize", &[])?;
        let flavor = create::flavor(&mut fields)?.ok_or_else(|| required("resize", "flavorRef"))?;
        let manual = create::disk_config(&mut fields)?;
        fields.end()?;
        done(self.app.engine.server_resize(&self.ctx, self.id, &flavor, manual).await)
    }

    async fn rebuild(&self) -> Result<Response, ApiError> {
        let v = self.version;
        let mut fields = Fields::of(self.body, "rebuild", &[])?;
        let image_id = create::image(fields.text_required("imageRef", 1, 1024)?)?;
        if fields.boolean("preserve_ephemeral")? == Some(true) {
            return Err(ApiError::bad_request("preserve_ephemeral is not available in this cloud."));
        }
        if v.at_least(63) && fields.list("trusted_image_certificates", 50)?.is_some() {
            return Err(ApiError::bad_request("trusted_image_certificates is not available in this cloud."));
        }
        let wish = RebuildWish {
            image_id,
            reimage: v.at_least(93),
            name: fields.parsed("name")?,
            hostname: if v.at_least(90) { create::hostname(&mut fields, v)? } else { None },
            metadata: fields.texts("metadata")?,
            description: if v.at_least(19) { fields.text_or_null("description", 255)? } else { None },
            admin_password: fields.text("adminPass", 0, 255)?.map(str::to_owned),
            key_name: if v.at_least(54) { fields.text_or_null("key_name", 255)? } else { None },
            files: create::personality(&mut fields, v)?,
            user_data: if v.at_least(57) { fields.text_or_null("user_data", 65_535)? } else { None },
            access_ip_v4: fields.address("accessIPv4", false)?,
            access_ip_v6: fields.address("accessIPv6", true)?,
            disk_config_manual: create::disk_config(&mut fields)?,
        };
        fields.end()?;
        let (server, password) = self.app.engine.server_rebuild(&self.ctx, self.id, wish).await?;
        let user_data = v.at_least(57);
        let found = self.app.engine.server_view(server, user_data || secrets(&self.ctx, v)).await?;
        let shape = view::Shape { version: v, admin: self.ctx.is_admin(), full: v.at_least(75), groups: true };
        let mut out = view::server(self.app, &found, shape);
        out["adminPass"] = json!(password);
        if v.at_least(54) {
            out["key_name"] = json!(found.server.details.key_name);
        }
        if user_data {
            out["user_data"] = json!(found.secrets.as_ref().and_then(|s| s.user_data_base64.clone()));
            if let Some(map) = out.as_object_mut() {
                map.remove("OS-EXT-SRV-ATTR:user_data");
            }
        }
        let mut response = (StatusCode::ACCEPTED, axum::Json(json!({ "server": out }))).into_response();
        self.locate(&mut response, &format!("/compute/v2.1/servers/{}", self.id));
        Ok(response)
    }

    fn locate(&self, response: &mut Response, path: &str) {
        if let Ok(value) = HeaderValue::from_str(&format!("{}{path}", self.app.endpoint.url)) {
            response.headers_mut().insert(header::LOCATION, value);
        }
    }

    async fn security_group(&self, key: &'static str, add: bool) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, key, &[])?;
        let name = fields.text_required("name", 1, 255)?;
        fields.end()?;
        done(self.app.engine.server_security_group_change(&self.ctx, self.id, name, add).await)
    }

    async fn reset_state(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "os-resetState", &[])?;
        let state = fields.text_required("state", 1, 16)?;
        fields.end()?;
        let active = match state {
            "active" => true,
            "error" => false,
            _ => return Err(refused("state", &json!(state), "It is neither 'active' nor 'error'.")),
        };
        done(self.app.engine.server_reset_state(&self.ctx, self.id, active).await)
    }

    async fn console_output(&self) -> Result<Response, ApiError> {
        let lines = match self.body.get("os-getConsoleOutput") {
            None | Some(Value::Null) => None,
            Some(_) => {
                let mut fields = Fields::of(self.body, "os-getConsoleOutput", &[])?;
                let lines = fields.integer("length", -1, i64::from(i32::MAX))?;
                fields.end()?;
                lines.and_then(|n| usize::try_from(n).ok())
            }
        };
        let output = self.app.engine.console_log(&self.ctx, self.id, lines).await?;
        Ok(axum::Json(json!({ "output": output })).into_response())
    }

    /// Before 2.6 each kind of console had an action of its own.
    async fn console_old(&self, key: &'static str, kind: &str, console: ConsoleKind) -> Result<Response, ApiError> {
        if self.version.at_least(6) {
            return Err(unknown(key));
        }
        let mut fields = Fields::of(self.body, key, &[])?;
        let asked = fields.text_required("type", 1, 16)?;
        fields.end()?;
        if asked != kind {
            return Err(ApiError::bad_request(format!("Unavailable console type {asked}.")));
        }
        let ticket = self.app.engine.console_open(&self.ctx, self.id, console).await?;
        let url = console_url(self.app, console, &ticket.path);
        Ok(axum::Json(json!({ "console": { "type": kind, "url": url } })).into_response())
    }
}

/// The console's address: a WebSocket on the same port for a serial line, a page that opens one for a screen.
fn console_url(app: &App, console: ConsoleKind, path: &str) -> String {
    match console {
        ConsoleKind::Serial => format!("{}{path}", app.endpoint.url.replacen("http", "ws", 1)),
        ConsoleKind::Screen => page_url(&app.endpoint.url, path),
    }
}

/// `POST /servers/{id}/remote-consoles`, from 2.6 on
pub async fn remote_console(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<axum::Json<Value>, ApiError> {
    crate::compute::since(version, 6)?;
    let id = server_id(&id)?;
    let mut fields = Fields::of(&body, "remote_console", &[])?;
    let protocol = fields.text_required("protocol", 1, 16)?;
    let kind = fields.text_required("type", 1, 16)?;
    fields.end()?;
    let console = match (protocol, kind) {
        ("serial", "serial") => ConsoleKind::Serial,
        ("vnc", "novnc") => ConsoleKind::Screen,
        ("mks", "webmks") if !version.at_least(8) => {
            return Err(refused("protocol", &json!(protocol), "It is known from 2.8 on."));
        }
        ("vnc", "xvpvnc") | ("rdp", "rdp-html5") | ("spice", "spice-html5") | ("mks", "webmks") => {
            return Err(ApiError::bad_request(format!("Unavailable console type {kind}.")));
        }
        _ => return Err(refused("type", &json!(kind), "It does not go with this protocol.")),
    };
    let ticket = app.engine.console_open(&ctx, id, console).await?;
    let url = console_url(&app, console, &ticket.path);
    Ok(axum::Json(json!({ "remote_console": { "protocol": protocol, "type": kind, "url": url } })))
}
