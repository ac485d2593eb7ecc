//! A kernel to test: one of Debian's, fetched, or a developer's own build.

mod image;
mod modules;

pub use modules::{KvmModules, Module};

use crate::error::{Error, at};
use crate::{Cache, Progress, debian};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Which kernel is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest of this version that the package lists have, such as `6.12`.
    Version(String),
    /// The one in this folder: the top of a build, a system's root or where a package is unpacked, or any folder with a kernel and
    /// its modules somewhere below it.
    Folder(PathBuf),
}

impl Choice {
    /// What is meant by `word`: a path has a slash in it, a version has none.
    pub fn of(word: &str) -> Self {
        if word.contains('/') { Self::Folder(word.into()) } else { Self::Version(word.to_owned()) }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::Version("6.12".to_owned())
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => f.write_str(version),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// A kernel, ready to be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What it calls itself, such as `6.12.117+deb12-amd64`.
    pub release: String,
    /// The kernel itself, as a boot loader takes it, if it was built.
    image: Option<PathBuf>,
    /// The folder below which its modules are.
    pub modules: PathBuf,
    /// Where its package is unpacked, if it comes from one.
    package: Option<PathBuf>,
}

/// Where a build makes the image.
const BUILT: &str = "arch/x86/boot/bzImage";
/// What it is called beside its modules.
const PLAIN: [&str; 2] = ["bzImage", "vmlinuz"];
/// What begins its name where several can be, before its release.
const INSTALLED: &str = "vmlinuz-";
/// Where it is then, if not in the folder itself.
const BOOT: &str = "boot";
/// The file of a build that says what is built there, before there is an image.
const PREPARED: &str = "include/config/kernel.release";
/// Where the modules of each release are in a system or a package; the second where `lib` is a link to `usr/lib`.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

impl Kernel {
    /// The kernel that was chosen, fetched if it is Debian's and not in the cache.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no such kernel, or there is no way to fetch it.
    pub fn find(cache: &Cache, choice: &Choice, progress: Progress<'_>) -> Result<Self, Error> {
        match choice {
            Choice::Version(version) => {
                let root = fetched(cache, version, progress)?;
                Ok(Self { package: Some(root.clone()), ..Self::within(&root)? })
            }
            Choice::Folder(folder) => Self::within(folder),
        }
    }

    /// The kernel in `folder`; the newest, if there are several.
    fn within(folder: &Path) -> Result<Self, Error> {
        fs::read_dir(folder).map_err(|error| {
            Error::Absent(format!("expected a folder with a kernel at {}, found: {error}", folder.display()))
        })?;
        let usual = [BUILT].iter().chain(&PLAIN).map(|image| folder.join(image));
        let boot = folder.join(BOOT);
        let others = [folder, &boot].into_iter().flat_map(installed);
        let image = usual.chain(others).chain(beside_modules(folder)).find(|image| image.is_file());
        if image.is_none()
            && let Ok(release) = fs::read_to_string(folder.join(PREPARED))
        {
            let (release, modules) = (release.trim().to_owned(), folder.to_owned());
            return Ok(Self { release, image: None, modules, package: None });
        }
        let image = image.ok_or_else(|| no_image(folder))?;
        let release = image::release(&image).map_err(at(&image))?.ok_or_else(|| {
            Error::Absent(format!(
                "{}: expected a kernel image for x86 (bzImage), found something else",
                image.display()
            ))
        })?;
        let modules = modules_of(folder, &image, &release)?;
        Ok(Self { release, image: Some(image), modules, package: None })
    }

    /// The kernel itself, as a boot loader takes it.
    ///
    /// # Errors
    /// [`Error::Absent`] if it is a build of modules alone.
    pub fn image(&self) -> Result<&Path, Error> {
        self.image.as_deref().ok_or_else(|| no_image(&self.modules))
    }

    /// The first two numbers of its release, such as `6.12`.
    pub fn version(&self) -> String {
        self.release.split(['.', '-', '+']).take(2).collect::<Vec<_>>().join(".")
    }

