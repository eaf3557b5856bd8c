//! Lists of images: filters, order and pages.

use super::{COLUMNS, Image, image};
use crate::sql::{Where, params};
use crate::{Db, StoreError};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, MemberStatus, Visibility, disk_format_name};
use arcus_types::{ImageId, ProjectId, Timestamp};
use sea_orm::Value;

/// What a list may be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSortKey {
    /// The name; images without one come first.
    Name,
    /// The status's word.
    Status,
    /// The container format's word.
    ContainerFormat,
    /// The disk format's word.
    DiskFormat,
    /// The size in bytes; images without bytes come first.
    Size,
    /// The id.
    Id,
    /// When it was made.
    CreatedAt,
    /// When its record last changed.
    UpdatedAt,
}

impl ImageSortKey {
    /// An expression that is never NULL.
    fn sql(self) -> &'static str {
        match self {
            Self::Name => "COALESCE(images.name, '')",
            Self::Status => "images.status",
            Self::ContainerFormat => "COALESCE(images.container_format, '')",
            Self::DiskFormat => "COALESCE(images.disk_format, '')",
            Self::Size => "COALESCE(images.size_bytes, -1)",
            Self::Id => "images.id",
            Self::CreatedAt => "images.created_at",
            Self::UpdatedAt => "images.updated_at",
        }
    }

    fn value(self, of: &Image) -> Value {
        match self {
            Self::Name => of.name.as_ref().map_or("", |name| name.as_str()).into(),
            Self::Status => of.status.as_str().into(),
            Self::ContainerFormat => of.container_format.map_or("", ContainerFormat::as_str).into(),
            Self::DiskFormat => of.disk_format.map_or("", disk_format_name).into(),
            Self::Size => {
                of.content.as_ref().map_or(-1, |content| i64::try_from(content.size_bytes).unwrap_or(i64::MAX)).into()
            }
            Self::Id => of.id.0.into(),
            Self::CreatedAt => of.created_at.0.into(),
            Self::UpdatedAt => of.updated_at.0.into(),
        }
    }
}

/// Whose eyes a list is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageVisible {
    /// An administrator's: everything.
    ToAll,
    /// A project's: what is its own, public, or shared with it.
    To {
        /// The project; none sees public images only.
        project_id: Option<ProjectId>,
        /// Whether community images of others are listed too.
        community: bool,
        /// Of images shared with it, those to which it said this; `None` is all of them.
        member_status: Option<MemberStatus>,
    },
}

/// How an instant is tested, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeTest {
    /// Later.
    Gt,
    /// Later or the same.
    Gte,
    /// Earlier.
    Lt,
    /// Earlier or the same.
    Lte,
    /// The same.
    Eq,
    /// Not the same.
    Neq,
}

impl TimeTest {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Eq => "=",
            Self::Neq => "<>",
        }
    }
}

/// Which images a list shows. A field of `None` or an empty one does not filter.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFilter {
    /// Whose eyes it is made for.
    pub visible: ImageVisible,
    /// Only these.
    pub ids: Option<Vec<ImageId>>,
    /// Only those with one of these names.
    pub names: Option<Vec<String>>,
    /// Only those with one of these statuses.
    pub statuses: Option<Vec<ImageStatus>>,
    /// Only those with this visibility.
    pub visibility: Option<Visibility>,
    /// Only those of this project.
    pub owner: Option<ProjectId>,
    /// Only those with one of these formats.
    pub disk_formats: Option<Vec<DiskFormat>>,
    /// Only those with one of these formats.
    pub container_formats: Option<Vec<ContainerFormat>>,
    /// Only those of at least so many bytes.
    pub size_bytes_min: Option<u64>,
    /// Only those of at most so many bytes.
    pub size_bytes_max: Option<u64>,
    /// Only those with this least disk, in GiB.
    pub min_disk_gib: Option<u64>,
    /// Only those with this least memory, in MiB.
    pub min_ram_mib: Option<u64>,
    /// Only those with all of these tags.
    pub tags: Vec<String>,
    /// Only those with all of these properties.
    pub properties: Vec<(String, String)>,
    /// Only those hidden, or not.
    pub hidden: Option<bool>,
    /// Only those protected, or not.
    pub protected: Option<bool>,
    /// Only those whose MD5 is this.
    pub md5: Option<String>,
    /// Only those whose SHA-256 is this.
    pub sha256: Option<String>,
    /// Only those made then.
    pub created_at: Vec<(TimeTest, Timestamp)>,
    /// Only those whose record changed then.
    pub updated_at: Vec<(TimeTest, Timestamp)>,
    /// The order: keys, each with whether it falls. The id always comes last.
    pub sort: Vec<(ImageSortKey, bool)>,
    /// Begin after this one.
    pub marker: Option<Image>,
    /// At most so many.
    pub limit: u64,
}

impl ImageFilter {
    /// Everything that these eyes see, newest first, at most `limit`.
    pub fn new(visible: ImageVisible, limit: u64) -> Self {
        Self {
            visible,
            ids: None,
            names: None,
            statuses: None,
            visibility: None,
            owner: None,
            disk_formats: None,
            container_formats: None,
            size_bytes_min: None,
            size_bytes_max: None,
            min_disk_gib: None,
            min_ram_mib: None,
            tags: Vec::new(),
            properties: Vec::new(),
            hidden: None,
            protected: None,
            md5: None,
            sha256: None,
            created_at: Vec::new(),
            updated_at: Vec::new(),
            sort: vec![(ImageSortKey::CreatedAt, true)],
            marker: None,
            limit,
        }
    }

