//! A kernel's own KVM in this process: Debian's stock `kvm.ko` and its vendor module, unmodified, with the processor replaced.
//!
//! | room | what is there |
//! |---|---|
//! | [`single`] | state that one thread owns |
//! | [`alarm`] | what the kernel, or its surroundings here, objected to |
//! | `memory` | physical memory, the kernel's heap, the pages of the host |
//! | `loader` | modules: sections, relocations, code that is patched, tables |
//! | `context` | threads of the kernel: stacks, and a way out of a kernel that died |
//! | `env` | the functions of the kernel's core that KVM calls |
//! | `cpu` | the processor: page walks, TLBs, VMRUN |
//! | [`kernel`] | all of it, as the driver uses it |
//!
//! What the kernel's headers must say is C, in `targets/kvm-ko/kernel`, and compiled at the first use. Of a kernel,
//! besides its modules, only these headers and some files of `lib/` are used. BTF would give layouts without a compiler, but not
//! the inline functions and flag values that the C part takes from the headers.
//!
//! What is absent on purpose: interrupts, other processors, time, devices. Threads take turns at chosen points only.

pub mod alarm;
mod context;
mod cpu;
mod env;
pub mod kernel;
mod loader;
mod memory;
pub mod single;
