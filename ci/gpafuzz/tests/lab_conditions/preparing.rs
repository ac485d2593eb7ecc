//! Preparing: a kernel is downloaded, unpacked and built with changes, and at each step the disk is full, or Ctrl-C comes.

use super::place::{Place, STALLS, interrupt, said};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// The lab that needs a package, its source, its headers and a build: its script of edits looks for one line in two files.
const TARGET: &str = "linux-kvm-npt:sw-protected";

/// Stand-ins for everything that fetches and builds, for a kernel that has nothing in it but what is looked for.
fn with_packages() -> Place {
    let place = Place::new("-plugin file");
    place.image("image", "6.12.9+x-amd64");
    place.script("apt-cache", "echo linux-image-6.12.9+x-amd64");
    place.script("apt-get", &download("for package; do echo > \"${package%%=*}_1.2-3_amd64.deb\"; done"));
    place.script(
        "dpkg-deb",
        "case $2 in\n\
         */linux-image-*) mkdir -p \"$3/lib/modules/6.12.9+x-amd64/kernel\" \"$3/boot\"; cp \"${0%/*}/../image\" \"$3/boot/vmlinuz-6.12.9+x-amd64\" ;;\n\
         */linux-source-*) mkdir -p \"$3/usr/src\"; echo > \"$3/usr/src/linux-source-6.12.tar.xz\" ;;\n\
         */linux-headers-*-common_*) mkdir -p \"$3/usr/src/linux-headers-6.12.9+x-common/arch/x86/include/asm\"\n\
         echo > \"$3/usr/src/linux-headers-6.12.9+x-common/arch/x86/include/asm/kvm_host.h\" ;;\n\
         */linux-headers-*) mkdir -p \"$3/usr/src/linux-headers-6.12.9+x-amd64\"\n\
         echo > \"$3/usr/src/linux-headers-6.12.9+x-amd64/Makefile\" ;;\n\
         esac",
    );
    place.script(
        "tar",
        "cd \"$2/\"; mkdir -p linux-source-6.12/arch/x86/kvm/mmu linux-source-6.12/arch/x86/kvm/vmx linux-source-6.12/virt/kvm\n\
         cd linux-source-6.12\n\
         for file in mmu.h mmu/mmu.c mmu/mmu_internal.h mmu/paging_tmpl.h x86.c vmx/vmx.c debugfs.c; do\n\
         echo 'IS_ENABLED(CONFIG_KVM_SW_PROTECTED_VM)' > arch/x86/kvm/$file\ndone\necho > virt/kvm/kvm_main.c",
    );
    place.script("make", "m=${3#M=}; echo > \"$m/kvm.ko\"; echo > \"$m/kvm-amd.ko\"; echo > \"$m/kvm-intel.ko\"");
    place.script("strip", "cp \"$4\" \"$3\"");
    place
}

/// A stand-in that downloads as `how` says, knows no sizes, and has no other package lists.
fn download(how: &str) -> String {
    format!("[ \"$1\" = download ] || exit 1\nshift\n[ \"$1\" != --print-uris ] || exit 0\n{how}")
}

fn campaign(place: &Place) -> Command {
    place.campaign(&[TARGET], "answers", &["--runs", "20"])
}

/// Finished folders of the cache, by what they are.
fn finished(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.at("cache")).expect("a cache").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut kinds: Vec<String> = names
        .filter(|name| !name.starts_with('.') && !name.ends_with(".new"))
        .filter_map(|name| name.split('-').next().map(str::to_owned))
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn ctrl_c_at_any_step_leaves_no_process_and_a_cache_that_goes_on() {
    let place = with_packages();
    let steps: [(&str, &[&str]); 6] = [
        ("apt-get", &[]),
        ("dpkg-deb", &[]),
        ("tar", &["kernel"]),
        ("make", &["headers", "kbuild", "kernel", "source"]),
        ("strip", &["headers", "kbuild", "kernel", "source"]),
        ("cargo", &["headers", "kbuild", "kernel", "kvm", "source"]),
    ];
    for (step, there) in steps {
        let child = campaign(&place).env(STALLS, step).spawn().expect("gpafuzz runs");
        place.wait_for_stand_in();
        interrupt(&child);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.signal(), Some(2), "{step}: {}", said(&output));
        place.is_tidy();
        assert_eq!(finished(&place), there, "{step}: {}", said(&output));
        fs::write(place.at("pids"), "").expect("a file");
    }
    let output = campaign(&place).output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("lab: downloading"), "what was there was fetched again: {}", said(&output));
}

