//! Whom an image is shared with.

use crate::sql::{Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::images::MemberStatus;
use arcus_types::{ImageId, ProjectId, Timestamp};

/// A project that an image is shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMember {
    /// The image.
    pub image_id: ImageId,
    /// The project.
    pub project_id: ProjectId,
    /// What it said.
    pub status: MemberStatus,
    /// Since when.
    pub created_at: Timestamp,
    /// When it last said something.
    pub updated_at: Timestamp,
}

fn member(row: &Row) -> Result<ImageMember, StoreError> {
    Ok(ImageMember {
        image_id: row.get("image_id")?,
        project_id: row.get("project_id")?,
        status: row.text("status")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

const COLUMNS: &str = "image_id, project_id, status, created_at, updated_at";

impl Db {
    /// Whom an image is shared with, oldest first. There are never more than the engine lets be added.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_member_list(&self, image_id: ImageId) -> Result<Vec<ImageMember>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM image_members WHERE image_id = $1 ORDER BY created_at, project_id");
        self.all(sql, params![image_id]).await?.iter().map(member).collect()
    }

    /// A project's share of an image.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_member_get(
        &self,
        image_id: ImageId,
        project_id: ProjectId,
    ) -> Result<Option<ImageMember>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM image_members WHERE image_id = $1 AND project_id = $2");
        self.one(sql, params![image_id, project_id]).await?.as_ref().map(member).transpose()
    }
}

impl Tx {
    /// Shares an image with a project.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if it is shared with it already.
    pub async fn image_member_insert(&self, new: &ImageMember) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO image_members (image_id, project_id, status, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)",
            params![new.image_id, new.project_id, new.status.as_str(), new.created_at, new.updated_at],
        )
        .await?;
        Ok(())
    }

    /// Records what a project said to an image; `false` if it is not shared with it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_member_update(&self, member: &ImageMember) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE image_members SET status = $3, updated_at = $4 WHERE image_id = $1 AND project_id = $2",
                params![member.image_id, member.project_id, member.status.as_str(), member.updated_at],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends a share; `false` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_member_delete(&self, image_id: ImageId, project_id: ProjectId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM image_members WHERE image_id = $1 AND project_id = $2";
        Ok(self.exec(sql, params![image_id, project_id]).await? == 1)
    }
}
