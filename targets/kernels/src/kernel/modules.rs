//! A kernel's modules: found by their names, each after those it depends on, unpacked.

use super::Kernel;
use crate::command::output;
use crate::error::{Error, at};
use crate::{Cache, Progress};
use sha2::{Digest, Sha256};
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

/// KVM's modules as files, unpacked. A vendor's module is absent if the kernel has none, and all are if KVM is built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmModules {
    /// The folder that they are in.
    pub folder: PathBuf,
}

/// The names of KVM's modules, with underscores.
const KVM: [&str; 3] = ["kvm", "kvm_amd", "kvm_intel"];

impl KvmModules {
    /// `kvm.ko`.
    pub fn kvm(&self) -> PathBuf {
        self.folder.join("kvm.ko")
    }

    /// `kvm-amd.ko`.
    pub fn kvm_amd(&self) -> PathBuf {
        self.folder.join("kvm-amd.ko")
    }

    /// `kvm-intel.ko`.
    pub fn kvm_intel(&self) -> PathBuf {
        self.folder.join("kvm-intel.ko")
    }
}

impl Kernel {
    /// The modules that are `wanted` and not built into the kernel, each after those it depends on. Those in the folder `instead`
    /// take the place of the kernel's own.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn modules(&self, wanted: &[&str], instead: Option<&Path>) -> Result<Vec<Module>, Error> {
        let mut files = BTreeMap::new();
        find(&self.modules, &mut files)?;
        if let Some(instead) = instead {
            find(instead, &mut files)?;
        }
        let mut found = Vec::new();
        for name in wanted {
            add(name, &files, &mut found)?;
        }
        Ok(found)
    }

    /// KVM's modules of this kernel as they are, with those that they depend on, unpacked in the cache.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no `kvm.ko`; otherwise if one cannot be read.
    pub fn kvm_modules(&self, cache: &Cache, progress: Progress<'_>) -> Result<KvmModules, Error> {
        let modules = self.modules(&KVM, None)?;
        if modules.iter().all(|module| module.name != KVM[0]) {
            return Err(Error::Absent(format!("expected kvm.ko below {}, found none", self.modules.display())));
        }
        let digest =
            modules.iter().fold(Sha256::new(), |digest, module| digest.chain_update(&module.object)).finalize();
        let name =
            digest.iter().take(8).fold(format!("kvm-{}-", self.release), |name, byte| name + &format!("{byte:02x}"));
        let folder = cache.folder(&name, progress, |folder, _| {
            for Module { name, object } in &modules {
                let file = folder.join(format!("{}.ko", name.replace('_', "-")));
                fs::write(&file, object).map_err(at(&file))?;
            }
            Ok(())
        })?;
        Ok(KvmModules { folder })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        add("kvm_amd", &files, &mut found).unwrap();
        let names: Vec<&str> = found.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ccp", "irqbypass", "kvm", "kvm_amd"]);
    }

    #[test]
    fn the_modules_of_kvm_are_unpacked_once_for_each_build() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let kernel = |text: &str| {
            fs::write(dir.path().join("kvm.ko"), text).unwrap();
            fs::create_dir_all(dir.path().join("include/config")).unwrap();
            fs::write(dir.path().join("include/config/kernel.release"), "6.13").unwrap();
            Kernel::within(dir.path()).unwrap().kvm_modules(&cache, &mut |_| {}).unwrap()
        };
        let one = kernel("one");
        assert_eq!(fs::read_to_string(one.kvm()).unwrap(), "one");
        let two = kernel("two");
        assert_eq!(fs::read_to_string(two.kvm()).unwrap(), "two");
        assert_eq!(kernel("one"), one);
    }
}