    /// The version of its package.
    ///
    /// # Errors
    /// [`Error::Absent`] if it does not come from one.
    pub fn package_version(&self) -> Result<String, Error> {
        let root = self.package.as_ref().ok_or_else(|| {
            Error::Absent(format!(
                "expected a kernel of Debian's, whose source can be fetched and changed, found one of your own, with its modules in {}; \
                 leave --kernel-dir out",
                self.modules.display()
            ))
        })?;
        debian::version_in(root)
    }

    /// Whether Debian has the source that it was built from.
    pub fn is_packaged(&self) -> bool {
        self.package.is_some()
    }
}

/// The newest kernel of `version` in the cache, fetched if there is none: where its package is unpacked.
fn fetched(cache: &Cache, version: &str, progress: Progress<'_>) -> Result<PathBuf, Error> {
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte)) {
        return Err(Error::Absent(format!("expected a kernel version such as 6.12, found `{version}`")));
    }
    cache.folder(&format!("kernel-{version}"), progress, |folder, progress| {
        debian::fetch_kernel(cache, version, folder, progress)
    })
}

/// What to say of a `folder` without an image.
fn no_image(folder: &Path) -> Error {
    Error::Absent(format!(
        "expected a kernel in {} ({BUILT}, {}, {INSTALLED}RELEASE or {BOOT}/{INSTALLED}RELEASE), found none; name the top of a \
         kernel's build, or the folder that its package is unpacked in",
        folder.display(),
        PLAIN.join(", ")
    ))
}

/// The names in `folder`, from the newest version on.
fn newest_first(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    debian::newest_first(&mut names);
    names
}

/// The images in `folder` that are named for their releases, from the newest on.
fn installed(folder: &Path) -> Vec<PathBuf> {
    let mut names = newest_first(folder);
    // What an installation puts aside is named after what takes its place.
    names.retain(|name| name.starts_with(INSTALLED) && !name.ends_with(".old"));
    names.iter().map(|name| folder.join(name)).collect()
}

/// The images that lie beside their modules, from the newest on: where Debian's packages have them since Linux 6.19.
fn beside_modules(folder: &Path) -> Vec<PathBuf> {
    let places = MODULES.map(|place| folder.join(place));
    let images =
        |place: PathBuf| newest_first(&place).into_iter().map(move |release| place.join(release).join(PLAIN[1]));
    places.into_iter().flat_map(images).collect()
}

