//! Loading: from a folder with modules to a kernel that has initialised them.
//!
//! UNSAFETY: gives the thread the base of the per-CPU area, and reads and writes variables of the kernel.

#![expect(unsafe_code, reason = "sets GS base, reads and writes variables of the kernel")]

use super::functions::Functions;
use super::{Kernel, flush, processor, requests};
use crate::context::{self, Threads, call};
use crate::cpu::format::Format;
use crate::cpu::{self, settings};
use crate::env;
use crate::loader::{self, Low, Module, Symbols};
use crate::memory::{HEAP_END, PAGES, PHYSICAL, PHYSICAL_BYTES, heap, percpu, physical, stack};
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::Path;

/// What is loaded, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose virtualisation extension the processor has.
    pub vendor: Vendor,
    /// Whether the processor walks nested tables (`npt`, `ept`); otherwise KVM shadows the guest's.
    pub tdp: bool,
    /// Whether KVM uses its TDP MMU; otherwise the older one, with an rmap.
    pub tdp_mmu: bool,
    /// Bits of a physical address (CPUID 0x80000008).
    pub physical_bits: u8,
    /// Whether `kvm_x86_ops.flush_remote_tlbs` and `flush_remote_tlbs_range` exist.
    pub flush_backend: bool,
    /// Other variables that are set before the modules are initialised: module, name, value, as `("kvm", "eager_page_split", 0)`.
    pub parameters: Vec<(String, String, u64)>,
}

/// Whose processor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// SVM and nested page tables.
    Amd,
    /// VMX and EPT.
    Intel,
}

/// Why the kernel could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(pub String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// The part that is compiled with the kernel's headers.
pub(crate) const COMPILED: &str = "worker.o";
/// Alignment of the per-CPU area.
const PERCPU_ALIGN: u64 = 4096;
impl Kernel {
    /// Load the modules in the folder `prepared`, initialise them, and make and destroy one VM.
    ///
    /// # Errors
    /// If something is missing in the folder, a module is not what it should be, or does not want to be initialised.
    pub fn load(prepared: &Path, options: &Options) -> Result<Self, LoadError> {
        let here = 0_u64;
        // Frames of the callers are of no interest, and their stack goes on for more than one page.
        stack::set_end((&raw const here as u64).next_multiple_of(4096));
        let file = physical::map()?;
        let (modules, symbols, mut low) = lay_out(prepared, options)?;
        loader::install(modules);
        loader::with_modules(loader::jump_labels);
        let bug_entry = constant(&symbols, "worker_bug_entry")?;
        context::install(bug_entry, env::user_access());
        let functions = Functions::find(&symbols)?;
        let mut kernel = Self {
            functions,
            symbols,
            vendor: options.vendor,
            physical_bits: options.physical_bits,
            format: if options.tdp && options.vendor == Vendor::Intel {
                Format::Ept { accessed_dirty: true }
            } else {
                Format::Page
            },
            idle_objects: u64::MAX,
            one_thread: PhantomData,
        };
        kernel.boot(file, options)?;
        kernel.put_processor(options.vendor, &mut low)?;
        flush::watch(&kernel.symbols, &mut low)?;
        kernel.initialise(options)?;
        if options.flush_backend {
            flush::install(&kernel.symbols, &mut low)?;
        }
        kernel.warm_up()?;
        kernel.idle_objects = heap::live();
        kernel.take_events();
        Ok(kernel)
    }

    /// What happens before any module is initialised.
    fn boot(&self, file: i32, options: &Options) -> Result<(), LoadError> {
        self.set("worker_physical_bits", options.physical_bits.into(), 4)?;
        self.set("worker_intel", (options.vendor == Vendor::Intel).into(), 4)?;
        self.call_once("worker_boot", &[PHYSICAL, PAGES, PHYSICAL_BYTES, percpu::base()])?;
        let page_size = constant(&self.symbols, "worker_page_size")?;
        let top = env::begin_pages(file, page_size, constant(&self.symbols, "worker_page_refcount")?);
        let task = self.call_once("worker_init_tasks", &[top])?;
        let address = |name: &str| self.symbols.address(name).ok_or_else(|| absent(name));
        let functions = [address("worker_new_task")?, address("worker_switch_task")?, address("worker_signal")?];
        Threads::start(task, functions);
        settings::set(settings::Settings { physical_bits: options.physical_bits, nested_levels: 4 });
        context::make_tasks().map_err(|_| died("worker_new_task"))?;
        self.call_once("radix_tree_init", &[]).map(drop)
    }

    /// The processor's instructions become calls of this program.
    fn put_processor(&self, vendor: Vendor, low: &mut Low) -> Result<(), LoadError> {
        loader::with_modules(|modules| {
            let name = module_name(vendor);
            let module = modules.iter().find(|module| module.name == name).ok_or_else(|| absent(name))?;
            match vendor {
                Vendor::Amd => processor::put_svm(module, &self.symbols),
                Vendor::Intel => processor::put_vmx(module, &self.symbols, low),
            }
        })
    }

