//! The headers of a kernel, against which modules are compiled, and `make` for that.
//!
//! Debian's headers expect the compiler, the C library and the places of Debian's own machine of that time. Here the places are
//! relative; the tools among them that want a newer C library run with one that is unpacked beside them; and the compiler is called
//! by a script that leaves out the flags that it does not know.

use crate::error::{Error, at};
use crate::source::{self, source};
use crate::{Cache, Kernel, Progress, debian};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The headers of one kernel. Nothing may be written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The configured part: `.config`, `Module.symvers`, `include/generated`, and the `Makefile` to call.
    pub build: PathBuf,
    /// The part that all configurations share, and KVM's own source: `include`, `arch/x86/include`, `arch/x86/kvm`, `virt`.
    pub common: PathBuf,
}

/// The script in a folder that calls the compiler.
const COMPILER: &str = "cc";
/// Where packages would have their headers.
const PLACE: &str = "/usr/src/";
/// The C library of Debian's newest suite and what the tools need beside it, with the folder that it is unpacked in.
const LIBRARIES: [&str; 5] = ["libc6", "libelf1t64", "zlib1g", "libzstd1", "libssl3t64"];
const LIBRARIES_FOLDER: &str = "lib-of-tools";
/// Flags that compilers of some age do not know, and whose absence changes nothing that matters in a test.
const NEWER_FLAGS: [&str; 4] = [
    "-fmin-function-alignment=16",
    "-fstrict-flex-arrays=3",
    "-fzero-init-padding-bits=all",
    "-fdiagnostics-show-context=2",
];

/// The headers of `kernel`, fetched if they are Debian's and not in the cache.
///
/// # Errors
/// [`Error::Absent`] if there are none, or there is no way to fetch them.
pub fn headers(cache: &Cache, kernel: &Kernel, progress: Progress<'_>) -> Result<Headers, Error> {
    if !kernel.is_packaged() {
        let (build, prepared) = (kernel.modules.clone(), kernel.modules.join("include/generated"));
        return if prepared.is_dir() {
            Ok(Headers { build: build.clone(), common: build })
        } else {
            Err(Error::Absent(format!(
                "expected the top of a kernel's build in {}, found no include/generated; build it, or `make modules_prepare`",
                build.display()
            )))
        };
    }
    let (release, version) = (&kernel.release, kernel.package_version()?);
    let plain = release.strip_suffix(debian::FLAVOUR).unwrap_or(release);
    let [build, common, tools] =
        [format!("linux-headers-{release}"), format!("linux-headers-{plain}-common"), format!("linux-kbuild-{plain}")];
    let source = source(cache, kernel, progress)?;
    let root = cache.folder(&format!("headers-{release}"), progress, |folder, progress| {
        let packages = [&build, &common, &tools].map(|name| format!("{name}={version}"));
        debian::fetch(cache, folder, &packages, progress)?;
        let places = folder.join("usr/src");
        relocate(&places.join(&build).join("Makefile"))?;
        // KVM's makefiles look for each other there.
        for part in source::KVM {
            copy(&source.join(part), &places.join(&common).join(part))?;
        }
        provide_libraries(cache, folder, &folder.join("usr/lib").join(&tools), progress)
    })?;
    let places = root.join("usr/src");
    Ok(Headers { build: places.join(build), common: places.join(common) })
}

impl Headers {
    /// `make` for modules whose source is in `folder`, where a script for the compiler is left; targets and variables are to be
    /// added. Headers in the folders `first` take the place of the kernel's own.
    ///
    /// # Errors
    /// If there is no compiler, or the script cannot be written.
    pub fn make(&self, folder: &Path, first: &[&Path]) -> Result<Command, Error> {
        let compiler = self.compiler()?;
        let known = |flag: &&&str| {
            let mut try_it = Command::new(&compiler);
            try_it.arg(flag).args(["-E", "-x", "c", "/dev/null", "-o", "/dev/null"]);
            try_it.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let unknown = NEWER_FLAGS.iter().filter(|flag| !known(flag));
        let patterns: Vec<&str> = unknown.map(|flag| flag.split('=').next().unwrap_or(flag)).collect();
        let mut script = "#!/bin/sh\nfor flag; do\n\tshift\n".to_owned();
        if !patterns.is_empty() {
            let _ = writeln!(script, "\tcase $flag in {}*) continue ;; esac", patterns.join("*|"));
        }
        let _ = write!(script, "\tset -- \"$@\" \"$flag\"\ndone\nexec {compiler}");
        for folder in first {
            let _ = write!(script, " '-I{}'", folder.display());
        }
        script.push_str(" \"$@\"\n");
        let path = folder.join(COMPILER);
        write_script(&path, &script)?;
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.build).arg(format!("M={}", folder.display())).arg(format!("CC={}", path.display()));
        Ok(make)
    }

