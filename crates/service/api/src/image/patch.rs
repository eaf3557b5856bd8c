//! Changes to an image, in the two dialects of JSON patch that clients speak.

use super::wire;
use crate::ApiError;
use arcus_engine::images::ImageChange;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

/// Changes in one request, at most.
const CHANGES_MAX: usize = 512;

/// How changes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `{"replace": "/name", "value": "x"}`
    V20,
    /// `{"op": "replace", "path": "/name", "value": "x"}`
    V21,
}

const V20: &str = "application/openstack-images-v2.0-json-patch";
const V21: &str = "application/openstack-images-v2.1-json-patch";
const OPERATIONS: &[&str] = &["add", "replace", "remove"];

impl Dialect {
    /// The dialect that the content type names.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match named.split(';').next().unwrap_or_default().trim() {
            V20 => Ok(Self::V20),
            V21 => Ok(Self::V21),
            _ => {
                let message = format!("Image PATCH expects Content-Type one of: {V20}, {V21}");
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
        }
    }
}

/// Reads all changes; they are applied together or not at all.
pub fn parse(dialect: Dialect, body: &Value) -> Result<Vec<ImageChange>, ApiError> {
    let Value::Array(changes) = body else {
        return Err(ApiError::bad_request("Request body must be a JSON array of operation objects."));
    };
    if changes.len() > CHANGES_MAX {
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("At most {CHANGES_MAX} changes at once.")));
    }
    changes
        .iter()
        .map(|change| match change {
            Value::Object(change) => operation(dialect, change),
            _ => Err(ApiError::bad_request("Operations must be JSON objects.")),
        })
        .collect()
}

fn operation(dialect: Dialect, change: &Map<String, Value>) -> Result<ImageChange, ApiError> {
    let (op, path) = match dialect {
        Dialect::V21 => {
            let op = change.get("op").and_then(Value::as_str).unwrap_or_default();
            let path = change.get("path").and_then(Value::as_str);
            (op, path.ok_or_else(|| ApiError::bad_request("Unable to find 'path' in JSON Schema change"))?)
        }
        Dialect::V20 => {
            let mut found = OPERATIONS.iter().filter_map(|op| change.get(*op).map(|path| (*op, path)));
            match (found.next(), found.next()) {
                (Some((op, Value::String(path))), None) => (op, path.as_str()),
                _ => {
                    let message =
                        "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".";
                    return Err(ApiError::bad_request(message));
                }
            }
        }
    };
    if !OPERATIONS.contains(&op) {
        let shown: String = op.chars().take(64).collect();
        let all = OPERATIONS.join(", ");
        let message = format!("Invalid operation: `{shown}`. It must be one of the following: {all}.");
        return Err(ApiError::bad_request(message));
    }
    let key = pointer(path)?;
    wire::writable(&key)?;
    if op == "remove" {
        if wire::SETTABLE.contains(&key.as_str()) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, format!("Property {key} may not be removed.")));
        }
        return Ok(ImageChange::PropertyRemove(key));
    }
    let value = change
        .get("value")
        .ok_or_else(|| ApiError::bad_request(format!("Operation \"{op}\" requires a member named \"value\".")))?;
    set(dialect, op, key, value)
}

fn set(dialect: Dialect, op: &str, key: String, value: &Value) -> Result<ImageChange, ApiError> {
    if op == "add" && dialect == Dialect::V20 && wire::SETTABLE.contains(&key.as_str()) {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("Property {key} already present.")));
    }
    Ok(match key.as_str() {
        "name" => ImageChange::Name(wire::name(value)?),
        "visibility" => ImageChange::Visibility(wire::visibility(value)?),
        "protected" => ImageChange::Protected(wire::boolean(&key, value)?),
        "os_hidden" => ImageChange::Hidden(wire::boolean(&key, value)?),
        "disk_format" => ImageChange::DiskFormat(wire::disk_format(value)?),
        "container_format" => ImageChange::ContainerFormat(wire::container_format(value)?),
        "min_disk" => ImageChange::MinDiskGib(wire::quantity(&key, value)?),
        "min_ram" => ImageChange::MinRamMib(wire::quantity(&key, value)?),
        "owner" => match wire::owner(value)? {
            Some(project_id) => ImageChange::Owner(project_id),
            None => return Err(ApiError::bad_request("An image must have an owner.")),
        },
        "tags" => ImageChange::Tags(wire::tags(value)?),
        _ => {
            let value = wire::property(&key, value)?;
            match (op, dialect) {
                ("replace", _) => ImageChange::PropertyReplace(key, value),
                (_, Dialect::V20) => ImageChange::PropertyAdd(key, value),
                (_, Dialect::V21) => ImageChange::PropertySet(key, value),
            }
        }
    })
}

/// The attribute or property that a JSON pointer of one step names.
fn pointer(path: &str) -> Result<String, ApiError> {
    let shown: String = path.chars().take(300).collect();
    let refuse = |why: &str| ApiError::bad_request(format!("Pointer `{shown}` {why}."));
    let step = path.strip_prefix('/').ok_or_else(|| refuse("does not start with \"/\""))?;
    if step.trim().is_empty() {
        return Err(refuse("does not contain a valid token"));
    }
    if step.contains('/') {
        return Err(ApiError::bad_request(format!("Invalid JSON pointer for this resource: '{shown}'")));
    }
    let mut escapes = step.split('~').skip(1);
    if escapes.any(|after| !after.starts_with(['0', '1'])) {
        return Err(refuse("contains \"~\" not part of a recognized escape sequence"));
    }
    Ok(step.replace("~1", "/").replace("~0", "~").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(dialect: Dialect, change: Value) -> Result<ImageChange, StatusCode> {
        parse(dialect, &json!([change])).map(|mut changes| changes.remove(0)).map_err(|error| error.status)
    }

    #[test]
    fn both_dialects_say_the_same() {
        let new = json!({ "op": "replace", "path": "/os~1distro", "value": "debian" });
        let old = json!({ "replace": "/os~1distro", "value": "debian" });
        let wanted = ImageChange::PropertyReplace("os/distro".into(), "debian".into());
        assert_eq!(one(Dialect::V21, new), Ok(wanted.clone()));
        assert_eq!(one(Dialect::V20, old), Ok(wanted));
    }

    #[test]
    fn what_may_not_change_is_told_apart_from_what_is_wrong() {
        let change =
            |op: &str, path: &str, value: Value| one(Dialect::V21, json!({ "op": op, "path": path, "value": value }));
        for path in ["/id", "/status", "/checksum", "/locations", "/deleted", "/os_glance_x"] {
            assert_eq!(change("replace", path, json!("x")), Err(StatusCode::FORBIDDEN), "{path}");
        }
        assert_eq!(change("remove", "/name", Value::Null), Err(StatusCode::FORBIDDEN));
        for (op, path, value) in [
            ("move", "/a", json!("x")),
            ("add", "a", json!("x")),
            ("add", "/a/b", json!("x")),
            ("add", "/a~2", json!("x")),
            ("add", "/a", json!(1)),
            ("replace", "/min_disk", json!(-1)),
            ("replace", "/tags", json!("x")),
        ] {
            assert_eq!(change(op, path, value), Err(StatusCode::BAD_REQUEST), "{op} {path}");
        }
    }
}
