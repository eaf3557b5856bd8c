//! The kernel of the image: its file, its version, and the modules that the image needs with their dependencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::output;

/// A kernel as unpacked from its package.
pub struct Kernel {
    /// The compressed kernel.
    pub image: PathBuf,
    /// What `uname -r` says.
    pub version: String,
    /// The folder that holds `kernel/...` and the module lists.
    pub folder: PathBuf,
    /// Paths of the modules that find the root disk, below `folder`, in the order in which they load.
    pub early: Vec<String>,
    /// Paths of all modules of the image, below `folder`, in the order in which they load.
    pub all: Vec<String>,
}

impl Kernel {
    /// Finds the kernel in `tree` and chooses the modules that the list at `list` names.
    pub fn find(tree: &Path, list: &Path) -> Result<Kernel> {
        let folder = only_entry(&tree.join("lib/modules"))?;
        let version = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = tree.join(format!("boot/vmlinuz-{version}"));
        if !image.is_file() {
            bail!("no kernel at {}", image.display());
        }
        depmod(&tree.join("bin/busybox"), tree, &version)?;
        let dependencies = Dependencies::parse(&fs::read_to_string(folder.join("modules.dep"))?);
        let (mut early, mut all) = (Vec::new(), Vec::new());
        for line in fs::read_to_string(list)?.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (place, module) = line.split_once(' ').with_context(|| format!("{}: {line}", list.display()))?;
            if place == "initramfs" {
                dependencies.add(module, &mut early)?;
            }
            dependencies.add(module, &mut all)?;
        }
        Ok(Kernel { image, version, folder, early, all })
    }
}

/// Writes the module lists of the system at `root` (with `lib/modules` in it).
pub fn depmod(busybox: &Path, root: &Path, version: &str) -> Result<()> {
    output(Command::new(busybox).args(["depmod", "-b"]).arg(root).arg(version))?;
    Ok(())
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry?.path()),
        _ => bail!("expected one kernel version in {}", folder.display()),
    }
}

/// `modules.dep`: for each module, by its name, its path and the paths that it needs.
struct Dependencies(BTreeMap<String, (String, Vec<String>)>);

impl Dependencies {
    fn parse(text: &str) -> Dependencies {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Dependencies(
            lines
                .map(|(path, needs)| {
                    let needs = needs.split_whitespace().map(String::from).collect();
                    (name_of(path), (path.to_owned(), needs))
                })
                .collect(),
        )
    }

    /// Adds `module` behind everything that it needs.
    fn add(&self, module: &str, order: &mut Vec<String>) -> Result<()> {
        let (path, needs) =
            self.0.get(&name_of(module)).with_context(|| format!("the kernel has no module {module}"))?;
        if order.contains(path) {
            return Ok(());
        }
        for need in needs {
            self.add(need, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// A module's name, from its path or from either spelling of its name.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".ko").replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_loads_before_it() {
        let dependencies = Dependencies::parse(
            "k/virtio-net.ko: k/failover.ko k/virtio.ko\nk/failover.ko:\nk/virtio.ko: k/ring.ko\nk/ring.ko:\n",
        );
        let mut order = Vec::new();
        dependencies.add("virtio_net", &mut order).expect("known");
        assert_eq!(order, ["k/failover.ko", "k/ring.ko", "k/virtio.ko", "k/virtio-net.ko"]);
        assert!(dependencies.add("e1000", &mut order).is_err());
    }
}