#[test]
fn a_download_that_fails_says_which_kernels_there_are_and_leaves_nothing() {
    let place = with_packages();
    place.script("apt-get", "echo 'E: Failed to fetch' >&2; exit 100");
    let output = campaign(&place).output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    for part in ["E: Failed to fetch", "6.12.9+x-amd64", "apt-get update"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let unfinished = fs::read_dir(place.at("cache")).expect("a cache").flatten();
    assert_eq!(unfinished.filter(|entry| entry.path().is_dir()).count(), 0);
}

#[test]
fn a_kernel_that_is_not_there_is_named_beside_those_that_are() {
    let place = with_packages();
    let output = place.campaign(&["linux-kvm-npt", "--kernel", "6.13"], "answers", &["--runs", "1"]).output();
    let output = output.expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("expected a kernel 6.13") && said(&output).contains("6.12.9+x-amd64"));
}

/// `command` in a mount namespace of its own, after `mount`, a line of the shell; `None`, which is said, if that cannot be done here.
fn after_mount(mount: &str, command: &Command) -> Option<Command> {
    let unshare = |line: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c"]).arg(line).arg("sh");
        unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare
    };
    if !unshare(mount).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: `{mount}` cannot be done here");
        return None;
    }
    let mut mounted = unshare(&format!("{mount} && {{ \"$@\"; s=$?; ls \"$GPAFUZZ_LAB\"; exit $s; }}"));
    mounted.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir()?);
    Some(mounted)
}

/// The cache is a file system of 1 MB.
#[test]
fn a_full_disk_is_named_with_what_is_needed_and_breaks_nothing() {
    let place = with_packages();
    place.script("apt-get", &download("dd if=/dev/zero bs=1M count=4 of=\"${1%%=*}_1.2-3_amd64.deb\""));
    let mount = "mount -t tmpfs -o size=1m,mode=700 none \"$GPAFUZZ_LAB\"";
    let Some(mut command) = after_mount(mount, &campaign(&place)) else { return };
    let output = command.output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    for part in ["No space left on device", "expected about 1000 MB free", "GPAFUZZ_LAB"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!listed.lines().any(|name| name == "kernel-6.12"), "{listed}");
}

#[test]
fn a_cache_that_is_read_only_is_used_and_what_it_lacks_is_named() {
    let place = with_packages();
    let campaign = || {
        let mut campaign = place.campaign(&[TARGET], "keeps", &["--runs", "20"]);
        campaign.env("CARGO_TARGET_DIR", place.at("target"));
        campaign
    };
    let mount = "mount --bind \"$GPAFUZZ_LAB\" \"$GPAFUZZ_LAB\" && mount -o remount,ro,bind \"$GPAFUZZ_LAB\"";
    let read_only = || Some(after_mount(mount, &campaign())?.output().expect("gpafuzz runs"));
    let output = campaign().output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!place.at("target").exists(), "there was no need for it");
    let remove = |kind: &str| {
        let entries = fs::read_dir(place.at("cache")).expect("a cache").flatten();
        let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(kind));
        fs::remove_dir_all(found.next().expect("it is there").path()).expect("it goes");
    };
    let Some(output) = read_only() else { return };
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("lab: going on with Linux"), "{}", said(&output));
    // What these were needed for is there.
    for kind in ["booted", "source-", "headers-", "kbuild-", "target-"] {
        remove(kind);
    }
    let output = read_only().expect("as before");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("lab: booting Linux"), "{}", said(&output));
    remove("kvm-");
    let output = read_only().expect("as before");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    for part in ["expected to make kvm-6.12.9+x-amd64", "Read-only file system", "GPAFUZZ_LAB"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
}
