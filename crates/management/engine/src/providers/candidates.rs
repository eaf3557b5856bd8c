//! Who could give what a consumer asks for: answered from the inventory in memory.

use crate::fleet::Member;
use crate::{Engine, EngineError};
use arcus_placement::candidates::{Candidate, Wish, within_tree};
use arcus_types::policy::{Target, authorize, placement as policy};
use arcus_types::{OpCtx, ProviderId};
use std::collections::HashSet;
use std::sync::Arc;

/// The most candidates that one answer holds, whatever is asked for.
const CANDIDATES_MAX: usize = 1_000;
/// The most groups of one request.
const GROUPS_MAX: usize = 64;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct CandidateWish {
    /// What the consumer needs.
    pub wish: Wish,
    /// At most so many answers.
    pub limit: Option<usize>,
    /// Whether the caller knows of trees: then all providers of a candidate's tree are told of.
    pub whole_trees: bool,
}

/// Who could give it.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// The ways to give it.
    pub list: Vec<Candidate>,
    /// The providers concerned.
    pub providers: Vec<Arc<Member>>,
}

impl Engine {
    /// Ways to give a consumer what it asks for, at most 1,000.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a class or trait that there is not, or a refusal.
    pub async fn candidate_list(&self, ctx: &OpCtx, asked: &CandidateWish) -> Result<Candidates, EngineError> {
        authorize(ctx, policy::CANDIDATE_LIST, &Target::default())?;
        if asked.wish.groups.len() > GROUPS_MAX {
            return Err(EngineError::invalid(format!("A request has at most {GROUPS_MAX} groups.")));
        }
        for group in &asked.wish.groups {
            self.group_checked(group).await?;
        }
        let of_root = asked.wish.root_required.iter().chain(&asked.wish.root_forbidden);
        self.traits_checked(of_root.map(String::as_str)).await?;
        let limit = asked.limit.unwrap_or(CANDIDATES_MAX).min(CANDIDATES_MAX);
        let mut list: Vec<Candidate> = Vec::new();
        let mut ids: Vec<ProviderId> = Vec::new();
        self.fleet_trees(|tree| {
            let found = within_tree(&asked.wish, tree, limit - list.len());
            if !found.is_empty() {
                if asked.whole_trees {
                    ids.extend(tree.iter().map(|p| p.id));
                } else {
                    let named: HashSet<ProviderId> = found.iter().flat_map(|c| c.claims.keys().copied()).collect();
                    ids.extend(tree.iter().map(|p| p.id).filter(|id| named.contains(id)));
                }
                list.extend(found);
            }
            list.len() < limit
        })
        .await?;
        let providers = self.fleet_get(&ids).await?;
        Ok(Candidates { list, providers })
    }
}
