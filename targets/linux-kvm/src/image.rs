//! What a lab boots: the runner as first process, and the modules that it loads.

use crate::cpio::Archive;
use kernels::Error;
use kernels::Kernel;
use kernels::command::output;
use kernels::error::at;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module: its name with underscores, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name with underscores.
    pub name: String,
    /// The object file.
    pub object: Vec<u8>,
}

/// The modules of `kernel` that are `wanted` and not built into it, each after those it depends on. Those in the folder `instead`
/// take the place of the kernel's own.
///
/// # Errors
/// If one cannot be read.
pub fn modules(kernel: &Kernel, wanted: &[&str], instead: Option<&Path>) -> Result<Vec<Module>, Error> {
    let mut files = BTreeMap::new();
    find(&kernel.modules, &mut files)?;
    if let Some(instead) = instead {
        find(instead, &mut files)?;
    }
    let mut found = Vec::new();
    for name in wanted {
        add(name, &files, &mut found)?;
    }
    Ok(found)
}

/// Note every module below `folder` by its name.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        // Links are not followed: those of a build lead to the source, and around.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, files)?;
            continue;
        }
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some((name, end)) = file.split_once(".ko")
            && (end.is_empty() || unpacker(end).is_some())
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, found: &mut Vec<Module>) -> Result<(), Error> {
    // What has no file is built into the kernel.
    let Some(path) = files.get(name).filter(|_| found.iter().all(|module| module.name != name)) else { return Ok(()) };
    let object = read(path)?;
    for needed in dependencies(&object) {
        add(&needed, files, found)?;
    }
    found.push(Module { name: name.to_owned(), object });
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy()));
    match end.as_deref().and_then(unpacker) {
        Some((command, package)) => output(Command::new(command).arg("-dc").arg(path), package),
        None => fs::read(path).map_err(at(path)),
    }
}

/// The command that unpacks a file whose name ends so, and the Debian package that has it.
fn unpacker(end: &str) -> Option<(&'static str, &'static str)> {
    match end {
        ".xz" => Some(("xz", "xz-utils")),
        ".gz" => Some(("gzip", "gzip")),
        ".zst" => Some(("zstd", "zstd")),
        _ => None,
    }
}

/// The names after `depends=` in the module's own description.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = object.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = object[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The first file system with `runner` and `modules`, and the command line's end: parameters of what is built into the kernel,
/// and the words that it hands to the runner, which is to serve `port`.
pub fn initrd(
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
        words.push_str(&format!(" --alias_method {alias_method}"));
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
    use crate::Emulator;

    #[test]
    fn a_module_comes_after_those_it_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            fs::write(dir.path().join(name), format!("\x7fELF\0depends={depends}\0license=GPL\0")).unwrap();
        };
        write("kvm-amd.ko", "ccp,kvm");
        write("kvm.ko", "irqbypass");
        write("ccp.ko", "");
        write("irqbypass.ko", "");
        let mut files = BTreeMap::new();
        find(dir.path(), &mut files).unwrap();
        let mut found = Vec::new();
        for name in Emulator::Qemu.modules() {
            add(name, &files, &mut found).unwrap();
        }
        let names: Vec<&str> = found.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ccp", "irqbypass", "kvm", "kvm_amd"]);
        let parameters = [("kvm", "tdp_mmu=0".into()), ("kvm_amd", "npt=1".into())];
        let (_, words) = initrd(b"", &found, &parameters, "/dev/port", None);
        assert_eq!(words, "-- serve /dev/port /ccp.ko: /irqbypass.ko: /kvm.ko:tdp_mmu=0 /kvm_amd.ko:npt=1");
        let (_, words) = initrd(b"", &[], &parameters, "/dev/port", Some("smm"));
        assert_eq!(words, "kvm.tdp_mmu=0 kvm_amd.npt=1 -- serve /dev/port --alias_method smm");
    }
}
