//! Users, projects, roles, tokens and the catalogue: the identity service.
//!
//! ```text
//! password, token or application credential -> Recognised -> place and roles -> Payload -> sealed text
//! sealed text -> Payload -> not expired, no subject revoked -> Token -> OpCtx        (no database)
//! ```
//!
//! A token holds the epoch of each row that it depends on. Whoever takes something away raises that row's epoch and
//! records a revocation in the same transaction; a token with a lower epoch is void, on this replica at once and on the
//! others within about a second.

mod access_rules;
mod application_credentials;
mod assignments;
mod auth;
mod bootstrap;
pub mod builtin;
mod catalog;
mod credentials;
mod domains;
mod error;
mod groups;
mod keys;
mod limits;
mod options;
mod passwords;
mod projects;
mod remembered;
mod revoked;
mod roles;
mod token;
mod trusts;
mod users;

pub use application_credentials::{AccessRuleNew, ApplicationCredentialNew, ApplicationCredentialView, RoleRef};
pub use assignments::{Grant, Held};
pub use auth::{ApplicationCredentialRef, DomainRef, Place, ProjectRef, Shown, TokenView, UserRef, Wanted};
pub use bootstrap::BootstrapPasswords;
pub use catalog::{Catalog, CatalogChange, CatalogEndpoint, CatalogService, Endpoint, EndpointNew, ServiceNew};
pub use credentials::{Credential, CredentialNew};
pub use domains::DomainNew;
pub use error::IdentityError;
pub use groups::GroupNew;
pub use limits::{LimitNew, RegisteredLimitNew};
pub use passwords::random_secret;
pub use projects::{Kin, ProjectNew};
pub use roles::RoleNew;
pub use token::{MethodName, NotAToken, Token};
pub use trusts::{TrustNew, TrustView};
pub use users::UserNew;

use application_credentials::chosen_roles;
use arcus_store::{AuditEntry, Revocation, Revoked, Store, StoreError, Tx};
use arcus_types::policy::Action;
use arcus_types::{Name, Timestamp};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The longest that a token may live, in seconds.
pub const TOKEN_TTL_S_MAX: i64 = 86_400;
/// How much longer than a token a record of its revocation is kept, in seconds: replicas' clocks differ.
const REVOCATION_SLACK_S: i64 = 300;
/// The most objects that one list returns.
pub const LIST_MAX: u32 = 10_000;
/// The longest description or mail address, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// The longest name of a domain, project or group, in characters. Source: Keystone's schemas.
const SHORT_NAME_CHARS_MAX: usize = 64;
/// How often revocations and keys are looked at, for what other processes do.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// After so many looks, revocations of tokens that have all expired are deleted.
const PRUNE_EVERY: u64 = 600;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// How clients reach this cloud.
    pub endpoint: Endpoint,
    /// How long a token lives, in seconds; at most [`TOKEN_TTL_S_MAX`].
    pub token_ttl_s: i64,
    /// A user may not change their password to any of so many last ones, the present one included; 0: any.
    pub password_history: usize,
    /// After so many wrong passwords in a row a user is locked; 0: never.
    pub lockout_failures: u64,
    /// For how long, in seconds.
    pub lockout_s: i64,
    /// So long a password is good, in days; 0: for ever.
    pub password_expires_days: i64,
    /// A user may not change a password that is younger than this, in days; 0: at any time.
    pub password_minimum_age_days: i64,
    /// A regular expression that new passwords match.
    pub password_pattern: Option<String>,
    /// The same in words, for who is refused.
    pub password_pattern_text: String,
}

impl IdentityConfig {
    /// The settings of a cloud at this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            token_ttl_s: 3600,
            password_history: 2,
            lockout_failures: 10,
            lockout_s: 60,
            password_expires_days: 0,
            password_minimum_age_days: 0,
            password_pattern: None,
            password_pattern_text: String::new(),
        }
    }
}

/// Identity. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    config: IdentityConfig,
    keys: keys::Keys,
    passwords: passwords::Passwords,
    revoked: revoked::Revoked,
    password_pattern: Option<regex::Regex>,
    /// Seals what users keep here for other programs; not rotated.
    credential_keys: keys::Keys,
    catalog: catalog::Shown,
    remembered: remembered::Remembered,
}

