//! The guest image "arcus-tiny": a small bootable disk made from Debian packages and the files in `guest/`.
//!
//! The disk has an MBR, a FAT partition with SYSLINUX, kernel and initramfs, and an ext4 root partition that grows to
//! the end of the disk at each start. Nothing here mounts anything: file systems are written by tools from user space.

mod debian;
mod disk;
pub(crate) mod inputs;
mod modules;
mod packages;
mod rootfs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{step, workspace_root};
pub use debian::build as build_debian;
use packages::Packages;

/// What a built image may weigh, in bytes. Promised in `docs/SPECIFICATION.md`.
pub const IMAGE_BYTES_MAX: u64 = 40 * 1024 * 1024;

/// The moment that files of the image bear, in seconds since 1970, so that equal inputs give equal images.
const SOURCE_DATE_EPOCH: u64 = 1_700_000_000;

/// Where `build` puts the image.
pub fn image_path() -> PathBuf {
    workspace_root().join("target/guest/arcus-tiny.qcow2")
}

/// Builds the image, unless the one that is there came from the same inputs. Gives its path.
///
/// # Errors
/// When packages cannot be had, a tool is missing or fails, or the image would weigh too much.
pub fn build() -> Result<PathBuf> {
    let guest = workspace_root().join("guest");
    let out = workspace_root().join("target/guest");
    fs::create_dir_all(&out).with_context(|| format!("could not create {}", out.display()))?;
    let image = image_path();
    let stamp = out.join("arcus-tiny.inputs");
    let recorded = fs::read_to_string(&stamp).unwrap_or_default();

    let packages = match Packages::resolve(&guest.join("packages")) {
        Ok(packages) => packages,
        Err(error) if image.exists() && recorded.starts_with(&inputs::sources_digest(&guest)?) => {
            step(format!("guest image: kept as it is, for the package archive does not answer ({error})"));
            return Ok(image);
        }
        Err(error) => return Err(error),
    };
    let wanted = format!("{}\n{}", inputs::sources_digest(&guest)?, packages.versions());
    if image.exists() && recorded == wanted {
        step(format!("guest image: up to date, {}", image.display()));
        return Ok(image);
    }

    step(format!("guest image: {} packages", packages.count()));
    let work = out.join("work");
    fresh_folder(&work)?;
    let tree = work.join("packages");
    packages.download(&out.join("packages"))?;
    packages.extract(&out.join("packages"), &tree)?;
    step("guest image: root filesystem");
    let kernel = modules::Kernel::find(&tree, &guest.join("modules"))?;
    let version = inputs::short_digest(&wanted);
    let root = rootfs::assemble(&guest, &tree, &packages, &kernel, &work, &version)?;
    let initramfs = work.join("initrd");
    fs::write(&initramfs, rootfs::initramfs(&guest, &tree, &kernel)?)?;
    step("guest image: disk");
    let parts = disk::Parts {
        tree: &tree,
        bootloader: &guest.join("bootloader.cfg"),
        kernel: &kernel.image,
        initramfs: &initramfs,
        root: &root,
        root_label: "arcus-root",
        boot_mib: 19,
        disk_mib: 64,
        compressed: false,
    };
    let new = disk::write(&parts, &work)?;

    let size = fs::metadata(&new)?.len();
    if size > IMAGE_BYTES_MAX {
        bail!("the guest image has {size} bytes, more than {IMAGE_BYTES_MAX}");
    }
    fs::rename(&new, &image)?;
    fs::write(&stamp, wanted)?;
    fs::remove_dir_all(&work)?;
    step(format!("guest image: {} ({:.1} MiB)", image.display(), size as f64 / (1024.0 * 1024.0)));
    Ok(image)
}

/// An empty folder at `path`, whatever was there.
fn fresh_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("could not clear {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("could not create {}", path.display()))
}
