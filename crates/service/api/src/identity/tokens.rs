//! Logging in, tokens, and where a token's user may go.

use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::identity::{access_rules, catalog, domains, id_or_none_such as id, projects};
use crate::{ApiError, App};
use arcus_identity::{ApplicationCredentialRef, DomainRef, Place, ProjectRef, Shown, TokenView, UserRef, Wanted};
use arcus_store::Trust;
use arcus_types::{DomainId, Name, ProjectId, RoleId, Timestamp, UserId};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
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
    Ok((StatusCode::CREATED, subject(text), json_text(token_body(&app, &view, with_catalog(&query)))).into_response())
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
    let token = app.identity.token_get(&ctx, text, expired)?;
    let with_catalog = with_catalog(&query);
    let make = |view: &TokenView| token_body(&app, view, with_catalog);
    let body = app.identity.token_shown(token, u8::from(with_catalog), make).await?;
    Ok((StatusCode::OK, subject(text.to_owned()), json_text(body.to_string())).into_response())
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

fn with_catalog(query: &Pairs) -> bool {
    query.first("nocatalog").is_none()
}

fn json_text(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
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

/// A token as it is shown.
#[derive(Serialize)]
struct TokenBody<'a> {
    methods: Vec<&'static str>,
    user: UserBody<'a>,
    audit_ids: Vec<String>,
    issued_at: String,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<PlaceBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_domain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<DomainBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<RoleBody<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_credential: Option<Value>,
    #[serde(rename = "OS-TRUST:trust", skip_serializing_if = "Option::is_none")]
    trust: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct UserBody<'a> {
    id: UserId,
    name: &'a Name,
    domain: DomainBody<'a>,
    password_expires_at: Option<String>,
}

#[derive(Serialize)]
struct PlaceBody<'a> {
    id: ProjectId,
    name: &'a Name,
    domain: DomainBody<'a>,
}

#[derive(Serialize)]
struct DomainBody<'a> {
    id: DomainId,
    name: &'a Name,
}

#[derive(Serialize)]
struct RoleBody<'a> {
    id: RoleId,
    name: &'a Name,
}

/// The body that shows a token, with or without the catalogue.
fn token_body(app: &App, view: &TokenView, with_catalog: bool) -> String {
    let token = &view.token;
    let (name, (domain_id, domain_name)) = (&view.user_name, &view.user_domain);
    let user = UserBody {
        id: token.user_id(),
        name,
        domain: DomainBody { id: *domain_id, name: domain_name },
        password_expires_at: view.password_expires_at.map(Timestamp::iso_naive),
    };
    let (mut project, mut domain, mut system) = (None, None, None);
    match &view.place {
        Place::Unscoped => {}
        Place::Project(at, domain_name) => {
            let domain = DomainBody { id: at.domain_id, name: domain_name };
            project = Some(PlaceBody { id: at.id, name: &at.name, domain });
        }
        Place::Domain(at) => domain = Some(DomainBody { id: at.id, name: &at.name }),
        Place::System => system = Some(json!({ "all": true })),
    }
    let scoped = view.place != Place::Unscoped;
    let catalog = (scoped && with_catalog).then(|| catalog::text(app, token.ctx().project_id()));
    let body = TokenBody {
        methods: token.methods().map(|m| m.name()).collect(),
        user,
        audit_ids: token.audit_ids(),
        issued_at: token.issued_at().iso_micros(),
        expires_at: token.expires_at().iso_micros(),
        is_domain: project.is_some().then_some(false),
        project,
        domain,
        system,
        roles: scoped.then(|| view.roles.iter().map(|(id, name)| RoleBody { id: *id, name }).collect()),
        application_credential: application_credential_body(view).filter(|_| scoped),
        trust: view.trust.as_ref().filter(|_| scoped).map(trust_body),
        catalog: catalog.as_deref().and_then(|text| serde_json::from_str(text).ok()),
    };
    let text = serde_json::to_string(&body).unwrap_or_default();
    format!("{{\"token\":{text}}}")
}

fn application_credential_body(view: &TokenView) -> Option<Value> {
    let credential = view.application_credential.as_ref()?;
    let mut body = json!({
        "id": credential.id, "name": credential.name, "restricted": !credential.unrestricted,
    });
    if let Some(rules) = &view.access_rules {
        body["access_rules"] = rules.iter().map(access_rules::body).collect();
    }
    Some(body)
}

fn trust_body(trust: &Trust) -> Value {
    json!({
        "id": trust.id,
        "impersonation": trust.impersonation,
        "trustor_user": { "id": trust.trustor },
        "trustee_user": { "id": trust.trustee },
    })
}
