//! Building KVM's modules out of tree, from Debian's source and headers of the kernel that is booted.

use crate::command::output;
use crate::edits::{self, Edit};
use crate::error::{Error, at};
use crate::kernel::Kernel;
use crate::packages;
use crate::{Cache, Progress, stolen};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What of the source is used.
const PARTS: [&str; 2] = ["arch/x86/kvm", "virt"];

/// KVM's source for `kernel`: what it was built in, or as Debian ships it.
///
/// # Errors
/// If it cannot be fetched or unpacked.
pub fn source(cache: &Cache, kernel: &Kernel, say: Progress<'_>) -> Result<PathBuf, Error> {
    if !kernel.is_packaged() {
        return Ok(kernel.modules.clone());
    }
    let (major_minor, version) = (kernel.version(), kernel.package_version()?);
    let root = cache.folder(&format!("source-{}", kernel.release), say, |folder, say| {
        packages::fetch(folder, &[format!("linux-source-{major_minor}={version}")], say)?;
        say("lab: unpacking KVM's source");
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
    let mut left: Vec<PathBuf> = PARTS.iter().map(|part| source.join(part)).collect();
    while let Some(path) = left.pop() {
        // A build that was made elsewhere comes without its source, and then files are not known.
        if !path.exists() {
            continue;
        }
        if path.is_dir() {
            left.extend(fs::read_dir(&path).map_err(at(&path))?.flatten().map(|entry| entry.path()));
            continue;
        }
        if path.extension().is_none_or(|end| end != "c" && end != "h") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).map_err(at(&path))?).into_owned();
        let file = path.strip_prefix(source).unwrap_or(&path).display().to_string();
        for name in edits::functions(&text) {
            // The template of the guest's tables is compiled once for each format.
            let prefixes: &[&str] =
                if file.ends_with("paging_tmpl.h") { &["paging64_", "paging32_", "ept_"] } else { &[""] };
            functions.extend(prefixes.iter().map(|prefix| (format!("{prefix}{name}"), file.clone())));
        }
    }
    Ok(functions)
}

/// The folder with `kvm.ko`, `kvm-amd.ko` and `kvm-intel.ko` of `kernel`, changed by `script`; built if they are not in the cache.
///
/// # Errors
/// If something needed is missing, or the compiler objects.
pub fn modules(
    cache: &Cache,
    kernel: &Kernel,
    name: &str,
    script: &[Edit],
    say: Progress<'_>,
) -> Result<PathBuf, Error> {
    // Before anything is looked for: its source must be one that the script was written for.
    kernel.package_version()?;
    cache.folder(&format!("kvm-{}-{:016x}-both", kernel.release, digest(script)), say, |folder, say| {
        let source = source(cache, kernel, say)?;
        // All are built in one tree, one after the other, so that little is compiled again.
        let _lock = cache.lock("kbuild", say)?;
        let tree = tree(cache, kernel, &source, say)?;
        say(&format!("lab: building KVM for {name} (once; a minute or two)"));
        edits::apply_to_tree(&source, &tree.common, &stolen::FILES[1..], script)?;
        edits::apply_to_tree(&tree.pristine, &tree.common, &stolen::FILES[..1], script)?;
        let kvm = tree.common.join(PARTS[0]);
        let mut make = Command::new("make");
        make.arg("-C").arg(&tree.headers).arg(format!("M={}", kvm.display()));
        make.args(["-j4", "CONFIG_KVM_AMD=m", "CONFIG_KVM_INTEL=m", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
        output(&mut make, "make")?;
        for module in ["kvm.ko", "kvm-amd.ko", "kvm-intel.ko"] {
            let to = folder.join(module);
            output(Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(kvm.join(module)), "binutils")?;
        }
        Ok(())
    })
}

/// Where modules are built: the headers, and beside them the parts of the source that they lack.
struct Tree {
    headers: PathBuf,
    common: PathBuf,
    /// The headers that a script changes, as they were.
    pristine: PathBuf,
}

fn tree(cache: &Cache, kernel: &Kernel, source: &Path, say: Progress<'_>) -> Result<Tree, Error> {
    let (release, version) = (&kernel.release, kernel.package_version()?);
    let plain = release.strip_suffix(packages::FLAVOUR).unwrap_or(release);
    let names =
        [format!("linux-headers-{release}"), format!("linux-headers-{plain}-common"), format!("linux-kbuild-{plain}")];
    let root = cache.folder(&format!("kbuild-{release}"), say, |folder, say| {
        packages::fetch(folder, &names.clone().map(|name| format!("{name}={version}")), say)?;
        let common = folder.join("usr/src").join(&names[1]);
        for part in PARTS {
            copy(&source.join(part), &common.join(part))?;
        }
        let pristine = folder.join("pristine").join(stolen::FILES[0]);
        fs::create_dir_all(pristine.parent().unwrap_or(folder)).map_err(at(&pristine))?;
        fs::copy(common.join(stolen::FILES[0]), &pristine).map_err(at(&pristine))?;
        Ok(())
    })?;
    let (headers, common) = (root.join("usr/src").join(&names[0]), root.join("usr/src").join(&names[1]));
    // It names the place where the package would have been installed.
    let makefile = headers.join("Makefile");
    fs::write(&makefile, format!("include {}/Makefile\n", common.display())).map_err(at(&makefile))?;
    Ok(Tree { headers, common, pristine: root.join("pristine") })
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))?.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map(drop).map_err(at(&target))?;
        }
    }
    Ok(())
}

/// What makes two scripts the same. It names a folder of the cache, nothing else.
fn digest(script: &[Edit]) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{script:?}").hash(&mut hasher);
    hasher.finish()
}
