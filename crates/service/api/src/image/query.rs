//! What a list asks for in its query string.

use crate::ApiError;
use crate::body::Pairs;
use arcus_engine::images::ImageQuery;
use arcus_store::{ImageFilter, ImageSortKey, ImageVisible, TimeTest};
use arcus_types::images::{ContainerFormat, ImageStatus, MemberStatus, disk_format_from_name};
use arcus_types::{ImageId, Timestamp};
use std::str::FromStr;

/// Images on a page unless the client says how many.
const LIMIT_DEFAULT: u64 = 100;
/// Images on a page, at most.
const LIMIT_MAX: u64 = 1000;

/// The keys that a list may be ordered by, as clients write them.
const SORT_KEYS: &[(&str, ImageSortKey)] = &[
    ("name", ImageSortKey::Name),
    ("status", ImageSortKey::Status),
    ("container_format", ImageSortKey::ContainerFormat),
    ("disk_format", ImageSortKey::DiskFormat),
    ("size", ImageSortKey::Size),
    ("id", ImageSortKey::Id),
    ("created_at", ImageSortKey::CreatedAt),
    ("updated_at", ImageSortKey::UpdatedAt),
];

/// Reads the whole query. What is no known key asks for a property.
pub fn parse(pairs: &Pairs) -> Result<ImageQuery, ApiError> {
    let limit = pairs.first("limit").map_or(Ok(LIMIT_DEFAULT), |text| number("limit", text))?.min(LIMIT_MAX);
    let mut query = ImageQuery {
        filter: ImageFilter::new(ImageVisible::ToAll, limit),
        community: false,
        member_status: Some(MemberStatus::Accepted),
        marker: None,
    };
    query.filter.hidden = Some(false);
    query.filter.sort = sort(pairs)?;
    for (key, value) in &pairs.0 {
        term(&mut query, key, value)?;
    }
    Ok(query)
}

/// Reads one pair.
fn term(query: &mut ImageQuery, key: &str, value: &str) -> Result<(), ApiError> {
    let filter = &mut query.filter;
    match key {
        "limit" | "sort" | "sort_key" | "sort_dir" => {}
        "marker" => {
            let marker = value.parse::<ImageId>();
            query.marker =
                Some(marker.map_err(|_| ApiError::bad_request(format!("Invalid marker: {}", shown(value))))?);
        }
        "visibility" if value == "all" => query.community = true,
        "visibility" => {
            let wanted = value.parse().map_err(|_| invalid("visibility value", value))?;
            filter.visibility = Some(wanted);
            query.community = true;
        }
        "member_status" if value == "all" => query.member_status = None,
        "member_status" => query.member_status = Some(value.parse().map_err(|_| invalid("status", value))?),
        "tag" => filter.tags.push(value.trim().to_owned()),
        "id" => filter.ids = Some(known(key, value, |text| text.parse().ok())?),
        "name" => filter.names = Some(words(key, value)?),
        "status" => filter.statuses = Some(known(key, value, |text| ImageStatus::from_str(text).ok())?),
        "disk_format" => filter.disk_formats = Some(known(key, value, |text| disk_format_from_name(text).ok())?),
        "container_format" => {
            filter.container_formats = Some(known(key, value, |text| ContainerFormat::from_str(text).ok())?);
        }
        "owner" => match value.parse() {
            Ok(project_id) => filter.owner = Some(project_id),
            Err(_) => filter.ids = Some(Vec::new()),
        },
        "size" => {
            let bytes = number(key, value)?;
            (filter.size_bytes_min, filter.size_bytes_max) = (Some(bytes), Some(bytes));
        }
        "size_min" => filter.size_bytes_min = Some(number(key, value)?),
        "size_max" => filter.size_bytes_max = Some(number(key, value)?),
        "min_disk" => filter.min_disk_gib = Some(number(key, value)?),
        "min_ram" => filter.min_ram_mib = Some(number(key, value)?),
        "protected" => filter.protected = Some(boolean(key, value)?),
        "os_hidden" => filter.hidden = Some(boolean(key, value)?),
        "checksum" => filter.md5 = Some(value.to_owned()),
        "os_hash_value" => filter.sha256 = Some(value.to_owned()),
        "os_hash_algo" if value == "sha256" => {}
        "os_hash_algo" => filter.ids = Some(Vec::new()),
        "created_at" => filter.created_at.push(instant(key, value)?),
        "updated_at" => filter.updated_at.push(instant(key, value)?),
        "changes-since" => {
            return Err(ApiError::bad_request("The \"changes-since\" filter is no longer available on v2."));
        }
        _ => filter.properties.push((key.to_owned(), value.to_owned())),
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn invalid(what: &str, value: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid {what}: {}", shown(value)))
}

fn number(key: &str, text: &str) -> Result<u64, ApiError> {
    let number = text.parse::<i64>().map_err(|_| ApiError::bad_request(format!("{key} param must be an integer")))?;
    u64::try_from(number).map_err(|_| ApiError::bad_request(format!("{key} param must be positive")))
}

fn boolean(key: &str, text: &str) -> Result<bool, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::bad_request(format!("{key} must be true or false, not '{}'.", shown(text)))),
    }
}

