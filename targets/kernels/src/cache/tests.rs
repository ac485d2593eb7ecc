use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Barrier, Mutex};

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    (dir, cache)
}

/// The folder `kernel` with one file in it.
fn made(cache: &Cache) -> PathBuf {
    cache.folder("kernel", &mut |_| {}, |new, _| fs::write(new.join("vmlinuz"), "6.12").map_err(at(new))).unwrap()
}

/// Whether the folder `kernel` is made again, and what is said of why.
fn made_again(cache: &Cache) -> (bool, String) {
    let (mut again, mut said) = (false, String::new());
    let folder = cache.folder("kernel", &mut |line| said.push_str(line), |new, _| {
        again = true;
        fs::write(new.join("vmlinuz"), "6.12").map_err(at(new))
    });
    assert_eq!(fs::read_to_string(folder.unwrap().join("vmlinuz")).unwrap(), "6.12");
    (again, said)
}

#[test]
fn a_folder_is_made_once_and_an_interrupted_one_goes_on() {
    let (_dir, cache) = cache();
    let halfway = cache.folder("kernel", &mut |_| {}, |new, _| {
        fs::write(new.join("first"), "1").unwrap();
        Err(Error::Failed("power cut".into()))
    });
    assert_eq!(halfway, Err(Error::Failed("power cut".into())));
    assert!(!cache.has("kernel"), "a folder that is not whole must not have its name");
    let whole = cache.folder("kernel", &mut |_| {}, |new, _| {
        assert_eq!(fs::read_to_string(new.join("first")).unwrap(), "1");
        Ok(())
    });
    assert_eq!(whole, Ok(cache.root().join("kernel")));
    assert_eq!(cache.folder("kernel", &mut |_| {}, |_, _| panic!("made twice")), whole);
}

#[test]
fn a_folder_that_nothing_was_put_into_leaves_nothing() {
    let (dir, cache) = cache();
    let nothing = cache.folder("kernel", &mut |_| {}, |new, _| {
        fs::create_dir(new.join("packages")).unwrap();
        Err(Error::Absent("there is no such kernel".into()))
    });
    assert!(nothing.is_err());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".kernel.lock"]);
}

#[test]
fn a_folder_that_has_changed_is_made_again() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 7] = [
        (|folder| fs::write(folder.join("vmlinuz"), "6.13").unwrap(), "vmlinuz is not what it was"),
        (|folder| fs::write(folder.join("kvm.ko"), "one more").unwrap(), "kvm.ko is not what it was"),
        (|folder| fs::remove_file(folder.join("vmlinuz")).unwrap(), "vmlinuz is not what it was"),
        (|folder| fs::remove_file(folder.join(".sealed")).unwrap(), ".sealed"),
        (|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap(), "others cannot write to"),
        (
            |folder| fs::set_permissions(folder.join("vmlinuz"), fs::Permissions::from_mode(0o666)).unwrap(),
            "others cannot write to",
        ),
        (
            |folder| {
                let aside = folder.with_extension("aside");
                fs::rename(folder, &aside).unwrap();
                symlink(aside, folder).unwrap();
            },
            "expected a folder at",
        ),
    ];
    for (change, why) in changes {
        let (_dir, cache) = cache();
        let folder = made(&cache);
        assert_eq!(made_again(&cache), (false, String::new()));
        change(&folder);
        let (again, said) = made_again(&cache);
        assert!(again && said.contains("kernel is made again: ") && said.contains(why), "{why}: {said}");
        assert!(fs::symlink_metadata(folder).unwrap().is_dir());
    }
}

#[test]
fn what_others_may_write_to_is_closed_when_it_is_sealed() {
    let (_dir, cache) = cache();
    let folder = cache.folder("kernel", &mut |_| {}, |new, _| {
        fs::write(new.join("vmlinuz"), "6.12").unwrap();
        symlink("/usr/src/linux", new.join("build")).unwrap();
        fs::set_permissions(new.join("vmlinuz"), fs::Permissions::from_mode(0o664)).map_err(at(new))
    });
    let mode = fs::metadata(folder.unwrap().join("vmlinuz")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(made_again(&cache), (false, String::new()));
}

#[test]
fn a_workshop_keeps_what_was_done_until_it_changes() {
    let (_dir, cache) = cache();
    let work = || {
        cache.workshop("kbuild", &mut |_| {}, |folder, _| {
            let old = fs::read_to_string(folder.join("kvm.o")).unwrap_or_default();
            fs::write(folder.join("kvm.o"), format!("{old}.")).unwrap();
            Ok(old.len())
        })
    };
    assert_eq!([work(), work(), work()], [Ok(0), Ok(1), Ok(2)]);
    fs::write(cache.root().join("kbuild/kvm.o"), "something else").unwrap();
    assert_eq!(work(), Ok(0));
    let interrupted = cache.workshop("kbuild", &mut |_| {}, |_, _| Err::<(), _>(Error::Failed("power cut".into())));
    assert!(interrupted.is_err());
    assert_eq!(work(), Ok(0));
}

#[test]
fn of_two_that_want_the_same_one_makes_it_and_the_other_says_that_it_waits() {
    let (_dir, cache) = cache();
    let (begun, wait) = (Barrier::new(2), Mutex::new(Vec::new()));
    let second = || {
        begun.wait();
        let mut progress = |line: &str| wait.lock().unwrap().push(line.to_owned());
        cache.folder("kernel", &mut progress, |_, _| panic!("made twice"))
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = cache.folder("kernel", &mut |_| {}, |_, _| {
            begun.wait();
            while wait.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            Ok(())
        });
        assert_eq!(second.join().unwrap(), first);
    });
    let process = std::process::id();
    assert_eq!(*wait.lock().unwrap(), [format!("waiting for process {process}, which is making kernel")]);
}

#[test]
fn a_lock_that_is_a_link_or_a_pipe_is_refused() {
    let (dir, cache) = cache();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), dir.path().join(".kernel.lock")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join(".source.lock")).status().unwrap();
    assert!(made.success());
    for name in ["kernel", "source"] {
        let Err(Error::Absent(why)) = cache.lock(name, &mut |_| {}) else { panic!("{name}") };
        assert!(why.contains(PLACE) && why.contains(&format!("expected to make {name}")), "{why}");
    }
}

/// Whatever its rights, no process can put a file where the kernel shows what it knows of itself.
#[test]
fn what_is_read_only_is_told_from_what_is_not_there() {
    let (dir, cache) = cache();
    assert!(!cache.is_read_only("kernel"));
    drop(dir);
    assert!(!cache.is_read_only("kernel"));
    let sys = Path::new("/sys/kernel");
    if sys.is_dir() {
        assert!(Cache::at(sys).unwrap().is_read_only("kernel"));
    }
}

#[test]
fn a_place_that_cannot_be_is_explained() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let Err(Error::Absent(why)) = Cache::at(&file.path().join("x")) else { panic!("a file is no folder") };
    assert!(why.contains(PLACE), "{why}");
    let (dir, cache) = cache();
    drop(dir);
    let Err(Error::Absent(why)) = cache.lock("kernel", &mut |_| {}) else { panic!("nothing can be put there") };
    assert!(why.contains(PLACE) && why.contains("expected to make kernel in"), "{why}");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let Err(Error::Absent(why)) = Cache::at(dir.path()) else { panic!("others can write there") };
    assert!(why.contains("chmod go-w") && why.contains("found mode 777"), "{why}");
}
