//! What the lab has of this workspace: the runner that goes inside, linked so that it needs no library there, and the plugin for
//! QEMU. Both are taken from beside the binary that runs, if they are there; otherwise cargo builds them from the sources.
//!
//! Each checkout has a target folder of its own in the cache: to cargo, packages at the same place in two checkouts are the same,
//! and it would take what the other built for up to date. Each is built and read under one lock, and what a lab uses is a copy.
//! Where the cache is read-only, that folder is beside what cargo builds of the checkout otherwise.

use kernels::Error;
use kernels::command::output;
use kernels::error::at;
use kernels::{Cache, Progress};
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The runner is built for one of these: the second wherever its standard library is installed, otherwise the first, whose own
/// libraries are put into the binary.
const TRIPLES: [&str; 2] = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"];

/// The name of the runner beside a binary: not that of a runner for the host itself, which is linked otherwise.
pub const RUNNER: &str = "gpafuzz-lab-runner";
/// The versions of QEMU's plugin interface that the plugin can be built for.
pub const PLUGIN_VERSIONS: [u32; 3] = [1, 2, 7];

/// The name beside a binary of the plugin for `version` of the interface.
pub fn plugin_name(version: u32) -> String {
    format!("gpafuzz-lab-plugin-{version}.so")
}

/// The file `name` beside the binary that runs, if it is there.
fn beside_binary(name: &str) -> Option<Result<Vec<u8>, Error>> {
    let path = std::env::current_exe().ok()?.parent()?.join(name);
    path.is_file().then(|| fs::read(&path).map_err(at(&path)))
}

/// The workspace this was built from.
fn workspace() -> Result<&'static Path, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    if root.join("Cargo.toml").is_file() {
        return Ok(root);
    }
    let root = root.display();
    Err(Error::Absent(format!(
        "expected {RUNNER} beside this binary, or its sources in {root}, found neither; put it there, or run from a checkout"
    )))
}

/// The runner, ready to be the first process of a lab: the one beside this binary, or else built, if it is not up to date.
///
/// # Errors
/// If there is none and cargo or the sources are missing, or the runner cannot be built.
pub fn runner(cache: &Cache, progress: Progress<'_>) -> Result<Vec<u8>, Error> {
    beside_binary(RUNNER).unwrap_or_else(|| build_runner(cache, progress))
}

/// Build the runner.
///
/// # Errors
/// If cargo or the sources are missing, or the runner cannot be built.
pub fn build_runner(cache: &Cache, progress: Progress<'_>) -> Result<Vec<u8>, Error> {
    let has_musl = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TRIPLES[1]]), "rustc")
        .is_ok_and(|folder| Path::new(String::from_utf8_lossy(&folder).trim()).is_dir());
    let triple = TRIPLES[usize::from(has_musl)];
    let args = ["--package", "hw-runner", "--bin", "hw-runner", "--target", triple];
    let product = format!("{triple}/release/hw-runner");
    cargo(cache, &args, &[("RUSTFLAGS", "-C target-feature=+crt-static")], &product, progress)
}

/// The plugin for QEMU, in the version of the plugin interface that QEMU `major` speaks: the one beside this binary, or else built.
///
/// # Errors
/// If there is none and it cannot be built.
pub fn plugin(cache: &Cache, major: u32, progress: Progress<'_>) -> Result<Vec<u8>, Error> {
    // QEMU refuses a plugin for a version that it no longer, or not yet, speaks.
    let version = match major {
        0..9 => PLUGIN_VERSIONS[0],
        9..11 => PLUGIN_VERSIONS[1],
        _ => PLUGIN_VERSIONS[2],
    };
    beside_binary(&plugin_name(version)).unwrap_or_else(|| build_plugin(cache, version, progress))
}

/// Build the plugin for `version` of QEMU's plugin interface.
///
/// # Errors
/// If cargo or the sources are missing, or it cannot be built.
pub fn build_plugin(cache: &Cache, version: u32, progress: Progress<'_>) -> Result<Vec<u8>, Error> {
    let args = ["--package", "linux-kvm-plugin", "--lib"];
    let version = version.to_string();
    cargo(cache, &args, &[("QEMU_PLUGIN_VERSION", &version)], "release/liblinux_kvm_plugin.so", progress)
}

/// Build something of the workspace in the release profile; returns the file `product` of cargo's target folder.
fn cargo(
    cache: &Cache,
    args: &[&str],
    environment: &[(&str, &str)],
    product: &str,
    progress: Progress<'_>,
) -> Result<Vec<u8>, Error> {
    let root = workspace()?;
    let name = format!("target-{:016x}", digest(root));
    let own;
    let cache = if cache.is_read_only(&name) {
        own = beside(cache, root, &name, progress)?;
        &own
    } else {
        cache
    };
    let target = cache.root().join(&name);
    let _lock = cache.lock(&name, progress)?;
    if !target.is_dir() {
        progress("building the runner that goes inside (once)");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked"]).args(args).arg("--target-dir").arg(&target).current_dir(root);
    // Debug information is nothing that a lab reads.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    command.envs(environment.iter().copied());
    output(&mut command, "cargo").map_err(|error| cache.with_room(error))?;
    let path = target.join(product);
    fs::read(&path).map_err(at(&path))
}

/// Where to build instead if `cache` is read-only. What it has of the folder `name` is copied first, so that only what has changed since is
/// built again: cargo asks for times.
fn beside(cache: &Cache, root: &Path, name: &str, progress: Progress<'_>) -> Result<Cache, Error> {
    let usual = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let own = Cache::at(&std::path::absolute(&usual).map_err(at(&usual))?.join("lab"))?;
    let (built, folder) = (cache.root().join(name), own.root().join(name));
    let _lock = own.lock(name, progress)?;
    if built.is_dir() && !folder.is_dir() {
        let mut copy = Command::new("cp");
        copy.args(["--recursive", "--preserve=timestamps"]).arg(built.join(".")).arg(folder);
        output(&mut copy, "coreutils")?;
    }
    Ok(own)
}

/// What makes two checkouts the same. It names a folder of the cache, nothing else.
fn digest(root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    hasher.finish()
}
