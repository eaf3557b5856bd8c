//! Images: their records, tags and properties. Lists are in [`list`], sharing in [`members`], imports in [`imports`].

mod imports;
mod list;
mod members;

pub use imports::{ImageImport, ImageTotals};
pub use list::{ImageFilter, ImageSortKey, ImageVisible, TimeTest};
pub use members::ImageMember;

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::{DiskFormat, ImageSource};
use arcus_types::images::{ContainerFormat, ImageStatus, Visibility, disk_format_from_name, disk_format_name};
use arcus_types::{ImageId, Name, NodeId, ProjectId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// A bootable disk image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Who owns and pays for it.
    pub project_id: ProjectId,
    /// Its name; need not be unique.
    pub name: Option<Name>,
    /// How far it is.
    pub status: ImageStatus,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether deletion is refused.
    pub protected: bool,
    /// Whether lists leave it out unless asked for hidden images.
    pub hidden: bool,
    /// How its bytes are laid out; known before they arrive.
    pub disk_format: Option<DiskFormat>,
    /// What surrounds them; known before they arrive.
    pub container_format: Option<ContainerFormat>,
    /// The smallest disk that it may boot from, in GiB.
    pub min_disk_gib: u64,
    /// The least memory that it may boot with, in MiB.
    pub min_ram_mib: u64,
    /// Its bytes, once they are here.
    pub content: Option<ImageContent>,
    /// While it is a snapshot that is not complete yet: the node whose upload is awaited.
    pub snapshot_node_id: Option<NodeId>,
    /// Words that it can be found by.
    pub tags: BTreeSet<String>,
    /// What its owner says of it.
    pub properties: BTreeMap<String, String>,
    /// Rises with every change of the record.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

impl Image {
    /// The image as a node fetches it; `None` while it has no bytes.
    pub fn source(&self) -> Option<ImageSource> {
        let content = self.content.as_ref()?;
        Some(ImageSource {
            id: self.id,
            sha256: content.sha256.clone(),
            size_bytes: content.size_bytes,
            format: self.disk_format?,
        })
    }
}

/// An image's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContent {
    /// How many.
    pub size_bytes: u64,
    /// The size of the disk that a guest sees, in bytes.
    pub virtual_size_bytes: u64,
    /// MD5 of the bytes, in hexadecimal: what older clients check.
    pub md5: String,
    /// SHA-256 of the bytes, in hexadecimal.
    pub sha256: String,
}

/// An image whose bytes are arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageUpload {
    /// The image.
    pub image_id: ImageId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// The upload that is under way.
    pub upload_id: Uuid,
}

const COLUMNS: &str = "images.id, images.project_id, images.name, images.status, images.visibility, images.protected, \
     images.hidden, images.disk_format, images.container_format, images.min_disk_gib, images.min_ram_mib, images.size_bytes, \
     images.virtual_size_bytes, images.md5, images.sha256, images.snapshot_node_id, images.generation, images.created_at, \
     images.updated_at";

