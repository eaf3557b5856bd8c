//! Newtypes for every id, so that one kind is never passed where another is meant.
//!
//! Two spellings exist on the wire: identity objects are 32 hexadecimal digits, all others are dashed UUIDs. Both
//! spellings are read for both.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text is not an id of this kind.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not a valid {kind} id")]
pub struct NotAnId {
    /// What the id would have named, such as `server`.
    pub kind: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $style:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id that sorts by time of creation (UUID version 7).
            pub fn new() -> Self { Self(Uuid::now_v7()) }
            /// A new id that reveals nothing (UUID version 4).
            pub fn random() -> Self { Self(Uuid::new_v4()) }
        }
        impl Default for $name { fn default() -> Self { Self::new() } }
        impl From<Uuid> for $name { fn from(id: Uuid) -> Self { Self(id) } }
        impl From<$name> for Uuid { fn from(id: $name) -> Uuid { id.0 } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { ids!(@show $style, self, f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                ids!(@read $style, text)
                    .map(Self)
                    .ok_or_else(|| NotAnId { kind: $kind, text: text.chars().take(64).collect() })
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
    (@show dashed, $id:ident, $f:ident) => { write!($f, "{}", $id.0.as_hyphenated()) };
    (@show simple, $id:ident, $f:ident) => { write!($f, "{}", $id.0.as_simple()) };
    (@show domain, $id:ident, $f:ident) => {
        if $id.0.is_nil() { $f.write_str("default") } else { write!($f, "{}", $id.0.as_simple()) }
    };
    (@read domain, $text:ident) => {
        if $text == "default" { Some(Uuid::nil()) } else { parse_uuid($text) }
    };
    (@read $other:ident, $text:ident) => { parse_uuid($text) };
}

/// Accepts exactly the dashed and the simple spelling; braces and `urn:` prefixes are refused.
fn parse_uuid(text: &str) -> Option<Uuid> {
    matches!(text.len(), 32 | 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

ids! {
    /// A guest.
    ServerId, "server", dashed;
    /// A machine that runs guests.
    NodeId, "node", dashed;
    /// A set of nodes between which guests move.
    ClusterId, "cluster", dashed;
    /// A folder that several nodes see, for servers' disks.
    DiskPoolId, "disk pool", dashed;
    /// A group of nodes that administrators make.
    AggregateId, "aggregate", dashed;
    /// A server's way to another node or flavor.
    MigrationId, "migration", dashed;
    /// Something asked that is not instant.
    TaskId, "task", dashed;
    /// A bootable disk image.
    ImageId, "image", dashed;
    /// A layer-2 segment.
    NetworkId, "network", dashed;
    /// An address range on a network.
    SubnetId, "subnet", dashed;
    /// A pool of address ranges.
    SubnetPoolId, "subnet pool", dashed;
    /// A virtual interface.
    PortId, "port", dashed;
    /// A router.
    RouterId, "router", dashed;
    /// An external address that follows a port.
    FloatingIpId, "floating IP", dashed;
    /// A set of filter rules.
    SecurityGroupId, "security group", dashed;
    /// One filter rule.
    SecurityGroupRuleId, "security group rule", dashed;
    /// A rule that new security groups begin with.
    DefaultRuleId, "default security group rule", dashed;
    /// A named list of address ranges.
    AddressGroupId, "address group", dashed;
    /// A space in which no address is given twice.
    AddressScopeId, "address scope", dashed;
    /// A set of rules on quality of service.
    QosPolicyId, "QoS policy", dashed;
    /// One rule on quality of service.
    QosRuleId, "QoS rule", dashed;
    /// Ports of a floating IP that lead to ports of a guest.
    PortForwardingId, "port forwarding", dashed;
    /// A policy that shares a thing with other projects.
    RbacPolicyId, "RBAC policy", dashed;
    /// A block device.
    VolumeId, "volume", dashed;
    /// A block device as it was at one moment.
    VolumeSnapshotId, "volume snapshot", dashed;
    /// A volume's place in a server.
    AttachmentId, "attachment", dashed;
    /// A kind of volume that users choose from.
    VolumeTypeId, "volume type", dashed;
    /// A set of limits for volumes.
    QosSpecsId, "QoS specs", dashed;
    /// A group of volumes.
    VolumeGroupId, "group", dashed;
    /// A kind of group of volumes.
    VolumeGroupTypeId, "group type", dashed;
    /// A group of volumes as it was at one moment.
    VolumeGroupSnapshotId, "group snapshot", dashed;
    /// An offer to take over a volume.
    TransferId, "volume transfer", dashed;
    /// Something that has resources: a node, or what an administrator registers.
    ProviderId, "resource provider", dashed;
    /// A set of resource providers.
    ProviderAggregateId, "aggregate", dashed;
    /// Who claims resources of providers.
    ConsumerId, "consumer", dashed;
    /// A group of servers with a placement rule.
    ServerGroupId, "server group", dashed;
    /// One relayed byte stream between a client and a guest's device.
    RelayId, "relay", dashed;
    /// One audit record.
    AuditId, "audit record", dashed;
    /// One usage event.
    UsageEventId, "usage event", dashed;
    /// One API request; also the id of the server action that it started.
    RequestId, "request", dashed;
    /// A person or program that logs in.
    UserId, "user", simple;
    /// A group of users.
    GroupId, "group", simple;
    /// A project: what resources belong to.
    ProjectId, "project", simple;
    /// A role.
    RoleId, "role", simple;
    /// An application credential.
    ApplicationCredentialId, "application credential", simple;
    /// A trust: one user acting with roles of another.
    TrustId, "trust", simple;
    /// A rule that says what an application credential may call.
    AccessRuleId, "access rule", simple;
    /// A limit's default.
    RegisteredLimitId, "registered limit", simple;
    /// A limit of one project or domain.
    LimitId, "limit", simple;
    /// A secret that a user keeps for another program.
    CredentialId, "credential", simple;
    /// A region of the catalogue's service.
    ServiceId, "service", simple;
    /// An endpoint of the catalogue.
    EndpointId, "endpoint", simple;
    /// A domain: a name space of users and projects. The first one is written `default`.
    DomainId, "domain", domain;
}

impl DomainId {
    /// The domain that bootstrap makes, written `default`.
    pub const DEFAULT: DomainId = DomainId(Uuid::nil());
}

impl From<NodeId> for ProviderId {
    /// A node is a provider under its own id.
    fn from(id: NodeId) -> Self {
        Self(id.0)
    }
}

impl RequestId {
    /// The spelling that OpenStack clients expect: `req-` and the dashed id.
    pub fn header(&self) -> String {
        format!("req-{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_each_kind_writes_its_own() {
        let text = "0b8c6c5ea1f24c1c8b4a3f2d1e0c9b8a";
        let project: ProjectId = text.parse().unwrap();
        assert_eq!(project.to_string(), text);
        let server: ServerId = text.parse().unwrap();
        assert_eq!(server.to_string(), "0b8c6c5e-a1f2-4c1c-8b4a-3f2d1e0c9b8a");
        assert_eq!("default".parse::<DomainId>().unwrap(), DomainId::DEFAULT);
        assert_eq!(DomainId::DEFAULT.to_string(), "default");
    }

    #[test]
    fn other_texts_are_refused_with_the_kind_named() {
        for bad in ["", "x", "{0b8c6c5e-a1f2-4c1c-8b4a-3f2d1e0c9b8a}", "../../etc/passwd"] {
            let error = bad.parse::<ServerId>().unwrap_err();
            assert!(error.to_string().contains("server id"), "{error}");
        }
    }
}
