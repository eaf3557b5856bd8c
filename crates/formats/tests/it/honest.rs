//! What people upload is taken, with its right size.

use crate::made::{Folder, stream};
use arcus_formats::{Backing, own_disk, own_snapshots};
use arcus_types::agent::DiskFormat;
use std::fs::File;

const MIB_16: u64 = 16 << 20;

#[test]
fn every_format_that_is_promised_is_taken() {
    let folder = Folder::new();
    for (name, words, declared) in [
        ("v2", "-O qcow2 -o compat=0.10", DiskFormat::Qcow2),
        ("v3", "-O qcow2", DiskFormat::Qcow2),
        ("small-clusters", "-O qcow2 -o cluster_size=512", DiskFormat::Qcow2),
        ("large-clusters", "-O qcow2 -o cluster_size=2M", DiskFormat::Qcow2),
        ("compressed", "-c -O qcow2", DiskFormat::Qcow2),
        ("zstd", "-c -O qcow2 -o compression_type=zstd", DiskFormat::Qcow2),
        ("extended", "-O qcow2 -o extended_l2=on,cluster_size=128k", DiskFormat::Qcow2),
        ("sparse.vmdk", "-O vmdk", DiskFormat::Vmdk),
        ("stream.vmdk", "-O vmdk -o subformat=streamOptimized", DiskFormat::Vmdk),
        ("dynamic.vhd", "-O vpc -o force_size=on", DiskFormat::Vhd),
        ("fixed.vhd", "-O vpc -o force_size=on,subformat=fixed", DiskFormat::Vhd),
        ("copy.raw", "-O raw", DiskFormat::Raw),
    ] {
        folder.converted(name, words);
        let inspection = folder.judge(name, declared).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((inspection.format, inspection.virtual_size_bytes), (declared, MIB_16), "{name}");
    }
}

#[test]
fn a_blank_disk_of_ten_tebibytes_is_honest() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 blank 10T");
    assert_eq!(folder.judge("blank", DiskFormat::Qcow2).unwrap().virtual_size_bytes, 10 << 40);
}

#[test]
fn a_cd_is_an_iso_and_as_good_a_raw_disk() {
    let mut bytes = vec![0; 1 << 20];
    bytes[0x8001..0x8006].copy_from_slice(b"CD001");
    assert_eq!(stream(&bytes, DiskFormat::Iso, 4096).unwrap().virtual_size_bytes, 1 << 20);
    assert_eq!(stream(&bytes, DiskFormat::Raw, 4096).unwrap().virtual_size_bytes, 1 << 20);
}

#[test]
fn a_partition_table_is_raw_and_odd_lengths_are_whole_sectors() {
    let mut bytes = vec![0; 1000];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[512..520].copy_from_slice(b"EFI PART");
    assert_eq!(stream(&bytes, DiskFormat::Raw, 7).unwrap().virtual_size_bytes, 1024);
}

#[test]
fn the_size_of_the_pieces_does_not_matter() {
    let folder = Folder::new();
    for (words, declared) in [
        ("-c -O qcow2", DiskFormat::Qcow2),
        ("-O vmdk -o subformat=streamOptimized", DiskFormat::Vmdk),
        ("-O vpc -o subformat=fixed", DiskFormat::Vhd),
    ] {
        let bytes = folder.converted("image", words);
        let whole = stream(&bytes, declared, bytes.len()).unwrap();
        for step in [97, 511, 513, 1535, 1537, 65_536, 1 << 20, (1 << 20) + 1] {
            assert_eq!(stream(&bytes, declared, step).unwrap(), whole, "pieces of {step}");
        }
    }
}

#[test]
fn a_disk_of_our_own_tells_its_snapshots() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 disk 1G");
    let read = || own_snapshots(&mut File::open(folder.path("disk")).unwrap()).unwrap();
    assert!(read().is_empty());
    folder.qemu_img("snapshot -c first disk");
    folder.qemu_img("resize -q disk 2G");
    folder.qemu_img("snapshot -c a-second-one disk");
    let found: Vec<_> = read().into_iter().map(|found| (found.name, found.virtual_size_bytes)).collect();
    assert_eq!(found, [("first".to_owned(), 1 << 30), ("a-second-one".to_owned(), 2 << 30)]);
    folder.qemu_img("snapshot -d first disk");
    assert_eq!(read().len(), 1);
}

#[test]
fn a_disk_of_our_own_tells_what_it_lies_on() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 base 1G");
    folder.qemu_img("create -q -f qcow2 -F qcow2 -b base layer 3G");
    let disk = own_disk(&mut File::open(folder.path("layer")).unwrap()).unwrap();
    let backing = Backing { name: "base".into(), format: Some("qcow2".into()) };
    assert_eq!((disk.virtual_size_bytes, disk.backing), (3 << 30, Some(backing)));
    folder.qemu_img("create -q -f raw other 1M");
    assert!(own_disk(&mut File::open(folder.path("other")).unwrap()).is_err());
    folder.qemu_img("create -q -f qcow2 -o data_file=elsewhere split 1M");
    assert!(own_disk(&mut File::open(folder.path("split")).unwrap()).is_err());
}
