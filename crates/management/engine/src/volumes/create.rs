//! Making volumes: one transaction claims quota and room in a node's pool, and records the wish.

use super::{fault, invalid_input, invalid_volume, metadata_checked, no_volume};
use crate::servers::retried;
use crate::volume_pools::unmet;
use crate::volume_snapshots::no_snapshot;
use crate::{Engine, EngineError};
use arcus_placement::{Amounts, Around, Candidate, Needs, decide, image_mark};
use arcus_store::{
    Image, Node, QuotaResource, Tx, VOLUME_TYPE_DEFAULT, Volume, VolumeDetails, VolumeOrigin, VolumeType,
};
use arcus_types::placement::Filling;
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::volumes::{VOLUME_GIB_MAX, VolumeRequest, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{
    ImageId, NodeId, OpCtx, ProjectId, Timestamp, UserId, VolumeGroupId, VolumeId, VolumeSnapshotId, VolumeTypeId,
};
use serde_json::json;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// What a new volume begins as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VolumeFrom {
    /// Zeros.
    #[default]
    Nothing,
    /// An image.
    Image(ImageId),
    /// A snapshot.
    Snapshot(VolumeSnapshotId),
    /// Another volume.
    Volume(VolumeId),
}

/// A volume that a user asks for.
#[derive(Debug, Clone, Default)]
pub struct VolumeNew {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its size; `None` takes the size of what it is made of.
    pub size_gib: Option<u64>,
    /// What it begins as.
    pub from: VolumeFrom,
    /// Name or id of its type.
    pub volume_type: Option<String>,
    /// The zone that it shall be in.
    pub zone: Option<String>,
    /// Free key and value pairs.
    pub metadata: BTreeMap<String, String>,
    /// The group that it shall be in; its type must be one of the group's.
    pub group_id: Option<VolumeGroupId>,
}

/// A volume whose source has been looked up: what the transaction needs to write it.
#[derive(Debug, Clone)]
pub(crate) struct VolumePlan {
    pub project_id: ProjectId,
    pub user_id: UserId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub size_gib: u64,
    pub volume_type_id: VolumeTypeId,
    /// What its type asks for and no pool has.
    pub unmet: Option<String>,
    pub zone: Option<String>,
    /// The zones that its type is for; none is all.
    pub zones: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    pub source: VolumeOrigin,
    pub source_volume_id: Option<VolumeId>,
    pub source_snapshot_id: Option<VolumeSnapshotId>,
    /// The node that the source is on.
    pub node_id: Option<NodeId>,
    pub bootable: bool,
    pub image_metadata: Option<BTreeMap<String, String>>,
    pub group_id: Option<VolumeGroupId>,
}

/// Where a volume goes: the node with the room claimed, or why there is none.
pub(crate) enum Place {
    Claimed { node_id: NodeId, zone: String },
    Nowhere { summary: String, details: String },
}

impl Engine {
    /// Makes a volume. It is recorded when this returns; its node makes it.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for what does not fit, [`EngineError::NotFound`] for a source or type that is not there,
    /// [`EngineError::OverQuota`], or a refusal. A volume that no node has room for is no error here: it is made in state
    /// error.
    pub async fn volume_create(&self, ctx: &OpCtx, new: &VolumeNew) -> Result<Volume, EngineError> {
        authorize(ctx, policy::VOLUME_CREATE, &Target::own(ctx))?;
        metadata_checked(&new.metadata)?;
        let image = match new.from {
            VolumeFrom::Image(id) => Some(self.image_for_boot(ctx, id).await?),
            VolumeFrom::Nothing | VolumeFrom::Snapshot(_) | VolumeFrom::Volume(_) => None,
        };
        let nodes = self.store().node_list().await?;
        if let Some(zone) = &new.zone
            && !nodes.iter().any(|n| n.availability_zone == *zone)
        {
            return Err(invalid_input(format!("Availability zone '{zone}' is invalid.")));
        }
        retried!({
            let tx = self.store().begin(ctx).await?;
            let plan = self.volume_plan(&tx, ctx, new, image.as_ref()).await?;
            let place = self.volume_place_for(&tx, &plan).await?;
            let volume = self.volume_insert_in(&tx, plan, place).await?;
            self.commit(tx).await?;
            tracing::info!(volume.id = %volume.id, status = %volume.status, "a volume was asked for");
            Ok(volume)
        })
    }

