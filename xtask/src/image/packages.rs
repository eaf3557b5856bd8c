//! Debian packages: which versions the archive offers, their download and unpacking.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::inputs::file_digest;
use crate::process::{output, step};

/// The package whose dependency is the current kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The packages of the image with the versions that the archive offers now.
pub struct Packages {
    wanted: Vec<Wanted>,
    archives: Vec<Archive>,
}

/// One line of `guest/packages`.
struct Wanted {
    package: String,
    files: Vec<String>,
}

/// One `.deb` file, as apt describes it.
struct Archive {
    file_name: String,
    sha256: String,
}

impl Packages {
    /// Reads the list at `list` and asks apt for versions and digests.
    ///
    /// # Errors
    /// When apt does not know a package even after an update of its lists.
    pub fn resolve(list: &Path) -> Result<Packages> {
        let wanted =
            parse_list(&fs::read_to_string(list).with_context(|| format!("could not read {}", list.display()))?);
        let archives = match archives(&wanted) {
            Ok(archives) => archives,
            Err(_) => {
                step("guest image: apt-get update");
                output(Command::new("apt-get").arg("update"))?;
                archives(&wanted)?
            }
        };
        Ok(Packages { wanted, archives })
    }

    /// How many packages there are, the kernel included.
    pub fn count(&self) -> usize {
        self.archives.len()
    }

    /// One line for each package: file name and digest, sorted.
    pub fn versions(&self) -> String {
        let mut lines: Vec<String> =
            self.archives.iter().map(|archive| format!("{} {}\n", archive.file_name, archive.sha256)).collect();
        lines.sort();
        lines.concat()
    }

    /// The files that the image takes, with paths as in the packages.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().flat_map(|wanted| wanted.files.iter().map(String::as_str))
    }

    /// Fetches what `folder` does not hold yet, and checks all of it against apt's digests.
    pub fn download(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let missing: Vec<&Archive> = self
            .archives
            .iter()
            .filter(|archive| file_digest(&folder.join(&archive.file_name)).ok().as_ref() != Some(&archive.sha256))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        step(format!("guest image: download of {} packages", missing.len()));
        let exact = missing.iter().map(|archive| archive.name_and_version());
        output(
            Command::new("apt-get")
                .args(["-o", "APT::Sandbox::User=root", "-q", "download"])
                .args(exact)
                .current_dir(folder),
        )?;
        for archive in missing {
            let got = file_digest(&folder.join(&archive.file_name))?;
            if got != archive.sha256 {
                bail!("{} has digest {got}, expected {}", archive.file_name, archive.sha256);
            }
        }
        Ok(())
    }

    /// Unpacks all packages from `folder` into one tree.
    pub fn extract(&self, folder: &Path, tree: &Path) -> Result<()> {
        fs::create_dir_all(tree)?;
        for archive in &self.archives {
            output(Command::new("dpkg-deb").arg("-x").arg(folder.join(&archive.file_name)).arg(tree))?;
        }
        Ok(())
    }
}

impl Archive {
    /// The form in which apt takes an exact version: `name=version`.
    fn name_and_version(&self) -> String {
        let mut parts = self.file_name.split('_');
        let name = parts.next().unwrap_or_default();
        let version = parts.next().unwrap_or_default().replace("%3a", ":");
        format!("{name}={version}")
    }
}

fn parse_list(text: &str) -> Vec<Wanted> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace().map(String::from);
            Wanted { package: words.next().unwrap_or_default(), files: words.collect() }
        })
        .collect()
}

/// Asks apt where each package is; its answer has lines of the form `'uri' file size SHA256:digest`.
fn archives(wanted: &[Wanted]) -> Result<Vec<Archive>> {
    let text = output(
        Command::new("apt-get")
            .args(["--print-uris", "download"])
            .args(wanted.iter().map(|wanted| wanted.package.as_str()))
            .arg(kernel_package()?),
    )?;
    let archives: Vec<Archive> = text.lines().filter_map(parse_uri_line).collect();
    if archives.len() != wanted.len() + 1 {
        bail!("apt knows {} of {} packages", archives.len(), wanted.len() + 1);
    }
    Ok(archives)
}

fn parse_uri_line(line: &str) -> Option<Archive> {
    let mut words = line.split_whitespace().skip(1);
    let file_name = words.next()?.to_owned();
    let sha256 = words.nth(1)?.strip_prefix("SHA256:")?.to_owned();
    Some(Archive { file_name, sha256 })
}

/// The package of the current kernel.
fn kernel_package() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", "--important", KERNEL]))?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(String::from)
        .with_context(|| format!("apt does not know {KERNEL}"))
}

/// Where a packaged file lies in a system whose `/bin`, `/sbin` and `/lib` are links into `/usr`.
pub fn merged(path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    match path.split('/').next() {
        Some("bin" | "sbin" | "lib") => Path::new("usr").join(path),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_line_names_the_package_and_its_files() {
        let list = parse_list("# comment\n\nbusybox-static  bin/busybox\nlibc6\n");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].package, "busybox-static");
        assert_eq!(list[0].files, ["bin/busybox"]);
        assert!(list[1].files.is_empty());
    }

    #[test]
    fn an_uri_line_gives_file_and_digest() {
        let archive =
            parse_uri_line("'http://x/p/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 928188 SHA256:00ff").expect("parses");
        assert_eq!(archive.sha256, "00ff");
        assert_eq!(archive.name_and_version(), "a=1:2");
        assert!(parse_uri_line("Reading lists").is_none());
    }

    #[test]
    fn old_paths_move_below_usr() {
        assert_eq!(merged("sbin/resize2fs"), Path::new("usr/sbin/resize2fs"));
        assert_eq!(merged("etc/mke2fs.conf"), Path::new("etc/mke2fs.conf"));
    }
}
