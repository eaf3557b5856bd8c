//! The route table: method, path, policy action and handler in one line each; and what happens around every handler.
//!
//! ```text
//! request -> request id -> microversion -> token to OpCtx -> anonymous? 401 -> handler -> error body, headers
//! ```

use crate::auth::{self, MaybeCtx};
use crate::microversion::{self, Microversion, Versioned};
use crate::{ApiError, App, compute, volume};
use arcus_types::policy::{Action, Denied};
use arcus_types::{OpCtx, RequestId};
use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use tower::Layer;
use tracing::Instrument;

/// One thing that the API serves.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path with `{placeholders}`, from the root of the endpoint.
    pub path: &'static str,
    /// The policy action that the engine checks; an anonymous caller is turned away before the body is read.
    pub action: Action,
    handler: MethodRouter<App>,
}

impl Route {
    /// A route.
    pub fn new<H, T>(method: Method, path: &'static str, action: Action, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self { method, path, action, handler: on(filter, handler) }
    }
}

macro_rules! verbs { ($($name:ident $method:ident),*) => { impl Route { $(
    #[doc = concat!("A route for `", stringify!($method), "`.")]
    pub fn $name<H, T>(path: &'static str, action: Action, handler: H) -> Self
    where H: Handler<T, App>, T: 'static { Self::new(Method::$method, path, action, handler) }
)* } }; }
verbs!(get GET, head HEAD, post POST, put PUT, patch PATCH, delete DELETE);

/// The whole API over a route table. A path of the volume API loses the project in it before it is routed.
pub fn router(app: App, routes: Vec<Route>) -> Router {
    let mut router = Router::new();
    for route in routes {
        let action = route.action;
        let guarded = route.handler.layer(middleware::from_fn(move |request, next| guard(action, request, next)));
        router = router.route(route.path, guarded);
    }
    let routed: Router = router
        .fallback(unrouted)
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for this resource.")
        })
        .layer(middleware::from_fn_with_state(app.clone(), around))
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .with_state(app);
    // Paths are rewritten before any route is looked for, hence the router around the router.
    let rewritten = middleware::map_request(volume::project_word).layer(routed);
    Router::new().fallback_service(middleware::map_request(compute::paths::modern).layer(rewritten))
}

/// The answer where no route leads: what an API had once and has no more is told apart from what it never had.
async fn unrouted(uri: Uri) -> ApiError {
    if compute::removed(uri.path()) {
        return ApiError::new(StatusCode::GONE, "This API is no longer available.");
    }
    ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

/// Turns a caller away whom the rule refuses whatever the target is, before a byte of the body is read: nobody from what
/// is not public, and all but nodes and administrators from what is theirs.
async fn guard(action: Action, request: Request, next: Next) -> Response {
    match request.extensions().get::<MaybeCtx>().map_or(Err(Denied::Anonymous), |ctx| ctx.may_ask(action)) {
        Ok(()) => next.run(request).await,
        Err(denied) => ApiError::from(denied).into_response(),
    }
}

/// What surrounds every request: ids, the caller, the microversion, the error's body, a line in the log.
async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let request_id = RequestId::random();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let started = std::time::Instant::now();
    let service = microversion::service(&path);
    let version = match Microversion::negotiate(service, request.headers()) {
        Ok(version) => version,
        Err(error) => return finish(error.into_response(), &path, request_id, None),
    };
    let ctx = auth::recognise(&app, &request, OpCtx::anonymous(request_id));
    if let Some(project) = request.extensions().get::<volume::PathProject>()
        && let Err(error) = project.admits(&ctx)
    {
        return finish(error.into_response(), &path, request_id, version);
    }
    request.extensions_mut().insert(ctx);
    request.extensions_mut().insert(request_id);
    if let Some(version) = version {
        request.extensions_mut().insert(version);
    }
    let span = tracing::info_span!("request", request.id = %request_id);
    let response = next.run(request).instrument(span).await;
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request.id = %request_id, %method, path, status, duration_ms, "answered");
    finish(response, &path, request_id, version)
}

/// Writes an error's body in the shape of its service, and the headers that every answer carries.
pub fn finish(mut response: Response, path: &str, request_id: RequestId, version: Option<Microversion>) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let (parts, _) = response.into_parts();
        response = match microversion::service(path) {
            Versioned::Placement => crate::placement::render(&error, request_id, version),
            Versioned::Compute | Versioned::Volume | Versioned::No => error.render(path),
        };
        for (name, value) in parts.headers {
            if let Some(name) = name {
                response.headers_mut().insert(name, value);
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&request_id.header()) {
        response.headers_mut().insert("x-openstack-request-id", value.clone());
        if path.starts_with("/compute/") {
            response.headers_mut().insert("x-compute-request-id", value);
        }
    }
    microversion::answer(response.headers_mut(), path, version);
    response
}