    /// Looks up what a volume shall be made of and checks its size against it. `image` is the one of `new.from`.
    pub(crate) async fn volume_plan(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        new: &VolumeNew,
        image: Option<&Image>,
    ) -> Result<VolumePlan, EngineError> {
        let (Some(project_id), Some(user_id)) = (ctx.project_id(), ctx.user_id()) else {
            return Err(EngineError::Forbidden(
                "A volume is made by a user in a project: use a project's token.".into(),
            ));
        };
        let mut plan = VolumePlan {
            project_id,
            user_id,
            name: new.name.clone(),
            description: new.description.clone(),
            size_gib: 0,
            volume_type_id: VolumeTypeId::default(),
            unmet: None,
            zone: new.zone.clone(),
            zones: Vec::new(),
            metadata: new.metadata.clone(),
            source: VolumeOrigin::Blank,
            source_volume_id: None,
            source_snapshot_id: None,
            node_id: None,
            bootable: false,
            image_metadata: None,
            group_id: new.group_id,
        };
        let mut type_of_source = None;
        let least = match (new.from, image) {
            (VolumeFrom::Nothing, _) => 1,
            (VolumeFrom::Image(_), Some(image)) => {
                plan.source = VolumeOrigin::Image(
                    image.source().ok_or_else(|| EngineError::invalid(format!("Image {} has no bytes.", image.id)))?,
                );
                plan.bootable = true;
                plan.image_metadata = Some(image_metadata(image));
                size_for_image(image, new.size_gib)?
            }
            (VolumeFrom::Image(id), None) => {
                return Err(EngineError::invalid(format!("Image {id} could not be found.")));
            }
            (VolumeFrom::Snapshot(id), _) => {
                type_of_source = Some(self.plan_from_snapshot(tx, ctx, id, &mut plan).await?);
                plan.size_gib
            }
            (VolumeFrom::Volume(id), _) => {
                type_of_source = Some(self.plan_from_volume(tx, ctx, id, &mut plan).await?);
                plan.size_gib
            }
        };
        let size = match (new.size_gib, new.from) {
            (Some(size), _) => size,
            (None, VolumeFrom::Snapshot(_) | VolumeFrom::Volume(_)) => least,
            (None, VolumeFrom::Nothing | VolumeFrom::Image(_)) => {
                return Err(invalid_input("Volume size 'None' must be an integer and greater than 0"));
            }
        };
        size_checked(size, least, new.from)?;
        plan.size_gib = size;
        self.volume_size_admitted(tx, project_id, size).await?;
        let kind = self.volume_type_for(tx, ctx, new.volume_type.as_deref(), type_of_source).await?;
        if let Some(group) = new.group_id {
            self.volume_group_admits(tx, ctx, group, new.volume_type.is_some().then_some(kind.id)).await?;
        }
        plan.volume_type_id = kind.id;
        plan.unmet = unmet(&kind.extra_specs);
        plan.zones = zones(&kind);
        if let Some(zone) = plan.zone.as_ref().filter(|zone| !plan.zones.is_empty() && !plan.zones.contains(zone)) {
            return Err(invalid_input(format!(
                "Volume type {} is for the availability zones {}, not for {zone}.",
                kind.name,
                plan.zones.join(", ")
            )));
        }
        Ok(plan)
    }

