//! Links, pages and instants as the compute API writes them.

use crate::body::Pairs;
use crate::{ApiError, App};
use arcus_types::Timestamp;
use serde_json::{Value, json};

/// The most rows of one page.
pub const PAGE_MAX: u64 = 1_000;

/// The `self` and `bookmark` links of a resource.
pub fn links(app: &App, kind: &str, id: &str) -> Value {
    let url = &app.endpoint.url;
    json!([
        { "rel": "self", "href": format!("{url}/compute/v2.1/{kind}/{id}") },
        { "rel": "bookmark", "href": format!("{url}/compute/{kind}/{id}") },
    ])
}

/// The `bookmark` link alone.
pub fn bookmark(app: &App, kind: &str, id: &str) -> Value {
    json!([{ "rel": "bookmark", "href": format!("{}/compute/{kind}/{id}", app.endpoint.url) }])
}

/// The link to the next page: the same query with another marker.
pub fn next(app: &App, path: &str, query: &Pairs, marker: &str) -> Value {
    let mut text = String::new();
    for (key, value) in query.0.iter().filter(|(key, _)| key != "marker") {
        text.push_str(&format!("{}={}&", encoded(key), encoded(value)));
    }
    json!([{ "rel": "next", "href": format!("{}/compute/v2.1{path}?{text}marker={}", app.endpoint.url, encoded(marker)) }])
}

/// Percent-encodes all but unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The page size that a query asks for.
///
/// # Errors
/// 400 for what is no natural number.
pub fn limit(query: &Pairs) -> Result<u64, ApiError> {
    match query.first("limit") {
        None => Ok(PAGE_MAX),
        Some(text) => text.parse::<u64>().map(|n| n.min(PAGE_MAX)).map_err(|_| {
            let text: String = text.chars().take(32).collect();
            ApiError::bad_request(format!(
                "Invalid input for query parameters limit. Value: {text}. limit param must be a non-negative integer"
            ))
        }),
    }
}

/// A value of a query parsed into a checked type.
///
/// # Errors
/// 400.
pub fn parsed<T: std::str::FromStr>(query: &Pairs, key: &str) -> Result<Option<T>, ApiError> {
    query.first(key).map(|text| parse(key, text)).transpose()
}

/// A text of a query parsed into a checked type.
///
/// # Errors
/// 400.
pub fn parse<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("Invalid input for query parameters {key}. Value: {text}."))
    })
}

/// An instant of a query.
///
/// # Errors
/// 400.
pub fn instant(query: &Pairs, key: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(None) };
    // A plus sign that was not encoded arrives as a space.
    let at = Timestamp::parse_iso(text).or_else(|| Timestamp::parse_iso(&text.replace(' ', "+")));
    at.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!(
            "Invalid input for query parameters {key}. Value: {text}. It is not a date-time."
        ))
    })
}

/// `2026-11-23T09:26:54.000000`: the form of times that are not in the core of a server.
pub fn naive(at: Timestamp) -> String {
    at.iso_naive()
}
