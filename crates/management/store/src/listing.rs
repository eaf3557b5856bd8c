//! Lists as the network API asks for them: filters on any attribute, several sort keys, pages from a marker on.
//!
//! The caller names fields from a static table ([`Field`]), so no text of a client ever becomes SQL.

use crate::sql::{Param, Row, Where};
use crate::{Db, StoreError};
use arcus_types::{ProjectId, Timestamp};
use sea_orm::Value;
use uuid::Uuid;

/// The most rows that one page holds.
pub const PAGE_ROWS_MAX: u64 = 2_000;

/// How a column's values are written in a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// An id.
    Id,
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// An instant, as ISO 8601 has it; to the second.
    Time,
    /// Whether a thing is shared with whoever asks: its own column `shared`, or a policy for that project.
    Shared,
}

/// An attribute that a list can be filtered by and, unless it may be NULL, sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The attribute's name in the API.
    pub name: &'static str,
    /// The column.
    pub column: &'static str,
    /// How values are written.
    pub kind: FieldKind,
    /// Whether rows can be sorted by it.
    pub sorts: bool,
}

impl Field {
    /// An attribute that holds an id.
    pub const fn id(name: &'static str, column: &'static str) -> Self {
        Self { name, column, kind: FieldKind::Id, sorts: true }
    }
    /// An attribute that holds text.
    pub const fn text(name: &'static str, column: &'static str) -> Self {
        Self { name, column, kind: FieldKind::Text, sorts: true }
    }
    /// An attribute that is true or false.
    pub const fn flag(name: &'static str, column: &'static str) -> Self {
        Self { name, column, kind: FieldKind::Flag, sorts: true }
    }
    /// An attribute that is a whole number.
    pub const fn number(name: &'static str, column: &'static str) -> Self {
        Self { name, column, kind: FieldKind::Number, sorts: true }
    }
    /// An attribute that is an instant.
    pub const fn time(name: &'static str, column: &'static str) -> Self {
        Self { name, column, kind: FieldKind::Time, sorts: true }
    }
    /// The attribute `shared` of a thing that can be shared by policy.
    pub const fn shared() -> Self {
        Self { name: "shared", column: "shared", kind: FieldKind::Shared, sorts: true }
    }
    /// The same attribute, whose value may be missing.
    pub const fn or_null(self) -> Self {
        Self { sorts: false, ..self }
    }
}

/// Which tags a thing must have or not have; an empty list asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagFilter {
    /// All of these.
    pub all: Vec<String>,
    /// At least one of these.
    pub any: Vec<String>,
    /// Not all of these.
    pub not_all: Vec<String>,
    /// None of these.
    pub not_any: Vec<String>,
}

/// What a list shall hold, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Each field must have one of its values.
    pub filters: Vec<(Field, Vec<String>)>,
    /// What to sort by, and whether downwards; the id comes last.
    pub sort: Vec<(Field, bool)>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// The row after which the page begins.
    pub marker: Option<Uuid>,
    /// Whether the page is the one that ends before the marker.
    pub reverse: bool,
    /// Only what this project may see; `None` is everything.
    pub viewer: Option<ProjectId>,
    /// Only what has, or has not, these tags; for things that can be tagged.
    pub tags: TagFilter,
    /// Only what changed at this instant or later.
    pub changed_since: Option<Timestamp>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows, in the order asked for.
    pub rows: Vec<T>,
    /// Whether there is more in the direction of reading.
    pub more: bool,
}

/// The fixed part of a list query.
pub(crate) struct ListOf {
    pub table: &'static str,
    pub columns: &'static str,
    /// What a project may see; each `?` is the project's id.
    pub visible: &'static str,
}

