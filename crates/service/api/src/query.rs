//! Query strings as the compute and volume APIs read them: pages, markers, checked values.

use crate::ApiError;
use crate::body::Pairs;
use arcus_types::Timestamp;

/// The most rows of one page.
pub const PAGE_MAX: u64 = 1_000;

/// The same query with another marker: the query of the next page.
pub fn again(query: &Pairs, marker: &str) -> String {
    let mut text = String::new();
    for (key, value) in query.0.iter().filter(|(key, _)| key != "marker") {
        text.push_str(&format!("{}={}&", encoded(key), encoded(value)));
    }
    text + "marker=" + &encoded(marker)
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

/// Refuses parameters that a list does not know. Each list has a microversion since which it does; before, they are
/// passed over, and the caller does not ask.
///
/// # Errors
/// 400.
pub fn known(query: &Pairs, names: &[&str]) -> Result<(), ApiError> {
    match query.0.iter().find(|(key, _)| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, _)) => {
            let key: String = key.chars().take(64).collect();
            Err(ApiError::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")))
        }
    }
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
