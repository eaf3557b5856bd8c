//! Resource providers: nodes, and what administrators register; what they have, and what is claimed of it.
//!
//! Processors, memory and disk of a node stand in the table of nodes and nowhere else: its [`Provider::node`] tells them.

use crate::nodes;
use crate::sql::{Row, Where, params};
use crate::{Db, Node, StoreError, Tx};
use arcus_types::{ProviderAggregateId, ProviderId, Timestamp};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// A provider as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// Its name, unique among providers.
    pub name: String,
    /// The provider that it is part of.
    pub parent_id: Option<ProviderId>,
    /// The provider at the root of its tree; itself if it is part of none.
    pub root_id: ProviderId,
    /// Rises whenever something is said about it.
    pub generation: u64,
    /// What it has; for a node, apart from processors, memory and disk.
    pub inventories: Vec<Inventory>,
    /// What it was said to be able to do, in order.
    pub traits: Vec<String>,
    /// The aggregates that it is in, in order.
    pub aggregates: Vec<ProviderAggregateId>,
    /// The node, if it is one.
    pub node: Option<Node>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// How much of a class of resource a provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The class.
    pub class: String,
    /// How much there is.
    pub total: u64,
    /// How much of it is not for consumers.
    pub reserved: u64,
    /// The least that one consumer may claim.
    pub min_unit: u64,
    /// The most that one consumer may claim.
    pub max_unit: u64,
    /// Claims are multiples of it.
    pub step_size: u64,
    /// How often the rest is given away, in millionths.
    pub ratio_millionths: u64,
    /// What may be claimed in all.
    pub cap: u64,
    /// What is claimed.
    pub used: u64,
}

impl Inventory {
    /// What may be claimed of `total` less `reserved`, given away so often.
    pub fn cap_of(total: u64, reserved: u64, ratio_millionths: u64) -> u64 {
        let scaled = u128::from(total.saturating_sub(reserved)) * u128::from(ratio_millionths) / 1_000_000;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Whether a claim of so much has an allowed size.
    pub fn admits(&self, amount: u64) -> bool {
        amount >= self.min_unit && amount <= self.max_unit && amount.is_multiple_of(self.step_size.max(1))
    }
}

/// A kind of name that may be made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderWord {
    /// What a provider can do.
    Trait,
    /// A class of resource.
    Class,
}

impl ProviderWord {
    const fn name(self) -> &'static str {
        match self {
            Self::Trait => "trait",
            Self::Class => "class",
        }
    }
}

/// Which providers' figures have changed since somebody last asked.
#[derive(Default)]
pub struct ProviderChanges(Mutex<BTreeSet<ProviderId>>);

impl ProviderChanges {
    /// The providers whose figures have changed since the last call.
    pub fn take(&self) -> BTreeSet<ProviderId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that they have to be read again.
    pub fn add(&self, mut ids: BTreeSet<ProviderId>) {
        if !ids.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&mut ids);
        }
    }
}

