//! Logging in, tokens, and where a token's user may go.

use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::identity::{access_rules, catalog, domains, id_or_none_such as id, projects};
use crate::{ApiError, App};
use arcus_identity::{ApplicationCredentialRef, DomainRef, Place, ProjectRef, Shown, TokenView, UserRef, Wanted};
use arcus_types::{DomainId, Name, Timestamp};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

#[derive(Deserialize)]
pub struct TokenCreateRequest {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: IdentityPart,
    scope: Option<ScopePart>,
}

#[derive(Deserialize)]
struct IdentityPart {
    methods: Vec<String>,
    password: Option<PasswordPart>,
    token: Option<TokenPart>,
    application_credential: Option<ApplicationCredentialPart>,
}

#[derive(Deserialize)]
struct PasswordPart {
    user: UserPart,
}

#[derive(Deserialize)]
struct TokenPart {
    id: String,
}

#[derive(Deserialize)]
struct ApplicationCredentialPart {
    id: Option<String>,
    name: Option<String>,
    secret: String,
    user: Option<UserPart>,
}

#[derive(Deserialize)]
struct UserPart {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainPart>,
    password: Option<String>,
}

#[derive(Deserialize)]
struct DomainPart {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ScopePart {
    /// The text `unscoped`.
    Word(String),
    Object(Box<ScopeObject>),
}

#[derive(Deserialize)]
struct ScopeObject {
    project: Option<ProjectPart>,
    domain: Option<DomainPart>,
    system: Option<SystemPart>,
    unscoped: Option<serde::de::IgnoredAny>,
    #[serde(rename = "OS-TRUST:trust")]
    trust: Option<TrustPart>,
}

#[derive(Deserialize)]
struct TrustPart {
    id: String,
}

#[derive(Deserialize)]
struct ProjectPart {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainPart>,
}

#[derive(Deserialize)]
struct SystemPart {
    all: bool,
}

/// `POST /identity/v3/auth/tokens`
pub async fn create(
    State(app): State<App>,
    query: Pairs,
    Json(body): Json<TokenCreateRequest>,
) -> Result<Response, ApiError> {
    let wanted = body.auth.scope.map_or(Ok(Wanted::Default), wanted)?;
    let shown = shown(body.auth.identity)?;
    let (text, view) = app.identity.authenticate(shown, wanted).await?;
    Ok((StatusCode::CREATED, subject(text), axum::Json(token_body(&app, &view, &query))).into_response())
}

/// `GET` and `HEAD /identity/v3/auth/tokens`
pub async fn get(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let text = subject_of(&headers)?;
    let expired = query.first("allow_expired").is_some_and(|text| !matches!(text, "0" | "false" | "False"));
    let view = app.identity.token_get(&ctx, text, expired).await?;
    Ok((StatusCode::OK, subject(text.to_owned()), axum::Json(token_body(&app, &view, &query))).into_response())
}

/// `DELETE /identity/v3/auth/tokens`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    app.identity.token_delete(&ctx, subject_of(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /identity/v3/auth/projects`
pub async fn projects(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.own_projects(&ctx).await?;
    let items: Vec<Value> = found.iter().map(|p| projects::body(&app, p)).collect();
    Ok(super::list(&app, "auth/projects", "projects", items, None))
}

/// `GET /identity/v3/auth/domains`
pub async fn domains(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.own_domains(&ctx).await?;
    let items: Vec<Value> = found.iter().map(|d| domains::body(&app, d)).collect();
    Ok(super::list(&app, "auth/domains", "domains", items, None))
}

/// `GET /identity/v3/auth/system`
pub async fn system(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<Value>, ApiError> {
    let items = if app.identity.own_system(&ctx).await? { vec![json!({ "all": true })] } else { Vec::new() };
    Ok(super::list(&app, "auth/system", "system", items, None))
}

fn subject(text: String) -> [(HeaderName, String); 2] {
    [(SUBJECT, text), (header::VARY, "X-Auth-Token".to_owned())]
}

fn subject_of(headers: &HeaderMap) -> Result<&str, ApiError> {
    let text = headers.get(SUBJECT).and_then(|v| v.to_str().ok());
    text.ok_or_else(|| ApiError::bad_request("The header X-Subject-Token is missing."))
}

fn domain(part: Option<DomainPart>) -> Result<DomainRef, ApiError> {
    match part {
        Some(DomainPart { id: Some(text), .. }) => Ok(DomainRef::Id(id(&text))),
        Some(DomainPart { name: Some(name), .. }) => Ok(DomainRef::Name(name)),
        Some(_) | None => Err(ApiError::bad_request("A domain needs an id or a name.")),
    }
}

fn user(part: UserPart) -> Result<UserRef, ApiError> {
    match part {
        UserPart { id: Some(text), .. } => Ok(UserRef::Id(id(&text))),
        UserPart { name: Some(name), domain: part, .. } => Ok(UserRef::Name(name, domain(part)?)),
        UserPart { .. } => Err(ApiError::bad_request("A user needs an id, or a name and a domain.")),
    }
}

/// What is shown, by each of the methods that are named.
fn shown(part: IdentityPart) -> Result<Vec<Shown>, ApiError> {
    let missing =
        |what: &str| ApiError::bad_request(format!("The request names the method {what} but does not hold it."));
    let (mut password, mut token, mut credential) = (part.password, part.token, part.application_credential);
    let mut shown = Vec::with_capacity(part.methods.len());
    for method in &part.methods {
        shown.push(match method.as_str() {
            "password" => {
                let mut part = password.take().ok_or_else(|| missing("password"))?.user;
                let password = part.password.take().ok_or_else(|| missing("password"))?;
                Shown::Password(user(part)?, password)
            }
            "token" => Shown::Token(token.take().ok_or_else(|| missing("token"))?.id),
            "application_credential" => {
                let part = credential.take().ok_or_else(|| missing("application_credential"))?;
                let key = match (part.id, part.name, part.user) {
                    (Some(text), _, _) => ApplicationCredentialRef::Id(id(&text)),
                    (None, Some(name), Some(part)) => ApplicationCredentialRef::Name(name, user(part)?),
                    (None, _, _) => {
                        let text = "An application credential needs an id, or a name and a user.";
                        return Err(ApiError::bad_request(text));
                    }
                };
                Shown::ApplicationCredential(key, part.secret)
            }
            _ => {
                return Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "Attempted to authenticate with an unsupported method: use password, token or \
                     application_credential.",
                ));
            }
        });
    }
    if shown.is_empty() {
        return Err(ApiError::bad_request("The request names no method."));
    }
    Ok(shown)
}

