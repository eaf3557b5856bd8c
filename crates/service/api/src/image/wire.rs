//! How an image looks on the wire, and how each of its attributes is read from it.

use super::STORE;
use crate::ApiError;
use arcus_store::{Image, ImageContent};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, Visibility, disk_format_from_name, disk_format_name};
use arcus_types::{Name, ProjectId};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Attributes that only Arcus writes.
pub const READ_ONLY: &[&str] = &[
    "id",
    "status",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "size",
    "virtual_size",
    "created_at",
    "updated_at",
    "direct_url",
    "self",
    "file",
    "schema",
    "stores",
    "locations",
];
/// Names that no property may have.
const RESERVED: &[&str] = &["location", "deleted", "deleted_at"];
/// How the names of properties that belong to the service begin.
const RESERVED_PREFIX: &str = "os_glance";
/// Attributes that a client may set and not remove.
pub const SETTABLE: &[&str] = &[
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "owner",
    "tags",
];

/// An image as clients see it.
pub fn view(image: &Image) -> Value {
    let mut view: Map<String, Value> =
        image.properties.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    // Bytes that await their import are not the image's yet.
    let content = image.content.as_ref().filter(|_| image.status != ImageStatus::Uploading);
    let attributes = json!({
        "id": image.id,
        "name": image.name,
        "status": image.status.as_str(),
        "visibility": image.visibility.as_str(),
        "protected": image.protected,
        "os_hidden": image.hidden,
        "owner": image.project_id,
        "disk_format": image.disk_format.map(disk_format_name),
        "container_format": image.container_format.map(ContainerFormat::as_str),
        "min_disk": image.min_disk_gib,
        "min_ram": image.min_ram_mib,
        "size": size(image, content),
        "virtual_size": content.map(|content| content.virtual_size_bytes),
        "checksum": content.map(|content| content.md5.as_str()),
        "os_hash_algo": content.map(|_| "sha256"),
        "os_hash_value": content.map(|content| content.sha256.as_str()),
        "tags": image.tags,
        "created_at": image.created_at.iso_seconds(),
        "updated_at": image.updated_at.iso_seconds(),
        "self": format!("/v2/images/{}", image.id),
        "file": format!("/v2/images/{}/file", image.id),
        "schema": "/v2/schemas/image",
    });
    if let Value::Object(attributes) = attributes {
        view.extend(attributes);
    }
    if content.is_some() {
        view.insert("stores".to_owned(), STORE.into());
    }
    Value::Object(view)
}

/// An image that is active without bytes has none: it is made of what its properties name.
fn size(image: &Image, content: Option<&ImageContent>) -> Option<u64> {
    match (content, image.status) {
        (Some(content), _) => Some(content.size_bytes),
        (None, ImageStatus::Active | ImageStatus::Deactivated) => Some(0),
        (None, ImageStatus::Queued | ImageStatus::Saving | ImageStatus::Uploading) => None,
    }
}

/// 403 for an attribute that a client may not write.
pub fn writable(key: &str) -> Result<(), ApiError> {
    let forbidden = |why: &str| ApiError::new(StatusCode::FORBIDDEN, format!("Attribute '{key}' is {why}."));
    if READ_ONLY.contains(&key) {
        return Err(forbidden("read-only"));
    }
    if RESERVED.contains(&key) || key.starts_with(RESERVED_PREFIX) {
        return Err(forbidden("reserved"));
    }
    Ok(())
}

/// 400 for a value that an attribute does not take.
fn wrong(key: &str, wanted: &str) -> ApiError {
    ApiError::bad_request(format!("Provided object does not match schema 'image': '{key}' must be {wanted}."))
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, ApiError> {
    value.as_str().ok_or_else(|| wrong(key, "a string"))
}

/// Text, or nothing where the client said null.
fn optional<'a>(key: &str, value: &'a Value) -> Result<Option<&'a str>, ApiError> {
    if value.is_null() { Ok(None) } else { text(key, value).map(Some) }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| ApiError::bad_request(format!("{error}")))
}

/// A name; the empty one is none.
pub fn name(value: &Value) -> Result<Option<Name>, ApiError> {
    optional("name", value)?.filter(|text| !text.is_empty()).map(parsed).transpose()
}

/// Who sees it.
pub fn visibility(value: &Value) -> Result<Visibility, ApiError> {
    parsed(text("visibility", value)?)
}

/// Yes or no.
pub fn boolean(key: &str, value: &Value) -> Result<bool, ApiError> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false"))
}

/// A quantity.
pub fn quantity(key: &str, value: &Value) -> Result<u64, ApiError> {
    value.as_u64().ok_or_else(|| wrong(key, "an integer, 0 or larger"))
}

/// How bytes are laid out.
pub fn disk_format(value: &Value) -> Result<Option<DiskFormat>, ApiError> {
    let format = optional("disk_format", value)?.map(disk_format_from_name).transpose();
    format.map_err(|error| ApiError::bad_request(error.0))
}

/// What surrounds them.
pub fn container_format(value: &Value) -> Result<Option<ContainerFormat>, ApiError> {
    optional("container_format", value)?.map(parsed).transpose()
}

/// Whose it is.
pub fn owner(value: &Value) -> Result<Option<ProjectId>, ApiError> {
    optional("owner", value)?.map(parsed).transpose()
}

/// Tags; one given twice counts once.
pub fn tags(value: &Value) -> Result<BTreeSet<String>, ApiError> {
    let tags = value.as_array().ok_or_else(|| wrong("tags", "a list of strings"))?;
    tags.iter().map(|tag| text("tags", tag).map(str::to_owned)).collect()
}

/// A property's value.
pub fn property(key: &str, value: &Value) -> Result<String, ApiError> {
    text(key, value).map(str::to_owned)
}