fn provider(row: &Row, node: Option<Node>) -> Result<Provider, StoreError> {
    Ok(Provider {
        id: row.get("id")?,
        name: row.get("name")?,
        parent_id: row.opt("parent_id")?,
        root_id: row.get("root_id")?,
        generation: row.get("generation")?,
        inventories: Vec::new(),
        traits: Vec::new(),
        aggregates: Vec::new(),
        node,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn inventory(row: &Row) -> Result<Inventory, StoreError> {
    Ok(Inventory {
        class: row.get("class")?,
        total: row.get("total")?,
        reserved: row.get("reserved")?,
        min_unit: row.get("min_unit")?,
        max_unit: row.get("max_unit")?,
        step_size: row.get("step_size")?,
        ratio_millionths: row.get("ratio_millionths")?,
        cap: row.get("cap")?,
        used: row.get("used")?,
    })
}

impl Db {
    /// These providers, or all of them, with all that is known of them: five queries, however many there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_list(&self, ids: Option<&[ProviderId]>) -> Result<Vec<Provider>, StoreError> {
        let among = |column: &str| {
            let mut filter = Where::default();
            if let Some(ids) = ids {
                filter.and_in(column, ids.to_vec());
            }
            filter
        };
        let filter = among("id");
        let nodes = self.all(format!("SELECT {} FROM nodes{}", nodes::COLUMNS, filter.sql()), filter.params).await?;
        let mut of_node: HashMap<ProviderId, Node> =
            nodes.iter().map(|row| self.node(row)).map(|n| n.map(|n| (n.id.into(), n))).collect::<Result<_, _>>()?;
        let filter = among("id");
        let sql = format!(
            "SELECT id, name, parent_id, root_id, generation, created_at, updated_at FROM providers{} ORDER BY created_at, id",
            filter.sql()
        );
        let mut providers = Vec::new();
        for row in self.all(sql, filter.params).await? {
            let id: ProviderId = row.get("id")?;
            providers.push(provider(&row, of_node.remove(&id))?);
        }
        let at: HashMap<ProviderId, usize> = providers.iter().enumerate().map(|(at, p)| (p.id, at)).collect();
        let filter = among("provider_id");
        let sql = format!("SELECT * FROM provider_inventories{} ORDER BY provider_id, class", filter.sql());
        for row in self.all(sql, filter.params).await? {
            if let Some(one) = at.get(&row.get("provider_id")?).and_then(|at| providers.get_mut(*at)) {
                one.inventories.push(inventory(&row)?);
            }
        }
        let filter = among("provider_id");
        let sql = format!("SELECT provider_id, trait FROM provider_traits{} ORDER BY provider_id, trait", filter.sql());
        for row in self.all(sql, filter.params).await? {
            if let Some(one) = at.get(&row.get("provider_id")?).and_then(|at| providers.get_mut(*at)) {
                one.traits.push(row.get("trait")?);
            }
        }
        let filter = among("provider_id");
        let sql = format!(
            "SELECT provider_id, aggregate_id FROM provider_aggregates{} ORDER BY provider_id, aggregate_id",
            filter.sql()
        );
        for row in self.all(sql, filter.params).await? {
            if let Some(one) = at.get(&row.get("provider_id")?).and_then(|at| providers.get_mut(*at)) {
                one.aggregates.push(row.get("aggregate_id")?);
            }
        }
        Ok(providers)
    }

    /// Whether others are part of a provider.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_has_children(&self, id: ProviderId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM providers WHERE parent_id = $1 LIMIT 1";
        Ok(self.one(sql, params![id]).await?.is_some())
    }

    /// The names of one kind that were made up, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_words(&self, kind: ProviderWord) -> Result<Vec<String>, StoreError> {
        let rows =
            self.all("SELECT name FROM provider_words WHERE kind = $1 ORDER BY name", params![kind.name()]).await?;
        rows.iter().map(|row| row.get("name")).collect()
    }

    /// Whether a provider has, or can do, what is called so.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_word_used(&self, kind: ProviderWord, name: &str) -> Result<bool, StoreError> {
        let sql = match kind {
            ProviderWord::Trait => "SELECT 1 AS one FROM provider_traits WHERE trait = $1 LIMIT 1",
            ProviderWord::Class => "SELECT 1 AS one FROM provider_inventories WHERE class = $1 LIMIT 1",
        };
        Ok(self.one(sql, params![name]).await?.is_some())
    }
}

