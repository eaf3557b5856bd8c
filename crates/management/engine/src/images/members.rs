//! Sharing: an owner names projects, and each of them accepts the image into its lists or does not.

use super::{MEMBERS_MAX, audit};
use crate::{Engine, EngineError};
use arcus_store::{Image, ImageMember, StoreError};
use arcus_types::images::{MemberStatus, Visibility};
use arcus_types::policy::{Target, authorize, image as policy};
use arcus_types::{ImageId, OpCtx, ProjectId, Timestamp};
use serde_json::json;

fn member_not_found(image_id: ImageId, project_id: ProjectId) -> EngineError {
    EngineError::not_found("MemberNotFound", "Member", format!("{project_id} of image {image_id}"))
}

fn shared(image: &Image) -> Result<(), EngineError> {
    match image.visibility {
        Visibility::Shared => Ok(()),
        Visibility::Public | Visibility::Community | Visibility::Private => {
            Err(EngineError::Forbidden("Only shared images have members.".to_owned()))
        }
    }
}

impl Engine {
    /// Whom an image is shared with: all of them for its owner, itself for a member.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_member_list(&self, ctx: &OpCtx, id: ImageId) -> Result<Vec<ImageMember>, EngineError> {
        let image = self.image_seen(self.store(), ctx, policy::MEMBER_LIST, id).await?;
        shared(&image)?;
        if ctx.is_admin() || ctx.project_id() == Some(image.project_id) {
            return Ok(self.store().image_member_list(id).await?);
        }
        let Some(project_id) = ctx.project_id() else { return Ok(Vec::new()) };
        Ok(self.store().image_member_get(id, project_id).await?.into_iter().collect())
    }

    /// One project's share of an image.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_member_get(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        project_id: ProjectId,
    ) -> Result<ImageMember, EngineError> {
        let image = self.image_seen(self.store(), ctx, policy::MEMBER_GET, id).await?;
        shared(&image)?;
        let may = ctx.is_admin() || ctx.project_id().is_some_and(|own| own == image.project_id || own == project_id);
        let member = if may { self.store().image_member_get(id, project_id).await? } else { None };
        member.ok_or_else(|| member_not_found(id, project_id))
    }

    /// Shares an image with a project.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if it is already, [`EngineError::TooLarge`] at the limit, or a refusal.
    pub async fn image_member_add(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        project_id: ProjectId,
    ) -> Result<ImageMember, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, policy::MEMBER_ADD, id).await?;
        shared(&image)?;
        if tx.image_member_list(id).await?.len() >= MEMBERS_MAX {
            return Err(EngineError::TooLarge(format!("An image is shared with at most {MEMBERS_MAX} projects.")));
        }
        let now = Timestamp::now();
        let member =
            ImageMember { image_id: id, project_id, status: MemberStatus::Pending, created_at: now, updated_at: now };
        match tx.image_member_insert(&member).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => {
                let message = format!("Member {project_id} is duplicated for image {id}");
                return Err(EngineError::conflict(message));
            }
            Err(error) => return Err(error.into()),
        }
        audit(&tx, policy::MEMBER_ADD, id, image.project_id, &json!({ "member": project_id })).await?;
        tx.commit().await?;
        Ok(member)
    }

    /// Records what a project says to an image that was shared with it: only it may.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_member_update(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        project_id: ProjectId,
        status: MemberStatus,
    ) -> Result<ImageMember, EngineError> {
        let mut member = self.image_member_get(ctx, id, project_id).await?;
        if !ctx.is_admin() && ctx.project_id() != Some(project_id) {
            let message = "Only the project that an image is shared with can accept or reject it.";
            return Err(EngineError::Forbidden(message.to_owned()));
        }
        authorize(ctx, policy::MEMBER_UPDATE, &Target::project(project_id))?;
        member.status = status;
        member.updated_at = Timestamp::now();
        let tx = self.store().begin(ctx).await?;
        if !tx.image_member_update(&member).await? {
            return Err(member_not_found(id, project_id));
        }
        let detail = json!({ "member": project_id, "status": status.as_str() });
        audit(&tx, policy::MEMBER_UPDATE, id, project_id, &detail).await?;
        tx.commit().await?;
        Ok(member)
    }

    /// Ends a share.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_member_delete(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        project_id: ProjectId,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, policy::MEMBER_DELETE, id).await?;
        shared(&image)?;
        if !tx.image_member_delete(id, project_id).await? {
            return Err(member_not_found(id, project_id));
        }
        audit(&tx, policy::MEMBER_DELETE, id, image.project_id, &json!({ "member": project_id })).await?;
        Ok(tx.commit().await?)
    }
}
