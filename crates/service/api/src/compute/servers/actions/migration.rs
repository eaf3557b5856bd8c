//! Actions that take a server to another node.

use super::{Call, done};
use crate::ApiError;
use crate::compute::fields::{Fields, required};
use arcus_engine::servers::{EvacuateWish, LiveMigrationWish};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

impl Call<'_> {
    /// `os-migrateLive`. From 2.25 on `block_migration` may be `auto` and nobody says whether disks may be over-committed;
    /// between 2.30 and 2.67 the checks could be skipped, which they are not here. From 2.34 on what is in the way of the move is
    /// told in the server's history.
    pub(super) async fn migrate_live(&self) -> Result<Response, ApiError> {
        let v = self.version;
        let body = self.body.get("os-migrateLive").and_then(Value::as_object);
        if body.is_some_and(|body| !body.contains_key("host")) {
            return Err(required("os-migrateLive", "host"));
        }
        let mut fields = Fields::of(self.body, "os-migrateLive", &[])?;
        let node = fields.text("host", 1, 255)?.map(str::to_owned);
        let block = match body.and_then(|body| body.get("block_migration")) {
            None => return Err(required("os-migrateLive", "block_migration")),
            Some(Value::String(word)) if word == "auto" && v.at_least(25) => {
                fields.text("block_migration", 1, 8)?;
                None
            }
            Some(_) => fields.boolean("block_migration")?,
        };
        if v.at_least(25) {
            if v.at_least(30) && !v.at_least(68) {
                fields.boolean("force")?;
            }
        } else if fields.boolean("disk_over_commit")?.is_none() {
            return Err(required("os-migrateLive", "disk_over_commit"));
        }
        fields.end()?;
        let wish = LiveMigrationWish { node, block, ..LiveMigrationWish::default() };
        if v.at_least(34) {
            return done(self.app.engine.server_migrate_live_later(&self.ctx, self.id, &wish).await);
        }
        done(self.app.engine.server_migrate_live(&self.ctx, self.id, &wish).await)
    }

    /// `evacuate`. Until 2.13 the caller says whether disks are shared, which the cloud knows better: a disk on a node that
    /// is down is made anew. From 2.14 on the password is not told, from 2.95 on the server stays stopped.
    pub(super) async fn evacuate(&self) -> Result<Response, ApiError> {
        let v = self.version;
        let mut fields = Fields::of(self.body, "evacuate", &[])?;
        let node = fields.text("host", 1, 255)?.map(str::to_owned);
        let admin_password = fields.text("adminPass", 0, 255)?.map(str::to_owned);
        if !v.at_least(14) {
            match fields.boolean("onSharedStorage")? {
                None => return Err(required("evacuate", "onSharedStorage")),
                Some(true) if admin_password.is_some() => {
                    return Err(ApiError::bad_request("admin password can't be changed on existing disk"));
                }
                Some(_) => {}
            }
        }
        if v.at_least(29) && !v.at_least(68) {
            fields.boolean("force")?;
        }
        fields.end()?;
        let wish = EvacuateWish { node, admin_password, stopped: v.at_least(95) };
        let password = self.app.engine.server_evacuate(&self.ctx, self.id, &wish).await?;
        if v.at_least(14) {
            return Ok(StatusCode::OK.into_response());
        }
        Ok(axum::Json(json!({ "adminPass": password })).into_response())
    }

    /// `migrate`. From 2.56 on a node can be named; before, nobody looked at what came with it.
    pub(super) async fn migrate(&self) -> Result<Response, ApiError> {
        let mut node = None;
        if self.version.at_least(56) && self.body.get("migrate").is_some_and(|v| !v.is_null()) {
            let mut fields = Fields::of(self.body, "migrate", &[])?;
            node = fields.text("host", 1, 255)?;
            fields.end()?;
        }
        done(self.app.engine.server_migrate(&self.ctx, self.id, node).await)
    }
}
