//! The disks of a server's own besides its root disk: what its flavor has of ephemeral disk and swap, and how they follow it.

use super::create::invalid_mapping;
use crate::EngineError;
use arcus_store::ServerFlavor;
use arcus_types::agent::{LocalDisk, LocalDiskContent};
use std::collections::BTreeMap;

/// The most local disks that a server has besides its root disk.
const LOCAL_DISKS_MAX: usize = 3;

const MIB_PER_GIB: u64 = 1 << 10;

/// A local disk that a new server shall have, instead of those that its flavor gives by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalDiskWish {
    /// A part of the flavor's ephemeral disk.
    Ephemeral {
        /// In GiB; `None` is all that the flavor has.
        size_gib: Option<u64>,
    },
    /// Swap space.
    Swap {
        /// In MiB; `None` is all that the flavor has.
        size_mib: Option<u64>,
    },
}

/// What ephemeral disks begin as: a file system that the guest's system knows.
fn ephemeral_content(image_properties: &BTreeMap<String, String>) -> LocalDiskContent {
    let windows = image_properties.get("os_type").is_some_and(|kind| kind.eq_ignore_ascii_case("windows"));
    if windows { LocalDiskContent::Blank } else { LocalDiskContent::Ext4 }
}

/// The local disks of a new server: what is wished of each kind, or else one of all that its flavor has.
///
/// # Errors
/// [`EngineError::Invalid`] for more than the flavor has, or too many.
pub(super) fn local_disks(
    flavor: &ServerFlavor,
    wishes: &[LocalDiskWish],
    image_properties: &BTreeMap<String, String>,
) -> Result<Vec<LocalDisk>, EngineError> {
    let content = ephemeral_content(image_properties);
    let whole = flavor.ephemeral_gib.saturating_mul(MIB_PER_GIB);
    let (mut ephemerals, mut swaps) = (Vec::new(), Vec::new());
    for wish in wishes {
        match wish {
            LocalDiskWish::Ephemeral { size_gib } => {
                let size_mib = size_gib.map_or(whole, |gib| gib.saturating_mul(MIB_PER_GIB));
                ephemerals.push(LocalDisk { content, size_mib });
            }
            LocalDiskWish::Swap { size_mib } => {
                swaps.push(swap(size_mib.unwrap_or(flavor.swap_mib)));
            }
        }
    }
    if ephemerals.is_empty() && whole > 0 {
        ephemerals.push(LocalDisk { content, size_mib: whole });
    }
    if swaps.is_empty() && flavor.swap_mib > 0 {
        swaps.push(swap(flavor.swap_mib));
    }
    if swaps.len() > 1 {
        return Err(invalid_mapping("More than one swap drive requested."));
    }
    if sum(&ephemerals) > whole || ephemerals.iter().any(|disk| disk.size_mib == 0) {
        return Err(invalid_mapping(format!(
            "Ephemeral disks requested are larger than the instance type allows: flavor {} has {} GiB.",
            flavor.name, flavor.ephemeral_gib
        )));
    }
    if swaps.iter().any(|disk| disk.size_mib > flavor.swap_mib || disk.size_mib == 0) {
        return Err(invalid_mapping(format!(
            "Swap drive requested is larger than instance type allows: flavor {} has {} MiB.",
            flavor.name, flavor.swap_mib
        )));
    }
    ephemerals.append(&mut swaps);
    if ephemerals.len() > LOCAL_DISKS_MAX {
        return Err(invalid_mapping(format!(
            "You specified more local devices than the limit allows: at most {LOCAL_DISKS_MAX} besides the root disk."
        )));
    }
    Ok(ephemerals)
}

/// The local disks of a server that changes its flavor. An ephemeral disk only grows; one that the flavor gave by itself
/// becomes as large as the other flavor's. Swap becomes the other flavor's, unless less was asked for.
///
/// # Errors
/// [`EngineError::Invalid`] if the other flavor has less ephemeral disk than the server has.
pub(super) fn resized(
    have: &[LocalDisk],
    from: &ServerFlavor,
    to: &ServerFlavor,
    image_properties: &BTreeMap<String, String>,
) -> Result<Vec<LocalDisk>, EngineError> {
    let is_swap = |disk: &&LocalDisk| disk.content == LocalDiskContent::Swap;
    let mut ephemerals: Vec<LocalDisk> = have.iter().filter(|disk| !is_swap(disk)).copied().collect();
    let whole = to.ephemeral_gib.saturating_mul(MIB_PER_GIB);
    if sum(&ephemerals) > whole {
        return Err(EngineError::invalid(format!(
            "Resize error: Unable to resize disk down. The server has {} GiB of ephemeral disk, flavor {} has {}.",
            sum(&ephemerals).div_ceil(MIB_PER_GIB),
            to.name,
            to.ephemeral_gib
        )));
    }
    match &mut *ephemerals {
        [] if whole > 0 => ephemerals.push(LocalDisk { content: ephemeral_content(image_properties), size_mib: whole }),
        [one] if one.size_mib >= from.ephemeral_gib.saturating_mul(MIB_PER_GIB) => one.size_mib = whole,
        [..] => {}
    }
    if to.swap_mib > 0 {
        let asked = have.iter().find(is_swap).map(|disk| disk.size_mib).filter(|mib| *mib < from.swap_mib);
        ephemerals.push(swap(asked.map_or(to.swap_mib, |mib| mib.min(to.swap_mib))));
    }
    Ok(ephemerals)
}