fn wanted(part: ScopePart) -> Result<Wanted, ApiError> {
    let invalid = || ApiError::bad_request("The scope must be one project, domain or trust, the system, or unscoped.");
    let object = match part {
        ScopePart::Word(word) if word == "unscoped" => return Ok(Wanted::Unscoped),
        ScopePart::Word(_) => return Err(invalid()),
        ScopePart::Object(object) => object,
    };
    match *object {
        ScopeObject { project: Some(part), domain: None, system: None, unscoped: None, trust: None } => match part {
            ProjectPart { id: Some(text), .. } => Ok(Wanted::Project(ProjectRef::Id(id(&text)))),
            ProjectPart { name: Some(name), domain: part, .. } => {
                Ok(Wanted::Project(ProjectRef::Name(name, domain(part)?)))
            }
            ProjectPart { .. } => Err(ApiError::bad_request("A project needs an id, or a name and a domain.")),
        },
        ScopeObject { project: None, domain: Some(part), system: None, unscoped: None, trust: None } => {
            Ok(Wanted::Domain(domain(Some(part))?))
        }
        ScopeObject {
            project: None,
            domain: None,
            system: Some(SystemPart { all: true }),
            unscoped: None,
            trust: None,
        } => Ok(Wanted::System),
        ScopeObject { project: None, domain: None, system: None, unscoped: Some(_), trust: None } => {
            Ok(Wanted::Unscoped)
        }
        ScopeObject {
            project: None,
            domain: None,
            system: None,
            unscoped: None,
            trust: Some(TrustPart { id: text }),
        } => Ok(Wanted::Trust(id(&text))),
        ScopeObject { .. } => Err(invalid()),
    }
}

fn domain_body(id: DomainId, name: &Name) -> Value {
    json!({ "id": id, "name": name })
}

fn token_body(app: &App, view: &TokenView, query: &Pairs) -> Value {
    let token = &view.token;
    let mut body = json!({
        "methods": token.methods().map(|m| m.name()).collect::<Vec<_>>(),
        "user": {
            "id": token.user_id(),
            "name": view.user_name,
            "domain": domain_body(view.user_domain.0, &view.user_domain.1),
            "password_expires_at": view.password_expires_at.map(Timestamp::iso_naive),
        },
        "audit_ids": token.audit_ids(),
        "issued_at": token.issued_at().iso_micros(),
        "expires_at": token.expires_at().iso_micros(),
    });
    match &view.place {
        Place::Unscoped => return json!({ "token": body }),
        Place::Project(project, domain_name) => {
            body["project"] = json!({
                "id": project.id, "name": project.name, "domain": domain_body(project.domain_id, domain_name),
            });
            body["is_domain"] = json!(false);
        }
        Place::Domain(domain) => body["domain"] = domain_body(domain.id, &domain.name),
        Place::System => body["system"] = json!({ "all": true }),
    }
    body["roles"] = view.roles.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    if let Some(credential) = &view.application_credential {
        body["application_credential"] = json!({
            "id": credential.id, "name": credential.name, "restricted": !credential.unrestricted,
        });
        if let Some(rules) = &view.access_rules {
            body["application_credential"]["access_rules"] = rules.iter().map(access_rules::body).collect();
        }
    }
    if let Some(trust) = &view.trust {
        body["OS-TRUST:trust"] = json!({
            "id": trust.id,
            "impersonation": trust.impersonation,
            "trustor_user": { "id": trust.trustor },
            "trustee_user": { "id": trust.trustee },
        });
    }
    if query.first("nocatalog").is_none() {
        body["catalog"] = catalog::body(app, token.ctx().project_id());
    }
    json!({ "token": body })
}
