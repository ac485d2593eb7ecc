//! What a lab boots: the runner as first process, and the modules that it loads.

mod cpio;
pub mod parts;

use cpio::Archive;
use kernels::kernel::Module;

/// The first file system with `runner` and `modules`, and the command line's end: parameters of what is built into the kernel,
/// and the words that it hands to the runner, which is to serve `port`.
pub(crate) fn initrd(
    runner: &[u8],
    modules: &[Module],
    parameters: &[(&'static str, String)],
    port: &str,
    alias_method: Option<&str>,
) -> (Vec<u8>, String) {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys"] {
        archive.folder(folder);
    }
    archive.file("init", runner);
    let mut words = String::new();
    for (of, value) in parameters.iter().filter(|(of, _)| modules.iter().all(|module| module.name != *of)) {
        words.push_str(&format!("{of}.{value} "));
    }
    words.push_str(&format!("-- serve {port}"));
    if let Some(alias_method) = alias_method {
        words.push_str(&format!(" --alias-method {alias_method}"));
    }
    for Module { name, object } in modules {
        archive.file(&format!("{name}.ko"), object);
        let given: Vec<&str> =
            parameters.iter().filter(|(of, _)| of == name).map(|(_, value)| value.as_str()).collect();
        words.push_str(&format!(" /{name}.ko:{}", given.join(",")));
    }
    (archive.finish(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_to_a_module_or_to_the_kernel_that_has_it_built_in() {
        let found = ["ccp", "irqbypass", "kvm", "kvm_amd"].map(|name| Module { name: name.into(), object: Vec::new() });
        let parameters = [("kvm", "tdp_mmu=0".into()), ("kvm_amd", "npt=1".into())];
        let (_, words) = initrd(b"", &found, &parameters, "/dev/port", None);
        assert_eq!(words, "-- serve /dev/port /ccp.ko: /irqbypass.ko: /kvm.ko:tdp_mmu=0 /kvm_amd.ko:npt=1");
        let (_, words) = initrd(b"", &[], &parameters, "/dev/port", Some("smm"));
        assert_eq!(words, "kvm.tdp_mmu=0 kvm_amd.npt=1 -- serve /dev/port --alias-method smm");
    }
}
