//! What an image asks of the server that boots it.

use crate::EngineError;
use arcus_store::{Image, ServerFlavor};
use arcus_types::agent::DeviceModel;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// The size of the root disk: the flavor's, or the image's own if the flavor says 0.
pub(in crate::servers) fn disk_gib(image: &Image, flavor: &ServerFlavor) -> u64 {
    let own = image.content.as_ref().map_or(0, |c| c.virtual_size_bytes.div_ceil(GIB));
    if flavor.disk_gib == 0 { own.max(1) } else { flavor.disk_gib }
}

/// Refuses an image that does not fit into a flavor, or into a disk that is there already.
pub(in crate::servers) fn image_fits(
    image: &Image,
    flavor: &ServerFlavor,
    disk: Option<u64>,
) -> Result<(), EngineError> {
    if image.min_ram_mib > flavor.memory_mib {
        return Err(EngineError::invalid("Flavor's memory is too small for requested image."));
    }
    let disk = disk.unwrap_or(flavor.disk_gib);
    if disk == 0 {
        return Ok(());
    }
    let bytes = image.content.as_ref().map_or(0, |c| c.virtual_size_bytes);
    if bytes > disk.saturating_mul(GIB) {
        return Err(EngineError::invalid(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {} bytes, image is {bytes} bytes.",
            disk.saturating_mul(GIB)
        )));
    }
    if image.min_disk_gib > disk {
        return Err(EngineError::invalid(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} GiB, minimum size is {} GiB.",
            image.min_disk_gib
        )));
    }
    Ok(())
}

/// Emulated devices if the image's properties ask for a bus or card that guests know without drivers.
pub(in crate::servers) fn devices(properties: &BTreeMap<String, String>) -> DeviceModel {
    let is = |name: &str, values: &[&str]| properties.get(name).is_some_and(|v| values.contains(&v.as_str()));
    if is("hw_disk_bus", &["ide", "sata"]) || is("hw_vif_model", &["e1000", "e1000e", "rtl8139"]) {
        DeviceModel::Emulated
    } else {
        DeviceModel::Virtio
    }
}
