//! Offers to take over a volume. The key that goes with an offer is kept as a salted hash alone.

use crate::sql::{Row, Where, params};
use crate::volumes::ordered;
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, Timestamp, TransferId, VolumeId};

/// An offer to take over a volume. It ends when it is accepted or withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTransfer {
    /// Its id.
    pub id: TransferId,
    /// The volume.
    pub volume_id: VolumeId,
    /// Its name.
    pub name: Option<String>,
    /// What was hashed before the key, in hexadecimal digits.
    pub salt: String,
    /// The SHA-256 of salt and key, in hexadecimal digits.
    pub key_hash: String,
    /// Whether the volume's snapshots stay with the project that offers it.
    pub no_snapshots: bool,
    /// Who offers it.
    pub source_project_id: ProjectId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which offers a list holds.
#[derive(Debug, Clone, Default)]
pub struct VolumeTransferFilter {
    /// Of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// With exactly this name.
    pub name: Option<String>,
    /// Of this volume.
    pub volume_id: Option<VolumeId>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeTransferSort, bool)>,
    /// The offer after which the page begins.
    pub marker: Option<TransferId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

/// What a list of offers can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeTransferSort {
    /// The time of creation.
    CreatedAt,
    /// The name.
    Name,
    /// The id.
    Id,
}

const COLUMNS: &str = "id, volume_id, name, salt, key_hash, no_snapshots, source_project_id, created_at";

fn transfer(row: &Row) -> Result<VolumeTransfer, StoreError> {
    Ok(VolumeTransfer {
        id: row.get("id")?,
        volume_id: row.get("volume_id")?,
        name: row.opt("name")?,
        salt: row.get("salt")?,
        key_hash: row.get("key_hash")?,
        no_snapshots: row.get("no_snapshots")?,
        source_project_id: row.get("source_project_id")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The offer with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_transfer_get(&self, id: TransferId) -> Result<Option<VolumeTransfer>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_transfers WHERE id = $1"), params![id]).await?;
        row.as_ref().map(transfer).transpose()
    }

    /// Offers, the newest first, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_transfer_list(&self, wanted: &VolumeTransferFilter) -> Result<Vec<VolumeTransfer>, StoreError> {
        let mut filter = Where::default();
        if let Some(project) = wanted.project_id {
            filter.and("source_project_id = ?", params![project]);
        }
        if let Some(name) = &wanted.name {
            filter.and("name = ?", params![name]);
        }
        if let Some(volume) = wanted.volume_id {
            filter.and("volume_id = ?", params![volume]);
        }
        let key = |sort: VolumeTransferSort| match sort {
            VolumeTransferSort::CreatedAt => "created_at",
            VolumeTransferSort::Name => "COALESCE(name, '')",
            VolumeTransferSort::Id => "id",
        };
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(sort, down)| (key(*sort), *down)).collect();
        if sort.is_empty() {
            sort.push(("created_at", true));
        }
        let marker = wanted.marker.map(|m| m.0);
        let sql = ordered("volume_transfers", COLUMNS, &mut filter, sort, marker, wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(transfer).collect()
    }
}

impl Tx {
    /// Records an offer.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the volume is offered already.
    pub async fn volume_transfer_insert(&self, new: &VolumeTransfer) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO volume_transfers ({COLUMNS}, accepted) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE)"
            ),
            params![
                new.id,
                new.volume_id,
                &new.name,
                &new.salt,
                &new.key_hash,
                new.no_snapshots,
                new.source_project_id,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Forgets an offer; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_transfer_delete(&self, id: TransferId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_transfers WHERE id = $1", params![id]).await? == 1)
    }
}
