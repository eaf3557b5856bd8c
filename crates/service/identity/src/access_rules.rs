//! Access rules: which calls a rule covers, and the rules that a user has.

use crate::{Identity, IdentityError};
use arcus_store::AccessRule;
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{AccessRuleId, OpCtx, UserId};

/// The longest text of a rule, in bytes. Source: Keystone's schema of access rules.
pub(crate) const RULE_TEXT_BYTES_MAX: usize = 128;
/// The most rules of one application credential: they travel in each of its tokens.
pub(crate) const RULES_MAX: usize = 32;
/// The methods that a rule may name.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// The first part of a path, and the service types that rules may call it by.
const SERVICES: &[(&str, &[&str])] = &[
    ("identity", &["identity"]),
    ("compute", &["compute"]),
    ("image", &["image"]),
    ("network", &["network"]),
    ("volume", &["block-storage", "block-store", "volume", "volumev3"]),
    ("placement", &["placement"]),
    ("arcus", &["arcus"]),
];

/// Whether a rule covers a call. Its path is matched from the root of its service, such as `/v2.1/servers`, or with the
/// service before it, such as `/compute/v2.1/servers`.
pub(crate) fn covers(service: &str, rule_method: &str, pattern: &str, method: &str, path: &str) -> bool {
    let root = path.split('/').nth(1).unwrap_or_default();
    let known = SERVICES.iter().find(|(name, _)| *name == root);
    let served = known.is_some_and(|(_, types)| types.contains(&service));
    served
        && rule_method == method
        && (matches(pattern, path.get(root.len() + 1..).unwrap_or_default()) || matches(pattern, path))
}

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Byte(u8),
    /// `*` and `{word}`: at least one byte, none of which is a slash.
    Part,
    /// `**`: anything.
    Any,
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut rest = pattern.as_bytes();
    let mut pieces = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        let close = rest.iter().position(|b| *b == b'}');
        let (piece, next) = match (first, after.first(), close) {
            (b'*', Some(b'*'), _) => (Piece::Any, &after[1..]),
            (b'*', _, _) => (Piece::Part, after),
            (b'{', _, Some(close)) => (Piece::Part, &rest[close + 1..]),
            (byte, _, _) => (Piece::Byte(byte), after),
        };
        pieces.push(piece);
        rest = next;
    }
    pieces
}

/// Whether a path is what a pattern says. Takes time in proportion to the product of their lengths at most.
fn matches(pattern: &str, path: &str) -> bool {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for piece in pieces(pattern) {
        let mut next = vec![false; path.len() + 1];
        if piece == Piece::Any {
            next[0] = reached[0];
        }
        for (at, byte) in path.bytes().enumerate() {
            next[at + 1] = match piece {
                Piece::Byte(wanted) => reached[at] && byte == wanted,
                Piece::Part => byte != b'/' && (reached[at] || next[at]),
                Piece::Any => reached[at + 1] || next[at],
            };
        }
        reached = next;
    }
    reached[path.len()]
}

/// Refuses a rule that no call could match.
pub(crate) fn check(service: &str, method: &str, path: &str) -> Result<(), IdentityError> {
    let invalid = |text: String| Err(IdentityError::Invalid(text));
    if [service, path].iter().any(|text| text.is_empty() || text.len() > RULE_TEXT_BYTES_MAX) {
        return invalid(format!("An access rule's service and path hold 1 to {RULE_TEXT_BYTES_MAX} bytes."));
    }
    if !path.starts_with('/') {
        return invalid("An access rule's path begins with a slash.".to_owned());
    }
    if !METHODS.contains(&method) {
        return invalid(format!("An access rule's method is one of {}.", METHODS.join(", ")));
    }
    Ok(())
}

impl Identity {
    /// A user's access rules, those that match, at most `limit` after `marker`.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn access_rule_list(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        wanted: [Option<&str>; 3],
        marker: Option<AccessRuleId>,
        limit: u32,
    ) -> Result<Vec<AccessRule>, IdentityError> {
        let target = Target { user_id: Some(user_id), ..Target::default() };
        authorize(ctx, policy::ACCESS_RULE_LIST, &target)?;
        self.in_own_name(ctx)?;
        Ok(self.store().access_rule_list(user_id, wanted, marker, limit).await?)
    }

    /// An access rule of a user.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn access_rule_get(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        id: AccessRuleId,
    ) -> Result<AccessRule, IdentityError> {
        let target = Target { user_id: Some(user_id), ..Target::default() };
        authorize(ctx, policy::ACCESS_RULE_GET, &target)?;
        self.in_own_name(ctx)?;
        let found = self.store().access_rule_get(user_id, id).await?;
        found.ok_or_else(|| IdentityError::not_found("access rule", id))
    }

    /// Deletes an access rule that no application credential has.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] while it is in use.
    pub async fn access_rule_delete(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        id: AccessRuleId,
    ) -> Result<(), IdentityError> {
        let target = Target { user_id: Some(user_id), ..Target::default() };
        authorize(ctx, policy::ACCESS_RULE_DELETE, &target)?;
        self.in_own_name(ctx)?;
        let tx = self.store().begin(ctx).await?;
        match tx.access_rule_delete(user_id, id).await {
            Ok(true) => {}
            Ok(false) => return Err(IdentityError::not_found("access rule", id)),
            Err(arcus_store::StoreError::Referenced(_)) => {
                return Err(IdentityError::Forbidden(
                    "An application credential has this access rule; delete that first.".to_owned(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        let detail = serde_json::json!({ "user_id": user_id });
        self.audit(&tx, policy::ACCESS_RULE_DELETE, "access_rule", &id, &detail).await?;
        Ok(self.commit(tx, &[]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_it_says_and_no_more() {
        for (pattern, path, wanted) in [
            ("/v2.1/servers", "/v2.1/servers", true),
            ("/v2.1/servers", "/v2.1/servers/x", false),
            ("/v2.1/servers/*/ips", "/v2.1/servers/5f/ips", true),
            ("/v2.1/servers/*/ips", "/v2.1/servers/5f/x/ips", false),
            ("/v2.1/servers/*/ips", "/v2.1/servers//ips", false),
            ("/v2.1/servers/{server_id}", "/v2.1/servers/5f", true),
            ("/v2.1/servers/{server_id}", "/v2.1/servers/", false),
            ("/v2.1/**", "/v2.1/", true),
            ("/v2.1/**", "/v2.1/a/b/c", true),
            ("/v2.1/**", "/v2.0/a", false),
            ("**", "/anything", true),
            ("/a.c", "/abc", false),
            ("/a{b", "/a{b", true),
        ] {
            assert_eq!(matches(pattern, path), wanted, "{pattern} on {path}");
        }
        let long = format!("/{}", "**x".repeat(40));
        assert!(!matches(&long, &format!("/{}", "x".repeat(2000)).replace("xx", "yy")));
    }

    #[test]
    fn a_rule_covers_one_service_and_one_method() {
        let rule = |service, method, path| covers(service, "GET", "/v2.1/servers", method, path);
        assert!(rule("compute", "GET", "/compute/v2.1/servers"));
        assert!(!rule("image", "GET", "/compute/v2.1/servers"));
        assert!(!rule("compute", "POST", "/compute/v2.1/servers"));
        assert!(!rule("compute", "GET", "/v2.1/servers"));
        assert!(covers("volumev3", "GET", "/v3/**", "GET", "/volume/v3/x/volumes"));
        assert!(covers("compute", "GET", "/compute/v2.1/servers", "GET", "/compute/v2.1/servers"));
        assert!(!covers("compute", "GET", "/", "GET", ""));
    }
}
