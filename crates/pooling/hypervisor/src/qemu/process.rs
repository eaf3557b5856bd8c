//! A guest's process: how it is started, told apart from others, watched and ended.
//!
//! The process is a session of its own with nothing of ours but the descriptors it was given, so that it outlives us. It
//! is watched through a pidfd, which works the same for a child and for a process that an earlier agent started.
//! This is the only file of the crate that talks to the kernel without a safe wrapper.

use super::guard::{self, Orders};
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How much sooner than ordinary processes a guest is chosen when the machine runs out of memory: before the agent and
/// the machine's services, since one guest lost is better than all of them unmanaged.
const OOM_SCORE_ADJ: &[u8] = b"300";

/// What a guest's process is started with.
pub struct Spawn<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The user and group that it runs as.
    pub uid: u32,
    /// A further group it needs, such as that of `/dev/kvm`.
    pub extra_group: Option<u32>,
    /// Descriptors that it inherits under their present numbers; all others are closed.
    pub inherited: Vec<OwnedFd>,
    /// `cgroup.procs` files of the control groups that it joins.
    pub group_joins: Vec<File>,
    /// Gets the process's `/proc` status line: number and start time, before the program begins.
    pub identity: File,
    /// Gets what it writes to its standard output and error.
    pub log: File,
    /// For a guest that must not outlive a lease: the lease's file, and the one that is told why it was killed.
    pub guarded: Option<(PathBuf, PathBuf)>,
}

/// Starts the process. It keeps running when we end.
///
/// # Errors
/// What the kernel said, as of `execve`: `NotFound` if the program is missing.
pub fn spawn(mut spawn: Spawn<'_>) -> io::Result<Process> {
    if let Some((lease, ended)) = spawn.guarded.take() {
        return guard::spawn(spawn, lease, ended);
    }
    let mut command = Command::new(spawn.program);
    command
        .args(&spawn.arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(spawn.log.try_clone()?)
        .stderr(spawn.log);
    let inherited: Vec<RawFd> = spawn.inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let joins: Vec<RawFd> = spawn.group_joins.iter().map(AsRawFd::as_raw_fd).collect();
    let identity = spawn.identity.as_raw_fd();
    let (uid, extra_group) = (spawn.uid, spawn.extra_group);
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are sound. It makes
    // bare system calls on descriptors and constants prepared above, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            become_a_session()?;
            record_identity(identity)?;
            for join in &joins {
                write_all(*join, b"0")?;
            }
            limit_and_drop(uid, extra_group)?;
            inherit_only(&inherited)
        });
    }
    let child = command.spawn()?;
    let pid = child.id();
    // The handle is let go on purpose: the process is reaped through its pidfd, as an adopted one is noticed.
    drop(child);
    Process::open(pid)
}

/// Starts a guest's guard by the program that we are; it starts the guest as its orders say.
pub fn guard_start(orders: &Orders, arguments: &[OsString], joins: &[File], log: File) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("guard")
        .arg(serde_json::to_string(orders).map_err(io::Error::other)?)
        .arg("--")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let inherited: Vec<RawFd> = orders.inherited.iter().copied().chain([orders.identity, orders.told]).collect();
    let joins: Vec<RawFd> = joins.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: as in `spawn`.
    unsafe {
        command.pre_exec(move || {
            become_a_session()?;
            for join in &joins {
                write_all(*join, b"0")?;
            }
            inherit_only(&inherited)
        });
    }
    command.spawn()
}

/// Starts the guest of a guard, which must have one thread: the guest is killed when it ends.
pub fn guest_start(orders: &Orders, arguments: &[OsString]) -> io::Result<Child> {
    let mut command = Command::new(&orders.program);
    command.args(arguments).stdin(Stdio::null());
    let (identity, uid, extra_group) = (orders.identity, orders.uid, orders.extra_group);
    let inherited = orders.inherited.clone();
    let guard = Pid::this().as_raw();
    // SAFETY: as in `spawn`.
    unsafe {
        command.pre_exec(move || {
            record_identity(identity)?;
            limit_and_drop(uid, extra_group)?;
            // After the change of user, which would clear it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if libc::getppid() != guard {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            inherit_only(&inherited)
        });
    }
    command.spawn()
}

/// Takes a descriptor that a guard inherited, and that nobody else in it has.
pub fn owned(fd: RawFd) -> File {
    // SAFETY: each of the descriptors in a guard's orders was handed to this process alone, and is taken once.
    unsafe { File::from_raw_fd(fd) }
}

/// A descriptor of a process that becomes readable when it ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0_u32);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn become_a_session() -> io::Result<()> {
    // SAFETY: setsid and sigprocmask take no memory of ours but the local set, which sigemptyset initialises.
    unsafe {
        check(libc::setsid())?;
        // Signals that an agent's thread blocks would stay blocked in QEMU for ever.
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        check(libc::sigemptyset(&raw mut none))?;
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))
    }
}

