//! The folder of image bytes.
//!
//! ```text
//! <image id>                     complete bytes; kept only while the image's record has their hash
//! <image id>.<upload id>.part    an upload under way
//! ```
//! An upload holds a lock on its file from its beginning until the record says that it ended. The system drops the lock
//! when the process ends, however it ends: a file that can be locked and that no record speaks for is left over.

use super::{audit, not_found};
use crate::{Engine, EngineError};
use arcus_store::{Image, ImageUpload};
use arcus_types::images::ImageStatus;
use arcus_types::policy::{Target, arcus, authorize, image as policy};
use arcus_types::{ImageId, OpCtx};
use serde_json::json;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How many records are asked about at once.
const BATCH: usize = 500;

/// An image's bytes, open for reading; they stay readable when the image is deleted.
#[derive(Debug)]
pub struct ImageFile {
    /// The image.
    pub image: Image,
    /// Its bytes.
    pub file: tokio::fs::File,
    /// How many there are.
    pub size_bytes: u64,
}

/// What a recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImagesRecovered {
    /// Uploads whose process has ended: their images await bytes again.
    pub uploads: u64,
    /// Files that no record speaks for: removed.
    pub files: u64,
}

/// Turns a failed file operation into the engine's error.
pub(super) fn io_error(what: &str) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            tracing::error!(error = %source, "no room is left for images");
            EngineError::Unavailable("No room is left for images. Tell the operator.".to_owned())
        }
        _ => EngineError::Io { what: what.to_owned(), source },
    }
}

/// Runs file operations where they may block.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(io_error(what))
}

/// Where an image's complete bytes are.
pub(super) fn final_path(dir: &Path, id: ImageId) -> PathBuf {
    dir.join(id.to_string())
}

fn part_path(dir: &Path, id: ImageId, upload_id: Uuid) -> PathBuf {
    dir.join(format!("{id}.{upload_id}.part"))
}

fn dir_make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// An upload's file: locked while this lives, removed with it unless it was kept.
#[derive(Debug)]
pub(super) struct Part {
    /// Open for reading and writing.
    pub file: File,
    dir: PathBuf,
    id: ImageId,
    path: Option<PathBuf>,
}

