//! A full Debian 12 guest image with cloud-init, made with mmdebstrap. It is for trying real software and for tests
//! outside continuous integration: it takes minutes to build, and more than a minute to start on an emulated processor.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::disk::{self, Parts};
use super::packages::Packages;
use super::{fresh_folder, rootfs};
use crate::process::{output, run, step, workspace_root};

/// The release.
const SUITE: &str = "bookworm";

/// What the image has besides the packages that every Debian has.
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,cloud-init,cloud-guest-utils,e2fsprogs,openssh-server,sudo,\
    systemd-sysv,dbus,netplan.io,systemd-resolved,iproute2,iputils-ping,ca-certificates,curl,qemu-guest-agent,less,vim-tiny";

/// Builds the image anew and gives its path.
///
/// # Errors
/// When mmdebstrap or another tool is missing or fails.
pub fn build() -> Result<PathBuf> {
    let guest = workspace_root().join("guest");
    let out = workspace_root().join("target/guest");
    let work = out.join("work-debian");
    fresh_folder(&work)?;
    let tree = work.join("packages");
    let packages = Packages::resolve(&guest.join("packages"))?;
    packages.download(&out.join("packages"))?;
    packages.extract(&out.join("packages"), &tree)?;

    step("debian image: mmdebstrap, which takes some minutes");
    let root = work.join("rootfs");
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--mode=root", "--components=main"])
        .arg(format!("--include={PACKAGES}"))
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg(SUITE)
        .arg(&root))?;
    configure(&guest.join("debian"), &root)?;
    step("debian image: disk");
    rootfs::date(&root)?;
    let parts = Parts {
        tree: &tree,
        bootloader: &guest.join("debian/bootloader.cfg"),
        kernel: &newest(&root.join("boot"), "vmlinuz-")?,
        initramfs: &newest(&root.join("boot"), "initrd.img-")?,
        root: &root,
        root_label: "debian-root",
        boot_mib: 128,
        disk_mib: 2048,
        compressed: true,
    };
    let image = out.join("debian-12.qcow2");
    fs::rename(disk::write(&parts, &work)?, &image)?;
    fs::remove_dir_all(&work)?;
    step(format!("debian image: {} ({} MiB)", image.display(), fs::metadata(&image)?.len() >> 20));
    Ok(image)
}

/// Our own files and settings.
fn configure(ours: &Path, root: &Path) -> Result<()> {
    let write = |path: &str, text: &str| -> Result<()> {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
    };
    write("etc/fstab", "LABEL=debian-root / ext4 rw,relatime 0 1\nLABEL=ARCUS-BOOT /boot/loader vfat rw,nofail 0 2\n")?;
    write("etc/hostname", "debian\n")?;
    write("etc/machine-id", "")?;
    fs::create_dir_all(root.join("boot/loader"))?;
    write("etc/cloud/cloud.cfg.d/90_arcus.cfg", &fs::read_to_string(ours.join("cloud.cfg"))?)?;
    let update = root.join("usr/local/sbin/boot-update");
    fs::copy(ours.join("boot-update"), &update)?;
    fs::set_permissions(&update, fs::Permissions::from_mode(0o755))?;
    for folder in ["etc/kernel/postinst.d", "etc/initramfs/post-update.d"] {
        fs::create_dir_all(root.join(folder))?;
        symlink("/usr/local/sbin/boot-update", root.join(folder).join("zz-boot-update"))?;
    }
    for entry in fs::read_dir(root.join("etc/ssh"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(path)?;
        }
    }
    output(Command::new("chroot").arg(root).args(["systemctl", "enable", "systemd-networkd", "systemd-resolved"]))?;
    Ok(())
}

/// The file in `folder` whose name starts with `prefix`; there is one kernel.
fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("no {prefix}* in {}", folder.display())
}