fn record_identity(to: RawFd) -> io::Result<()> {
    let mut line = [0_u8; 1024];
    // SAFETY: the path is a constant C string; read gets a buffer and its true length.
    let length = unsafe {
        let stat = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        check(stat)?;
        let length = libc::read(stat, line.as_mut_ptr().cast(), line.len());
        libc::close(stat);
        length
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    write_all(to, &line[..length])
}

fn limit_and_drop(uid: u32, extra_group: Option<u32>) -> io::Result<()> {
    let groups = [extra_group.unwrap_or(0)];
    let groups_len = usize::from(extra_group.is_some());
    // SAFETY: constant C strings and local structures that outlive each call.
    unsafe {
        let oom = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(oom)?;
        let written = write_all(oom, OOM_SCORE_ADJ);
        libc::close(oom);
        written?;
        // A core file would hold the guest's memory.
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        check(libc::setgroups(groups_len, groups.as_ptr()))?;
        check(libc::setresgid(uid, uid, uid))?;
        check(libc::setresuid(uid, uid, uid))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

fn inherit_only(inherited: &[RawFd]) -> io::Result<()> {
    // SAFETY: both calls only change flags of descriptors of this process, which is about to be replaced.
    unsafe {
        let all = libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if all < 0 {
            return Err(io::Error::last_os_error());
        }
        for fd in inherited {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
    }
    Ok(())
}

fn write_all(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer and its length belong together.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if usize::try_from(written).is_ok_and(|n| n == bytes.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A process that is held by its pidfd: it may end, but its number cannot come to mean another.
pub struct Process {
    /// Its number.
    pub pid: u32,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Holds the process that has this number now.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let fd = pidfd(pid)?;
        // SAFETY: an `OwnedFd` keeps its descriptor open and never changes it for another, as is asked of the argument.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Self { pid, fd })
    }

    /// Holds the process that an identity line tells of, if it still lives.
    ///
    /// # Errors
    /// The kernel's, other than that there is no such process.
    pub fn find(identity: &str) -> io::Result<Option<Self>> {
        let Some(wanted) = Identity::parse(identity) else { return Ok(None) };
        let process = match Self::open(wanted.pid) {
            Ok(process) => process,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Read after the pidfd is held, so that the number cannot change its meaning in between.
        let now = std::fs::read_to_string(format!("/proc/{}/stat", wanted.pid)).unwrap_or_default();
        let same = Identity::parse(&now).is_some_and(|now| now == wanted);
        Ok((same && !process.has_ended()).then_some(process))
    }

    /// Returns once the process has ended.
    pub async fn ended(&self) {
        // The descriptor becomes readable for good when the process ends, so its readiness is never cleared. An error
        // means that the runtime shuts down; then nobody waits for the answer.
        let _ = self.fd.readable().await;
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }

    /// Ends the process at once.
    ///
    /// # Errors
    /// The kernel's; that it has ended already is none.
    pub fn kill(&self) -> io::Result<()> {
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: a null `siginfo` is allowed and means an ordinary signal.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0_u32)
        };
        match io::Error::last_os_error() {
            _ if sent == 0 => Ok(()),
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }

    /// How it ended, if it has and was our child; also frees its entry in the kernel's table.
    pub fn reap(&self) -> Option<String> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?);
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok()? {
            WaitStatus::Exited(_, code) => Some(format!("QEMU ended with exit code {code}")),
            WaitStatus::Signaled(_, signal, _) => Some(format!("QEMU was ended by signal {signal}")),
            _ => None,
        }
    }
}

/// What tells a process from a later one with the same number.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    pid: u32,
    /// Clock ticks from the machine's start to the process's.
    start_ticks: u64,
}

impl Identity {
    /// Reads a line of `/proc/<pid>/stat`.
    fn parse(line: &str) -> Option<Self> {
        let pid = line.split(' ').next()?.parse().ok()?;
        Some(Self { pid, start_ticks: field(line, 22)?.parse().ok()? })
    }
}

/// A field of `/proc/<pid>/stat` by its number in proc(5), from 3 on. The name before them may hold anything.
fn field(line: &str, number: usize) -> Option<&str> {
    let (_, after_name) = line.rsplit_once(") ")?;
    after_name.split(' ').nth(number.checked_sub(3)?)
}

/// CPU time in milliseconds and resident memory in KiB of a process.
pub fn used(pid: u32) -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let ticks: u64 = field(&stat, 14)?.parse::<u64>().ok()? + field(&stat, 15)?.parse::<u64>().ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf only reads.
    let (ticks_per_s, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    let (ticks_per_s, page) = (u64::try_from(ticks_per_s).ok()?, u64::try_from(page).ok()?);
    Some((ticks.checked_mul(1000)?.checked_div(ticks_per_s)?, pages.checked_mul(page)? / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let rest = (4..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let line = format!("77 (a) S 1 (b) S {rest}");
        assert_eq!(Identity::parse(&line), Some(Identity { pid: 77, start_ticks: 22 }));
        assert_eq!(Identity::parse("77"), None);
        assert_eq!(Identity::parse(""), None);
    }

    #[tokio::test]
    async fn a_number_that_means_another_process_now_is_not_found() {
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(Process::find(&own).unwrap().is_some());
        let ticks = field(&own, 22).unwrap();
        let earlier = own.replace(&format!(" {ticks} "), " 1 ");
        assert!(Process::find(&earlier).unwrap().is_none());
    }
}
