//! Which KVM a trace was recorded on: enough to read it by, and nothing that names a machine.

use crate::error::MachineError;
use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, VmFd};
use std::fs;
use std::path::Path;

/// What a trace says of its origin. Its words are single words of letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The vendor module of KVM, such as `kvm_intel`; `unknown` if it is built in or cannot be seen.
    pub module: String,
    /// `shadow`, `tdp-mmu`, `tdp-rmap` (the legacy MMU over two-dimensional paging) or `unknown`.
    pub paging: String,
    /// Physical address bits of the guest.
    pub maxphyaddr: u8,
    /// What of KVM the runner used, ascending.
    pub capabilities: Vec<String>,
    /// Whether it is proven that guest accesses ran natively.
    pub native: bool,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            module: "unknown".into(),
            paging: "unknown".into(),
            maxphyaddr: 0,
            capabilities: Vec::new(),
            native: false,
        }
    }
}

/// Whether `word` can stand in a trace's header.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The fingerprint of this host; whether it runs guests natively is yet to be proven.
pub(crate) fn read(fd: &VmFd, cpuid: &CpuId) -> Result<Fingerprint, MachineError> {
    let leaf = cpuid.as_slice().iter().find(|entry| entry.function == 0x8000_0008);
    let maxphyaddr = leaf.map(|entry| entry.eax as u8).ok_or(MachineError::Missing("CPUID leaf 0x80000008"))?;
    let module = module(Path::new("/sys/module"));
    let paging = paging(Path::new("/sys/module"), &module).to_owned();
    let stats = fd.check_extension_raw(kvm_bindings::KVM_CAP_BINARY_STATS_FD.into()) != 0;
    let known = [
        (stats, "binary-stats"),
        (true, "manual-dirty-log-protect2"),
        (fd.check_extension(Cap::ReadonlyMem), "readonly-mem"),
    ];
    let capabilities = known.iter().filter(|(has, _)| *has).map(|(_, name)| (*name).to_owned()).collect();
    Ok(Fingerprint { module, paging, maxphyaddr, capabilities, native: false })
}

/// The module beside `kvm` itself that implements it.
fn module(modules: &Path) -> String {
    let entries = fs::read_dir(modules).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let vendor =
        |name: &String| name.starts_with("kvm_") && is_word(name) && modules.join(name).join("refcnt").exists();
    let fallback = |name: &String| name.starts_with("kvm_") && is_word(name);
    let found = names.iter().find(|name| vendor(name)).or_else(|| names.iter().find(|name| fallback(name)));
    found.cloned().unwrap_or_else(|| "unknown".into())
}

fn paging(modules: &Path, module: &str) -> &'static str {
    let switch = |module: &str, name: &str| {
        let text = fs::read_to_string(modules.join(module).join("parameters").join(name)).ok()?;
        Some(matches!(text.trim(), "Y" | "1"))
    };
    let two_dimensional = match module {
        "kvm_intel" => switch(module, "ept"),
        "kvm_amd" => switch(module, "npt"),
        // It has neither: its guests share the host's page-table format.
        "kvm_pvm" => Some(false),
        _ => None,
    };
    match two_dimensional {
        None => "unknown",
        Some(false) => "shadow",
        Some(true) if switch("kvm", "tdp_mmu") == Some(false) => "tdp-rmap",
        Some(true) => "tdp-mmu",
    }
}
