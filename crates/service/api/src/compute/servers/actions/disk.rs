//! Actions that concern a server's disk: images and backups of it, rescue, shelving; and its password.

use super::{Call, done};
use crate::ApiError;
use crate::compute::fields::{Fields, required};
use crate::compute::servers::create;
use arcus_engine::servers::{BackupWish, SnapshotWish, UnshelveWish};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) async fn create_image(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "createImage", &[])?;
        let name = fields.parsed("name")?.ok_or_else(|| required("createImage", "name"))?;
        let metadata = fields.texts("metadata")?.unwrap_or_default();
        fields.end()?;
        let wish = SnapshotWish { name, metadata, metadata_counted: !self.version.at_least(39), backup: None };
        self.image(&wish).await
    }

    pub(super) async fn create_backup(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "createBackup", &[])?;
        let name = fields.parsed("name")?.ok_or_else(|| required("createBackup", "name"))?;
        let kind = fields.text_required("backup_type", 0, 255)?.to_owned();
        let rotation = fields.integer("rotation", 0, i64::from(i32::MAX))?;
        let rotation = rotation.ok_or_else(|| required("createBackup", "rotation"))?;
        let metadata = fields.texts("metadata")?.unwrap_or_default();
        fields.end()?;
        let rotation = u32::try_from(rotation).unwrap_or(u32::MAX);
        let (metadata_counted, backup) = (!self.version.at_least(39), Some(BackupWish { kind, rotation }));
        self.image(&SnapshotWish { name, metadata, metadata_counted, backup }).await
    }

    async fn image(&self, wish: &SnapshotWish) -> Result<Response, ApiError> {
        let image = self.app.engine.server_image_create(&self.ctx, self.id, wish).await?;
        // From 2.45 on the image's id is in the body instead of a header.
        if self.version.at_least(45) {
            return Ok((StatusCode::ACCEPTED, axum::Json(json!({ "image_id": image }))).into_response());
        }
        let mut response = StatusCode::ACCEPTED.into_response();
        self.locate(&mut response, &format!("/compute/v2.1/images/{image}"));
        Ok(response)
    }

    pub(super) async fn change_password(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "changePassword", &[])?;
        let password = fields.text_required("adminPass", 0, 255)?;
        fields.end()?;
        done(self.app.engine.server_password_change(&self.ctx, self.id, password).await)
    }

    /// From 2.87 on also one that boots from a volume.
    pub(super) async fn rescue(&self) -> Result<Response, ApiError> {
        let (mut image, mut password) = (None, None);
        if self.body.get("rescue").is_some_and(|v| !v.is_null()) {
            let mut fields = Fields::of(self.body, "rescue", &[])?;
            image = fields.text("rescue_image_ref", 1, 255)?.map(create::image).transpose()?;
            password = fields.text("adminPass", 0, 255)?.map(str::to_owned);
            fields.end()?;
        }
        let with_volumes = self.version.at_least(87);
        let password = self.app.engine.server_rescue(&self.ctx, self.id, image, password, with_volumes).await?;
        Ok(axum::Json(json!({ "adminPass": password })).into_response())
    }

    /// From 2.77 on a zone can be chosen, from 2.91 on a node, and a zone be taken back.
    pub(super) async fn unshelve(&self) -> Result<Response, ApiError> {
        let mut wish = UnshelveWish::default();
        if self.version.at_least(77) && self.body.get("unshelve").is_some_and(|v| !v.is_null()) {
            let mut fields = Fields::of(self.body, "unshelve", &[])?;
            let zone = fields.raw("availability_zone");
            wish.zone = match zone {
                None => None,
                Some(Value::Null) if self.version.at_least(91) => Some(None),
                Some(_) => Some(Some(fields.text_required("availability_zone", 1, 255)?.to_owned())),
            };
            if self.version.at_least(91) {
                wish.node = fields.text("host", 1, 255)?.map(str::to_owned);
            }
            fields.end()?;
            if wish == UnshelveWish::default() {
                return Err(ApiError::bad_request("Invalid input for field/attribute unshelve. {} is too short"));
            }
        }
        done(self.app.engine.server_unshelve(&self.ctx, self.id, &wish).await)
    }
}
