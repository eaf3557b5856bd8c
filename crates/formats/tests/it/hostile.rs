//! What could reach beyond the image, or is something else than declared, is refused with words that help.

use crate::made::{Folder, refused_for, stream};
use arcus_formats::{Inspector, Limits, Unsafe};
use arcus_types::agent::DiskFormat::{Iso, Qcow2, Raw, Vhd, Vmdk};

#[test]
fn a_qcow2_that_needs_another_file_is_refused() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f raw base 1M");
    for name in ["base", "/etc/passwd", "json:{\"driver\":\"raw\"}", "nbd://example.org:1/x"] {
        folder.qemu_img(&format!("create -q -u -f qcow2 -F raw -b {name} layer 1M"));
        refused_for(folder.judge("layer", Qcow2), "backing file");
    }
    folder.qemu_img("create -q -f qcow2 -o data_file=elsewhere split 1M");
    refused_for(folder.judge("split", Qcow2), "external data file");
    folder.qemu_img("create -q -f qcow2 -o data_file=elsewhere,data_file_raw=on split-raw 1M");
    refused_for(folder.judge("split-raw", Qcow2), "external data file");
}

#[test]
fn a_data_file_is_refused_even_without_its_feature_bit() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 -o data_file=elsewhere split 1M");
    let mut bytes = folder.bytes("split");
    bytes[79] &= !4;
    refused_for(stream(&bytes, Qcow2, 4096), "external data file");
}

#[test]
fn an_encrypted_or_unclean_qcow2_is_refused() {
    let folder = Folder::new();
    folder.luks("luks");
    refused_for(folder.judge("luks", Qcow2), "encrypted");
    folder.qemu_img("create -q -f qcow2 kept 1M");
    folder.qemu_img("snapshot -c first kept");
    refused_for(folder.judge("kept", Qcow2), "internal snapshots");
    folder.qemu_img("create -q -f qcow2 plain 1M");
    let plain = folder.bytes("plain");
    for (bit, words) in [(1, "not closed cleanly"), (2, "corrupt"), (32, "not known here")] {
        let mut bytes = plain.clone();
        bytes[79] |= bit;
        refused_for(stream(&bytes, Qcow2, 4096), words);
    }
}

#[test]
fn a_qcow2_whose_numbers_lie_is_refused() {
    let folder = Folder::new();
    let plain = folder.converted("plain", "-O qcow2");
    let patched = |offset: usize, value: &[u8]| {
        let mut bytes = plain.clone();
        bytes[offset..offset + value.len()].copy_from_slice(value);
        stream(&bytes, Qcow2, 1 << 16)
    };
    refused_for(patched(4, &9u32.to_be_bytes()), "unknown version 9");
    refused_for(patched(20, &8u32.to_be_bytes()), "clusters of 2^8");
    refused_for(patched(20, &63u32.to_be_bytes()), "clusters of 2^63");
    refused_for(patched(24, &((16u64 << 20) + 1).to_be_bytes()), "whole sectors");
    refused_for(patched(24, &0u64.to_be_bytes()), "no size");
    refused_for(patched(24, &(1u64 << 50).to_be_bytes()), "tables cover only");
    refused_for(patched(36, &u32::MAX.to_be_bytes()), "more than any disk needs");
    refused_for(patched(40, &12_345u64.to_be_bytes()), "impossible offset");
    refused_for(patched(40, &(1u64 << 62).to_be_bytes()), "cut short");
    refused_for(patched(48, &u64::MAX.to_be_bytes()), "impossible offset");
    refused_for(patched(56, &u32::MAX.to_be_bytes()), "reference count table");
    refused_for(patched(100, &80u32.to_be_bytes()), "header of 80 bytes");
    refused_for(patched(100, &u32::MAX.to_be_bytes()), "header of 4294967295 bytes");
    refused_for(patched(96, &7u32.to_be_bytes()), "64 bits");
    refused_for(patched(104, &[7]), "compression method 7");
    refused_for(patched(116, &u32::MAX.to_be_bytes()), "longer than the header");
}

#[test]
fn a_disk_larger_than_the_limit_is_refused_before_the_end() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 -o cluster_size=2M huge 64T");
    refused_for(folder.judge("huge", Qcow2), "at most 17592186044416 are allowed");
    let limits = Limits { virtual_size_bytes_max: 1 << 20 };
    folder.converted("image", "-O qcow2");
    let mut inspector = Inspector::new(Qcow2, limits);
    let early = folder.bytes("image").chunks(1 << 19).take(2).find_map(|chunk| inspector.feed(chunk).err());
    assert!(matches!(early, Some(Unsafe::TooLarge { .. })), "{early:?}");
}

#[test]
fn an_image_that_was_cut_short_is_refused() {
    let folder = Folder::new();
    for (words, declared) in [
        ("-O qcow2", Qcow2),
        ("-c -O qcow2", Qcow2),
        ("-O qcow2 -o extended_l2=on", Qcow2),
        ("-O vmdk -o subformat=streamOptimized", Vmdk),
        ("-O vpc", Vhd),
        ("-O vpc -o subformat=fixed", Vhd),
    ] {
        let bytes = folder.converted("image", words);
        for length in [bytes.len() / 2, 200, 1] {
            std::fs::write(folder.path("cut"), &bytes[..length]).unwrap();
            assert!(folder.judge("cut", declared).is_err(), "{words} cut to {length} of {}", bytes.len());
        }
    }
    refused_for(stream(&[], Raw, 1), "no bytes at all");
}

