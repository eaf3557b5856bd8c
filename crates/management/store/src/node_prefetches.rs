//! Images that nodes shall have in their caches before servers need them.

use crate::sql::{Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::ImageSource;
use arcus_types::images::{ImageStatus, disk_format_from_name};
use arcus_types::{ImageId, NodeId, Timestamp};

impl Db {
    /// What a node shall fetch, of what was asked for after `since`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_prefetch_list(&self, node: NodeId, since: Timestamp) -> Result<Vec<ImageSource>, StoreError> {
        let sql = "SELECT i.id, i.sha256, i.size_bytes, i.disk_format FROM node_prefetches p
             JOIN images i ON i.id = p.image_id AND i.status = $3
             WHERE p.node_id = $1 AND p.created_at > $2 ORDER BY p.created_at, i.id";
        let rows = self.all(sql, params![node, since, ImageStatus::Active.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let format: String = row.get("disk_format")?;
                Ok(ImageSource {
                    id: row.get("id")?,
                    sha256: row.get("sha256")?,
                    size_bytes: row.get("size_bytes")?,
                    format: disk_format_from_name(&format)
                        .map_err(|_| StoreError::Corrupt { column: "disk_format".to_owned(), value: format })?,
                })
            })
            .collect()
    }
}

impl Tx {
    /// Notes that a node shall fetch an image; asked again, it begins anew.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if one of them is gone.
    pub async fn node_prefetch_insert(&self, node: NodeId, image: ImageId) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO node_prefetches (node_id, image_id, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (node_id, image_id) DO UPDATE SET created_at = excluded.created_at",
            params![node, image, Timestamp::now()],
        )
        .await?;
        Ok(())
    }

    /// Forgets what a node has fetched, and what was asked for before `since`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_prefetches_done(
        &self,
        node: NodeId,
        cached: &[String],
        since: Timestamp,
    ) -> Result<(), StoreError> {
        self.exec("DELETE FROM node_prefetches WHERE node_id = $1 AND created_at <= $2", params![node, since]).await?;
        if cached.is_empty() {
            return Ok(());
        }
        let asked = self.node_prefetch_list(node, since).await?;
        let done: Vec<ImageId> = asked.iter().filter(|i| cached.contains(&i.sha256)).map(|i| i.id).collect();
        if !done.is_empty() {
            let mut filter = Where::default();
            filter.and("node_id = ?", params![node]);
            filter.and_in("image_id", done);
            self.exec(format!("DELETE FROM node_prefetches{}", filter.sql()), filter.params).await?;
        }
        Ok(())
    }
}
