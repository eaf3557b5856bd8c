//! The disk: an MBR, a FAT partition to start from and an ext4 root partition behind it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::SOURCE_DATE_EPOCH;
use crate::process::output;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Where the boot partition starts, in sectors.
const BOOT_START: u64 = 2048;
/// Sectors in a MiB.
const MIB: u64 = 2048;
/// A name for the disk that every copy bears, like the identity of its root filesystem.
const DISK_SIGNATURE: u32 = 0x4152_4353;
/// The identity of the root filesystem.
const ROOT_UUID: &str = "61726375-7374-4e79-a000-000000000001";

/// What goes on the disk.
pub struct Parts<'a> {
    /// Unpacked packages, SYSLINUX among them.
    pub tree: &'a Path,
    /// What SYSLINUX reads.
    pub bootloader: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// The root filesystem as a folder.
    pub root: &'a Path,
    /// The name of the root filesystem.
    pub root_label: &'a str,
    /// Size of the boot partition.
    pub boot_mib: u64,
    /// Size of the whole disk.
    pub disk_mib: u64,
    /// Whether the qcow2 file is compressed: smaller, and slower to start from.
    pub compressed: bool,
}

impl Parts<'_> {
    fn root_start(&self) -> u64 {
        BOOT_START + self.boot_mib * MIB
    }

    fn root_sectors(&self) -> u64 {
        self.disk_mib * MIB - self.root_start()
    }
}

/// Writes the disk in the folder `work` and gives the path of the finished qcow2 file.
pub fn write(parts: &Parts<'_>, work: &Path) -> Result<PathBuf> {
    let raw = work.join("disk.raw");
    let mut disk = File::create(&raw)?;
    disk.set_len(parts.disk_mib * MIB * SECTOR)?;
    disk.write_all(&mbr(parts)?)?;
    boot_partition(parts, &raw)?;
    root_partition(parts, work, &mut disk)?;
    drop(disk);
    let image = work.join("disk.qcow2");
    output(
        Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(parts.compressed.then_some("-c"))
            .arg(&raw)
            .arg(&image),
    )?;
    Ok(image)
}

/// The first sector: SYSLINUX's loader for an active partition, and the partition table.
fn mbr(parts: &Parts<'_>) -> Result<Vec<u8>> {
    let loader = parts.tree.join("usr/lib/syslinux/mbr/mbr.bin");
    let mut sector = fs::read(loader).context("no loader for the MBR")?;
    if sector.len() > 440 {
        bail!("the loader for the MBR has {} bytes, at most 440 fit", sector.len());
    }
    sector.resize(512, 0);
    sector[440..444].copy_from_slice(&DISK_SIGNATURE.to_le_bytes());
    sector[446..462].copy_from_slice(&partition(0x80, 0x0e, BOOT_START, parts.boot_mib * MIB));
    sector[462..478].copy_from_slice(&partition(0, 0x83, parts.root_start(), parts.root_sectors()));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

/// One entry of the partition table, addressed by sector number only.
fn partition(flags: u8, kind: u8, first: u64, sectors: u64) -> [u8; 16] {
    let mut entry = [0xff_u8; 16];
    entry[0] = flags;
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&(first as u32).to_le_bytes());
    entry[12..].copy_from_slice(&(sectors as u32).to_le_bytes());
    entry
}

/// The FAT partition, written in place by mtools and SYSLINUX.
fn boot_partition(parts: &Parts<'_>, raw: &Path) -> Result<()> {
    let offset = BOOT_START * SECTOR;
    let at = format!("{}@@{offset}", raw.display());
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command.env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string());
        command.env("MTOOLS_SKIP_CHECK", "1").env("TZ", "UTC");
        command
    };
    let sectors = (parts.boot_mib * MIB).to_string();
    output(tool("mformat").args(["-i", &at, "-T", &sectors, "-H", &BOOT_START.to_string()]).args([
        "-h",
        "255",
        "-s",
        "63",
        "-c",
        "8",
        "-N",
        "41524353",
        "-v",
        "ARCUS-BOOT",
        "::",
    ]))?;
    let files = [(parts.kernel, "vmlinuz"), (parts.initramfs, "initrd"), (parts.bootloader, "syslinux.cfg")];
    for (source, name) in files {
        output(tool("mcopy").args(["-i", &at]).arg(source).arg(format!("::{name}")))?;
    }
    let syslinux = parts.tree.join("usr/bin/syslinux");
    output(tool(&syslinux.to_string_lossy()).args(["--install", "--offset", &offset.to_string()]).arg(raw))?;
    Ok(())
}

/// The ext4 partition, made from a folder and copied to its place.
fn root_partition(parts: &Parts<'_>, work: &Path, disk: &mut File) -> Result<()> {
    let blocks = parts.root_sectors() * SECTOR / 4096;
    let file = work.join("root.ext4");
    let options = format!("hash_seed={ROOT_UUID},lazy_itable_init=1,resize=16777216");
    output(
        Command::new("mke2fs")
            .env("E2FSPROGS_FAKE_TIME", SOURCE_DATE_EPOCH.to_string())
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-i", "8192"])
            .args(["-J", "size=4", "-U", ROOT_UUID, "-L", parts.root_label, "-E", &options, "-d"])
            .arg(parts.root)
            .arg(&file)
            .arg(blocks.to_string()),
    )?;
    date_inodes(&file, work)?;
    disk.seek(SeekFrom::Start(parts.root_start() * SECTOR))?;
    let mut source = File::open(&file)?;
    let mut block = vec![0_u8; 64 * 1024];
    loop {
        let length = source.read(&mut block)?;
        if length == 0 {
            return Ok(());
        }
        if block[..length].iter().all(|byte| *byte == 0) {
            disk.seek(SeekFrom::Current(length as i64))?;
        } else {
            disk.write_all(&block[..length])?;
        }
    }
}

/// Gives all inodes one date in the fields that files carry over from the building machine, or from the clock.
fn date_inodes(file: &Path, work: &Path) -> Result<()> {
    let header = output(Command::new("dumpe2fs").arg("-h").arg(file))?;
    let count = |name: &str| -> Result<u64> {
        let line = header.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok());
        number.with_context(|| format!("dumpe2fs does not tell the {name}"))
    };
    let used = count("Inode count")? - count("Free inodes")?;
    let mut script = String::new();
    // Inodes 3 to 10 belong to the file system itself; of these only the root, 2, and the journal, 8, are in use.
    for inode in [2, 8].into_iter().chain(11..=used) {
        for field in ["atime", "ctime", "mtime", "crtime"] {
            script.push_str(&format!("set_inode_field <{inode}> {field} @{SOURCE_DATE_EPOCH}\n"));
            script.push_str(&format!("set_inode_field <{inode}> {field}_extra 0\n"));
        }
    }
    let commands = work.join("inodes.debugfs");
    fs::write(&commands, script)?;
    output(
        Command::new("debugfs")
            .env("E2FSPROGS_FAKE_TIME", SOURCE_DATE_EPOCH.to_string())
            .args(["-w", "-f"])
            .arg(commands)
            .arg(file),
    )?;
    Ok(())
}
