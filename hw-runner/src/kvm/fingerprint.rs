//! Which KVM a trace was recorded on: enough to interpret the trace, and nothing that identifies the host.

use crate::error::MachineError;
use crate::kvm::alias_method::AliasMethod;
use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, VmFd};
use std::fs;
use std::path::Path;

/// The origin of a trace. Each word consists of letters, digits and `-_.=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The CPU vendor, from CPUID.
    pub cpu: String,
    /// The kernel version, without a distribution's suffix.
    pub kernel: String,
    /// The vendor module of KVM, such as `kvm_intel`; `unknown` if it is built in or not visible.
    pub module: String,
    /// Parameters of `kvm` and its vendor module that affect translation, as `name=value`.
    pub parameters: Vec<String>,
    /// `shadow`, `tdp-mmu`, `tdp-rmap` (the legacy MMU over two-dimensional paging) or `unknown`.
    pub paging: String,
    /// Physical address bits of the guest.
    pub maxphyaddr: u8,
    /// The capabilities of KVM that the runner uses, sorted.
    pub capabilities: Vec<String>,
    /// How aliases are made.
    pub alias_method: AliasMethod,
    /// Whether KVM's counters prove that guest accesses ran natively.
    pub native: bool,
    /// These counters, as `name=value`: their growth over a known number of accesses.
    pub witness: Vec<String>,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            cpu: "unknown".into(),
            kernel: "unknown".into(),
            module: "unknown".into(),
            parameters: Vec::new(),
            paging: "unknown".into(),
            maxphyaddr: 0,
            capabilities: Vec::new(),
            alias_method: AliasMethod::default(),
            native: false,
            witness: Vec::new(),
        }
    }
}

/// Whether `word` is valid in the header of a trace.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte))
}

/// The fingerprint of this host. Whether it runs guests natively is not known yet.
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
    let parameters = parameters(Path::new("/sys/module"), &module);
    let (cpu, kernel) = (vendor(cpuid), kernel(Path::new("/proc/sys/kernel/osrelease")));
    Ok(Fingerprint { cpu, kernel, module, parameters, paging, maxphyaddr, capabilities, ..Fingerprint::default() })
}

/// The vendor string of CPUID leaf 0.
fn vendor(cpuid: &CpuId) -> String {
    let leaf = cpuid.as_slice().iter().find(|entry| entry.function == 0);
    let bytes = leaf.map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat());
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|name| is_word(name));
    name.unwrap_or_else(|| "unknown".into())
}

/// The kernel version, without a distribution's suffix.
fn kernel(release: &Path) -> String {
    let text = fs::read_to_string(release).unwrap_or_default();
    let number = text.trim().split(['-', '+']).next().filter(|number| is_word(number));
    number.unwrap_or("unknown").to_owned()
}

/// Module parameters that choose the MMU and its behaviour.
const PARAMETERS: [&str; 8] =
    ["tdp_mmu", "mmio_caching", "nx_huge_pages", "ept", "npt", "unrestricted_guest", "eptad", "pml"];

fn parameters(modules: &Path, module: &str) -> Vec<String> {
    let read = |module: &str, name: &str| {
        let value = fs::read_to_string(modules.join(module).join("parameters").join(name)).ok()?;
        Some(format!("{name}={}", value.trim())).filter(|word| is_word(word))
    };
    let both = |name: &&str| read("kvm", name).or_else(|| read(module, name));
    PARAMETERS.iter().filter_map(both).collect()
}

/// The vendor module.
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
        // kvm_pvm has shadow paging only: it has neither parameter.
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
