//! An image's bytes, up and down, as streams.

use super::STORE;
use crate::auth::Ctx;
use crate::body::Id;
use crate::{ApiError, App, Route};
use arcus_engine::images::ImageFile;
use arcus_types::ImageId;
use arcus_types::policy::image as policy;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use std::io::SeekFrom;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Bytes that are read from a file at once.
const READ_BYTES: usize = 512 << 10;
/// After a refusal, so many bytes of the upload are still read and thrown away, so that the client hears the answer
/// instead of a broken connection.
const DRAIN_BYTES_MAX: usize = 64 << 20;
/// And for so long.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

pub fn routes() -> Vec<Route> {
    vec![
        Route::put("/image/v2/images/{id}/file", policy::IMAGE_UPLOAD, upload),
        Route::get("/image/v2/images/{id}/file", policy::IMAGE_DOWNLOAD, download),
        Route::put("/image/v2/images/{id}/stage", policy::IMAGE_STAGE, stage),
    ]
}

async fn upload(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let mut stream = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    let done = match announced(&headers) {
        Ok(announced) => app.engine.image_upload(&ctx, id, announced, &mut stream).await.map_err(ApiError::from),
        Err(refused) => Err(refused),
    };
    received(done, stream).await
}

/// Takes bytes for an import.
async fn stage(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let mut stream = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    let done = match announced(&headers) {
        Ok(announced) => app.engine.image_stage(&ctx, id, announced, &mut stream).await.map_err(ApiError::from),
        Err(refused) => Err(refused),
    };
    received(done, stream).await
}

/// The answer to an upload, given when the client can hear it.
async fn received<E>(
    done: Result<(), ApiError>,
    rest: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin,
) -> Result<StatusCode, ApiError> {
    if done.is_err() {
        drop(tokio::time::timeout(DRAIN_TIME_MAX, drain(rest)).await);
    }
    done.map(|()| StatusCode::NO_CONTENT)
}

/// How many bytes a client says will come, if it says so; or why they are not taken.
fn announced(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if kind.is_some_and(|kind| kind != "application/octet-stream") {
        let message = "An image's bytes are uploaded as application/octet-stream.";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if headers.get("x-image-meta-store").is_some_and(|store| store.as_bytes() != STORE.as_bytes()) {
        return Err(ApiError::bad_request(format!("There is one store: {STORE}.")));
    }
    let number = |name: &str| {
        let text = headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let number = text
            .map(|text| text.parse::<u64>().map_err(|_| ApiError::bad_request(format!("{name} must be an integer."))));
        number.transpose()
    };
    match (number("x-openstack-image-size")?, number("content-length")?) {
        (Some(size), Some(length)) if size != length => {
            Err(ApiError::bad_request("x-openstack-image-size and content-length differ."))
        }
        (size, length) => Ok(size.or(length)),
    }
}

async fn drain<E>(mut stream: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin) {
    let mut bytes = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        bytes += chunk.len();
        if bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
}

async fn download(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(open) = app.engine.image_download(&ctx, id).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    match asked.and_then(|text| range(text, open.size_bytes)) {
        None => {
            let whole = 0..open.size_bytes;
            Ok((StatusCode::OK, send(open, whole).await?).into_response())
        }
        Some(Ok(part)) => {
            let content_range = format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), open.size_bytes);
            let headers = [(header::CONTENT_RANGE, content_range)];
            Ok((StatusCode::PARTIAL_CONTENT, headers, send(open, part).await?).into_response())
        }
        Some(Err(OutOfRange)) => {
            let headers = [(header::CONTENT_RANGE, format!("bytes */{}", open.size_bytes))];
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "The range lies beyond the image's end.");
            Ok((headers, error).into_response())
        }
    }
}

async fn send(open: ImageFile, part: Range<u64>) -> Result<Response, ApiError> {
    let ImageFile { image, mut file, size_bytes } = open;
    let length = part.end.saturating_sub(part.start);
    if part.start > 0 {
        file.seek(SeekFrom::Start(part.start)).await.map_err(|error| crate::error::internal(&error))?;
    }
    file.set_max_buf_size(READ_BYTES);
    let mut response = Body::from_stream(ReaderStream::with_capacity(file.take(length), READ_BYTES)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let md5 = image.content.and_then(|content| HeaderValue::from_str(&content.md5).ok());
    if let (Some(md5), true) = (md5, length == size_bytes) {
        headers.insert("content-md5", md5);
    }
    Ok(response)
}

/// The range begins after the last byte.
#[derive(Debug, PartialEq, Eq)]
struct OutOfRange;

/// The one range that a header asks for. `None` if it asks for none, for several, or in words that mean nothing: then the
/// whole is sent, as HTTP says.
fn range(text: &str, size: u64) -> Option<Result<Range<u64>, OutOfRange>> {
    let (from, to) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let part = if from.is_empty() {
        let last: u64 = to.parse().ok()?;
        size.saturating_sub(last)..size
    } else {
        let from: u64 = from.parse().ok()?;
        let to = if to.is_empty() { size } else { to.parse::<u64>().ok()?.saturating_add(1).min(size) };
        if from > to && from < size {
            return None;
        }
        from..to
    };
    Some(if part.start < part.end { Ok(part) } else { Err(OutOfRange) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_held_inside_the_image() {
        assert_eq!(range("bytes=0-9", 100), Some(Ok(0..10)));
        assert_eq!(range("bytes=90-", 100), Some(Ok(90..100)));
        assert_eq!(range("bytes=90-500", 100), Some(Ok(90..100)));
        assert_eq!(range("bytes=-10", 100), Some(Ok(90..100)));
        assert_eq!(range("bytes=-500", 100), Some(Ok(0..100)));
        assert_eq!(range("bytes=100-", 100), Some(Err(OutOfRange)));
        assert_eq!(range("bytes=-0", 100), Some(Err(OutOfRange)));
        for other in ["bytes=0-1,5-6", "bytes=9-2", "lines=1-2", "bytes=", "bytes=a-b"] {
            assert_eq!(range(other, 100), None, "{other}");
        }
    }
}
