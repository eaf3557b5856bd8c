//! Network namespaces, kept alive and named by bind mounts as iproute2 does it, so that `ip netns` shows them.

use crate::NetworkError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

/// Where iproute2 keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// A network namespace that this process can enter.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// The namespace of the calling thread, called `the node` in errors.
    pub fn current() -> Result<Self, NetworkError> {
        let name = "the node".to_owned();
        match File::open("/proc/thread-self/ns/net") {
            Ok(handle) => Ok(Self { name, handle }),
            Err(source) => Err(NetworkError::Namespace { name, action: "open it", source }),
        }
    }

    /// The named namespace, made unless it is there. Says whether it was made.
    pub fn ensure(name: &str) -> Result<(Self, bool), NetworkError> {
        if let Some(there) = Self::open(name)? {
            return Ok((there, false));
        }
        let failed = |action| move |source| NetworkError::Namespace { name: name.to_owned(), action, source };
        folder_ensure().map_err(failed("prepare /run/netns"))?;
        let path = path_of(name);
        // A file without a mount is left behind by a machine or an agent that went down in between.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear its name")(error)),
            Err(_) | Ok(()) => {}
        }
        File::create_new(&path).map_err(failed("name it"))?;
        let made = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    let none: Option<&str> = None;
                    mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)
                })
                .join()
        });
        match made {
            Ok(Ok(())) => {}
            Ok(Err(errno)) => {
                let _ = fs::remove_file(&path);
                return Err(failed("make it")(errno.into()));
            }
            Err(_) => return Err(NetworkError::Worker),
        }
        match Self::open(name)? {
            Some(there) => Ok((there, true)),
            None => Err(failed("open it")(io::Error::from(io::ErrorKind::NotFound))),
        }
    }

    /// The named namespace, if it is there.
    pub fn open(name: &str) -> Result<Option<Self>, NetworkError> {
        let failed = |source| NetworkError::Namespace { name: name.to_owned(), action: "open it", source };
        let handle = match File::open(path_of(name)) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let kind = nix::sys::statfs::fstatfs(&handle).map_err(|errno| failed(errno.into()))?.filesystem_type();
        if kind != nix::sys::statfs::NSFS_MAGIC {
            return Ok(None);
        }
        Ok(Some(Self { name: name.to_owned(), handle }))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which other processes reach it as long as this handle is open.
    pub fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    /// Runs `work` on a thread of its own inside the namespace; what it starts or opens belongs there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        let entered = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
                    Ok::<T, nix::Error>(work())
                })
                .join()
        });
        match entered {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(errno)) => {
                Err(NetworkError::Namespace { name: self.name.clone(), action: "enter it", source: errno.into() })
            }
            Err(_) => Err(NetworkError::Worker),
        }
    }

    /// The names of the devices in it, without the loopback.
    pub fn devices(&self) -> Result<Vec<String>, NetworkError> {
        self.inside(|| {
            let list = nix::net::if_::if_nameindex()?;
            Ok(list.iter().filter_map(|i| i.name().to_str().ok().map(str::to_owned)).filter(|n| n != "lo").collect())
        })?
        .map_err(|errno: nix::Error| NetworkError::Namespace {
            name: self.name.clone(),
            action: "list its devices",
            source: errno.into(),
        })
    }
}

/// Takes the name away; the kernel ends the namespace with the last socket and device handle in it.
pub fn remove(name: &str) -> Result<(), NetworkError> {
    let failed = |action| move |source| NetworkError::Namespace { name: name.to_owned(), action, source };
    let path = path_of(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(failed("unmount it")(errno.into())),
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove its name")(error)),
    }
}

/// The names of the namespaces that begin with `prefix`.
pub fn list(prefix: &str) -> Result<Vec<String>, NetworkError> {
    let failed = |source| NetworkError::Namespace { name: format!("{prefix}*"), action: "list them", source };
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
            && name.starts_with(prefix)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Makes the folder a shared mount, so that namespaces made in it show in every mount namespace of the machine.
fn folder_ensure() -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    let none: Option<&str> = None;
    let share = || mount(none, FOLDER, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    if share().is_ok() {
        return Ok(());
    }
    // Not a mount point yet.
    mount(Some(FOLDER), FOLDER, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    share()?;
    Ok(())
}