/// An image as its row tells, without tags and properties.
fn image(row: &Row) -> Result<Image, StoreError> {
    let disk_format: Option<String> = row.opt("disk_format")?;
    let disk_format = disk_format.map(|text| {
        disk_format_from_name(&text).map_err(|_| StoreError::Corrupt {
            column: "disk_format".to_owned(),
            value: text.chars().take(80).collect(),
        })
    });
    let container_format: Option<String> = row.opt("container_format")?;
    let content = match (row.opt("size_bytes")?, row.opt("virtual_size_bytes")?, row.opt("md5")?, row.opt("sha256")?) {
        (Some(size_bytes), Some(virtual_size_bytes), Some(md5), Some(sha256)) => {
            Some(ImageContent { size_bytes, virtual_size_bytes, md5, sha256 })
        }
        _ => None,
    };
    Ok(Image {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.opt("name")?,
        status: row.text("status")?,
        visibility: row.text("visibility")?,
        protected: row.get("protected")?,
        hidden: row.get("hidden")?,
        disk_format: disk_format.transpose()?,
        container_format: container_format.map(|_| row.text("container_format")).transpose()?,
        min_disk_gib: row.get("min_disk_gib")?,
        min_ram_mib: row.get("min_ram_mib")?,
        content,
        snapshot_node_id: row.opt("snapshot_node_id")?,
        tags: BTreeSet::new(),
        properties: BTreeMap::new(),
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The image with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_get(&self, id: ImageId) -> Result<Option<Image>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM images WHERE id = $1");
        let rows = self.one(sql, params![id]).await?;
        Ok(self.image_details(rows.as_ref().map(image).transpose()?.into_iter().collect()).await?.pop())
    }

    /// Adds tags and properties to images: two statements, however many there are.
    async fn image_details(&self, mut images: Vec<Image>) -> Result<Vec<Image>, StoreError> {
        if images.is_empty() {
            return Ok(images);
        }
        let at: HashMap<ImageId, usize> = images.iter().enumerate().map(|(at, image)| (image.id, at)).collect();
        let mut filter = Where::default();
        filter.and_in("image_id", images.iter().map(|image| image.id).collect());
        let sql = format!("SELECT image_id, tag FROM image_tags{}", filter.sql());
        for row in self.all(sql, filter.params.clone()).await? {
            if let Some(image) = at.get(&row.get("image_id")?).and_then(|&at| images.get_mut(at)) {
                image.tags.insert(row.get("tag")?);
            }
        }
        let sql = format!("SELECT image_id, name, value FROM image_properties{}", filter.sql());
        for row in self.all(sql, filter.params).await? {
            if let Some(image) = at.get(&row.get("image_id")?).and_then(|&at| images.get_mut(at)) {
                image.properties.insert(row.get("name")?, row.get("value")?);
            }
        }
        Ok(images)
    }

    /// Every upload that is under way, or was when its process ended.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_uploads(&self) -> Result<Vec<ImageUpload>, StoreError> {
        let sql = "SELECT id, project_id, upload_id FROM images WHERE status IN ($1, $2) AND upload_id IS NOT NULL ORDER BY id";
        let values = params![ImageStatus::Saving.as_str(), ImageStatus::Uploading.as_str()];
        let rows = self.all(sql, values).await?;
        rows.iter()
            .map(|row| {
                Ok(ImageUpload {
                    image_id: row.get("id")?,
                    project_id: row.get("project_id")?,
                    upload_id: row.get("upload_id")?,
                })
            })
            .collect()
    }

    /// Which of these images have bytes to keep.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn images_with_content(&self, ids: &[ImageId]) -> Result<BTreeSet<ImageId>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        filter.and("sha256 IS NOT NULL", vec![]);
        let rows = self.all(format!("SELECT id FROM images{}", filter.sql()), filter.params).await?;
        rows.iter().map(|row| row.get("id")).collect()
    }
}