    async fn plan_from_snapshot(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        plan: &mut VolumePlan,
    ) -> Result<VolumeTypeId, EngineError> {
        let snapshot = tx.volume_snapshot_get(id).await?.ok_or_else(|| no_snapshot(id))?;
        super::allowed(ctx, policy::SNAPSHOT_SHOW, snapshot.project_id, || no_snapshot(id))?;
        if snapshot.status != VolumeSnapshotStatus::Available {
            return Err(EngineError::Invalid {
                code: "InvalidSnapshot",
                message: format!(
                    "Invalid snapshot: Originating snapshot status must be one of 'available' values, it is '{}'.",
                    snapshot.status
                ),
            });
        }
        let of = tx.volume_lock(snapshot.volume_id).await?.ok_or_else(|| no_volume(snapshot.volume_id))?;
        plan.source = VolumeOrigin::Snapshot { volume_id: of.id, snapshot_id: id };
        plan.source_snapshot_id = Some(id);
        plan.size_gib = snapshot.size_gib;
        plan.node_id = of.node_id;
        plan.bootable = of.bootable;
        plan.image_metadata = of.image_metadata;
        Ok(of.volume_type_id)
    }

    async fn plan_from_volume(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        id: VolumeId,
        plan: &mut VolumePlan,
    ) -> Result<VolumeTypeId, EngineError> {
        let of = self.volume_held(tx, ctx, policy::VOLUME_SHOW, id).await?;
        if !VolumeRequest::Clone.admits(of.status) {
            return Err(invalid_volume(format!(
                "Originating volume status must be 'available' or 'in-use', it is '{}'.",
                of.status
            )));
        }
        plan.source = VolumeOrigin::Volume(id);
        plan.source_volume_id = Some(id);
        plan.size_gib = of.size_gib;
        plan.node_id = of.node_id;
        plan.bootable = of.bootable;
        plan.image_metadata = of.image_metadata;
        Ok(of.volume_type_id)
    }

    /// The type that a volume gets: the one asked for, or that of its source, or the project's, or the cloud's.
    pub(crate) async fn volume_type_for(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        asked: Option<&str>,
        of_source: Option<VolumeTypeId>,
    ) -> Result<VolumeType, EngineError> {
        if let Some(asked) = asked {
            return self.volume_type_usable(tx, ctx, asked).await;
        }
        let own = match (of_source, ctx.project_id()) {
            (Some(id), _) => Some(id),
            (None, Some(project)) => tx.volume_type_default_of(project).await?,
            (None, None) => None,
        };
        match own {
            Some(id) => match tx.volume_type_get(id).await? {
                Some(found) => Ok(found),
                None => Ok(tx.volume_type_default().await?),
            },
            None => Ok(tx.volume_type_default().await?),
        }
    }

    /// The type with this name or id, if the caller's project may use it.
    async fn volume_type_usable(&self, db: &Tx, ctx: &OpCtx, asked: &str) -> Result<VolumeType, EngineError> {
        let missing = || {
            let asked: String = asked.chars().take(255).collect();
            EngineError::not_found("VolumeTypeNotFound", "Volume type", asked)
        };
        let by_id = match asked.parse() {
            Ok(id) => db.volume_type_get(id).await?,
            Err(_) => None,
        };
        let found = match by_id {
            Some(found) => found,
            // It is there from the beginning, though it is made when it is first needed.
            None if asked == VOLUME_TYPE_DEFAULT => db.volume_type_default().await?,
            None => db.volume_type_by_name(asked).await?.ok_or_else(missing)?,
        };
        let given = match ctx.project_id() {
            Some(project) => db.volume_type_accessible(found.id, project).await?,
            None => false,
        };
        if found.is_public || given || ctx.is_admin() { Ok(found) } else { Err(missing()) }
    }

    /// Claims room for a volume: where its source is, or on the best node.
    pub(crate) async fn volume_place_for(&self, tx: &Tx, plan: &VolumePlan) -> Result<Place, EngineError> {
        if let Some(unmet) = &plan.unmet {
            let summary = format!("No pool has what the volume type asks for: {unmet}.");
            return Ok(Place::Nowhere { summary, details: String::new() });
        }
        match plan.node_id {
            Some(node) => self.volume_place_on(tx, node, plan.size_gib).await,
            None => self.volume_place(tx, plan).await,
        }
    }

