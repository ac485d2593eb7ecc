//! KVM's source: as Debian ships it for a kernel, or what a developer's kernel was built in.

use crate::command::output;
use crate::error::{Error, at};
use crate::{Cache, Kernel, Progress, debian, edits};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// KVM itself.
pub(crate) const KVM: [&str; 2] = ["arch/x86/kvm", "virt"];
/// What of the kernel's source is unpacked: KVM, and the libraries that it uses.
const PARTS: [&str; 4] = [KVM[0], KVM[1], "lib", "arch/x86/lib"];

/// The top of the source of `kernel`, of which `arch/x86/kvm`, `virt`, `lib` and `arch/x86/lib` are there if it is Debian's. Nothing
/// may be written there.
///
/// # Errors
/// If it cannot be fetched or unpacked.
pub fn source(cache: &Cache, kernel: &Kernel, progress: Progress<'_>) -> Result<PathBuf, Error> {
    if !kernel.is_packaged() {
        return Ok(kernel.modules.clone());
    }
    let (major_minor, version) = (kernel.version(), kernel.package_version()?);
    let root = cache.folder(&format!("source-{}", kernel.release), progress, |folder, progress| {
        debian::fetch(cache, folder, &[format!("linux-source-{major_minor}={version}")], progress)?;
        progress("unpacking KVM's source");
        let name = format!("linux-source-{major_minor}");
        let archive = folder.join(format!("usr/src/{name}.tar.xz"));
        let parts = PARTS.map(|part| format!("{name}/{part}"));
        output(Command::new("tar").arg("-C").arg(folder).arg("-xf").arg(&archive).args(parts), "tar")?;
        fs::rename(folder.join(&name), folder.join("linux")).map_err(at(folder))?;
        fs::remove_file(&archive).map_err(at(&archive))
    })?;
    Ok(root.join("linux"))
}

/// The files of KVM's `source` by the functions that they define.
///
/// # Errors
/// If one cannot be read.
pub fn functions(source: &Path) -> Result<BTreeMap<String, String>, Error> {
    let mut functions = BTreeMap::new();
    // A build that was made elsewhere comes without its source, and then files are not known.
    for part in KVM.iter().filter(|part| source.join(part).exists()) {
        for file in files(&source.join(part))? {
            if file.extension().is_none_or(|end| end != "c" && end != "h") {
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(&file).map_err(at(&file))?).into_owned();
            let name = file.strip_prefix(source).unwrap_or(&file).display().to_string();
            for function in edits::functions(&text) {
                // The template of the guest's tables is compiled once for each format.
                let prefixes: &[&str] =
                    if name.ends_with("paging_tmpl.h") { &["paging64_", "paging32_", "ept_"] } else { &[""] };
                functions.extend(prefixes.iter().map(|prefix| (format!("{prefix}{function}"), name.clone())));
            }
        }
    }
    Ok(functions)
}

/// All files below `folder`. No link is followed.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut left, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            match path.symlink_metadata().map_err(at(&path))?.file_type() {
                kind if kind.is_dir() => left.push(path),
                kind if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}
