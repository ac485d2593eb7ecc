//! The scripts of edits find their places in the source of every kernel that is in the cache.

use kernels::edits::{self, Edit};
use kernels::stolen::{self, Design};
use kernels::{Cache, Choice, Error, Kernel, headers, protected, source};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Kernels whose source is looked for.
const VERSIONS: [&str; 2] = ["6.12", "7.3"];
/// Carry out `script` on the files of `source`, or on the headers in `common`; returns why that cannot be.
fn fits(source: &Path, common: &Path, script: &[Edit]) -> Result<(), String> {
    for file in script.iter().map(|edit| edit.file).collect::<BTreeSet<_>>() {
        let path = [source, common].map(|folder| folder.join(file)).into_iter().find(|path| path.is_file());
        let text = fs::read_to_string(path.ok_or(file)?).map_err(|error| error.to_string())?;
        let edited = edits::apply(file, &text, script).map_err(|error| error.to_string())?;
        if edited == text {
            return Err(format!("{file} is as it was"));
        }
    }
    Ok(())
}

/// The source and the headers of Linux `version`, if they are in the cache.
fn prepared(cache: &Cache, version: &str) -> Result<(String, PathBuf, PathBuf), Error> {
    let progress = &mut |_: &str| {};
    let kernel = Kernel::find(cache, &Choice::of(version), progress)?;
    Ok((kernel.version(), source(cache, &kernel, progress)?, headers(cache, &kernel, progress)?.common))
}

#[test]
fn every_script_fits_every_kernel() {
    let cache = Cache::of_user().expect("a cache").offline();
    for version in VERSIONS {
        let (version, source, common) = match prepared(&cache, version) {
            Ok(prepared) => prepared,
            Err(why) => {
                println!("SKIPPED: Linux {version}: {why}");
                continue;
            }
        };
        let mut wrong = Vec::new();
        let mut check = |name: &str, script: &[Edit]| {
            if let Err(why) = fits(&source, &common, script) {
                wrong.push(format!("{name} on {version}: {why}"));
            }
        };
        check("sw-protected", &protected::SCRIPT);
        check("posted", &stolen::script(&version, Design::Posted, None));
        check("fixed", &stolen::script(&version, Design::Fixed, None));
        for mutant in &stolen::MUTANTS {
            check(mutant.name, &stolen::script(&version, Design::Fixed, Some(mutant)));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
