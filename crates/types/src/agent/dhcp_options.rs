//! DHCP options that a port's owner adds: read once from the names and texts of the API into bytes.
//!
//! Names are those that OpenStack's DHCP server (dnsmasq) knows, or an option's number. What a guest's address or the
//! exchange itself hangs on cannot be set: it follows from the port.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// An option as it goes into a DHCP answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DhcpOptionSpec {
    /// Whether it is an option of DHCPv6 and not of DHCP for IPv4.
    pub ipv6: bool,
    /// Its number; [`DhcpOptionSpec::NEXT_SERVER`] is not an option but a field.
    pub code: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// Why an option was refused; reads as a sentence that a client may be shown.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("DHCP option '{name}': {why}")]
pub struct DhcpOptionRefused {
    /// The option as it was named.
    pub name: String,
    /// What is wrong.
    pub why: &'static str,
}

/// How a value is written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
    /// Text as it is.
    Text,
    /// A number of so many bytes.
    Number(usize),
    /// Domain names (RFC 1035, 3.1) one after the other.
    Domains,
    /// Destinations and next hops, in pairs (RFC 3442).
    Routes,
    /// Whatever the text looks like: addresses, `0x` or colon-separated hexadecimal, else text.
    Guessed,
}

/// Names, numbers and kinds of options of DHCP for IPv4. Source: RFC 2132 and the list that `dnsmasq --help dhcp` prints.
const V4: &[(&str, u16, Kind)] = &[
    ("netmask", 1, Kind::V4),
    ("time-offset", 2, Kind::Number(4)),
    ("router", 3, Kind::V4),
    ("dns-server", 6, Kind::V4),
    ("log-server", 7, Kind::V4),
    ("lpr-server", 9, Kind::V4),
    ("hostname", 12, Kind::Text),
    ("boot-file-size", 13, Kind::Number(2)),
    ("domain-name", 15, Kind::Text),
    ("swap-server", 16, Kind::V4),
    ("root-path", 17, Kind::Text),
    ("extension-path", 18, Kind::Text),
    ("default-ttl", 23, Kind::Number(1)),
    ("mtu", 26, Kind::Number(2)),
    ("broadcast", 28, Kind::V4),
    ("static-route", 33, Kind::V4),
    ("nis-domain", 40, Kind::Text),
    ("nis-server", 41, Kind::V4),
    ("ntp-server", 42, Kind::V4),
    ("vendor-encap", 43, Kind::Guessed),
    ("netbios-ns", 44, Kind::V4),
    ("netbios-dd", 45, Kind::V4),
    ("netbios-nodetype", 46, Kind::Number(1)),
    ("netbios-scope", 47, Kind::Text),
    ("x-windows-fs", 48, Kind::V4),
    ("x-windows-dm", 49, Kind::V4),
    ("vendor-class", 60, Kind::Text),
    ("tftp-server", 66, Kind::Text),
    ("tftp-server-name", 66, Kind::Text),
    ("bootfile-name", 67, Kind::Text),
    ("smtp-server", 69, Kind::V4),
    ("pop3-server", 70, Kind::V4),
    ("posix-timezone", 100, Kind::Text),
    ("tzdb-timezone", 101, Kind::Text),
    ("wpad", 252, Kind::Text),
    ("domain-search", 119, Kind::Domains),
    ("classless-static-route", 121, Kind::Routes),
    ("tftp-server-address", 150, Kind::V4),
    ("server-ip-address", DhcpOptionSpec::NEXT_SERVER, Kind::V4),
];

/// The same of DHCPv6. Source: RFC 8415 and the list that `dnsmasq --help dhcp6` prints.
const V6: &[(&str, u16, Kind)] = &[
    ("sip-server-domain", 21, Kind::Domains),
    ("sip-server", 22, Kind::V6),
    ("dns-server", 23, Kind::V6),
    ("domain-search", 24, Kind::Domains),
    ("nis-server", 27, Kind::V6),
    ("nis-domain", 29, Kind::Domains),
    ("sntp-server", 31, Kind::V6),
    ("information-refresh-time", 32, Kind::Number(4)),
    ("ntp-server", 56, Kind::Guessed),
    ("bootfile-url", 59, Kind::Text),
    ("posix-timezone", 41, Kind::Text),
    ("tzdb-timezone", 42, Kind::Text),
];

impl DhcpOptionSpec {
    /// The number that stands for the field "next server" of a DHCP answer, which boot loaders read.
    pub const NEXT_SERVER: u16 = 255;

    /// How long a value may be, in bytes.
    pub const VALUE_BYTES_MAX: usize = 255;

    /// Reads an option as it is written in the API.
    ///
    /// # Errors
    /// [`DhcpOptionRefused`] tells what is wrong with it.
    pub fn parse(ipv6: bool, name: &str, value: &str) -> Result<Self, DhcpOptionRefused> {
        let refused = |why| DhcpOptionRefused { name: name.chars().take(64).collect(), why };
        let table = if ipv6 { V6 } else { V4 };
        let wanted = name.trim().strip_prefix(if ipv6 { "option6:" } else { "option:" }).unwrap_or(name.trim());
        let named = table.iter().find(|(known, _, _)| *known == wanted);
        let (code, kind) = match (named, wanted.parse::<u16>()) {
            (Some((_, code, kind)), _) => (*code, *kind),
            (None, Ok(code)) if code != Self::NEXT_SERVER => {
                (code, table.iter().find(|(_, known, _)| *known == code).map_or(Kind::Guessed, |(_, _, kind)| *kind))
            }
            (None, Ok(_)) => return Err(refused("this number is not an option")),
            (None, Err(_)) => return Err(refused("its name is unknown here; use its number")),
        };
        if !Self::is_free(ipv6, code) {
            return Err(refused("it follows from the port and cannot be set"));
        }
        let value = bytes(kind, value.trim()).ok_or_else(|| refused("its value cannot be read"))?;
        if value.is_empty() || value.len() > Self::VALUE_BYTES_MAX {
            return Err(refused("its value must have 1 to 255 bytes"));
        }
        Ok(Self { ipv6, code, value })
    }

