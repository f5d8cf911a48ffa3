//! CPU seconds and memory of a process, as the kernel counts them.

use std::fs;
use std::mem::MaybeUninit;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

/// User and system time of this process so far, in seconds.
pub fn cpu_s() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills one rusage, to which the pointer is valid; zeroes are one too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    seconds(&usage)
}

fn seconds(usage: &libc::rusage) -> f64 {
    let of = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Waits for a child: how it ended, its CPU seconds, its peak memory in bytes. The peak is asked for while it runs: what the kernel says of
/// a child that has ended includes this process's own memory when it was started.
pub fn wait(child: Child) -> std::io::Result<(ExitStatus, f64, u64)> {
    use std::os::unix::process::ExitStatusExt;
    let (mut status, mut usage, mut peak) = (0, MaybeUninit::<libc::rusage>::zeroed(), 0);
    loop {
        let now = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        peak = peak.max(bytes_of(&now, "VmHWM:"));
        // SAFETY: both pointers are valid for the call, and nobody else waits for this child.
        match unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, libc::WNOHANG, usage.as_mut_ptr()) } {
            0 => thread::sleep(Duration::from_millis(5)),
            pid if pid < 0 => return Err(std::io::Error::last_os_error()),
            // SAFETY: filled by the call; zeroes are one too.
            _ => return Ok((ExitStatus::from_raw(status), seconds(unsafe { usage.assume_init_ref() }), peak)),
        }
    }
}

fn bytes_of(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Memory of this process in bytes: the peak since the last `forget_peak`, and now.
pub fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    (bytes_of(&status, "VmHWM:"), bytes_of(&status, "VmRSS:"))
}

/// The peak is what is held now.
pub fn forget_peak() {
    // Where the kernel does not know this the peak stays the process's, which is only larger.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
