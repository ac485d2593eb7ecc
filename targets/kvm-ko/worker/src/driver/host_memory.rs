//! What the host does to its pages, told to KVM by its MMU notifier; and what the model calls each page.

use super::Stop;
use super::machine::odd;
use gpa_model::limits::HOST_PAGES;
use gpa_model::{Exit, Host, HostPageRange, Level, Pfn, VmConfig};
use kvm_ko_worker::kernel::{Ageing, Kernel, Phase, Protection};

/// A page that was never behind any of the program's.
const STRANGER: Pfn = Pfn::new(u32::MAX);

/// The pages behind the program's host memory.
#[derive(Default)]
pub(super) struct HostMemory {
    vm: VmConfig,
    /// By what names physical pages are known, the last first.
    names: Vec<(u64, Pfn)>,
    /// Invalidations that have begun and not ended.
    open: u32,
}

impl HostMemory {
    /// A program begins, on pages that were never touched.
    pub(super) fn begin_program(&mut self, kernel: &Kernel, vm: &VmConfig) {
        self.vm = *vm;
        self.names.clear();
        self.open = 0;
        if vm.largest_leaf() != Level::Page4K {
            kernel.set_level(0, vm.pages_of(HOST_PAGES), level_number(vm.largest_leaf()));
        }
    }

    /// What the model calls page `pfn`.
    pub(super) fn name(&mut self, kernel: &Kernel, host: &Host, pfn: u64) -> Pfn {
        if let Some(name) = self.known(pfn) {
            return name;
        }
        self.learn(kernel, host);
        self.known(pfn).unwrap_or(STRANGER)
    }

    fn known(&self, pfn: u64) -> Option<Pfn> {
        self.names.iter().rev().find(|(known, _)| *known == pfn).map(|(_, name)| *name)
    }

    /// Note what is behind each page now. No page comes behind another before the VM is gone.
    pub(super) fn learn(&mut self, kernel: &Kernel, host: &Host) {
        for index in 0..HOST_PAGES {
            let hva = self.vm.hva(index);
            if let Some(pfn) = kernel.pfn(hva.page())
                && self.known(pfn).is_none()
            {
                self.names.push((pfn, host.pfn(hva)));
            }
        }
    }

    /// The page of the program's that holds `value` at `offset`.
    pub(super) fn holding(&self, kernel: &Kernel, host: &Host, offset: u64, value: u64) -> Option<Pfn> {
        (0..HOST_PAGES).map(|index| self.vm.hva(index)).find_map(|hva| {
            let word = kernel.read(kernel.pfn(hva.page())?, offset) as u32;
            (word == value as u32).then(|| host.pfn(hva))
        })
    }

    /// A whole invalidation, after which other pages are there.
    pub(super) fn replace(&mut self, kernel: &Kernel, host: &Host, range: HostPageRange) -> Result<Exit, Stop> {
        self.begin(kernel, range)?;
        self.end(kernel, host, range)
    }

    /// Whether an invalidation has begun and not ended.
    pub(super) fn is_invalidating(&self) -> bool {
        self.open != 0
    }

    /// `invalidate_range_start`.
    pub(super) fn begin(&mut self, kernel: &Kernel, range: HostPageRange) -> Result<Exit, Stop> {
        self.open += 1;
        let begun = kernel.invalidate(Phase::Start, range.start.page(), range.pages.into());
        begun.map_err(odd("begin an invalidation")).map(|()| Exit::Done)
    }

    /// Other pages come, as large as `host` says; `invalidate_range_end`.
    pub(super) fn end(&mut self, kernel: &Kernel, host: &Host, range: HostPageRange) -> Result<Exit, Stop> {
        let mut at = range.start;
        while at.page() < range.end() {
            let pages = match host.level(at) {
                Level::Page4K => {
                    let pages = self.vm.stride().min(range.end() - at.page());
                    kernel.take_away(at.page(), pages);
                    pages
                }
                large => {
                    kernel.renew(at.page(), large.pages(), large.pages());
                    large.pages()
                }
            };
            at = at.add(pages);
        }
        self.map(kernel, host);
        self.end_invalidation(kernel, range)
    }

    fn end_invalidation(&mut self, kernel: &Kernel, range: HostPageRange) -> Result<Exit, Stop> {
        self.open -= 1;
        let ended = kernel.invalidate(Phase::End, range.start.page(), range.pages.into());
        ended.map_err(odd("end an invalidation")).map(|()| Exit::Done)
    }

    /// Map every page as large as `host` does.
    pub(super) fn map(&self, kernel: &Kernel, host: &Host) {
        if self.vm.largest_leaf() == Level::Page4K {
            return;
        }
        for index in 0..HOST_PAGES {
            let hva = self.vm.hva(index);
            kernel.set_level(hva.page(), self.vm.stride(), level_number(host.level(hva)));
        }
    }

    /// Take pages away and put none in their place.
    pub(super) fn forbid(&mut self, kernel: &Kernel, range: HostPageRange) -> Result<Exit, Stop> {
        self.begin(kernel, range)?;
        kernel.take_away(range.start.page(), range.pages.into());
        kernel.protect(range.start.page(), range.pages.into(), Protection::None);
        self.end_invalidation(kernel, range)
    }

    /// Ask page by page whether it was accessed, which changes nothing, and then by the call that forgets it: both must say the same.
    pub(super) fn age(&self, kernel: &Kernel, range: HostPageRange, flush: bool) -> Result<Exit, Stop> {
        let ask = |call, page, pages| kernel.age(call, page, pages).map_err(odd("age"));
        let mut tested = false;
        let pages = if self.vm.stride() == 1 { range.start.page()..range.end() } else { 0..0 };
        for page in pages.clone() {
            tested |= ask(Ageing::Test, page, 1)?;
        }
        // What is in a TLB was accessed without the entry being touched. A processor may forget at any time, and here it does.
        kernel.forget_translations();
        let call = if flush { Ageing::ClearFlush } else { Ageing::Clear };
        let young = ask(call, range.start.page(), range.pages.into())?;
        if pages.is_empty() || tested == young {
            Ok(Exit::Young(young))
        } else {
            Err(Stop::Odd(format!("test_young says {tested}, and then {call:?} {young}")))
        }
    }
}

fn level_number(level: Level) -> u8 {
    level as u8 + 1
}
