//! Filters, order and pages as all lists of the volume API are asked for them.

use crate::ApiError;
use crate::body::Pairs;
use crate::fields::truth;
use crate::query::PAGE_MAX;

/// `sort=name:asc,size`, or the older `sort_key` and `sort_dir`; downwards unless a direction is given.
///
/// # Errors
/// 400 for an unknown key or direction.
pub fn sort<T>(query: &Pairs, by: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, bool)>, ApiError> {
    let refused = |what: &str| {
        let what: String = what.chars().take(64).collect();
        ApiError::bad_request(format!("Invalid input received: Invalid sort key or direction: {what}."))
    };
    let down = |text: &str| match text.trim() {
        "" | "desc" => Ok(true),
        "asc" => Ok(false),
        other => Err(refused(other)),
    };
    let mut out = Vec::new();
    if let Some(text) = query.first("sort") {
        for item in text.split(',').filter(|i| !i.trim().is_empty()) {
            let (key, direction) = item.split_once(':').unwrap_or((item, "desc"));
            out.push((by(key.trim()).ok_or_else(|| refused(key))?, down(direction)?));
        }
        return Ok(out);
    }
    let direction = down(query.first("sort_dir").unwrap_or("desc"))?;
    match query.first("sort_key") {
        Some(key) => out.push((by(key).ok_or_else(|| refused(key))?, direction)),
        None if !direction => out.extend(by("created_at").map(|key| (key, false))),
        None => {}
    }
    Ok(out)
}

/// A natural number.
fn number(query: &Pairs, key: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok());
    number.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(32).collect();
        ApiError::bad_request(format!(
            "Invalid input received: {key} must be an integer of 0 or more. The given value is '{text}'."
        ))
    })
}

/// The page size that a query asks for.
///
/// # Errors
/// 400 for what is no natural number.
pub fn limit(query: &Pairs) -> Result<u64, ApiError> {
    Ok(number(query, "limit")?.unwrap_or(PAGE_MAX).min(PAGE_MAX))
}

/// How many rows a page skips.
///
/// # Errors
/// 400 for what is no natural number.
pub fn offset(query: &Pairs) -> Result<u64, ApiError> {
    Ok(number(query, "offset")?.unwrap_or(0))
}

/// True or false, as clients write it.
///
/// # Errors
/// 400 for any other word.
pub fn flag(query: &Pairs, key: &str) -> Result<Option<bool>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(None) };
    truth(text).map(Some).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("{key}={text} is not a boolean"))
    })
}

/// A dictionary as clients write it: `{'key': 'value'}`, with quotes of either kind.
///
/// # Errors
/// 400 for what is none.
pub fn pairs(query: &Pairs, key: &str) -> Result<Vec<(String, String)>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(Vec::new()) };
    dictionary(text).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!(
            "Invalid input for query parameters {key}. Value: {text}. It is not a dictionary."
        ))
    })
}

fn dictionary(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        let (value, after) = quoted(after.trim_start().strip_prefix(':')?.trim_start())?;
        out.push((key, value));
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(',')?.trim_start(),
        };
    }
    Some(out)
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('u').unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + c.len_utf8()..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_as_clients_write_them() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(dictionary("{'Type': 'work'}"), Some(vec![pair("Type", "work")]));
        assert_eq!(dictionary(r#"{"a": "it's", 'b':"x,y:z"}"#), Some(vec![pair("a", "it's"), pair("b", "x,y:z")]));
        assert_eq!(dictionary(r"{'a': 'it\'s'}"), Some(vec![pair("a", "it's")]));
        assert_eq!(dictionary("{}"), Some(vec![]));
        for bad in ["", "a", "{a: b}", "{'a'}", "{'a': 'b'", "{'a': 'b' 'c': 'd'}", "{'a': 'b}"] {
            assert_eq!(dictionary(bad), None, "{bad}");
        }
    }
}
