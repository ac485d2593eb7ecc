//! Prepare a kernel and say where its parts are:
//! `cargo run --release -p kernels --example prepare -- 7.3 [--offline] [--build] [--posted] [--fixed]`.

use kernels::stolen::{self, Design};
use kernels::{Cache, Choice, Error, Kernel, build, headers, source};

fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_there = |word: &str| words.iter().any(|given| given == word);
    let version = words.iter().find(|word| !word.starts_with("--")).map_or("6.12", String::as_str);
    let cache = Cache::of_user()?;
    let cache = if is_there("--offline") { cache.offline() } else { cache };
    let progress = &mut |line: &str| eprintln!("{line}");
    let kernel = Kernel::find(&cache, &Choice::of(version), progress)?;
    println!("{} in {}", kernel.release, kernel.modules.display());
    println!("modules of KVM in {}", kernel.kvm_modules(&cache, progress)?.folder.display());
    println!("source in {}", source(&cache, &kernel, progress)?.display());
    let headers = headers(&cache, &kernel, progress)?;
    println!("headers in {} and {}", headers.build.display(), headers.common.display());
    let script = |design| stolen::script(&kernel.version(), design, None);
    let builds = [
        ("--build", "no change", Vec::new()),
        ("--posted", "stolen GPA bits as posted", script(Design::Posted)),
        ("--fixed", "stolen GPA bits with the gaps closed", script(Design::Fixed)),
    ];
    for (_, name, script) in builds.iter().filter(|(option, ..)| is_there(option)) {
        let built = build::modules(&cache, &kernel, name, script, progress)?;
        println!("modules of KVM with {name} in {}", built.folder.display());
    }
    Ok(())
}
