//! Query strings: `resources=VCPU:2,DISK_GB:10`, `required=TRAIT,!OTHER,in:A,B`, `member_of=in:uuid,uuid`.

use super::errors::{bad_value, duplicate_key, missing_value};
use crate::ApiError;
use crate::body::Pairs;
use crate::microversion::Microversion;
use arcus_placement::candidates::Group;
use arcus_types::{ProviderAggregateId, ProviderId};

/// Quantities are at most this, as they are in OpenStack.
pub(super) const AMOUNT_MAX: u64 = 2_147_483_647;

fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Refuses keys that are not `known`, and those that come twice without being in `repeated`.
pub(super) fn keys_checked(query: &Pairs, known: &[&str], repeated: &[&str]) -> Result<(), ApiError> {
    for (at, (key, _)) in query.0.iter().enumerate() {
        if !known.contains(&key.as_str()) {
            return Err(ApiError::bad_request(format!(
                "Invalid query string parameters: Additional properties are not allowed ('{}' was unexpected)",
                cut(key)
            )));
        }
        if !repeated.contains(&key.as_str()) && query.0.iter().skip(at + 1).any(|(other, _)| other == key) {
            return Err(duplicate_key(key));
        }
    }
    Ok(())
}

/// `VCPU:2,DISK_GB:10`
pub(super) fn resources(text: &str) -> Result<Vec<(String, u64)>, ApiError> {
    let wrong = || {
        bad_value(format!(
            "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {}.",
            cut(text)
        ))
    };
    if text.is_empty() {
        return Err(missing_value("Badly formed resources parameter. Got: empty string."));
    }
    let mut found: Vec<(String, u64)> = Vec::new();
    for part in text.split(',') {
        let (class, amount) = part.split_once(':').ok_or_else(wrong)?;
        let amount: u64 = amount.parse().map_err(|_| {
            bad_value(format!(
                "Requested resource {} expected positive integer amount. Got: {}.",
                cut(class),
                cut(amount)
            ))
        })?;
        if amount == 0 || amount > AMOUNT_MAX {
            let message = format!("Requested resource {} requires amount >= 1. Got: {amount}.", cut(class));
            return Err(bad_value(message));
        }
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if class.is_empty() || !class.chars().all(plain) {
            return Err(wrong());
        }
        match found.iter_mut().find(|(known, _)| known == class) {
            Some((_, sum)) => *sum = amount,
            None => found.push((class.to_owned(), amount)),
        }
    }
    Ok(found)
}

/// `A,!B`, and from 1.39 on `in:A,B`, into what a group requires and forbids.
pub(super) fn required(group: &mut Group, text: &str, version: Microversion) -> Result<(), ApiError> {
    let shape = || {
        let forms = if version.at_least(22) { "HW_CPU_X86_VMX,!CUSTOM_MAGIC" } else { "HW_CPU_X86_VMX,CUSTOM_MAGIC" };
        bad_value(format!(
            "Invalid query string parameters: Expected 'required' parameter value of the form: {forms}. Got: {}",
            cut(text)
        ))
    };
    let word = |text: &str| {
        let fits = !text.is_empty()
            && text.len() <= 255
            && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if fits { Ok(text.to_owned()) } else { Err(shape()) }
    };
    if let (true, Some(any)) = (version.at_least(39), text.strip_prefix("in:")) {
        group.required.push(any.split(',').map(word).collect::<Result<_, _>>()?);
        return Ok(());
    }
    for part in text.split(',') {
        match part.strip_prefix('!') {
            Some(name) if version.at_least(22) => group.forbidden.push(word(name)?),
            Some(_) => return Err(shape()),
            None => group.required.push(vec![word(part)?]),
        }
    }
    let both = group.required.iter().find(|any| any.iter().all(|name| group.forbidden.contains(name)));
    match both.and_then(|any| any.first()) {
        Some(name) => {
            let message = format!("The following traits are both required and forbidden: {name}");
            Err(bad_value(message))
        }
        None => Ok(()),
    }
}

/// `uuid`, `in:uuid,uuid`, and from 1.32 on `!uuid` and `!in:uuid,uuid`.
pub(super) fn member_of(group: &mut Group, text: &str, version: Microversion) -> Result<(), ApiError> {
    let (forbidden, rest) = match text.strip_prefix('!') {
        Some(rest) if version.at_least(32) => (true, rest),
        Some(_) => {
            return Err(bad_value("Forbidden member_of parameters are not supported in the specified microversion"));
        }
        None => (false, text),
    };
    let list: Vec<&str> = rest.strip_prefix("in:").map_or_else(|| vec![rest], |ids| ids.split(',').collect());
    let ids: Vec<ProviderAggregateId> =
        list.into_iter().map(|id| id.parse()).collect::<Result<_, _>>().map_err(|_| {
            bad_value(format!(
                "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {}",
                cut(text)
            ))
        })?;
    if forbidden {
        group.not_member_of.extend(ids);
    } else {
        group.member_of.push(ids);
    }
    Ok(())
}

pub(super) fn provider(key: &str, text: &str) -> Result<ProviderId, ApiError> {
    text.parse().map_err(|_| {
        bad_value(format!(
            "Invalid query string parameters: Expected '{key}' parameter to be a UUID. Got: {}",
            cut(text)
        ))
    })
}
