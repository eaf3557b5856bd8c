//! Address groups: named lists of ranges that rules of security groups refer to.

use crate::networks::{found, own_project, seen_by};
use crate::{Engine, EngineError};
use arcus_store::{AddressGroup, AuditEntry, Db, Listing, Page, StoreError, Tx};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{AddressGroupId, OpCtx, ProjectId, Timestamp};
use ipnet::IpNet;
use serde_json::json;

/// The most ranges of a group.
const ADDRESSES_MAX: usize = 1_000;

/// An address group to make.
#[derive(Debug, Clone, Default)]
pub struct AddressGroupNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its ranges.
    pub addresses: Vec<IpNet>,
}

/// What of an address group may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct AddressGroupChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Ranges that it gets besides.
    pub add: Vec<IpNet>,
    /// Ranges that it loses.
    pub remove: Vec<IpNet>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

const GROUP: (&str, &str) = ("AddressGroupNotFound", "Address group");

/// What the list becomes. Pure.
fn changed(group: &AddressGroup, change: &AddressGroupChange) -> Result<Vec<IpNet>, EngineError> {
    let mut addresses = group.addresses.clone();
    for new in change.add.iter().map(IpNet::trunc) {
        if addresses.contains(&new) {
            return Err(EngineError::Conflict {
                code: "AddressesAlreadyExist",
                message: format!("Addresses {new} already exist in the address group {}.", group.id),
            });
        }
        addresses.push(new);
    }
    for gone in change.remove.iter().map(IpNet::trunc) {
        let there = addresses.iter().position(|a| *a == gone);
        let there = there.ok_or_else(|| EngineError::NotFound {
            code: "AddressesNotFound",
            kind: "Addresses",
            id: format!("{gone} in the address group {}", group.id),
        })?;
        addresses.remove(there);
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(EngineError::invalid(format!("An address group holds at most {ADDRESSES_MAX} addresses.")));
    }
    Ok(addresses)
}

impl Engine {
    /// Makes an address group.
    ///
    /// # Errors
    /// 400 for too many ranges.
    pub async fn address_group_create(&self, ctx: &OpCtx, new: AddressGroupNew) -> Result<AddressGroup, EngineError> {
        authorize(ctx, policy::ADDRESS_GROUP_CREATE, &Target::own(ctx))?;
        let project_id = own_project(ctx, new.project_id)?;
        let now = Timestamp::now();
        let mut group = AddressGroup {
            id: AddressGroupId::new(),
            project_id,
            name: new.name,
            description: new.description,
            addresses: Vec::new(),
            shared: false,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        let mut add: Vec<IpNet> = new.addresses.iter().map(IpNet::trunc).collect();
        add.sort();
        add.dedup();
        group.addresses = changed(&group, &AddressGroupChange { add, ..AddressGroupChange::default() })?;
        let tx = self.store().begin(ctx).await?;
        tx.address_group_insert(&group).await?;
        self.address_group_audit(&tx, policy::ADDRESS_GROUP_CREATE, &group).await?;
        self.commit(tx).await?;
        Ok(group)
    }

    async fn address_group_audit(&self, tx: &Tx, action: Action, group: &AddressGroup) -> Result<(), EngineError> {
        let detail = json!({ "name": group.name, "addresses": group.addresses.len() });
        let (id, project_id) = (group.id.to_string(), Some(group.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "address_group", id, project_id, detail: &detail }).await?)
    }

    async fn address_group_reached(
        &self,
        db: &Db,
        ctx: &OpCtx,
        (action, seen): (Action, bool),
        id: AddressGroupId,
    ) -> Result<AddressGroup, EngineError> {
        let mut group = found(db.address_group_get(id).await?, GROUP.0, GROUP.1, id)?;
        self.reach(db, ctx, (action, seen), (group.project_id, &mut group.shared), GROUP, id.0).await?;
        Ok(group)
    }

    /// The address group, if the caller may refer to it.
    pub(crate) async fn address_group_usable(&self, tx: &Tx, id: AddressGroupId) -> Result<(), EngineError> {
        let ctx = *tx.ctx();
        self.address_group_reached(tx, &ctx, (policy::ADDRESS_GROUP_GET, true), id).await.map(drop)
    }

    /// The address group with this id.
    ///
    /// # Errors
    /// `AddressGroupNotFound`.
    pub async fn address_group_get(&self, ctx: &OpCtx, id: AddressGroupId) -> Result<AddressGroup, EngineError> {
        self.address_group_reached(self.store(), ctx, (policy::ADDRESS_GROUP_GET, true), id).await
    }

    /// A page of address groups.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn address_group_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<AddressGroup>, EngineError> {
        authorize(ctx, policy::ADDRESS_GROUP_LIST, &Target::own(ctx))?;
        let mut page = self.store().address_group_list(&seen_by(ctx, listing)?).await?;
        let marks = page.rows.iter_mut().map(|g| (g.id.0, g.project_id, &mut g.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Changes an address group.
    ///
    /// # Errors
    /// `AddressGroupNotFound`, `AddressesAlreadyExist`, `AddressesNotFound`.
    pub async fn address_group_update(
        &self,
        ctx: &OpCtx,
        id: AddressGroupId,
        change: AddressGroupChange,
    ) -> Result<AddressGroup, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut group = self.address_group_reached(&tx, ctx, (policy::ADDRESS_GROUP_UPDATE, false), id).await?;
        crate::networks::unchanged(change.if_match, group.revision)?;
        group.addresses = changed(&group, &change)?;
        group.name = change.name.unwrap_or(group.name);
        group.description = change.description.unwrap_or(group.description);
        tx.address_group_update(&group).await?;
        tx.nodes_touch_by_address_group(id).await?;
        self.address_group_audit(&tx, policy::ADDRESS_GROUP_UPDATE, &group).await?;
        let group = found(tx.address_group_get(id).await?, GROUP.0, GROUP.1, id)?;
        self.commit(tx).await?;
        Ok(group)
    }

    /// Removes an address group.
    ///
    /// # Errors
    /// `AddressGroupNotFound`; `AddressGroupInUse` while rules refer to it.
    pub async fn address_group_delete(
        &self,
        ctx: &OpCtx,
        id: AddressGroupId,
        if_match: Option<u64>,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let group = self.address_group_reached(&tx, ctx, (policy::ADDRESS_GROUP_DELETE, false), id).await?;
        crate::networks::unchanged(if_match, group.revision)?;
        match tx.address_group_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "AddressGroupInUse",
                    message: format!("Address group {id} is in use on one or more security group rules."),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.shares_forget(&tx, id.0).await?;
        self.address_group_audit(&tx, policy::ADDRESS_GROUP_DELETE, &group).await?;
        self.commit(tx).await?;
        Ok(())
    }
}
