//! Build what a lab needs of the workspace into a folder, to lie beside a `gpafuzz` that is used without cargo and sources:
//! `cargo run --release -p linux-kvm --example parts -- FOLDER`.

use kernels::{Cache, Error, error::at};
use linux_kvm::parts;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn main() -> Result<(), Error> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder =
        folder.ok_or_else(|| Error::Failed("expected a folder to build into, found no argument".to_owned()))?;
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let (cache, progress) = (Cache::of_user()?, &mut |line: &str| eprintln!("{line}"));
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(at(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(at(&path))?;
        println!("{}", path.display());
        Ok(())
    };
    write(parts::RUNNER, &parts::build_runner(&cache, progress)?)?;
    for version in parts::PLUGIN_VERSIONS {
        write(&parts::plugin_name(version), &parts::build_plugin(&cache, version, progress)?)?;
    }
    Ok(())
}
