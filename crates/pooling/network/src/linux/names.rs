//! The names of everything that the driver makes in the kernel.
//!
//! Names follow from ids alone, so that an agent that starts again finds what it made before. What is visible outside
//! our own namespaces carries the node's tag, so that several agents share a machine. Of an id the last digits are
//! taken: ids sort by time, their first digits are the clock and would meet.

use arcus_types::ids::{NetworkId, PortId, RouterId};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The bridge of a segment, inside the segment's namespace.
pub const BRIDGE: &str = "br";

/// The tunnel to other nodes, inside the segment's namespace.
pub const TUNNEL: &str = "vx";

/// The nftables tables inside our own namespaces.
pub const TABLE: &str = "arcus";

/// What the kernel objects of one agent have in common: four lower-case letters or digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// The text is not a tag.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("a tag is four characters of a-z and 0-9")]
pub struct NotATag;

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the names of all our namespaces begin with.
    pub fn namespace_prefix(&self) -> String {
        format!("arcus-{}-", self.0)
    }

    /// The namespace of a segment.
    pub fn segment(&self, network: NetworkId) -> String {
        format!("arcus-{}-n-{}", self.0, last(network.0, 12))
    }

    /// The namespace of a router.
    pub fn router(&self, router: RouterId) -> String {
        format!("arcus-{}-r-{}", self.0, last(router.0, 12))
    }

    /// Whether the namespace is one of our routers.
    pub fn is_router(&self, namespace: &str) -> bool {
        namespace.strip_prefix(&self.namespace_prefix()).is_some_and(|rest| rest.starts_with("r-"))
    }

    /// What the names of all our devices in the agent's own namespace begin with.
    pub fn device_prefix(&self) -> String {
        format!("ar{}", self.0)
    }

    /// The bridge of an external network, in the agent's own namespace.
    pub fn external_bridge(&self, network: NetworkId) -> String {
        format!("ar{}x{}", self.0, last(network.0, 8))
    }

    /// The end of a router's external leg that is on the external bridge, in the agent's own namespace.
    pub fn external_leg(&self, port: PortId) -> String {
        format!("ar{}g{}", self.0, last(port.0, 8))
    }

    /// The nftables table in the agent's own namespace.
    pub fn guard_table(&self) -> String {
        format!("arcus_{}", self.0)
    }
}

impl FromStr for Tag {
    type Err = NotATag;
    fn from_str(text: &str) -> Result<Self, NotATag> {
        let good = text.len() == 4 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good { Ok(Self(text.to_owned())) } else { Err(NotATag) }
    }
}

impl TryFrom<String> for Tag {
    type Error = NotATag;
    fn try_from(text: String) -> Result<Self, NotATag> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network device of the machine that its owner has given us.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// The text is not the name of a device.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("a network device's name is 1 to 15 letters, digits, dots, dashes and underscores")]
pub struct NotADeviceName;

impl DeviceName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = NotADeviceName;
    fn from_str(text: &str) -> Result<Self, NotADeviceName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = (1..=15).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-']);
        if good { Ok(Self(text.to_owned())) } else { Err(NotADeviceName) }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = NotADeviceName;
    fn try_from(text: String) -> Result<Self, NotADeviceName> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tap of a guest's port, inside the segment's namespace.
pub fn tap(port: PortId) -> String {
    format!("p{}", last(port.0, 12))
}

/// The detour of what comes from a guest and must be queued, inside the segment's namespace.
pub fn tap_detour(port: PortId) -> String {
    format!("q{}", last(port.0, 12))
}

/// The detour of what comes in by a router's external leg and must be queued, inside the router's namespace.
pub fn gateway_detour(port: PortId) -> String {
    format!("q{}", last(port.0, 12))
}

/// The end of a router's leg that is on a segment's bridge, inside the segment's namespace.
pub fn leg_outer(port: PortId) -> String {
    format!("r{}", last(port.0, 12))
}

/// A router's leg on a segment, inside the router's namespace.
pub fn leg_inner(port: PortId) -> String {
    format!("i{}", last(port.0, 12))
}

/// A router's external leg, inside the router's namespace.
pub fn gateway(port: PortId) -> String {
    format!("g{}", last(port.0, 12))
}

/// The last `digits` hexadecimal digits of an id.
fn last(id: Uuid, digits: usize) -> String {
    let text = id.simple().to_string();
    text[text.len() - digits..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel_and_carry_the_tag() {
        let tag: Tag = "ab12".parse().unwrap();
        let port = PortId::new();
        for name in [tap(port), tap_detour(port), gateway_detour(port), leg_outer(port), leg_inner(port), gateway(port)]
        {
            assert!(name.len() <= 15, "{name}");
        }
        for name in [tag.external_leg(port), tag.external_bridge(NetworkId::new())] {
            assert!(name.len() <= 15 && name.starts_with("arab12"), "{name}");
        }
    }

    #[test]
    fn networks_made_in_the_same_moment_get_different_names() {
        let tag: Tag = "ab12".parse().unwrap();
        assert_ne!(tag.segment(NetworkId::new()), tag.segment(NetworkId::new()));
    }

    #[test]
    fn tags_are_checked() {
        for bad in ["", "abc", "abcde", "AB12", "a;b ", "äab"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
