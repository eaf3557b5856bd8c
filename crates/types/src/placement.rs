//! What is said of a placement: which filters refused how many nodes, and what spoke for the one that was taken. It is kept
//! with the server and shown to who asks.

use serde::{Deserialize, Serialize};

/// What a node can fail at. A node counts with the first filter that refuses it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Another node was asked for by name.
    NotTheOneAskedFor,
    /// It is in another zone.
    Zone,
    /// It is closed for new servers.
    Closed,
    /// It has not been heard of lately.
    Down,
    /// It cannot run this very server.
    Unsuited,
    /// The servers that it is to be beside are elsewhere.
    Beside,
    /// A server that it is to be away from is there.
    AwayFrom,
    /// The servers of its group are elsewhere.
    Together,
    /// Too many servers of its group are there.
    Apart,
    /// It has too few virtual CPUs left.
    Vcpus,
    /// It has too little memory left.
    Memory,
    /// It has too little disk left.
    Disk,
    /// It fitted, but its room was taken before it could be claimed.
    TakenMeanwhile,
}

impl Filter {
    /// Every filter, in order.
    pub const ALL: [Self; 13] = [
        Self::NotTheOneAskedFor,
        Self::Zone,
        Self::Closed,
        Self::Down,
        Self::Unsuited,
        Self::Beside,
        Self::AwayFrom,
        Self::Together,
        Self::Apart,
        Self::Vcpus,
        Self::Memory,
        Self::Disk,
        Self::TakenMeanwhile,
    ];

    /// Its place in [`Filter::ALL`].
    pub const fn place(self) -> usize {
        self as usize
    }

    /// The unit of what it is short of, if it is about a quantity.
    pub const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Vcpus => Some("VCPUs"),
            Self::Memory => Some("MiB"),
            Self::Disk => Some("GiB"),
            Self::NotTheOneAskedFor
            | Self::Zone
            | Self::Closed
            | Self::Down
            | Self::Unsuited
            | Self::Beside
            | Self::AwayFrom
            | Self::Together
            | Self::Apart
            | Self::TakenMeanwhile => None,
        }
    }

    /// What it says of one node or of many, without a node's name.
    const fn words(self, one: bool) -> &'static str {
        match (self, one) {
            (Self::NotTheOneAskedFor, true) => "is not the one asked for",
            (Self::NotTheOneAskedFor, false) => "are not the one asked for",
            (Self::Zone, true) => "is in another zone",
            (Self::Zone, false) => "are in another zone",
            (Self::Closed, true) => "is closed for new servers",
            (Self::Closed, false) => "are closed for new servers",
            (Self::Down, true) => "is down",
            (Self::Down, false) => "are down",
            (Self::Unsuited, _) => "cannot run this server",
            (Self::Beside, true) => "has none of the servers of the hint same_host",
            (Self::Beside, false) => "have none of the servers of the hint same_host",
            (Self::AwayFrom, true) => "has a server of the hint different_host",
            (Self::AwayFrom, false) => "have a server of the hint different_host",
            (Self::Together, true) => "has no server of its group (affinity)",
            (Self::Together, false) => "have no server of its group (affinity)",
            (Self::Apart, true) => "has a server of its group (anti-affinity)",
            (Self::Apart, false) => "have servers of its group (anti-affinity)",
            (Self::Vcpus, true) => "lacks virtual CPUs",
            (Self::Vcpus, false) => "lack virtual CPUs",
            (Self::Memory, true) => "lacks memory",
            (Self::Memory, false) => "lack memory",
            (Self::Disk, true) => "lacks disk",
            (Self::Disk, false) => "lack disk",
            (Self::TakenMeanwhile, true) => "was filled by others meanwhile",
            (Self::TakenMeanwhile, false) => "were filled by others meanwhile",
        }
    }
}

/// How many nodes a filter refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterCount {
    /// The filter.
    pub filter: Filter,
    /// How many nodes it was the first to refuse.
    pub nodes: u64,
    /// How much was asked, in the filter's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
    /// How much the best of them has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_max: Option<u64>,
}