/// One word as it is, or those of `in:a,"b,c",d`.
fn words(key: &str, text: &str) -> Result<Vec<String>, ApiError> {
    let Some(list) = text.strip_prefix("in:") else {
        return Ok(vec![text.strip_prefix("eq:").unwrap_or(text).to_owned()]);
    };
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in list.chars() {
        match (c, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    if quoted {
        return Err(ApiError::bad_request(format!("The list of '{key}' has a quote that does not end.")));
    }
    Ok(words)
}

/// The same, of words of which only some mean anything: the others match no image. Statuses may also be told apart by
/// commas alone.
fn known<T>(key: &str, text: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ApiError> {
    let words = words(key, text)?;
    Ok(words.iter().flat_map(|word| word.split(',')).filter_map(|word| read(word.trim())).collect())
}

/// An instant with a test, such as `gte:2026-01-31T12:00:00Z`; without one, the same instant is meant.
fn instant(key: &str, text: &str) -> Result<(TimeTest, Timestamp), ApiError> {
    let tests = [
        ("gt:", TimeTest::Gt),
        ("gte:", TimeTest::Gte),
        ("lt:", TimeTest::Lt),
        ("lte:", TimeTest::Lte),
        ("eq:", TimeTest::Eq),
        ("neq:", TimeTest::Neq),
    ];
    let found = tests.iter().find_map(|(prefix, test)| text.strip_prefix(prefix).map(|rest| (*test, rest)));
    let (test, rest) = found.unwrap_or((TimeTest::Eq, text));
    let at = Timestamp::parse_iso(rest)
        .ok_or_else(|| ApiError::bad_request(format!("{key} must be an ISO 8601 instant, not '{}'.", shown(rest))))?;
    Ok((test, at))
}

fn sort(pairs: &Pairs) -> Result<Vec<(ImageSortKey, bool)>, ApiError> {
    let keys: Vec<&str> = pairs.every("sort_key").collect();
    let dirs: Vec<&str> = pairs.every("sort_dir").collect();
    if let Some(sort) = pairs.first("sort") {
        if !keys.is_empty() || !dirs.is_empty() {
            return Err(ApiError::bad_request("Old and new sorting syntax cannot be combined"));
        }
        let terms = sort.split(',').map(|term| term.split_once(':').unwrap_or((term, "desc")));
        return terms.map(|(key, dir)| Ok((sort_key(key)?, falls(dir)?))).collect();
    }
    if dirs.len() > 1 && dirs.len() != keys.len() {
        return Err(ApiError::bad_request("Number of sort dirs does not match the number of sort keys"));
    }
    let keys = if keys.is_empty() { vec!["created_at"] } else { keys };
    let dir = |at: usize| dirs.get(at).or(dirs.first()).copied().unwrap_or("desc");
    keys.iter().enumerate().map(|(at, key)| Ok((sort_key(key)?, falls(dir(at))?))).collect()
}

fn sort_key(text: &str) -> Result<ImageSortKey, ApiError> {
    SORT_KEYS.iter().find(|(name, _)| *name == text.trim()).map(|(_, key)| *key).ok_or_else(|| {
        let all: Vec<_> = SORT_KEYS.iter().map(|(name, _)| *name).collect();
        let text = shown(text);
        ApiError::bad_request(format!("Invalid sort key: {text}. It must be one of the following: {}.", all.join(", ")))
    })
}

fn falls(text: &str) -> Result<bool, ApiError> {
    match text.trim() {
        "asc" => Ok(false),
        "desc" => Ok(true),
        other => Err(ApiError::bad_request(format!("Invalid sort direction: {}", shown(other)))),
    }
}

/// The link to a page: the same query from its beginning, or after a marker.
pub fn link(raw: &str, marker: Option<ImageId>) -> String {
    let mut terms: Vec<String> =
        raw.split('&').filter(|term| !term.is_empty() && !term.starts_with("marker=")).map(str::to_owned).collect();
    terms.extend(marker.map(|id| format!("marker={id}")));
    if terms.is_empty() { "/v2/images".to_owned() } else { format!("/v2/images?{}", terms.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        Pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn lists_of_words_may_hold_commas_in_quotes() {
        assert_eq!(words("name", "in:a,\"b,c\",d").unwrap(), ["a", "b,c", "d"]);
        assert_eq!(words("name", "a,b").unwrap(), ["a,b"]);
        assert!(words("name", "in:\"a").is_err());
    }

    #[test]
    fn unknown_statuses_match_nothing_and_unknown_orders_are_refused() {
        let query = parse(&pairs(&[("status", "queued,killed")])).unwrap();
        assert_eq!(query.filter.statuses, Some(vec![ImageStatus::Queued]));
        assert_eq!(parse(&pairs(&[("status", "killed")])).unwrap().filter.statuses, Some(vec![]));
        for bad in [("sort_key", "colour"), ("sort_dir", "up"), ("limit", "-1"), ("limit", "x"), ("visibility", "x")] {
            assert!(parse(&pairs(&[bad])).is_err(), "{bad:?}");
        }
        assert!(parse(&pairs(&[("sort", "name"), ("sort_key", "name")])).is_err());
    }

    #[test]
    fn both_ways_to_say_an_order_mean_the_same() {
        let new = parse(&pairs(&[("sort", "name:asc,size:desc")])).unwrap().filter.sort;
        let keys = [("sort_key", "name"), ("sort_dir", "asc"), ("sort_key", "size"), ("sort_dir", "desc")];
        assert_eq!(parse(&pairs(&keys)).unwrap().filter.sort, new);
    }

    #[test]
    fn links_keep_the_query_and_move_the_marker() {
        let id = ImageId::new();
        assert_eq!(link("limit=1&marker=x&name=a%20b", Some(id)), format!("/v2/images?limit=1&name=a%20b&marker={id}"));
        assert_eq!(link("marker=x", None), "/v2/images");
    }
}