    /// Claims room for a volume on the best node.
    async fn volume_place(&self, tx: &Tx, plan: &VolumePlan) -> Result<Place, EngineError> {
        let (now, gib) = (Timestamp::now(), plan.size_gib);
        let image = match &plan.source {
            VolumeOrigin::Image(image) => Some(image.sha256.as_str()),
            VolumeOrigin::Blank | VolumeOrigin::Volume(_) | VolumeOrigin::Snapshot { .. } => None,
        };
        let nodes = tx.node_list().await?;
        let here = |node: &&Node| plan.zones.is_empty() || plan.zones.contains(&node.availability_zone);
        let candidates: Vec<Candidate> =
            nodes.iter().filter(here).map(|node| candidate(node, self.node_alive(node, now), now)).collect();
        let image = image.and_then(image_mark);
        let needs = Needs { disk_gib: gib, zone: plan.zone.clone(), image, ..Needs::default() };
        let mut decision = decide(&needs, &Around::default(), now, &candidates);
        while let Some(best) = decision.ranked.first() {
            let (node_id, zone) = (best.candidate.node_id, best.candidate.zone.to_string());
            if tx.node_claim(node_id, 0, 0, gib).await? {
                return Ok(Place::Claimed { node_id, zone });
            }
            decision.taken(node_id);
        }
        Ok(Place::Nowhere { summary: decision.summary(), details: decision.explanation() })
    }

    /// Claims room for a volume on the node that its source is on.
    async fn volume_place_on(&self, tx: &Tx, node_id: NodeId, gib: u64) -> Result<Place, EngineError> {
        let Some(node) = tx.node_get(node_id).await? else { return Err(crate::servers::stale()) };
        if tx.node_claim(node_id, 0, 0, gib).await? {
            return Ok(Place::Claimed { node_id, zone: node.availability_zone });
        }
        let free = node.disk_gib_cap.saturating_sub(node.disk_gib_used);
        Ok(Place::Nowhere {
            summary: "The pool that its source is in has no room for it, or is closed.".into(),
            details: format!("{}: {free} GiB of disk free, {gib} wanted", node.name),
        })
    }

    /// Claims the quota and records a volume whose place has been claimed.
    pub(crate) async fn volume_insert_in(
        &self,
        tx: &Tx,
        plan: VolumePlan,
        place: Place,
    ) -> Result<Volume, EngineError> {
        let (kind, count) = (plan.volume_type_id, Some(QuotaResource::Volumes));
        self.volume_quota_claim(tx, plan.project_id, kind, count, plan.size_gib).await?;
        let now = Timestamp::now();
        let (node_id, zone, failed) = match place {
            Place::Claimed { node_id, zone } => (Some(node_id), zone, None),
            Place::Nowhere { summary, details } => {
                let zone = plan.zone.clone().unwrap_or_else(|| self.config().default_zone.clone());
                (None, zone, Some(fault(format!("No valid backend was found. {summary}"), details)))
            }
        };
        let status = if failed.is_some() { VolumeStatus::Error } else { VolumeStatus::Creating };
        let mut volume = Volume {
            id: VolumeId::random(),
            project_id: plan.project_id,
            user_id: plan.user_id,
            name: plan.name,
            description: plan.description,
            status,
            status_before: None,
            deadline: status.deadline_s().map(|s| now.plus_seconds(s)),
            size_gib: plan.size_gib,
            volume_type_id: plan.volume_type_id,
            availability_zone: zone,
            node_id,
            node_generation: 0,
            version: 0,
            bootable: plan.bootable,
            read_only: false,
            multiattach: false,
            made: false,
            source: plan.source,
            source_volume_id: plan.source_volume_id,
            source_snapshot_id: plan.source_snapshot_id,
            metadata: plan.metadata,
            image_metadata: plan.image_metadata,
            fault: failed,
            details: VolumeDetails::default(),
            generation: 1,
            created_at: now,
            updated_at: None,
            launched_at: None,
            group_id: plan.group_id,
        };
        self.volume_touch(tx, &mut volume).await?;
        tx.volume_insert(&volume).await?;
        self.volume_task_follow(tx, &volume, None).await?;
        let detail = json!({ "name": volume.name, "size_gib": volume.size_gib, "node_id": volume.node_id });
        self.volume_audit(tx, &volume, policy::VOLUME_CREATE, &detail).await?;
        self.volume_usage(tx, &volume, volume.node_id.is_some()).await?;
        Ok(volume)
    }
}

