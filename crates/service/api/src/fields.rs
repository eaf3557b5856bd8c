//! Request bodies as the compute and volume APIs check them: every field has bounds, an unknown field is refused, and
//! what an older microversion does not know is unknown.

use crate::ApiError;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// What a refusal says of a value.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

/// A refusal of one field.
pub fn refused(field: &str, value: &Value, why: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field/attribute {field}. Value: {}. {why}", shown(value)))
}

/// An object whose fields are taken one by one; what is left at the end is refused.
pub struct Fields<'a> {
    what: &'a str,
    map: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The object under `key` of a body, which must be the body's only field but for `beside`.
    ///
    /// # Errors
    /// 400.
    pub fn of(body: &'a Value, key: &'a str, beside: &[&str]) -> Result<Self, ApiError> {
        let map = body.as_object().ok_or_else(|| refused("body", body, "It is not an object."))?;
        if let Some(other) = map.keys().find(|k| *k != key && !beside.contains(&k.as_str())) {
            return Err(ApiError::bad_request(format!(
                "Additional properties are not allowed ('{}' was unexpected)",
                other.chars().take(64).collect::<String>()
            )));
        }
        let inner = map
            .get(key)
            .ok_or_else(|| ApiError::bad_request(format!("Invalid input: '{key}' is a required property")))?;
        Self::object(inner, key)
    }

    /// An object.
    ///
    /// # Errors
    /// 400.
    pub fn object(value: &'a Value, what: &'a str) -> Result<Self, ApiError> {
        let map = value.as_object().ok_or_else(|| refused(what, value, "It is not an object."))?;
        Ok(Self { what, map, taken: Vec::new() })
    }

    /// A value as it is.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.taken.push(key);
        self.map.get(key)
    }

    /// A value that is not null.
    fn some(&mut self, key: &'static str) -> Option<&'a Value> {
        self.raw(key).filter(|v| !v.is_null())
    }

    /// Text of `min` to `max` characters; null counts as missing.
    ///
    /// # Errors
    /// 400.
    pub fn text(&mut self, key: &'static str, min: usize, max: usize) -> Result<Option<&'a str>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| refused(key, value, "It is not a string."))?;
        let length = text.chars().count();
        if length < min || length > max {
            return Err(refused(key, value, &format!("It must have {min} to {max} characters.")));
        }
        Ok(Some(text))
    }

    /// Text that must be there.
    ///
    /// # Errors
    /// 400.
    pub fn text_required(&mut self, key: &'static str, min: usize, max: usize) -> Result<&'a str, ApiError> {
        let what = self.what;
        self.text(key, min, max)?.ok_or_else(|| required(what, key))
    }

    /// Text that may be null to take a value away: `None` if the field is missing.
    ///
    /// # Errors
    /// 400.
    pub fn text_or_null(&mut self, key: &'static str, max: usize) -> Result<Option<Option<String>>, ApiError> {
        match self.map.get(key) {
            None => {
                self.taken.push(key);
                Ok(None)
            }
            Some(_) => Ok(Some(self.text(key, 0, max)?.map(str::to_owned))),
        }
    }

    /// A text parsed into a checked type.
    ///
    /// # Errors
    /// 400.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| refused(key, value, "It is not a string."))?;
        text.parse().map(Some).map_err(|e: T::Err| refused(key, value, &format!("{e}.")))
    }

    /// A whole number, also written as text.
    ///
    /// # Errors
    /// 400.
    pub fn integer(&mut self, key: &'static str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let number = match value {
            Value::Number(n) => n.as_i64(),
            Value::String(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let number = number.ok_or_else(|| refused(key, value, "It is not an integer."))?;
        if number < min || number > max {
            return Err(refused(key, value, &format!("It must be between {min} and {max}.")));
        }
        Ok(Some(number))
    }

    /// True or false, also written as text or number.
    ///
    /// # Errors
    /// 400.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let truth = match value {
            Value::Bool(b) => Some(*b),
            Value::String(text) => truth(text),
            Value::Number(n) => match n.as_i64() {
                Some(1) => Some(true),
                Some(0) => Some(false),
                Some(_) | None => None,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        truth.map(Some).ok_or_else(|| refused(key, value, "It is not a boolean."))
    }

    /// A list of at most `max` values.
    ///
    /// # Errors
    /// 400.
    pub fn list(&mut self, key: &'static str, max: usize) -> Result<Option<&'a [Value]>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| refused(key, value, "It is not an array."))?;
        if list.len() > max {
            return Err(refused(key, value, &format!("It holds more than {max} items.")));
        }
        Ok(Some(list))
    }

    /// A map of texts to texts.
    ///
    /// # Errors
    /// 400.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<std::collections::BTreeMap<String, String>>, ApiError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        texts(key, value).map(Some)
    }

    /// An address of one IP version that may be null or empty to take it away: `None` if the field is missing.
    ///
    /// # Errors
    /// 400.
    pub fn address(&mut self, key: &'static str, v6: bool) -> Result<Option<Option<IpAddr>>, ApiError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        if value.is_null() || value.as_str() == Some("") {
            return Ok(Some(None));
        }
        let address = value.as_str().and_then(|t| t.parse::<IpAddr>().ok()).filter(|a| a.is_ipv6() == v6);
        let why = if v6 { "It is not an IPv6 address." } else { "It is not an IPv4 address." };
        address.map(|a| Some(Some(a))).ok_or_else(|| refused(key, value, why))
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// 400.
    pub fn end(self) -> Result<(), ApiError> {
        match self.map.keys().find(|k| !self.taken.contains(&k.as_str())) {
            None => Ok(()),
            Some(other) => Err(ApiError::bad_request(format!(
                "Invalid input for field/attribute {}. Additional properties are not allowed ('{}' was unexpected)",
                self.what,
                other.chars().take(64).collect::<String>()
            ))),
        }
    }
}

/// A field is missing.
pub fn required(what: &str, key: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field/attribute {what}. '{key}' is a required property"))
}

/// A map of texts to texts, keys of 1 to 255 characters.
///
/// # Errors
/// 400.
pub fn texts(key: &str, value: &Value) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
    let map = value.as_object().ok_or_else(|| refused(key, value, "It is not an object."))?;
    map.iter()
        .map(|(k, v)| {
            let text = v.as_str().ok_or_else(|| refused(k, v, "It is not a string."))?;
            if k.is_empty() || k.chars().count() > 255 || text.chars().count() > 255 {
                return Err(refused(k, v, "A key has 1 to 255 characters and a value at most 255."));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | ' ');
            if !k.chars().all(allowed) {
                return Err(refused(key, value, "A key holds letters, digits, '-', '_', ':', '.' and spaces."));
            }
            Ok((k.clone(), text.to_owned()))
        })
        .collect()
}

/// The spellings of true and false that clients use.
pub fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "y" | "on" => Some(true),
        "false" | "0" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}
