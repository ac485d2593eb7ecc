//! Building KVM's modules out of tree, with a script of edits carried out, against the headers of the kernel they are for.

use crate::command::output;
use crate::edits::{self, Edit};
use crate::error::{Error, at};
use crate::source::{self, source};
use crate::{Cache, Headers, Kernel, KvmModules, Progress, headers};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where headers are that are not KVM's own, and that a script may change.
const INCLUDE: [&str; 2] = ["arch/x86/include", "include"];
/// What is built.
const MODULES: [&str; 3] = ["kvm.ko", "kvm-amd.ko", "kvm-intel.ko"];

/// `kvm.ko`, `kvm-amd.ko` and `kvm-intel.ko` of `kernel`, changed by `script`, which is called `name`; built if they are not in the
/// cache.
///
/// # Errors
/// If something needed is missing, the script does not fit the source, or the compiler objects.
pub fn modules(
    cache: &Cache,
    kernel: &Kernel,
    name: &str,
    script: &[Edit],
    progress: Progress<'_>,
) -> Result<KvmModules, Error> {
    // Before anything is looked for: its source must be one that the script was written for.
    kernel.package_version()?;
    let folder =
        cache.folder(&format!("kvm-{}-{}", kernel.release, digest(script)), progress, |folder, progress| {
            let source = source(cache, kernel, progress)?;
            let headers = headers(cache, kernel, progress)?;
            // All are built in one tree, one after the other, so that little is compiled again.
            cache.workshop(&format!("kbuild-{}", kernel.release), progress, |tree, progress| {
                progress(&format!("building KVM for {name} (once; a minute or two)"));
                write(tree, &changed(&source, &headers, script)?)?;
                let kvm = tree.join(source::KVM[0]);
                let first = INCLUDE.map(|folder| tree.join(folder));
                let mut make = headers.make(&kvm, &[&first[0], &first[1], &kvm])?;
                make.args([
                    "-j4",
                    "CONFIG_KVM_AMD=m",
                    "CONFIG_KVM_INTEL=m",
                    "CONFIG_DEBUG_INFO_BTF_MODULES=",
                    "modules",
                ]);
                output(&mut make, "make")?;
                for module in MODULES {
                    let to = folder.join(module);
                    output(
                        Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(kvm.join(module)),
                        "binutils",
                    )?;
                }
                Ok(())
            })
        })?;
    Ok(KvmModules { folder })
}

/// The files of KVM's source, and the headers that `script` is about, by their names: each as it is after the script.
fn changed(source: &Path, headers: &Headers, script: &[Edit]) -> Result<BTreeMap<PathBuf, Vec<u8>>, Error> {
    let mut files = BTreeMap::new();
    for part in source::KVM {
        for file in source::files(&source.join(part))? {
            files.insert(file.strip_prefix(source).unwrap_or(&file).to_owned(), fs::read(&file).map_err(at(&file))?);
        }
    }
    for file in script.iter().map(|edit| edit.file).collect::<BTreeSet<_>>() {
        let name = PathBuf::from(file);
        let header = headers.common.join(file);
        let text = match files.get(&name) {
            Some(text) => text.clone(),
            None => fs::read(&header).map_err(at(&header))?,
        };
        let text = edits::apply(file, &String::from_utf8_lossy(&text), script)?;
        files.insert(name, text.into_bytes());
    }
    Ok(files)
}

/// Have `files` in `tree`, and of the headers that a script changes no others.
fn write(tree: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Error> {
    let is_header = |name: &Path| INCLUDE.iter().any(|folder| name.starts_with(folder));
    let mut there = BTreeSet::new();
    for folder in INCLUDE.map(|folder| tree.join(folder)).iter().filter(|folder| folder.is_dir()) {
        there.extend(source::files(folder)?.iter().map(|file| file.strip_prefix(tree).unwrap_or(file).to_owned()));
    }
    let wanted: BTreeSet<PathBuf> = files.keys().filter(|name| is_header(name)).cloned().collect();
    // What was compiled with other headers is compiled again: make does not notice a header that takes the place of another.
    if there != wanted {
        fs::remove_dir_all(tree).map_err(at(tree))?;
    }
    for (name, text) in files {
        let path = tree.join(name);
        // What is already so keeps its time, and is not compiled again.
        if fs::read(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        let folder = path.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(at(folder))?;
        fs::write(&path, text).map_err(at(&path))?;
    }
    Ok(())
}

/// What makes two scripts the same. It names a folder of the cache, nothing else.
fn digest(script: &[Edit]) -> String {
    let digest = Sha256::digest(format!("{script:?}"));
    digest.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
