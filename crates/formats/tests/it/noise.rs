//! No bytes whatsoever make the inspector panic, and no damage turns an image into one that names another file.

use crate::made::{Folder, stream};
use arcus_formats::{Limits, inspect_file};
use arcus_types::agent::DiskFormat::{self, Iso, Qcow2, Raw, Vhd, Vmdk};
use proptest::prelude::*;
use std::io::Cursor;
use std::sync::OnceLock;

const ALL: [DiskFormat; 5] = [Raw, Qcow2, Vmdk, Vhd, Iso];

/// Real images of each kind, made once.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let folder = Folder::new();
        let mut seeds: Vec<Vec<u8>> = [
            "-c -O qcow2",
            "-O qcow2 -o compat=0.10,cluster_size=512",
            "-O qcow2 -o extended_l2=on,cluster_size=64k",
            "-O vmdk",
            "-O vmdk -o subformat=streamOptimized",
            "-O vpc",
        ]
        .iter()
        .map(|words| folder.converted("seed", words))
        .collect();
        folder.qemu_img("create -q -u -f qcow2 -F raw -b /some/where layer 1M");
        seeds.push(folder.bytes("layer"));
        seeds
    })
}

fn judge_all(bytes: &[u8], step: usize) {
    for declared in ALL {
        let streamed = stream(bytes, declared, step);
        let stored = inspect_file(&mut Cursor::new(bytes), declared, Limits::default());
        if let Ok(stored) = stored {
            assert_eq!(streamed.unwrap(), stored);
        }
        let _ = arcus_formats::own_disk(&mut Cursor::new(bytes));
        let _ = arcus_formats::own_snapshots(&mut Cursor::new(bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..4096), magic in 0usize..6, step in 1usize..5000) {
        let magics: [&[u8]; 6] = [b"", b"QFI\xfb\0\0\0\x03", b"QFI\xfb\0\0\0\x02", b"KDMV\x01\0\0\0", b"conectix", b"# Disk DescriptorFile"];
        judge_all(&[magics[magic], &bytes].concat(), step);
    }

    #[test]
    fn damaged_images_are_judged(
        seed in 0usize..7,
        damage in proptest::collection::vec((0usize..2048, prop_oneof![Just(0u8), Just(0xff), any::<u8>()]), 1..12),
        cut in proptest::option::of(0usize..200_000),
    ) {
        let mut bytes = seeds()[seed].clone();
        for (offset, value) in damage {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte = value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        judge_all(&bytes, 1 << 16);
    }
}
