//! The root filesystem as a folder, and the initramfs as bytes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::inputs::files;
use super::modules::{Kernel, depmod};
use super::packages::{Packages, merged};
use super::{SOURCE_DATE_EPOCH, fresh_folder};
use crate::process::output;

/// The folder with shared libraries, in packages and in the image.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The dynamic loader, as packaged.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// The login user and its group.
const LOGIN_ID: u32 = 1000;

/// Folders that the image has besides those of its files.
const FOLDERS: &[&str] = &[
    "dev",
    "home",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/sbin",
    "var/lib/arcus-tiny",
];

/// Links of the image: path and target.
const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib/x86_64-linux-gnu"),
    ("var/run", "/run"),
    ("var/log", "/run"),
    ("var/tmp", "/tmp"),
    ("etc/resolv.conf", "/run/arcus-tiny/resolv.conf"),
    ("etc/mtab", "/proc/self/mounts"),
    ("usr/sbin/mkfs.ext2", "mke2fs"),
    ("usr/sbin/mkfs.ext3", "mke2fs"),
    ("usr/sbin/mkfs.ext4", "mke2fs"),
];

/// Builds the root filesystem in `work` and gives its folder. `version` names the image in its release file.
pub fn assemble(
    guest: &Path,
    tree: &Path,
    packages: &Packages,
    kernel: &Kernel,
    work: &Path,
    version: &str,
) -> Result<PathBuf> {
    let root = work.join("rootfs");
    fresh_folder(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    for (path, target) in LINKS {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        symlink(target, &path).with_context(|| format!("could not link {}", path.display()))?;
    }
    for file in packages.files() {
        take(tree, &root, file)?;
    }
    overlay(&guest.join("rootfs"), &root)?;
    applets(&tree.join("bin/busybox"), &root)?;
    for module in &kernel.all {
        let target = root.join("usr/lib/modules").join(&kernel.version).join(module);
        copy(&kernel.folder.join(module), &target, 0o644)?;
    }
    depmod(&tree.join("bin/busybox"), &root, &kernel.version)?;
    let release = format!("NAME=arcus-tiny\nVERSION={version}\nKERNEL={}\n", kernel.version);
    fs::write(root.join("etc/arcus-tiny-release"), release)?;
    set_modes(&root)?;
    date(&root)?;
    Ok(root)
}

/// Gives all files one date, so that equal inputs give equal images.
pub fn date(root: &Path) -> Result<()> {
    let date = format!("@{SOURCE_DATE_EPOCH}");
    output(Command::new("find").arg(root).args(["-exec", "touch", "-h", "-d", &date, "{}", "+"]))?;
    Ok(())
}

/// Takes one packaged file and the libraries that it needs.
fn take(tree: &Path, root: &Path, file: &str) -> Result<()> {
    let source = tree.join(file);
    let target = root.join(merged(file));
    copy(
        &source,
        &target,
        fs::metadata(&source).with_context(|| format!("no package has {file}"))?.permissions().mode(),
    )?;
    if !is_dynamic(&source)? || file == LOADER {
        return Ok(());
    }
    let library_path = [LIBRARIES, "usr/lib/x86_64-linux-gnu", "usr/libexec/sudo"].map(|folder| tree.join(folder));
    let library_path = std::env::join_paths(library_path)?;
    let listed =
        output(Command::new(tree.join(LOADER)).arg("--library-path").arg(library_path).arg("--list").arg(&source))?;
    for line in listed.lines() {
        let Some((name, found)) = line.trim().split_once(" => ") else { continue };
        let Some(found) = found.split_whitespace().next().map(Path::new).filter(|path| path.starts_with(tree)) else {
            bail!("{file} needs {name}, which no package of the image has");
        };
        let inside = found.strip_prefix(tree)?.to_string_lossy().into_owned();
        let target = root.join(merged(&inside));
        if !target.exists() {
            copy(found, &target, 0o755)?;
        }
    }
    Ok(())
}

/// Whether a file is an ELF program or library that the dynamic loader can list.
fn is_dynamic(path: &Path) -> Result<bool> {
    let mut magic = [0_u8; 4];
    let read = fs::File::open(path)?.read(&mut magic)?;
    let is_elf = read == 4 && magic == *b"\x7fELF";
    Ok(is_elf && path.file_name().is_some_and(|name| name != "busybox"))
}

fn copy(source: &Path, target: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(source, target).with_context(|| format!("could not copy {} to {}", source.display(), target.display()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode & 0o7777))?;
    Ok(())
}

/// Puts our own files over the root filesystem; scripts are known by their first line.
fn overlay(from: &Path, root: &Path) -> Result<()> {
    for source in files(from)? {
        let target = root.join(source.strip_prefix(from)?);
        let script = fs::read(&source)?.starts_with(b"#!");
        copy(&source, &target, if script { 0o755 } else { 0o644 })?;
    }
    Ok(())
}

/// Links the applets of busybox where no program of that name is.
fn applets(busybox: &Path, root: &Path) -> Result<()> {
    for applet in output(Command::new(busybox).arg("--list-full"))?.lines() {
        let path = root.join(merged(applet));
        if applet.contains('/') && path.symlink_metadata().is_err() {
            symlink("/usr/bin/busybox", &path).with_context(|| format!("could not link {}", path.display()))?;
        }
    }
    Ok(())
}

/// Modes and owners that differ from "root's, readable by all".
fn set_modes(root: &Path) -> Result<()> {
    let modes = [
        ("etc/shadow", 0o600),
        ("etc/sudoers", 0o440),
        ("usr/bin/sudo", 0o4755),
        ("usr/bin/busybox", 0o4755),
        ("root", 0o700),
        ("var/lib/arcus-tiny", 0o700),
    ];
    for (path, mode) in modes {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode))?;
    }
    let home = root.join("home/arcus");
    fs::create_dir_all(&home)?;
    chown(&home, Some(LOGIN_ID), Some(LOGIN_ID)).context("the image can only be built by root")?;
    Ok(())
}

/// The initramfs: a cpio archive in the "newc" form, not compressed, for unpacking costs more time than reading.
pub fn initramfs(guest: &Path, tree: &Path, kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["bin", "dev", "modules", "proc", "root", "run", "sys"] {
        archive.add(folder, 0o040_755, b"");
    }
    archive.add("init", 0o100_755, &fs::read(guest.join("initramfs/init"))?);
    archive.add("bin/busybox", 0o100_755, &fs::read(tree.join("bin/busybox"))?);
    for applet in ["blockdev", "dd", "insmod", "mount", "printf", "sh", "switch_root", "usleep"] {
        archive.add(&format!("bin/{applet}"), 0o120_777, b"busybox");
    }
    let mut order = String::new();
    for module in &kernel.early {
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.add(&format!("modules/{name}"), 0o100_644, &fs::read(kernel.folder.join(module))?);
        order.push_str(name);
        order.push('\n');
    }
    archive.add("modules/order", 0o100_644, order.as_bytes());
    Ok(archive.finish())
}

/// A writer of cpio archives. Source: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Adds one entry that belongs to root; `mode` has the type of the file in it.
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1_u32;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            SOURCE_DATE_EPOCH as u32,
            content.len() as u32,
            0,
            0,
            0,
            0,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}
