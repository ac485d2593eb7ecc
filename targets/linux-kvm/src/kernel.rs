//! The kernel that a lab boots: one of Debian's, fetched, or a developer's own build.

use crate::error::{LabError, at};
use crate::{Cache, Say, packages};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Which kernel is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest of this version that the package lists have, such as `6.12`.
    Version(String),
    /// The one in this folder: the top of a build, or any folder with a kernel and its modules somewhere below it.
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
    /// The kernel itself, as a boot loader takes it.
    pub image: PathBuf,
    /// The folder below which its modules are.
    pub modules: PathBuf,
    /// Where its package is unpacked, if it comes from one.
    package: Option<PathBuf>,
}

/// What a build calls the image: where it makes it, where distributions install it.
const IMAGES: [&str; 3] = ["arch/x86/boot/bzImage", "bzImage", "vmlinuz"];

impl Kernel {
    /// The kernel that was chosen, fetched if it is Debian's and not in the cache.
    ///
    /// # Errors
    /// [`LabError::Absent`] if there is no such kernel, or there is no way to fetch it.
    pub fn find(cache: &Cache, choice: &Choice, say: Say<'_>) -> Result<Self, LabError> {
        match choice {
            Choice::Version(version) => Self::fetched(packages::kernel(cache, version, say)?),
            Choice::Folder(folder) => Self::built(folder),
        }
    }

    fn fetched(root: PathBuf) -> Result<Self, LabError> {
        let modules = root.join("lib/modules");
        let mut releases = fs::read_dir(&modules).map_err(at(&modules))?.flatten();
        let release = releases.next().and_then(|entry| entry.file_name().into_string().ok());
        let release = release.ok_or_else(|| LabError::Failed(format!("{}: no kernel is in it", modules.display())))?;
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        let modules = modules.join(&release).join("kernel");
        Ok(Self { release, image, modules, package: Some(root) })
    }

    fn built(folder: &Path) -> Result<Self, LabError> {
        let entries = fs::read_dir(folder).map_err(|error| {
            LabError::Absent(format!("expected a folder with a kernel at {}, found: {error}", folder.display()))
        })?;
        let installed =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"));
        let mut others: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(installed).collect();
        others.sort();
        let usual = IMAGES.iter().map(|image| folder.join(image));
        let image = usual.chain(others.into_iter().rev()).find(|image| image.is_file()).ok_or_else(|| {
            LabError::Absent(format!(
                "expected a kernel in {} ({}, or vmlinuz-RELEASE), found none; name the top of a kernel's build",
                folder.display(),
                IMAGES.join(", ")
            ))
        })?;
        let release = release(&image).map_err(at(&image))?.ok_or_else(|| {
            LabError::Absent(format!(
                "{}: expected a kernel image for x86 (bzImage), found something else",
                image.display()
            ))
        })?;
        Ok(Self { release, image, modules: folder.to_owned(), package: None })
    }

    /// The first two numbers of its release, such as `6.12`.
    pub fn version(&self) -> String {
        self.release.split(['.', '-', '+']).take(2).collect::<Vec<_>>().join(".")
    }

    /// The version of its package.
    ///
    /// # Errors
    /// [`LabError::Absent`] if it does not come from one.
    pub(crate) fn package_version(&self) -> Result<String, LabError> {
        let root = self.package.as_ref().ok_or_else(|| {
            LabError::Absent(format!(
                "expected a kernel of Debian's, whose source can be fetched and changed, found one that was built in {}; \
                 leave --kernel-dir out",
                self.modules.display()
            ))
        })?;
        packages::version_in(root)
    }

    /// Whether Debian has the source that it was built from.
    pub(crate) fn is_packaged(&self) -> bool {
        self.package.is_some()
    }
}

/// What the kernel in the file `image` calls itself, as its header for boot loaders says (Linux, `Documentation/arch/x86/boot.rst`);
/// `None` if there is no such header.
fn release(image: &Path) -> io::Result<Option<String>> {
    const MAGIC: (u64, &[u8; 4]) = (0x202, b"HdrS");
    const VERSION: u64 = 0x20e;
    /// What is there counts from here.
    const BASE: u64 = 0x200;
    let mut file = File::open(image)?;
    let (mut magic, mut offset, mut text) = ([0; 4], [0; 2], Vec::new());
    let mut read = |at, to: &mut [u8]| file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(to));
    let found = read(MAGIC.0, &mut magic).and_then(|()| read(VERSION, &mut offset));
    match found {
        Ok(()) if &magic == MAGIC.1 => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Ok(None),
    }
    file.seek(SeekFrom::Start(BASE + u64::from(u16::from_le_bytes(offset))))?;
    file.take(256).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // RELEASE (WHO@WHERE) #NUMBER …
    Ok(text.split([' ', '\0']).next().filter(|word| !word.is_empty()).map(str::to_owned))
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
        let absent = |why: &str| match Kernel::built(folder.path()) {
            Err(LabError::Absent(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        };
        absent("expected a kernel in");
        fs::write(folder.path().join("vmlinuz-6.1.0-9"), "no image").unwrap();
        absent("expected a kernel image for x86");
        let boot = folder.path().join("arch/x86/boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join("bzImage"), header("6.13.0-rc1+ (me@here) #1")).unwrap();
        let kernel = Kernel::built(folder.path()).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.version().as_str()), ("6.13.0-rc1+", "6.13"));
        assert_eq!((kernel.image, kernel.modules), (boot.join("bzImage"), folder.path().to_owned()));
        let LabError::Absent(why) = Kernel::built(&folder.path().join("x")).unwrap_err() else {
            panic!("there is no x")
        };
        assert!(why.contains("expected a folder with a kernel"), "{why}");
    }
}
