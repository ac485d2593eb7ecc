//! Panics of a target: they are findings, so they print nothing.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Run `judge`; a panic that it catches itself prints nothing. A panic anywhere else is still printed.
pub(super) fn with_panics_silenced<R>(judge: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = judge();
    QUIET.set(false);
    result
}
