//! The query of a list: filters and the page.

use crate::body::Pairs;
use crate::{ApiError, App};
use arcus_identity::LIST_MAX;
use arcus_store::{TextPlace, TextTest};
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::Value;
use std::fmt::Display;
use std::str::FromStr;

/// The query of a list. An extractor.
pub struct Listing {
    pairs: Pairs,
    raw: String,
    limit: u32,
}

impl<S: Sync + Send> FromRequestParts<S> for Listing {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Pairs::from_request_parts(parts, state).await?;
        let limit = match pairs.first("limit").map(str::parse::<u32>) {
            None => LIST_MAX,
            Some(Ok(limit)) if limit > 0 => limit.min(LIST_MAX),
            Some(Ok(_) | Err(_)) => return Err(ApiError::bad_request("The limit must be a whole number above 0.")),
        };
        Ok(Self { pairs, raw: parts.uri.query().unwrap_or_default().to_owned(), limit })
    }
}

impl Listing {
    /// The text of a filter.
    pub fn text(&self, key: &str) -> Option<String> {
        self.pairs.first(key).map(str::to_owned)
    }

    /// Every value of a filter.
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.pairs.every(key).map(str::to_owned).collect()
    }

    /// The values of a filter that are parted by commas.
    pub fn words(&self, key: &str) -> Vec<String> {
        let texts = self.pairs.every(key).flat_map(|text| text.split(','));
        texts.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// The conditions on a text: `name`, `name__contains` and its kin.
    pub fn tests(&self, key: &str) -> Vec<TextTest> {
        const HOW: [(&str, TextPlace); 4] = [
            ("", TextPlace::Whole),
            ("contains", TextPlace::Inside),
            ("startswith", TextPlace::Start),
            ("endswith", TextPlace::End),
        ];
        let test = |(name, text): &(String, String)| {
            let rest = name.strip_prefix(key)?;
            let how = if rest.is_empty() { "" } else { rest.strip_prefix("__").filter(|how| !how.is_empty())? };
            let folded = how.strip_prefix('i');
            let find = |how: &str| HOW.iter().find(|(known, _)| *known == how).map(|(_, place)| *place);
            let (place, any_case) = match (find(how), folded.and_then(find)) {
                (Some(place), _) => (place, false),
                (None, place) => (place?, true),
            };
            Some(TextTest { text: text.clone(), place, any_case })
        };
        self.pairs.0.iter().filter_map(test).collect()
    }

    /// The id of a filter; text that is no id matches nothing.
    pub fn id<T: FromStr + Default>(&self, key: &str) -> Option<T> {
        self.pairs.first(key).map(super::id_or_none_such)
    }

    /// A filter that is on if it is there, unless it says `0` or `false`.
    pub fn flag(&self, key: &str) -> bool {
        self.pairs.first(key).is_some_and(|v| !matches!(v, "0" | "false" | "False"))
    }

    /// A filter that chooses one of two kinds.
    pub fn either(&self, key: &str) -> Option<bool> {
        self.pairs.first(key).map(|_| self.flag(key))
    }

    /// The last object of the page before.
    pub fn marker<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        let invalid = |_| ApiError::bad_request("The marker is not an id.");
        self.pairs.first("marker").map(|text| text.parse().map_err(invalid)).transpose()
    }

    /// How many objects to ask for: one more than are shown, to learn whether there are more.
    pub fn ask(&self) -> u32 {
        self.limit + 1
    }

    /// The body of a list at `path` whose objects stand under `name`.
    pub fn render<T, I: Display>(
        &self,
        app: &App,
        path: &str,
        name: &str,
        mut items: Vec<T>,
        id: impl Fn(&T) -> I,
        body: impl Fn(&T) -> Value,
    ) -> Json<Value> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| {
            let others = self.raw.split('&').filter(|p| !p.is_empty() && !p.starts_with("marker="));
            others.map(str::to_owned).chain([format!("marker={}", id(last))]).collect::<Vec<_>>().join("&")
        });
        super::list(app, path, name, items.iter().map(body).collect(), next)
    }
}
