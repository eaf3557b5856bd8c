//! How rows and parameters cross between Rust and SQL: ids, instants and JSON text have one form in every table.
//!
//! Ids are UUID columns, instants BIGINT microseconds, documents TEXT holding JSON, addresses TEXT, life cycles TEXT.

use crate::{Db, Link, StoreError, Tx};
use arcus_types::{MacAddr, Name, Timestamp};
use sea_orm::{ConnectionTrait, QueryResult, Statement, TryGetable, Value};
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// A value that can be bound to `$n`.
pub(crate) trait Param {
    fn value(self) -> Value;
}

macro_rules! plain_params { ($($t:ty),*) => {$(
    impl Param for $t { fn value(self) -> Value { self.into() } }
    impl Param for Option<$t> { fn value(self) -> Value { self.into() } }
)*}; }
plain_params!(i64, i32, bool, String, Uuid);

impl Param for &str {
    fn value(self) -> Value {
        self.to_owned().into()
    }
}
impl Param for Option<&str> {
    fn value(self) -> Value {
        self.map(str::to_owned).into()
    }
}
impl Param for &String {
    fn value(self) -> Value {
        self.clone().into()
    }
}
impl Param for &Option<String> {
    fn value(self) -> Value {
        self.clone().into()
    }
}

macro_rules! column_types { ($($t:ty => $sql:ty, |$v:ident| $to:expr, |$w:ident| $from:expr;)*) => {$(
    impl Param for $t { fn value(self) -> Value { let $v = self; Value::from($to) } }
    impl Param for &$t { fn value(self) -> Value { let $v = self.clone(); Value::from($to) } }
    impl Param for Option<$t> { fn value(self) -> Value { Value::from(self.map(|$v| $to)) } }
    impl Column for $t {
        type Sql = $sql;
        fn from_sql($w: $sql) -> Option<Self> { $from }
    }
)*}; }

/// A type that a column is read as.
pub(crate) trait Column: Sized {
    type Sql: TryGetable + std::fmt::Debug + Clone;
    fn from_sql(value: Self::Sql) -> Option<Self>;
}

macro_rules! plain_columns { ($($t:ty),*) => {$(
    impl Column for $t { type Sql = $t; fn from_sql(value: $t) -> Option<$t> { Some(value) } }
)*}; }
plain_columns!(i64, i32, bool, String, Uuid);

macro_rules! id_columns { ($($t:ident),* $(,)?) => { column_types! { $(
    arcus_types::$t => Uuid, |v| v.0, |w| Some(arcus_types::$t(w));
)* } }; }
id_columns!(
    ServerId,
    NodeId,
    AggregateId,
    MigrationId,
    ImageId,
    NetworkId,
    SubnetId,
    SubnetPoolId,
    PortId,
    RouterId,
    FloatingIpId,
    SecurityGroupId,
    SecurityGroupRuleId,
    VolumeId,
    VolumeSnapshotId,
    AttachmentId,
    VolumeTypeId,
    QosSpecsId,
    TransferId,
    ServerGroupId,
    ProviderId,
    ProviderAggregateId,
    ConsumerId,
    AuditId,
    UsageEventId,
    RequestId,
    UserId,
    GroupId,
    ProjectId,
    RoleId,
    ApplicationCredentialId,
    ServiceId,
    EndpointId,
    DomainId,
);

