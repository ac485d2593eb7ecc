//! Which plugin interface of QEMU's is built for: `QEMU_PLUGIN_VERSION`, or else version 1.

/// From this version on a callback gets a pointer of the plugin's own instead of the plugin's number.
const WITH_USERDATA: u32 = 7;

fn main() {
    println!("cargo::rerun-if-env-changed=QEMU_PLUGIN_VERSION");
    println!("cargo::rustc-check-cfg=cfg(userdata)");
    let version = std::env::var("QEMU_PLUGIN_VERSION").ok().and_then(|version| version.parse::<u32>().ok());
    if version.is_some_and(|version| version >= WITH_USERDATA) {
        println!("cargo::rustc-cfg=userdata");
    }
}