    fn conditions(&self) -> Where {
        let mut filter = Where::default();
        self.visible.condition(&mut filter);
        if let Some(ids) = &self.ids {
            filter.and_in("images.id", ids.clone());
        }
        if let Some(names) = &self.names {
            filter.and_in("images.name", names.clone());
        }
        if let Some(statuses) = &self.statuses {
            filter.and_in("images.status", statuses.iter().map(|status| status.as_str()).collect());
        }
        if let Some(formats) = &self.disk_formats {
            filter.and_in("images.disk_format", formats.iter().map(|format| disk_format_name(*format)).collect());
        }
        if let Some(formats) = &self.container_formats {
            filter.and_in("images.container_format", formats.iter().map(|format| format.as_str()).collect());
        }
        macro_rules! tests { ($($field:ident: $condition:literal;)*) => {
            $(if let Some(value) = self.$field.clone() { filter.and($condition, params![value]); })*
        }; }
        tests! {
            owner: "images.project_id = ?";
            size_bytes_min: "images.size_bytes >= ?";
            size_bytes_max: "images.size_bytes <= ?";
            min_disk_gib: "images.min_disk_gib = ?";
            min_ram_mib: "images.min_ram_mib = ?";
            hidden: "images.hidden = ?";
            protected: "images.protected = ?";
            md5: "images.md5 = ?";
            sha256: "images.sha256 = ?";
        }
        if let Some(visibility) = self.visibility {
            filter.and("images.visibility = ?", params![visibility.as_str()]);
        }
        for tag in &self.tags {
            let has = "EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id AND t.tag = ?)";
            filter.and(has, params![tag]);
        }
        for (name, value) in &self.properties {
            let has =
                "EXISTS (SELECT 1 FROM image_properties p WHERE p.image_id = images.id AND p.name = ? AND p.value = ?)";
            filter.and(has, params![name, value]);
        }
        for (column, tests) in [("created_at", &self.created_at), ("updated_at", &self.updated_at)] {
            for (test, at) in tests {
                let seconds = at.0.div_euclid(1_000_000);
                filter.and(&format!("images.{column} / 1000000 {} ?", test.sql()), params![seconds]);
            }
        }
        filter
    }

    /// The order, ended by the id so that no two images are equal in it.
    fn order(&self) -> Vec<(ImageSortKey, bool)> {
        let mut order = self.sort.clone();
        if order.iter().all(|(key, _)| *key != ImageSortKey::Id) {
            let falls = order.last().is_none_or(|(_, falls)| *falls);
            order.push((ImageSortKey::Id, falls));
        }
        order
    }

    /// Adds what lies after the marker: later in the first key; or the same in it and later in the second; and so on.
    fn after_marker(&self, filter: &mut Where) {
        let Some(marker) = &self.marker else { return };
        let order = self.order();
        let mut branches = Vec::new();
        let mut values = Vec::new();
        for (at, (key, falls)) in order.iter().enumerate() {
            let mut branch = String::new();
            for (same, _) in order.iter().take(at) {
                branch.push_str(&format!("{} = ? AND ", same.sql()));
                values.push(same.value(marker));
            }
            branch.push_str(&format!("{} {} ?", key.sql(), if *falls { "<" } else { ">" }));
            values.push(key.value(marker));
            branches.push(format!("({branch})"));
        }
        filter.and(&format!("({})", branches.join(" OR ")), values);
    }
}

impl ImageVisible {
    fn condition(self, filter: &mut Where) {
        let Self::To { project_id, community, member_status } = self else {
            return;
        };
        let mut any = vec!["images.visibility = 'public'"];
        let mut values = Vec::new();
        if community {
            any.push("images.visibility = 'community'");
        }
        if let Some(project_id) = project_id {
            any.push("images.project_id = ?");
            values.extend(params![project_id]);
            any.push(match member_status {
                Some(_) => {
                    "(images.visibility = 'shared' AND EXISTS (SELECT 1 FROM image_members m
                      WHERE m.image_id = images.id AND m.project_id = ? AND m.status = ?))"
                }
                None => {
                    "(images.visibility = 'shared' AND EXISTS (SELECT 1 FROM image_members m
                      WHERE m.image_id = images.id AND m.project_id = ?))"
                }
            });
            values.extend(params![project_id]);
            values.extend(member_status.iter().flat_map(|status| params![status.as_str()]));
        }
        filter.and(&format!("({})", any.join(" OR ")), values);
    }
}

impl Db {
    /// The images that a filter lets through, in its order: three statements, however many there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn image_list(&self, wanted: &ImageFilter) -> Result<Vec<Image>, StoreError> {
        let mut filter = wanted.conditions();
        wanted.after_marker(&mut filter);
        let order: Vec<String> = wanted
            .order()
            .into_iter()
            .map(|(key, falls)| format!("{} {}", key.sql(), if falls { "DESC" } else { "ASC" }))
            .collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM images{} ORDER BY {} LIMIT {}",
            filter.sql(),
            order.join(", "),
            wanted.limit.min(u64::from(u32::MAX))
        );
        let images = self.all(sql, filter.params).await?.iter().map(image).collect::<Result<_, _>>()?;
        self.image_details(images).await
    }
}