fn unsigned(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

column_types! {
    Timestamp => i64, |v| v.0, |w| Some(Timestamp(w));
    u64 => i64, |v| unsigned(v), |w| u64::try_from(w).ok();
    u32 => i64, |v| i64::from(v), |w| u32::try_from(w).ok();
    u16 => i64, |v| i64::from(v), |w| u16::try_from(w).ok();
    u8 => i64, |v| i64::from(v), |w| u8::try_from(w).ok();
    Name => String, |v| v.as_str().to_owned(), |w| w.parse().ok();
    MacAddr => String, |v| v.to_string(), |w| w.parse().ok();
    std::net::IpAddr => String, |v| v.to_string(), |w| w.parse().ok();
    ipnet::IpNet => String, |v| v.to_string(), |w| w.parse().ok();
}

/// A document in a TEXT column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Json<T>(pub T);

impl<T: serde::Serialize> Param for Json<&T> {
    fn value(self) -> Value {
        serde_json::to_string(self.0).unwrap_or_default().into()
    }
}

impl<T: serde::de::DeserializeOwned> Column for Json<T> {
    type Sql = String;
    fn from_sql(value: String) -> Option<Self> {
        serde_json::from_str(&value).ok().map(Json)
    }
}

/// The parameters of a statement, in the order of `$1`, `$2`, ….
macro_rules! params {
    ($($p:expr),* $(,)?) => { vec![$($crate::sql::Param::value($p)),*] };
}
pub(crate) use params;

/// One row of an answer.
pub(crate) struct Row(QueryResult);

impl Row {
    /// The value of a column that is never NULL.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, StoreError> {
        let value: T::Sql = self.0.try_get("", column)?;
        T::from_sql(value.clone()).ok_or_else(|| corrupt(column, &value))
    }

    /// The value of a column that may be NULL.
    pub fn opt<T: Column>(&self, column: &str) -> Result<Option<T>, StoreError>
    where
        Option<T::Sql>: TryGetable,
    {
        let value: Option<T::Sql> = self.0.try_get("", column)?;
        value.map(|v| T::from_sql(v.clone()).ok_or_else(|| corrupt(column, &v))).transpose()
    }

    /// The document in a TEXT column.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        Ok(self.get::<Json<T>>(column)?.0)
    }

    /// A value with a text form, such as a life cycle: read by `FromStr`.
    pub fn text<T: std::str::FromStr>(&self, column: &str) -> Result<T, StoreError> {
        let value: String = self.get(column)?;
        value.parse().map_err(|_| corrupt(column, &value))
    }
}

fn corrupt(column: &str, value: &impl std::fmt::Debug) -> StoreError {
    StoreError::Corrupt { column: column.to_owned(), value: format!("{value:?}").chars().take(80).collect() }
}

impl Db {
    fn statement(&self, sql: impl Into<String>, params: Vec<Value>) -> Statement {
        self.queries.fetch_add(1, Ordering::Relaxed);
        Statement::from_sql_and_values(self.backend(), sql, params)
    }

    /// All rows of an answer.
    pub(crate) async fn all(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let statement = self.statement(sql, params);
        let rows = match &self.link {
            Link::Pool(db) => db.query_all_raw(statement).await?,
            Link::Transaction(tx) => tx.query_all_raw(statement).await?,
        };
        Ok(rows.into_iter().map(Row).collect())
    }

    /// The first row of an answer.
    pub(crate) async fn one(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<Option<Row>, StoreError> {
        let statement = self.statement(sql, params);
        let row = match &self.link {
            Link::Pool(db) => db.query_one_raw(statement).await?,
            Link::Transaction(tx) => tx.query_one_raw(statement).await?,
        };
        Ok(row.map(Row))
    }
}

impl Tx {
    /// Runs a statement that writes; how many rows it changed.
    pub(crate) async fn exec(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<u64, StoreError> {
        let statement = self.db.statement(sql, params);
        let Link::Transaction(tx) = &self.db.link else { return Err(StoreError::Unaudited) };
        let changed = tx.execute_raw(statement).await?.rows_affected();
        if changed > 0 {
            self.wrote.store(true, Ordering::Relaxed);
        }
        Ok(changed)
    }
}

/// Builds the variable part of a list query: conditions, each with its parameters, joined by AND.
#[derive(Default)]
pub(crate) struct Where {
    text: String,
    pub params: Vec<Value>,
}

impl Where {
    /// Adds a condition; each `?` in it becomes the next `$n` for the next parameter.
    pub fn and(&mut self, condition: &str, params: Vec<Value>) -> &mut Self {
        self.text.push_str(if self.text.is_empty() { " WHERE " } else { " AND " });
        let mut params = params.into_iter();
        for piece in condition.split_inclusive('?') {
            match piece.strip_suffix('?') {
                Some(before) => {
                    self.params.extend(params.next());
                    self.text.push_str(before);
                    self.text.push_str(&format!("${}", self.params.len()));
                }
                None => self.text.push_str(piece),
            }
        }
        self
    }

    /// Adds `column IN (…)` for a list of values; an empty list matches nothing.
    pub fn and_in<T: Param>(&mut self, column: &str, values: Vec<T>) -> &mut Self {
        if values.is_empty() {
            return self.and("1 = 0", vec![]);
        }
        let marks = vec!["?"; values.len()].join(", ");
        let params = values.into_iter().map(Param::value).collect();
        self.and(&format!("{column} IN ({marks})"), params)
    }

    /// The text, with ` WHERE ` before it unless there is no condition.
    pub fn sql(&self) -> &str {
        &self.text
    }
}
