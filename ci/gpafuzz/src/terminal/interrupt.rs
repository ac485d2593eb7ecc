//! Ctrl-C, and SIGTERM and SIGHUP: the first one ends what is going on with its results, the second ends it at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Listen for signals from now on, and return what the first one sets.
///
/// # Errors
/// If they cannot be listened for.
pub fn listen() -> io::Result<&'static AtomicBool> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the second signal finds the flag set, and ends the process with the status that is its own.
        flag::register_conditional_shutdown(signal, 128 + signal, STOP.clone())?;
        flag::register_usize(signal, SIGNAL.clone(), signal as usize)?;
        flag::register(signal, STOP.clone())?;
    }
    Ok(&STOP)
}

/// The exit status that tells of the signal that came, if one did: 128 plus its number.
pub fn status() -> Option<u8> {
    let signal = SIGNAL.load(Ordering::Relaxed);
    (signal != 0).then_some(128 + signal as u8)
}
