//! Order and pages as lists of the volume API are asked for them.

use crate::ApiError;
use crate::body::Pairs;
use crate::query::parsed;

/// The most rows that a page may skip.
const OFFSET_MAX: u64 = 1 << 31;

/// What a list is sorted by: `sort=key:asc,other`, or `sort_key` with `sort_dir` as older clients write it. Downwards
/// unless a direction is given.
///
/// # Errors
/// 400 for an unknown key or direction.
pub fn sort<K>(query: &Pairs, key: impl Fn(&str) -> Option<K>) -> Result<Vec<(K, bool)>, ApiError> {
    let known = |name: &str| {
        key(name).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            ApiError::bad_request(format!("Invalid input received: '{name}' is not a key to sort by."))
        })
    };
    if let Some(text) = query.first("sort") {
        return text
            .split(',')
            .map(|part| {
                let (name, direction) = part.trim().split_once(':').unwrap_or((part.trim(), "desc"));
                Ok((known(name)?, downwards(direction)?))
            })
            .collect();
    }
    match query.first("sort_key") {
        None => Ok(Vec::new()),
        Some(name) => Ok(vec![(known(name)?, downwards(query.first("sort_dir").unwrap_or("desc"))?)]),
    }
}

fn downwards(direction: &str) -> Result<bool, ApiError> {
    match direction {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(ApiError::bad_request("Invalid input received: the direction of a sort key is asc or desc.")),
    }
}

/// How many rows a page skips.
///
/// # Errors
/// 400 for what is no natural number, or too large.
pub fn offset(query: &Pairs) -> Result<u64, ApiError> {
    match parsed(query, "offset")?.unwrap_or(0) {
        offset if offset <= OFFSET_MAX => Ok(offset),
        offset => Err(ApiError::bad_request(format!("Invalid input received: offset {offset} is too large."))),
    }
}
