//! Text that is checked once, at the edge, and cannot be wrong afterwards.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text was refused; reads as a sentence that a client may be shown.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Rejected(pub String);

/// A name that a user chose: 1 to 255 characters, no control characters, no white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// The most characters that a [`Name`] holds.
pub const NAME_CHARS_MAX: usize = 255;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A host name made from this name: lower-case letters, digits and dashes, at most 63; `server` if nothing is left.
    pub fn host_name(&self) -> String {
        let mut out = String::with_capacity(self.0.len().min(63));
        for c in self.0.chars() {
            match c {
                'a'..='z' | '0'..='9' => out.push(c),
                'A'..='Z' => out.push(c.to_ascii_lowercase()),
                '-' | '_' | ' ' | '.' if !out.is_empty() && !out.ends_with('-') => out.push('-'),
                _ => {}
            }
            if out.len() == 63 {
                break;
            }
        }
        let trimmed = out.trim_end_matches('-');
        if trimmed.is_empty() { "server".to_owned() } else { trimmed.to_owned() }
    }
}

impl FromStr for Name {
    type Err = Rejected;
    fn from_str(text: &str) -> Result<Self, Rejected> {
        if text.trim().is_empty() {
            return Err(Rejected("a name must not be empty or only white space".into()));
        }
        if text.trim() != text {
            return Err(Rejected("a name must not begin or end with white space".into()));
        }
        if text.chars().count() > NAME_CHARS_MAX {
            return Err(Rejected(format!("a name holds at most {NAME_CHARS_MAX} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(Rejected("a name must not hold control characters".into()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An Ethernet address, written in lower case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address that guests' ports get: locally administered, `fa:16:3e` and three octets of `seed`.
    pub fn for_port(seed: [u8; 3]) -> Self {
        Self([0xfa, 0x16, 0x3e, seed[0], seed[1], seed[2]])
    }

    /// The interface identifier of RFC 4291, appendix A (EUI-64 with the universal bit flipped).
    pub fn eui64(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = Rejected;
    fn from_str(text: &str) -> Result<Self, Rejected> {
        let refuse = || Rejected(format!("'{}' is not a valid MAC address", text.chars().take(64).collect::<String>()));
        let mut octets = [0_u8; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part =
                parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(refuse)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!("web 1".parse::<Name>().is_ok());
        for bad in ["", "  ", " web", "a\nb", &"x".repeat(256)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!("Web Server_1!".parse::<Name>().unwrap().host_name(), "web-server-1");
        assert_eq!("服务器".parse::<Name>().unwrap().host_name(), "server");
    }

    #[test]
    fn mac_addresses_round_trip() {
        let mac: MacAddr = "FA:16:3e:01:02:03".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:01:02:03");
        assert_eq!(mac, MacAddr::for_port([1, 2, 3]));
        assert_eq!(mac.eui64(), [0xf8, 0x16, 0x3e, 0xff, 0xfe, 1, 2, 3]);
        for bad in ["", "fa:16:3e:01:02", "fa:16:3e:01:02:03:04", "zz:16:3e:01:02:03", "fa:16:3e:01:02:+3"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
