//! Request bodies and query strings, bounded and refused with words that help; and the bodies of long lists.

use crate::ApiError;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest JSON body that is read, in bytes: room for user data and file injection, no more.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// A JSON body. An extractor: a handler's last argument.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        let mut de = serde_json::Deserializer::from_slice(&bytes);
        let value = T::deserialize(&mut de).and_then(|v| de.end().map(|()| v));
        value.map(Json).map_err(|e| ApiError::bad_request(format!("The request body is not valid: {e}")))
    }
}

async fn read(request: Request) -> Result<axum::body::Bytes, ApiError> {
    match Limited::new(request.into_body(), JSON_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request body is larger than {JSON_BYTES_MAX} bytes."),
        )),
        Err(_) => Err(ApiError::bad_request("The request body ended too early.")),
    }
}

/// The answer `{"name": [item, …]}` with `more` beside the list. Each item is written as it comes and then dropped: a tree of
/// a thousand of them costs about as much again to build and to tear down as their text.
pub fn list(name: &str, items: impl Iterator<Item = Value>, more: Option<(&str, Value)>) -> Response {
    let mut text = format!("{{\"{name}\":[").into_bytes();
    for (at, item) in items.enumerate() {
        if at > 0 {
            text.push(b',');
        }
        written(&mut text, &item);
    }
    text.push(b']');
    if let Some((name, value)) = more {
        text.extend(format!(",\"{name}\":").bytes());
        written(&mut text, &value);
    }
    text.push(b'}');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn written(text: &mut Vec<u8>, value: &Value) {
    // Neither writing to memory nor a value whose keys are texts can fail.
    let _ = serde_json::to_writer(text, value);
}

/// The query string's pairs in order: OpenStack lists repeat keys (`fields=id&fields=name`). An extractor.
#[derive(Debug, Clone, Default)]
pub struct Pairs(pub Vec<(String, String)>);

impl Pairs {
    /// The first value of a key.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Every value of a key.
    pub fn every<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl<S: Sync + Send> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::bad_request(format!("The query string is not valid: {e}")))?;
        Ok(Self(pairs))
    }
}

/// One id from the path; text that is no id names nothing, so it answers 404. An extractor.
#[derive(Debug, Clone)]
pub struct Id<T>(pub T);

impl<T: std::str::FromStr, S: Sync + Send> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found."))?;
        let shown: String = text.chars().take(64).collect();
        text.parse().map(Id).map_err(|_| ApiError::not_found("Resource", shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_list_is_the_same_whether_it_is_written_at_once_or_piece_by_piece() {
        let items = [json!({ "name": "a \"b\"" }), json!(null), json!([1, 2])];
        let text = async |answer: Response| {
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&bytes).unwrap()
        };
        let links = json!([{ "rel": "next" }]);
        let all = list("items", items.iter().cloned(), Some(("items_links", links.clone())));
        assert_eq!(text(all).await, json!({ "items": items, "items_links": links }));
        assert_eq!(text(list("items", [].into_iter(), None)).await, json!({ "items": [] }));
    }
}
