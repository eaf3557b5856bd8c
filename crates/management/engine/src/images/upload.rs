//! How bytes arrive: an upload begins with a record, runs in a task of its own, and ends with a record, whether its
//! request lives on or not.

use super::files::{Part, blocking, io_error};
use super::write::{self, Fault, PIECE_BYTES_MAX, PIECES_MAX, Piece, Terms};
use super::{audit, not_found, usage};
use crate::{Engine, EngineError};
use arcus_store::{Image, ImageContent, ImageUpload};
use arcus_types::images::{ImageEvent, ImageStatus};
use arcus_types::policy::{Action, arcus, image as policy};
use arcus_types::{ImageId, OpCtx};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use std::io;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use uuid::Uuid;

/// Uploads that run at once in one process.
const UPLOADS_MAX: usize = 64;
/// An upload that sends nothing for so long is given up.
const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(120);

static UPLOADS: Semaphore = Semaphore::const_new(UPLOADS_MAX);

impl Engine {
    /// Fills a queued image. `announced` is how many bytes the client says there are.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] unless the image awaits bytes; [`EngineError::Invalid`] if what came is not a good image
    /// of the declared format: then it awaits bytes again, and nothing of these is kept.
    pub async fn image_upload<S>(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        announced: Option<u64>,
        stream: S,
    ) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let image = self.image_owned(self.store(), ctx, policy::IMAGE_UPLOAD, id).await?;
        self.image_receive(ctx, policy::IMAGE_UPLOAD, &image, Then::Complete, announced, stream).await
    }

    /// Takes the bytes of a queued image for [`Engine::image_import`], and judges them as an upload does.
    ///
    /// # Errors
    /// As [`Engine::image_upload`].
    pub async fn image_stage<S>(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        announced: Option<u64>,
        stream: S,
    ) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let image = self.image_owned(self.store(), ctx, policy::IMAGE_STAGE, id).await?;
        self.image_receive(ctx, policy::IMAGE_STAGE, &image, Then::Await, announced, stream).await
    }

    /// Takes a stream into an image that awaits bytes.
    pub(super) async fn image_receive<S>(
        &self,
        ctx: &OpCtx,
        action: Action,
        image: &Image,
        then: Then,
        announced: Option<u64>,
        stream: S,
    ) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        if image.snapshot_node_id.is_some() && action != arcus::NODE_IMAGE_WRITE {
            return Err(EngineError::conflict(format!("Image {} is a snapshot that is being made.", image.id)));
        }
        let begins = match then {
            Then::Complete => ImageEvent::UploadBegan,
            Then::Await => ImageEvent::StagingBegan,
        };
        let Some(during) = image.status.after(begins) else {
            return Err(not_queued(image.status, then));
        };
        let Some(afterwards) = during.after(ImageEvent::UploadEnded) else {
            return Err(not_queued(image.status, then));
        };
        let (Some(format), Some(_)) = (image.disk_format, image.container_format) else {
            let message = "Properties disk_format, container_format must be set prior to saving data.";
            return Err(EngineError::invalid(message));
        };
        let terms = Terms { format, size_bytes_max: self.config().image_bytes_max, size_bytes: announced };
        if announced.is_some_and(|bytes| bytes > terms.size_bytes_max) {
            return Err(too_large(terms));
        }
        let permit = UPLOADS.try_acquire().map_err(|_| {
            EngineError::Unavailable(format!("{UPLOADS_MAX} images are being uploaded; try again later."))
        })?;
        let run = Run {
            ctx: *ctx,
            action,
            upload: ImageUpload { image_id: image.id, project_id: image.project_id, upload_id: Uuid::new_v4() },
            terms,
            then,
            afterwards,
            snapshot: image.snapshot_node_id.is_some(),
        };
        let part = self.image_upload_begin(&run, during).await?;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let task = tokio::spawn(self.clone().image_upload_run(run, part, pieces, permit));
        send(stream, sender).await;
        task.await.unwrap_or_else(|error| Err(io_error("take an upload")(io::Error::other(error))))
    }

    async fn image_upload_begin(&self, run: &Run, during: ImageStatus) -> Result<Part, EngineError> {
        let upload = run.upload;
        let dir = self.config().images_dir.clone();
        let part = blocking("begin an upload", move || Part::create(&dir, upload.image_id, upload.upload_id)).await?;
        let tx = self.store().begin(&run.ctx).await?;
        if !tx.image_upload_begin(upload.image_id, upload.upload_id, during).await? {
            let status = tx.image_get(upload.image_id).await?.map(|image| image.status);
            return Err(status.map_or_else(|| not_found(upload.image_id), |status| not_queued(status, run.then)));
        }
        audit(&tx, run.action, upload.image_id, upload.project_id, &json!({ "upload": upload.upload_id })).await?;
        tx.commit().await?;
        Ok(part)
    }

    /// Runs an upload to its end and records how it ended.
    async fn image_upload_run(
        self,
        run: Run,
        mut part: Part,
        mut pieces: mpsc::Receiver<Piece>,
        _permit: SemaphorePermit<'static>,
    ) -> Result<(), EngineError> {
        let terms = run.terms;
        let received = blocking("take an upload", move || {
            let received = write::receive(&mut part, terms, &mut pieces);
            Ok((part, received))
        })
        .await;
        let (part, outcome) = match received {
            Ok((part, Ok(content))) => (Some(part), self.image_upload_end(&run, &content).await),
            Ok((part, Err(fault))) => (Some(part), Err(refusal(fault, terms))),
            Err(error) => (None, Err(error)),
        };
        let Err(error) = outcome else { return Ok(()) };
        match self.image_upload_abort(&run, &error).await {
            // A commit whose answer was lost: the image is complete, and its bytes stay.
            Ok(Aborted::Complete) => return Ok(()),
            Ok(Aborted::Awaits | Aborted::Gone) => {
                let discarded = tokio::task::spawn_blocking(move || part.map_or(Ok(()), Part::discard)).await;
                tracing::debug!(image.id = %run.upload.image_id, ?discarded, "an upload was not kept");
            }
            Err(abort) => {
                tracing::warn!(image.id = %run.upload.image_id, error = %abort, "an upload's end waits for the next recovery");
            }
        }
        Err(error)
    }

    async fn image_upload_end(&self, run: &Run, content: &ImageContent) -> Result<(), EngineError> {
        let upload = &run.upload;
        let min_disk_gib = if run.snapshot { content.virtual_size_bytes.div_ceil(1 << 30) } else { 0 };
        let tx = self.store().begin(&run.ctx).await?;
        if !tx.image_upload_end(upload, content, min_disk_gib, run.afterwards).await? {
            return Err(not_found(upload.image_id));
        }
        usage(&tx, upload.project_id, upload.image_id, &json!({ "bytes": content.size_bytes })).await?;
        let detail = json!({ "upload": upload.upload_id, "bytes": content.size_bytes, "sha256": content.sha256 });
        audit(&tx, run.action, upload.image_id, upload.project_id, &detail).await?;
        tx.commit().await?;
        let status = run.afterwards.as_str();
        tracing::info!(image.id = %upload.image_id, size_bytes = content.size_bytes, status, "an image has its bytes");
        Ok(())
    }

    /// Records that an upload was not kept, unless the record says otherwise.
    async fn image_upload_abort(&self, run: &Run, why: &EngineError) -> Result<Aborted, EngineError> {
        let upload = &run.upload;
        let tx = self.store().begin(&run.ctx).await?;
        if !tx.image_upload_abort(upload).await? {
            let image = tx.image_get(upload.image_id).await?;
            let complete = image.is_some_and(|image| image.content.is_some());
            return Ok(if complete { Aborted::Complete } else { Aborted::Gone });
        }
        let detail = json!({ "upload": upload.upload_id, "why": why.to_string() });
        audit(&tx, run.action, upload.image_id, upload.project_id, &detail).await?;
        tx.commit().await?;
        Ok(Aborted::Awaits)
    }
}

