//! Lists of servers, with the filters that no database of ours can do: patterns over names and addresses.

use super::ServerView;
use crate::{Engine, EngineError};
use arcus_store::{ServerFilter, ServerVisibility};
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{OpCtx, ServerId};
use regex::{Regex, RegexBuilder};

/// Rows that are read at once when they must be looked at one by one.
const BATCH: u64 = 500;
/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// Which servers are asked for.
#[derive(Debug, Clone, Default)]
pub struct ServerQuery {
    /// What the database can filter by.
    pub filter: ServerFilter,
    /// All projects' servers; only for administrators.
    pub all_projects: bool,
    /// A pattern that the name must match somewhere.
    pub name: Option<String>,
    /// A pattern that an IPv4 address must match somewhere.
    pub ip: Option<String>,
    /// A pattern that an IPv6 address must match somewhere.
    pub ip6: Option<String>,
    /// With this key pair's name.
    pub key_name: Option<String>,
    /// With or without a config drive.
    pub config_drive: Option<bool>,
    /// The name of the node.
    pub node: Option<String>,
    /// Whether what is around the servers is wanted too.
    pub around: bool,
    /// Whether their secrets are wanted too.
    pub secrets: bool,
}

/// Every state and task that shows as one of these statuses, in any case.
pub fn at_statuses(statuses: &[String]) -> Vec<(ServerState, Option<ServerTask>)> {
    let tasks = || std::iter::once(None).chain(ServerTask::ALL.iter().copied().map(Some));
    ServerState::ALL
        .iter()
        .flat_map(|state| tasks().map(move |task| (*state, task)))
        .filter(|(state, task)| statuses.iter().any(|s| s.eq_ignore_ascii_case(state.status(*task))))
        .collect()
}

fn pattern(text: Option<&String>, what: &str) -> Result<Option<Regex>, EngineError> {
    let compile = |text: &String| {
        RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map_err(|_| {
            let text: String = text.chars().take(64).collect();
            EngineError::invalid(format!("Invalid input for query parameters {what}: '{text}' is not a pattern."))
        })
    };
    text.map(compile).transpose()
}

impl Engine {
    /// A page of servers, and whether more follow.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is no server or a pattern that is none, or a refusal.
    pub async fn server_list(
        &self,
        ctx: &OpCtx,
        mut query: ServerQuery,
    ) -> Result<(Vec<ServerView>, bool), EngineError> {
        super::list_target(ctx)?;
        self.limit_to_caller(ctx, &mut query)?;
        if let Some(name) = query.node.take() {
            let node = self.store().node_by_name(&name).await?;
            let Some(node) = node else { return Ok((Vec::new(), false)) };
            query.filter.node_id = Some(Some(node.id));
        }
        if let Some(marker) = query.filter.marker {
            let missing = || EngineError::invalid(format!("marker [{marker}] not found"));
            let server = self.store().server_get(marker).await?.ok_or_else(missing)?;
            super::allowed(ctx, arcus_types::policy::compute::SERVER_SHOW, &server).map_err(|_| missing())?;
        }
        let name = pattern(query.name.as_ref(), "name")?;
        let ip = pattern(query.ip.as_ref(), "ip")?;
        let ip6 = pattern(query.ip6.as_ref(), "ip6")?;
        let wanted = usize::try_from(query.filter.limit).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok((Vec::new(), false));
        }
        let addresses = ip.is_some() || ip6.is_some();
        let picky = addresses || name.is_some() || query.key_name.is_some() || query.config_drive.is_some();
        let mut found: Vec<ServerView> = Vec::new();
        loop {
            let mut filter = query.filter.clone();
            filter.limit = if picky { BATCH } else { query.filter.limit };
            let mut servers = self.store().server_list(&filter).await?;
            let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
            let more = servers.len() > limit;
            servers.truncate(limit);
            let last: Option<ServerId> = servers.last().map(|s| s.id);
            if let Some(name) = &name {
                servers.retain(|s| name.is_match(s.name.as_str()));
            }
            servers.retain(|s| {
                query.key_name.as_ref().is_none_or(|k| s.details.key_name.as_ref() == Some(k))
                    && query.config_drive.is_none_or(|c| s.details.config_drive == c)
            });
            let views = if query.around || addresses {
                self.server_views(servers, query.secrets).await?
            } else {
                servers.into_iter().map(bare).collect()
            };
            let matches = |view: &ServerView| {
                let any = |pattern: &Option<Regex>, v6: bool| {
                    pattern.as_ref().is_none_or(|p| {
                        let mut all = view.addresses.values().flatten();
                        all.any(|a| a.address.is_ipv6() == v6 && p.is_match(&a.address.to_string()))
                    })
                };
                any(&ip, false) && any(&ip6, true)
            };
            found.extend(views.into_iter().filter(|view| matches(view)));
            if found.len() > wanted {
                found.truncate(wanted);
                return Ok((found, true));
            }
            if !picky || !more {
                return Ok((found, more));
            }
            query.filter.marker = last;
        }
    }

    /// A caller sees its own project's servers; an administrator all, if it asks for them.
    fn limit_to_caller(&self, ctx: &OpCtx, query: &mut ServerQuery) -> Result<(), EngineError> {
        let admin = ctx.is_admin();
        if query.all_projects && !admin {
            return Err(EngineError::Denied(arcus_types::policy::Denied::Forbidden(
                "os_compute_api:servers:index:get_all_tenants",
            )));
        }
        let own = ctx.project_id();
        if !query.all_projects && (own.is_some() || !admin) {
            let nobody = arcus_types::ProjectId(uuid::Uuid::nil());
            query.filter.project_id = Some(own.unwrap_or(nobody));
        }
        if !admin && query.filter.visibility == ServerVisibility::Gone {
            query.filter.visibility = ServerVisibility::Live;
        }
        Ok(())
    }
}

fn bare(server: arcus_store::Server) -> ServerView {
    ServerView {
        server,
        tags: Vec::new(),
        node: None,
        addresses: std::collections::BTreeMap::new(),
        security_groups: Vec::new(),
        volumes: Vec::new(),
        secrets: None,
    }
}
