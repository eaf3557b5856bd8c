//! Imports of images that were staged, and what a project's images come to.

use crate::sql::{Json, params};
use crate::{Db, StoreError, Tx};
use arcus_types::images::ImageStatus;
use arcus_types::{ImageId, ProjectId, RequestId, Timestamp, UserId};
use uuid::Uuid;

/// An import that was asked for and is done.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageImport {
    /// Its id.
    pub id: Uuid,
    /// The image.
    pub image_id: ImageId,
    /// Who asked.
    pub user_id: Option<UserId>,
    /// In which request.
    pub request_id: RequestId,
    /// What the request said.
    pub request: serde_json::Value,
    /// When.
    pub created_at: Timestamp,
}

/// What a project's images come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageTotals {
    /// Bytes of complete images.
    pub complete_bytes: u64,
    /// Bytes that await an import.
    pub staged_bytes: u64,
    /// Images whose bytes are arriving or await an import.
    pub uploads: u64,
}

impl Db {
    /// The imports of an image, oldest first: an image is imported once.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_import_list(&self, image_id: ImageId) -> Result<Vec<ImageImport>, StoreError> {
        let sql = "SELECT id, image_id, user_id, request_id, request, created_at FROM image_imports
             WHERE image_id = $1 ORDER BY created_at, id";
        let rows = self.all(sql, params![image_id]).await?;
        rows.iter()
            .map(|row| {
                Ok(ImageImport {
                    id: row.get("id")?,
                    image_id: row.get("image_id")?,
                    user_id: row.opt("user_id")?,
                    request_id: row.get("request_id")?,
                    request: row.get::<Json<_>>("request")?.0,
                    created_at: row.get("created_at")?,
                })
            })
            .collect()
    }

    /// What a project's images come to.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_totals(&self, project_id: ProjectId) -> Result<ImageTotals, StoreError> {
        let sql = "SELECT
             CAST(COALESCE(SUM(CASE WHEN status <> $2 THEN size_bytes ELSE 0 END), 0) AS BIGINT) AS complete_bytes,
             CAST(COALESCE(SUM(CASE WHEN status = $2 THEN size_bytes ELSE 0 END), 0) AS BIGINT) AS staged_bytes,
             CAST(COALESCE(SUM(CASE WHEN status IN ($2, $3) THEN 1 ELSE 0 END), 0) AS BIGINT) AS uploads
             FROM images WHERE project_id = $1";
        let values = params![project_id, ImageStatus::Uploading.as_str(), ImageStatus::Saving.as_str()];
        let Some(row) = self.one(sql, values).await? else { return Ok(ImageTotals::default()) };
        Ok(ImageTotals {
            complete_bytes: row.get("complete_bytes")?,
            staged_bytes: row.get("staged_bytes")?,
            uploads: row.get("uploads")?,
        })
    }
}

impl Tx {
    /// Records an import.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if there is no such image.
    pub async fn image_import_insert(&self, new: &ImageImport) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO image_imports (id, image_id, user_id, request_id, request, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.id, new.image_id, new.user_id, new.request_id, Json(&new.request), new.created_at],
        )
        .await?;
        Ok(())
    }
}
