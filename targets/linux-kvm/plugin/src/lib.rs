//! A plugin for QEMU's software CPU: notes in a [`Map`] each block of module space that is executed.
//!
//! QEMU translates guest code block by block and asks the plugin about each translation. Blocks of module space get a callback
//! for each execution; all other code runs as if there were no plugin. Which modules matter is for the reader of the map to say.
#![expect(unsafe_code, reason = "QEMU's plugin interface is C, in both directions")]

use linux_kvm::coverage::{Block, MODULE_SPACE, Map};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The version of the plugin interface this is built for: QEMU refuses a plugin whose version it no longer, or not yet, speaks.
/// What is used here is the same in all of them but for one callback, see `Translated`.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = match option_env!("QEMU_PLUGIN_VERSION") {
    Some(version) => (version.as_bytes()[0] - b'0') as c_int,
    None => 1,
};

/// `QEMU_PLUGIN_CB_NO_REGS`: the callback looks at no register.
const NO_REGISTERS: c_uint = 0;

#[repr(C)]
struct Translation {
    _opaque: [u8; 0],
}

/// Is told of each translation: with the number of the plugin before it, or with a pointer of the plugin's own after it.
#[cfg(not(userdata))]
type Translated = extern "C" fn(id: u64, block: *mut Translation);
#[cfg(userdata)]
type Translated = extern "C" fn(block: *mut Translation, userdata: *mut c_void);
type Executed = extern "C" fn(vcpu: c_uint, block: *mut c_void);

unsafe extern "C" {
    #[cfg(not(userdata))]
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated);
    #[cfg(userdata)]
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated, userdata: *mut c_void);
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut Translation,
        callback: Executed,
        flags: c_uint,
        data: *mut c_void,
    );
    fn qemu_plugin_tb_vaddr(block: *const Translation) -> u64;
}

static MAP: OnceLock<Map> = OnceLock::new();
/// One for each address, however often it is translated again.
static BLOCKS: Mutex<BTreeMap<u64, &'static Block>> = Mutex::new(BTreeMap::new());

/// QEMU calls this once: `map=FILE` names the map, which is there already.
///
/// # Safety
/// `argv` must be `argc` C strings, as QEMU passes them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..argc.max(0) as usize).map(|at| {
        // SAFETY: the caller promises `argc` C strings.
        unsafe { CStr::from_ptr(*argv.add(at)) }.to_string_lossy()
    });
    let path = arguments.filter_map(|argument| argument.strip_prefix("map=").map(str::to_owned)).next();
    let Some(path) = path else {
        eprintln!("the coverage plugin: expected the argument map=FILE, found none");
        return 1;
    };
    match Map::open(Path::new(&path)) {
        Ok(map) => MAP.get_or_init(|| map),
        Err(error) => {
            eprintln!("the coverage plugin: {path}: {error}");
            return 1;
        }
    };
    #[cfg(not(userdata))]
    // SAFETY: `id` is what QEMU has just handed out, and the callback has the type it expects.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    };
    #[cfg(userdata)]
    // SAFETY: as above.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated, std::ptr::null_mut());
    };
    0
}

#[cfg(not(userdata))]
extern "C" fn translated(_id: u64, translation: *mut Translation) {
    watch(translation);
}

#[cfg(userdata)]
extern "C" fn translated(translation: *mut Translation, _userdata: *mut c_void) {
    watch(translation);
}

/// Have each execution of `translation` noted if it is of module space.
fn watch(translation: *mut Translation) {
    // SAFETY: QEMU passes a translation that is valid until this returns.
    let address = unsafe { qemu_plugin_tb_vaddr(translation) };
    if !MODULE_SPACE.contains(&address) {
        return;
    }
    let Some(map) = MAP.get() else { return };
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let block = match blocks.entry(address) {
        Entry::Occupied(block) => *block.get(),
        // What the map has no room for is not watched.
        Entry::Vacant(place) => match map.add(address) {
            Some(block) => *place.insert(block),
            None => return,
        },
    };
    let data = std::ptr::from_ref(block).cast_mut().cast();
    // SAFETY: as above; the map is never closed, and the callback makes a shared reference of the pointer.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(translation, executed, NO_REGISTERS, data) };
}

extern "C" fn executed(_vcpu: c_uint, data: *mut c_void) {
    // SAFETY: `data` is the block that was registered with this callback.
    unsafe { &*data.cast::<Block>() }.note();
}