impl Part {
    /// Makes the file and locks it, before the record speaks of it.
    pub fn create(dir: &Path, id: ImageId, upload_id: Uuid) -> io::Result<Self> {
        dir_make(dir)?;
        let path = part_path(dir, id, upload_id);
        loop {
            let file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
            file.lock()?;
            // A recovery may have locked and removed it in between; then it is made again.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { file, dir: dir.to_owned(), id, path: Some(path) });
            }
        }
    }

    /// Makes the bytes last and gives the file the image's name. The lock stays until this is dropped.
    pub fn keep(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let Some(path) = self.path.take() else { return Ok(()) };
        let renamed = std::fs::rename(&path, final_path(&self.dir, self.id));
        if let Err(error) = renamed {
            self.path = Some(path);
            return Err(error);
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Removes the file even if it was kept: the record does not want it. Another upload's file is left alone.
    pub fn discard(mut self) -> io::Result<()> {
        if self.path.is_none() {
            let path = final_path(&self.dir, self.id);
            if std::fs::metadata(&path)?.ino() == self.file.metadata()?.ino() {
                self.path = Some(path);
            }
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

/// Removes a file; that it is gone already is fine, and what cannot be removed is left to the next recovery.
fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an image file could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Whether a file's lock could be had; no living process holds it then.
enum Lock {
    Got(File),
    Held,
    NoFile,
}

fn lock(path: &Path) -> io::Result<Lock> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::NoFile),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Lock::Got(file)),
        Err(TryLockError::WouldBlock) => Ok(Lock::Held),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A name in the folder.
enum Entry {
    Final(ImageId),
    Part,
}

fn entry(name: &str) -> Option<Entry> {
    if let Some(stem) = name.strip_suffix(".part") {
        let (id, upload) = stem.split_once('.')?;
        return (id.parse::<ImageId>().is_ok() && Uuid::try_parse(upload).is_ok()).then_some(Entry::Part);
    }
    name.parse().ok().map(Entry::Final)
}

impl Engine {
    async fn image_open(&self, image: Image) -> Result<Option<ImageFile>, EngineError> {
        let Some(size_bytes) = image.content.as_ref().map(|content| content.size_bytes) else { return Ok(None) };
        // Bytes that await their import are nobody's image yet.
        if image.status == ImageStatus::Uploading {
            return Ok(None);
        }
        let path = final_path(&self.config().images_dir, image.id);
        let file = tokio::fs::File::open(path).await.map_err(io_error("open an image's bytes"))?;
        Ok(Some(ImageFile { image, file, size_bytes }))
    }

    /// An image's bytes for a client; `None` while there are none.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] if the image is closed, or a refusal.
    pub async fn image_download(&self, ctx: &OpCtx, id: ImageId) -> Result<Option<ImageFile>, EngineError> {
        let image = self.image_seen(self.store(), ctx, policy::IMAGE_DOWNLOAD, id).await?;
        if image.status == ImageStatus::Deactivated && !ctx.is_admin() {
            return Err(EngineError::Forbidden("The requested image has been deactivated.".to_owned()));
        }
        self.image_open(image).await
    }

    /// An image's bytes for a node, and how many they are.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such image or it has no bytes, or a refusal.
    pub async fn image_file_for_node(&self, ctx: &OpCtx, id: ImageId) -> Result<(tokio::fs::File, u64), EngineError> {
        authorize(ctx, arcus::NODE_IMAGE_READ, &Target::default())?;
        let image = self.store().image_get(id).await?.ok_or_else(|| not_found(id))?;
        let open = self.image_open(image).await?.ok_or_else(|| not_found(id))?;
        Ok((open.file, open.size_bytes))
    }

    /// Removes the bytes of an image that has no record any more.
    pub(crate) async fn image_file_remove(&self, id: ImageId) {
        let path = final_path(&self.config().images_dir, id);
        drop(tokio::task::spawn_blocking(move || remove(&path)).await);
    }

    /// Tidies up after processes that ended in the middle of an upload or a deletion. Uploads that live, in this process
    /// or in another one on this folder, are not touched.
    ///
    /// # Errors
    /// [`EngineError::Io`] or [`EngineError::Store`].
    pub async fn images_recover(&self, ctx: &OpCtx) -> Result<ImagesRecovered, EngineError> {
        authorize(ctx, policy::IMAGE_RECOVER, &Target::default())?;
        let dir = self.config().images_dir.clone();
        blocking("make the folder of images", move || dir_make(&dir)).await?;
        let mut done = ImagesRecovered::default();
        for upload in self.store().image_uploads().await? {
            done.uploads += u64::from(self.image_upload_recover(ctx, &upload).await?);
        }
        done.files = self.image_files_recover().await?;
        if done != ImagesRecovered::default() {
            tracing::info!(uploads = done.uploads, files = done.files, "left-over image uploads were tidied up");
        }
        Ok(done)
    }

    async fn image_upload_recover(&self, ctx: &OpCtx, upload: &ImageUpload) -> Result<bool, EngineError> {
        let dir = self.config().images_dir.clone();
        let (id, upload_id) = (upload.image_id, upload.upload_id);
        // Looked at in the order in which a living upload moves: its lock is seen under one name or the other.
        let locked = blocking("lock an upload", move || match lock(&part_path(&dir, id, upload_id))? {
            Lock::NoFile => lock(&final_path(&dir, id)),
            found @ (Lock::Got(_) | Lock::Held) => Ok(found),
        })
        .await?;
        let _lock = match locked {
            Lock::Held => return Ok(false),
            Lock::Got(file) => Some(file),
            Lock::NoFile => None,
        };
        let tx = self.store().begin(ctx).await?;
        let aborted = tx.image_upload_abort(upload).await?;
        let detail = json!({ "upload": upload_id, "why": "its process ended" });
        audit(&tx, policy::IMAGE_RECOVER, id, upload.project_id, &detail).await?;
        tx.commit().await?;
        Ok(aborted)
    }

    /// Removes files that no record speaks for; how many.
    async fn image_files_recover(&self) -> Result<u64, EngineError> {
        let dir = self.config().images_dir.clone();
        let names = blocking("list the folder of images", move || {
            std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
        })
        .await?;
        let mut removed = 0;
        for names in names.chunks(BATCH) {
            let mut finals = Vec::new();
            for name in names.iter().filter_map(|name| name.to_str()) {
                match entry(name) {
                    Some(Entry::Final(id)) => finals.push(id),
                    Some(Entry::Part) => removed += u64::from(self.image_part_recover(name).await?),
                    None => tracing::warn!(name, "a file in the folder of images is not one of Arcus"),
                }
            }
            let kept = self.store().images_with_content(&finals).await?;
            for id in finals.into_iter().filter(|id| !kept.contains(id)) {
                removed += u64::from(self.image_final_recover(id).await?);
            }
        }
        Ok(removed)
    }

    async fn image_part_recover(&self, name: &str) -> Result<bool, EngineError> {
        let path = self.config().images_dir.join(name);
        blocking("remove a left-over upload", move || match lock(&path)? {
            Lock::Got(_lock) => {
                remove(&path);
                Ok(true)
            }
            Lock::Held | Lock::NoFile => Ok(false),
        })
        .await
    }

    async fn image_final_recover(&self, id: ImageId) -> Result<bool, EngineError> {
        let path = final_path(&self.config().images_dir, id);
        let locked = {
            let path = path.clone();
            blocking("lock an image's bytes", move || lock(&path)).await?
        };
        let Lock::Got(_lock) = locked else { return Ok(false) };
        // Under the lock the record is final: an upload drops it only after its record is written.
        if self.store().images_with_content(&[id]).await?.contains(&id) {
            return Ok(false);
        }
        self.image_file_remove(id).await;
        Ok(true)
    }
}