#[test]
fn what_is_not_as_declared_is_refused() {
    let folder = Folder::new();
    let qcow2 = folder.converted("qcow2", "-O qcow2");
    let vmdk = folder.converted("vmdk", "-O vmdk");
    let fixed = folder.converted("fixed", "-O vpc -o subformat=fixed");
    let dynamic = folder.converted("dynamic", "-O vpc");
    for (bytes, found) in [(&qcow2, "qcow2"), (&vmdk, "vmdk"), (&fixed, "vhd"), (&dynamic, "vhd")] {
        for declared in [Raw, Iso, Qcow2, Vmdk, Vhd] {
            let result = stream(bytes, declared, 1 << 16);
            if let Ok(inspection) = result {
                assert_eq!(format!("{:?}", inspection.format).to_lowercase(), found);
            } else if bytes == &fixed && declared != Raw {
                // It shows itself only at its end, and its beginning is refused already.
                refused_for(result, "not of any known format");
            } else {
                refused_for(result, &format!("its content is {found}"));
            }
        }
    }
    for declared in [Iso, Qcow2, Vmdk, Vhd] {
        refused_for(stream(&[7; 200_000], declared, 1 << 16), "");
    }
    for (words, found) in [("-O vdi", "vdi"), ("-O vhdx", "vhdx"), ("-O qed", "qed"), ("-O parallels", "Parallels")] {
        refused_for(stream(&folder.converted("other", words), Raw, 1 << 16), found);
    }
    refused_for(stream(b"\x1f\x8b\x08 and so on", Raw, 1), "unpack it");
}

#[test]
fn a_vmdk_that_names_another_file_is_refused() {
    let folder = Folder::new();
    for kind in ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        folder.converted("list.vmdk", &format!("-O vmdk -o subformat={kind}"));
        refused_for(folder.judge("list.vmdk", Vmdk), "names other files");
    }
    let plain = folder.converted("plain.vmdk", "-O vmdk");
    let edited = |from: &str, to: &str| {
        let at = plain.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = plain.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        stream(&bytes, Vmdk, 1 << 16)
    };
    refused_for(edited("monolithicSparse", "fullDevice\"\n#    "), "of the kind 'fullDevice'");
    refused_for(edited("RW 32768 SPARSE \"plain", "RW 9 FLAT \"/etc/passw"), "storage outside itself");
    refused_for(edited("SPARSE \"plain", "SPARSE \"/dev/"), "storage outside itself");
    refused_for(edited("parentCID=ffffffff", "parentCID=0000000a"), "a parent");
    refused_for(edited("# The Disk Data Base", "parentFileNameHint=1"), "a parent");
    let mut hidden = plain.clone();
    hidden[512 + 19 * 512..][..22].copy_from_slice(b"createType=\"fullDevice");
    refused_for(stream(&hidden, Vmdk, 1 << 16), "a second descriptor");
    let mut empty = plain.clone();
    empty[12..20].fill(0);
    refused_for(stream(&empty, Vmdk, 1 << 16), "a disk of 0 sectors");
}

#[test]
fn the_footer_of_a_vmdk_stream_must_agree_with_its_header() {
    let folder = Folder::new();
    let mut bytes = folder.converted("stream.vmdk", "-O vmdk -o subformat=streamOptimized");
    // As VMware writes it: the header points to the end, where a marker, the header proper and an end mark stand.
    let mut copy = bytes[..512].to_vec();
    bytes[56..64].fill(0xff);
    let mut end = vec![0; 512];
    end[12] = 3;
    let with_footer = |copy: &[u8]| [&bytes, &end, copy, &[0; 512]].concat();
    assert_eq!(stream(&with_footer(&copy), Vmdk, 1 << 16).unwrap().virtual_size_bytes, 16 << 20);
    refused_for(stream(&bytes, Vmdk, 1 << 16), "footer is missing");
    copy[14] = 0xff;
    refused_for(stream(&with_footer(&copy), Vmdk, 1 << 16), "contradicts its header");
}

/// Writes `value` and mends the ones' complement checksum at `checksum` over `length` bytes from `base`.
fn mended(bytes: &mut [u8], base: usize, length: usize, checksum: usize, offset: usize, value: &[u8]) {
    bytes[base + offset..][..value.len()].copy_from_slice(value);
    bytes[base + checksum..][..4].fill(0);
    let sum = bytes[base..base + length].iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[base + checksum..][..4].copy_from_slice(&(!sum).to_be_bytes());
}

#[test]
fn a_differencing_vhd_is_refused() {
    let folder = Folder::new();
    let plain = folder.converted("dynamic", "-O vpc");
    let mut kind = plain.clone();
    mended(&mut kind, 0, 512, 64, 60, &4u32.to_be_bytes());
    refused_for(stream(&kind, Vhd, 1 << 16), "differencing");
    let mut locator = plain.clone();
    mended(&mut locator, 512, 1024, 36, 576, b"W2ku");
    refused_for(stream(&locator, Vhd, 1 << 16), "a parent");
    let mut table = plain.clone();
    mended(&mut table, 512, 1024, 36, 28, &u32::MAX.to_be_bytes());
    refused_for(stream(&table, Vhd, 1 << 16), "blocks");
    let mut sum = plain.clone();
    sum[40] ^= 1;
    refused_for(stream(&sum, Vhd, 1 << 16), "checksum");
    let mut end = plain;
    let footer = end.len() - 512;
    mended(&mut end, footer, 512, 64, 48, &(1u64 << 30).to_be_bytes());
    refused_for(stream(&end, Vhd, 1 << 16), "contradicts");
}
