//! What a new server boots, and which volumes and local disks it gets: `imageRef` and the block device mappings.

use super::create::image;
use crate::ApiError;
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use arcus_engine::servers::{DiskSource, DiskWish, LocalDiskWish};
use arcus_types::ImageId;
use serde_json::Value;

fn invalid(message: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("Block Device Mapping is Invalid: {message}"))
}

/// One mapping: the root disk that is made of an image, another local disk, or a volume.
enum Mapped {
    Root(ImageId),
    Local(LocalDiskWish),
    Volume(DiskWish),
}

/// What a new server begins with.
#[derive(Debug, Default)]
pub struct Boots {
    /// The image of the root disk, if that is local.
    pub image_id: Option<ImageId>,
    /// The volumes.
    pub disks: Vec<DiskWish>,
    /// The local disks besides the root disk.
    pub local_disks: Vec<LocalDiskWish>,
}

/// Reads what a new server begins with.
pub fn boots(fields: &mut Fields<'_>, version: Microversion) -> Result<Boots, ApiError> {
    let mut named = match fields.text("imageRef", 0, 1024)? {
        None | Some("") => None,
        Some(text) => Some(image(text)?),
    };
    let old = fields.list("block_device_mapping", 255)?.unwrap_or_default();
    let new = fields.list("block_device_mapping_v2", 255)?.unwrap_or_default();
    if !old.is_empty() && !new.is_empty() {
        return Err(invalid("Using different block_device_mapping syntaxes is not allowed in the same request."));
    }
    let (mut disks, mut local_disks, mut local) = (Vec::new(), Vec::new(), false);
    for item in old {
        disks.push(mapped_v1(item, disks.is_empty() && named.is_none())?);
    }
    for item in new {
        match mapped_v2(item, version)? {
            Mapped::Volume(disk) => disks.push(disk),
            Mapped::Local(wish) => local_disks.push(wish),
            Mapped::Root(id) if named.is_none_or(|n| n == id) => (named, local) = (Some(id), true),
            Mapped::Root(_) => {
                return Err(invalid(
                    "Boot sequence for the instance and image/block device mapping combination is not valid.",
                ));
            }
        }
    }
    if named.is_none() && disks.is_empty() {
        return Err(ApiError::bad_request(
            "Invalid imageRef provided. A server boots from an image, or from a volume with boot_index 0.",
        ));
    }
    if !local && disks.iter().any(|disk| disk.boot_index == Some(0)) {
        // Whoever names an image and a volume to boot from gets the volume.
        named = None;
    }
    Ok(Boots { image_id: named, disks, local_disks })
}

