//! Screens in a browser: one page and the library that it runs, noVNC. What they show comes by the WebSocket of
//! [`crate::agent`], which a ticket opens once.

use crate::Route;
use arcus_types::policy::arcus;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("../assets/vnc.html");
const LIBRARY: &str = include_str!("../assets/novnc.js");

/// What the page may do: run its own scripts and reach this endpoint, in no other site's frame.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

/// The routes of the page.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/console/vnc.html", arcus::CONSOLE_OPEN, page),
        Route::get("/console/novnc.js", arcus::CONSOLE_OPEN, library),
    ]
}

/// The address of the page for a WebSocket's path, as clients of OpenStack take it apart: they put the first slash back.
pub fn page_url(endpoint: &str, socket_path: &str) -> String {
    let path = socket_path
        .trim_start_matches('/')
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('?', "%3F")
        .replace('=', "%3D");
    format!("{endpoint}/console/vnc.html?path={}", path.replace('&', "%26"))
}

async fn page() -> Response {
    file("text/html; charset=utf-8", "no-store", PAGE)
}

async fn library() -> Response {
    file("text/javascript; charset=utf-8", "public, max-age=86400", LIBRARY)
}

fn file(kind: &'static str, cache: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = text.into_response();
    for (name, value) in headers {
        let (name, value): (HeaderName, _) = (name, HeaderValue::from_static(value));
        response.headers_mut().insert(name, value);
    }
    response
}
