//! Locks. One processor takes turns, so a lock is a word that says who has it, and waiting is letting others run.
//!
//! The words are where the kernel keeps them, because its inline functions look there: `mutex.owner`, `rw_semaphore.count`,
//! `qspinlock.val`, `qrwlock.cnts` and, for those who wait, `qrwlock.wait_lock`.
//!
//! UNSAFETY: reads and writes the words.

#![expect(unsafe_code, reason = "reads and writes the kernel's locks")]

use super::functions;
use crate::context::{self, Point, block_until, current};
use crate::loader::Answer;

/// `RWSEM_READER_BIAS`; a writer is 1.
const SEM_READER: u64 = 256;
/// `_QR_BIAS`.
const READER: u32 = 1 << 9;
/// `_QW_LOCKED`.
const WRITER: u32 = 0xff;

type Flags = u64;

pub(crate) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! {
        "__mutex_init" => clear_8 as extern "C" fn(*mut u64),
        "mutex_init_generic" => clear_8 as extern "C" fn(*mut u64),
        "mutex_lock" => mutex_lock as extern "C" fn(*mut u64) -> i32,
        "mutex_lock_killable" => mutex_lock as extern "C" fn(*mut u64) -> i32,
        "mutex_trylock" => mutex_trylock as extern "C" fn(*mut u64) -> i32,
        "mutex_unlock" => clear_8 as extern "C" fn(*mut u64),
        "mutex_is_locked" => mutex_is_locked as extern "C" fn(*const u64) -> bool,
        "__init_rwsem" => clear_8 as extern "C" fn(*mut u64),
        "down_read" => down_read as extern "C" fn(*mut u64),
        "up_read" => up_read as extern "C" fn(*mut u64),
        "down_write" => down_write as extern "C" fn(*mut u64),
        "up_write" => clear_8 as extern "C" fn(*mut u64),
        "_raw_spin_lock" => spin_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_spin_lock_irq" => spin_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_spin_lock_bh" => spin_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_spin_lock_irqsave" => spin_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_spin_trylock" => spin_trylock as extern "C" fn(*mut u32) -> i32,
        "_raw_spin_unlock" => spin_unlock as extern "C" fn(*mut u32),
        "_raw_spin_unlock_irq" => spin_unlock as extern "C" fn(*mut u32),
        "_raw_spin_unlock_bh" => spin_unlock as extern "C" fn(*mut u32),
        "_raw_spin_unlock_irqrestore" => spin_unlock as extern "C" fn(*mut u32),
        "_raw_read_lock" => read_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_read_lock_irq" => read_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_read_lock_irqsave" => read_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_read_trylock" => read_trylock as extern "C" fn(*mut u32) -> i32,
        "_raw_read_unlock" => read_unlock as extern "C" fn(*mut u32),
        "_raw_read_unlock_irq" => read_unlock as extern "C" fn(*mut u32),
        "_raw_read_unlock_irqrestore" => read_unlock as extern "C" fn(*mut u32),
        "_raw_write_lock" => write_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_write_lock_irq" => write_lock as extern "C" fn(*mut u32) -> Flags,
        "_raw_write_trylock" => write_trylock as extern "C" fn(*mut u32) -> i32,
        "_raw_write_unlock" => write_unlock as extern "C" fn(*mut u32),
        "_raw_write_unlock_irq" => write_unlock as extern "C" fn(*mut u32),
        "__cond_resched_rwlock_read" => resched_read as extern "C" fn(*mut u32) -> i32,
        "__cond_resched_rwlock_write" => resched_write as extern "C" fn(*mut u32) -> i32,
    }
}

/// The word at `lock`.
fn get<T: Copy>(lock: *const T) -> T {
    // SAFETY: a lock of the kernel.
    unsafe { lock.read_volatile() }
}

fn put<T>(lock: *mut T, value: T) {
    // SAFETY: a lock of the kernel.
    unsafe { lock.write_volatile(value) }
}

extern "C" fn clear_8(lock: *mut u64) {
    put(lock, 0);
}

/// `mutex.owner` has flags in its low bits.
fn owner() -> u64 {
    (current() as u64 + 1) << 3
}

extern "C" fn mutex_lock(lock: *mut u64) -> i32 {
    block_until(|| get(lock) == 0);
    put(lock, owner());
    0
}

extern "C" fn mutex_trylock(lock: *mut u64) -> i32 {
    let free = get(lock) == 0;
    if free {
        put(lock, owner());
    }
    free.into()
}

extern "C" fn mutex_is_locked(lock: *const u64) -> bool {
    get(lock) != 0
}

extern "C" fn down_read(lock: *mut u64) {
    block_until(|| get(lock) & 1 == 0);
    put(lock, get(lock) + SEM_READER);
}

extern "C" fn up_read(lock: *mut u64) {
    put(lock, get(lock).wrapping_sub(SEM_READER));
}

extern "C" fn down_write(lock: *mut u64) {
    block_until(|| get(lock) == 0);
    put(lock, 1);
}

extern "C" fn spin_lock(lock: *mut u32) -> Flags {
    block_until(|| get(lock) == 0);
    put(lock, 1);
    context::spin(1);
    0
}

extern "C" fn spin_trylock(lock: *mut u32) -> i32 {
    let free = get(lock) == 0;
    if free {
        spin_lock(lock);
    }
    free.into()
}

extern "C" fn spin_unlock(lock: *mut u32) {
    put(lock, 0);
    context::spin(-1);
}

/// Wait for an rwlock; who has it sees that others want it (`rwlock_is_contended()`).
fn wait_for(lock: *mut u32, free: impl Fn(u32) -> bool) {
    if free(get(lock)) {
        return;
    }
    let waiting = lock.wrapping_add(1);
    put(waiting, 1);
    block_until(|| free(get(lock)));
    put(waiting, 0);
}

extern "C" fn read_lock(lock: *mut u32) -> Flags {
    wait_for(lock, |count| count & WRITER == 0);
    put(lock, get(lock) + READER);
    context::spin(1);
    0
}

extern "C" fn read_trylock(lock: *mut u32) -> i32 {
    let free = get(lock) & WRITER == 0;
    if free {
        read_lock(lock);
    }
    free.into()
}

extern "C" fn read_unlock(lock: *mut u32) {
    put(lock, get(lock).wrapping_sub(READER));
    context::spin(-1);
}

extern "C" fn write_lock(lock: *mut u32) -> Flags {
    wait_for(lock, |count| count == 0);
    put(lock, WRITER);
    context::spin(1);
    0
}

extern "C" fn write_trylock(lock: *mut u32) -> i32 {
    let free = get(lock) == 0;
    if free {
        write_lock(lock);
    }
    free.into()
}

extern "C" fn write_unlock(lock: *mut u32) {
    put(lock, 0);
    context::spin(-1);
}

extern "C" fn resched_read(lock: *mut u32) -> i32 {
    if !context::stops_at(Point::Resched) {
        return 0;
    }
    read_unlock(lock);
    context::point(Point::Resched);
    read_lock(lock);
    1
}

extern "C" fn resched_write(lock: *mut u32) -> i32 {
    if !context::stops_at(Point::Resched) {
        return 0;
    }
    write_unlock(lock);
    context::point(Point::Resched);
    write_lock(lock);
    1
}
