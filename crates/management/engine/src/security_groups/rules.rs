//! What a filter rule may say. Pure.

use crate::EngineError;
use arcus_store::{SecurityGroupRule, ethertype_text};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::{AddressGroupId, ProjectId, SecurityGroupId, SecurityGroupRuleId, Timestamp};
use ipnet::IpNet;

/// A rule to add, as its owner wrote it.
#[derive(Debug, Clone)]
pub struct RuleNew {
    /// The group.
    pub security_group_id: SecurityGroupId,
    /// Free text.
    pub description: String,
    /// Which way.
    pub direction: Direction,
    /// Which IP version.
    pub ethertype: EtherType,
    /// A protocol's name or number; `None` or `any` is any.
    pub protocol: Option<String>,
    /// The first port, or the ICMP type.
    pub port_min: Option<i64>,
    /// The last port, or the ICMP code.
    pub port_max: Option<i64>,
    /// The other side's range.
    pub remote_cidr: Option<IpNet>,
    /// The other side's group.
    pub remote_group_id: Option<SecurityGroupId>,
    /// The other side's address group.
    pub remote_address_group_id: Option<AddressGroupId>,
}

impl RuleNew {
    /// A rule that lets in all packets of IP version 4.
    pub fn ingress(security_group_id: SecurityGroupId) -> Self {
        Self {
            security_group_id,
            description: String::new(),
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: None,
            port_min: None,
            port_max: None,
            remote_cidr: None,
            remote_group_id: None,
            remote_address_group_id: None,
        }
    }
}

/// Protocols by name. Source: the network API's list, with the numbers that IANA has assigned.
const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Protocols whose packets carry ports.
const WITH_PORTS: &[u8] = &[6, 17, 33, 132, 136];
/// Protocols that only IPv6 has.
const V6_ONLY: &[u8] = &[41, 43, 44, ICMP_V6, 59, 60];

fn invalid(code: &'static str, message: String) -> EngineError {
    EngineError::Invalid { code, message }
}

fn protocol_number(text: &str, ethertype: EtherType) -> Result<Option<u8>, EngineError> {
    let lower = text.to_ascii_lowercase();
    if lower == "any" {
        return Ok(None);
    }
    let named = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
    let number = named.or_else(|| lower.parse().ok()).ok_or_else(|| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        let shown: String = text.chars().take(64).collect();
        invalid(
            "SecurityGroupRuleInvalidProtocol",
            format!(
                "Security group rule protocol {shown} not supported. Only protocol values {} and integer representations [0 to 255] are supported.",
                names.join(", ")
            ),
        )
    })?;
    // `icmp` in a rule for IPv6 has always meant that version's own protocol.
    Ok(Some(if ethertype == EtherType::V6 && number == ICMP { ICMP_V6 } else { number }))
}

/// The rule that these wishes make.
///
/// # Errors
/// 400, under the name that the network API has for each mistake.
pub fn rule(new: &RuleNew, project_id: ProjectId, now: Timestamp) -> Result<SecurityGroupRule, EngineError> {
    let number = match &new.protocol {
        Some(text) => protocol_number(text, new.ethertype)?,
        None => None,
    };
    if new.ethertype == EtherType::V4 && number.is_some_and(|n| V6_ONLY.contains(&n)) {
        return Err(invalid(
            "SecurityGroupEthertypeConflictWithProtocol",
            format!(
                "Invalid ethertype {} for protocol {}.",
                ethertype_text(new.ethertype),
                new.protocol.as_deref().unwrap_or_default()
            ),
        ));
    }
    let (port_min, port_max) = ports(new, number)?;
    let remotes = [new.remote_cidr.is_some(), new.remote_group_id.is_some(), new.remote_address_group_id.is_some()];
    if remotes.into_iter().filter(|named| *named).count() > 1 {
        return Err(invalid(
            "SecurityGroupMultipleRemoteEntites",
            "Only remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.".into(),
        ));
    }
    if let Some(cidr) = new.remote_cidr
        && matches!(cidr, IpNet::V4(_)) != (new.ethertype == EtherType::V4)
    {
        return Err(invalid(
            "SecurityGroupRuleParameterConflict",
            format!("Conflicting value ethertype {} for CIDR {cidr}", ethertype_text(new.ethertype)),
        ));
    }
    Ok(SecurityGroupRule {
        id: SecurityGroupRuleId::new(),
        security_group_id: new.security_group_id,
        project_id,
        description: new.description.clone(),
        direction: new.direction,
        ethertype: new.ethertype,
        protocol: number.and(new.protocol.as_ref()).map(|text| text.to_ascii_lowercase()),
        protocol_number: number,
        port_min,
        port_max,
        remote_cidr: new.remote_cidr,
        remote_group_id: new.remote_group_id,
        remote_address_group_id: new.remote_address_group_id,
        revision: 1,
        created_at: now,
        updated_at: now,
    })
}

type PortRange = (Option<u16>, Option<u16>);