impl Identity {
    /// Identity over a store, with its token keys in a folder of their own: `<home>/keys`. A task of its own follows
    /// what other processes revoke and rotate, for as long as a clone of this lives.
    ///
    /// # Errors
    /// [`IdentityError::KeyFile`], [`IdentityError::Corrupt`] or [`IdentityError::Store`].
    pub async fn open(store: Store, keys_dir: &Path, config: IdentityConfig) -> Result<Self, IdentityError> {
        let pattern = config.password_pattern.as_deref().map(regex::Regex::new).transpose();
        let password_pattern =
            pattern.map_err(|e| IdentityError::Invalid(format!("The pattern for passwords is not valid: {e}")))?;
        let token_ttl_s = config.token_ttl_s.clamp(1, TOKEN_TTL_S_MAX);
        let inner = Arc::new(Inner {
            store,
            config: IdentityConfig { token_ttl_s, ..config },
            keys: keys::Keys::open(keys_dir)?,
            passwords: passwords::Passwords::default(),
            revoked: revoked::Revoked::default(),
            password_pattern,
            credential_keys: keys::Keys::open(&keys_dir.join("credentials"))?,
            catalog: catalog::Shown::default(),
            remembered: remembered::Remembered::default(),
        });
        inner.revoked.refresh(&inner.store, Timestamp::now()).await?;
        inner.catalog.refresh(&inner.store, &inner.config.endpoint).await?;
        tokio::spawn(follow(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Verifies a token without asking the database.
    ///
    /// # Errors
    /// [`NotAToken`] if it is not ours, changed, expired or revoked.
    pub fn verify(&self, token: &str) -> Result<Token, NotAToken> {
        Token::open(token, &self.0.keys, &self.0.revoked, Timestamp::now())
    }

    /// Rotates the token keys: tokens made so far stay good until the next rotation but one, so rotate no more often
    /// than tokens live.
    ///
    /// # Errors
    /// [`IdentityError::KeyFile`] or [`IdentityError::Corrupt`].
    pub fn keys_rotate(&self) -> Result<(), IdentityError> {
        self.0.keys.rotate()
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn config(&self) -> &IdentityConfig {
        &self.0.config
    }

    fn keys(&self) -> &keys::Keys {
        &self.0.keys
    }

    fn password_pattern(&self) -> Option<&regex::Regex> {
        self.0.password_pattern.as_ref()
    }

    fn passwords(&self) -> &passwords::Passwords {
        &self.0.passwords
    }

    fn revoked(&self) -> &revoked::Revoked {
        &self.0.revoked
    }

    async fn audit(
        &self,
        tx: &Tx,
        action: Action,
        kind: &'static str,
        id: &impl ToString,
        detail: &serde_json::Value,
    ) -> Result<(), StoreError> {
        tx.audit(AuditEntry { action, kind, id: id.to_string(), project_id: None, detail }).await
    }

    /// Makes tokens void, for as long as the oldest of them could live.
    async fn revoke(&self, tx: &Tx, revoked: Revoked) -> Result<Vec<Revocation>, StoreError> {
        let now = Timestamp::now();
        tx.revoke(revoked, now, revoked_until(now)).await
    }

    /// Commits, and then refuses here and now what the transaction has revoked, and forgets what was made of what it has
    /// changed.
    async fn commit(&self, tx: Tx, revocations: &[Revocation]) -> Result<(), StoreError> {
        let done = tx.commit().await;
        self.0.remembered.changed();
        if done.is_ok() {
            self.0.revoked.add(revocations);
        }
        done
    }
}

/// For how long what is revoked now must be remembered: until every token of today has expired and nobody may look at
/// it any more.
fn revoked_until(now: Timestamp) -> Timestamp {
    now.plus_seconds(TOKEN_TTL_S_MAX + REVOCATION_SLACK_S + auth::ALLOW_EXPIRED_S)
}

/// Refuses a name that is longer than Keystone's clients expect of domains, projects and groups.
fn short_name_check(name: Option<&Name>) -> Result<(), IdentityError> {
    if name.is_some_and(|name| name.as_str().chars().count() > SHORT_NAME_CHARS_MAX) {
        let reason = format!("The name of a domain, project or group holds at most {SHORT_NAME_CHARS_MAX} characters.");
        return Err(IdentityError::Invalid(reason));
    }
    Ok(())
}

/// Refuses a text that is longer than any that is kept.
fn text_check(text: Option<&str>) -> Result<(), IdentityError> {
    if text.is_some_and(|t| t.len() > TEXT_BYTES_MAX) {
        return Err(IdentityError::Invalid(format!("A description or address holds at most {TEXT_BYTES_MAX} bytes.")));
    }
    Ok(())
}

/// Follows what other processes revoke and rotate. Ends when nobody holds the identity service any more.
async fn follow(inner: Weak<Inner>) {
    let mut every = tokio::time::interval(REFRESH_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks: u64 = 0;
    loop {
        every.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let now = Timestamp::now();
        inner.passwords.rest();
        if let Err(error) = inner.revoked.refresh(&inner.store, now).await {
            tracing::warn!(error = %error, "could not read what other replicas have revoked; trying again");
        }
        if let Err(error) = inner.keys.reload() {
            tracing::warn!(error = %error, "could not read the token keys again; going on with those in use");
        }
        let read = inner.catalog.refresh(&inner.store, &inner.config.endpoint).await;
        // Whatever others have changed in the database, nobody is shown an older state for longer than this.
        inner.remembered.changed();
        if let Err(error) = read {
            tracing::warn!(error = %error, "could not read the catalogue again; going on with what was read before");
        }
        if looks.is_multiple_of(PRUNE_EVERY)
            && let Err(error) = prune(&inner.store, now).await
        {
            tracing::warn!(error = %error, "could not delete revocations that are not needed any more");
        }
        looks += 1;
    }
}

async fn prune(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let tx = store.begin_unaudited().await?;
    tx.revocations_prune(now).await?;
    tx.commit().await
}