    fn initialise(&self, options: &Options) -> Result<(), LoadError> {
        let vendor = module_name(options.vendor);
        set_in("kvm", "tdp_mmu_enabled", options.tdp_mmu.into())?;
        let tdp = if options.vendor == Vendor::Intel { "enable_ept" } else { "npt_enabled" };
        set_in(vendor, tdp, options.tdp.into())?;
        for (module, name, value) in &options.parameters {
            set_in(module, name, *value)?;
        }
        for name in ["irqbypass", "kvm", vendor] {
            let init = loader::with_modules(|modules| {
                modules.iter().find(|module| module.name == name).and_then(|module| module.symbol("init_module"))
            });
            let Some(init) = init else { continue };
            let result = call(init, &[]).map_err(|_| died(&format!("init_module of {name}")))? as i32;
            if result != 0 {
                let log: Vec<String> = self.take_events().into_iter().map(|event| format!("{event:?}")).collect();
                return Err(LoadError(format!(
                    "expected {name} to initialise, found: {}; it said: {}",
                    std::io::Error::from_raw_os_error(-result),
                    log.join("; ")
                )));
            }
        }
        Ok(())
    }

    /// What is made once for all VMs is made.
    fn warm_up(&self) -> Result<(), LoadError> {
        let failed = |failure| LoadError(format!("expected to make a VM, found: {failure}; {:?}", self.take_events()));
        let vm = self.create_vm(0).map_err(failed)?;
        let vcpu = self.create_vcpu(vm, 0).map_err(failed)?;
        self.close(vcpu).and_then(|()| self.close(vm)).and_then(|()| self.reset()).map_err(failed)
    }

    /// Call the function `name` of the compiled part.
    fn call_once(&self, name: &str, arguments: &[u64]) -> Result<u64, LoadError> {
        let address = self.symbols.address(name).ok_or_else(|| absent(name))?;
        call(address, arguments).map_err(|_| died(name))
    }

    fn set(&self, name: &str, value: u64, size: u64) -> Result<(), LoadError> {
        let at = self.symbols.address(name).ok_or_else(|| absent(name))?;
        write(at, value, size);
        Ok(())
    }
}

fn module_name(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Amd => "kvm-amd",
        Vendor::Intel => "kvm-intel",
    }
}

fn lay_out(prepared: &Path, options: &Options) -> Result<(Vec<Module>, Symbols, Low), LoadError> {
    let mut answers = env::answers();
    answers.extend(cpu::answers());
    answers.extend(requests::answers());
    let (mut low, mut symbols) = (Low::new(), Symbols::new(answers));
    let area = low.alloc(percpu::BYTES, PERCPU_ALIGN);
    percpu::place(area);
    // SAFETY: kernel code finds per-CPU data by GS; this program does not use it.
    if unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, area) } != 0 {
        return Err(LoadError(format!("expected to set GS base, found: {}", std::io::Error::last_os_error())));
    }
    let vendor = module_name(options.vendor);
    let files =
        [("worker", COMPILED), ("irqbypass", "irqbypass.ko"), ("kvm", "kvm.ko"), (vendor, &*format!("{vendor}.ko"))];
    let mut modules = Vec::new();
    for (name, file) in files {
        let path = prepared.join(file);
        let read = fs::read(&path);
        let data = read.map_err(|error| LoadError(format!("expected {}, found: {error}", path.display())))?;
        modules.push(loader::place(name, data, &mut low, &mut symbols)?);
    }
    for module in &modules {
        module.relocate(&mut low, &mut symbols)?;
    }
    Ok((modules, symbols, low))
}

/// `ARCH_SET_GS` of `arch_prctl(2)`.
const ARCH_SET_GS: i32 = 0x1001;
const _: () = assert!(HEAP_END < PHYSICAL_BYTES);

fn set_in(module: &str, name: &str, value: u64) -> Result<(), LoadError> {
    let found = loader::with_modules(|modules| {
        let module = modules.iter().find(|loaded| loaded.name == module)?;
        Some((module.symbol(name)?, module.size_of(name)))
    });
    let (at, size) = found.ok_or_else(|| absent(&format!("the variable {name} of {module}")))?;
    write(at, value, size);
    Ok(())
}

fn write(at: u64, value: u64, size: u64) {
    let bytes = value.to_le_bytes();
    Low::copy(at, &bytes[..size.min(8) as usize]);
}

/// The value of a constant of the compiled part.
pub(super) fn constant(symbols: &Symbols, name: &str) -> Result<u64, LoadError> {
    let at = symbols.address(name).ok_or_else(|| absent(name))?;
    // SAFETY: an `unsigned long`.
    Ok(unsafe { physical::read(at) })
}

pub(super) fn absent(what: &str) -> LoadError {
    LoadError(format!("expected {what} in the kernel's modules, found none; is it a kernel that this program knows?"))
}

fn died(doing: &str) -> LoadError {
    LoadError(format!("the kernel died in {doing}: {:?}", crate::alarm::take().last()))
}
