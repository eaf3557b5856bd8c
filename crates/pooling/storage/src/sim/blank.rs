//! A qcow2 image of zeros, small and valid: what a simulated disk exports as.

/// log2 of the cluster's size.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// What one entry of the first table covers: a second table of 8-byte entries, each a cluster.
const L1_COVERS: u64 = CLUSTER / 8 * CLUSTER;

/// The bytes of a qcow2 image (version 3) of that many zeros.
///
/// Header, refcount table, refcount block and an empty first table, a cluster each; the table takes more if it must.
/// Source: docs/interop/qcow2.txt of QEMU.
pub(super) fn qcow2(virtual_size_bytes: u64) -> Vec<u8> {
    let l1_entries = virtual_size_bytes.div_ceil(L1_COVERS).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    let mut image = Vec::new();
    image.extend(b"QFI\xfb");
    image.extend(3u32.to_be_bytes());
    image.extend([0; 12]); // no backing file
    image.extend(CLUSTER_BITS.to_be_bytes());
    image.extend(virtual_size_bytes.to_be_bytes());
    image.extend([0; 4]); // not encrypted
    image.extend(u32::try_from(l1_entries).unwrap_or(u32::MAX).to_be_bytes());
    image.extend((3 * CLUSTER).to_be_bytes());
    image.extend(CLUSTER.to_be_bytes());
    image.extend(1u32.to_be_bytes()); // clusters of the refcount table
    image.extend([0; 12]); // no snapshots
    image.extend([0; 24]); // no features
    image.extend(4u32.to_be_bytes()); // refcounts of 16 bits
    image.extend(104u32.to_be_bytes()); // length of the header
    at(&mut image, CLUSTER);
    image.extend((2 * CLUSTER).to_be_bytes());
    at(&mut image, 2 * CLUSTER);
    for _ in 0..clusters {
        image.extend(1u16.to_be_bytes());
    }
    at(&mut image, clusters * CLUSTER);
    image
}

/// Fills with zeros up to there.
fn at(image: &mut Vec<u8>, offset: u64) {
    image.resize(usize::try_from(offset).unwrap_or(image.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_formats::{Limits, inspect_file};
    use arcus_types::agent::DiskFormat;
    use std::io::Cursor;

    #[test]
    fn it_is_what_the_inspector_accepts_and_has_the_size() {
        for size_bytes in [512, 1 << 20, 3 << 30, (1 << 40) + 512, 32 << 40] {
            let limits = Limits { virtual_size_bytes_max: u64::MAX };
            let found = inspect_file(&mut Cursor::new(qcow2(size_bytes)), DiskFormat::Qcow2, limits).unwrap();
            assert_eq!(found.virtual_size_bytes, size_bytes);
        }
    }
}
