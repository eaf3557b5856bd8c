//! Imports: bytes that were staged become the image's. They were judged as they arrived, so an import only records it.

use super::{audit, policy};
use crate::{Engine, EngineError};
use arcus_store::{ImageImport, ImageTotals, Quota, QuotaResource};
use arcus_types::images::ImageEvent;
use arcus_types::policy::{Target, authorize};
use arcus_types::{ImageId, OpCtx, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a project uses of what is limited.
#[derive(Debug, Clone, Copy)]
pub struct ImageUsage {
    /// Images, and how many there may be.
    pub images: Quota,
    /// What they come to.
    pub totals: ImageTotals,
}

impl Engine {
    /// Makes the bytes that were staged the image's. `request` is what the client said, for the record.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] unless all its bytes are staged, or a refusal.
    pub async fn image_import(&self, ctx: &OpCtx, id: ImageId, request: Value) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, policy::IMAGE_IMPORT, id).await?;
        let staged = image.status.after(ImageEvent::ImportRequested).filter(|_| image.content.is_some());
        let Some(status) = staged else {
            let text = format!("Image {id} is {}: it needs to be staged before it can be imported.", image.status);
            return Err(EngineError::conflict(text));
        };
        if !tx.image_status_set(id, image.status, status).await? {
            return Err(EngineError::conflict(format!("Image {id} was changed meanwhile; look at it again.")));
        }
        let import = ImageImport {
            id: Uuid::new_v4(),
            image_id: id,
            user_id: ctx.user_id(),
            request_id: ctx.request_id,
            request,
            created_at: Timestamp::now(),
        };
        tx.image_import_insert(&import).await?;
        audit(&tx, policy::IMAGE_IMPORT, id, image.project_id, &json!({ "status": status.as_str() })).await?;
        Ok(tx.commit().await?)
    }

    /// The imports of an image that the caller owns.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_imports(&self, ctx: &OpCtx, id: ImageId) -> Result<Vec<ImageImport>, EngineError> {
        self.image_owned(self.store(), ctx, policy::TASK_LIST, id).await?;
        Ok(self.store().image_import_list(id).await?)
    }

    /// What the caller's project uses of what is limited.
    ///
    /// # Errors
    /// A refusal, also for who is in no project.
    pub async fn image_usage(&self, ctx: &OpCtx) -> Result<ImageUsage, EngineError> {
        authorize(ctx, policy::USAGE_GET, &Target::own(ctx))?;
        let Some(project_id) = ctx.project_id() else {
            return Err(EngineError::Forbidden("Usage is counted by project: use a project's token.".to_owned()));
        };
        let quotas = self.store().quota_list(project_id, &[QuotaResource::Images]).await?;
        let none = Quota { resource: QuotaResource::Images, cap: QuotaResource::Images.default_cap(), used: 0 };
        Ok(ImageUsage {
            images: quotas.first().copied().unwrap_or(none),
            totals: self.store().image_totals(project_id).await?,
        })
    }
}
