//! The spellings of paths that are understood before a route is looked for.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The compute API's oldest path is the present one without microversions, and each path may name the caller's project
/// first.
pub async fn modern(mut request: Request) -> Request {
    let Some(path) = request.uri().path_and_query().map(PathAndQuery::as_str) else { return request };
    let (rest, old) = match (path.strip_prefix("/compute/v2.1/"), path.strip_prefix("/compute/v2/")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return request,
    };
    let named = rest.split_once('/').filter(|(id, _)| id.parse::<arcus_types::ProjectId>().is_ok());
    let rest = named.map_or(rest, |(_, rest)| rest);
    let is_document = rest.is_empty() || rest.starts_with('?');
    if is_document || !(old || named.is_some()) {
        return request;
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = format!("/compute/v2.1/{rest}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        if old {
            request.headers_mut().remove("openstack-api-version");
            request.headers_mut().remove("x-openstack-nova-api-version");
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    async fn rewritten(path: &str) -> String {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        modern(request).await.uri().to_string()
    }

    #[tokio::test]
    async fn old_paths_and_paths_with_a_project_mean_the_same() {
        let project = "0123456789abcdef0123456789abcdef";
        assert_eq!(rewritten("/compute/v2/servers?limit=1").await, "/compute/v2.1/servers?limit=1");
        assert_eq!(rewritten(&format!("/compute/v2.1/{project}/servers/detail")).await, "/compute/v2.1/servers/detail");
        assert_eq!(rewritten("/compute/v2/").await, "/compute/v2/");
        assert_eq!(rewritten("/compute/v2.1/servers/1").await, "/compute/v2.1/servers/1");
        assert_eq!(rewritten("/network/v2.0/ports").await, "/network/v2.0/ports");
    }
}
