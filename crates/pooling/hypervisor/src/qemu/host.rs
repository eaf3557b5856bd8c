//! What QEMU and the CPU of this node can do, asked once.

use super::{AccelChoice, QemuConfig};
use crate::{HypervisorError, HypervisorFacts};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The newest machine type that is used: guests of a cloud must be able to move between its nodes, whose QEMU may be
/// newer, so it only rises with a release of Arcus. `(major, minor)`.
const MACHINE_MAX: (u32, u32) = (7, 2);

/// The CPU model for emulated guests: AMD's vendor name, so that kernels leave out their costly guard against Meltdown,
/// and the instructions of the x86-64-v2 level, which current distributions demand. All of it is the same in each release.
const CPU_TCG: &str = "qemu64,+cx16,+lahf-lm,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3,+rdrand";

/// The CPU model under KVM.
const CPU_KVM: &str = "host,migratable=on";

/// A node that can run guests.
#[derive(Debug, Clone)]
pub struct Host {
    /// What is told upwards.
    pub facts: HypervisorFacts,
    /// The group that may open `/dev/kvm`, if guests need it.
    pub kvm_group: Option<u32>,
}

/// Looks at QEMU and the machine.
///
/// # Errors
/// `ProgramMissing` and `Unsuitable`.
pub async fn probe(config: &QemuConfig) -> Result<Host, HypervisorError> {
    let version = ask(&config.qemu, &["--version"]).await?;
    let machines = ask(&config.qemu, &["-machine", "help"]).await?;
    ask(&config.qemu_img, &["--version"]).await?;
    let kvm = choose_kvm(config.accel)?;
    let facts = HypervisorFacts {
        version: version_of(&version).ok_or_else(|| unsuitable("QEMU does not tell its version"))?,
        accel: if kvm.is_some() { "kvm" } else { "tcg" }.to_owned(),
        cpu_model: config.cpu_model.clone().unwrap_or_else(|| if kvm.is_some() { CPU_KVM } else { CPU_TCG }.to_owned()),
        machine: machine_of(&machines).ok_or_else(|| unsuitable("QEMU has no machine pc-q35 up to 7.2"))?,
    };
    Ok(Host { facts, kvm_group: kvm.flatten() })
}

async fn ask(program: &Path, arguments: &[&str]) -> Result<String, HypervisorError> {
    let output = tokio::process::Command::new(program).args(arguments).output().await;
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(unsuitable(&format!("{} {} failed: {said}", program.display(), arguments.join(" "))))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(program)),
        Err(e) => Err(unsuitable(&format!("{} cannot be run: {e}", program.display()))),
    }
}

/// The error for a program that is not installed.
pub fn missing(program: &Path) -> HypervisorError {
    let image_tool = program.file_name().is_some_and(|name| name == "qemu-img");
    let package = if image_tool { "qemu-utils" } else { "qemu-system-x86" };
    HypervisorError::ProgramMissing { program: program.display().to_string(), package }
}

fn unsuitable(reason: &str) -> HypervisorError {
    HypervisorError::Unsuitable { reason: reason.to_owned() }
}

/// `7.2.22` of `QEMU emulator version 7.2.22 (Debian ...)`.
fn version_of(text: &str) -> Option<String> {
    text.split_whitespace().skip_while(|word| *word != "version").nth(1).map(str::to_owned)
}

/// The highest versioned q35 that `-machine help` lists, not above [`MACHINE_MAX`].
fn machine_of(text: &str) -> Option<String> {
    let version = |name: &str| {
        let mut parts = name.strip_prefix("pc-q35-")?.split('.');
        let major: u32 = parts.next()?.parse().ok()?;
        let minor: u32 = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((major, minor))
    };
    let best = text.lines().filter_map(|line| version(line.split_whitespace().next()?)).filter(|v| *v <= MACHINE_MAX);
    best.max().map(|(major, minor)| format!("pc-q35-{major}.{minor}"))
}

/// Whether KVM is used, and the group that guests must be in for it.
fn choose_kvm(choice: AccelChoice) -> Result<Option<Option<u32>>, HypervisorError> {
    let usable = || -> Result<Option<u32>, String> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !cpu_virtualises(&cpu) {
            return Err("the CPU shows neither vmx nor svm".to_owned());
        }
        let device = Path::new("/dev/kvm");
        std::fs::OpenOptions::new().read(true).write(true).open(device).map_err(|e| format!("/dev/kvm: {e}"))?;
        let meta = std::fs::metadata(device).map_err(|e| format!("/dev/kvm: {e}"))?;
        match (meta.mode() & 0o006 == 0o006, meta.mode() & 0o060 == 0o060) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(meta.gid())),
            (false, false) => Err("/dev/kvm is for root alone; give its group read and write access".to_owned()),
        }
    };
    match choice {
        AccelChoice::Tcg => Ok(None),
        AccelChoice::Kvm => {
            usable().map(Some).map_err(|reason| unsuitable(&format!("KVM was asked for, but {reason}")))
        }
        AccelChoice::Auto => match usable() {
            Ok(group) => Ok(Some(group)),
            Err(reason) => {
                tracing::info!(reason, "guests are emulated (TCG), for KVM is not usable");
                Ok(None)
            }
        },
    }
}

/// Whether `/proc/cpuinfo` shows the CPU's virtualisation. `/dev/kvm` alone proves nothing: on some machines without the
/// flag it opens, and guests hang.
fn cpu_virtualises(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_machine_type_not_above_ours_is_taken() {
        let help =
            "pc-q35-8.1 x\npc-q35-7.2 x\npc-q35-7.1 x\npc-q35-4.0.1 x\nq35 x (alias of pc-q35-8.1)\npc-i440fx-7.2 x";
        assert_eq!(machine_of(help).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(machine_of("pc-q35-2.9 x\npc-q35-2.10 x").as_deref(), Some("pc-q35-2.10"));
        assert_eq!(machine_of("virt-7.2 x"), None);
    }

    #[test]
    fn the_version_is_read() {
        assert_eq!(version_of("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright").as_deref(), Some("7.2.22"));
    }

    #[test]
    fn kvm_takes_the_cpus_flag() {
        assert!(cpu_virtualises("processor: 0\nflags\t\t: fpu svm lm"));
        assert!(!cpu_virtualises("flags: fpu hypervisor\nvmx flags: vnmi"));
    }
}
