//! The volumes that a new server begins with: what they are made of, what they need of a node, and how they are given.

use super::{Plan, ServerNew};
use crate::servers::volume_image::root_properties;
use crate::servers::volumes::AttachWish;
use crate::volumes::{Place, VolumeFrom, VolumeNew, invalid_volume};
use crate::{Engine, EngineError};
use arcus_placement::Candidate;
use arcus_store::{Image, Server, Tx, Volume};
use arcus_types::policy::volume as policy;
use arcus_types::volumes::{SERVER_VOLUMES_MAX, VolumeRequest};
use arcus_types::{ImageId, NodeId, OpCtx, VolumeId, VolumeSnapshotId};
use std::collections::{BTreeMap, HashMap};

/// A volume that a new server shall have.
#[derive(Debug, Clone)]
pub struct DiskWish {
    /// What it is, or is made of.
    pub source: DiskSource,
    /// Its place in the boot order; 0 is the root disk, none is not to boot from.
    pub boot_index: Option<u32>,
    /// The size of a new volume, in GiB.
    pub size_gib: Option<u64>,
    /// Name or id of the type of a new volume.
    pub volume_type: Option<String>,
    /// Whether it goes with the server.
    pub delete_on_termination: bool,
    /// The device that the user would like.
    pub device: Option<String>,
    /// What the guest may know the disk by.
    pub tag: Option<String>,
}

/// What a volume of a new server is, or is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSource {
    /// A new volume that begins as zeros.
    Blank,
    /// A new volume that begins as an image.
    Image(ImageId),
    /// A new volume that begins as a snapshot.
    Snapshot(VolumeSnapshotId),
    /// A volume that is there.
    Volume(VolumeId),
}

/// What the volumes of a new server need.
#[derive(Debug, Clone, Default)]
pub(super) struct DiskNeeds {
    /// Room for each new volume, in GiB; together for one server.
    pub gib: u64,
    /// The node that volumes or snapshots are on already.
    pub node_id: Option<NodeId>,
    /// Images that new volumes begin as.
    pub images: HashMap<ImageId, Image>,
    /// What the volume or snapshot that it boots from says of the server: the properties of the image that it began as.
    pub root_properties: BTreeMap<String, String>,
}

impl DiskNeeds {
    fn root_of(&mut self, disk: &DiskWish, volume: Option<&Volume>) {
        if let (Some(0), Some(began)) = (disk.boot_index, volume.and_then(|v| v.image_metadata.as_ref())) {
            self.root_properties = root_properties(began);
        }
    }

    /// The image that the volume which the server boots from begins as, if it begins as one.
    pub(super) fn root_image(&self, new: &ServerNew) -> Option<&Image> {
        let root = new.disks.iter().find(|d| d.boot_index == Some(0))?;
        match root.source {
            DiskSource::Image(id) => self.images.get(&id),
            DiskSource::Blank | DiskSource::Snapshot(_) | DiskSource::Volume(_) => None,
        }
    }
}

pub(in crate::servers) fn invalid_mapping(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidBDM", message: format!("Block Device Mapping is Invalid: {message}") }
}

fn unbootable() -> EngineError {
    invalid_mapping("Boot sequence for the instance and image/block device mapping combination is not valid.")
}

/// Refuses disks that no server can have.
pub(super) fn disks_checked(new: &ServerNew) -> Result<(), EngineError> {
    let roots = new.disks.iter().filter(|d| d.boot_index == Some(0)).count();
    match (new.image_id, roots) {
        (Some(_), 0) | (None, 1) => {}
        (Some(_), _) | (None, 0 | 2..) => return Err(unbootable()),
    }
    if new.disks.len() > SERVER_VOLUMES_MAX {
        return Err(invalid_mapping(format!("A server has at most {SERVER_VOLUMES_MAX} volumes.")));
    }
    for (i, disk) in new.disks.iter().enumerate() {
        let sized = disk.size_gib.is_some_and(|gib| gib > 0);
        match disk.source {
            DiskSource::Blank if !sized => {
                return Err(invalid_mapping(
                    "Blank devices (source: 'blank', dest: 'volume') need to have non-zero size",
                ));
            }
            DiskSource::Image(_) if !sized => {
                return Err(invalid_mapping(
                    "Images with destination_type 'volume' need to have a non-zero size specified",
                ));
            }
            DiskSource::Volume(id) if new.count_max > 1 => {
                return Err(EngineError::invalid(format!(
                    "Cannot attach one or more volumes to multiple instances: volume {id} is one volume."
                )));
            }
            DiskSource::Volume(_) if new.disks[..i].iter().any(|d| d.source == disk.source) => {
                return Err(invalid_mapping("One volume is named twice."));
            }
            DiskSource::Blank | DiskSource::Image(_) | DiskSource::Snapshot(_) | DiskSource::Volume(_) => {}
        }
    }
    Ok(())
}

