//! Microversions: negotiated once per request, echoed in the answer, converted at the edge.

use crate::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

/// The oldest compute microversion served.
pub const COMPUTE_MIN: Microversion = Microversion(2, 1);
/// The newest compute microversion served: every step below it is honoured.
pub const COMPUTE_MAX: Microversion = Microversion(2, 96);

/// A version such as 2.96. An extractor: the one that this request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16, pub u16);

/// Which services have microversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioned {
    /// Compute.
    Compute,
    /// The service has none.
    No,
}

/// The service that a path belongs to.
pub fn service(path: &str) -> Versioned {
    if path.starts_with("/compute/") { Versioned::Compute } else { Versioned::No }
}

impl std::fmt::Display for Microversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Microversion {
    /// Whether this request speaks at least `2.minor` of the compute API.
    pub fn at_least(self, minor: u16) -> bool {
        self >= Microversion(2, minor)
    }

    /// The version that a request asks for; the oldest if it asks for none.
    ///
    /// # Errors
    /// 400 for text that is no version, 406 for one that is not served.
    pub fn negotiate(service: Versioned, headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        if service == Versioned::No {
            return Ok(None);
        }
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let asked = text("openstack-api-version")
            .and_then(|v| v.split(',').find_map(|part| part.trim().strip_prefix("compute ")))
            .or_else(|| text("x-openstack-nova-api-version"));
        let Some(asked) = asked.map(str::trim) else { return Ok(Some(COMPUTE_MIN)) };
        if asked == "latest" {
            return Ok(Some(COMPUTE_MAX));
        }
        let version = asked
            .split_once('.')
            .and_then(|(major, minor)| Some(Self(major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| {
                let shown: String = asked.chars().take(32).collect();
                ApiError::bad_request(format!(
                    "API Version String {shown} is of invalid format. Must be of format MajorNum.MinorNum."
                ))
            })?;
        if version < COMPUTE_MIN || version > COMPUTE_MAX {
            return Err(ApiError::new(
                StatusCode::NOT_ACCEPTABLE,
                format!(
                    "Version {version} is not supported by the API. Minimum is {COMPUTE_MIN} and maximum is {COMPUTE_MAX}."
                ),
            ));
        }
        Ok(Some(version))
    }
}

/// Tells the client which version was spoken.
pub fn answer(headers: &mut HeaderMap, path: &str, version: Option<Microversion>) {
    let Some(version) = version else { return };
    if !path.starts_with("/compute/") {
        return;
    }
    if let (Ok(new), Ok(old)) =
        (HeaderValue::from_str(&format!("compute {version}")), HeaderValue::from_str(&version.to_string()))
    {
        headers.insert("openstack-api-version", new);
        headers.insert("x-openstack-nova-api-version", old);
        headers.append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
        headers.append(header::VARY, HeaderValue::from_static("X-OpenStack-Nova-API-Version"));
    }
}

impl<S: Sync> FromRequestParts<S> for Microversion {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Microversion>().copied().unwrap_or(COMPUTE_MIN))
    }
}
