//! Bodies of the network API: one thing or several under their names, attributes that may be missing, null or set.

use crate::ApiError;
use arcus_engine::network_tags::TAGS_MAX;
use arcus_types::Timestamp;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Value, json};
use std::str::FromStr;

/// The longest name, and the longest of other short texts, in characters.
pub const TEXT_CHARS_MAX: usize = 255;

/// The most things that one request may make.
const BULK_MAX: usize = 256;

/// The revision that a thing must have to be changed or removed: `If-Match: revision_number=3`. An extractor.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<u64>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let number = value.to_str().ok().and_then(|text| text.strip_prefix("revision_number=")?.parse().ok());
        let wrong =
            || ApiError::bad_request("Revision number precondition must be 'If-Match: revision_number=<number>'");
        Ok(Self(Some(number.ok_or_else(wrong)?)))
    }
}

/// Two ids from the path; text that is no id names nothing, so it answers 404. An extractor.
#[derive(Debug, Clone)]
pub struct Ids<A, B>(pub A, pub B);

impl<A: FromStr, B: FromStr, S: Sync + Send> FromRequestParts<S> for Ids<A, B> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.");
        let Path((a, b)) = Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|_| missing())?;
        Ok(Self(a.parse().map_err(|_| missing())?, b.parse().map_err(|_| missing())?))
    }
}

/// Tags that a thing begins with: short texts without commas, which separate them in filters.
///
/// # Errors
/// 400 if one is empty, too long, or holds a comma.
pub fn tags(asked: Option<Vec<String>>) -> Result<Vec<String>, ApiError> {
    let mut tags = asked.unwrap_or_default();
    tags.iter().try_for_each(|tag| tag_checked(tag))?;
    tags.sort();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(ApiError::bad_request(format!("A resource has at most {TAGS_MAX} tags.")));
    }
    Ok(tags)
}

/// One tag, checked.
///
/// # Errors
/// 400 if it is empty, too long, or holds a comma.
pub fn tag_checked(tag: &str) -> Result<(), ApiError> {
    let fine =
        !tag.is_empty() && tag.chars().count() <= TEXT_CHARS_MAX && !tag.chars().any(|c| c == ',' || c.is_control());
    if fine {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!(
            "Invalid input for tags. Reason: '{}' is not 1 to {TEXT_CHARS_MAX} characters without a comma.",
            tag.chars().take(64).collect::<String>()
        )))
    }
}

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

/// A domain name with a dot at its end, or nothing.
///
/// # Errors
/// 400 if it is neither.
pub fn domain(value: Option<String>) -> Result<Option<String>, ApiError> {
    if let Some(name) = value.as_deref().filter(|name| !name.is_empty()) {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let plain = name.len() <= 253 && name.strip_suffix('.').is_some_and(|name| name.split('.').all(label));
        if !plain {
            return Err(ApiError::bad_request(
                "Invalid input for dns_domain. Reason: it is not a domain name that ends with a dot.",
            ));
        }
    }
    Ok(value)
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