impl FilterCount {
    /// In words that an owner may see: `3 lack memory (8192 MiB asked, at most 4096 free)`.
    pub fn words(&self) -> String {
        let mut text = format!("{} {}", self.nodes, self.filter.words(self.nodes == 1));
        if let (Some(unit), Some(asked), Some(free)) = (self.filter.unit(), self.asked, self.free_max) {
            text.push_str(&format!(" ({asked} {unit} asked, at most {free} free)"));
        }
        text
    }
}

/// What speaks for a node: the more, the better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// For its memory: the share that stays free, in thousandths, or that is used where servers are packed.
    pub memory: u64,
    /// The same for its virtual CPUs.
    pub vcpus: u64,
    /// For having the image in its cache.
    pub image: u64,
    /// For the wish of its group that does not bind.
    pub group: u64,
}

impl Score {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.memory + self.vcpus + self.image + self.group
    }
}

/// How a cluster fills its nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// The emptiest node first: servers disturb each other least.
    #[default]
    Spread,
    /// The fullest node that has room first: nodes stay free for large servers, or can be switched off.
    Pack,
}

impl Filling {
    /// The text in the database and in the native API.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Pack => "pack",
        }
    }
}

impl std::str::FromStr for Filling {
    type Err = crate::Rejected;
    fn from_str(text: &str) -> Result<Self, crate::Rejected> {
        match text {
            "spread" => Ok(Self::Spread),
            "pack" => Ok(Self::Pack),
            other => Err(crate::Rejected(format!("a cluster is filled by spread or pack, not by '{other}'"))),
        }
    }
}

/// A node that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLooked {
    /// Its name.
    pub node: String,
    /// What spoke for it.
    pub score: Score,
    /// What spoke against it, in words for an administrator; empty if it could take the server.
    pub refusals: Vec<String>,
}

/// A decision as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionRecord {
    /// Virtual CPUs asked.
    pub vcpus: u64,
    /// Memory asked, in MiB.
    pub memory_mib: u64,
    /// Disk asked, in GiB.
    pub disk_gib: u64,
    /// The zone asked.
    pub zone: Option<String>,
    /// Whether one node was asked for by name.
    pub one_node: bool,
    /// The policy of its group.
    pub group: Option<String>,
    /// How many nodes there were.
    pub nodes: u64,
    /// How many could have taken it.
    pub fit: u64,
    /// Those that could not, by the first filter that refused them.
    pub refused: Vec<FilterCount>,
    /// What spoke for the node that was taken; none if there was none.
    pub score: Option<Score>,
    /// The best nodes and the first of the refused ones, for administrators.
    pub looked_at: Vec<NodeLooked>,
}

impl DecisionRecord {
    /// In words that an owner may see.
    pub fn words(&self) -> String {
        if self.nodes == 0 {
            return "The cloud has no nodes.".to_owned();
        }
        let refused: Vec<String> = self.refused.iter().map(FilterCount::words).collect();
        let refused = refused.join(", ");
        let nodes = format!("{} nodes", self.nodes);
        match (self.fit, refused.as_str()) {
            (0, _) if self.nodes == 1 => format!("The only node cannot take it: {refused}."),
            (_, _) if self.nodes == 1 => "The only node can take it.".to_owned(),
            (0, _) => format!("Of {nodes} none can take it: {refused}."),
            (fit, "") => format!("Of {nodes} {fit} can take it."),
            (fit, refused) => format!("Of {nodes} {fit} can take it: {refused}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_stand_in_their_own_places() {
        for (place, filter) in Filter::ALL.into_iter().enumerate() {
            assert_eq!(filter.place(), place);
        }
    }

    #[test]
    fn an_owner_is_told_how_many_nodes_lack_what() {
        let count = |filter, nodes, asked, free_max| FilterCount { filter, nodes, asked, free_max };
        let refused = vec![count(Filter::Zone, 9, None, None), count(Filter::Memory, 3, Some(8192), Some(4096))];
        let record = DecisionRecord { nodes: 12, refused, ..DecisionRecord::default() };
        assert_eq!(
            record.words(),
            "Of 12 nodes none can take it: 9 are in another zone, 3 lack memory (8192 MiB asked, at most 4096 free)."
        );
    }
}
