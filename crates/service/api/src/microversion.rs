//! Microversions: negotiated once per request, echoed in the answer, converted at the edge.

use crate::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

/// The oldest compute microversion served.
pub const COMPUTE_MIN: Microversion = Microversion(2, 1);
/// The newest compute microversion served: every step below it is honoured.
pub const COMPUTE_MAX: Microversion = Microversion(2, 96);

/// The oldest volume microversion served.
pub const VOLUME_MIN: Microversion = Microversion(3, 0);
/// The newest volume microversion served: every step below it is honoured.
pub const VOLUME_MAX: Microversion = Microversion(3, 70);

/// The oldest placement microversion served.
pub const PLACEMENT_MIN: Microversion = Microversion(1, 0);
/// The newest placement microversion served: every step below it is honoured.
pub const PLACEMENT_MAX: Microversion = Microversion(1, 39);

/// A version such as 2.96. An extractor: the one that this request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16, pub u16);

/// Which services have microversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioned {
    /// Compute.
    Compute,
    /// Block storage.
    Volume,
    /// Placement.
    Placement,
    /// The service has none.
    No,
}

impl Versioned {
    /// The names that a client may call the service by in the header; the answer uses the first one.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Compute => &["compute"],
            Self::Volume => &["volume", "block-storage", "volumev3"],
            Self::Placement => &["placement"],
            Self::No => &[],
        }
    }

    /// The header that the service had for itself before there was one for all.
    const fn header_of_old(self) -> Option<&'static str> {
        match self {
            Self::Compute => Some("x-openstack-nova-api-version"),
            Self::Volume | Self::Placement | Self::No => None,
        }
    }

    /// The oldest and the newest version served.
    const fn range(self) -> Option<(Microversion, Microversion)> {
        match self {
            Self::Compute => Some((COMPUTE_MIN, COMPUTE_MAX)),
            Self::Volume => Some((VOLUME_MIN, VOLUME_MAX)),
            Self::Placement => Some((PLACEMENT_MIN, PLACEMENT_MAX)),
            Self::No => None,
        }
    }
}

/// The service that a path belongs to.
pub fn service(path: &str) -> Versioned {
    if path.starts_with("/compute/") {
        Versioned::Compute
    } else if path.starts_with("/volume/v3/") {
        Versioned::Volume
    } else if path == "/placement" || path.starts_with("/placement/") {
        Versioned::Placement
    } else {
        Versioned::No
    }
}

impl std::fmt::Display for Microversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Microversion {
    /// Whether this request speaks at least this minor version of its service's API: a service has one major version.
    pub fn at_least(self, minor: u16) -> bool {
        self.1 >= minor
    }

    /// The version that a request asks for; the oldest if it asks for none.
    ///
    /// # Errors
    /// 400 for text that is no version, 406 for one that is not served.
    pub fn negotiate(service: Versioned, headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some((min, max)) = service.range() else { return Ok(None) };
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let named = |part: &'_ str| -> Option<String> {
            let (name, version) = part.trim().split_once(' ')?;
            service.names().contains(&name).then(|| version.trim().to_owned())
        };
        let asked = text("openstack-api-version")
            .and_then(|v| v.split(',').find_map(named))
            .or_else(|| service.header_of_old().and_then(text).map(|v| v.trim().to_owned()));
        let Some(asked) = asked else { return Ok(Some(min)) };
        if asked == "latest" {
            return Ok(Some(max));
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
        if version < min || version > max {
            return Err(ApiError::new(
                StatusCode::NOT_ACCEPTABLE,
                format!("Version {version} is not supported by the API. Minimum is {min} and maximum is {max}."),
            ));
        }
        Ok(Some(version))
    }
}

/// Tells the client which version was spoken.
pub fn answer(headers: &mut HeaderMap, path: &str, version: Option<Microversion>) {
    let Some(version) = version else { return };
    let service = service(path);
    let Some(name) = service.names().first() else { return };
    if let Ok(value) = HeaderValue::from_str(&format!("{name} {version}")) {
        headers.insert("openstack-api-version", value);
        headers.append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    }
    if let (Some(old), Ok(value)) = (service.header_of_old(), HeaderValue::from_str(&version.to_string())) {
        headers.insert(old, value);
        headers.append(header::VARY, HeaderValue::from_static(old));
    }
}

impl<S: Sync> FromRequestParts<S> for Microversion {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Microversion>().copied().unwrap_or(COMPUTE_MIN))
    }
}
