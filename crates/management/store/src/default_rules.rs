//! What new security groups begin with.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::security_groups::{direction_text, ethertype_text};
use crate::sql::{Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::DefaultRuleId;
use arcus_types::agent::{Direction, EtherType};

/// A rule that new security groups begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRule {
    /// Its id.
    pub id: DefaultRuleId,
    /// Free text.
    pub description: String,
    /// Which way, seen from the guest.
    pub direction: Direction,
    /// Which IP version.
    pub ethertype: EtherType,
    /// The protocol as it was written.
    pub protocol: Option<String>,
    /// The protocol's number; `None` is any.
    pub protocol_number: Option<u8>,
    /// The first port, or the ICMP type.
    pub port_min: Option<u16>,
    /// The last port, or the ICMP code.
    pub port_max: Option<u16>,
    /// The other side's range.
    pub remote_cidr: Option<ipnet::IpNet>,
    /// Whether the other side is the new group itself.
    pub remote_self: bool,
    /// Whether projects' default groups get it.
    pub in_default: bool,
    /// Whether all other groups get it.
    pub in_others: bool,
}

/// What a list of these rules can be filtered and sorted by.
pub const DEFAULT_RULE_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("description", "description"),
    Field::text("direction", "direction"),
    Field::text("ethertype", "ethertype"),
    Field::text("protocol", "protocol").or_null(),
    Field::number("port_range_min", "port_min").or_null(),
    Field::number("port_range_max", "port_max").or_null(),
    Field::text("remote_ip_prefix", "remote_cidr").or_null(),
    Field::flag("used_in_default_sg", "in_default"),
    Field::flag("used_in_non_default_sg", "in_others"),
];

const RULES: ListOf = ListOf {
    table: "default_security_group_rules",
    columns: "id, description, direction, ethertype, protocol, protocol_number, port_min, port_max, remote_cidr, \
              remote_self, in_default, in_others",
    visible: "1 = 1",
};

fn rule(row: &Row) -> Result<DefaultRule, StoreError> {
    let (direction, ethertype): (String, String) = (row.get("direction")?, row.get("ethertype")?);
    Ok(DefaultRule {
        id: row.get("id")?,
        description: row.get("description")?,
        direction: if direction == direction_text(Direction::Ingress) { Direction::Ingress } else { Direction::Egress },
        ethertype: if ethertype == ethertype_text(EtherType::V4) { EtherType::V4 } else { EtherType::V6 },
        protocol: row.opt("protocol")?,
        protocol_number: row.opt("protocol_number")?,
        port_min: row.opt("port_min")?,
        port_max: row.opt("port_max")?,
        remote_cidr: row.opt("remote_cidr")?,
        remote_self: row.get("remote_self")?,
        in_default: row.get("in_default")?,
        in_others: row.get("in_others")?,
    })
}

impl Db {
    /// The rule with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn default_rule_get(&self, id: DefaultRuleId) -> Result<Option<DefaultRule>, StoreError> {
        let sql = format!("SELECT {} FROM default_security_group_rules WHERE id = $1", RULES.columns);
        self.one(sql, params![id]).await?.as_ref().map(rule).transpose()
    }

    /// A page of rules.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn default_rule_list(&self, listing: &Listing) -> Result<Page<DefaultRule>, StoreError> {
        self.page(&RULES, listing, |_| {}, rule).await
    }
}

impl Tx {
    /// Whether this is the first time that somebody asks; `true` just once, for the transaction that then makes the rules
    /// that every cloud begins with.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn default_rules_first(&self) -> Result<bool, StoreError> {
        let made = self.one("SELECT id FROM default_security_group_rules_made", params![]).await?;
        if made.is_some() {
            return Ok(false);
        }
        let sql = "INSERT INTO default_security_group_rules_made (id) VALUES (1) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![]).await? == 1)
    }

    /// Records a rule.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn default_rule_insert(&self, rule: &DefaultRule) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO default_security_group_rules (id, description, direction, ethertype, protocol, protocol_number,
             port_min, port_max, remote_cidr, remote_self, in_default, in_others)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            params![
                rule.id,
                &rule.description,
                direction_text(rule.direction),
                ethertype_text(rule.ethertype),
                &rule.protocol,
                rule.protocol_number,
                rule.port_min,
                rule.port_max,
                rule.remote_cidr,
                rule.remote_self,
                rule.in_default,
                rule.in_others
            ],
        )
        .await?;
        Ok(())
    }

    /// Removes a rule; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn default_rule_delete(&self, id: DefaultRuleId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM default_security_group_rules WHERE id = $1", params![id]).await? == 1)
    }
}
