//! Which providers could together give what a consumer asks for, as the placement API asks it: groups of resources, each
//! with what its providers must or must not be. Pure, and like every placement only a proposal.

use arcus_types::{ProviderAggregateId, ProviderId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most combinations that are looked at within one tree of providers.
const COMBINATIONS_MAX: usize = 1_000;

/// How much of a class of resource a provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// The class.
    pub class: String,
    /// What may be claimed in all.
    pub cap: u64,
    /// What is claimed.
    pub used: u64,
    /// The least that one consumer may claim.
    pub min_unit: u64,
    /// The most that one consumer may claim.
    pub max_unit: u64,
    /// Claims are multiples of it.
    pub step_size: u64,
}

impl Stock {
    /// Whether a claim of so much is allowed, and there is so much left.
    pub fn gives(&self, amount: u64) -> bool {
        amount >= self.min_unit
            && amount <= self.max_unit
            && amount.is_multiple_of(self.step_size.max(1))
            && self.used.saturating_add(amount) <= self.cap
    }
}

/// A provider as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// The provider that it is part of.
    pub parent_id: Option<ProviderId>,
    /// The provider at the root of its tree.
    pub root_id: ProviderId,
    /// What it has.
    pub stocks: Vec<Stock>,
    /// What it can do, in order.
    pub traits: Vec<String>,
    /// The aggregates that it is in.
    pub aggregates: Vec<ProviderAggregateId>,
}

impl Provider {
    fn gives(&self, class: &str, amount: u64) -> bool {
        self.stocks.iter().any(|stock| stock.class == class && stock.gives(amount))
    }

    fn can(&self, word: &str) -> bool {
        self.traits.binary_search_by(|known| known.as_str().cmp(word)).is_ok()
    }
}

/// Resources that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// How the request calls it. The one without a name may be spread over the providers of a tree; others may not.
    pub suffix: String,
    /// Class and quantity.
    pub resources: Vec<(String, u64)>,
    /// Of each list the providers must have one trait.
    pub required: Vec<Vec<String>>,
    /// They must have none of these traits.
    pub forbidden: Vec<String>,
    /// They must be in one aggregate of each list.
    pub member_of: Vec<Vec<ProviderAggregateId>>,
    /// They must be in none of these.
    pub not_member_of: Vec<ProviderAggregateId>,
    /// They must be in the tree of this provider.
    pub in_tree: Option<ProviderId>,
}

impl Group {
    /// Whether one provider alone gives all of it.
    pub fn given_by(&self, provider: &Provider) -> bool {
        self.resources.iter().all(|(class, amount)| provider.gives(class, *amount))
            && !self.forbidden.iter().any(|word| provider.can(word))
            && self.required.iter().all(|any| any.iter().any(|word| provider.can(word)))
            && self.aggregates_fit(provider, None)
    }

    /// What the root is in, all of its tree is in, for the group without a name.
    fn aggregates_fit(&self, provider: &Provider, root: Option<&Provider>) -> bool {
        let within = |id: &ProviderAggregateId| {
            provider.aggregates.contains(id) || root.is_some_and(|root| root.aggregates.contains(id))
        };
        self.member_of.iter().all(|any| any.iter().any(within)) && !self.not_member_of.iter().any(within)
    }

    fn is_named(&self) -> bool {
        !self.suffix.is_empty()
    }
}

/// What a consumer asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The groups.
    pub groups: Vec<Group>,
    /// Whether groups with names must get a provider each.
    pub isolate: bool,
    /// The root must have these traits.
    pub root_required: Vec<String>,
    /// The root must have none of these.
    pub root_forbidden: Vec<String>,
    /// The providers of the groups of each list must have one of them above all others.
    pub same_subtree: Vec<Vec<String>>,
}

/// One way to give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Class and quantity of each provider.
    pub claims: BTreeMap<ProviderId, BTreeMap<String, u64>>,
    /// The providers of each group.
    pub mappings: Vec<(String, Vec<ProviderId>)>,
}

/// Ways to give what is wished within one tree; its root comes first. At most `limit` of them.
pub fn within_tree(wish: &Wish, tree: &[Arc<Provider>], limit: usize) -> Vec<Candidate> {
    let Some(root) = tree.first() else { return Vec::new() };
    if !wish.root_required.iter().all(|word| root.can(word)) || wish.root_forbidden.iter().any(|word| root.can(word)) {
        return Vec::new();
    }
    let mut options = Vec::with_capacity(wish.groups.len());
    for group in &wish.groups {
        if group.in_tree.is_some_and(|id| !tree.iter().any(|p| p.id == id)) {
            return Vec::new();
        }
        let found = if group.is_named() { alone(group, tree) } else { spread(group, tree, root) };
        if found.is_empty() {
            return Vec::new();
        }
        options.push(found);
    }
    let mut search =
        Search { wish, tree, options: &options, chosen: Vec::new(), looked_at: 0, limit, found: Vec::new() };
    search.on();
    search.found
}