/// Ephemeral disks that have grown stay so, whatever flavor comes back.
pub(super) fn kept_grown(had: &[LocalDisk], now: &mut [LocalDisk]) {
    for (had, now) in had.iter().zip(now) {
        if had.content == now.content && now.content != LocalDiskContent::Swap {
            now.size_mib = now.size_mib.max(had.size_mib);
        }
    }
}

/// What a server's local disks take of its node, in whole GiB.
pub(super) fn gib(disks: &[LocalDisk]) -> u64 {
    sum(disks).div_ceil(MIB_PER_GIB)
}

/// Whether there is anything on them that is not the flavor's to give again.
pub(super) fn any_kept(disks: &[LocalDisk]) -> bool {
    disks.iter().any(|disk| disk.content != LocalDiskContent::Swap)
}

fn swap(size_mib: u64) -> LocalDisk {
    LocalDisk { content: LocalDiskContent::Swap, size_mib }
}

fn sum(disks: &[LocalDisk]) -> u64 {
    disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.size_mib))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(ephemeral_gib: u64, swap_mib: u64) -> ServerFlavor {
        ServerFlavor {
            id: "f".parse().unwrap(),
            name: "f".into(),
            vcpus: 1,
            memory_mib: 64,
            disk_gib: 1,
            ephemeral_gib,
            swap_mib,
            extra_specs: BTreeMap::new(),
        }
    }

    fn sizes(disks: &[LocalDisk]) -> Vec<(LocalDiskContent, u64)> {
        disks.iter().map(|disk| (disk.content, disk.size_mib)).collect()
    }

    #[test]
    fn a_flavor_gives_all_it_has_unless_less_is_asked_for() {
        use LocalDiskContent::{Blank, Ext4, Swap};
        let (none, flavor) = (BTreeMap::new(), flavor(4, 512));
        let made = |wishes: &[LocalDiskWish]| local_disks(&flavor, wishes, &none);
        assert_eq!(sizes(&made(&[]).unwrap()), [(Ext4, 4096), (Swap, 512)]);
        let one = LocalDiskWish::Ephemeral { size_gib: Some(1) };
        let rest = LocalDiskWish::Ephemeral { size_gib: Some(3) };
        let small = LocalDiskWish::Swap { size_mib: Some(100) };
        assert_eq!(sizes(&made(&[one, rest, small]).unwrap()), [(Ext4, 1024), (Ext4, 3072), (Swap, 100)]);
        for refused in [
            &[rest, rest][..],
            &[small, small],
            &[one, one, one],
            &[LocalDiskWish::Swap { size_mib: Some(513) }],
            &[LocalDiskWish::Ephemeral { size_gib: Some(u64::MAX) }],
        ] {
            assert!(made(refused).is_err(), "{refused:?}");
        }
        let windows = BTreeMap::from([("os_type".to_owned(), "windows".to_owned())]);
        assert_eq!(sizes(&local_disks(&flavor, &[], &windows).unwrap()), [(Blank, 4096), (Swap, 512)]);
    }

    #[test]
    fn a_resize_never_shrinks_an_ephemeral_disk() {
        use LocalDiskContent::{Ext4, Swap};
        let none = BTreeMap::new();
        let (small, large, bare) = (flavor(1, 128), flavor(2, 64), flavor(0, 0));
        let have = local_disks(&small, &[], &none).unwrap();
        let grown = resized(&have, &small, &large, &none).unwrap();
        assert_eq!(sizes(&grown), [(Ext4, 2048), (Swap, 64)]);
        assert!(resized(&grown, &large, &small, &none).is_err());
        assert_eq!(resized(&[], &bare, &small, &none).unwrap(), have);
        let mut back = have;
        kept_grown(&grown, &mut back);
        assert_eq!(sizes(&back), [(Ext4, 2048), (Swap, 128)]);
    }
}
