//! Ctrl-C: the first one ends what is going on with its results, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Listen for Ctrl-C from now on, and return what the first one sets.
///
/// # Errors
/// If it cannot be listened for.
pub fn listen() -> Result<&'static AtomicBool, ctrlc::Error> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(&STOP)
}