fn mapped_v2(item: &Value, version: Microversion) -> Result<Mapped, ApiError> {
    let mut disk = Fields::object(item, "block_device_mapping_v2")?;
    let from = disk.text("source_type", 0, 16)?.ok_or_else(|| required("block_device_mapping_v2", "source_type"))?;
    let to = disk.text("destination_type", 0, 16)?;
    let uuid = disk.text("uuid", 0, 64)?;
    let boot_index = match disk.raw("boot_index") {
        None | Some(Value::Null) => None,
        Some(_) => disk.integer("boot_index", -1, 255)?.and_then(|n| u32::try_from(n).ok()),
    };
    let size = disk.integer("volume_size", 1, i64::from(i32::MAX))?;
    let volume_type = if version.at_least(67) { disk.text("volume_type", 0, 255)? } else { None };
    let tag = if version == Microversion(2, 32) || version.at_least(42) { disk.text("tag", 1, 60)? } else { None };
    let wish = |source| DiskWish {
        source,
        boot_index,
        size_gib: size.and_then(|n| u64::try_from(n).ok()),
        volume_type: volume_type.map(str::to_owned),
        delete_on_termination: false,
        device: None,
        tag: tag.map(str::to_owned),
    };
    let guest_format = disk.text("guest_format", 0, 255)?.filter(|format| !format.is_empty());
    let delete = disk.boolean("delete_on_termination")?.unwrap_or(false);
    let device = disk.text("device_name", 0, 255)?.map(str::to_owned);
    for ignored in ["disk_bus", "device_type", "no_device", "connection_info", "snapshot_id", "volume_id"] {
        disk.raw(ignored);
    }
    disk.end()?;
    let id = || uuid.ok_or_else(|| invalid(format!("a mapping of source_type {from} needs a uuid.")));
    let whole =
        |source| Ok(Mapped::Volume(DiskWish { delete_on_termination: delete, device: device.clone(), ..wish(source) }));
    match (from, to) {
        ("image", None | Some("local")) => {
            if boot_index.is_some_and(|i| i != 0) {
                return Err(invalid("Mapping image to local is not supported."));
            }
            Ok(Mapped::Root(image(id()?)?))
        }
        ("image", Some("volume")) => whole(DiskSource::Image(image(id()?)?)),
        ("volume", None | Some("volume")) => whole(DiskSource::Volume(parsed(id()?)?)),
        ("snapshot", None | Some("volume")) => whole(DiskSource::Snapshot(parsed(id()?)?)),
        ("blank", Some("volume")) => whole(DiskSource::Blank),
        ("blank", None | Some("local")) => {
            if boot_index.is_some() {
                return Err(invalid("A blank local disk holds nothing to boot from: its boot_index is -1."));
            }
            let size = size.and_then(|n| u64::try_from(n).ok());
            match guest_format {
                Some("swap") => Ok(Mapped::Local(LocalDiskWish::Swap { size_mib: size })),
                None | Some("ext4") => Ok(Mapped::Local(LocalDiskWish::Ephemeral { size_gib: size })),
                Some(other) => Err(invalid(format!(
                    "guest_format {other} is not made by this cloud: ephemeral disks begin with ext4, swap is swap."
                ))),
            }
        }
        ("volume" | "snapshot", Some("local")) => {
            Err(ApiError::bad_request(format!("Invalid BDM: {from} source type cannot have a local destination.")))
        }
        (_, _) => Err(refused(
            "block_device_mapping_v2",
            item,
            "The combination of source_type and destination_type is not valid.",
        )),
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| refused("uuid", &Value::String(text.to_owned()), "It is not a UUID."))
}

/// The older form: a volume or a snapshot under a device's name. The first one is the root disk if there is no image.
fn mapped_v1(item: &Value, root: bool) -> Result<DiskWish, ApiError> {
    let mut disk = Fields::object(item, "block_device_mapping")?;
    let volume = disk.parsed("volume_id")?;
    let snapshot = disk.parsed("snapshot_id")?;
    let size = disk.integer("volume_size", 0, i64::from(i32::MAX))?;
    let delete = disk.boolean("delete_on_termination")?.unwrap_or(false);
    let device = disk.text("device_name", 0, 255)?.map(str::to_owned);
    for ignored in ["virtual_name", "no_device", "connection_info"] {
        disk.raw(ignored);
    }
    disk.end()?;
    let source = match (volume, snapshot) {
        (Some(id), None) => DiskSource::Volume(id),
        (None, Some(id)) => DiskSource::Snapshot(id),
        (Some(_), Some(_)) | (None, None) => return Err(invalid("name either a volume_id or a snapshot_id.")),
    };
    Ok(DiskWish {
        source,
        boot_index: root.then_some(0),
        size_gib: size.filter(|n| *n > 0).and_then(|n| u64::try_from(n).ok()),
        volume_type: None,
        delete_on_termination: delete,
        device: if root { None } else { device },
        tag: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_to_boot_from_goes_before_an_image() {
        let image = "11111111-2222-4333-8444-555555555555";
        let disks = |boot_index: i64| {
            let disk = json!({ "source_type": "blank", "destination_type": "volume", "volume_size": 1,
                "boot_index": boot_index });
            let body = json!({ "imageRef": image, "block_device_mapping_v2": [disk] });
            let boots = boots(&mut Fields::object(&body, "server").ok().unwrap(), Microversion(2, 1)).ok().unwrap();
            assert_eq!(boots.disks.len(), 1);
            boots.image_id.map(|id| id.to_string())
        };
        assert_eq!(disks(0), None);
        assert_eq!(disks(-1).as_deref(), Some(image));
    }
}