impl Db {
    /// Runs a list; `more` adds conditions.
    pub(crate) async fn page<T>(
        &self,
        of: &ListOf,
        listing: &Listing,
        more: impl FnOnce(&mut Where),
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let mut filter = Where::default();
        if let Some(viewer) = listing.viewer {
            let count = of.visible.matches('?').count();
            filter.and(of.visible, vec![viewer.value(); count]);
        }
        for (field, values) in &listing.filters {
            narrow(&mut filter, field, values, listing.viewer);
        }
        self.narrow_by_tags(&mut filter, &listing.tags);
        if let Some(since) = listing.changed_since {
            filter.and("updated_at >= ?", vec![since.value()]);
        }
        more(&mut filter);
        let mut sort: Vec<(&str, bool)> =
            listing.sort.iter().filter(|(f, _)| f.sorts).map(|(f, down)| (f.column, *down)).collect();
        if !sort.iter().any(|(column, _)| *column == "id") {
            sort.push(("id", false));
        }
        for (_, down) in &mut sort {
            *down ^= listing.reverse;
        }
        if let Some(marker) = listing.marker {
            behind(&mut filter, of.table, &sort, marker);
        }
        let order: Vec<String> =
            sort.iter().map(|(column, down)| format!("{column}{}", if *down { " DESC" } else { "" })).collect();
        let limit = listing.limit.unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
        let sql = format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT {}",
            of.columns,
            of.table,
            filter.sql(),
            order.join(", "),
            limit + 1
        );
        let found = self.all(sql, filter.params).await?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        let mut rows = found.iter().take(keep).map(read).collect::<Result<Vec<T>, _>>()?;
        if listing.reverse {
            rows.reverse();
        }
        Ok(Page { rows, more })
    }
}

impl Db {
    /// Tags are a JSON list of strings: one is there if its text, quoted, is part of the list's.
    fn narrow_by_tags(&self, filter: &mut Where, tags: &TagFilter) {
        let find = if self.is_postgres() { "strpos" } else { "instr" };
        let one = format!("{find}(tags, ?) > 0");
        let mut must = |tags: &[String], joined: &str, negated: bool| {
            if !tags.is_empty() {
                let tests = vec![one.as_str(); tags.len()].join(joined);
                let quoted = tags.iter().map(|tag| serde_json::Value::from(tag.as_str()).to_string().value());
                filter.and(&format!("{}({tests})", if negated { "NOT " } else { "" }), quoted.collect());
            }
        };
        must(&tags.all, " AND ", false);
        must(&tags.any, " OR ", false);
        must(&tags.not_all, " AND ", true);
        must(&tags.not_any, " OR ", true);
    }
}

fn narrow(filter: &mut Where, field: &Field, values: &[String], viewer: Option<ProjectId>) {
    match field.kind {
        FieldKind::Id => {
            let ids: Vec<Uuid> = values.iter().filter_map(|v| Uuid::try_parse(v).ok()).collect();
            filter.and_in(field.column, ids);
        }
        FieldKind::Text => {
            filter.and_in(field.column, values.to_vec());
        }
        FieldKind::Flag => {
            let flags: Vec<bool> = values.iter().filter_map(|v| flag(v)).collect();
            filter.and_in(field.column, flags);
        }
        FieldKind::Number => {
            let numbers: Vec<i64> = values.iter().filter_map(|v| v.parse().ok()).collect();
            filter.and_in(field.column, numbers);
        }
        FieldKind::Time => {
            // Instants are shown to the second.
            let seconds: Vec<i64> =
                values.iter().filter_map(|v| Timestamp::parse_iso(v)).map(|t| t.0 / 1_000_000).collect();
            filter.and_in(&format!("{} / 1000000", field.column), seconds);
        }
        FieldKind::Shared => {
            let (by_policy, params) = match viewer {
                Some(viewer) => (
                    "(shared OR id IN (SELECT object_id FROM rbac_policies WHERE target_id = ?
                     AND action = 'access_as_shared'))",
                    vec![viewer.value()],
                ),
                None => ("shared", vec![]),
            };
            let mut wanted: Vec<bool> = values.iter().filter_map(|v| flag(v)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            match wanted.as_slice() {
                [true] => filter.and(by_policy, params),
                [false] => filter.and(&format!("NOT {by_policy}"), params),
                [] => filter.and("1 = 0", vec![]),
                _ => filter,
            };
        }
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "on" => Some(true),
        "false" | "0" | "f" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Rows that sort behind the marker's row: the first key differs, or it is the same and the next one differs, and so on.
pub(crate) fn behind(filter: &mut Where, table: &str, sort: &[(&str, bool)], marker: Uuid) {
    let of_marker = |column: &str| format!("(SELECT {column} FROM {table} WHERE id = ?)");
    let mut cases = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (index, (column, down)) in sort.iter().enumerate() {
        let mut parts: Vec<String> =
            sort[..index].iter().map(|(same, _)| format!("{same} = {}", of_marker(same))).collect();
        let sign = if *down { "<" } else { ">" };
        parts.push(format!("{column} {sign} {}", of_marker(column)));
        values.extend(std::iter::repeat_n(marker.value(), index + 1));
        cases.push(format!("({})", parts.join(" AND ")));
    }
    filter.and(&format!("({})", cases.join(" OR ")), values);
}