    /// Whether an option may be set: the exchange itself does not hang on it.
    pub fn is_free(ipv6: bool, code: u16) -> bool {
        match (ipv6, code) {
            (false, 0 | 50..=59 | 61 | 81 | 82 | 90 | 118) => false,
            (false, code) => code <= 255,
            (true, code) => code >= 21 && !matches!(code, 25 | 26 | 37..=39 | 79 | 81..=83),
        }
    }
}

fn bytes(kind: Kind, text: &str) -> Option<Vec<u8>> {
    let parts = || text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty());
    match kind {
        Kind::V4 => addresses(parts(), false),
        // dnsmasq wants brackets around addresses of version 6.
        Kind::V6 => addresses(parts().map(|part| part.trim_matches(['[', ']'])), true),
        Kind::Text => plain(text),
        Kind::Number(size) => {
            let number: u32 = text.parse().ok()?;
            let all = number.to_be_bytes();
            let (cut, kept) = all.split_at(4_usize.checked_sub(size)?);
            cut.iter().all(|byte| *byte == 0).then(|| kept.to_vec())
        }
        Kind::Domains => parts().map(domain).collect::<Option<Vec<_>>>().map(|names| names.concat()),
        Kind::Routes => {
            let parts: Vec<&str> = parts().collect();
            let pairs = parts.chunks(2).map(|pair| match pair {
                [to, via] => route(to, via),
                _ => None,
            });
            pairs.collect::<Option<Vec<_>>>().map(|routes| routes.concat())
        }
        Kind::Guessed => addresses(parts(), false)
            .or_else(|| addresses(parts().map(|part| part.trim_matches(['[', ']'])), true))
            .or_else(|| hexadecimal(text))
            .or_else(|| plain(text)),
    }
}

fn addresses<'a>(parts: impl Iterator<Item = &'a str>, ipv6: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in parts {
        match (part.parse().ok()?, ipv6) {
            (IpAddr::V4(address), false) => out.extend(address.octets()),
            (IpAddr::V6(address), true) => out.extend(address.octets()),
            (IpAddr::V4(_) | IpAddr::V6(_), _) => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

fn plain(text: &str) -> Option<Vec<u8>> {
    (!text.chars().any(char::is_control)).then(|| text.as_bytes().to_vec())
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("0x") {
        let pairs = digits.as_bytes().chunks(2);
        return pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    }
    let parts: Vec<&str> = text.split(':').collect();
    let shaped = parts.len() > 1 && parts.iter().all(|part| (1..=2).contains(&part.len()));
    shaped.then(|| parts.iter().map(|part| u8::from_str_radix(part, 16).ok()).collect()).flatten()
}

/// A domain name as labels with their lengths.
fn domain(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let fine = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length) && fine)?;
        out.push(length);
        out.extend(label.bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

fn route(to: &str, via: &str) -> Option<Vec<u8>> {
    let to: ipnet::Ipv4Net = to.parse().ok()?;
    let via: Ipv4Addr = via.parse().ok()?;
    let mut out = vec![to.prefix_len()];
    out.extend(&to.network().octets()[..usize::from(to.prefix_len().div_ceil(8))]);
    out.extend(via.octets());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(name: &str, value: &str) -> Option<(u16, Vec<u8>)> {
        DhcpOptionSpec::parse(false, name, value).ok().map(|option| (option.code, option.value))
    }

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!(v4("tftp-server", "10.0.0.9"), Some((66, b"10.0.0.9".to_vec())));
        assert_eq!(v4("67", "pxelinux.0"), Some((67, b"pxelinux.0".to_vec())));
        assert_eq!(v4("option:ntp-server", "10.0.0.9, 10.0.0.10"), Some((42, vec![10, 0, 0, 9, 10, 0, 0, 10])));
        assert_eq!(v4("mtu", "1400"), Some((26, vec![5, 120])));
        assert_eq!(v4("server-ip-address", "10.0.0.9"), Some((255, vec![10, 0, 0, 9])));
        assert_eq!(v4("classless-static-route", "10.8.0.0/13,10.0.0.1"), Some((121, vec![13, 10, 8, 10, 0, 0, 1])));
        assert_eq!(v4("domain-search", "a.bc"), Some((119, b"\x01a\x02bc\0".to_vec())));
        assert_eq!(v4("224", "0x0aff"), Some((224, vec![10, 255])));
        let six = DhcpOptionSpec::parse(true, "dns-server", "[fd00::1]").unwrap();
        assert_eq!((six.code, six.value.len()), (23, 16));
    }

    #[test]
    fn what_the_exchange_hangs_on_cannot_be_set() {
        for name in ["51", "53", "54", "61", "82", "0", "255", "256", "no-such-name", "bootfile-url"] {
            assert_eq!(v4(name, "1"), None, "{name}");
        }
        for name in ["1", "3", "13", "25", "39"] {
            assert!(DhcpOptionSpec::parse(true, name, "1").is_err(), "{name}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (name, value) in [
            ("mtu", "70000"),
            ("mtu", "x"),
            ("router", "fd00::1"),
            ("ntp-server", ""),
            ("bootfile-name", "a\nb"),
            ("domain-search", "a..b"),
            ("classless-static-route", "10.0.0.0/8"),
        ] {
            assert_eq!(v4(name, value), None, "{name} {value}");
        }
        assert_eq!(v4("bootfile-name", &"x".repeat(256)), None);
    }
}
