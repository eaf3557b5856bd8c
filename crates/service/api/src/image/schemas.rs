//! The schemas that clients read to learn which attributes there are.

use super::wire::READ_ONLY;
use crate::ApiError;
use arcus_types::images::{ContainerFormat, DISK_FORMATS, ImageStatus, MemberStatus, Visibility};
use axum::Json;
use axum::extract::Path;
use serde_json::{Map, Value, json};

pub async fn show(Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(match name.as_str() {
        "image" => image(),
        "images" => collection("images", &image(), true),
        "member" => member(),
        "members" => collection("members", &member(), false),
        _ => return Err(ApiError::not_found("Schema", name.chars().take(64).collect::<String>())),
    }))
}

/// Attributes and their JSON types.
fn attributes() -> Value {
    let disk_formats: Vec<Value> =
        std::iter::once(Value::Null).chain(DISK_FORMATS.iter().map(|(name, _)| Value::from(*name))).collect();
    let container_formats: Vec<Value> = std::iter::once(Value::Null)
        .chain(ContainerFormat::ALL.iter().map(|format| Value::from(format.as_str())))
        .collect();
    let statuses: Vec<_> = ImageStatus::ALL.iter().map(|status| status.as_str()).collect();
    let visibilities: Vec<_> = Visibility::ALL.iter().map(|visibility| visibility.as_str()).collect();
    let text = |description: &str| json!({ "type": "string", "description": description });
    let text_or_null = |description: &str, max: u32| json!({ "type": ["null", "string"], "maxLength": max, "description": description });
    json!({
        "id": {
            "type": "string",
            "description": "The image's id",
            "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$",
        },
        "name": text_or_null("The image's name", 255),
        "status": { "type": "string", "description": "How far the image is", "enum": statuses },
        "visibility": { "type": "string", "description": "Who sees the image", "enum": visibilities },
        "protected": { "type": "boolean", "description": "Whether deletion is refused" },
        "os_hidden": { "type": "boolean", "description": "Whether lists leave the image out" },
        "checksum": text_or_null("MD5 of the bytes", 32),
        "os_hash_algo": text_or_null("How os_hash_value was computed", 64),
        "os_hash_value": text_or_null("Hash of the bytes, in hexadecimal", 128),
        "owner": text_or_null("The project that owns the image", 255),
        "size": { "type": ["null", "integer"], "description": "How many bytes the image has" },
        "virtual_size": { "type": ["null", "integer"], "description": "The size of the disk that a guest sees, in bytes" },
        "container_format": {
            "type": ["null", "string"], "description": "What surrounds the bytes", "enum": container_formats,
        },
        "disk_format": { "type": ["null", "string"], "description": "How the bytes are laid out", "enum": disk_formats },
        "created_at": text("When the image was made"),
        "updated_at": text("When its record last changed"),
        "tags": {
            "type": "array",
            "description": "Words that the image can be found by",
            "items": { "type": "string", "maxLength": 255 },
        },
        "direct_url": text("Never set: bytes are served by this API alone"),
        "min_ram": { "type": "integer", "description": "The least memory to boot with, in MiB" },
        "min_disk": { "type": "integer", "description": "The smallest disk to boot from, in GiB" },
        "self": text("Where the image is"),
        "file": text("Where its bytes are"),
        "stores": text("Where the bytes are kept, once they are here"),
        "schema": text("Where this schema is"),
        "locations": {
            "type": "array",
            "description": "Never set: bytes are served by this API alone",
            "items": { "type": "object", "required": ["url", "metadata"] },
        },
    })
}

fn image() -> Value {
    let mut properties = match attributes() {
        Value::Object(properties) => properties,
        _ => Map::new(),
    };
    for key in READ_ONLY.iter().filter(|key| !["id", "locations"].contains(*key)) {
        if let Some(Value::Object(property)) = properties.get_mut(*key) {
            property.insert("readOnly".to_owned(), true.into());
        }
    }
    json!({
        "name": "image",
        "properties": properties,
        "additionalProperties": { "type": "string" },
        "links": [
            { "rel": "self", "href": "{self}" },
            { "rel": "enclosure", "href": "{file}" },
            { "rel": "describedby", "href": "{schema}" },
        ],
    })
}

fn member() -> Value {
    let statuses: Vec<_> = MemberStatus::ALL.iter().map(|status| status.as_str()).collect();
    json!({
        "name": "member",
        "properties": {
            "image_id": { "type": "string", "description": "The image" },
            "member_id": { "type": "string", "description": "The project that it is shared with" },
            "status": { "type": "string", "description": "What that project said", "enum": statuses },
            "created_at": { "type": "string", "description": "Since when it is shared" },
            "updated_at": { "type": "string", "description": "When the project last said something" },
            "schema": { "type": "string", "readOnly": true },
        },
    })
}

/// The schema of a list of `item`; `paged` ones have links to their pages.
fn collection(name: &str, item: &Value, paged: bool) -> Value {
    let mut properties = Map::new();
    properties.insert(name.to_owned(), json!({ "type": "array", "items": item }));
    properties.insert("schema".to_owned(), json!({ "type": "string" }));
    let mut links = vec![json!({ "rel": "describedby", "href": "{schema}" })];
    if paged {
        for rel in ["first", "next"] {
            properties.insert(rel.to_owned(), json!({ "type": "string" }));
            links.push(json!({ "rel": rel, "href": format!("{{{rel}}}") }));
        }
    }
    json!({ "name": name, "properties": properties, "links": links })
}
