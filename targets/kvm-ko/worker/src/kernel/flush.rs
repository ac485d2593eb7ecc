//! Flushes of remote TLBs: which KVM wants, and the back-end that a hypervisor below it would be.

use super::Kernel;
use super::load::{LoadError, absent, constant};
use crate::alarm::{self, Event};
use crate::cpu;
use crate::loader::{self, Hook, Low, Symbols};
use crate::single::Single;

/// How the back-end answers range flushes, counted from when this was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// All work.
    Works,
    /// The first fails.
    FailsFirst,
    /// The second fails.
    FailsSecond,
    /// All fail.
    FailsAll,
}

static MODE: Single<(FlushMode, u32)> = Single::new((FlushMode::Works, 0));
/// What a back-end says that cannot.
const FAILED: i64 = -95;

/// Functions that are watched, and what is called first with their arguments.
type Watched = (&'static str, extern "C" fn(u64, u64, u64));

/// Note each call of KVM's functions that flush.
pub(super) fn watch(symbols: &Symbols, low: &mut Low) -> Result<(), LoadError> {
    let watched: [Watched; 2] = [("kvm_flush_remote_tlbs", flush_all), ("kvm_flush_remote_tlbs_range", flush_range)];
    for (name, tracer) in watched {
        let function = symbols.address(name).ok_or_else(|| absent(name))?;
        let code = low.tracer(tracer as *const () as u64);
        let hooked = loader::redirect(function, Hook::Before(code));
        hooked.map_err(|why| LoadError(format!("expected to watch {name}: {why}")))?;
    }
    Ok(())
}

/// Make `kvm_x86_ops` have a back-end.
pub(super) fn install(symbols: &Symbols, low: &mut Low) -> Result<(), LoadError> {
    type Backend = extern "C" fn(u64, u64, u64) -> i64;
    let backends: [(&str, Backend); 2] =
        [("flush_remote_tlbs", backend_all), ("flush_remote_tlbs_range", backend_range)];
    let address = |name: &str| symbols.address(name).ok_or_else(|| absent(name));
    let operations = address("kvm_x86_ops")?;
    for (name, backend) in backends {
        let code = low.call(backend as *const () as u64);
        let offset = constant(symbols, &format!("worker_{name}"))?;
        Low::copy(operations + offset, &code.to_le_bytes());
        // struct static_call_key begins with the function.
        Low::copy(address(&format!("__SCK__kvm_x86_{name}"))?, &code.to_le_bytes());
        loader::static_call(address(&format!("__SCT__kvm_x86_{name}"))?, code);
    }
    Ok(())
}

extern "C" fn flush_all(_kvm: u64, _: u64, _: u64) {
    alarm::note(Event::FlushAll);
}

extern "C" fn flush_range(_kvm: u64, gfn: u64, pages: u64) {
    alarm::note(Event::FlushRange { gfn, pages });
}

extern "C" fn backend_all(_kvm: u64, _: u64, _: u64) -> i64 {
    alarm::note(Event::BackendAll);
    cpu::drop_all();
    0
}

extern "C" fn backend_range(_kvm: u64, gfn: u64, pages: u64) -> i64 {
    let (mode, calls) = MODE.get();
    MODE.set((mode, calls + 1));
    let failed = match mode {
        FlushMode::Works => false,
        FlushMode::FailsFirst => calls == 0,
        FlushMode::FailsSecond => calls == 1,
        FlushMode::FailsAll => true,
    };
    alarm::note(Event::BackendRange { gfn, pages, failed });
    if failed {
        return FAILED;
    }
    cpu::drop_range(gfn, pages);
    0
}

impl Kernel {
    /// From now on the back-end answers range flushes so; it counts them from 0.
    pub fn set_flush_mode(&self, mode: FlushMode) {
        MODE.set((mode, 0));
    }
}
