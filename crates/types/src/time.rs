//! Instants as whole microseconds since 1970, the form in which the database keeps them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The clock of this machine. Pure code takes a `Timestamp` instead of calling this.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// This instant moved by `seconds`, held at the ends of the range.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    fn civil(self) -> jiff::civil::DateTime {
        let instant = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        jiff::tz::Offset::UTC.to_datetime(instant)
    }

    /// `2026-11-23T09:26:54Z`: compute, network (with seconds precision) and image use this form.
    pub fn iso_seconds(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2026-11-23T09:26:54.123456Z`: identity uses this form.
    pub fn iso_micros(self) -> String {
        format!("{}.{:06}Z", self.civil().strftime("%Y-%m-%dT%H:%M:%S"), self.0.rem_euclid(1_000_000))
    }

    /// `2026-11-23T09:26:54.123456`, without a zone: parts of compute and volume use this form.
    pub fn iso_naive(self) -> String {
        format!("{}.{:06}", self.civil().strftime("%Y-%m-%dT%H:%M:%S"), self.0.rem_euclid(1_000_000))
    }

    /// `Mon, 23 Nov 2026 09:26:54 GMT`: the form of HTTP's headers.
    pub fn http_date(self) -> String {
        self.civil().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Reads an ISO 8601 instant, with or without a zone (UTC is assumed) and fraction; `None` if it is not one.
    pub fn parse_iso(text: &str) -> Option<Self> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Some(Self(instant.as_microsecond()));
        }
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(zoned.timestamp().as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gets_its_form_and_all_are_read_back() {
        let t = Timestamp::parse_iso("2026-11-23T09:26:54.123456Z").unwrap();
        assert_eq!(t.iso_seconds(), "2026-11-23T09:26:54Z");
        assert_eq!(t.iso_micros(), "2026-11-23T09:26:54.123456Z");
        assert_eq!(t.iso_naive(), "2026-11-23T09:26:54.123456");
        assert_eq!(Timestamp::parse_iso(&t.iso_naive()), Some(t));
        assert_eq!(Timestamp::parse_iso("yesterday"), None);
    }
}
