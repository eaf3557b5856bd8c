//! What every list of the network API has: filters by attribute, sorting, pages with links, and answers pruned to `fields`.

use crate::body::Pairs;
use crate::{ApiError, App};
use arcus_store::{Field, Listing, Page, TagFilter};
use arcus_types::Timestamp;
use serde_json::{Map, Value};

/// The list that a query string asks for. Keys that name no attribute are left to whoever knows them.
///
/// # Errors
/// 400 for a limit, marker or sort key that is none.
pub fn listing(query: &Pairs, fields: &[Field]) -> Result<Listing, ApiError> {
    let mut listing = Listing::default();
    for field in fields {
        let values: Vec<String> = query.every(field.name).map(str::to_owned).collect();
        if !values.is_empty() {
            listing.filters.push((*field, values));
        }
    }
    let directions: Vec<&str> = query.every("sort_dir").collect();
    for (index, key) in query.every("sort_key").enumerate() {
        let field = fields.iter().find(|f| f.name == key && f.sorts);
        let field = field.ok_or_else(|| ApiError::bad_request(format!("{key} is invalid attribute for sort_key")))?;
        let down = match directions.get(index) {
            None | Some(&"asc") => false,
            Some(&"desc") => true,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "{other} is invalid value for sort_dirs, valid value is asc, desc"
                )));
            }
        };
        listing.sort.push((*field, down));
    }
    if let Some(text) = query.first("limit") {
        let limit = text
            .parse::<u64>()
            .map_err(|_| ApiError::bad_request(format!("Bad limit '{text}': it must be an integer of 0 or more")))?;
        listing.limit = (limit > 0).then_some(limit);
    }
    if let Some(text) = query.first("marker").filter(|text| !text.is_empty()) {
        let marker = uuid::Uuid::try_parse(text);
        listing.marker =
            Some(marker.map_err(|_| ApiError::bad_request(format!("Bad marker '{text}': it must be an id")))?);
    }
    listing.tags = tags(query);
    if let Some(text) = query.first("changed_since") {
        let since = Timestamp::parse_iso(text);
        listing.changed_since = Some(since.ok_or_else(|| {
            ApiError::bad_request(format!(
                "The input changed_since must be in the ISO 8601 format: '{}'",
                text.chars().take(64).collect::<String>()
            ))
        })?);
    }
    listing.reverse = query.first("page_reverse").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    Ok(listing)
}

/// `tags=a,b`, `tags-any=a,b`, `not-tags=a,b`, `not-tags-any=a,b`.
fn tags(query: &Pairs) -> TagFilter {
    let words = |key: &str| {
        let each = query.every(key).flat_map(|text| text.split(','));
        each.filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    };
    TagFilter { all: words("tags"), any: words("tags-any"), not_all: words("not-tags"), not_any: words("not-tags-any") }
}

/// The answer to a list: the rows under `key`, and links to the pages beside this one if it is a page.
pub fn answer<T>(app: &App, query: &Pairs, key: &str, page: &Page<T>, show: impl Fn(&T) -> Value) -> Value {
    answer_at(app, query, key, &key.replace('_', "-"), page, show)
}

/// The same, where the list's path is not its name with dashes.
pub fn answer_at<T>(
    app: &App,
    query: &Pairs,
    key: &str,
    path: &str,
    page: &Page<T>,
    show: impl Fn(&T) -> Value,
) -> Value {
    let whole: Vec<Value> = page.rows.iter().map(show).collect();
    let id = |row: Option<&Value>| row.and_then(|r| r["id"].as_str()).map(str::to_owned);
    let (first, last) = (id(whole.first()), id(whole.last()));
    let rows: Vec<Value> = whole.into_iter().map(|row| prune(query, row)).collect();
    let mut body = Map::new();
    body.insert(key.to_owned(), Value::Array(rows));
    let paged = query.first("limit").is_some_and(|limit| limit != "0") || page.more;
    if paged {
        let reverse = query.first("page_reverse").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let middle = query.first("marker").is_some();
        let mut links = Vec::new();
        if let Some(marker) = last.filter(|_| if reverse { middle } else { page.more }) {
            links.push(link(app, query, path, "next", &marker));
        }
        if let Some(marker) = first.filter(|_| if reverse { page.more } else { middle }) {
            links.push(link(app, query, path, "previous", &marker));
        }
        if !links.is_empty() {
            body.insert(format!("{key}_links"), Value::Array(links));
        }
    }
    Value::Object(body)
}

fn link(app: &App, query: &Pairs, path: &str, rel: &str, marker: &str) -> Value {
    let mut href = format!("{}/network/v2.0/{path}?", app.endpoint.url);
    for (key, value) in query.0.iter().filter(|(key, _)| key != "marker" && key != "page_reverse") {
        href.push_str(&format!("{}={}&", escaped(key), escaped(value)));
    }
    href.push_str(&format!("marker={marker}"));
    if rel == "previous" {
        href.push_str("&page_reverse=True");
    }
    serde_json::json!({ "rel": rel, "href": href })
}

/// Percent-encoding of all but the unreserved characters (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A thing with only those attributes that `fields` names; with all if it names none.
pub fn prune(query: &Pairs, thing: Value) -> Value {
    let fields: Vec<&str> = query.every("fields").filter(|f| !f.is_empty()).collect();
    match thing {
        Value::Object(mut map) if !fields.is_empty() => {
            map.retain(|key, _| fields.contains(&key.as_str()));
            Value::Object(map)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_carry_any_text_unharmed() {
        assert_eq!(escaped("router:external"), "router%3Aexternal");
        assert_eq!(escaped("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
    }
}