/// The zones that a type's volumes may be in; none is all.
///
/// Source: the block storage API, `RESKEY:availability_zones` of volume types, from 3.52 on.
fn zones(kind: &VolumeType) -> Vec<String> {
    let named = kind.extra_specs.get("RESKEY:availability_zones").map(String::as_str).unwrap_or_default();
    named.split(',').map(str::trim).filter(|zone| !zone.is_empty()).map(str::to_owned).collect()
}

fn candidate(node: &Node, alive: bool, now: Timestamp) -> Candidate {
    Candidate {
        node_id: node.id,
        name: node.name.as_str().into(),
        zone: node.availability_zone.as_str().into(),
        closed: (!node.enabled).then(|| node.disabled_reason.clone().unwrap_or_default().into()),
        alive_until: if alive { now } else { Timestamp(i64::MIN) },
        filling: Filling::Spread,
        cap: Amounts { vcpus: node.vcpus_cap, memory_mib: node.memory_mib_cap, disk_gib: node.disk_gib_cap },
        used: Amounts { vcpus: node.vcpus_used, memory_mib: node.memory_mib_used, disk_gib: node.disk_gib_used },
        images: node.facts.cached_images.iter().filter_map(|sha256| image_mark(sha256)).collect(),
    }
}

/// The least size of a volume that begins as this image, in GiB.
pub(crate) fn size_for_image(image: &Image, size_gib: Option<u64>) -> Result<u64, EngineError> {
    let own = image.content.as_ref().map_or(0, |c| c.virtual_size_bytes.div_ceil(GIB));
    let Some(size) = size_gib else { return Ok(own.max(1)) };
    if own > size {
        return Err(invalid_input(format!("Size of specified image {own}GB is larger than volume size {size}GB.")));
    }
    if image.min_disk_gib > size {
        return Err(invalid_input(format!(
            "Volume size {size}GB cannot be smaller than the image minDisk size {}GB.",
            image.min_disk_gib
        )));
    }
    Ok(own.max(1))
}

fn size_checked(size: u64, least: u64, from: VolumeFrom) -> Result<(), EngineError> {
    if size == 0 {
        return Err(invalid_input("Volume size '0' must be an integer and greater than 0"));
    }
    if size > VOLUME_GIB_MAX {
        return Err(invalid_input(format!(
            "Volume size {size}GB is larger than the largest volume, {VOLUME_GIB_MAX}GB."
        )));
    }
    match from {
        VolumeFrom::Snapshot(_) if size < least => Err(invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. They must be >= original snapshot size."
        ))),
        VolumeFrom::Volume(_) if size < least => Err(invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than original volume size {least}GB. They must be >= original volume size."
        ))),
        VolumeFrom::Nothing | VolumeFrom::Image(_) | VolumeFrom::Snapshot(_) | VolumeFrom::Volume(_) => Ok(()),
    }
}

/// What a volume remembers of the image that it began as.
pub(crate) fn image_metadata(image: &Image) -> BTreeMap<String, String> {
    let mut all = image.properties.clone();
    all.insert("image_id".into(), image.id.to_string());
    all.insert("image_name".into(), image.name.as_ref().map(ToString::to_string).unwrap_or_default());
    all.insert("min_disk".into(), image.min_disk_gib.to_string());
    all.insert("min_ram".into(), image.min_ram_mib.to_string());
    if let Some(format) = image.disk_format {
        all.insert("disk_format".into(), arcus_types::images::disk_format_name(format).into());
    }
    if let Some(format) = image.container_format {
        all.insert("container_format".into(), format.as_str().into());
    }
    if let Some(content) = &image.content {
        all.insert("checksum".into(), content.md5.clone());
        all.insert("size".into(), content.size_bytes.to_string());
    }
    all
}
