//! Tokens with which machines join the cloud as nodes.

use crate::auth::Ctx;
use crate::body::Json;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_types::Timestamp;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

/// One machine and one hour, unless said otherwise.
const USES: u64 = 1;
const LIFETIME_S: i64 = 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    join_token: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// How many machines may join.
    uses: Option<u64>,
    /// How long it is good, in seconds.
    lifetime_s: Option<i64>,
}

#[derive(Serialize)]
pub struct Answer {
    join_token: View,
}

#[derive(Serialize)]
struct View {
    /// The secret, a point, and the fingerprint of the certificate authority that the machine must find.
    token: String,
    uses: u64,
    expires_at: String,
}

pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<Body>,
) -> Result<(StatusCode, axum::Json<Answer>), ApiError> {
    let (uses, lifetime_s) = (body.join_token.uses.unwrap_or(USES), body.join_token.lifetime_s.unwrap_or(LIFETIME_S));
    let secret = app.engine.join_token_create(&ctx, uses, lifetime_s).await?;
    let token = format!("{secret}.{}", app.engine.authority().map_err(EngineError::from)?.fingerprint());
    let expires_at = Timestamp::now().plus_seconds(lifetime_s).to_string();
    Ok((StatusCode::CREATED, axum::Json(Answer { join_token: View { token, uses, expires_at } })))
}
