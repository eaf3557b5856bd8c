//! From a token to the context of an operation.

use crate::{ApiError, App};
use arcus_types::policy::{Action, Denied, Rule, Target, authorize};
use arcus_types::{Actor, NodeId, OpCtx, ProjectId};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;

/// The node that a connection's client certificate names; put there by the listener.
#[derive(Debug, Clone, Copy)]
pub struct PeerNode(pub NodeId);

/// The caller, recognised or not; or why its token was refused.
#[derive(Debug, Clone)]
pub struct MaybeCtx(Result<OpCtx, ApiError>);

impl MaybeCtx {
    /// Whether the caller may ask for this at all. Rules that look at the target are left to the engine.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_ask(&self, action: Action) -> Result<(), Denied> {
        let ctx = self.0.as_ref().ok().filter(|ctx| ctx.actor != Actor::Anonymous);
        match (action.rule, ctx) {
            (Rule::Public, _) => Ok(()),
            (_, None) => Err(Denied::Anonymous),
            (Rule::Node | Rule::Admin, Some(ctx)) => authorize(ctx, action, &Target::default()),
            (
                Rule::Authenticated
                | Rule::ProjectReader
                | Rule::ProjectMember
                | Rule::Manager
                | Rule::SameUser
                | Rule::DomainReader,
                Some(_),
            ) => Ok(()),
        }
    }

    /// Whether the caller has not been recognised, or acts in this project.
    pub fn acts_in(&self, project: ProjectId) -> bool {
        self.0
            .as_ref()
            .ok()
            .filter(|ctx| ctx.actor != Actor::Anonymous)
            .is_none_or(|ctx| ctx.project_id() == Some(project))
    }
}

/// The context of the operation. An extractor: a handler's first argument.
#[derive(Debug, Clone, Copy)]
pub struct Ctx(pub OpCtx);

/// Finds out who calls: a node by its certificate, anybody else by `X-Auth-Token`.
pub fn recognise(app: &App, request: &Request, anonymous: OpCtx) -> MaybeCtx {
    if let Some(PeerNode(node_id)) = request.extensions().get::<PeerNode>()
        && request.uri().path().starts_with("/agent/")
    {
        return MaybeCtx(Ok(OpCtx { actor: Actor::Node { node_id: *node_id }, ..anonymous }));
    }
    let Some(token) = request.headers().get("x-auth-token").and_then(|v| v.to_str().ok()) else {
        return MaybeCtx(Ok(anonymous));
    };
    MaybeCtx(match app.identity.verify(token) {
        // A token with access rules is good for what they name only.
        Ok(token) if !token.allows(request.method().as_str(), request.uri().path()) => Err(ApiError::unauthorized()),
        Ok(token) => Ok(OpCtx { request_id: anonymous.request_id, ..token.ctx() }),
        Err(_) => Err(ApiError::unauthorized()),
    })
}

impl<S: Sync> FromRequestParts<S> for Ctx {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<MaybeCtx>() {
            Some(MaybeCtx(Ok(ctx))) => Ok(Ctx(*ctx)),
            Some(MaybeCtx(Err(error))) => Err(error.clone()),
            None => Err(ApiError::unauthorized()),
        }
    }
}