/// For each resource of a group, which provider of the tree gives it.
type Choice = Vec<usize>;

fn alone(group: &Group, tree: &[Arc<Provider>]) -> Vec<Choice> {
    let count = group.resources.len().max(1);
    let fits = tree.iter().enumerate().filter(|(_, provider)| group.given_by(provider));
    fits.map(|(at, _)| vec![at; count]).collect()
}

fn spread(group: &Group, tree: &[Arc<Provider>], root: &Provider) -> Vec<Choice> {
    let mut choices: Vec<Choice> = vec![Vec::new()];
    for (class, amount) in &group.resources {
        let mut next = Vec::new();
        for (at, provider) in tree.iter().enumerate() {
            let fits = provider.gives(class, *amount)
                && !group.forbidden.iter().any(|word| provider.can(word))
                && group.aggregates_fit(provider, Some(root));
            if fits {
                next.extend(choices.iter().take(COMBINATIONS_MAX).map(|choice| {
                    let mut choice = choice.clone();
                    choice.push(at);
                    choice
                }));
            }
        }
        choices = next;
    }
    let can = |choice: &Choice, word: &String| choice.iter().any(|at| tree.get(*at).is_some_and(|p| p.can(word)));
    choices.retain(|choice| group.required.iter().all(|any| any.iter().any(|word| can(choice, word))));
    choices
}

struct Search<'a> {
    wish: &'a Wish,
    tree: &'a [Arc<Provider>],
    options: &'a [Vec<Choice>],
    chosen: Vec<&'a Choice>,
    looked_at: usize,
    limit: usize,
    found: Vec<Candidate>,
}

impl<'a> Search<'a> {
    fn on(&mut self) {
        let Some(options) = self.options.get(self.chosen.len()) else {
            self.looked_at += 1;
            if let Some(candidate) = self.candidate()
                && !self.found.contains(&candidate)
            {
                self.found.push(candidate);
            }
            return;
        };
        for choice in options {
            if self.found.len() >= self.limit || self.looked_at >= COMBINATIONS_MAX {
                return;
            }
            self.chosen.push(choice);
            self.on();
            self.chosen.pop();
        }
    }

    /// What was chosen, if it fits together.
    fn candidate(&self) -> Option<Candidate> {
        let mut claims: BTreeMap<ProviderId, BTreeMap<String, u64>> = BTreeMap::new();
        let mut mappings = Vec::with_capacity(self.chosen.len());
        let mut named = Vec::new();
        for (group, choice) in self.wish.groups.iter().zip(&self.chosen) {
            let mut providers: Vec<ProviderId> = Vec::new();
            for at in choice.iter() {
                let id = self.tree.get(*at)?.id;
                if !providers.contains(&id) {
                    providers.push(id);
                }
            }
            for ((class, amount), at) in group.resources.iter().zip(choice.iter()) {
                let sums = claims.entry(self.tree.get(*at)?.id).or_default();
                match sums.get_mut(class) {
                    Some(sum) => *sum = sum.saturating_add(*amount),
                    None => drop(sums.insert(class.clone(), *amount)),
                }
            }
            if group.is_named() && !group.resources.is_empty() {
                named.extend(providers.iter().copied());
            }
            mappings.push((group.suffix.clone(), providers));
        }
        let apart = named.iter().enumerate().all(|(at, id)| !named.iter().skip(at + 1).any(|other| other == id));
        if (self.wish.isolate && !apart) || !self.subtrees_fit(&mappings) {
            return None;
        }
        // Several groups may have chosen the same provider: it must give the sum.
        let one = self.wish.groups.len() == 1;
        let enough = one
            || claims.iter().all(|(id, sums)| {
                let provider = self.tree.iter().find(|p| p.id == *id);
                provider.is_some_and(|p| sums.iter().all(|(class, sum)| p.gives(class, *sum)))
            });
        enough.then_some(Candidate { claims, mappings })
    }

    fn subtrees_fit(&self, mappings: &[(String, Vec<ProviderId>)]) -> bool {
        self.wish.same_subtree.iter().all(|suffixes| {
            let inside: Vec<ProviderId> = mappings
                .iter()
                .filter(|(suffix, _)| suffixes.contains(suffix))
                .flat_map(|(_, providers)| providers.iter().copied())
                .collect();
            inside.iter().any(|top| inside.iter().all(|id| self.is_above(*top, *id)))
        })
    }