impl Tx {
    /// Records an image without bytes, with its tags and properties.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id is taken.
    pub async fn image_insert(&self, new: &Image) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO images (id, project_id, name, status, visibility, protected, hidden, disk_format, container_format,
             min_disk_gib, min_ram_mib, snapshot_node_id, generation, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $13)",
            params![
                new.id, new.project_id, new.name.clone(), new.status.as_str(), new.visibility.as_str(), new.protected,
                new.hidden, new.disk_format.map(disk_format_name), new.container_format.map(ContainerFormat::as_str),
                new.min_disk_gib, new.min_ram_mib, new.snapshot_node_id, new.created_at
            ],
        )
        .await?;
        self.image_tags_insert(new.id, &new.tags).await?;
        self.image_properties_insert(new.id, &new.properties).await
    }

    /// Writes what an owner may change, tags and properties included. `was` is the image as it was read.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the record changed meanwhile.
    pub async fn image_update(&self, was: &Image, image: &Image) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE images SET project_id = $3, name = $4, visibility = $5, protected = $6, hidden = $7, disk_format = $8,
                 container_format = $9, min_disk_gib = $10, min_ram_mib = $11, updated_at = $12, generation = generation + 1
                 WHERE id = $1 AND generation = $2",
                params![
                    was.id, was.generation, image.project_id, image.name.clone(), image.visibility.as_str(),
                    image.protected, image.hidden, image.disk_format.map(disk_format_name),
                    image.container_format.map(ContainerFormat::as_str), image.min_disk_gib, image.min_ram_mib,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 0 {
            return Err(StoreError::Stale("the image"));
        }
        if was.tags != image.tags {
            self.exec("DELETE FROM image_tags WHERE image_id = $1", params![was.id]).await?;
            self.image_tags_insert(was.id, &image.tags).await?;
        }
        if was.properties != image.properties {
            self.exec("DELETE FROM image_properties WHERE image_id = $1", params![was.id]).await?;
            self.image_properties_insert(was.id, &image.properties).await?;
        }
        Ok(())
    }

    async fn image_tags_insert(&self, id: ImageId, tags: &BTreeSet<String>) -> Result<(), StoreError> {
        if tags.is_empty() {
            return Ok(());
        }
        let rows: Vec<String> = (0..tags.len()).map(|at| format!("($1, ${})", at + 2)).collect();
        let mut values = params![id];
        values.extend(tags.iter().flat_map(|tag| params![tag]));
        self.exec(format!("INSERT INTO image_tags (image_id, tag) VALUES {}", rows.join(", ")), values).await?;
        Ok(())
    }

    async fn image_properties_insert(
        &self,
        id: ImageId,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        if properties.is_empty() {
            return Ok(());
        }
        let rows: Vec<String> =
            (0..properties.len()).map(|at| format!("($1, ${}, ${})", 2 * at + 2, 2 * at + 3)).collect();
        let mut values = params![id];
        values.extend(properties.iter().flat_map(|(name, value)| params![name, value]));
        let sql = format!("INSERT INTO image_properties (image_id, name, value) VALUES {}", rows.join(", "));
        self.exec(sql, values).await?;
        Ok(())
    }

    /// Begins an upload, in which the image is `status`; `false` unless the image is queued.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_upload_begin(
        &self,
        id: ImageId,
        upload_id: Uuid,
        status: ImageStatus,
    ) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE images SET status = $3, upload_id = $2, updated_at = $4, generation = generation + 1
                 WHERE id = $1 AND status = $5",
                params![id, upload_id, status.as_str(), Timestamp::now(), ImageStatus::Queued.as_str()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends an upload well, after which the image is `status`; `false` if it is not the one under way any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_upload_end(
        &self,
        upload: &ImageUpload,
        content: &ImageContent,
        min_disk_gib: u64,
        status: ImageStatus,
    ) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE images SET status = $3, upload_id = NULL, snapshot_node_id = NULL, size_bytes = $4,
                 virtual_size_bytes = $5, md5 = $6, sha256 = $7, updated_at = $8, generation = generation + 1,
                 min_disk_gib = CASE WHEN min_disk_gib < $9 THEN $9 ELSE min_disk_gib END
                 WHERE id = $1 AND upload_id = $2",
                params![
                    upload.image_id,
                    upload.upload_id,
                    status.as_str(),
                    content.size_bytes,
                    content.virtual_size_bytes,
                    &content.md5,
                    &content.sha256,
                    Timestamp::now(),
                    min_disk_gib
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends an upload badly: the image awaits its bytes again. `false` if it is not the one under way any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_upload_abort(&self, upload: &ImageUpload) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE images SET status = $3, upload_id = NULL, updated_at = $4, generation = generation + 1
                 WHERE id = $1 AND upload_id = $2",
                params![upload.image_id, upload.upload_id, ImageStatus::Queued.as_str(), Timestamp::now()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Moves an image from one status to another; `false` if it was not in the first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_status_set(&self, id: ImageId, from: ImageStatus, to: ImageStatus) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE images SET status = $3, updated_at = $4, generation = generation + 1 WHERE id = $1 AND status = $2",
                params![id, from.as_str(), to.as_str(), Timestamp::now()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Removes an image with its tags, properties and members; `false` if it is protected or not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_delete(&self, id: ImageId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM images WHERE id = $1 AND NOT protected", params![id]).await? == 1)
    }

    /// Removes a snapshot that will not be completed, protected or not; `false` if it is complete or not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_snapshot_delete(&self, id: ImageId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM images WHERE id = $1 AND snapshot_node_id IS NOT NULL";
        Ok(self.exec(sql, params![id]).await? == 1)
    }

    /// Adds a tag; one that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if there is no such image.
    pub async fn image_tag_add(&self, id: ImageId, tag: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO image_tags (image_id, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.exec(sql, params![id, tag]).await?;
        self.image_changed(id).await
    }

    /// Removes a tag; `false` if the image does not have it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_tag_delete(&self, id: ImageId, tag: &str) -> Result<bool, StoreError> {
        let deleted = self.exec("DELETE FROM image_tags WHERE image_id = $1 AND tag = $2", params![id, tag]).await?;
        self.image_changed(id).await?;
        Ok(deleted == 1)
    }

    async fn image_changed(&self, id: ImageId) -> Result<(), StoreError> {
        let sql = "UPDATE images SET updated_at = $2, generation = generation + 1 WHERE id = $1";
        self.exec(sql, params![id, Timestamp::now()]).await?;
        Ok(())
    }
}