fn ports(new: &RuleNew, number: Option<u8>) -> Result<PortRange, EngineError> {
    let (min, max) = (new.port_min, new.port_max);
    if min.is_none() && max.is_none() {
        return Ok((None, None));
    }
    let Some(number) = number else {
        return Err(invalid(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.".into(),
        ));
    };
    if number == ICMP || number == ICMP_V6 {
        return icmp(min, max);
    }
    if !WITH_PORTS.contains(&number) {
        return Err(invalid(
            "SecurityGroupInvalidProtocolForPort",
            format!("Invalid protocol {number} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP."),
        ));
    }
    let port = |value: Option<i64>| {
        let value = value.ok_or_else(|| {
            invalid(
                "SecurityGroupInvalidPortRange",
                "For TCP/UDP protocols, port_range_min must be <= port_range_max".into(),
            )
        })?;
        u16::try_from(value)
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| invalid("SecurityGroupInvalidPortValue", format!("Invalid value for port {value}")))
    };
    let (first, last) = (port(min)?, port(max)?);
    if first > last {
        return Err(invalid(
            "SecurityGroupInvalidPortRange",
            "For TCP/UDP protocols, port_range_min must be <= port_range_max".into(),
        ));
    }
    Ok((Some(first), Some(last)))
}

fn icmp(kind: Option<i64>, code: Option<i64>) -> Result<PortRange, EngineError> {
    let octet = |field: &str, value: i64| {
        u8::try_from(value).map(u16::from).map_err(|_| {
            invalid(
                "SecurityGroupInvalidIcmpValue",
                format!("Invalid value for ICMP {field} ({value}). It must be 0 to 255."),
            )
        })
    };
    let Some(kind) = kind else {
        return Err(invalid(
            "SecurityGroupMissingIcmpType",
            format!(
                "ICMP code (port-range-max) {} is provided but ICMP type (port-range-min) is missing.",
                code.unwrap_or_default()
            ),
        ));
    };
    let kind = octet("type", kind)?;
    Ok((Some(kind), code.map(|code| octet("code", code)).transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(protocol: &str, min: Option<i64>, max: Option<i64>) -> RuleNew {
        RuleNew {
            security_group_id: SecurityGroupId::new(),
            description: String::new(),
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: Some(protocol.into()),
            port_min: min,
            port_max: max,
            remote_cidr: None,
            remote_group_id: None,
            remote_address_group_id: None,
        }
    }

    fn code(new: &RuleNew) -> &'static str {
        match rule(new, ProjectId::new(), Timestamp(0)) {
            Err(EngineError::Invalid { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_and_numbers_mean_the_same_rule() {
        let named = rule(&new("TCP", Some(22), Some(22)), ProjectId::new(), Timestamp(0)).unwrap();
        let numbered = rule(&new("6", Some(22), Some(22)), ProjectId::new(), Timestamp(0)).unwrap();
        assert_eq!(named.fingerprint(), numbered.fingerprint());
        assert_eq!((named.protocol.as_deref(), numbered.protocol.as_deref()), (Some("tcp"), Some("6")));
        let any = rule(&new("any", None, None), ProjectId::new(), Timestamp(0)).unwrap();
        assert_eq!((any.protocol, any.protocol_number), (None, None));
    }

    #[test]
    fn each_mistake_has_its_name() {
        assert_eq!(code(&new("tpc", None, None)), "SecurityGroupRuleInvalidProtocol");
        assert_eq!(code(&new("256", None, None)), "SecurityGroupRuleInvalidProtocol");
        assert_eq!(code(&new("tcp", Some(23), Some(22))), "SecurityGroupInvalidPortRange");
        assert_eq!(code(&new("tcp", None, Some(22))), "SecurityGroupInvalidPortRange");
        assert_eq!(code(&new("udp", Some(1), Some(65_536))), "SecurityGroupInvalidPortValue");
        assert_eq!(code(&new("gre", Some(1), Some(2))), "SecurityGroupInvalidProtocolForPort");
        assert_eq!(code(&new("any", Some(1), Some(2))), "SecurityGroupProtocolRequiredWithPorts");
        assert_eq!(code(&new("icmp", None, Some(0))), "SecurityGroupMissingIcmpType");
        assert_eq!(code(&new("icmp", Some(256), None)), "SecurityGroupInvalidIcmpValue");
        assert_eq!(code(&new("icmpv6", None, None)), "SecurityGroupEthertypeConflictWithProtocol");
        let wrong = RuleNew { remote_cidr: Some("fd00::/64".parse().unwrap()), ..new("tcp", None, None) };
        assert_eq!(code(&wrong), "SecurityGroupRuleParameterConflict");
    }

    #[test]
    fn a_range_is_kept_as_written_and_compared_by_its_prefix() {
        let wish = RuleNew { remote_cidr: Some("10.0.0.5/24".parse().unwrap()), ..new("tcp", None, None) };
        let made = rule(&wish, ProjectId::new(), Timestamp(0)).unwrap();
        assert_eq!(made.remote_cidr, wish.remote_cidr);
        let cut = RuleNew { remote_cidr: Some("10.0.0.0/24".parse().unwrap()), ..wish };
        let same = rule(&cut, ProjectId::new(), Timestamp(0)).unwrap();
        assert_eq!(made.fingerprint(), same.fingerprint());
        assert_eq!(made.normalized_cidr(), same.remote_cidr);
    }
}