impl Tx {
    /// Records a provider, without anything that it has.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id or the name is taken.
    pub async fn provider_insert(&self, p: &Provider) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO providers (id, name, parent_id, root_id, generation, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)",
            params![p.id, &p.name, p.parent_id, p.root_id, p.generation, p.created_at],
        )
        .await?;
        self.provider_changed(p.id);
        Ok(())
    }

    /// Renames a provider or moves it, with all below it, to another place.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn provider_update(
        &self,
        id: ProviderId,
        name: &str,
        parent_id: Option<ProviderId>,
    ) -> Result<(), StoreError> {
        self.exec(
            "UPDATE providers SET name = $2, parent_id = $3, updated_at = $4 WHERE id = $1",
            params![id, name, parent_id, Timestamp::now()],
        )
        .await?;
        self.provider_changed(id);
        Ok(())
    }

    /// Puts providers into the tree of another root.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn providers_root_set(&self, ids: &[ProviderId], root_id: ProviderId) -> Result<(), StoreError> {
        for id in ids {
            self.exec("UPDATE providers SET root_id = $2 WHERE id = $1", params![*id, root_id]).await?;
            self.provider_changed(*id);
        }
        Ok(())
    }

    /// Forgets a provider and all that it has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_delete(&self, id: ProviderId) -> Result<bool, StoreError> {
        let changed = self.exec("DELETE FROM providers WHERE id = $1", params![id]).await?;
        self.provider_changed(id);
        Ok(changed == 1)
    }

    /// Raises a provider's generation; `false` if it is not `known` any more. `None` raises it whatever it is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_generation_raise(&self, id: ProviderId, known: Option<u64>) -> Result<bool, StoreError> {
        self.provider_changed(id);
        let now = Timestamp::now();
        let changed = match known {
            Some(known) => {
                self.exec(
                    "UPDATE providers SET generation = generation + 1, updated_at = $3 WHERE id = $1 AND generation = $2",
                    params![id, known, now],
                )
                .await?
            }
            None => {
                self.exec(
                    "UPDATE providers SET generation = generation + 1, updated_at = $2 WHERE id = $1",
                    params![id, now],
                )
                .await?
            }
        };
        Ok(changed == 1)
    }

    /// Says how much of a class a provider has; what is claimed of it stays. `false` if more is claimed than the provider
    /// then has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn inventory_set(&self, id: ProviderId, i: &Inventory) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "INSERT INTO provider_inventories (provider_id, class, total, reserved, min_unit, max_unit, step_size,
                 ratio_millionths, cap, used) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)
                 ON CONFLICT (provider_id, class) DO UPDATE SET total = $3, reserved = $4, min_unit = $5, max_unit = $6,
                 step_size = $7, ratio_millionths = $8, cap = $9",
                params![
                    id,
                    &i.class,
                    i.total,
                    i.reserved,
                    i.min_unit,
                    i.max_unit,
                    i.step_size,
                    i.ratio_millionths,
                    i.cap
                ],
            )
            .await?;
        self.provider_changed(id);
        Ok(changed == 1)
    }

    /// A provider has nothing of this class any more; `false` if something is claimed of it, or it had nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn inventory_delete(&self, id: ProviderId, class: &str) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "DELETE FROM provider_inventories WHERE provider_id = $1 AND class = $2 AND used = 0",
                params![id, class],
            )
            .await?;
        self.provider_changed(id);
        Ok(changed == 1)
    }

    /// Claims of a provider; `false` if there is not so much left, and then nothing is claimed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn inventory_claim(&self, id: ProviderId, class: &str, amount: u64) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE provider_inventories SET used = used + $3
                 WHERE provider_id = $1 AND class = $2 AND used + $3 <= cap",
                params![id, class, amount],
            )
            .await?;
        self.provider_changed(id);
        Ok(changed == 1)
    }

    /// Gives back what was claimed of a provider.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn inventory_release(&self, id: ProviderId, class: &str, amount: u64) -> Result<(), StoreError> {
        self.exec(
            "UPDATE provider_inventories SET used = used - $3 WHERE provider_id = $1 AND class = $2",
            params![id, class, amount],
        )
        .await?;
        self.provider_changed(id);
        Ok(())
    }

    /// Says what a provider can do, all of it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_traits_set(&self, id: ProviderId, traits: &[String]) -> Result<(), StoreError> {
        self.exec("DELETE FROM provider_traits WHERE provider_id = $1", params![id]).await?;
        for name in traits {
            self.exec("INSERT INTO provider_traits (provider_id, trait) VALUES ($1, $2)", params![id, name]).await?;
        }
        self.provider_changed(id);
        Ok(())
    }

    /// Says which aggregates a provider is in, all of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_aggregates_set(
        &self,
        id: ProviderId,
        aggregates: &[ProviderAggregateId],
    ) -> Result<(), StoreError> {
        self.exec("DELETE FROM provider_aggregates WHERE provider_id = $1", params![id]).await?;
        for aggregate in aggregates {
            self.exec(
                "INSERT INTO provider_aggregates (provider_id, aggregate_id) VALUES ($1, $2)",
                params![id, *aggregate],
            )
            .await?;
        }
        self.provider_changed(id);
        Ok(())
    }

    /// Makes a name up; `false` if it was made up before.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_word_insert(&self, kind: ProviderWord, name: &str) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "INSERT INTO provider_words (kind, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                params![kind.name(), name, Timestamp::now()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Forgets a name that was made up; `false` if it was not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_word_delete(&self, kind: ProviderWord, name: &str) -> Result<bool, StoreError> {
        let changed =
            self.exec("DELETE FROM provider_words WHERE kind = $1 AND name = $2", params![kind.name(), name]).await?;
        Ok(changed == 1)
    }
}