fn place_agreed(needs: &mut DiskNeeds, node: Option<NodeId>) -> Result<(), EngineError> {
    match (needs.node_id, node) {
        (Some(a), Some(b)) if a != b => Err(invalid_mapping(
            "The volumes and snapshots are in the pools of different nodes: a server can have those of one node only.",
        )),
        (_, Some(node)) => {
            needs.node_id = Some(node);
            Ok(())
        }
        (_, None) => Err(invalid_mapping("A volume is in no pool.")),
    }
}

impl Engine {
    /// Looks up what the volumes of a new server need, and checks that they can be had.
    pub(super) async fn disk_needs(&self, ctx: &OpCtx, new: &ServerNew) -> Result<DiskNeeds, EngineError> {
        disks_checked(new)?;
        let mut needs = DiskNeeds::default();
        for disk in &new.disks {
            match disk.source {
                DiskSource::Blank => {}
                DiskSource::Image(id) => {
                    let image = self.image_for_boot(ctx, id).await?;
                    needs.images.insert(id, image);
                }
                DiskSource::Snapshot(id) => {
                    let snapshot = self
                        .volume_snapshot_show(ctx, id)
                        .await
                        .map_err(|_| invalid_mapping(format!("failed to get snapshot {id}.")))?;
                    let volume = self.store().volume_get(snapshot.volume_id).await?;
                    place_agreed(&mut needs, volume.as_ref().and_then(|v| v.node_id))?;
                    needs.root_of(disk, volume.as_ref());
                    needs.gib += disk.size_gib.unwrap_or(snapshot.size_gib);
                    continue;
                }
                DiskSource::Volume(id) => {
                    let volume = self
                        .volume_seen(self.store(), ctx, policy::VOLUME_ATTACH, id)
                        .await
                        .map_err(|_| invalid_mapping(format!("failed to get volume {id}.")))?;
                    if disk.boot_index == Some(0) && !volume.bootable {
                        return Err(EngineError::invalid(format!("Block Device {id} is not bootable.")));
                    }
                    place_agreed(&mut needs, volume.node_id)?;
                    needs.root_of(disk, Some(&volume));
                    continue;
                }
            }
            needs.gib += disk.size_gib.unwrap_or(0);
        }
        Ok(needs)
    }

    /// Makes the volumes of a server whose node has been chosen, with their room claimed, and gives them to it.
    pub(super) async fn disks_given(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        plan: &Plan<'_>,
        server: &mut Server,
        node: &Candidate,
    ) -> Result<(), EngineError> {
        self.disk_pool_set(server, node.node_id);
        for disk in &plan.new.disks {
            let mut volume = match disk.source {
                DiskSource::Volume(id) => {
                    let volume = self.volume_held(tx, ctx, policy::VOLUME_ATTACH, id).await?;
                    if !VolumeRequest::Reserve.admits(volume.status) {
                        return Err(invalid_volume(format!(
                            "volume '{id}' status must be 'available' or 'reserved'. Currently in '{}'",
                            volume.status
                        )));
                    }
                    volume
                }
                DiskSource::Blank | DiskSource::Image(_) | DiskSource::Snapshot(_) => {
                    let (from, image) = match disk.source {
                        DiskSource::Image(id) => (VolumeFrom::Image(id), plan.disks.images.get(&id)),
                        DiskSource::Snapshot(id) => (VolumeFrom::Snapshot(id), None),
                        DiskSource::Blank | DiskSource::Volume(_) => (VolumeFrom::Nothing, None),
                    };
                    let wish = VolumeNew {
                        name: Some(String::new()),
                        description: Some(String::new()),
                        size_gib: disk.size_gib,
                        from,
                        volume_type: disk.volume_type.clone(),
                        ..VolumeNew::default()
                    };
                    let made = self.volume_plan(tx, ctx, &wish, image).await.map_err(super::as_invalid)?;
                    let place = Place::Claimed { node_id: node.node_id, zone: node.zone.to_string() };
                    self.volume_insert_in(tx, made, place).await?
                }
            };
            let wish = AttachWish {
                device: disk.device.clone(),
                tag: disk.tag.clone(),
                delete_on_termination: disk.delete_on_termination,
                boot_index: disk.boot_index,
                while_shelved: false,
            };
            self.server_volume_give(tx, server, &mut volume, &wish).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(source: DiskSource, boot_index: Option<u32>, size_gib: Option<u64>) -> DiskWish {
        let (volume_type, device, tag) = (None, None, None);
        DiskWish { source, boot_index, size_gib, volume_type, delete_on_termination: false, device, tag }
    }

    #[test]
    fn sources_on_two_nodes_do_not_meet() {
        let mut needs = DiskNeeds::default();
        let node = NodeId::random();
        assert!(place_agreed(&mut needs, Some(node)).is_ok());
        assert!(place_agreed(&mut needs, Some(node)).is_ok());
        assert!(place_agreed(&mut needs, Some(NodeId::random())).is_err());
        assert!(place_agreed(&mut needs, None).is_err());
        assert_eq!(disk(DiskSource::Blank, None, Some(1)).size_gib, Some(1));
    }
}
