//! Options of users, projects, domains and roles, and attributes of the client's own.

use crate::IdentityError;
use arcus_store::Extra;
use serde_json::Value;

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// True or false.
    Flag,
    /// Lists of names of methods.
    Rules,
}

/// The options of projects, domains and roles.
pub(crate) const PLACE_OPTIONS: &[(&str, Kind)] = &[("immutable", Kind::Flag)];
/// The options of users.
pub(crate) const USER_OPTIONS: &[(&str, Kind)] = &[
    ("ignore_change_password_upon_first_use", Kind::Flag),
    ("ignore_password_expiry", Kind::Flag),
    ("ignore_lockout_failure_attempts", Kind::Flag),
    ("lock_password", Kind::Flag),
    ("ignore_user_inactivity", Kind::Flag),
    ("multi_factor_auth_enabled", Kind::Flag),
    ("multi_factor_auth_rules", Kind::Rules),
];
/// The most text that attributes of the client's own hold, in bytes.
const EXTRA_BYTES_MAX: usize = 16_384;

/// Refuses attributes that are too much.
pub(crate) fn extra_check(extra: &Extra) -> Result<(), IdentityError> {
    let length = serde_json::to_string(extra).map_or(usize::MAX, |text| text.len());
    if length > EXTRA_BYTES_MAX {
        let reason = format!("Attributes of your own hold at most {EXTRA_BYTES_MAX} bytes together.");
        return Err(IdentityError::Invalid(reason));
    }
    Ok(())
}

/// Attributes with those that are given now in place of those before.
pub(crate) fn merged(mut before: Extra, change: Option<Extra>) -> Result<Option<Extra>, IdentityError> {
    let Some(change) = change.filter(|c| !c.is_empty()) else { return Ok(None) };
    before.extend(change);
    extra_check(&before)?;
    Ok(Some(before))
}

/// Refuses options that are not known, or hold what they cannot.
pub(crate) fn options_check(options: &Extra, known: &[(&str, Kind)]) -> Result<(), IdentityError> {
    let invalid = |text: String| Err(IdentityError::Invalid(text));
    for (name, value) in options {
        let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            return invalid(format!("The option {name} is not known; known are {}.", names.join(", ")));
        };
        let fits = match kind {
            Kind::Flag => value.is_boolean() || value.is_null(),
            Kind::Rules => value.is_null() || rules_fit(value),
        };
        if !fits {
            return invalid(format!("The option {name} does not hold what it may."));
        }
    }
    Ok(())
}

fn rules_fit(value: &Value) -> bool {
    let names = |rule: &Value| {
        rule.as_array().is_some_and(|names| !names.is_empty() && names.len() <= 8 && names.iter().all(Value::is_string))
    };
    value.as_array().is_some_and(|rules| rules.len() <= 16 && rules.iter().all(names))
}

/// Options with those that are given now in place of those before; `null` takes one away. What is immutable is not
/// changed by anything that leaves it immutable.
pub(crate) fn options_merged(
    before: Extra,
    change: Option<Extra>,
    known: &[(&str, Kind)],
) -> Result<Option<Extra>, IdentityError> {
    let change = change.unwrap_or_default();
    options_check(&change, known)?;
    let frees = change.get("immutable").is_some_and(|value| *value != Value::Bool(true));
    if !frees {
        immutable_check(&before)?;
    }
    if change.is_empty() {
        return Ok(None);
    }
    let mut after = before;
    for (name, value) in change {
        if value.is_null() {
            after.remove(&name);
        } else {
            after.insert(name, value);
        }
    }
    Ok(Some(after))
}

/// Refuses to change or delete what is immutable.
pub(crate) fn immutable_check(options: &Extra) -> Result<(), IdentityError> {
    if options.get("immutable") == Some(&Value::Bool(true)) {
        let reason = "This is immutable: set its option immutable to false first.";
        return Err(IdentityError::Forbidden(reason.to_owned()));
    }
    Ok(())
}
