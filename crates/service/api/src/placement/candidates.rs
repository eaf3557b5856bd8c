//! Who could give what a consumer asks for. Written straight from the inventory in memory: an answer may name a thousand
//! providers.

use super::errors::{bad_value, duplicate_key};
use super::query::{self, member_of, required, resources};
use super::{Answer, shown, since};
use crate::auth::Ctx;
use crate::body::Pairs;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::fleet::Member;
use arcus_engine::providers::{CandidateWish, Candidates};
use arcus_placement::candidates::{Candidate, Group};
use axum::extract::State;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;
use std::collections::BTreeMap;

/// What may be said of a group: the key before its name.
const OF_GROUPS: [&str; 4] = ["resources", "required", "member_of", "in_tree"];

fn suffix_fits(suffix: &str, version: Microversion) -> bool {
    if suffix.is_empty() {
        return true;
    }
    if version.at_least(33) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        return suffix.len() <= 64 && suffix.chars().all(fits);
    }
    version.at_least(25) && suffix.len() <= 8 && !suffix.starts_with('0') && suffix.chars().all(|c| c.is_ascii_digit())
}

/// `GET /allocation_candidates`, from 1.10 on
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 10)?;
    let asked = parse(&query, version)?;
    let found = app.engine.candidate_list(&ctx, &asked).await?;
    shown(version, None, &Shown { found: &found, asked: &asked, version })
}

fn parse(query: &Pairs, version: Microversion) -> Result<CandidateWish, ApiError> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut asked = CandidateWish { whole_trees: version.at_least(29), ..CandidateWish::default() };
    let mut policy = None;
    for (at, (key, text)) in query.0.iter().enumerate() {
        let again = query.0.iter().take(at).any(|(other, _)| other == key);
        let repeats = key.starts_with("member_of") && version.at_least(24)
            || key.starts_with("required") && version.at_least(39)
            || key == "same_subtree";
        if again && !repeats {
            return Err(duplicate_key(key));
        }
        match key.as_str() {
            "limit" if version.at_least(16) => {
                let limit = text.parse().ok().filter(|n| *n > 0);
                asked.limit =
                    Some(limit.ok_or_else(|| {
                        bad_value("Invalid query string parameters: limit must be a positive integer.")
                    })?);
            }
            "group_policy" if version.at_least(25) => match text.as_str() {
                "none" => policy = Some(false),
                "isolate" => policy = Some(true),
                _ => return Err(bad_value("Invalid query string parameters: group_policy is one of none, isolate.")),
            },
            "root_required" if version.at_least(35) => {
                let mut root = Group::default();
                required(&mut root, text, Microversion(1, 22))?;
                asked.wish.root_required = root.required.into_iter().flatten().collect();
                asked.wish.root_forbidden = root.forbidden;
            }
            "same_subtree" if version.at_least(36) => {
                asked.wish.same_subtree.push(text.split(',').map(str::to_owned).collect());
            }
            _ => of_group(&mut groups, key, text, version)?,
        }
    }
    let resourceless = version.at_least(36);
    for (suffix, group) in &groups {
        let named = asked.wish.same_subtree.iter().any(|list| list.contains(suffix));
        if group.resources.is_empty() && !(resourceless && (named || suffix.is_empty())) {
            return Err(bad_value(format!(
                "All traits and aggregates must be associated with resources: the group '{suffix}' has none."
            )));
        }
    }
    if groups.values().all(|group| group.resources.is_empty()) {
        return Err(bad_value("There must be at least one resources or resources[$S] parameter."));
    }
    let unknown = asked.wish.same_subtree.iter().flatten().find(|suffix| !groups.contains_key(*suffix));
    if let Some(suffix) = unknown {
        let suffix: String = suffix.chars().take(64).collect();
        return Err(bad_value(format!("Real suffixes should be specified in same_subtree: {suffix}")));
    }
    if policy.is_none() && groups.keys().filter(|suffix| !suffix.is_empty()).count() > 1 {
        return Err(ApiError::bad_request(
            "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
        ));
    }
    asked.wish.isolate = policy.unwrap_or(false);
    asked.wish.groups = groups.into_values().collect();
    Ok(asked)
}