    fn is_above(&self, top: ProviderId, mut id: ProviderId) -> bool {
        for _ in 0..=self.tree.len() {
            if id == top {
                return true;
            }
            match self.tree.iter().find(|p| p.id == id).and_then(|p| p.parent_id) {
                Some(parent) => id = parent,
                None => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(class: &str, cap: u64, used: u64) -> Stock {
        Stock { class: class.to_owned(), cap, used, min_unit: 1, max_unit: cap, step_size: 1 }
    }

    fn provider(stocks: Vec<Stock>, traits: &[&str], parent: Option<&Arc<Provider>>) -> Arc<Provider> {
        let id = ProviderId::random();
        Arc::new(Provider {
            id,
            parent_id: parent.map(|p| p.id),
            root_id: parent.map_or(id, |p| p.root_id),
            stocks,
            traits: traits.iter().map(|t| (*t).to_owned()).collect(),
            aggregates: Vec::new(),
        })
    }

    fn group(suffix: &str, resources: &[(&str, u64)]) -> Group {
        let resources = resources.iter().map(|(class, amount)| ((*class).to_owned(), *amount)).collect();
        Group { suffix: suffix.to_owned(), resources, ..Group::default() }
    }

    fn of(groups: Vec<Group>) -> Wish {
        Wish { groups, ..Wish::default() }
    }

    #[test]
    fn a_provider_gives_what_it_has_left_and_no_more() {
        let node = [provider(vec![stock("VCPU", 8, 6), stock("MEMORY_MB", 1024, 0)], &[], None)];
        let wish = of(vec![group("", &[("VCPU", 2), ("MEMORY_MB", 512)])]);
        let found = within_tree(&wish, &node, 10);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].claims[&node[0].id]["VCPU"], 2);
        assert!(within_tree(&of(vec![group("", &[("VCPU", 3)])]), &node, 10).is_empty());
    }

    #[test]
    fn the_group_without_a_name_spreads_and_others_do_not() {
        let root = provider(vec![stock("VCPU", 8, 0)], &["A"], None);
        let child = provider(vec![stock("VGPU", 2, 0)], &["B"], Some(&root));
        let tree = [root, child];
        assert_eq!(within_tree(&of(vec![group("", &[("VCPU", 1), ("VGPU", 1)])]), &tree, 10).len(), 1);
        assert!(within_tree(&of(vec![group("1", &[("VCPU", 1), ("VGPU", 1)])]), &tree, 10).is_empty());
        let mut both = group("", &[("VCPU", 1), ("VGPU", 1)]);
        both.required = vec![vec!["A".into()], vec!["B".into(), "C".into()]];
        assert_eq!(within_tree(&of(vec![both.clone()]), &tree, 10).len(), 1);
        both.forbidden = vec!["B".into()];
        assert!(within_tree(&of(vec![both]), &tree, 10).is_empty());
    }

    #[test]
    fn groups_may_be_kept_apart_and_share_no_more_than_there_is() {
        let root = provider(vec![], &[], None);
        let one = provider(vec![stock("VGPU", 1, 0)], &[], Some(&root));
        let two = provider(vec![stock("VGPU", 2, 0)], &[], Some(&root));
        let tree = [root, one, two];
        let mut wish = of(vec![group("1", &[("VGPU", 1)]), group("2", &[("VGPU", 1)])]);
        assert_eq!(within_tree(&wish, &tree, 10).len(), 3);
        wish.isolate = true;
        assert_eq!(within_tree(&wish, &tree, 10).len(), 2);
        assert_eq!(within_tree(&wish, &tree, 1).len(), 1);
        wish.same_subtree = vec![vec!["1".into(), "2".into()]];
        assert!(within_tree(&wish, &tree, 10).is_empty());
    }

    #[test]
    fn aggregates_of_the_root_hold_for_the_tree() {
        let here = ProviderAggregateId::random();
        let mut root = (*provider(vec![], &[], None)).clone();
        root.aggregates = vec![here];
        let root = Arc::new(root);
        let child = provider(vec![stock("VGPU", 1, 0)], &[], Some(&root));
        let tree = [root, child];
        let asks = |suffix| Group { member_of: vec![vec![here]], ..group(suffix, &[("VGPU", 1)]) };
        assert_eq!(within_tree(&of(vec![asks("")]), &tree, 10).len(), 1);
        assert!(within_tree(&of(vec![asks("1")]), &tree, 10).is_empty());
    }
}
