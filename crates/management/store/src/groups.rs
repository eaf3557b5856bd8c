//! Groups of users.

use crate::roles::json_text;
use crate::sql::{Json, Row, Where, params};
use crate::text_tests::{Extra, TextTest};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, GroupId, Name, Timestamp, UserId};

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// The domain that it is in.
    pub domain_id: DomainId,
    /// Its name, unique in the domain.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which groups to list.
#[derive(Debug, Clone, Default)]
pub struct GroupFilter {
    /// In this domain.
    pub domain_id: Option<DomainId>,
    /// With such a name.
    pub names: Vec<TextTest>,
    /// That this user is in.
    pub user_id: Option<UserId>,
    /// After this one.
    pub marker: Option<GroupId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "g.id, g.domain_id, g.name, g.description, g.extra, g.created_at";

fn group(row: &Row) -> Result<Group, StoreError> {
    Ok(Group {
        id: row.get("id")?,
        domain_id: row.get("domain_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        extra: row.json("extra")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The group with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn group_get(&self, id: GroupId) -> Result<Option<Group>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM user_groups g WHERE g.id = $1"), params![id]).await?;
        row.as_ref().map(group).transpose()
    }

    /// Groups, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn group_list(&self, wanted: &GroupFilter) -> Result<Vec<Group>, StoreError> {
        let mut filter = Where::default();
        if let Some(domain_id) = wanted.domain_id {
            filter.and("g.domain_id = ?", params![domain_id]);
        }
        filter.and_texts("g.name", &wanted.names);
        if let Some(user_id) = wanted.user_id {
            filter.and("g.id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?)", params![user_id]);
        }
        if let Some(marker) = wanted.marker {
            filter.and("g.id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM user_groups g{} ORDER BY g.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(group).collect()
    }

    /// Whether a user is in a group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn group_has(&self, id: GroupId, user_id: UserId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM user_group_members WHERE group_id = $1 AND user_id = $2";
        Ok(self.one(sql, params![id, user_id]).await?.is_some())
    }
}

impl Tx {
    /// Records a group.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn group_insert(&self, new: &Group) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO user_groups (id, domain_id, name, description, extra, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.id, new.domain_id, &new.name, &new.description, Json(&new.extra), new.created_at],
        )
        .await?;
        Ok(())
    }

    /// Changes a group's name, description or attributes of the client's own; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn group_update(
        &self,
        id: GroupId,
        name: Option<&Name>,
        description: Option<&str>,
        extra: Option<&Extra>,
    ) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE user_groups SET name = COALESCE($2, name), description = COALESCE($3, description),
                 extra = COALESCE($4, extra) WHERE id = $1",
                params![id, name.cloned(), description, extra.map(json_text)],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a group with its memberships and assignments; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn group_delete(&self, id: GroupId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM user_groups WHERE id = $1", params![id]).await? == 1)
    }

    /// Puts a user into a group; `false` if it was in it.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if either is gone.
    pub async fn group_member_add(&self, id: GroupId, user_id: UserId) -> Result<bool, StoreError> {
        let sql = "INSERT INTO user_group_members (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![id, user_id]).await? == 1)
    }

    /// Takes a user out of a group; `false` if it was not in it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn group_member_remove(&self, id: GroupId, user_id: UserId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM user_group_members WHERE group_id = $1 AND user_id = $2";
        Ok(self.exec(sql, params![id, user_id]).await? == 1)
    }
}