    /// The command that is the compiler: that of the kernel if there is one, or else the machine's own.
    fn compiler(&self) -> Result<String, Error> {
        let variables = fs::read_to_string(self.build.join(".kernelvariables")).unwrap_or_default();
        let wanted = variables.split_whitespace().find_map(|word| Some(&word[word.find("gcc-")?..]));
        let is_there = |name: &&str| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        wanted.into_iter().chain(["gcc"]).find(is_there).map(str::to_owned).ok_or_else(|| {
            Error::Absent(format!(
                "expected the command {}, found none; install the package gcc",
                wanted.unwrap_or("gcc")
            ))
        })
    }
}

/// Have the `makefile` of headers find its parts wherever they are.
fn relocate(makefile: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(makefile).map_err(at(makefile))?;
    fs::write(makefile, relocated(&text)).map_err(at(makefile))
}

fn relocated(makefile: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        // Make is called in this folder.
        Some(("KBUILD_OUTPUT", _)) => "KBUILD_OUTPUT := $(CURDIR)\n".to_owned(),
        _ => line.replace(PLACE, "../") + "\n",
    };
    makefile.lines().map(line).collect()
}

/// Give those of the `tools` that want a newer C library than this machine has one of their own.
fn provide_libraries(cache: &Cache, folder: &Path, tools: &Path, progress: Progress<'_>) -> Result<(), Error> {
    if !tools.is_dir() {
        return Ok(());
    }
    let lacking = source::files(tools)?.into_iter().filter(|tool| lacks_libraries(tool)).collect::<Vec<_>>();
    if lacking.is_empty() {
        return Ok(());
    }
    let own = folder.join(LIBRARIES_FOLDER);
    fs::create_dir_all(&own).map_err(at(&own))?;
    debian::fetch_of_newest_suite(cache, &own, &LIBRARIES.map(str::to_owned), progress)?;
    for tool in lacking {
        let real = tool.with_file_name(format!("{}.unwrapped", tool.file_name().unwrap_or_default().display()));
        fs::rename(&tool, &real).map_err(at(&tool))?;
        // From the tool's folder to the one that all packages are unpacked in.
        let depth = tool.strip_prefix(folder).map_or(0, |below| below.components().count() - 1);
        let up = "../".repeat(depth);
        let script = format!(
            "#!/bin/sh\nhere=$(dirname \"$(realpath \"$0\")\")\nlibraries=$here/{up}{LIBRARIES_FOLDER}/usr/lib/x86_64-linux-gnu\n\
             exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \"$here/{}\" \"$@\"\n",
            real.file_name().unwrap_or_default().display()
        );
        write_script(&tool, &script)?;
    }
    Ok(())
}

/// Whether `tool` is a program that this machine has no fitting libraries for.
fn lacks_libraries(tool: &Path) -> bool {
    let is_program = fs::read(tool).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    let missing = |said: &[u8]| String::from_utf8_lossy(said).contains("not found");
    is_program
        && Command::new("ldd").arg(tool).output().is_ok_and(|said| missing(&said.stdout) || missing(&said.stderr))
}

fn write_script(path: &Path, script: &str) -> Result<(), Error> {
    fs::write(path, script).map_err(at(path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(at(path))
}

/// Copy the folder `from`, with all files below it, to `to`.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    for file in source::files(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(at(folder))?;
        fs::copy(&file, &target).map_err(at(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makefile_of_headers_finds_its_parts_wherever_they_are() {
        assert_eq!(
            relocated("include /usr/src/linux-headers-6.12.9+x-common/Makefile\n"),
            "include ../linux-headers-6.12.9+x-common/Makefile\n"
        );
        let newer =
            "KBUILD_OUTPUT=/usr/src/linux-headers-7.3.4-amd64\ninclude /usr/src/linux-headers-7.3.4-common/Makefile\n";
        assert_eq!(relocated(newer), "KBUILD_OUTPUT := $(CURDIR)\ninclude ../linux-headers-7.3.4-common/Makefile\n");
    }

    #[test]
    fn the_compiler_is_called_without_flags_that_it_does_not_know_and_with_our_headers_first() {
        let folder = tempfile::tempdir().unwrap();
        let headers = Headers { build: folder.path().to_owned(), common: folder.path().to_owned() };
        let make = headers.make(folder.path(), &[Path::new("/first")]).unwrap();
        assert!(make.get_args().any(|word| word.to_string_lossy().starts_with("CC=")));
        let script = folder.path().join(COMPILER);
        let mut compile = Command::new(&script);
        compile.args(["-fmin-function-alignment=16", "-fstrict-flex-arrays=3", "-E", "-v", "-x", "c", "/dev/null"]);
        let said = compile.output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("-I /first") && !said.contains("unrecognized"), "{said}");
    }
}
