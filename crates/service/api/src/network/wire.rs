//! Bodies of the network API: one thing or several under their names, attributes that may be missing, null or set.

use crate::ApiError;
use arcus_types::Timestamp;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Value, json};

/// The longest name, and the longest of other short texts, in characters.
pub const TEXT_CHARS_MAX: usize = 255;

/// The most things that one request may make.
const BULK_MAX: usize = 256;

/// One thing or several, as they were asked for.
pub struct Things<T> {
    /// The things.
    pub all: Vec<T>,
    /// Whether they came as a list, and so go back as one.
    pub bulk: bool,
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|e| ApiError::bad_request(format!("The request body is not valid: {e}")))
}

/// The thing under `name`.
///
/// # Errors
/// 400 if it is not there or not what it should be.
pub fn one<T: DeserializeOwned>(mut body: Value, name: &str) -> Result<T, ApiError> {
    match body.get_mut(name).map(Value::take) {
        Some(value @ Value::Object(_)) => read(value),
        Some(_) | None => Err(ApiError::bad_request(format!("Unable to find '{name}' in request body"))),
    }
}

/// The thing under `name`, or the list of things under `names`.
///
/// # Errors
/// 400 if neither is there or something is not what it should be.
pub fn some<T: DeserializeOwned>(mut body: Value, name: &str, names: &str) -> Result<Things<T>, ApiError> {
    let Some(list) = body.get_mut(names).map(Value::take) else {
        return Ok(Things { all: vec![one(body, name)?], bulk: false });
    };
    let all: Vec<T> = read(list)?;
    if all.is_empty() || all.len() > BULK_MAX {
        return Err(ApiError::bad_request(format!("'{names}' must hold 1 to {BULK_MAX} entries")));
    }
    Ok(Things { all, bulk: true })
}

/// What was made, as it was asked for: under `name`, or as a list under `names`.
pub fn made(mut values: Vec<Value>, bulk: bool, name: &str, names: &str) -> Value {
    match values.pop() {
        Some(only) if !bulk && values.is_empty() => json!({ name: only }),
        last => {
            values.extend(last);
            json!({ names: values })
        }
    }
}

/// For attributes where null and absent differ: absent is `None`, null is `Some(None)`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// A whole number, written as one or as text.
pub fn number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    match Option::<Value>::deserialize(d)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) if n.is_i64() => Ok(n.as_i64()),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => text.trim().parse().map(Some).map_err(serde::de::Error::custom),
        Some(other) => Err(serde::de::Error::custom(format!("'{other}' is not an integer"))),
    }
}

/// Text, written as such or as a number.
pub fn loose_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    match Option::<Value>::deserialize(d)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(n)) => Ok(Some(n.to_string())),
        Some(other) => Err(serde::de::Error::custom(format!("'{other}' is not a text"))),
    }
}

/// A short text, checked.
///
/// # Errors
/// 400 if it is too long or holds control characters.
pub fn text(attribute: &str, value: Option<String>) -> Result<Option<String>, ApiError> {
    if let Some(text) = &value {
        if text.chars().count() > TEXT_CHARS_MAX {
            return Err(ApiError::bad_request(format!(
                "Invalid input for {attribute}. Reason: '{}...' exceeds maximum length of {TEXT_CHARS_MAX}.",
                text.chars().take(32).collect::<String>()
            )));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(ApiError::bad_request(format!("Invalid input for {attribute}: control characters.")));
        }
    }
    Ok(value)
}

/// A range as text: with a prefix, or a lone address.
///
/// # Errors
/// 400 if it is neither.
pub fn range(attribute: &str, text: &str) -> Result<ipnet::IpNet, ApiError> {
    let parsed = text.parse::<ipnet::IpNet>().ok();
    parsed.or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from)).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("Invalid input for {attribute}. Reason: '{shown}' is not a valid IP subnet."))
    })
}

/// Adds what every thing of this API carries.
pub fn with_standard(
    mut thing: Value,
    description: &str,
    revision: u64,
    created: Timestamp,
    updated: Timestamp,
) -> Value {
    if let Value::Object(map) = &mut thing {
        map.insert("description".into(), json!(description));
        map.insert("revision_number".into(), json!(revision));
        map.insert("created_at".into(), json!(created.iso_seconds()));
        map.insert("updated_at".into(), json!(updated.iso_seconds()));
    }
    thing
}