/// What became of an image whose upload ended badly.
enum Aborted {
    /// It awaits bytes again.
    Awaits,
    /// It was deleted, or another upload has taken over.
    Gone,
    /// It is complete all the same.
    Complete,
}

/// What becomes of an image when all its bytes are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It is complete.
    Complete,
    /// It awaits an import.
    Await,
}

/// An upload under way.
struct Run {
    ctx: OpCtx,
    action: Action,
    upload: ImageUpload,
    terms: Terms,
    then: Then,
    /// What the image is when all went well.
    afterwards: ImageStatus,
    /// Whether a node makes it of a server's disk: then the image cannot boot from a smaller one.
    snapshot: bool,
}

/// Hands a stream's bytes on. Whatever ends it early, the receiving side knows why or sees that there is no end.
async fn send(mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin, pieces: mpsc::Sender<Piece>) {
    loop {
        match tokio::time::timeout(UPLOAD_IDLE_MAX, stream.next()).await {
            Ok(Some(Ok(mut bytes))) => {
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
                    if pieces.send(Piece::Bytes(piece)).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => {
                drop(pieces.send(Piece::End).await);
                return;
            }
            Ok(Some(Err(_))) | Err(_) => return,
        }
    }
}

fn not_queued(status: ImageStatus, then: Then) -> EngineError {
    let wanted = match then {
        Then::Complete => ImageStatus::Saving,
        Then::Await => ImageStatus::Uploading,
    };
    EngineError::conflict(format!("Image status transition from {status} to {wanted} is not allowed"))
}

fn too_large(terms: Terms) -> EngineError {
    EngineError::TooLarge(format!("An image has at most {} bytes.", terms.size_bytes_max))
}

fn refusal(fault: Fault, terms: Terms) -> EngineError {
    match fault {
        Fault::Unsafe(refused) => EngineError::Invalid { code: "ImageRefused", message: refused.to_string() },
        Fault::TooLarge => too_large(terms),
        Fault::NotAsAnnounced { size_bytes } => {
            let announced = terms.size_bytes.unwrap_or_default();
            EngineError::invalid(format!("{announced} bytes were announced and {size_bytes} came; upload it again."))
        }
        Fault::BrokenOff { size_bytes } => {
            EngineError::invalid(format!("The upload broke off after {size_bytes} bytes; upload it again."))
        }
        Fault::Io(error) => io_error("write an image's bytes")(error),
    }
}
