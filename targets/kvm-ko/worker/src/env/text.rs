//! The kernel's log, and functions of strings.
//!
//! UNSAFETY: reads text where the kernel says that it is.

#![expect(unsafe_code, reason = "reads the kernel's text")]

use super::functions;
use crate::alarm::{self, Alarm, AlarmKind, Event};
use crate::context::die as die_now;
use crate::loader::{self, Answer};
use std::ffi::CStr;

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "worker_vsnprintf" => libc_vsnprintf as unsafe extern "C" fn(_, _, _, _) -> _,
        "worker_log" => log as extern "C" fn(*const u8, i64),
        "worker_warning_text" => warning_text as extern "C" fn(*const u8, i64),
        "worker_warning" => warning as extern "C" fn(*const libc::c_char, u32),
        "worker_die" => die as extern "C" fn(*const libc::c_char),
        "memset" => libc::memset as unsafe extern "C" fn(_, _, _) -> _,
        "__memset" => libc::memset as unsafe extern "C" fn(_, _, _) -> _,
        "memcpy" => libc::memcpy as unsafe extern "C" fn(_, _, _) -> _,
        "__memcpy" => libc::memcpy as unsafe extern "C" fn(_, _, _) -> _,
        "memmove" => libc::memmove as unsafe extern "C" fn(_, _, _) -> _,
        "memcmp" => libc::memcmp as unsafe extern "C" fn(_, _, _) -> _,
        "strlen" => libc::strlen as unsafe extern "C" fn(_) -> _,
        "strcmp" => libc::strcmp as unsafe extern "C" fn(_, _) -> _,
        "strncmp" => libc::strncmp as unsafe extern "C" fn(_, _, _) -> _,
        "strnlen" => libc::strnlen as unsafe extern "C" fn(_, _) -> _,
        "strchr" => libc::strchr as unsafe extern "C" fn(_, _) -> _,
    }
}

unsafe extern "C" {
    // With a `va_list`, which the kernel's compiler passes as this one does.
    #[link_name = "vsnprintf"]
    fn libc_vsnprintf(to: *mut u8, size: usize, format: *const u8, arguments: *mut u8) -> i32;
}

/// The `bytes` bytes of text at `text`.
fn read(text: *const u8, bytes: i64) -> String {
    let bytes = usize::try_from(bytes).unwrap_or_default();
    // SAFETY: the C part gives the length of what it has formatted.
    String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(text, bytes) }).into_owned()
}

extern "C" fn log(text: *const u8, bytes: i64) {
    let text = read(text, bytes);
    // The level, as in "\x016text".
    let text = text.strip_prefix('\u{1}').map_or(&*text, |rest| rest.get(1..).unwrap_or_default());
    alarm::note(Event::Log(text.trim_end().to_owned()));
}

extern "C" fn warning_text(text: *const u8, bytes: i64) {
    alarm::set_text(read(text, bytes));
}

/// `WARN()` with a format, as it is since 7.0.
extern "C" fn warning(file: *const libc::c_char, line: u32) {
    // SAFETY: a string of a module.
    let file = unsafe { CStr::from_ptr(file) }.to_string_lossy();
    let backtrace = loader::backtrace_here();
    let function = backtrace.iter().find(|name| !name.ends_with("[worker]")).cloned().unwrap_or_default();
    let place = format!("{function} at {file}:{line}");
    alarm::keep(Alarm { kind: AlarmKind::Warn, place, text: String::new(), backtrace });
}

extern "C" fn die(why: *const libc::c_char) {
    // SAFETY: a constant of the C part.
    let why = unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned();
    die_now(AlarmKind::Oops, &why);
}
