//! The duties of a machine's first process: mount the kernel's file systems, load modules, set up the serial
//! port, power off.
#![expect(unsafe_code, reason = "mount, finit_module and reboot have no safe wrapper")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The kernel's file systems and their mount points.
const KERNEL_FILE_SYSTEMS: [(&str, &str); 4] =
    [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("debugfs", "/sys/kernel/debug")];

/// Mounts `/proc`, `/sys`, `/dev` and debugfs.
pub(crate) fn mount_kernel_file_systems() -> io::Result<()> {
    for (kind, at) in KERNEL_FILE_SYSTEMS {
        std::fs::create_dir_all(at)?;
        let (kind, at) = (CString::new(kind)?, CString::new(at)?);
        // SAFETY: all strings end in NUL and outlive the call; these file systems take no data.
        let result = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Loads the module in `file`, with `parameters` as `insmod` takes them.
pub(crate) fn load_module(file: &Path, parameters: &str) -> io::Result<()> {
    let file = File::open(file)?;
    let parameters = CString::new(parameters)?;
    // SAFETY: the kernel reads the open file and the string, which outlive the call.
    match unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `port` raw and fast, if it is a terminal.
pub(crate) fn make_raw(port: &File) -> io::Result<()> {
    // SAFETY: plain data, for which zero is valid.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `settings`, which outlives the call.
    if unsafe { libc::tcgetattr(port.as_raw_fd(), &raw mut settings) } != 0 {
        return Ok(());
    }
    // SAFETY: the call changes nothing but `settings`.
    unsafe { libc::cfmakeraw(&raw mut settings) };
    settings.c_cflag = settings.c_cflag & !libc::CBAUD | libc::B115200;
    // SAFETY: the kernel reads `settings`, which outlives the call.
    match unsafe { libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &raw const settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Powers the machine off. Returns only if the kernel refuses.
pub(crate) fn power_off() -> io::Error {
    // SAFETY: the call takes no pointer; the machine has no disk to sync.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    io::Error::last_os_error()
}