fn of_group(
    groups: &mut BTreeMap<String, Group>,
    key: &str,
    text: &str,
    version: Microversion,
) -> Result<(), ApiError> {
    let unexpected = || {
        let key: String = key.chars().take(64).collect();
        ApiError::bad_request(format!(
            "Invalid query string parameters: Additional properties are not allowed ('{key}' was unexpected)"
        ))
    };
    let (what, suffix) = OF_GROUPS
        .into_iter()
        .find_map(|what| Some((what, key.strip_prefix(what)?)))
        .filter(|(_, suffix)| suffix_fits(suffix, version))
        .ok_or_else(unexpected)?;
    let from = match what {
        "resources" => 10,
        "required" => 17,
        "member_of" => 21,
        _ => 31,
    };
    if !version.at_least(from) {
        return Err(unexpected());
    }
    let group = groups.entry(suffix.to_owned()).or_default();
    suffix.clone_into(&mut group.suffix);
    match what {
        "resources" => group.resources = resources(text)?,
        "required" => required(group, text, version)?,
        "member_of" => member_of(group, text, version)?,
        _ => group.in_tree = Some(query::provider(key, text)?),
    }
    Ok(())
}

/// The answer.
struct Shown<'a> {
    found: &'a Candidates,
    asked: &'a CandidateWish,
    version: Microversion,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(2))?;
        let requests: Vec<Request<'_>> =
            self.found.list.iter().map(|candidate| Request { candidate, version: self.version }).collect();
        map.serialize_entry("allocation_requests", &requests)?;
        map.serialize_entry("provider_summaries", &Summaries(self))?;
        map.end()
    }
}

struct Request<'a> {
    candidate: &'a Candidate,
    version: Microversion,
}

#[derive(Serialize)]
struct Resources<'a> {
    resources: &'a BTreeMap<String, u64>,
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        let claims = self.candidate.claims.iter();
        if self.version.at_least(12) {
            let by: BTreeMap<_, _> = claims.map(|(id, resources)| (id, Resources { resources })).collect();
            map.serialize_entry("allocations", &by)?;
        } else {
            let list: Vec<_> = claims
                .map(|(id, resources)| json!({ "resource_provider": { "uuid": id }, "resources": resources }))
                .collect();
            map.serialize_entry("allocations", &list)?;
        }
        if self.version.at_least(34) {
            let by: BTreeMap<_, _> = self.candidate.mappings.iter().map(|(suffix, ids)| (suffix, ids)).collect();
            map.serialize_entry("mappings", &by)?;
        }
        map.end()
    }
}

struct Summaries<'a>(&'a Shown<'a>);

impl Serialize for Summaries<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let providers = &self.0.found.providers;
        let mut map = s.serialize_map(Some(providers.len()))?;
        for member in providers {
            map.serialize_entry(&member.view.id, &Summary { member, of: self.0 })?;
        }
        map.end()
    }
}

struct Summary<'a> {
    member: &'a Member,
    of: &'a Shown<'a>,
}

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let (view, version) = (&self.member.view, self.of.version);
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("resources", &Stocks(self))?;
        if version.at_least(17) {
            map.serialize_entry("traits", &view.traits)?;
        }
        if version.at_least(29) {
            map.serialize_entry("parent_provider_uuid", &view.parent_id)?;
            map.serialize_entry("root_provider_uuid", &view.root_id)?;
        }
        map.end()
    }
}

struct Stocks<'a>(&'a Summary<'a>);

#[derive(Serialize)]
struct Figures {
    capacity: u64,
    used: u64,
}

impl Serialize for Stocks<'_> {
    /// Until 1.26 only what was asked for is told.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let of = self.0.of;
        let mut map = s.serialize_map(None)?;
        for stock in &self.0.member.view.stocks {
            let asked =
                || of.asked.wish.groups.iter().flat_map(|g| &g.resources).any(|(class, _)| *class == stock.class);
            if of.version.at_least(27) || asked() {
                map.serialize_entry(&stock.class, &Figures { capacity: stock.cap, used: stock.used })?;
            }
        }
        map.end()
    }
}