/// The folder below which the modules of `image` are, a kernel of that `release` in `folder`: never those of another release.
fn modules_of(folder: &Path, image: &Path, release: &str) -> Result<PathBuf, Error> {
    // What was once installed below a build need not be what the build has now.
    if image == folder.join(BUILT) {
        return Ok(folder.to_owned());
    }
    let places = MODULES.map(|place| folder.join(place));
    let own = places.each_ref().map(|place| place.join(release));
    if let Some(own) = own.iter().find(|own| own.is_dir()) {
        return Ok(own.clone());
    }
    if image.parent() == Some(folder) && !places.iter().any(|place| place.is_dir()) {
        return Ok(folder.to_owned());
    }
    Err(Error::Absent(format!(
        "expected the modules of {} in {}, found no such folder; some distributions have them in a package of their own",
        image.display(),
        own.map(|own| own.display().to_string()).join(" or ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of an image says what it is.
    fn header(release: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        bytes[0x280..0x280 + release.len()].copy_from_slice(release.as_bytes());
        bytes
    }

    #[test]
    fn a_word_with_a_slash_is_a_folder() {
        assert_eq!(Choice::of("6.1"), Choice::Version("6.1".into()));
        assert_eq!(Choice::of("./linux"), Choice::Folder("./linux".into()));
        assert_eq!(Choice::of("/usr/src/linux").to_string(), "/usr/src/linux");
    }

    #[test]
    fn a_build_is_known_by_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let absent = |why: &str| assert!(missing(folder.path()).contains(why), "{}", missing(folder.path()));
        absent("expected a kernel in");
        absent("bzImage, vmlinuz, vmlinuz-RELEASE or boot/vmlinuz-RELEASE");
        fs::write(folder.path().join("vmlinuz-6.1.0-9"), "no image").unwrap();
        absent("expected a kernel image for x86");
        let boot = folder.path().join("arch/x86/boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join("bzImage"), header("6.13.0-rc1+ (me@here) #1")).unwrap();
        fs::create_dir_all(folder.path().join("lib/modules/6.13.0-rc1+")).unwrap();
        let kernel = Kernel::within(folder.path()).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.version().as_str()), ("6.13.0-rc1+", "6.13"));
        assert_eq!(
            kernel.image().map(|image| (image.to_owned(), kernel.modules.clone())),
            Ok((boot.join("bzImage"), folder.path().to_owned()))
        );
        let why = missing(&folder.path().join("x"));
        assert!(why.contains("expected a folder with a kernel"), "{why}");
    }

    #[test]
    fn an_installed_kernel_is_the_newest_and_has_the_modules_of_its_own_release() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let install = |name: &str, release: &str| fs::write(at(name), header(&format!("{release} (me@here)"))).unwrap();
        for folder in ["boot", "lib/modules/6.9.1-a", "proc"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        install("boot/vmlinuz-6.9.1-a", "6.9.1-a");
        let kernel = Kernel::within(root.path()).unwrap();
        assert_eq!(
            kernel.image().map(|image| (image.to_owned(), kernel.modules.clone())),
            Ok((at("boot/vmlinuz-6.9.1-a"), at("lib/modules/6.9.1-a")))
        );
        install("boot/vmlinuz-6.12.2-a", "6.12.2-a");
        install("boot/vmlinuz-6.12.2-a.old", "6.12.2-a");
        let why = missing(root.path());
        for place in ["boot/vmlinuz-6.12.2-a ", "lib/modules/6.12.2-a or", "usr/lib/modules/6.12.2-a,"] {
            assert!(why.contains(&at(place).display().to_string()), "{why}");
        }
        fs::create_dir_all(at("usr/lib/modules/6.12.2-a")).unwrap();
        let kernel = Kernel::within(root.path()).unwrap();
        assert_eq!(
            kernel.image().map(|image| (image.to_owned(), kernel.modules.clone())),
            Ok((at("boot/vmlinuz-6.12.2-a"), at("usr/lib/modules/6.12.2-a")))
        );
        // A root may have a link to one of them, and must not be searched as a whole for modules.
        std::os::unix::fs::symlink("boot/vmlinuz-6.9.1-a", at("vmlinuz")).unwrap();
        let kernel = Kernel::within(root.path()).unwrap();
        assert_eq!(
            kernel.image().map(|image| (image.to_owned(), kernel.modules.clone())),
            Ok((at("vmlinuz"), at("lib/modules/6.9.1-a")))
        );
        fs::remove_dir(at("lib/modules/6.9.1-a")).unwrap();
        assert!(missing(root.path()).contains("expected the modules of"), "{}", missing(root.path()));
    }

    #[test]
    fn an_image_may_lie_beside_its_modules() {
        let root = tempfile::tempdir().unwrap();
        for release in ["7.2.13-a", "7.3.4-a", "7.3-rc7-a"] {
            let folder = root.path().join("usr/lib/modules").join(release);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vmlinuz"), header(release)).unwrap();
        }
        let kernel = Kernel::within(root.path()).unwrap();
        assert_eq!(kernel.release, "7.3.4-a");
        assert_eq!(kernel.modules, root.path().join("usr/lib/modules/7.3.4-a"));
    }

    #[test]
    fn a_build_of_modules_alone_has_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join(PREPARED);
        fs::create_dir_all(release.parent().unwrap()).unwrap();
        fs::write(release, "6.13.0-rc1+\n").unwrap();
        let kernel = Kernel::within(folder.path()).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.modules.as_path()), ("6.13.0-rc1+", folder.path()));
        assert!(kernel.image().unwrap_err().to_string().contains("expected a kernel in"));
    }

    /// Why there is no kernel in `folder`.
    fn missing(folder: &Path) -> String {
        match Kernel::within(folder) {
            Err(Error::Absent(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}
